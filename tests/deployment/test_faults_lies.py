"""A registered node that does not do what it should: each lie costs itself alone."""

import pytest

from simulations.deployment.layout import read_deployment
from simulations.faults.liar import Liar, command
from simulations.faults.lies import LATE

pytestmark = [pytest.mark.slow, pytest.mark.faults]

NODE, CLIENT = "node-0002", "0002"
#: Round → what the third node sends, and what the record says of it.
WRONG = {
    1: ("garbage", "Expected readable arrays, got others."),
    2: ("pickle", "Expected readable arrays, got others."),
    3: ("empty", "Expected a record 'round' in the message."),
    4: ("old-version", "update the sender, which is older."),
    5: ("another-round", "Expected a reply of round 5 of this run, got another's."),
    6: ("wrong-shape", "expected float32 (60,), got float32 (3,)."),
    7: ("nan", "expected finite values, got others."),
    8: ("infinite", "expected finite values, got others."),
    9: ("large", "Expected tensors"),
}
#: What comes too late, or never whole.
SILENT = {1: "scrambled", 2: "half-sent", 3: "late", 5: "hang"}
TIMEOUT = 24.0


@pytest.fixture(scope="module", autouse=True)
def truthful_again(federation):
    yield
    federation.stop(NODE)
    federation.restart(NODE)


def run(federation, name, lies, rounds, **changed):
    """A run of the two honest nodes and the liar."""
    place = federation.client(CLIENT)
    address = read_deployment(federation.folder).superlink.address
    liar = Liar(address, place.ca_certificate, place.node_key, lies)
    federation.stop(NODE)
    federation.restart(NODE, command(liar))
    run = federation.submit(name, training__rounds=rounds, **changed)
    state = federation.end_of(run, 280)
    assert state.status == "completed", state.details
    return federation


@pytest.fixture(scope="module")
def wrong(federation):
    lies = {number: name for number, (name, _) in WRONG.items()}
    return run(federation, "wrong", lies, len(lies) + 1, run__round_timeout=60.0)


@pytest.fixture(scope="module")
def silent(federation):
    assert TIMEOUT < LATE
    return run(federation, "silent", SILENT, 6, run__round_timeout=TIMEOUT)


class TestAReplyThatDoesNotFit:
    @pytest.mark.parametrize("number", WRONG)
    def test_is_named_and_costs_itself_alone(self, wrong, number):
        (reason,) = wrong.reasons("wrong", number)
        assert WRONG[number][1] in reason
        assert wrong.survivors("wrong")[number] == (2, 3)

    def test_does_not_keep_the_node_out_of_the_next_round(self, wrong):
        assert wrong.survivors("wrong")[len(WRONG) + 1] == (3, 3)

    def test_costs_the_others_no_round_and_none_twice(self, wrong):
        for name in ("0000", "0001"):
            numbers = [charge.number for charge in wrong.charges(name, "wrong")]
            assert numbers == list(range(1, len(WRONG) + 2))


class TestAReplyThatDoesNotCome:
    @pytest.mark.parametrize("number", SILENT)
    def test_is_not_waited_for_after_the_deadline(self, silent, number):
        (line,) = [e for e in silent.events("silent", "round") if e["round"] == number]
        assert (line["survivors"], line["num_clients"]) == (2, 3)
        assert line["seconds"]["wait"] < TIMEOUT + 4.0
        # Whose text it is depends on who looks first: ours, or Flower's.
        (reason,) = silent.reasons("silent", number)
        assert reason.startswith("No reply")

    def test_is_not_taken_for_the_next_round_when_it_comes(self, silent):
        # The late reply to round 3 came while round 4 was open.
        assert silent.survivors("silent")[4] == (3, 3)
        assert silent.survivors("silent")[6] == (3, 3)
        assert silent.reasons("silent", 4) == []
