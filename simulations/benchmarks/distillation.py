"""Benchmark: how much of its teacher a small student keeps, without privacy.

An EASE teacher trained on everyone but the held-out users (NOT PRIVATE: this is about
size, not about learning), and students of several widths: by SVD, by projection, and
distilled from there with each loss, on the histories of teaching users, and on ones
drawn from the teacher alone. The teacher's l2 was chosen among four for the *teacher's*
NDCG@10, which only makes it harder to keep up with; loss, temperature and rate were
chosen on held-out users of another split of the same data.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from rich.table import Table

from common.config import defaults, parse
from common.interactions import FloatArray, encode_table
from common.metrics import evaluate_ranking
from common.sections import Distillation
from common.student import StateDict, StudentSpec
from server.distillation import Recipe, StudentTables, distil, project
from server.proxy import Sampling, synthetic_histories
from server.teacher.ease import Ease, fit_gram
from server.transfer import from_svd
from simulations.benchmarks.compression import HeldOut, split
from simulations.datasets import load

TITLE = "Distillation: the share of a teacher's ranking that a small student keeps"
METRIC = "ndcg@10"
#: The aim: so many times fewer numbers than the teacher, at this share of its NDCG@10.
SMALLER, SHARE = 10.0, 0.95
SEED, RESAMPLES, BATCH = 0, 1000, 200
#: Lengths of histories drawn without any data.
SHORTEST, LONGEST = 5, 50

#: Sharp enough for the top of a ranking to matter; KL is best at a lower temperature.
SETTINGS = {"loss": "rank", "temperature": 0.3, "top_k": 100, "augmentation": "mask"}

Score = Callable[[sp.csr_matrix], FloatArray]
Fit = Callable[[StudentSpec], StateDict]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What is measured on one data set.

    Attributes:
        folder: of the data set.
        l2: of EASE.
        dims: widths of students; the last has a tenth of the teacher's numbers.
        compared: the width at which losses and proxies are compared.
        by_svd: widths at which the SVD is shown as well.
        epochs: passes over the proxies.
    """

    folder: str
    l2: float
    dims: tuple[int, ...]
    compared: int
    by_svd: tuple[int, ...]
    epochs: int


QUICK = (Plan("ml-100k", 300.0, (16, 83), 16, (16, 83), 10),)
PLANS = (
    Plan("citeulike-a", 10.0, (128, 848), 128, (128,), 60),
    Plan("ml-1m", 1000.0, (64, 128, 170), 64, (64, 128, 170), 30),
)


@dataclass(frozen=True)
class Case:
    """A teacher, who taught it, who judges, and what a run's defaults say."""

    plan: Plan
    teacher: Ease
    teaching: sp.csr_matrix
    heldout: HeldOut
    settings: Distillation
    spec: StudentSpec

    def shape(self, dim: int) -> StudentSpec:
        """A student of this width, or of as many dimensions as there can be."""
        return replace(self.spec, dim=min(dim, self.spec.num_items - 1))


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """Shares of the teacher's NDCG@10; quick: on MovieLens-100K, with fewer epochs.

    Args:
        data: folder with ``citeulike-a`` and ``ml-1m`` (quick: ``ml-100k``) in it.
    """
    plans = QUICK if quick else PLANS
    return {
        "metric": METRIC,
        "times_smaller_aim": SMALLER,
        "share_aim": SHARE,
        "sets": {plan.folder: _measure_set(data, plan) for plan in plans},
    }


def _measure_set(data: Path, plan: Plan) -> dict[str, Any]:
    case = prepare(data, plan)
    by_teacher = rank(case.teacher.score, case.heldout)
    rows = [
        measure_student(case, name, dim, fit, by_teacher)
        for name, dim, fit in arms(case)
    ]
    return summary(case, rows, by_teacher)


