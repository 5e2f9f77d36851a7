"""Messages out, replies in: a loop of our own over Flower's push and pull.

Server only. Flower's own loop looks every three seconds, and hands all replies over
at once: one that cannot be read would take the others with it. Here each is fetched
by itself, soon, and until a deadline; a node that never answers costs itself alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import UnexpectedObjectContentError
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.superlink.grid import http_grid
from google.protobuf.message import DecodeError

from common.sections import Run

#: What Flower raises where it cannot make a message of what a node sent, or hold it.
UNREADABLE = (
    UnexpectedObjectContentError,
    DecodeError,
    ValueError,
    TypeError,
    KeyError,
    MemoryError,
)

#: What Flower itself answers once a message or its reply outlived its time.
EXPIRED = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
TOO_LATE = "No reply in time: the question or the reply expired on the way."

#: A reply that was announced has this share of the time left for its parts to come.
SHARE = 0.5

#: A look for replies may come so much later than they, as a share of the wait so far.
LATENESS = 0.02


@dataclass(frozen=True)
class Collected:
    """What came back.

    Attributes:
        replies: by the node that was asked, error replies included; those that were
            taken as they came are not here.
        failures: by node, why there is no reply.
        send, wait: seconds that pushing and waiting took.
    """

    replies: dict[int, Message]
    failures: dict[int, str]
    send: float
    wait: float


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    pace: Run,
    take: Callable[[int, Message], None] | None = None,
) -> Collected:
    """Send messages, one a node, and wait for the replies until the deadline.

    Args:
        grid: Flower's.
        messages: at most one to each node.
        pace: ``round-timeout``, ``poll-interval`` and ``poll-longest``.
        take: gets each node's reply once it is here, so that not all of them are in
            memory at once; error replies stay.
    """
    begun = time.monotonic()
    nodes = [message.metadata.dst_node_id for message in messages]
    pushed = [str(each or "") for each in grid.push_messages(messages)]
    # Flower gives no id where it took no message, and none at all if all were too much.
    pushed += [""] * (len(nodes) - len(pushed))
    sent = time.monotonic()
    waiting = {each: node for each, node in zip(pushed, nodes, strict=True) if each}
    failures = {
        node: "The message could not be sent."
        for each, node in zip(pushed, nodes, strict=True)
        if not each
    }
    replies: dict[int, Message] = {}

    def keep(node: int, reply: Message) -> None:
        if take is None or reply.has_error():
            replies[node] = reply
        else:
            take(node, reply)

    while waiting:
        _pull(grid, waiting, keep, failures, sent + pace.round_timeout)
        waited = time.monotonic() - sent
        left = pace.round_timeout - waited
        if not waiting or left <= 0:
            break
        time.sleep(min(pause(waited, pace), left))
    for node in waiting.values():
        failures[node] = f"No reply within {pace.round_timeout:g} seconds."
    for node in [node for node, reply in replies.items() if _is_expired(reply)]:
        del replies[node]
        failures[node] = TOO_LATE
    return Collected(replies, failures, sent - begun, time.monotonic() - sent)


def bound_pull(left: float) -> None:
    """Let the next pull wait no longer than this for parts that nobody sends.

    Flower would wait for three minutes, and every other reply with it.
    """
    bounded = partial(pull_objects, max_time=max(left, 0.0) * SHARE, backoff_cap=1.0)
    http_grid.__dict__["pull_objects"] = bounded


def _is_expired(reply: Message) -> bool:
    return reply.has_error() and reply.error.code in EXPIRED


def pause(waited: float, pace: Run) -> float:
    """Seconds until the next look: short at first, longer as the wait gets long."""
    return min(max(pace.poll_interval, LATENESS * waited), pace.poll_longest)


def _pull(
    grid: Grid,
    waiting: dict[str, int],
    keep: Callable[[int, Message], None],
    failures: dict[int, str],
    deadline: float,
) -> None:
    """Keep each reply that is here; what was answered waits no longer."""
    for sent, node in list(waiting.items()):
        bound_pull(deadline - time.monotonic())
        try:
            came = list(grid.pull_messages([sent]))
        except UNREADABLE as error:
            failures[waiting.pop(sent)] = f"Unreadable reply ({type(error).__name__})."
            continue
        for reply in came:
            if reply.metadata.reply_to_message_id == sent:
                keep(node, reply)
                waiting.pop(sent, None)
