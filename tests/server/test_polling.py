"""The round's own pace: soon, until a deadline, each reply by itself."""

import json
import time
from pathlib import Path

import pytest
import torch
from flwr.app import Error, Message
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
)
from flwr.superlink.grid import HttpGrid, http_grid

from common import wire
from common.config import defaults, parse
from common.errors import RoundFailed
from server.polling import TOO_LATE, bound_pull, exchange, pause
from tests.server.conftest import FakeGrid, failing, replying
from tests.server.test_messages import ask, config, postbox, records, refusals
from tests.server.test_strategy import NOBODY, START, federation, honest, nowhere

PACE = {"run.round-timeout": 0.3, "run.poll-interval": 0.01}


def silent(message: Message) -> None:
    """A node that hangs."""


class SlowGrid(FakeGrid):
    """Replies come so many seconds after they were asked for."""

    def __init__(self, behaviours, delays) -> None:
        super().__init__(behaviours)
        self.delays, self.pushed = delays, 0.0

    def push_messages(self, messages):
        self.pushed = time.monotonic()
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        ready = []
        for each in message_ids:
            reply = self.replies.get(each)
            node = reply and reply.metadata.src_node_id
            if time.monotonic() - self.pushed >= self.delays.get(node, 0.0):
                ready.append(each)
        return super().pull_messages(ready)


def test_the_wait_ends_with_the_last_reply(tmp_path) -> None:
    grid = SlowGrid({1: replying(), 2: replying()}, {2: 0.1})
    begun = time.monotonic()
    found = ask(postbox(tmp_path, grid, config(**{"run.poll-interval": 0.01})))
    assert 0.1 <= time.monotonic() - begun < 5.0
    assert len(found.replies) == 2
    assert 0.09 <= found.wait < 5.0
    assert 0.0 <= found.send < found.wait + 1.0


def test_a_node_that_never_answers_costs_itself_alone(tmp_path) -> None:
    grid = FakeGrid({1: silent, 2: replying(), 3: silent})
    box = postbox(tmp_path, grid, config(**PACE))
    begun = time.monotonic()
    found = ask(box, nodes=(1, 2, 3))
    assert 0.3 <= time.monotonic() - begun < 3.0
    assert len(found.replies) == 1
    assert refusals(tmp_path) == [(1, "No reply within 0.3 seconds.")] * 2


def test_a_late_reply_is_never_taken_into_a_later_round(tmp_path) -> None:
    """Neither pulled under its old id, nor as the answer of the new question."""
    grid = SlowGrid({1: replying(), 2: replying()}, {2: 0.4})
    box = postbox(tmp_path, grid, config(**PACE))
    assert len(ask(box, 1).replies) == 1
    (left,) = grid.replies
    grid.delays[2] = 0.0
    assert len(ask(box, 2).replies) == 2
    assert left in grid.replies, "nobody asked for it any more"
    stale = grid.replies[left].content
    grid.behaviours[2] = lambda message: stale
    assert len(ask(box, 3).replies) == 1
    assert (3, "Expected a reply of round 3 of this run, got another's.") in refusals(
        tmp_path
    )


class ChokingGrid(FakeGrid):
    """Flower fails to make a message of what one node sent."""

    def __init__(self, behaviours, error) -> None:
        super().__init__(behaviours)
        self.error = error

    def pull_messages(self, message_ids):
        for each in message_ids:
            if self.replies[each].metadata.src_node_id == 1:
                raise self.error("a text with what the node sent")
        return super().pull_messages(message_ids)


@pytest.mark.parametrize("error", [ValueError, KeyError, MemoryError])
def test_a_reply_that_cannot_be_read_costs_itself_alone(tmp_path, error) -> None:
    grid = ChokingGrid({1: replying(), 2: replying()}, error)
    assert len(ask(postbox(tmp_path, grid)).replies) == 1
    assert refusals(tmp_path) == [(1, f"Unreadable reply ({error.__name__}).")]


def test_a_transport_that_fails_ends_the_run_to_be_resumed(tmp_path) -> None:
    grid = ChokingGrid({1: replying()}, ConnectionError)
    with pytest.raises(ConnectionError):
        ask(postbox(tmp_path, grid), nodes=[1])


@pytest.mark.parametrize("taken", [[], [None, "second"]])
def test_what_flower_does_not_take_is_not_waited_for(tmp_path, taken) -> None:
    class Refusing(FakeGrid):
        def push_messages(self, messages):
            ids = super().push_messages(messages)
            return [each and ids[n] for n, each in enumerate(taken)]

    grid = Refusing({1: replying(), 2: replying()})
    found = ask(postbox(tmp_path, grid, config(**PACE)))
    assert len(found.replies) == len(taken[1:])
    assert (1, "The message could not be sent.") in refusals(tmp_path)


