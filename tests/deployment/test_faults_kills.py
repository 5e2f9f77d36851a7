"""kill -9 to every part in every phase: the others go on, a round is paid once."""

import pytest

from simulations.deployment.processes import EXECUTOR, SUPERLINK

pytestmark = [pytest.mark.slow, pytest.mark.faults]
NAMES = ("0000", "0001", "0002")
STATISTICS = {"statistics__share": 0.3, "statistics__noise_multiplier": 4.0}


def paid(federation, run):
    """By client: (question, round) charged; none twice."""
    found = {}
    for name in NAMES:
        charges = [(c.purpose, c.number) for c in federation.charges(name, run)]
        assert len(set(charges)) == len(charges)
        found[name] = sorted(charges)
    return found


def came(federation, run):
    """Round → how many contributed."""
    return {n: count for n, (count, _) in federation.survivors(run).items()}


class TestANode:
    """It is back as soon as the SuperLink has missed its heartbeats."""

    def test_killed_before_it_is_asked(self, federation):
        federation.kill("node-0002")
        run = federation.submit("before", training__rounds=1)
        federation.restart("node-0002")
        assert federation.end_of(run).status == "completed"
        assert federation.survivors("before")[1] == (2, 3)
        assert paid(federation, "before")["0000"] == [("train", 1)]

    def test_killed_while_it_trains(self, federation):
        with federation.written("node-0001", "Receiving: train"):
            run = federation.submit("within", training__rounds=3)
        federation.kill("node-0001")
        federation.restart("node-0001")
        assert federation.end_of(run).status == "completed"
        found = came(federation, "within")
        assert found[1] == 2
        assert found[3] == 3
        charged = paid(federation, "within")
        assert charged["0000"] == [("train", 1), ("train", 2), ("train", 3)]
        # Killed after its charge, it has spent the round; before it, it has not.
        assert ("train", 3) in charged["0001"]

    def test_killed_after_its_reply(self, federation):
        with federation.written("node-0001", "Sent successfully"):
            run = federation.submit("after", training__rounds=3)
        federation.kill("node-0001")
        federation.restart("node-0001")
        assert federation.end_of(run).status == "completed"
        found = came(federation, "after")
        assert found[1] == 3
        assert found[3] == 3
        charged = paid(federation, "after")
        assert ("train", 1) in charged["0001"]
        assert ("train", 3) in charged["0001"]

    def test_killed_in_the_statistics(self, federation):
        with federation.written("node-0001", "Receiving: train.statistics"):
            run = federation.submit("sums", training__rounds=2, **STATISTICS)
        federation.kill("node-0001")
        federation.restart("node-0001")
        assert federation.end_of(run).status == "completed"
        pairs, _ = federation.events("sums", "statistics")
        assert (pairs["survivors"], pairs["num_clients"]) == (2, 3)
        assert came(federation, "sums")[2] == 3
        # What it had no part in cannot be made good, and costs it nothing more.
        assert len(paid(federation, "sums")["0000"]) == 4


class TestTheServer:
    @pytest.mark.parametrize("part", ["app", EXECUTOR])
    def test_whose_app_is_killed_or_loses_its_parent_is_resumed(self, federation, part):
        with federation.written("node-0001", "Receiving: train"):
            run = federation.submit(part, training__rounds=2)
        if part == EXECUTOR:
            federation.kill(EXECUTOR)  # its children end with it
            federation.start(EXECUTOR)
            assert federation.end_of(run).status == "failed"
        else:
            federation.kill_server_app()
            federation.stop_run(run)
        assert federation.survivors(part) == {}
        again = federation.submit(part, resume=True, training__rounds=2)
        assert federation.end_of(again).status == "completed"
        assert federation.survivors(part) == {1: (3, 3), 2: (3, 3)}
        for charged in paid(federation, part).values():
            assert charged == [("train", 1), ("train", 2)]

    def test_whose_superlink_is_killed_goes_on(self, federation):
        with federation.written("node-0001", "Receiving: train"):
            run = federation.submit("link", training__rounds=2)
        federation.kill(SUPERLINK)
        federation.start(SUPERLINK)
        assert federation.end_of(run).status == "completed"
        assert federation.survivors("link") == {1: (3, 3), 2: (3, 3)}
        for charged in paid(federation, "link").values():
            assert charged == [("train", 1), ("train", 2)]
