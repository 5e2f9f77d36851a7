"""How many neighbours, and how many of them must speak: exact tails, no estimates.

In ``common`` because every client works this out for itself: a server that chose the
numbers would choose bad ones. Members stand on a circle in a random order and have the
``degree / 2`` before and after them as neighbours (Bell 2020's Harary graph). What can
go wrong, each bounded over all members by the union bound:

- *threshold*: a member has ``threshold`` corrupt neighbours, who know its secrets. A
  lying server needs fewer: it withholds a member's neighbours from it, so that it masks
  with the corrupt and with some who are then called dropped (``threshold`` together),
  while the corrupt and the others open its own mask (``threshold`` again). The honest
  are in one of both only, so ``2 * threshold - degree`` of the neighbours are corrupt;
- *cut*: ``degree / 2`` places in a row hold nobody honest who finishes, twice, and the
  sum falls into two. An honest server's drop-outs are chance. A lying one drops whom it
  likes once it knows the graph, so ``window`` members in any ``degree / 2`` places must
  confirm the list of survivors, and the bound is that so many are corrupt.
- *silence*: too few neighbours or places in a row are left. That costs the round only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from common.errors import ConfigError
from common.secagg.terms import LEAST_MEMBERS, MOST_MEMBERS, Policy


@dataclass(frozen=True)
class Shape:
    """A cohort's graph and thresholds.

    Attributes:
        members: of the cohort.
        degree: neighbours of each.
        threshold: neighbours whose shares give away a secret; fewer know nothing.
        window: members in any ``degree / 2`` places in a row who must confirm the list
            of survivors; 0: no such rule.
        quorum: members who must confirm one list of survivors; 0: nobody confirms.
    """

    members: int
    degree: int
    threshold: int
    window: int = 0
    quorum: int = 0

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.degree == self.members - 1


def hypergeometric_tail(
    population: int, marked: int, drawn: int, least: int
) -> Fraction:
    """P[at least ``least`` of ``drawn`` out of ``population`` are ``marked``], exact.

    >>> hypergeometric_tail(4, 2, 2, 2)
    Fraction(1, 6)
    """
    ways = sum(
        math.comb(marked, found) * math.comb(population - marked, drawn - found)
        for found in range(max(least, 0), min(marked, drawn) + 1)
    )
    return Fraction(ways, math.comb(population, drawn))


@lru_cache(maxsize=64)
def choose_shape(policy: Policy, members: int) -> Shape:
    """The least degree that keeps the policy's bounds; everybody where none does.

    Raises:
        ConfigError: for a cohort too small or large, or bounds nothing can keep.
    """
    if not LEAST_MEMBERS <= members <= MOST_MEMBERS:
        raise ConfigError(
            f"secagg: expected a cohort of {LEAST_MEMBERS} to {MOST_MEMBERS}, got "
            f"{members}."
        )
    if members <= max(policy.complete_up_to, policy.degree + 1):
        return _complete(policy, members)
    if policy.degree:
        return _asked_for(policy, members)
    for degree in range(4, members - 1, 2):
        shape = _safe(policy, members, degree)
        if shape and _silence(policy, shape) <= Fraction(
            1, 1 << policy.availability_bits
        ):
            return shape
    return _complete(policy, members)


def security_failure(policy: Policy, shape: Shape) -> Fraction:
    """A bound on P[the server can learn more than the sum], over the graph's draw."""
    if shape.complete:
        return Fraction(int(most_corrupt(policy, shape.members) >= shape.threshold))
    return _exposed(policy, shape) + _cut(policy, shape)


