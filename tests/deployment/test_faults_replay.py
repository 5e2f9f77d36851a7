"""Old messages sent again by whoever runs the server: paid once, or refused."""

import pytest

from client.release import MISFIT, REFUSED
from common import wire
from server.app import app as server_app
from simulations.deployment.processes import EXECUTOR
from simulations.faults.hostile_server import (
    as_server_app,
    ask,
    with_bit_changed,
    with_header,
)

pytestmark = [pytest.mark.slow, pytest.mark.faults]
NAMES = ("0000", "0001", "0002")


def trains(grid, number):
    return [
        message
        for message in grid.sent
        if message.metadata.message_type == wire.TRAIN
        and message.metadata.group_id == str(number)
    ]


def update(reply):
    arrays = reply.content.array_records[wire.UPDATE]
    return {name: bytes(array.data) for name, array in arrays.items()}


def locate(federation, context, run):
    layout = federation.layout
    context.node_config = {
        "public": str(layout.data),
        "out": str(run.out),
        "state": str(layout.state),
    }
    return context


@pytest.fixture(scope="module")
def replayed(federation):
    """Two runs by a hostile server; what each replay was answered."""
    federation.kill(EXECUTOR)
    first = federation.submit("first")
    answers = {}
    before = {}
    with as_server_app(federation, first) as (grid, context):
        server_app(grid, locate(federation, context, first))
        old, new = trains(grid, 1)[0], trains(grid, 2)[0]
        before = {name: federation.charges(name, "first") for name in NAMES}
        (reply,) = [
            each
            for each in grid.came
            if each.metadata.reply_to_message_id == new.metadata.message_id
        ]
        answers["same"] = [reply, ask(grid, new), ask(grid, new)]
        answers["old"] = ask(grid, old)
        answers["bit"] = ask(grid, with_bit_changed(new))
        answers["nonce"] = ask(grid, with_header(new, nonce="0" * 32))
        answers["round"] = ask(grid, with_header(new, number=1))
        answers["unsigned"] = ask(grid, with_header(new, server="", signature=""))
    second = federation.submit("second")
    with as_server_app(federation, second) as (grid, _):
        answers["another run's"] = ask(grid, new)
    federation.start(EXECUTOR)
    return federation, before, answers


def test_the_run_itself_was_honest(replayed):
    federation, before, _ = replayed
    assert federation.survivors("first") == {1: (3, 3), 2: (3, 3)}
    for charges in before.values():
        assert [(c.purpose, c.number) for c in charges] == [("train", 1), ("train", 2)]


def test_the_newest_message_again_is_answered_with_the_kept_reply(replayed):
    reply, again, once_more = replayed[2]["same"]
    assert any(update(reply).values())
    assert update(again) == update(reply)
    assert update(once_more) == update(reply)


@pytest.mark.parametrize(
    ("which", "reason"),
    [
        ("old", MISFIT),
        ("bit", MISFIT),
        ("nonce", MISFIT),
        ("round", MISFIT),
        ("unsigned", REFUSED),
        ("another run's", MISFIT),
    ],
)
def test_every_other_replay_is_refused_by_a_fixed_text(replayed, which, reason):
    reply = replayed[2][which]
    assert reply.has_error()
    assert reply.error.reason == reason


def test_nothing_was_charged_for_any_of_them(replayed):
    federation, before, _ = replayed
    for name in NAMES:
        assert federation.charges(name, "first") == before[name]
        assert federation.charges(name, "second") == []
