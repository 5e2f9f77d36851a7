"""The processes that run a bundle's code: real ones, on loopback."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from flwr.common.constant import ErrorCode
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supernode.nodestate import NodeStateFactory

from client.deploy import guard
from client.deploy.node import Workers, start_api, take_tasks
from client.deploy.pins import pin
from tests.client.node_world import World, build

pytestmark = [pytest.mark.slow, pytest.mark.processes]


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "0000"
    place.mkdir()
    return place


@pytest.fixture
def world(folder):
    return World(folder)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


def wait_for(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


class TestTheWorker:
    """Real processes on loopback: the runtime API, a worker, a bundle's own code."""

    @pytest.fixture
    def start(self, world, free_port, monkeypatch):
        """Starts the node's runtime API and its worker; ends both."""
        monkeypatch.setenv("PYTHONPATH", str(world.folder / "trap"))
        factory = NodeStateFactory(ObjectStoreFactory())
        factory.state_instance = world.state
        home = world.folder / ".flower"
        home.mkdir()
        with contextlib.ExitStack() as stack:

            def start():
                stack.callback(start_api(factory, free_port, b"secret"))
                workers = Workers(f"127.0.0.1:{free_port}", home)
                stack.callback(workers.close)
                stop = threading.Event()
                given = (world.state, workers, stop)
                thread = threading.Thread(target=take_tasks, args=given)
                thread.start()
                stack.callback(thread.join)
                stack.callback(stop.set)
                return workers

            yield start

    @pytest.fixture
    def free_port(self):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            return found.getsockname()[1]

    def reply(self, world):
        return wait_for(lambda: world.state.get_messages_legacy(is_reply=True))

    def test_pinned_code_runs_and_answers_and_no_other(self, world, start, marker):
        trap = world.folder / "trap"
        trap.mkdir()
        (trap / "client_app.py").write_text("raise SystemExit('a trap')")
        foreign, pinned = build(marker, "foreign"), build(marker, "pinned")
        pin(world.folder, pinned)
        start()
        assert world.send(foreign, run=1).error.code == ErrorCode.INVALID_FAB
        assert not marker.exists()
        assert world.send(pinned, run=2) is None
        (reply,) = self.reply(world)
        assert not reply.has_error()
        assert marker.read_text() == "pinned"

    def test_a_worker_that_was_killed_is_started_again(self, world, start, marker):
        bundle = build(marker)
        pin(world.folder, bundle)
        workers = start()
        workers._process.kill()
        workers._process.wait()
        assert world.send(bundle) is None
        (reply,) = self.reply(world)
        assert not reply.has_error()
        assert marker.exists()

    def test_a_pin_taken_back_before_the_code_starts_keeps_it_out(
        self, world, start, marker
    ):
        bundle = build(marker)
        pin(world.folder, bundle)
        assert world.send(bundle) is None  # let in, and no worker yet
        pin(world.folder, build(marker, "new"), only=True)
        start()
        (reply,) = self.reply(world)
        assert reply.has_error()
        assert not marker.exists()
        assert not list((world.folder / ".flower").rglob("client_app.py"))


def test_forks_of_one_worker_draw_other_numbers():
    program = (
        "import runpy, os, random, sys, numpy, torch\n"
        f"w = runpy.run_path({str(Path(guard.__file__).with_name('worker.py'))!r})\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        w['reseed']()\n"
        "        print(random.random(), numpy.random.rand(), torch.rand(1).item())\n"
        "        sys.exit(0)\n"
        "    os.wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    first, second = (line.split() for line in done.stdout.splitlines())
    assert len(first) == 3
    assert not set(first) & set(second)
