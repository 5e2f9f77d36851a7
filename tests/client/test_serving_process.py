"""The command itself, in a process of its own: begun, killed, begun again, ended."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.__main__ import app
from client.data import read_client_data
from client.feedback import read_feedback
from client.proto import recommender_pb2 as pb
from client.store_key import FEEDBACK
from client.vault import Key
from common.errors import ConfigError
from tests.client.serving_parts import asking, calling, served_folder, telling

ROOT = Path(__file__).parents[2]
SECRET = bytes(range(32))
KEY = Key(SECRET, stretched=False)


@contextmanager
def process(home: Path, *options: str):
    """A running service, and its address."""
    command = [sys.executable, "-m", "client", "serve", str(home), "--engine", "torch"]
    running = subprocess.Popen(
        [*command, *options],
        cwd=ROOT,
        env=os.environ | {"STORE": SECRET.hex(), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = running.stdout.readline()
        assert line.startswith("Serving on "), line + running.stderr.read()
        yield running, line.split()[2].rstrip(",")
    finally:
        running.kill()
        running.communicate(timeout=20)


@pytest.mark.slow
def test_feedback_outlives_kill_9_and_is_sealed(tmp_path: Path) -> None:
    home = served_folder(tmp_path / "0000", **{"store-key": "env:STORE"})
    kept = []
    with process(home) as (running, address), calling(address) as stub:
        assert address == f"unix:{home}/serving.sock"
        for number in range(4, 11):
            assert stub.Feedback(telling("u0", f"i{number}")).stored == 1
            kept.append(f"i{number}")
        os.kill(running.pid, signal.SIGKILL)
        running.wait(20)
    assert read_feedback(home, KEY)["item"].to_list() == kept
    assert b"i10" not in (home / FEEDBACK).read_bytes()
    # The socket that was left behind is in nobody's way.
    with process(home) as (running, address), calling(address) as stub:
        reply = stub.Recommend(pb.RecommendRequest(user="u0", k=12))
        assert {each.item for each in reply.items} == {"i11"}
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
        log = running.stderr.read()
    assert "draining" in log and "Traceback" not in log
    assert not any(f"i{n}" in log.split() or "u0" in log.split() for n in range(12))
    os.environ["STORE"] = SECRET.hex()
    try:
        assert read_client_data(home).histories[0].nnz == 11
    finally:
        del os.environ["STORE"]


def test_an_interrupt_ends_it_as_well(tmp_path: Path) -> None:
    home = served_folder(tmp_path / "0000")
    with process(home, "--listen", "127.0.0.1:0") as (running, address):
        with calling(address) as stub:
            assert stub.Recommend(asking("i1")).items
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--listen", "0.0.0.0:0"), "--certificate, --private-key and --token"),
        (("--engine", "jax"), "--engine"),
        (("--rate", "-1"), "--rate"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_served(
    tmp_path: Path, options, text
) -> None:
    home = served_folder(tmp_path / "0000")
    done = CliRunner().invoke(app, ["serve", str(home), *options])
    assert isinstance(done.exception, ConfigError) and text in str(done.exception)
    assert not (home / FEEDBACK).exists()
