"""Whether what secure sums unmask to is the plain sum, bit for bit, in every round.

Simulations only, and in one process alone: it looks over the shoulders of clients and
server at once, which nobody may in a deployment. What each client puts in before it is
masked is added up in the clear, and held against what the server takes out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np

import client.secure_round as clients_side
from common.fixed_point import Float, Integer, centred, wrapped
from common.integer_noise import Randomness, SumPlan, contribution
from server.secagg import SecureSum, Sum

#: In a run's folder: a line a sum.
SUMS = "secure-sums.jsonl"
_RESULT = SecureSum.result


@dataclass(frozen=True)
class SumCheck:
    """One secure sum beside the plain one.

    Attributes:
        vectors: that clients put in.
        survivors: whose vectors the server says are in its sum.
        equal: whether both sums are the same element of the ring, bit for bit.
        whole: whether it decodes to the plain sum, so that no coordinate wrapped.
    """

    vectors: int
    survivors: int
    equal: bool
    whole: bool


class _Watch:
    """Adds up one round at a time; the only state is that sum."""

    def __init__(self, path: Path) -> None:
        self._path, self._seed, self._count = path, b"", 0
        self._total: Integer = np.zeros(0, dtype=np.int64)
        self._bits = 0

    def put_in(
        self,
        update: Float | None,
        dim: int,
        plan: SumPlan,
        seed: bytes,
        randomness: Randomness,
    ) -> Integer:
        """A client's vector as it is made, and added."""
        vector = contribution(update, dim, plan, seed, randomness)
        if seed != self._seed:
            # Another round's rotation.
            self._seed, self._bits, self._count = seed, plan.bits, 0
            self._total = np.zeros(dim, dtype=np.int64)
        self._total += vector
        self._count += 1
        return vector

    def take_out(self, secure: SecureSum) -> Sum:
        """The server's sum as it is unmasked, and compared."""
        found = _RESULT(secure)
        values = found.values.astype(np.int64)
        same = len(values) == len(self._total)
        check = SumCheck(
            self._count,
            len(found.survivors),
            same and np.array_equal(values, wrapped(self._total, self._bits)),
            same and np.array_equal(centred(values, self._bits), self._total),
        )
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(check)) + "\n")
        return found


@contextmanager
def checked_sums(folder: Path) -> Iterator[None]:
    """Compare every secure sum that is made in this process; a line each.

    Args:
        folder: the run's, where the server writes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    watch = _Watch(folder / SUMS)
    with (
        patch.object(clients_side, "contribution", watch.put_in),
        patch.object(SecureSum, "result", lambda secure: watch.take_out(secure)),
    ):
        yield


def read_checks(folder: Path) -> list[SumCheck]:
    """What was compared in a run; nothing where no sum was made in one process."""
    path = folder / SUMS
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [SumCheck(**json.loads(line)) for line in lines]


def sentence_of(checks: list[SumCheck]) -> str:
    """What the comparison showed, for people; "" without any."""
    if not checks:
        return ""
    wrong = [each for each in checks if not (each.equal and each.whole)]
    fewest = min(each.survivors for each in checks)
    if wrong:
        return (
            f"In {len(wrong)} of {len(checks)} rounds the secure sum is NOT the plain "
            f"sum of what its clients put in; see {SUMS}."
        )
    return (
        f"In each of {len(checks)} rounds, {fewest} or more clients in each, the "
        "secure sum decodes to the plain sum of what its clients put in, bit for bit "
        "(compared in the simulation, where nothing is hidden)."
    )
