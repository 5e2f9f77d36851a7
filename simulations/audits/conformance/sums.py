"""Checks of a secure sum: its noise, and what one client adds to it.

Simulations only. In mode ``distributed`` a client is seen in a sum alone. So of the sum
of a few clients: what is left of it beyond the exact sum has to be the survivors'
shares of the noise, some of them gone; two sums that differ by one client's rows differ
by what this client adds. What is expected is worked out here from the promised event,
not by the code that clients add their noise with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from common.config import parse
from common.events import DpEvent, merged
from common.fixed_point import Integer, centred
from common.rotation import rotate
from common.secure_round import num_parameters
from common.student import shapes
from simulations.audits.conformance.asking import Client
from simulations.audits.conformance.bench import Bench, Items
from simulations.audits.conformance.clip import SEED, STEEP, heavy_users
from simulations.audits.conformance.observed import (
    Bounds,
    Observed,
    Side,
    deviation_bounds,
    exactly,
)
from simulations.audits.conformance.summing import (
    Learnt,
    learn,
    shares_of,
    summing_clients,
)

Float = npt.NDArray[np.float64]

NOISE = (
    "Whoever falls silent, the noise in a sum is at least what is promised: each "
    "survivor adds a share so large that the honest ones of the least are enough."
)
CLIP = (
    "No client, whatever its rows, adds more to a sum than the norm that the noise is "
    "made for, in L2 and in L1."
)

#: Numbers that noise is measured by, of rounds at most so many.
NUMBERS, ROUNDS = 600, 6
#: So nearly all of a user's items are targets that no draw leaves one out.
ALL_TARGETS = 1 - 1e-9
#: A rate at which any user's update is longer than the clip.
FAST = 1e3


def promised_event(bench: Bench) -> DpEvent:
    """What a round's sum is promised to be."""
    (event,) = merged(bench.world.events)
    return event


def check_sum_noise(bench: Bench) -> list[Observed]:
    """The deviation of what a sum holds beyond the exact one, over the claimed."""
    shares = shares_of(bench)
    most = shares.clients - shares.least
    rounds = rounds_of(bench)
    # Rounds are for once: of the same clients those who fall silent take later ones.
    nobody = summing_clients(bench, [], bench.seed, training__rounds=2 * rounds)
    singles = [[[item]] for item in range(shares.clients)]
    somebody = summing_clients(
        bench,
        singles,
        bench.seed,
        training__rounds=rounds,
        training__target_fraction=ALL_TARGETS,
        privacy__sample_rate=1.0,
    )
    return [
        _noise(bench, nobody, [], 0, "without rows, nobody silent"),
        *(
            _noise(bench, nobody, [], silent, f"without rows, {silent} silent")
            for silent in [most][: most > 0]
        ),
        _noise(bench, somebody, singles, 0, "with users, beyond the exact sum"),
    ]


def _noise(
    bench: Bench,
    clients: Sequence[Client],
    singles: Sequence[Sequence[Items]],
    silent: int,
    who: str,
) -> Observed:
    event, shares = promised_event(bench), shares_of(bench)
    whole = (event.noise_multiplier * event.l2_sensitivity) ** 2
    rounds, left = rounds_of(bench), []
    for number in range(1, rounds + 1):
        later = rounds if silent else 0
        learnt = learn(bench, clients, number + later, silent=silent)
        if len(learnt.survivors) != len(clients) - silent:
            return seen("noise", NOISE, _DEVIATION + who, 1.0, None, exactly(1.0))
        beyond = learnt.values - _exact(bench, clients, singles, learnt)
        claimed = whole / shares.honest * len(learnt.survivors)
        left.append(beyond / math.sqrt(claimed))
    scaled = np.concatenate(left)
    measured = math.sqrt(float(np.mean(np.square(scaled))))
    # A rounding has a variance of ¼ at most, beside one share of the noise.
    rounding = shares.honest / whole / 8 if singles else 0.0
    return seen(
        "noise",
        NOISE,
        _DEVIATION + who,
        1.0,
        measured,
        deviation_bounds(scaled.size, rounding),
        f"Noise of a sum of {shares.clients} clients {who}: {measured:.4f} of what is "
        f"claimed, in {scaled.size} numbers.",
        chance=True,
        refuting="below",
    )


