"""Are public constants public? The same questions to n and to n + 1 users.

Simulations only. The user more has one item. Under one seed all numbers that this user
does not touch must be the same: a denominator, rate or noise that follows the number of
rows would move all of them. So must the lengths of answers, and what is charged.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from common import wire
from simulations.audits.conformance.asking import Answer, Client
from simulations.audits.conformance.bench import Bench, arrays
from simulations.audits.conformance.ledger import entries
from simulations.audits.conformance.observed import Observed, exactly

Float = npt.NDArray[np.float64]

ASSUMPTION = (
    "Sample rate, denominator, noise, shapes and lengths come from the configuration "
    "alone; none follows from how many users a client has."
)
USERS, SEED = 3, 20_260_102
TOLERANCE = 1e-5


def check_constants(bench: Bench) -> list[Observed]:
    """What a user more changes where nothing may change."""
    found = [_pair(bench, kind) for kind in bench.kinds if kind != wire.EVALUATE]
    both = [pair for _, pair, _ in found]
    moved = max((_moved(bench, kind, *pair) for kind, pair, _ in found), default=0.0)
    lengths = sum(len(a.raw) != len(b.raw) for a, b in both)
    charges = sum(_charge(one) != _charge(other) for _, _, (one, other) in found)
    return [
        _observed(
            "largest change of a number that the user more does not touch, over the "
            "answer's root mean square",
            moved,
            TOLERANCE,
            f"Such numbers change by {moved:.2e} at most.",
        ),
        _observed(
            "answers whose length follows the number of users",
            lengths,
            0.0,
            f"{lengths} answers have another length with one user more.",
        ),
        _observed(
            "charges that follow the number of users",
            charges,
            0.0,
            f"{charges} charges are others with one user more.",
        ),
    ]


def _pair(
    bench: Bench, kind: str
) -> tuple[str, tuple[Answer, Answer], tuple[Client, Client]]:
    """Answers of clients with n and n + 1 users of one item, of one seed."""
    nonce, places = bench.nonce(), np.flatnonzero(bench.chosen).tolist()
    clients = tuple(
        bench.client([[item] for item in places[:users]], seed=SEED)
        for users in (USERS, USERS + 1)
    )
    one, other = (bench.ask(each, kind, nonce=nonce) for each in clients)
    return kind, (one, other), (clients[0], clients[1])


def _moved(bench: Bench, kind: str, one: Answer, other: Answer) -> float:
    if one.error is not None or other.error is not None:
        return math.inf
    before, after = arrays(one, kind), arrays(other, kind)
    return max(
        float(np.abs(after[name] - values)[_untouched(name, values)].max(initial=0.0))
        / max(float(np.sqrt(np.mean(values**2))), 1e-300)
        for name, values in before.items()
    )


def _untouched(name: str, values: Float) -> npt.NDArray[np.bool_]:
    """Numbers of an array that a user of one item adds nothing to.

    The pairs, a sketch and both weights have no part for one item alone; the counts
    have one, of the item of the user more; the bias is touched everywhere.
    """
    found = np.full(values.shape, name != "decoder.bias")
    if name == "counts":
        found[USERS] = False
    return found


def _charge(client: Client) -> list[object]:
    """What was charged, without what differs in any case."""
    names = ("purpose", "round", "unit", "relation", "event", "plan")
    return [[each[name] for name in names] for each in entries(client.folder)]


def _observed(measure: str, measured: float, most: float, detail: str) -> Observed:
    return Observed(
        check="constants",
        assumption=ASSUMPTION,
        measure=measure,
        expected=0.0,
        measured=measured,
        bounds=exactly(0.0, most),
        detail=detail,
        chance=False,
    )
