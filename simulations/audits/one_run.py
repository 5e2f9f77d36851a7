"""The one-run audit: a run with canaries, guesses of who was in, and what they prove.

Simulations only. Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846). Each design of
canaries has a run of its own; each viewpoint guesses from it. What is called the
strongest is the largest of several bounds, each at a confidence that leaves the chance
of any false one as small as a single bound's (Bonferroni). Beside it, an *estimate*
from the canaries' statistics (Andrew et al. 2023, arXiv 2302.03098): it proves nothing.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from common.events import Unit
from common.student import StateDict
from simulations.audits.bounds import (
    gdp_epsilon,
    gdp_epsilon_lower,
    gdp_mu_of,
    one_run_epsilon,
)
from simulations.audits.canaries import (
    DESIGNS,
    Canaries,
    insert,
    most_canaries,
    toss,
    write_truth,
)
from simulations.audits.capacity import fitted
from simulations.audits.guesses import Guesses, num_right, plan_guesses
from simulations.audits.knowledge import some
from simulations.audits.promised import Allowed
from simulations.audits.roc import area_under_curve
from simulations.audits.scores import Targets, student_scores
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.summed import seen_scores
from simulations.audits.transcript import students
from simulations.audits.viewpoints import servers_seat
from simulations.audits.world import ClientRows, World, rerun, write_clients

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class OneRun:
    """One design from one viewpoint: design.md's ``AuditResult``, and what it rests on.

    Attributes:
        viewpoint: key of ``VIEWPOINTS``.
        unit: of the canaries.
        epsilon_claimed: what the promise is against this unit; ``inf`` for nothing.
        confidence: of ``epsilon_lower``.
        joint_confidence: of ``epsilon_lower_joint``, so high that all bounds of the
            audit hold together with ``confidence``.
        epsilon_power: what would typically be found if all that is claimed leaked.
        epsilon_half_noise: likewise if the noise were half of what is claimed: such a
            fault is seen where this exceeds the claim.
        epsilon_ceiling: what would be found if every guess were right.
        epsilon_gaussian: a bound with ``joint_confidence`` if noise is Gaussian and
            canaries do not blur each other (Nasr et al. 2023): far more is seen so, by
            who may assume so much.
        epsilon_estimate: Andrew's; an estimate, and no bound.
    """

    design: str
    viewpoint: str
    unit: Unit
    num_canaries: int
    num_included: int
    guesses: Guesses
    num_right: int
    delta: float
    confidence: float
    joint_confidence: float
    epsilon_claimed: float
    epsilon_lower: float
    epsilon_lower_joint: float
    epsilon_power: float
    epsilon_half_noise: float
    epsilon_ceiling: float
    epsilon_gaussian: float
    epsilon_estimate: float
    auc: float

    @property
    def exceeds(self) -> bool:
        """Whether the claim is refuted, with all bounds counted."""
        return self.epsilon_lower_joint > self.epsilon_claimed


def bound(
    scores: Float,
    included: Bool,
    allowed: float,
    *,
    delta: float,
    confidence: float,
    planned: float | None = None,
    num_bounds: int = 1,
    labels: tuple[str, str, Unit] = ("", "", "user"),
) -> OneRun:
    """What statistics prove, the numbers of guesses fixed by the claim beforehand.

    Args:
        scores: statistic of each canary, float64 ``[m]``.
        included: ground truth, bool ``[m]``.
        allowed: the claimed ε against the canaries' unit at ``delta``.
        planned: the ε that numbers of guesses are planned for; by default the claimed.
        num_bounds: among how many bounds, other attacks' tests counted as if they
            were some, the audit shares what confidence leaves.
        labels: design, viewpoint, unit.
    """
    size = len(scores)
    joint = 1 - (1 - confidence) / num_bounds
    mu = gdp_mu_of(allowed if planned is None else planned, delta)
    plan = plan_guesses(size, mu, delta, joint)
    guesses = plan.guesses
    right = num_right(scores, included, guesses)

    def proved(count: int, certainty: float) -> float:
        return one_run_epsilon(size, guesses.total, count, delta, certainty)

    return OneRun(
        *labels,
        num_canaries=size,
        num_included=int(included.sum()),
        guesses=guesses,
        num_right=right,
        delta=delta,
        confidence=confidence,
        joint_confidence=joint,
        epsilon_claimed=allowed,
        epsilon_lower=proved(right, confidence),
        epsilon_lower_joint=proved(right, joint),
        epsilon_power=plan.as_claimed,
        epsilon_half_noise=plan.half_noise,
        epsilon_ceiling=proved(guesses.total, joint),
        epsilon_gaussian=gaussian(scores, included, delta, joint),
        epsilon_estimate=estimate(scores, included, delta),
        auc=area_under_curve(scores, included),
    )


def gaussian(scores: Float, included: Bool, delta: float, confidence: float) -> float:
    """ε from the error rates of guessing "in" above 0, each canary a trial of its own.

    A statistic lies as far above 0 with a canary as below it without: the threshold is
    there beforehand. Dirac canaries share no number with each other, and are nearly
    independent; others share some.
    """
    false_positives = int((scores[~included] > 0).sum())
    false_negatives = int((scores[included] <= 0).sum())
    num_in = int(included.sum())
    return gdp_epsilon_lower(
        false_positives,
        len(included) - num_in,
        false_negatives,
        num_in,
        delta,
        confidence,
    )


def estimate(scores: Float, included: Bool, delta: float) -> float:
    """ε of the Gaussian mechanism whose statistics would lie as far apart.

    Andrew et al. 2023: the distance of the canaries' mean from that of the unseen ones,
    in deviations of the latter. An estimate without confidence, and no bound; ``inf``
    where nothing blurs them.
    """
    inside, outside = scores[included], scores[~included]
    if len(inside) < 2 or len(outside) < 2:
        return 0.0
    apart = float(inside.mean() - outside.mean())
    spread = float(outside.std(ddof=1))
    if apart <= 0:
        return 0.0
    return gdp_epsilon(apart / spread, delta) if spread > 0 else math.inf


def audit_canaries(
    world: World, settings: AuditSettings, folder: Path, tell: Tell
) -> list[OneRun]:
    """Every design from every viewpoint.

    Args:
        folder: of the audit; ground truth goes there.
        tell: hears what is being done.
    """
    views = viewpoints_of(world)
    num_bounds = len(settings.designs) * len(views) * settings.deciding
    allowed = Allowed(world.events)
    delta = world.config.privacy.delta
    rng = np.random.default_rng(settings.seed)
    found = []
    reference = _reference(world, settings, tell)
    for place, name in enumerate(settings.designs, start=1):
        tell(f"canaries: {name}")
        count = most_canaries(world, settings.num_canaries)
        if count < settings.num_canaries:
            tell(f"canaries: {name}: one a client, so {count} at most")
        made = DESIGNS[name](world, count, rng)
        canaries = fitted(world, made)
        if len(canaries) < len(made):
            tell(f"canaries: {name}: there is room for {len(canaries)} alone")
        included = toss(canaries, rng)
        write_truth(folder / f"canaries-{name}.jsonl", world, canaries, included)
        seed = None if settings.seed is None else settings.seed + place
        scored = _scores(world, canaries, included, reference, seed)
        of_user = allowed.epsilon(delta)
        whole = canaries.unit != "interaction"
        claimed = of_user if whole else allowed.replacing(delta)
        found += [
            bound(
                scores,
                included,
                claimed,
                delta=delta,
                confidence=settings.confidence,
                # An interaction leaks less than group privacy leaves room for.
                planned=of_user,
                num_bounds=num_bounds,
                labels=(name, view, canaries.unit),
            )
            for view, scores in scored.items()
        ]
    return found


def viewpoints_of(world: World) -> tuple[str, ...]:
    """From where this run can be looked at: other clients see more where rounds are."""
    server = servers_seat(world.config.privacy.mode)
    if world.config.training.rounds:
        return (server, "another-client", "public")
    return (server, "public")


def _scores(
    world: World,
    canaries: Canaries,
    included: Bool,
    reference: Sequence[StateDict],
    seed: int | None,
) -> dict[str, Float]:
    """One run with these canaries, and each viewpoint's statistic of them."""
    clients, known = insert(world, canaries, included)
    targets = Targets(canaries.client, canaries.present, canaries.absent, known)
    with recorded(world, clients, seed) as recording:
        sent = students(recording)
        found = {
            servers_seat(world.config.privacy.mode): seen_scores(
                world, recording, targets
            ),
            "public": student_scores(world, sent[-1:], [world.final], targets),
        }
    if world.config.training.rounds:
        # All start from one student, which tells nothing.
        theirs, ours = some(sent[1:]), some(reference[1:])
        found["another-client"] = student_scores(world, theirs, ours, targets)
    return found


@contextmanager
def recorded(
    world: World, clients: Sequence[ClientRows], seed: int | None
) -> Iterator[Path]:
    """Run the run's configuration over these rows; the messages, while the block lasts.

    Args:
        seed: of the noise; ``None`` for the operating system's.
    """
    with tempfile.TemporaryDirectory(prefix="tutela-audit-") as name:
        place = Path(name)
        folders = write_clients(world, clients, place / "federation", seed)
        rerun(world, folders, place / "run", place / "messages", seed)
        yield place / "messages"


def _reference(world: World, settings: AuditSettings, tell: Tell) -> list[StateDict]:
    """The students of every round of a run without canaries, where there are rounds."""
    if not world.config.training.rounds:
        return []
    tell("canaries: a run without any")
    with recorded(world, world.clients, settings.seed) as recording:
        return students(recording)
