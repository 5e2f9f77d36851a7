"""Who falls silent, when, and what of a round a silent client misses."""

import hashlib
from collections import Counter

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from common import wire
from common.config import defaults
from simulations.dropouts import is_missed, silent_from, unreliable

SEED = 7


class Eager(ClientApp):
    """Answers everything, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = 0

    def __call__(self, message: Message, context: Context) -> Message:
        self.answered += 1
        return Message(RecordDict(), reply_to=message)


def asked(kind: str, number: int) -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    digest = hashlib.sha256(b"catalogue").hexdigest()
    header = wire.RoundHeader("1", "run", number, "0" * 32, digest)
    content = RecordDict({wire.ROUND: wire.pack_header(header)})
    message = Message(content, 2, kind)
    message.metadata.__dict__["_message_id"] = "sent"
    return message


def at(folder: str) -> Context:
    return Context(1, 2, {"folder": f"clients/{folder}"}, RecordDict(), {})


def app(dropout: float) -> tuple[Eager, ClientApp]:
    inner = Eager()
    settings = {"partition.dropout": dropout, "partition.seed": SEED}
    return inner, unreliable(inner, defaults() | settings)


def test_without_drop_outs_nothing_stands_between() -> None:
    inner, outer = app(0.0)
    assert outer is inner


def test_a_tenth_falls_silent_and_every_phase_is_as_likely() -> None:
    draws = 20_000
    found = Counter(silent_from(f"{n:04d}", 1, 0.1, SEED) for n in range(draws))
    silent = draws - found.pop(None)
    assert abs(silent - 0.1 * draws) < 4 * (0.09 * draws) ** 0.5
    assert sorted(found) == list(range(len(wire.SECURE)))
    share = silent / len(wire.SECURE)
    assert all(abs(count - share) < 4 * share**0.5 for count in found.values())


def test_who_is_silent_differs_by_round_client_and_seed_alone() -> None:
    def drawn(clients: range, number: int, seed: int) -> list[int | None]:
        return [silent_from(f"{n:04d}", number, 0.5, seed) for n in clients]

    first = drawn(range(50), 1, SEED)
    assert first == drawn(range(50), 1, SEED)
    assert first != drawn(range(50), 2, SEED)
    assert first != drawn(range(50), 1, SEED + 1)
    assert first != drawn(range(50, 100), 1, SEED)


@pytest.mark.parametrize("phase", range(len(wire.SECURE)))
def test_who_is_silent_stays_silent_until_the_round_ends(phase: int) -> None:
    missed = [is_missed(kind, phase) for kind in wire.SECURE]
    assert missed == [step >= phase for step in range(len(wire.SECURE))]
    assert is_missed(wire.TRAIN, phase) and is_missed(wire.STATISTICS, phase)
    assert not is_missed(wire.DELIVER, phase)


def test_a_silent_client_is_not_asked_and_the_server_gets_an_error() -> None:
    inner, outer = app(0.3)
    for number in range(1, 60):
        phase = silent_from("0003", number, 0.3, SEED)
        for step, kind in enumerate(wire.SECURE):
            before = inner.answered
            reply = outer(asked(kind, number), at("0003"))
            silent = phase is not None and step >= phase
            assert reply.has_error() == silent
            assert inner.answered == before + (not silent)
            if silent:
                assert reply.error.code == ErrorCode.NODE_UNAVAILABLE
    assert 0 < inner.answered < 59 * len(wire.SECURE)
