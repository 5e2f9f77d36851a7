"""Does one user change an answer by no more than the noise is made for?

Simulations only. Pairs of clients with the same seed, and so the same noise, sample and
masks, that differ by one user: the difference of their answers is what this user adds.
Users are heavy, of one item, of two, with an item a hundred times, with extreme values;
students are the run's, and a steep one, whose gradients are long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common import wire
from common.student import StateDict
from simulations.audits.conformance.asking import Answer, Records
from simulations.audits.conformance.bench import NAMES, Bench, Items, arrays
from simulations.audits.conformance.observed import Observed, exactly

ASSUMPTION = (
    "No user, whoever it is, adds more in L2 norm over all numbers of an answer than "
    "the norm that the noise is made for."
)
TOLERANCE = 1e-5
#: Rounding of an answer to 32 bits, of a number of its own size.
ROUNDED = 2.0**-23
#: Users beside the one that is looked at; the seed of pairs; how much steeper.
OTHERS, SEED, STEEP = 20, 20_260_101, 30.0


#: The learning rate of a pair's one step.
RATE = 1.0
#: In a later round of several steps: so slow that a step's gradient does not depend on
#: the steps before.
LATER_STEPS, SLOW = 2, 1e-6


def check_clip(bench: Bench) -> list[Observed]:
    """The most that one user adds to an answer of each kind, over what is claimed."""
    if not bench.is_private:
        return []
    return [_observed(bench, kind) for kind in bench.kinds]


def heavy_users(bench: Bench) -> dict[str, tuple[list[int], float]]:
    """Users that a clip has to hold: items, and the value of each interaction."""
    places = np.flatnonzero(bench.chosen).tolist()
    return {
        "every item": (list(range(bench.world.num_items)), 1.0),
        "two items": (places[:2], 1.0),
        "one item": (places[:1], 1.0),
        "two items, a hundred times": (places[:2] * 100, 1.0),
        "three items of an extreme value": (places[:3], 1e30),
        "three items of a value that is no number": (places[:3], math.nan),
        "the longest history": (max(bench.real, key=len, default=places[:5]), 1.0),
    }


@dataclass(frozen=True)
class Added:
    """What one user adds to an answer.

    Attributes:
        lengths: L2 norm by array, over the claimed; empty if the client fails by it.
    """

    who: str
    lengths: dict[str, float]

    @property
    def length(self) -> float:
        """Of all arrays together."""
        return math.hypot(*self.lengths.values()) if self.lengths else math.inf


def added(bench: Bench, kind: str, question: str, records: Records) -> list[Added]:
    """What each heavy user adds; nothing if clients of one seed do not answer alike.

    Of training, in one step, with everybody sampled.
    """
    nonce, base = bench.nonce(), bench.real[:OTHERS]
    first = _answer(bench, kind, records, base, nonce)
    again = _answer(bench, kind, records, base, nonce)
    if first.error is not None or _difference(kind, first, again) != 0.0:
        return []
    found = []
    for name, (items, value) in heavy_users(bench).items():
        beside = _answer(bench, kind, records, [*base, items], nonce, value)
        lengths = {}
        if beside.error is None:
            before, after = arrays(first, kind), arrays(beside, kind)
            lengths = {
                part: float(np.linalg.norm(after[part] - before[part]))
                / _claimed(bench, kind)
                for part in NAMES[kind]
            }
        found.append(Added(f"{name} ({question})", lengths))
    return found


def in_later_steps(bench: Bench) -> list[Added]:
    """What each heavy user adds in all steps of the run's last round, by itself.

    Beside others it would shift the masks of theirs in each step but the first.
    """
    question = bench.question(wire.TRAIN, student=steep(bench.world.start))
    number, nonce = bench.world.config.training.rounds, bench.nonce()
    privacy = bench.world.config.privacy
    claimed = LATER_STEPS * privacy.max_grad_norm * SLOW / privacy.declared_users

    def answer(rows: Sequence[Items], value: float) -> Answer:
        client = bench.client(
            rows,
            seed=SEED,
            last_value=value,
            training__local_steps=LATER_STEPS,
            training__learning_rate=SLOW,
            privacy__sample_rate=1.0,
        )
        return bench.ask(client, wire.TRAIN, question, number=number, nonce=nonce)

    nobody = answer([], 1.0)
    return [
        _beside(f"{who} (several steps)", nobody, answer([items], value), claimed)
        for who, (items, value) in heavy_users(bench).items()
        if nobody.error is None
    ]


def in_a_crowd(bench: Bench) -> list[Added]:
    """What one more of many equal users adds where all declared ones are there.

    A weight by the number of rows moves what the others add, all in one direction.
    """
    question = bench.question(wire.TRAIN, student=steep(bench.world.start))
    places, nonce = np.flatnonzero(bench.chosen).tolist(), bench.nonce()
    claimed = bench.world.config.privacy.max_grad_norm * RATE / (OTHERS + 1)
    one, other = (
        _answer(
            bench,
            wire.TRAIN,
            question,
            [places[:2]] * users,
            nonce,
            declared=OTHERS + 1,
        )
        for users in (OTHERS, OTHERS + 1)
    )
    if one.error is not None:
        return []
    return [_beside("two items (among equals)", one, other, claimed)]


def _beside(who: str, one: Answer, other: Answer, claimed: float) -> Added:
    """What a user adds to the answer of a client with it, beside one without it."""
    if other.error is not None:
        return Added(who, {})
    before, after = arrays(one, wire.TRAIN), arrays(other, wire.TRAIN)
    lengths = {
        part: float(np.linalg.norm(after[part] - before[part])) / claimed
        for part in NAMES[wire.TRAIN]
    }
    return Added(who, lengths)


def _difference(kind: str, one: Answer, other: Answer) -> float:
    pairs = zip(arrays(one, kind).values(), arrays(other, kind).values(), strict=True)
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in pairs)


def _answer(
    bench: Bench,
    kind: str,
    records: Records,
    rows: Sequence[Items],
    nonce: str,
    value: float = 1.0,
    declared: int = 0,
) -> Answer:
    rounds = 1 if kind == wire.TRAIN else bench.world.config.training.rounds
    client = bench.client(
        rows,
        seed=SEED,
        last_value=value,
        training__rounds=rounds,
        training__local_steps=1,
        training__learning_rate=RATE,
        privacy__sample_rate=1.0,
        privacy__declared_users=declared or bench.world.config.privacy.declared_users,
    )
    return bench.ask(client, kind, records, nonce=nonce)


def _observed(bench: Bench, kind: str) -> Observed:
    found = [
        each
        for question, records in _questions(bench, kind).items()
        for each in added(bench, kind, question, records)
    ]
    if kind == wire.TRAIN:
        found += [*in_later_steps(bench), *in_a_crowd(bench)]
    worst = max(found, key=lambda each: each.length, default=None)
    return Observed(
        check="clip",
        assumption=ASSUMPTION,
        measure=f"most that one user adds over what the noise is made for: {kind}",
        expected=1.0,
        measured=None if worst is None else worst.length,
        bounds=exactly(0.0, math.hypot(1 + TOLERANCE, _rounding(bench, kind))),
        detail=f"{kind}: {_told(worst)}",
        chance=False,
        refuting="above",
    )


def _told(worst: Added | None) -> str:
    if worst is None:
        return "clients of one seed do not answer alike: nothing could be compared."
    if not worst.lengths:
        return f"a client fails by {worst.who}; its error tells of one user."
    parts = ", ".join(f"{part} {length:.6f}" for part, length in worst.lengths.items())
    return f"most, {worst.length:.5f} of the norm, adds {worst.who}: {parts}."


def _claimed(bench: Bench, kind: str) -> float:
    """In the unit of an answer; an update is a mean, times the learning rate."""
    if kind == wire.TRAIN:
        privacy = bench.world.config.privacy
        return privacy.max_grad_norm * RATE / privacy.declared_users
    return math.sqrt(3) if kind == wire.EVALUATE else 1.0


def _rounding(bench: Bench, kind: str) -> float:
    """What rounding both answers may add to a difference, in what is claimed."""
    world = bench.world
    if kind == wire.TRAIN:
        size = sum(value.numel() for value in world.start.values())
        return ROUNDED * (world.noise + OTHERS) * math.sqrt(size)
    size = int(bench.chosen.sum()) ** 2
    noise = max((each.noise_multiplier for each in world.events), default=1.0)
    return ROUNDED * (noise + OTHERS) * math.sqrt(size)


def _questions(bench: Bench, kind: str) -> dict[str, Records]:
    """What a server may ask that makes users' contributions long."""
    found = {"as asked": bench.question(kind)}
    if kind == wire.TRAIN:
        found["steep student"] = bench.question(kind, student=steep(bench.world.start))
    if kind == wire.SKETCH:
        large = bench.directions * np.float32(1e3)
        found["large directions"] = bench.question(kind, directions=large)
    return found


def steep(state: StateDict, factor: float = STEEP) -> StateDict:
    """A student whose users' gradients are far longer than any clip."""
    return {name: value * factor for name, value in state.items()}
