"""The postbox: fresh nonces, signed headers, acknowledgements, fitting replies."""

import hashlib
import json

import pytest
import torch
from flwr.app import RecordDict

from common import wire
from common.config import defaults, parse, to_flat
from common.errors import ProtocolError
from common.signature import check_signature, public_key
from server.messages import Postbox
from server.receipts import Receipts
from server.records import Recorder
from server.run_journal import Journal, RunFacts
from tests.server.conftest import RUN_ID, FakeGrid, failing, replying

SECRET = bytes(range(32))
CATALOGUE = "ab" * 32
FIRST, SECOND = "1" * 64, "2" * 64


def records() -> RecordDict:
    return RecordDict({wire.STUDENT: wire.pack_state({"w": torch.ones(3)})})


def config(**overrides):
    return parse(defaults() | {"run.name": "movies"} | overrides)


def postbox(tmp_path, grid, asked=None) -> Postbox:
    facts = RunFacts(str(RUN_ID), to_flat(asked or config()))
    return Postbox(
        grid,
        Journal(tmp_path / "out", facts, resumed=False),
        asked or config(),
        CATALOGUE,
        SECRET,
        Receipts(tmp_path / "state"),
        Recorder(tmp_path / "out"),
    )


def refusals(tmp_path) -> list[tuple[int, str]]:
    lines = (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()
    told = map(json.loads, lines)
    return [(e["round"], e["reason"]) for e in told if e["event"] == "refusal"]


def ask(box, number=1, kind=wire.TRAIN, nodes=(1, 2)):
    return box.ask(kind, number, records(), nodes)


def test_a_message_holds_the_content_and_the_runs_facts(tmp_path):
    grid = FakeGrid({1: replying(), 2: replying()})
    ask(postbox(tmp_path, grid), number=3)
    assert [message.metadata.dst_node_id for message in grid.sent] == [1, 2]
    for message in grid.sent:
        assert message.metadata.message_type == wire.TRAIN
        assert message.metadata.group_id == "3"
        assert message.metadata.ttl == config().run.round_timeout
        assert set(message.content) == {wire.STUDENT, wire.ROUND}
    first, second = grid.headers()
    assert first == second
    facts = (first.run, first.name, first.number, first.catalogue, first.acknowledged)
    assert facts == ("7", "movies", 3, CATALOGUE, "")


def test_the_content_that_was_given_is_left_alone(tmp_path):
    content = records()
    postbox(tmp_path, FakeGrid({1: replying()})).ask(wire.TRAIN, 1, content, [1])
    assert set(content) == {wire.STUDENT}


def test_each_question_has_a_nonce_of_its_own(tmp_path):
    grid = FakeGrid({1: replying(), 2: replying()})
    box = postbox(tmp_path, grid)
    for number in (1, 1, 2):
        ask(box, number)
    nonces = [header.nonce for header in grid.headers()]
    assert nonces[::2] == nonces[1::2], "one for all nodes of a question"
    assert len(set(nonces)) == 3
    ask(postbox(tmp_path, grid))
    assert grid.headers()[-1].nonce not in nonces


def seeded_nonce(tmp_path, number, **overrides) -> str:
    grid = FakeGrid({1: replying()})
    box = postbox(tmp_path, grid, config(**{"run.seed": 5} | overrides))
    ask(box, number, nodes=[1])
    return grid.headers()[0].nonce


def test_a_seeded_nonce_repeats_and_differs_by_seed_name_and_round(tmp_path):
    nonce = seeded_nonce(tmp_path, 1)
    assert nonce == hashlib.sha256(b'[5, "movies", 1]').hexdigest()[:32]
    assert nonce == seeded_nonce(tmp_path, 1)
    others = {
        seeded_nonce(tmp_path, 2),
        seeded_nonce(tmp_path, 1, **{"run.name": "music"}),
        seeded_nonce(tmp_path, 1, **{"run.seed": 6}),
        seeded_nonce(tmp_path, 1, **{"run.seed": 0}),
    }
    assert len(others | {nonce}) == 5


def test_a_message_is_signed_and_the_acknowledgement_is_not_under_it(tmp_path):
    grid = FakeGrid({1: replying(receipt=FIRST), 2: replying()})
    box = postbox(tmp_path, grid)
    for number in (1, 2):
        ask(box, number)
    one, two = grid.headers()[2:]
    assert (one.acknowledged, two.acknowledged) == (FIRST, "")
    assert one.signature == two.signature
    assert one.server == public_key(SECRET)
    for message in grid.sent:
        header = wire.unpack_header(message.content)
        check_signature(header, wire.TRAIN, message.content, to_flat(config()))
    with pytest.raises(ProtocolError):
        check_signature(one, wire.EVALUATE, grid.sent[2].content, to_flat(config()))


def test_each_node_is_told_the_last_receipt_it_gave(tmp_path):
    grid = FakeGrid({1: replying(receipt=FIRST), 2: replying(receipt=SECOND)})
    box = postbox(tmp_path, grid)
    ask(box, 1)
    grid.behaviours[1] = replying(receipt=SECOND)
    ask(box, 2)
    ask(box, 3)
    told = [header.acknowledged for header in grid.headers()]
    assert told == ["", "", FIRST, SECOND, SECOND, SECOND]


def test_another_postbox_remembers_the_receipts(tmp_path):
    ask(postbox(tmp_path, FakeGrid({1: replying(receipt=FIRST), 2: replying()})))
    grid = FakeGrid({1: replying(), 2: replying()})
    ask(postbox(tmp_path, grid))
    assert [header.acknowledged for header in grid.headers()] == [FIRST, ""]


@pytest.mark.parametrize(
    "answer",
    [
        replying(),
        failing("no"),
        replying(nonce="0" * 32, receipt=SECOND),
        lambda message: RecordDict(),
    ],
)
def test_only_a_fitting_reply_moves_the_receipt(tmp_path, answer):
    """An uncharged reply is none, nor is another round's."""
    grid = FakeGrid({1: replying(receipt=FIRST)})
    box = postbox(tmp_path, grid)
    ask(box, nodes=[1])
    grid.behaviours[1] = answer
    ask(box, nodes=[1])
    ask(box, nodes=[1])
    assert [h.acknowledged for h in grid.headers()] == ["", FIRST, FIRST]


@pytest.mark.parametrize(
    "change", [{"nonce": "0" * 32}, {"run": "8"}, {"number": 2}, {"number": 4}]
)
def test_a_reply_of_another_question_is_refused_and_recorded(tmp_path, change):
    grid = FakeGrid({1: replying(**change), 2: replying()})
    exchange = ask(postbox(tmp_path, grid), number=3)
    assert len(exchange.replies) == 1
    told = "Expected a reply of round 3 of this run, got another's."
    assert refusals(tmp_path) == [(3, told)]


def test_a_late_reply_to_the_same_round_is_no_reply_to_its_repetition(tmp_path):
    grid = FakeGrid({1: replying()})
    box = postbox(tmp_path, grid)
    ask(box, nodes=[1])
    late = grid.headers()[0].nonce
    grid.behaviours[1] = replying(nonce=late)
    assert ask(box, nodes=[1]).replies == ()
    assert len(refusals(tmp_path)) == 1


def test_a_reply_without_a_header_is_recorded(tmp_path):
    grid = FakeGrid({1: lambda message: RecordDict(), 2: replying()})
    assert len(ask(postbox(tmp_path, grid)).replies) == 1
    assert refusals(tmp_path) == [(1, "Expected a record 'round' in the message.")]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("The client refused.".ljust(64), "The client refused."),
        ("  spaced \n", "spaced"),
        ("", "no reason given"),
    ],
)
def test_reasons_lose_their_padding(tmp_path, reason, told):
    grid = FakeGrid({1: failing(reason)})
    assert ask(postbox(tmp_path, grid), number=2, nodes=[1]).replies == ()
    assert refusals(tmp_path) == [(2, told)]