def stays_whole(policy: Policy, shape: Shape, left: int) -> bool:
    """Whether, with so many survivors, the sum falls into two as rarely as is said.

    A round may succeed with fewer than ``Policy.dropped`` leaves. The drop-outs are
    chance; whoever confirms a list looks at its windows instead. Two runs of half a
    neighbourhood are cut out by any two of the places where they begin.
    """
    if shape.complete or shape.window:
        return True
    n, both = shape.members, 2 * (shape.degree // 2)
    gone = min(n, most_corrupt(policy, n) + n - left)
    failure = math.comb(n, 2) * hypergeometric_tail(n, gone, both, both)
    return failure <= Fraction(1, 1 << (policy.bits + 1))


def availability_failure(policy: Policy, shape: Shape) -> Fraction:
    """A bound on P[the round fails] where the policy's share of members drops out."""
    if not shape.complete:
        return _silence(policy, shape)
    left = shape.degree - _dropped(policy, shape.members)
    return Fraction(int(left < shape.threshold))


def _complete(policy: Policy, members: int) -> Shape:
    degree = members - 1
    threshold = max(_least_threshold(policy, degree), most_corrupt(policy, members) + 1)
    return Shape(members, degree, threshold, 0, _quorum(policy, members))


def _asked_for(policy: Policy, members: int) -> Shape:
    shape = _safe(policy, members, policy.degree)
    if shape is None:
        raise ConfigError(
            f"secagg: degree: {policy.degree} neighbours in a cohort of {members} do "
            f"not keep {policy.bits} bits of security; raise the degree."
        )
    return shape


def _safe(policy: Policy, members: int, degree: int) -> Shape | None:
    """The lowest thresholds that keep the secret, half of the failures for each."""
    most = Fraction(1, 1 << (policy.bits + 1))
    quorum = _quorum(policy, members)
    for threshold in range(_least_threshold(policy, degree), degree + 1):
        shape = Shape(members, degree, threshold, 0, quorum)
        if _exposed(policy, shape) <= most:
            break
    else:
        return None
    windows = range(1, degree // 2 + 1) if policy.active else (0,)
    shapes = (Shape(members, degree, threshold, each, quorum) for each in windows)
    return next((each for each in shapes if _cut(policy, each) <= most), None)


def _exposed(policy: Policy, shape: Shape) -> Fraction:
    marked, threshold = most_corrupt(policy, shape.members), shape.threshold
    # See the module: between two sets of so many there is somebody honest.
    enough = 2 * threshold - shape.degree if policy.active else threshold
    return shape.members * hypergeometric_tail(
        shape.members - 1, marked, shape.degree, enough
    )


def _cut(policy: Policy, shape: Shape) -> Fraction:
    """See the module: a window of the corrupt, or of the corrupt and the silent."""
    n, half = shape.members, shape.degree // 2
    if shape.window:
        return n * hypergeometric_tail(n, most_corrupt(policy, n), half, shape.window)
    gone = min(n, most_corrupt(policy, n) + _dropped(policy, n))
    return n * hypergeometric_tail(n, gone, half, half)


def _silence(policy: Policy, shape: Shape) -> Fraction:
    n, gone = shape.members, _dropped(policy, shape.members)
    spare = shape.degree - shape.threshold
    failure = n * hypergeometric_tail(n - 1, gone, shape.degree, spare + 1)
    if shape.window:
        half = shape.degree // 2
        failure += n * hypergeometric_tail(n, gone, half, half - shape.window + 1)
    return failure


def _least_threshold(policy: Policy, degree: int) -> int:
    """Bonawitz 2017: over two thirds against a server that lies, else over half."""
    return 2 * degree // 3 + 1 if policy.active else degree // 2 + 1


def _quorum(policy: Policy, members: int) -> int:
    """So many that two lists would need an honest member who confirmed both."""
    if not policy.active:
        return 0
    return (members + most_corrupt(policy, members)) // 2 + 1


def most_corrupt(policy: Policy, members: int) -> int:
    """Members of a cohort that may collude with the server, at most."""
    return _count_of(policy.corrupt, members)


def _dropped(policy: Policy, members: int) -> int:
    return _count_of(policy.dropped, members)


def _count_of(share: float, members: int) -> int:
    """The share's count, rounded up; 0.07 of 100 is 7, whatever floats say."""
    return math.ceil(round(share * members, 9))
