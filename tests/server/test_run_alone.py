"""One process a run: a second one would charge the clients for a round twice."""

import subprocess
import sys

import pytest
from flwr.app import Context, RecordDict

import server.app
from common.config import defaults
from common.errors import ConfigError
from server.run_journal import alone, holds_run
from tests.server.conftest import FakeGrid

HOLDER = """
import sys, time
from pathlib import Path
from server.run_journal import alone
with alone(Path(sys.argv[1]), resume=False):
    print("held", flush=True)
    time.sleep(60)
"""


def context(out, **overrides) -> Context:
    return Context(
        run_id=7,
        node_id=1,
        node_config={"out": str(out), "public": str(out), "state": str(out / "state")},
        state=RecordDict(),
        run_config=defaults() | overrides,
    )


def is_held(out) -> bool:
    try:
        with alone(out, resume=True):
            return False
    except ConfigError as error:
        assert "another process works on this run" in str(error)
        return True


def test_a_folder_is_held_for_as_long_as_the_block(tmp_path):
    with alone(tmp_path / "run", resume=False):
        assert is_held(tmp_path / "run")
        with alone(tmp_path / "other", resume=False):
            assert is_held(tmp_path / "other")
    assert not is_held(tmp_path / "run")
    assert not holds_run(tmp_path / "run"), "the lock is no run"


def test_an_error_lets_go(tmp_path):
    with pytest.raises(ArithmeticError), alone(tmp_path, resume=False):
        raise ArithmeticError
    assert not is_held(tmp_path)


def test_a_holder_that_is_killed_lets_go(tmp_path):
    words = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            assert is_held(tmp_path)
        finally:
            holder.kill()
    assert not is_held(tmp_path)


@pytest.mark.parametrize("resume", [False, True])
def test_the_app_does_nothing_while_another_lives(tmp_path, resume):
    grid = FakeGrid({})
    with alone(tmp_path, resume=False), pytest.raises(ConfigError, match="another"):
        server.app.app(grid, context(tmp_path, **{"run.resume": resume}))
    assert grid.sent == []
    assert not holds_run(tmp_path)
    assert not list((tmp_path / "checkpoint").glob("[!.]*")), "no journal begun"


def test_the_app_holds_the_folder_while_it_works(tmp_path, monkeypatch):
    held = []

    def looks(*_):
        held.append(is_held(tmp_path))
        raise ArithmeticError

    monkeypatch.setattr(server.app, "_open_run", looks)
    with pytest.raises(ArithmeticError):
        server.app.app(FakeGrid({}), context(tmp_path))
    assert held == [True]
    assert not is_held(tmp_path)