def test_an_error_from_on_the_way_is_of_the_node_that_was_asked(tmp_path) -> None:
    """Flower's own errors name the server as their source."""

    class Erring(FakeGrid):
        def _reply(self, message):
            reply = super()._reply(message)
            reply.metadata.__dict__["_src_node_id"] = 1
            return reply

    lost = lambda message: Error(code=5, reason="Node unavailable")  # noqa: E731
    grid = Erring({7: lost, 8: replying(), 9: lost})
    assert len(ask(postbox(tmp_path, grid), nodes=[7, 8, 9]).replies) == 1
    assert refusals(tmp_path) == [(1, "Node unavailable")] * 2


@pytest.mark.parametrize("code", [3, 4])
def test_flowers_word_for_too_late_is_put_plainly(tmp_path, code) -> None:
    """Whether Flower looks first or we do, the record says that nothing came."""
    expired = lambda message: Error(code=code, reason="not in the database")  # noqa: E731
    grid = FakeGrid({7: expired, 8: replying()})
    assert len(ask(postbox(tmp_path, grid), nodes=[7, 8]).replies) == 1
    assert refusals(tmp_path) == [(1, TOO_LATE)]


def test_looks_come_soon_and_then_seldom() -> None:
    pace = parse(defaults()).run
    assert (pace.poll_interval, pace.poll_longest) == (0.2, 5.0)
    assert pause(0.0, pace) == 0.2
    assert pause(60.0, pace) == pytest.approx(1.2)
    assert pause(10_000.0, pace) == 5.0


def test_a_message_lives_as_long_as_its_round(tmp_path) -> None:
    grid = FakeGrid({1: replying()})
    grid.behaviours[1] = lambda message: records()
    messages = [Message(records(), 1, wire.TRAIN, ttl=7.0)]
    found = exchange(grid, messages, config(**PACE).run)
    assert list(found.replies) == [1]
    assert 0.0 <= found.wait < 0.3
    grid.behaviours[1] = replying()
    ask(postbox(tmp_path, grid, config(**PACE)), nodes=[1])
    assert grid.sent[-1].metadata.ttl == 0.3


def rounds(tmp_path: Path, grid: FakeGrid, count: int = 1, **overrides):
    asked = {"training.rounds": count} | overrides
    running = federation(tmp_path, grid, **asked)
    return list(running.rounds(START, NOBODY, [0.5] * count, nowhere))


def test_a_round_of_too_few_replies_stops_the_run_with_a_name(tmp_path) -> None:
    grid = FakeGrid({1: honest(), 2: failing("no"), 3: honest()})
    assert len(rounds(tmp_path / "a", grid, **{"run.min-replies": 2})) == 1
    with pytest.raises(RoundFailed, match=r"at least 3 valid replies .* got 2 from 3"):
        rounds(tmp_path / "b", grid, **{"run.min-replies": 3})
    lines = (tmp_path / "b/out/metrics.jsonl").read_text().splitlines()
    assert "round" not in [json.loads(line)["event"] for line in lines]


def test_a_run_begins_with_enough_clients_or_not_at_all(tmp_path) -> None:
    class Growing(FakeGrid):
        looks = 0

        def get_node_ids(self):
            self.looks += 1
            return list(self.behaviours)[: self.looks]

    pace = {"run.min-clients": 3, "run.start-timeout": 0.2, "run.poll-interval": 0.01}
    grid = Growing({node: honest() for node in (1, 2, 3)})
    (last,) = rounds(tmp_path / "a", grid, **pace)
    assert len(grid.sent) == 3
    moved = last.student["decoder.bias"] - START["decoder.bias"]
    torch.testing.assert_close(moved, torch.ones(6))
    few = FakeGrid({1: honest(), 2: honest()})
    with pytest.raises(RoundFailed, match=r"at least 3 connected .* got 2"):
        rounds(tmp_path / "b", few, **pace)
    assert few.sent == []


def test_a_node_that_leaves_later_does_not_hold_the_run_up(tmp_path) -> None:
    class Shrinking(FakeGrid):
        def get_node_ids(self):
            return list(self.behaviours)[: 1 if self.sent else 2]

    grid = Shrinking({1: honest(), 2: honest()})
    assert len(rounds(tmp_path, grid, 2, **{"run.min-clients": 2})) == 2
    assert len(grid.sent) == 3


def test_parts_that_nobody_sends_are_not_waited_for(monkeypatch) -> None:
    """As after a kill in the middle of a reply; Flower itself waits three minutes."""
    monkeypatch.setattr(http_grid, "pull_objects", http_grid.pull_objects)
    assert "pull_objects" in HttpGrid.pull_messages.__code__.co_names

    def missing(name: str) -> bytes:
        raise ObjectUnavailableError(name)

    bound_pull(1.0)
    begun = time.monotonic()
    with pytest.raises(ObjectPullError):
        http_grid.pull_objects(["0" * 64], pull_object_fn=missing)
    assert time.monotonic() - begun < 3.0