def measure_student(
    case: Case, name: str, dim: int, fit: Fit, by_teacher: Values
) -> dict[str, Any]:
    """One student: its size, its share, and what it took."""
    spec, n = case.shape(dim), case.spec.num_items
    start = time.process_time()
    state = fit(spec)
    seconds = time.process_time() - start
    values = rank(StudentTables.of(state, spec).score, case.heldout)
    numbers = n * (2 * spec.dim + 1)
    row = {
        "student": name,
        "dim": spec.dim,
        "numbers": numbers,
        "times_smaller": n * n / numbers,
        "cpu_seconds": seconds,
    }
    return row | share(values, by_teacher)


def summary(
    case: Case, rows: list[dict[str, Any]], by_teacher: Values
) -> dict[str, Any]:
    """What was measured on one data set."""
    plan, n = case.plan, case.spec.num_items
    return {
        "teaching_users": int(case.teaching.shape[0]),
        "heldout_users": int(case.heldout.shown.shape[0]),
        "items": n,
        "l2": plan.l2,
        "epochs": plan.epochs,
        "teacher": float(np.nanmean(by_teacher)),
        "teacher_numbers": n * n,
        "rows": rows,
        "verdict": verdict(rows),
    }


def prepare(data: Path, plan: Plan) -> Case:
    """Read, split and teach."""
    dataset = load(str(data / plan.folder))
    items = dataset.catalogue.items
    table = dataset.interactions.sort("timestamp", maintain_order=True)
    rows = encode_table(table, items).interactions
    teaching, heldout = split(rows.ordered())
    config = parse(defaults())
    shape = config.student
    spec = StudentSpec(len(items), 1, shape.logit_scale, shape.history_exponent)
    teacher = Ease(fit_ease(teaching, plan.l2))
    settings = config.distillation.model_copy(update=SETTINGS)
    return Case(plan, teacher, teaching, heldout, settings, spec)


def fit_ease(teaching: sp.csr_matrix, l2: float) -> FloatArray:
    """EASE by whichever of the two Gram matrices is smaller.

    With fewer users than items, ``(XᵀX + l2)⁻¹ = (1 − Xᵀ(XXᵀ + l2)⁻¹X) / l2``
    (Woodbury 1950) spares the large inverse.
    """
    seen = (teaching > 0).astype(np.float64)
    if seen.shape[0] >= seen.shape[1]:
        return fit_gram((seen.T @ seen).toarray(), l2)
    kernel = torch.from_numpy((seen @ seen.T).toarray())
    kernel.diagonal().add_(l2)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel)).numpy()
    spread = (seen.T @ inverse).T.astype(np.float32)
    weights: FloatArray = np.asarray(seen.T.astype(np.float32) @ spread)
    kept = 1.0 - weights.diagonal().copy()
    weights /= kept[None, :]
    np.fill_diagonal(weights, 0.0)
    return weights


def arms(case: Case) -> list[tuple[str, int, Fit]]:
    """Every student: its name, width, and how it comes to be."""
    plan, public, drawn = case.plan, case.teaching, _drawn(case)
    dim, widest = plan.compared, plan.dims[-1]
    found: list[tuple[str, int, Fit]] = []
    found += [("SVD", width, lambda spec: _svd(case, spec)) for width in plan.by_svd]
    for width in plan.dims:
        found.append(("projection", width, _projected(case, public)))
        found.append(("rank", width, _distilled(case, public)))
    compared: list[tuple[str, sp.csr_matrix, dict[str, Any]]] = [
        ("kl", public, {"loss": "kl", "temperature": 0.1}),
        ("mse", public, {"loss": "mse"}),
        ("rank, no augmentation", public, {"augmentation": "none"}),
        ("rank, crop", public, {"augmentation": "crop"}),
        ("rank, synthetic", drawn, {}),
    ]
    for name, proxies, changes in compared:
        found.append((name, dim, _distilled(case, proxies, **changes)))
    found.append(("projection, synthetic", widest, _projected(case, drawn)))
    found.append(("rank, synthetic", widest, _distilled(case, drawn)))
    return found


