"""Before an app's own exit door: no half bundle runs, and no reason leaves."""

import runpy
import shutil
import sys
import threading
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.cli import install as flower_install
from flwr.clientapp.client_app import LoadClientAppError
from flwr.common.constant import ErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime import run_clientapp as flower

from client.deploy import guard
from client.deploy.pins import hash_of
from tests.client.node_world import PROJECT, build

WORKER = runpy.run_path(str(Path(guard.__file__).with_name("worker.py")))
install, silence = WORKER["install"], WORKER["silence"]
FIXED = "An exception was raised when attempting to load `ClientApp`"


@pytest.fixture
def home(tmp_path, monkeypatch):
    place = tmp_path / "SECRET" / ".flower"
    place.mkdir(parents=True)
    monkeypatch.setenv("FLWR_HOME", str(place))
    return place


@pytest.fixture
def bundle(tmp_path):
    return build(tmp_path / "ran")


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full from its third file on, while the list holds anything."""
    copy, written, full = shutil.copy2, [], [True]

    def until_full(source, target, **more):
        written.append(source)
        if full and len(written) > 2:
            raise OSError(28, "No space left on device", str(target))
        return copy(source, target, **more)

    monkeypatch.setattr(flower_install.shutil, "copy2", until_full)
    return full


def unpacked(home):
    return sorted(p for p in (home / "apps").rglob("*") if p.is_file())


class TestInstalling:
    def test_all_of_it_is_in_flowers_own_place(self, home, bundle):
        place = install(bundle, skip_prompt=True)
        assert place == home / f"apps/somebody.foreign.1.0.0.{hash_of(bundle)[:8]}"
        names = [path.relative_to(place).as_posix() for path in unpacked(home)]
        assert names == ["client_app.py", "pyproject.toml", "server.py"]

    def test_after_a_full_disk_nothing_is_left_and_the_next_task_has_it_all(
        self, home, bundle, full_disk
    ):
        with pytest.raises(OSError, match="No space left"):
            install(bundle, skip_prompt=True)
        assert unpacked(home) == []
        full_disk.clear()
        install(bundle, skip_prompt=True)
        assert len(unpacked(home)) == 3

    def test_what_is_there_is_not_written_again(self, home, bundle, monkeypatch):
        place = install(bundle, skip_prompt=True)
        monkeypatch.setattr(
            flower_install, "install_from_fab", lambda *given, **more: pytest.fail()
        )
        assert install(bundle, skip_prompt=True) == place

    def test_tasks_that_begin_together_find_one_whole_bundle(self, home, bundle):
        gate, found = threading.Barrier(4), []

        def begin():
            gate.wait()
            found.append(install(bundle, skip_prompt=True))

        tasks = [threading.Thread(target=begin) for _ in range(4)]
        for task in tasks:
            task.start()
        for task in tasks:
            task.join()
        assert len(found) == 4
        assert len(set(found)) == 1
        assert len(unpacked(home)) == 3
        assert [p.name for p in (home / "apps").iterdir()] == [found[0].name]


class TestWhatTheServerIsTold:
    @pytest.fixture
    def task(self, home, monkeypatch):
        """Runs Flower's own function on a bundle, with the worker's doors shut."""
        for name in ("install_from_fab", "get_load_client_app_fn"):
            monkeypatch.setattr(flower, name, getattr(flower, name))
        monkeypatch.setattr(sys, "path", list(sys.path))
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 7, 1
        message = Message(RecordDict(), 7, "train")
        context = Context(1, 7, {}, RecordDict(), {})
        sent, ended = [], []

        def run(content, *, shut=True):
            facts = Run.create_empty(1)
            facts.fab_id, facts.fab_version = "somebody/foreign", "1.0.0"
            fab = Fab(hash_of(content), content, {})
            given = message, context, facts, fab
            monkeypatch.setattr(flower, "pull_task_input", lambda client: given)
            monkeypatch.setattr(flower, "push_message", lambda c, m, x: sent.append(m))
            monkeypatch.setattr(
                flower, "push_task_output", lambda **more: ended.append(more)
            )
            monkeypatch.setattr(flower, "HeartbeatSender", Beats)
            monkeypatch.setattr(flower, "register_signal_handlers", lambda **more: 0)
            monkeypatch.setattr(flower, "flwr_exit", lambda **more: None)
            if shut:
                silence(flower)
            flower.run_clientapp("127.0.0.1:1", "token", insecure=True)
            sys.modules.pop("client_app", None)
            return sent[-1]

        return run

    def test_a_full_disk_is_no_news(self, task, bundle, full_disk, capfd):
        reply = task(bundle)
        assert reply.error.code == ErrorCode.LOAD_CLIENT_APP_EXCEPTION
        assert reply.error.reason == FIXED
        full_disk.clear()
        assert task(bundle).has_content()

    def test_flower_itself_would_tell_it(self, task, bundle, full_disk):
        """Power: the doors are what keeps it in."""
        assert "SECRET" in task(bundle, shut=False).error.reason

    @pytest.mark.parametrize(
        "code",
        [
            "raise KeyError('SECRET')",
            "import no_such_module_SECRET",
            "open('/no/such/SECRET')",
            "syntax error SECRET",
            "",
        ],
    )
    def test_neither_is_why_an_app_cannot_be_imported(self, task, code):
        reply = task(packed(code))
        assert reply.error.code == ErrorCode.LOAD_CLIENT_APP_EXCEPTION
        assert reply.error.reason == FIXED

    def test_nor_why_a_bundle_cannot_be_read(self, task):
        assert task(b"no zip SECRET").error.reason == FIXED

    def test_the_local_log_names_the_type(self, task, caplog, monkeypatch):
        monkeypatch.setattr(WORKER["logging"].getLogger("flwr"), "propagate", True)
        task(packed("raise KeyError('SECRET')"))
        assert "A pinned bundle could not be loaded: KeyError." in caplog.text
        assert "SECRET" not in caplog.text


class Beats:
    """A heartbeat that nobody hears."""

    is_running = False

    def __init__(self, beat):
        pass

    def start(self):
        """Nothing."""


def packed(code):
    from flwr.cli.build import build_fab_from_files

    files = {"pyproject.toml": PROJECT, "client_app.py": code, "server.py": "app = 1"}
    return build_fab_from_files({k: v.encode() for k, v in files.items()})[0]


def test_a_changed_name_of_flower_stops_the_worker(monkeypatch):
    monkeypatch.delattr(flower, "get_load_client_app_fn")
    with pytest.raises(AttributeError):
        silence(flower)


def test_an_error_of_the_steps_is_one_that_flower_knows(home):
    quiet = WORKER["silenced"](lambda: Path("/no/such/SECRET").stat())
    with pytest.raises(LoadClientAppError) as caught:
        quiet()
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None
