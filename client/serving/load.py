"""``python -m client.serving.load``: calls a service as fast as it answers; counts.

Client only: whoever runs a service may measure it on the device it runs on. It is a
process of its own, over a real channel; histories are made up of the catalogue's ids.
The first calls warm up and are not counted. ``feedback`` stores what it sends, for
users that there are not: never call a service with it whose rows are real.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import grpc
import numpy as np

from client.proto import recommender_pb2 as pb
from client.proto.recommender_pb2_grpc import RecommenderStub
from common.errors import ConfigError

#: Different requests in turn, items of a history, seconds that are not counted.
REQUESTS, HISTORY, WARM_UP = 256, 50, 1.0
KINDS = ("history", "reasons", "user", "similar", "feedback")


@dataclass(frozen=True)
class Load:
    """What to call, how many at once and how long.

    Attributes:
        kind: of ``KINDS``; ``user`` names the users ``u0``, ``u1``, …, and
            ``feedback`` a new one each time, so that each call is written to disk.
        callers: calls under way at any time.
        seconds: of the pass, after the warm-up.
        items: outside ids to draw from.
        users: how many users there are to name.
    """

    address: str
    kind: str
    callers: int
    seconds: float
    items: Sequence[str]
    users: int


@dataclass(frozen=True)
class Measured:
    """One pass.

    Attributes:
        p50, p99, most: milliseconds from call to answer, as the caller sees it.
        errors: calls that failed, by gRPC's code.
    """

    kind: str
    callers: int
    calls: int
    rate: float
    p50: float
    p99: float
    most: float
    errors: dict[str, int]


def requests_of(load: Load, seed: int = 0) -> Callable[[int], tuple[str, object]]:
    """The n-th call to make: the rpc's name and its request.

    Raises:
        ConfigError: if the kind is none of ours.
    """
    if load.kind not in KINDS:
        raise ConfigError(f"Expected a load of {', '.join(KINDS)}, got {load.kind}.")
    draw = np.random.default_rng(seed)
    drawn = [
        [load.items[n] for n in draw.choice(len(load.items), HISTORY, replace=False)]
        for _ in range(REQUESTS)
    ]
    if load.kind == "feedback":
        mark = secrets.token_hex(4)
        return lambda n: ("Feedback", _feedback(f"{mark}-{n}", drawn[n % REQUESTS][0]))
    made = [_request(load, number, items) for number, items in enumerate(drawn)]
    return lambda n: made[n % REQUESTS]


def _feedback(user: str, item: str) -> pb.FeedbackRequest:
    return pb.FeedbackRequest(user=user, interactions=[pb.Interaction(item=item)])


def _request(load: Load, number: int, items: list[str]) -> tuple[str, object]:
    if load.kind == "similar":
        return "Similar", pb.SimilarRequest(item=items[0])
    if load.kind == "user":
        user = f"u{number % max(load.users, 1)}"
        return "Recommend", pb.RecommendRequest(user=user)
    count = 3 if load.kind == "reasons" else 0
    history = pb.History(items=items)
    return "Recommend", pb.RecommendRequest(history=history, num_reasons=count)


async def measure(load: Load) -> Measured:
    """Call without a pause, ``callers`` at a time."""
    request_of = requests_of(load)
    taken: list[float] = []
    errors: Counter[str] = Counter()
    async with grpc.aio.insecure_channel(load.address) as channel:
        stub = RecommenderStub(channel)  # type: ignore[no-untyped-call]
        await channel.channel_ready()
        begin = time.perf_counter() + WARM_UP
        end = begin + load.seconds

        async def call(number: int) -> None:
            while (start := time.perf_counter()) < end:
                name, request = request_of(number)
                number += load.callers
                try:
                    await getattr(stub, name)(request, timeout=10)
                except grpc.aio.AioRpcError as error:
                    errors[error.code().name] += 1
                if start >= begin:
                    taken.append(time.perf_counter() - start)

        await asyncio.gather(*(call(number) for number in range(load.callers)))
        whole = time.perf_counter() - begin
    found = np.asarray(taken) * 1e3
    return Measured(
        kind=load.kind,
        callers=load.callers,
        calls=len(found),
        rate=len(found) / whole,
        p50=float(np.percentile(found, 50)),
        p99=float(np.percentile(found, 99)),
        most=float(found.max()),
        errors=dict(errors),
    )


if __name__ == "__main__":
    asked = Load(**json.loads(sys.stdin.read()))
    print(json.dumps(asdict(asyncio.run(measure(asked)))))
