"""A full disk, a pulled cable, a frozen process: nothing lost, and it goes on."""

import signal

import pytest

from client.release import CLOSED
from simulations.deployment.layout import read_deployment
from simulations.faults import disk, network

#: A round by which a node that was away is back, however quick rounds are.
LATER = 12

pytestmark = [pytest.mark.slow, pytest.mark.faults]
NODE = "node-0002"


@pytest.fixture(scope="module")
def mounts(tmp_path_factory):
    if not disk.is_allowed(tmp_path_factory.mktemp("disk")):
        pytest.skip("needs the right to mount a file system")


class TestAFullDisk:
    def test_of_a_client_costs_its_rounds_and_nothing_else(self, federation, mounts):
        federation.stop(NODE)
        folder = federation.client("0002").folder
        with disk.small_disk(folder, 16):
            federation.restart(NODE)
            run = federation.submit("full", training__rounds=4)
            federation.wait(lambda: federation.events("full", "round"), 60)
            disk.fill(folder)
            federation.wait(lambda: federation.events("full", "refusal"), 60)
            disk.free(folder)
            assert federation.end_of(run).status == "completed"
            federation.stop(NODE)
        federation.restart(NODE)
        survivors = federation.survivors("full")
        assert survivors[1] == (3, 3)
        assert survivors[4] == (3, 3)
        (refused,) = federation.events("full", "refusal")
        assert refused["reason"] == CLOSED.strip()
        assert survivors[refused["round"]] == (2, 3)
        assert "the disk is full. Make room; nothing was lost." in federation.log(NODE)
        charged = [c.number for c in federation.charges("0002", "full")]
        assert charged == [n for n in (1, 2, 3, 4) if n != refused["round"]]

    def test_of_the_server_stops_the_run_which_is_resumed(self, federation, mounts):
        runs = federation.layout.runs
        runs.mkdir(exist_ok=True)
        with disk.small_disk(runs, 16):
            run = federation.submit("server", training__rounds=3)
            federation.wait(lambda: federation.events("server", "round"), 60)
            disk.fill(runs)
            state = federation.end_of(run)
            assert state.status == "failed"
            assert "No space left on device" in state.details
            disk.free(runs)
            again = federation.submit("server", resume=True, training__rounds=3)
            assert federation.end_of(again).status == "completed"
        assert federation.survivors("server") == dict.fromkeys((1, 2, 3), (3, 3))
        for name in federation.names:
            numbers = [c.number for c in federation.charges(name, "server")]
            assert numbers == [1, 2, 3]


class TestAConnection:
    def test_of_a_frozen_node_is_missed_before_the_deadline(self, federation):
        with federation.written(NODE, "Receiving: train"):
            run = federation.submit("frozen", training__rounds=LATER)
        process = federation.process(NODE)
        process.send_signal(signal.SIGSTOP)
        federation.wait(lambda: federation.events("frozen", "round"), 60)
        process.send_signal(signal.SIGCONT)
        assert federation.end_of(run).status == "completed"
        assert federation.survivors("frozen")[1] == (2, 3)
        assert federation.survivors("frozen")[LATER] == (3, 3)
        (reason,) = federation.reasons("frozen", 1)
        assert "Node Unavailable" in reason

    @pytest.mark.skipif(not network.is_allowed(), reason="needs a network of its own")
    def test_cut_and_mended(self, federation):
        link = read_deployment(federation.folder).superlink
        federation.stop(NODE)
        with network.cable((link.host, link.port)) as cable:
            federation.restart(NODE, cable.command(federation.command(NODE)))
            with federation.written(NODE, "Receiving: train"):
                run = federation.submit("cut", training__rounds=LATER)
            cable.cut()
            federation.wait(lambda: federation.events("cut", "round"), 60)
            cable.mend()
            assert federation.end_of(run).status == "completed"
            survivors = federation.survivors("cut")
            federation.stop(NODE)
        federation.restart(NODE)
        assert survivors[1] == (2, 3)
        assert survivors[LATER] == (3, 3)
