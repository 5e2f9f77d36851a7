"""A run's results: every model ranked, and the run's facts put together.

Simulations only: it reads what servers and clients of all arms left on disk.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np

from common.config import FlatConfig, RunConfig, to_flat
from common.folders import (
    METRICS,
    ROUNDS,
    STUDENT,
    STUDENT_TRANSFERRED,
    SUMMARY,
    TEACHER,
    TEACHER_REFINED,
)
from common.fusion import DECISIONS
from common.interactions import FloatArray
from common.intervals import Estimate, bootstrap_interval
from common.metrics import PerUser, Scorer
from common.promise import promise_of
from simulations.baselines.rows import comparison_scorers
from simulations.evaluation import (
    BOOTSTRAP_SEED,
    HeldOut,
    private_popularity,
    public_popularity,
    rank,
    read_heldout,
    student_scorer,
    summarise,
    teacher_scorer,
)
from simulations.groups import Attribute, group_figures, labels_of
from simulations.partition import (
    CLIENTS,
    Split,
)
from simulations.personal import personal_gains
from simulations.personal_record import PersonalGains
from simulations.results import (
    CurvePoint,
    Federation,
    ModelName,
    Results,
    RoundRecord,
    StatisticsRecord,
    Verdict,
    model_note,
    record_estimates,
    record_promise,
)
from simulations.shareable import shareable_config
from simulations.sum_check import read_checks, sentence_of

PRIMARY, GROUP_METRIC = "ndcg@100", "ndcg@10"
FEDERATION = "federation"
#: Models that are private in mode ``local`` alone.
TRAINED = (
    *("student_private", "student_scratch", "teacher_refined"),
    *("ensemble", "fedmf"),
)
#: What has the weight that the trained student has not, as the server names it.
STARTS = {"transferred": "transferred student", "refined": "refined start"}
#: Who decide together where ``evaluation.decision`` says how: what any device holds.
DECIDERS: tuple[ModelName, ModelName] = ("student_transferred", "student_private")
PACKAGES = ("tutela", "flwr", "torch", "opacus", "dp-accounting", "numpy")


@dataclass(frozen=True)
class Arm:
    """A training run of the experiment.

    Attributes:
        name: key of the model it yields.
        overrides: what differs from the run's config.
        out: where its server writes.
    """

    name: ModelName
    overrides: FlatConfig
    out: Path


@dataclass(frozen=True)
class Ranked:
    """A model's values per held-out user, and their summary."""

    values: PerUser
    estimates: dict[str, Estimate]


def scorers(out: Path, arms: list[Arm], heldout: HeldOut) -> dict[ModelName, Scorer]:
    """Every model that the run left on disk."""
    federation, catalogue = out / FEDERATION, heldout.catalogue
    found: dict[ModelName, Scorer] = {
        "popularity": public_popularity(federation, catalogue),
        "popularity_nonprivate": private_popularity(federation, catalogue),
    }
    if (out / TEACHER).is_file():
        found["teacher"] = teacher_scorer(out / TEACHER, heldout.ordered)
    if (out / TEACHER_REFINED).is_file():
        found["teacher_refined"] = teacher_scorer(
            out / TEACHER_REFINED, heldout.ordered
        )
    if (out / STUDENT_TRANSFERRED).is_file():
        found["student_transferred"] = student_scorer(
            out / STUDENT_TRANSFERRED, heldout.shown
        )
    for arm in arms:
        if (arm.out / STUDENT).is_file():
            found[arm.name] = student_scorer(arm.out / STUDENT, heldout.shown)
    return found


