"""Other recommenders on our own split: what they reach, and at which privacy.

Simulations only. Cross-domain: public MovieLens-100K, private MovieLens-1M, users
held out of both, every unseen item ranked. Models without noise are fitted to the
public rows, and to all private rows for what privacy costs; FedMF to the private
rows under (ε, δ). LOO-99 on MovieLens-100K comes second, beside the full ranking of
the same models, with the leak of draw counts shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import scipy.sparse as sp
from rich.table import Table

from common.beyond_accuracy import Values
from common.config import FlatConfig, RunConfig, defaults, parse, read_overrides
from common.interactions import encode_held
from common.intervals import bootstrap_interval
from common.metrics import PerUser, evaluate_ranking
from common.promise import NOT_PRIVATE
from simulations.baselines import BASELINES, fedmf, scorer_of, tune
from simulations.baselines.fedmf import FedMF
from simulations.baselines.model import Model
from simulations.datasets import load
from simulations.evaluation import (
    BOOTSTRAP_SEED,
    HeldOut,
    private_rows,
    public_rows,
    rank,
    read_heldout,
    summarise,
)
from simulations.experiment import prepare
from simulations.groups import group_figures, labels_of
from simulations.protocols import Shares, leave_one_out
from simulations.sampled import counting_scorer, draw_candidates, evaluate_sampled

TITLE = "Comparison with other recommenders on the same split"

EPSILONS = (8.0, 3.0, 1.0)
FEDMF_PUBLIC, FEDMF_NONPRIVATE = "fedmf_public_start", "fedmf_nonprivate"
#: Chosen on public users alone, with noise in proportion to their number.
FEDMF = FedMF()
SHOWN = ("ndcg@10", "ndcg@100", "recall@20", "coverage@10")
BEYOND = ("diversity@10", "novelty@10", "gini@10")
GROUPED_BY = "ndcg@10"
LEAK_ROUNDS = (10, 100)

_CONFIG = Path(__file__).parents[1] / "configs" / "ml1m.toml"
_SEED = 0
_QUICK: FlatConfig = {
    "data.public": "synthetic:num_users=400,num_items=250",
    "data.private": "synthetic:num_users=400,num_items=250",
    "partition.public-users": 60,
    "partition.heldout-users": 60,
    "privacy.declared-users": 280,
    "evaluation.resamples": 100,
}


@dataclass(frozen=True)
class Fitted:
    """A model to rank, and what its row says of it.

    Attributes:
        rows: which rows it learnt from: ``public`` or ``private``.
        promise: the whole sentence; "" where none is due.
        epsilon: None where the model is public, or not private at all.
    """

    name: str
    label: str
    rows: str
    stamp: str
    epsilon: float | None
    promise: str
    settings: dict[str, Any]
    model: Model


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """Figures of every row, JSON-able.

    Args:
        data: folder that holds ``ml-100k`` and ``ml-1m``.
        quick: generated data and little tuning instead.
    """
    config = _config(data, quick=quick)
    return {
        "title": TITLE,
        "quick": quick,
        "cross_domain": _cross_domain(config, quick=quick),
        "loo99": _loo99(config.data.public, quick=quick),
    }


def _config(data: Path, *, quick: bool) -> RunConfig:
    named: FlatConfig = {
        "data.public": str(data / "ml-100k"),
        "data.private": str(data / "ml-1m"),
    }
    return parse(defaults() | read_overrides(_CONFIG) | (_QUICK if quick else named))


# ---------------------------------------------------------------- cross-domain
def _cross_domain(config: RunConfig, *, quick: bool) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        prepare(config, Path(folder))
        heldout = read_heldout(Path(folder))
        public = public_rows(Path(folder), heldout.catalogue)
        private = private_rows(Path(folder), heldout.catalogue)
    found, values = [], {}
    for fitted in _models(public, private, config, quick=quick):
        per_user = rank(
            scorer_of(fitted.model, heldout.shown), heldout, config.evaluation
        )
        values[fitted.name] = per_user
        found.append(_row(fitted, per_user, heldout, config))
    return {
        "heldout_users": heldout.num_users,
        "public_users": public.shape[0],
        "private_users": private.shape[0],
        "rows": found,
        "groups": _groups(values, heldout, config),
    }


def _models(
    public: sp.csr_matrix, private: sp.csr_matrix, config: RunConfig, *, quick: bool
) -> Iterator[Fitted]:
    """One model after the other, so that one is in memory at a time."""
    for rows, train in (("public", public), ("private", private)):
        for name, baseline in BASELINES.items():
            grid = baseline.grid[:1] if quick else baseline.grid
            settings = tune(baseline.fit, grid, train, seed=_SEED)
            yield Fitted(
                name=f"{name}_{rows}",
                label=baseline.label,
                rows=rows,
                stamp=NOT_PRIVATE if rows == "private" else "",
                epsilon=None,
                promise="",
                settings={} if settings is None else asdict(settings),
                model=baseline.fit(train, settings),
            )
    yield from _fedmf(public, private, config, quick=quick)


def _fedmf(
    public: sp.csr_matrix, private: sp.csr_matrix, config: RunConfig, *, quick: bool
) -> Iterator[Fitted]:
    """Under each ε from a random and from a public start, and once without noise."""
    settings = FEDMF
    for target in EPSILONS[:1] if quick else EPSILONS:
        noise = fedmf.noise_for(settings, target, config.privacy.delta)
        promise = fedmf.promise_for(settings, noise, config.privacy.delta)
        for start in ("", "public"):
            yield Fitted(
                name=f"fedmf{'_public_start' if start else ''}_{target:g}",
                label=f"FedMF{', public start' if start else ''}, ε = {target:g}",
                rows="private",
                stamp="",
                epsilon=promise.epsilon,
                promise=promise.sentence,
                settings=asdict(settings) | {"noise_multiplier": noise},
                model=_train(public, private, settings, noise, config, start),
            )
    yield Fitted(
        name=FEDMF_NONPRIVATE,
        label="FedMF, public start, no noise",
        rows="private",
        stamp=NOT_PRIVATE,
        epsilon=None,
        promise="",
        settings=asdict(settings),
        model=_train(public, private, settings, 0.0, config, "public"),
    )


def _train(
    public: sp.csr_matrix,
    private: sp.csr_matrix,
    settings: FedMF,
    noise: float,
    config: RunConfig,
    start: str,
) -> Model:
    return fedmf.fit(
        private,
        settings,
        noise_multiplier=noise,
        declared_users=config.privacy.declared_users,
        seed=_SEED,
        start=fedmf.public_start(public, settings) if start else None,
    )


def _row(
    fitted: Fitted, values: PerUser, heldout: HeldOut, config: RunConfig
) -> dict[str, Any]:
    estimates = summarise(values, heldout, config.evaluation)
    facts = {k: v for k, v in vars(fitted).items() if k != "model"}
    metrics = {name: asdict(estimate) for name, estimate in estimates.items()}
    return facts | {"metrics": metrics}


def _groups(
    values: dict[str, PerUser], heldout: HeldOut, config: RunConfig
) -> list[dict[str, Any]]:
    """By age and gender, where the set has them: what ε = 8 costs whom."""
    labels = labels_of(load(config.data.private).users, heldout.users)
    found = group_figures(
        {name: value[GROUPED_BY] for name, value in values.items()},
        labels,
        metric=GROUPED_BY,
        min_users=config.evaluation.min_group_users,
        resamples=config.evaluation.resamples,
        private=f"{FEDMF_PUBLIC}_{EPSILONS[0]:g}",
        nonprivate=FEDMF_NONPRIVATE,
    )
    return [asdict(attribute) for attribute in found]


# ---------------------------------------------------------------- LOO-99
def _loo99(name: str, *, quick: bool) -> dict[str, Any]:
    data = load(name)
    parts = leave_one_out(data.interactions, Shares(), np.random.default_rng(_SEED))
    train, held = encode_held(parts.evaluated, data.catalogue.items)
    candidates = draw_candidates(train, held, seed=_SEED)
    rows = []
    for baseline in BASELINES.values():
        grid = baseline.grid[:1] if quick else baseline.grid
        settings = tune(baseline.fit, grid, train, seed=_SEED)
        score = scorer_of(baseline.fit(train, settings), train)
        full = evaluate_ranking(
            score, train, held, batch_size=256, metrics=["hr@10", "ndcg@10"]
        )
        sampled = evaluate_sampled(score, candidates, batch_size=256)
        rows.append(
            {
                "label": baseline.label,
                "stamp": NOT_PRIVATE,
                "settings": {} if settings is None else asdict(settings),
                "full": _means(full),
                "sampled": _means(sampled),
            }
        )
    leak = {
        kind: {
            str(rounds): _means(
                evaluate_sampled(
                    counting_scorer(train, excluded, rounds=rounds, seed=_SEED + 1),
                    candidates,
                    batch_size=256,
                )
            )
            for rounds in LEAK_ROUNDS
        }
        for kind, excluded in (("test_spared", train + held), ("train_only", train))
    }
    return {"users": train.shape[0], "rows": rows, "draws": leak}


def _means(values: dict[str, Values]) -> dict[str, dict[str, float]]:
    return {
        name: asdict(bootstrap_interval(value, seed=BOOTSTRAP_SEED))
        for name, value in values.items()
    }


# ---------------------------------------------------------------- tables
def tables(found: dict[str, Any]) -> list[Table]:
    """Accuracy, beyond accuracy, groups, LOO-99 and the leak."""
    cross = found["cross_domain"]
    return [
        _rows_table("Full ranking, held-out users", cross, SHOWN),
        _rows_table("The same lists beyond accuracy", cross, BEYOND),
        *map(_group_table, cross["groups"]),
        _loo_table(found["loo99"]),
        _leak_table(found["loo99"]["draws"]),
    ]


def _rows_table(title: str, cross: dict[str, Any], metrics: tuple[str, ...]) -> Table:
    sentences = dict.fromkeys(row["promise"] for row in cross["rows"] if row["promise"])
    table = Table(title=title, caption="\n".join(sentences), caption_justify="left")
    table.add_column("Model")
    table.add_column("Learnt from")
    for metric in metrics:
        table.add_column(metric, justify="right")
    for row in cross["rows"]:
        learnt = " ".join(filter(None, [f"{row['rows']} rows", row["stamp"]]))
        cells = [_cell(row["metrics"].get(metric)) for metric in metrics]
        table.add_row(row["label"], learnt, *cells)
    return table


def _group_table(attribute: dict[str, Any]) -> Table:
    suppressed = ", ".join(attribute["suppressed"])
    table = Table(
        title=f"{attribute['metric']} by {attribute['attribute']}",
        caption=f"Too few users to show: {suppressed}." if suppressed else None,
    )
    for name in ("Group", "Users", "FedMF, no noise", "FedMF, ε = 8", "Cost"):
        table.add_column(name, justify="left" if name == "Group" else "right")
    private = f"{FEDMF_PUBLIC}_{EPSILONS[0]:g}"
    for group in attribute["groups"]:
        table.add_row(
            group["group"],
            str(group["num_users"]),
            _cell(group["models"][FEDMF_NONPRIVATE]),
            _cell(group["models"][private]),
            _cell(group["cost"]),
        )
    gaps = [attribute["gaps"][name] for name in (FEDMF_NONPRIVATE, private)]
    cells = [f"{gap['value']:.3f} (p = {gap['chance']:.3f})" for gap in gaps]
    table.add_section()
    table.add_row("Largest gap", "", *cells, "")
    return table


def _loo_table(loo: dict[str, Any]) -> Table:
    table = Table(title="Last item: full ranking, and among 99 sampled (second)")
    columns = [(kind, metric) for kind in ("full", "sampled") for metric in _LOO]
    table.add_column("Model")
    for kind, metric in columns:
        table.add_column(f"{metric}, {kind}", justify="right")
    for row in loo["rows"]:
        cells = [_cell(row[kind][metric]) for kind, metric in columns]
        table.add_row(f"{row['label']} {row['stamp']}", *cells)
    return table


_LOO = ("hr@10", "ndcg@10")


def _leak_table(draws: dict[str, Any]) -> Table:
    table = Table(title="No model, only counting negative draws (chance: .10)")
    table.add_column("Negatives drawn from")
    for rounds in LEAK_ROUNDS:
        table.add_column(f"hr@10, {rounds} rounds", justify="right")
    labels = {
        "test_spared": "never touched, test included",
        "train_only": "the complement of train only",
    }
    for kind, label in labels.items():
        cells = [_cell(draws[kind][str(rounds)]["hr@10"]) for rounds in LEAK_ROUNDS]
        table.add_row(label, *cells)
    return table


def _cell(found: dict[str, float] | None) -> str:
    if found is None:
        return "–"
    return f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