def rounds_of(bench: Bench) -> int:
    """Sums that noise is measured in."""
    dim = num_parameters(shapes(bench.world.spec).values())
    return min(ROUNDS, math.ceil(NUMBERS / dim))


_DEVIATION = "deviation of a sum's noise over the claimed: clients "


def _exact(
    bench: Bench,
    clients: Sequence[Client],
    singles: Sequence[Sequence[Items]],
    learnt: Learnt,
) -> Float:
    """The rotated sum of the clipped updates of users of one item, without rounding.

    All that such a user's steps change is the bias, whose gradient is softmax − item.
    """
    config = parse(clients[0].config)
    rate = config.training.learning_rate / config.privacy.declared_users
    start = bench.world.start["decoder.bias"].double().numpy()
    dim = num_parameters(shapes(bench.world.spec).values())
    # The bias is where a state dict has it.
    place, total = _place_of_bias(bench), np.zeros(dim)
    for ((item,),) in singles:
        bias = start.copy()
        for _ in range(config.training.local_steps):
            chance = np.exp(bias - bias.max())
            chance /= chance.sum()
            chance[item] -= 1.0
            bias -= rate * chance
        update = bias - start
        norm = float(np.linalg.norm(update))
        total[place] += update * min(1.0, config.privacy.max_grad_norm / norm)
    return rotate(total * learnt.found.plan.grid.scale, learnt.found.seed)


def _place_of_bias(bench: Bench) -> slice:
    begin = 0
    for name, shape in shapes(bench.world.spec).items():
        size = math.prod(shape)
        if name == "decoder.bias":
            break
        begin += size
    return slice(begin, begin + size)


def check_sum_clip(bench: Bench) -> list[Observed]:
    """The most that one client adds to a sum, over what is claimed, in both norms."""
    event, added = promised_event(bench), dict(_added(bench))
    found = []
    for name, order, claimed in (
        ("L2", 2, event.l2_sensitivity),
        ("L1", 1, event.l1_sensitivity),
    ):
        lengths = {
            who: float(np.linalg.norm(each, order)) / claimed
            for who, each in added.items()
        }
        most = max(lengths, key=lambda who: lengths[who], default="")
        measured = lengths.get(most)
        found.append(
            seen(
                "clip",
                CLIP,
                f"most that a client adds to a sum in {name}, over the claimed",
                1.0,
                measured,
                exactly(0.0, 1.0),
                f"The most in {name} adds a client whose user has {most}: "
                f"{measured or 0:.4f} of what is claimed.",
            )
        )
    return found


def _added(bench: Bench) -> Iterator[tuple[str, Integer]]:
    """What a client of each heavy user adds: sums of one seed with and without it."""
    steep = {name: value * STEEP for name, value in bench.world.start.items()}
    nonce = bench.nonce()

    def summed(rows: list[Items], value: float = 1.0) -> Learnt:
        clients = summing_clients(
            bench,
            [rows],
            SEED,
            last_value=value,
            training__learning_rate=FAST,
            privacy__sample_rate=1.0,
        )
        return learn(bench, clients, nonce=nonce, student=steep)

    bare = summed([])
    for who, (items, value) in heavy_users(bench).items():
        with_rows = summed([items], value)
        if len(bare.values) == len(with_rows.values) > 0:
            bits = bare.found.plan.bits
            yield who, centred(with_rows.values - bare.values, bits)


def seen(
    check: str,
    assumption: str,
    measure: str,
    expected: float,
    measured: float | None,
    bounds: Bounds,
    detail: str = "The clients made no sum, so that nothing could be seen.",
    *,
    chance: bool = False,
    refuting: Side = "above",
) -> Observed:
    """A figure of a sum; ``None`` where there was none."""
    return Observed(
        check, assumption, measure, expected, measured, bounds, detail, chance, refuting
    )
