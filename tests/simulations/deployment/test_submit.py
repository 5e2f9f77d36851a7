"""A run is submitted once at a time, and its promise is not said for others."""

import contextlib
import sys

import psutil
import pytest

from client.deploy.keys import make_node_key
from client.deploy.pins import hash_of, pin
from common.config import defaults, parse
from common.errors import ConfigError
from common.promise import PINNED, SEEDED, UNPINNED
from simulations.deployment import laboratory
from simulations.deployment.control import NodeState, RunState
from simulations.deployment.laboratory import ELSEWHERE, load_public_key
from simulations.deployment.layout import (
    ClientPorts,
    Deployment,
    Layout,
    SuperLink,
    write_deployment,
)
from simulations.deployment.processes import end, living, start

CONFIG = parse(defaults() | {"run.name": "first", "privacy.noise-multiplier": 5.0})
SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
NAMES = ("0000", "0001")
BUNDLE = b"a bundle"


class World:
    """A folder with two clients' keys and pins, and what the SuperLink would say."""

    def __init__(self, root):
        ports = [
            ClientPorts(name=name, node_port=40000 + n, monitor_port=41000 + n)
            for n, name in enumerate(NAMES)
        ]
        link = SuperLink(port=42000, public="127.0.0.1:42000", monitor_port=42001)
        deployment = Deployment(name="lab", superlink=link, clients=tuple(ports))
        self.layout, self.known, self.listed, self.sent = Layout(root), [], [], []
        write_deployment(self.layout, deployment)
        self.layout.bundle.parent.mkdir()
        self.layout.bundle.write_bytes(BUNDLE)
        self.layout.bundle_hash.write_text(hash_of(BUNDLE))
        for place in map(self.layout.client, NAMES):
            place.keys.mkdir(parents=True)
            make_node_key(place.node_key, place.node_public_key, place.name)
            pin(place.folder, BUNDLE)
            key = load_public_key(place.node_public_key)
            self.known.append(NodeState(place.name, "online", key))

    def live(self, *names):
        for name in names:
            start(self.layout, f"node-{name}", SLEEP)

    def nodes(self):
        return self.known

    def runs(self):
        return self.listed

    def submit(self, bundle, name, overrides):
        self.sent.append(overrides)
        return 5


@pytest.fixture
def world(tmp_path, monkeypatch):
    found = World(tmp_path)
    monkeypatch.setattr(
        laboratory, "connect", lambda folder: contextlib.nullcontext(found)
    )
    yield found
    end(found.layout, grace=0.1)


def submit(world, *, resume=False):
    return laboratory.submit(world.layout.root, CONFIG, resume=resume)


def earlier(world):
    out = world.layout.runs / "first"
    out.mkdir(parents=True)
    (out / "metrics.jsonl").write_text("")


def listed(status, name="first"):
    return RunState(3, status, "", name, "ab", "2026")


class TestARunsName:
    def test_results_are_never_written_over(self, world):
        earlier(world)
        with pytest.raises(ConfigError, match=r"earlier run.*--name.*--resume"):
            submit(world)

    def test_there_has_to_be_something_to_resume(self, world):
        with pytest.raises(ConfigError, match=r"--resume.*first"):
            submit(world, resume=True)

    @pytest.mark.parametrize("status", ["pending", "starting", "running"])
    @pytest.mark.parametrize("resume", [False, True])
    def test_a_run_that_lives_is_not_met_by_another(self, world, status, resume):
        if resume:
            earlier(world)
        world.listed = [listed("failed"), listed(status)]
        with pytest.raises(ConfigError, match=rf"Run 3 named first .* {status}: wait"):
            submit(world, resume=resume)
        assert world.sent == []

    @pytest.mark.parametrize("status", ["completed", "failed", "stopped"])
    def test_one_that_is_over_may_be_resumed_beside_others(self, world, status):
        earlier(world)
        world.listed = [listed(status), listed("running", "second")]
        assert submit(world, resume=True).run == 5
        (overrides,) = world.sent
        assert overrides["privacy.noise-multiplier"] == 5.0


class TestThePromise:
    def test_all_pinned_and_all_here(self, world):
        world.live(*NAMES)
        promise = submit(world).promise
        assert promise.endswith(PINNED)

    def test_one_has_pinned_other_code(self, world):
        world.live(*NAMES)
        place = world.layout.client("0001")
        place.settings.unlink()
        pin(place.folder, b"another")
        assert submit(world).promise.endswith(UNPINNED)

    def claims_nothing(self, world):
        promise = submit(world).promise
        assert promise.endswith(ELSEWHERE)
        assert PINNED not in promise
        assert UNPINNED not in promise

    def test_a_node_that_was_not_started_here_may_go_by_other_settings(self, world):
        world.live("0000")
        self.claims_nothing(world)

    def test_so_may_one_that_ended(self, world):
        world.live(*NAMES)
        process = living(world.layout)["node-0001"]
        process.kill()
        psutil.wait_procs([process], timeout=5.0)
        self.claims_nothing(world)

    def test_so_may_a_node_that_is_no_client_of_this_folder(self, world):
        world.live(*NAMES)
        world.known.append(NodeState("stranger", "offline", b"another key"))
        self.claims_nothing(world)

    def test_a_seed_in_a_clients_settings_is_told(self, world):
        world.live(*NAMES)
        assert SEEDED not in submit(world).promise
        settings = world.layout.client("0001").settings
        settings.write_text(f"seed = 3\n{settings.read_text()}")
        assert SEEDED in submit(world).promise

    def test_also_where_the_nodes_are_elsewhere(self, world):
        world.layout.client("0000").settings.unlink()
        settings = world.layout.client("0001").settings
        settings.write_text(f"seed = 3\n{settings.read_text()}")
        promise = submit(world).promise
        assert SEEDED in promise
        assert promise.endswith(ELSEWHERE)

    def test_settings_that_cannot_be_read_start_no_run(self, world):
        world.layout.client("0001").settings.write_text("seed = ")
        with pytest.raises(ConfigError, match=r"settings\.toml"):
            submit(world)
        assert world.sent == []