def numbered(value: float):
    return replying({wire.UPDATE: wire.pack_state({"w": torch.full((3,), value)})})


def test_replies_come_in_the_order_of_the_nodes(tmp_path):
    answers = {node: numbered(float(node)) for node in (1, 2, 10)}
    grid = FakeGrid(answers, backwards=True)
    exchange = ask(postbox(tmp_path, grid), nodes=[10, 2, 1])
    states = [
        wire.unpack_state(reply, wire.UPDATE, {"w": (3,)}) for reply in exchange.replies
    ]
    assert [state["w"][0].item() for state in states] == [1.0, 2.0, 10.0]


def test_bytes_are_of_one_message_and_of_the_largest_reply(tmp_path):
    grid = FakeGrid({1: replying(), 2: numbered(0.0)})
    exchange = ask(postbox(tmp_path, grid))
    assert exchange.bytes_down == wire.num_bytes(grid.sent[0].content)
    assert exchange.bytes_up == max(map(wire.num_bytes, exchange.replies))
    assert exchange.bytes_up > wire.num_bytes(exchange.replies[0])


def test_nobody_asked_nobody_answers(tmp_path):
    exchange = ask(postbox(tmp_path, FakeGrid({})), nodes=[])
    assert (exchange.replies, exchange.bytes_down, exchange.bytes_up) == ((), 0, 0)


def test_a_clients_reason_is_kept_short_and_cannot_steer_a_terminal(tmp_path):
    evil = "x\x1b]0;owned\x07\x1b[2J\nComplete" + "z" * 1_000_000
    grid = FakeGrid({1: failing(evil)})
    ask(postbox(tmp_path, grid), nodes=[1])
    ((_, told),) = refusals(tmp_path)
    assert told == "x?]0;owned??[2J?Complete" + "z" * 176
    assert len(told) == 200
    assert (tmp_path / "out" / "metrics.jsonl").stat().st_size < 400


def test_each_node_can_be_asked_something_of_its_own(tmp_path):
    grid = FakeGrid(
        {
            1: replying(receipt=FIRST),
            2: replying(receipt=SECOND),
            3: failing("refused"),
            4: replying(nonce="0" * 32),
        }
    )
    box, taken = postbox(tmp_path, grid), []

    def take(node, content):
        taken.append(node)
        if node == 2:
            raise ProtocolError("Expected another answer.")

    own = {
        node: RecordDict({wire.TOLD: wire.pack_bytes(bytes([node]))})
        for node in (1, 2, 3, 4)
    }
    counts = box.ask_each(wire.MASKED, 5, records(), own, take)
    assert (taken, counts.asked, counts.taken) == ([1, 2], 4, 1)
    for message in grid.sent:
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        assert (kind, message.metadata.group_id) == (wire.MASKED, "5")
        assert set(message.content) == {wire.STUDENT, wire.TOLD, wire.ROUND}
        assert wire.unpack_bytes(message.content, wire.TOLD) == bytes([node])
        header = wire.unpack_header(message.content)
        check_signature(header, kind, message.content, to_flat(config()))
        message.content[wire.TOLD] = wire.pack_bytes(bytes([node + 1]))
        with pytest.raises(ProtocolError):
            check_signature(header, kind, message.content, to_flat(config()))
    assert sorted(reason for _, reason in refusals(tmp_path)) == [
        "Expected a reply of round 5 of this run, got another's.",
        "Expected another answer.",
        "refused",
    ]
    ask(box, 6)
    receipts = [header.acknowledged for header in grid.headers(wire.TRAIN)]
    assert receipts == [FIRST, SECOND]
