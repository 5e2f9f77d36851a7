"""The recommender as its five parts: what each does in a run, and where it is.

Simulations only: it puts a run's configuration and results side by side. The parts
are those of surveys of recommenders: user profile, item features, similarity,
algorithm, evaluation and optimisation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from common.catalogue import Catalogue
from common.config import FlatConfig, RunConfig, to_flat
from simulations.results import Results


@dataclass(frozen=True)
class Part:
    """One part of the pipeline in one run.

    Attributes:
        does: one sentence on this run.
        where: modules to read.
        settings: the configuration's keys that decide it.
        facts: measured in this run, by name.
    """

    name: str
    does: str
    where: tuple[str, ...]
    settings: FlatConfig
    facts: dict[str, str] = field(default_factory=dict)


def parts_of(
    config: RunConfig, catalogue: Catalogue, results: Results | None
) -> tuple[Part, ...]:
    """The five parts of a run, in the order that data takes through them.

    Args:
        results: of the run, ``None`` where it has not ended.
    """
    return tuple(make(config, catalogue, results) for make in PARTS)


def _settings(config: RunConfig, *sections: str) -> FlatConfig:
    flat = to_flat(config)
    return {key: flat[key] for key in flat if key.partition(".")[0] in sections}


def _user_profile(
    config: RunConfig, catalogue: Catalogue, results: Results | None
) -> Part:
    student = config.student
    return Part(
        "user profile",
        f"A user is the bag of the items it touched, divided by their number to the "
        f"{student.history_exponent:g}, encoded in {student.dim} numbers on the "
        "user's own machine.",
        ("common/interactions.py", "common/student.py", "client/personal.py"),
        _settings(config, "student", "partition"),
    )


def _item_features(
    config: RunConfig, catalogue: Catalogue, results: Results | None
) -> Part:
    table = catalogue.table
    categories = int((table["categories"].list.len() > 0).sum())
    return Part(
        "item features",
        "Categories, year, text, pictures and given vectors of the declared "
        f"catalogue, fused by {config.features.fusion}.",
        ("common/features.py", "common/fusion.py", "server/features.py"),
        _settings(config, "features"),
        {
            "items": str(catalogue.num_items),
            "with a title": str(int((table["title"] != "").sum())),
            "with categories": str(categories),
            "with a year": str(int((table["year"] > 0).sum())),
        },
    )


def _similarity(
    config: RunConfig, catalogue: Catalogue, results: Results | None
) -> Part:
    content = (
        f"items that the teacher never saw lie where their features put them "
        f"(ridge, l2 {config.transfer.content_l2:g})"
        if config.transfer.content
        else "items that the teacher never saw have no place"
    )
    return Part(
        "similarity",
        f"Items are as like as the teacher ({config.teacher.name}) has them, brought "
        f"to the student by {config.transfer.method}; {content}.",
        ("server/teacher/", "server/transfer.py", "common/recommend.py"),
        _settings(config, "teacher", "transformer", "transfer"),
    )


def _algorithm(
    config: RunConfig, catalogue: Catalogue, results: Results | None
) -> Part:
    does = []
    if config.statistics.share:
        does.append(
            "one noisy sum of which items go together refines the teacher "
            f"({config.statistics.share:.0%} of ε)"
        )
    if config.training.rounds:
        does.append(
            f"{config.training.rounds} rounds of private training, "
            f"{config.aggregation.name} on the server"
        )
    if config.privacy.mode == "distributed":
        does.append("the server sees sums of clients' updates alone")
    if config.training.rounds and config.distillation.weight:
        does.append(f"distilling soft labels by {config.distillation.loss}")
    facts = {}
    if results is not None:
        facts["promise"] = results.promise.sentence
    text = "; ".join(does)
    return Part(
        "algorithm",
        f"{text[:1].upper()}{text[1:]}.",
        ("server/strategy.py", "client/train.py", "client/dp.py"),
        _settings(
            config,
            *("statistics", "distillation", "refresh"),
            *("training", "privacy", "secagg", "aggregation"),
        ),
        facts,
    )


def _evaluation(
    config: RunConfig, catalogue: Catalogue, results: Results | None
) -> Part:
    facts = {}
    if results is not None:
        metric = results.primary_metric
        facts = {
            f"{metric}, {name.replace('_', ' ')}": f"{found[metric].value:.4f}"
            for name, found in results.models.items()
            if metric in found
        }
        if results.verdict is not None:
            facts["verdict"] = results.verdict.text
    guard = "on" if config.safeguard.enabled else "off"
    return Part(
        "evaluation and optimisation",
        "Every item is ranked for held-out users; the server's choices are made on "
        f"public validation users (safeguard {guard}).",
        ("common/metrics.py", "simulations/evaluation.py", "server/safeguard.py"),
        _settings(config, "safeguard", "client-metrics", "evaluation"),
        facts,
    )


PARTS: tuple[Callable[[RunConfig, Catalogue, Results | None], Part], ...] = (
    _user_profile,
    _item_features,
    _similarity,
    _algorithm,
    _evaluation,
)