def collect(
    config: RunConfig,
    out: Path,
    arms: list[Arm],
    dealt: Split,
    *,
    noise: float,
    status: str,
    engine: str,
    seconds: float,
    command: str,
) -> Results:
    """Rank every model and put the run's facts together."""
    heldout = read_heldout(out / FEDERATION)
    settings = config.evaluation
    # Who has nothing to find is behind no figure.
    num_judged = int((heldout.held.getnnz(axis=1) > 0).sum())
    suppressed = suppression(num_judged, settings.min_group_users)
    ranked = {}
    promise = promise_of(config, noise, seeded=config.run.seed >= 0)
    models = {} if suppressed else scorers(out, arms, heldout)
    if models and settings.comparison:
        others = comparison_scorers(out / FEDERATION, heldout, config, promise.epsilon)
        models |= cast(dict[ModelName, Scorer], others)
    if settings.decision != "none" and set(DECIDERS) <= set(models):
        deciders = [models[name] for name in DECIDERS]
        models["ensemble"] = decided(deciders, settings.decision)
    for name, scorer in models.items():
        values = rank(scorer, heldout, settings)
        ranked[name] = Ranked(values, summarise(values, heldout, settings))
    seeded = config.run.seed >= 0
    safeguard = _read_summary(out).get("safeguard", {})
    reverted = _is_reverted(out, safeguard)
    return Results.model_validate(
        {
            "name": config.run.name,
            "status": status,
            "engine": engine,
            "seed": config.run.seed if seeded else None,
            "command": command,
            "primary_metric": PRIMARY,
            "models": {n: record_estimates(r.estimates) for n, r in ranked.items()},
            "model_notes": {
                name: model_note(private=_is_private(name, config)) for name in ranked
            },
            "promise": record_promise(promise),
            "verdict": verdict_of(
                ranked,
                safeguard.get("weight") if config.training.rounds or reverted else None,
                STARTS.get(safeguard.get("start", ""), STARTS["transferred"]),
            ),
            "suppressed": suppressed,
            "groups": [
                asdict(each) for each in _groups(ranked, dealt, heldout, config)
            ],
            "personal": _personal(out, config),
            "transfer": _read_summary(out).get("transfer") or "",
            "refinement": _read_summary(out).get("refinement") or "",
            "secure_sums": sentence_of(read_checks(out)),
            "statistics": _read_statistics(out),
            "rounds": _read_rounds(out, None if suppressed else heldout, config),
            "interpolation_weight": None if reverted else safeguard.get("weight"),
            "interpolation_curve": tuple(
                CurvePoint(weight=weight, validation=value)
                for weight, value in safeguard.get("curve", [])
            ),
            "federation": Federation(
                num_clients=config.partition.num_clients,
                declared_users_per_client=config.privacy.declared_users,
                public_users=dealt.public["user"].n_unique()
                + dealt.validation["user"].n_unique(),
                heldout_users=heldout.num_users,
                num_items=heldout.catalogue.num_items,
            ),
            "peak_memory_bytes": peak_memory_bytes(),
            "seconds_total": seconds,
            "config": shareable_config(to_flat(config)),
            "versions": {"python": sys.version.split()[0]}
            | {package: version(package) for package in PACKAGES},
        }
    )


def decided(scorers: Sequence[Scorer], how: str) -> Scorer:
    """Several models' rankings as one.

    Args:
        how: a key of ``common.fusion.DECISIONS``.
    """

    def score(start: int, stop: int) -> FloatArray:
        return DECISIONS[how]([each(start, stop) for each in scorers], None)

    return score


def suppression(num_users: int, min_users: int) -> str:
    """Why figures over held-out users are left out, or "" where they are not."""
    if num_users >= min_users:
        return ""
    return (
        f"Figures over held-out users are suppressed: fewer than {min_users} users "
        "stand behind them (evaluation.min-group-users)."
    )


def _is_private(name: str, config: RunConfig) -> bool:
    if name.endswith("_nonprivate"):
        return False
    trained = name in TRAINED
    return not (trained and config.privacy.mode == "off")