def _drawn(case: Case) -> sp.csr_matrix:
    """As many histories as teaching users, from the teacher and no data at all."""
    rng = np.random.default_rng(SEED)
    num_users, num_items = case.teaching.shape
    longest = min(LONGEST, num_items // 2)
    lengths = rng.integers(min(SHORTEST, longest), longest + 1, size=num_users)
    start = np.ones(num_items)
    return synthetic_histories(
        case.teacher, lengths, rng, start=start, sampling=Sampling()
    )


def _svd(case: Case, spec: StudentSpec) -> StateDict:
    nothing = np.zeros((spec.num_items, 1), dtype=np.float32)
    known = np.ones(spec.num_items, dtype=bool)
    config = parse(defaults() | {"transfer.content": False})
    return from_svd(case.teacher, nothing, known, spec, config.transfer)


def _projected(case: Case, proxies: sp.csr_matrix) -> Fit:
    return lambda spec: project(case.teacher, spec, proxies)


def _distilled(case: Case, proxies: sp.csr_matrix, **changes: str) -> Fit:
    settings = case.settings.model_copy(update=changes)

    def fit(spec: StudentSpec) -> StateDict:
        start = project(case.teacher, spec, proxies)
        epochs = case.plan.epochs
        return distil(case.teacher, start, spec, proxies, settings, epochs, Recipe())

    return fit


def rank(score: Score, heldout: HeldOut) -> Values:
    """NDCG@10 of every held-out user, float64 ``[users]``."""
    values = evaluate_ranking(
        lambda start, stop: score(heldout.shown[start:stop]),
        heldout.shown,
        heldout.held,
        batch_size=BATCH,
        metrics=[METRIC],
    )
    return np.asarray(values[METRIC], dtype=np.float64)


def share(student: Values, teacher: Values) -> dict[str, Any]:
    """The student's mean over the teacher's, and its 95 % bootstrap interval.

    Users are drawn once for both, so that what is hard for both cancels.
    """
    draw = np.random.default_rng(SEED)
    users = draw.integers(len(student), size=(RESAMPLES, len(student)))
    ratios = np.nanmean(student[users], axis=1) / np.nanmean(teacher[users], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    mean = float(np.nanmean(student))
    return {
        METRIC: mean,
        "share": mean / float(np.nanmean(teacher)),
        "share_95": [float(low), float(high)],
    }


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The best student that is small enough (or the best), and whether it will do."""
    small = [row for row in rows if row["times_smaller"] >= SMALLER]
    best = max(small or rows, key=lambda row: row["share"])
    names = ("student", "dim", "times_smaller", "share", "share_95")
    met = bool(small) and best["share"] >= SHARE
    return {name: best[name] for name in names} | {"met": met}


def tables(found: dict[str, Any]) -> list[Table]:
    """One table a data set."""
    return [_table(name, one) for name, one in found["sets"].items()]


def _table(name: str, one: dict[str, Any]) -> Table:
    best = one["verdict"]
    table = Table(
        title=f"{name}: EASE of {one['teaching_users']} users, {one['items']} items, "
        f"NDCG@10 {one['teacher']:.4f} on {one['heldout_users']} held-out users",
        caption=f"Best: {best['student']}, {best['dim']} dimensions, "
        f"{best['share']:.1%} at {best['times_smaller']:.1f}× smaller "
        f"({'met' if best['met'] else 'not met'}: aim {SHARE:.0%} at {SMALLER:g}×).",
    )
    for column in ("student", "dim", "× smaller", "NDCG@10", "share", "95 %", "CPU s"):
        table.add_column(column, justify="left" if column == "student" else "right")
    for row in one["rows"]:
        low, high = row["share_95"]
        table.add_row(
            row["student"],
            str(row["dim"]),
            f"{row['times_smaller']:.1f}",
            f"{row[METRIC]:.4f}",
            f"{row['share']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{row['cpu_seconds']:.0f}",
        )
    return table
