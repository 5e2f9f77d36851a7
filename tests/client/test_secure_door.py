"""What the exit door lets out of a step of a secure sum."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

import client.app as wiring
from client.release import ALLOWED, MISFIT, exit_door
from client.secagg_state import Phase
from client.secure_round import kept_state
from client.secure_sizes import SIZES
from common import wire
from tests.client.conftest import rows, sent, write_folder
from tests.client.secure_parts import (
    ANSWERS,
    Cohort,
    reason,
    secure_context,
    step_message,
)

STEPS = [kind for kind in ANSWERS if kind != wire.CONFIRM]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "0000", rows(1))


@pytest.fixture
def cohort(folder) -> Cohort:
    return Cohort(secure_context(folder))


def test_every_step_has_a_record_and_a_size() -> None:
    assert {kind: ALLOWED[kind] for kind in wire.SECURE} == ANSWERS
    assert SIZES.keys() == set(wire.SECURE)
    names = [name for name in ALLOWED.values() if name]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize(
    "change",
    [
        lambda data: Array(np.append(data, np.uint8(7))),
        lambda data: Array(data[:-1]),
        lambda data: Array(data.astype(np.int16)),
        lambda data: Array(data[None]),
    ],
    ids=["longer", "shorter", "wider", "another shape"],
)
def test_an_answer_of_another_form_is_held_back(cohort, kind, change) -> None:
    told = cohort.until(kind)
    name = ANSWERS[kind]

    def inner(message, context):
        honest = _answer(kind, message, context)
        data = np.frombuffer(wire.unpack_bytes(honest.content, name), np.uint8)
        content = RecordDict({name: ArrayRecord({"bytes": change(data)})})
        return Message(content, reply_to=message)

    reply = exit_door(step_message(kind, told=told), cohort.context, inner)
    assert reply.error.reason == MISFIT


def _answer(kind: str, message: Message, context) -> Message:
    """What the app answers, before the door looks at it."""
    return getattr(wiring, kind.partition(".")[2])(message, context)


@pytest.mark.parametrize("kind", STEPS)
def test_what_rides_beside_is_dropped(cohort, kind) -> None:
    told = cohort.until(kind)

    def chatty(message, context):
        reply = _answer(kind, message, context)
        reply.content["more"] = ConfigRecord({"state": "MARKERXYZ"})
        return reply

    reply = exit_door(step_message(kind, told=told), cohort.context, chatty)
    assert set(reply.content) == {wire.ROUND, ANSWERS[kind]}
    assert b"MARKERXYZ" not in sent(reply)


def test_no_secret_of_the_state_leaves_but_what_a_reveal_tells(cohort) -> None:
    cohort.advertise()
    secrets = kept_state(cohort.context).secrets
    identity = cohort.context.state["secagg"]["identity"]
    cohort.share()
    cohort.mask()
    cohort.confirm()
    cohort.reveal()
    replies = [sent(reply) for reply in cohort.replies.values()]
    for secret in (secrets.seal, secrets.mask_seed, identity):
        assert not any(
            secret in reply or secret.hex().encode() in reply for reply in replies
        )
    told = [kind for kind, r in cohort.replies.items() if secrets.self_seed in sent(r)]
    assert told == [wire.REVEAL], "its own mask, once it survived"
    assert kept_state(cohort.context).phase is Phase.REVEALED
    assert kept_state(cohort.context).secrets is None


def test_a_damaged_state_is_a_misfit_and_is_not_quoted(cohort, caplog) -> None:
    told = cohort.until(wire.MASKED)
    cohort.context.state["secagg"]["state"] = b"MARKERXYZ"
    message = step_message(wire.MASKED, told=told)
    assert reason(message, cohort.context) == MISFIT
    assert "MARKERXYZ" not in caplog.text