def verdict_of(
    ranked: dict[ModelName, Ranked],
    weight: float | None,
    start: str = "transferred student",
) -> Verdict | None:
    """Whether privacy was worth it, with paired 95 % intervals over users.

    Args:
        weight: of the trained student in the served one; ``None`` where none trained.
        start: what has the rest of the weight.
    """
    if "student_private" not in ranked:
        return None
    private = ranked["student_private"].values[PRIMARY]
    parts, beats = [], {}
    for name in ("student_transferred", "popularity"):
        gain = bootstrap_interval(
            private - ranked[name].values[PRIMARY], seed=BOOTSTRAP_SEED
        )
        beats[name] = gain.value > 0
        sure = "" if gain.low > 0 or gain.high < 0 else ", within chance"
        word = "beats" if beats[name] else "does not beat"
        parts.append(
            f"{word} {name.replace('_', ' ')} by {gain.value:+.4f} "
            f"[{gain.low:+.4f}, {gain.high:+.4f}]{sure}"
        )
    # "Federated", not "private": in mode off it is not.
    mean = float(np.nanmean(private))
    text = f"In NDCG@100 the federated student ({mean:.4f}) {' and '.join(parts)}."
    if not all(beats.values()):
        text += (
            " The noise cost more than the private rows gave; more users a client, "
            "fewer steps or a larger ε would help."
        )
    if weight is not None:
        text += f" It is {weight:.0%} trained and {1 - weight:.0%} {start}."
    return Verdict(
        beats_transferred=beats["student_transferred"],
        beats_popularity=beats["popularity"],
        text=text,
    )


def _groups(
    ranked: dict[ModelName, Ranked], dealt: Split, heldout: HeldOut, config: RunConfig
) -> tuple[Attribute, ...]:
    """A metric by group, for each attribute that the private set has of its users."""
    return group_figures(
        {name: each.values[GROUP_METRIC] for name, each in ranked.items()},
        labels_of(dealt.users, heldout.users),
        metric=GROUP_METRIC,
        min_users=config.evaluation.min_group_users,
        resamples=config.evaluation.resamples,
    )


def _personal(out: Path, config: RunConfig) -> PersonalGains | None:
    if not config.evaluation.personal or not (out / STUDENT).is_file():
        return None
    clients = out / FEDERATION / CLIENTS
    least = config.evaluation.min_group_users
    return personal_gains(clients, out / STUDENT, min_users=least)


def _read_summary(out: Path) -> dict[str, Any]:
    if not (out / SUMMARY).is_file():
        return {}
    found: dict[str, Any] = json.loads((out / SUMMARY).read_text())
    return found


def _is_reverted(out: Path, safeguard: dict[str, Any]) -> bool:
    """Whether the public teacher's student was released, though one was refined."""
    refined = (out / TEACHER_REFINED).is_file()
    return refined and safeguard.get("start") == "transferred"


def _read_rounds(
    out: Path, heldout: HeldOut | None, config: RunConfig
) -> tuple[RoundRecord, ...]:
    if not (out / METRICS).is_file():
        return ()
    lines = map(json.loads, (out / METRICS).read_text().splitlines())
    rounds = []
    for line in lines:
        if line.pop("event") != "round":
            continue
        line.pop("time")
        kept = out / ROUNDS / f"{line['round']:05d}.safetensors"
        value = None
        if kept.is_file() and heldout is not None:
            scorer = student_scorer(kept, heldout.shown)
            values = rank(scorer, heldout, config.evaluation)
            value = float(np.nanmean(values[PRIMARY]))
        rounds.append(RoundRecord(heldout=value, **line))
    return tuple(rounds)


def _read_statistics(out: Path) -> tuple[StatisticsRecord, ...]:
    """The questions for noised sums, as they were asked."""
    if not (out / METRICS).is_file():
        return ()
    lines = map(json.loads, (out / METRICS).read_text().splitlines())
    return tuple(
        StatisticsRecord.model_validate(
            {name: line[name] for name in StatisticsRecord.model_fields}
        )
        for line in lines
        if line["event"] == "statistics"
    )


def peak_memory_bytes() -> int:
    """Largest resident size of this process or of a finished child."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return max(own, children) * unit
