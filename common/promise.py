"""The promise, always stated whole: no ε without what it means.

In ``common`` because results, reports, ledgers and logs print the same sentence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from common.accounting import accountant_of, epsilon
from common.config import RunConfig
from common.events import Mechanism, Relation, Unit
from common.integer_noise import policy_of
from common.plan import Releases, planned_releases
from common.secagg.trust import trust_sentence
from common.wire import EVALUATE, SKETCH, STATISTICS, TRAIN

NOT_PRIVATE = "NOT PRIVATE"
PINNED = "Each client ran only code that its owner had pinned by its hash beforehand."
UNPINNED = (
    "The server shipped the code that read the rows and not every client had pinned "
    "it: against a server that ships other code nothing of this is promised."
)
SEEDED = (
    "The noise was seeded for a reproducible simulation: the figures are the "
    "mechanism's, these very files protect nobody."
)

#: The last half of a sentence on what the noise is made of.
NOISE: dict[Mechanism, str] = {
    "gaussian": (
        "noise is floating-point Gaussian, not hardened against attacks on its last "
        "bits"
    ),
    "skellam": "noise is integer (Skellam), and so is what it is added to",
}


@dataclass(frozen=True)
class Promise:
    """Everything an ε needs beside it.

    Attributes:
        epsilon: ``inf`` where nothing is promised.
        seeded: noise came from a seed, as only simulations allow: the figures are
            those of the mechanism, this very artefact protects nobody.
        pinned: whether clients ran only code that their owners pinned; ``None`` where
            nobody shipped any, as in a simulation.
        noise: what kind of noise.
    """

    epsilon: float
    delta: float
    unit: Unit
    relation: Relation
    mode: str
    trust: str
    released: str
    accountant: str
    sampling: str
    seeded: bool
    pinned: bool | None = None
    noise: Mechanism = "gaussian"

    @property
    def stamp(self) -> str:
        """``NOT PRIVATE`` where nothing is promised, else empty."""
        return "" if math.isfinite(self.epsilon) else NOT_PRIVATE

    @property
    def sentence(self) -> str:
        """The whole promise as one sentence (and a warning where one is due)."""
        code = {None: "", True: f" {PINNED}", False: f" {UNPINNED}"}[self.pinned]
        if self.stamp:
            return (
                f"{NOT_PRIVATE}: mode {self.mode} neither clips nor adds noise, so "
                f"nothing is promised about {self.released}.{code}"
            )
        text = (
            f"{self._whose} in this run ({self.released}) are together "
            f"(ε = {round_up(self.epsilon)}, δ = {self.delta})-differentially "
            f"private per {self.unit} ({self.relation.replace('-', ' ')} "
            f"{self._rows}), mode {self.mode}: {self.trust}; "
            f"accountant: {self.accountant}; sampling: {self.sampling}. "
            "A person with rows at several clients, or in several runs, adds these "
            f"up; {NOISE[self.noise]}.{code}"
        )
        return f"{text} {SEEDED}" if self.seeded else text

    @property
    def _whose(self) -> str:
        one_by_one = self.mode != "distributed"
        return (
            "Each client's releases" if one_by_one else "All clients' summed releases"
        )

    @property
    def _rows(self) -> str:
        """What is added or removed, after "one"."""
        if self.mode != "distributed":
            return f"{self.unit}'s rows at that client"
        if self.unit == "client":
            return "client's rows, all of them"
        return "user's rows, the only user of its client"


def promise_of(
    config: RunConfig,
    noise_multiplier: float,
    *,
    seeded: bool,
    pinned: bool | None = None,
) -> Promise:
    """What a client's whole run under this configuration promises.

    Args:
        pinned: see :class:`Promise`.
    """
    privacy = config.privacy
    noise = noise_multiplier if privacy.mode != "off" else 0.0
    found = planned_releases(config, noise)
    events = tuple(found.values())
    first = events[0]
    return Promise(
        epsilon=epsilon(events, privacy.delta),
        delta=privacy.delta,
        unit=first.unit,
        relation=first.relation,
        mode=privacy.mode,
        trust=_trust(config),
        released=_summed()
        if privacy.mode == "distributed"
        else _released(found, privacy.mode),
        accountant=accountant_of(events),
        sampling=_sampling(found),
        seeded=seeded,
        pinned=pinned,
        noise=first.mechanism,
    )


def _trust(config: RunConfig) -> str:
    if config.privacy.mode == "off":
        return "everybody who sees a client's answers is trusted"
    if config.privacy.mode != "distributed":
        return "nobody else is trusted, the server and other clients included"
    secagg, policy = config.secagg, policy_of(config)
    return (
        "the server and other clients see no client's own, only the sum, provided "
        f"that {secagg.least} of {secagg.clients} clients finish a round (one with "
        "fewer is discarded, and stays charged) and that at most "
        f"{secagg.most_corrupt} of those are in league with it (the noise is that of "
        f"{secagg.honest} clients); trust model: "
        f"{trust_sentence(policy, secagg.clients)}"
    )


def _summed() -> str:
    return (
        "each round the noisy sum of the clipped updates of a sample of them, and "
        "nothing else of their data"
    )


#: What leaves a client, by the kind of message that asks for it.
RELEASED = {
    STATISTICS: "{noised}sums of items and of pairs of items",
    SKETCH: "{noised}sums of such pairs along directions that the server chose",
    TRAIN: "student updates",
    EVALUATE: "{noised}sums of metrics",
}


def _released(found: Releases, mode: str) -> str:
    parts = [RELEASED[kind] for kind in RELEASED if kind in found]
    listed = ", ".join(parts[:-1])
    listed = f"{listed} and {parts[-1]}" if listed else parts[-1]
    if mode == "off":
        return listed.format(noised="")
    return f"{listed.format(noised='noised ')}, and nothing else of its data"


def _sampling(found: Releases) -> str:
    parts = []
    training = found.get(TRAIN)
    if training and training.mechanism == "skellam":
        parts.append(
            "Poisson, every client by a secret coin of its own with probability "
            f"{training.sample_rate:g} a round, {training.steps} rounds; who is not "
            "in the sample sends noise alone, and the server cannot tell"
        )
    elif training:
        parts.append(
            "Poisson, every user independently with probability "
            f"{training.sample_rate:g} a step, {training.steps} steps"
        )
    if STATISTICS in found:
        parts.append("none for the sums of items and pairs, every user is in them")
    if metrics := found.get(EVALUATE):
        parts.append(f"none for the {metrics.steps} sums of metrics")
    return "; ".join(parts)


def round_up(value: float, digits: int = 3) -> str:
    """So many decimals, never less than the value.

    >>> round_up(7.9981), round_up(1.5, 4)
    ('7.999', '1.5000')
    """
    unit = Decimal(1).scaleb(-digits)
    return str(Decimal(repr(value)).quantize(unit, ROUND_CEILING))
