"""Small charts of a run as numbers for the page's SVG: pure functions.

Server only, beside the page that draws them. Coordinates are in a box of ``WIDTH`` by
``HEIGHT`` that the page stretches; texts stand beside it, since stretched text is
distorted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from server.monitor.events import RoundFacts

WIDTH, HEIGHT = 600.0, 120.0
#: Bars narrower than this would not be seen: rounds beyond share one.
MOST_BARS = 100


@dataclass(frozen=True)
class Bar:
    """A round, or the worst of some: how many clients were asked, and survived."""

    x: float
    width: float
    asked: float
    survived: float
    short: bool


@dataclass(frozen=True)
class Survivors:
    """Bars over rounds 1 to ``last``; their top is ``most`` clients."""

    bars: tuple[Bar, ...]
    last: int
    most: int
    summary: str


@dataclass(frozen=True)
class EpsilonPath:
    """A line from no round on; ``target`` is the height of the run's aim, if any."""

    points: str
    target: float | None
    last: int
    most: float
    summary: str


def survivors(rounds: Sequence[RoundFacts], planned: int | None) -> Survivors | None:
    """Survivors by round, ``None`` before the first."""
    if not rounds:
        return None
    last = max(planned or 0, rounds[-1].number)
    most = max(1, *(each.num_clients for each in rounds))
    size = max(1, math.ceil(last / MOST_BARS))
    slot = WIDTH / math.ceil(last / size)
    worst: dict[int, RoundFacts] = {}
    for each in rounds:
        place = (each.number - 1) // size
        found = worst.get(place)
        if found is None or _missing(each) > _missing(found):
            worst[place] = each
    bars = tuple(
        _bar(place * slot, slot, each, most) for place, each in sorted(worst.items())
    )
    few = sum(_missing(each) > 0 for each in rounds)
    summary = (
        f"Survivors by round: {rounds[-1].survivors} of {rounds[-1].num_clients} in "
        f"round {rounds[-1].number}; clients were missing in {few} of {len(rounds)} "
        "rounds."
    )
    return Survivors(bars, last, most, summary)


def epsilon_path(
    rounds: Sequence[RoundFacts], planned: int | None, target: float | None
) -> EpsilonPath | None:
    """ε after each round, ``None`` where no round tells a finite one."""
    told = [
        (each.number, each.epsilon)
        for each in rounds
        if each.epsilon is not None and math.isfinite(each.epsilon)
    ]
    if not told:
        return None
    last = max(planned or 0, told[-1][0])
    most = max(value for _, value in told)
    top = max(most, target or 0.0) or 1.0
    spots = [(0, 0.0), *told[:: max(1, len(told) // 300)], told[-1]]
    points = " ".join(
        f"{WIDTH * number / last:.1f},{_height(value, top):.1f}"
        for number, value in spots
    )
    aim = f" of {target:g} aimed at" if target else ""
    summary = f"ε spent by round: {told[-1][1]:.3f}{aim} after round {told[-1][0]}."
    line = None if not target else round(_height(target, top), 1)
    return EpsilonPath(points, line, last, top, summary)


def _missing(each: RoundFacts) -> int:
    return each.num_clients - each.survivors


def _bar(x: float, slot: float, each: RoundFacts, most: int) -> Bar:
    gap = min(2.0, slot * 0.2)
    return Bar(
        round(x + gap / 2, 2),
        round(slot - gap, 2),
        round(HEIGHT * each.num_clients / most, 1),
        round(HEIGHT * each.survivors / most, 1),
        _missing(each) > 0,
    )


def _height(value: float, top: float) -> float:
    return HEIGHT * (1 - value / top)
