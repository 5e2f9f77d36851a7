"""Benchmark: which teacher finds the last item of public histories.

Full ranking with seen items excluded, on MovieLens-1M as gSASRec publishes it (Petrov
& Macdonald 2023, arXiv 2308.07192; see ``last_items.py`` for what their files lack):
popularity, EASE, and the transformer. Trained on everyone, NOT PRIVATE: a ceiling for
students. Simulations only: it sees who is tested.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from rich.table import Table

from common.config import RunConfig, defaults, parse
from common.errors import DataFormatError
from common.interactions import FloatArray, IntArray
from common.intervals import bootstrap_interval
from common.metrics import evaluate_ranking
from server.teacher.checkpoint import load_teacher, save_teacher
from server.teacher.ease import Ease, fit_gram
from server.teacher.scoring import SequentialTeacher
from server.teacher.training import Validation, multi_hot, train
from simulations.benchmarks.last_items import Split, Task, last_items, published
from simulations.datasets import load

TITLE = "Teachers: the last item of public histories, by full ranking"
METRICS = ("ndcg@10", "hr@10")
#: Published for SASRec with 3,000 negatives (Klenitskiy & Vasilev 2023) and for
#: gSASRec; the former with nothing missing from the histories.
TARGETS = {"SASRec, 3,000 negatives": (0.1857, 0.3159), "gSASRec": (0.1726, 0.3003)}
SEED, BATCH = 1, 256
EASE_L2 = (100.0, 300.0, 1000.0)
FULL = {
    "transformer.batch-users": 64,
    "transformer.learning-rate": 0.0015,
    "transformer.dim": 128,
    "transformer.epochs": 100,
}
QUICK = FULL | {
    "transformer.dim": 32,
    "transformer.length": 50,
    "transformer.epochs": 24,
    "transformer.learning-rate": 0.004,
}
#: Where the full transformer is kept, and from where it is taken if it is there.
KEPT = Path("runs/benchmarks/teacher.safetensors")

#: (sequences, interactions missing behind each) → scores ``[users, n]``.
Score = Callable[[Sequence[IntArray], IntArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A teacher, what it took (seconds; None where it was read), and its size."""

    name: str
    score: Score
    seconds: float | None
    num_bytes: int


def measure(data: Path, *, quick: bool, kept: Path = KEPT) -> dict[str, Any]:
    """Train (or read) the teachers and rank.

    Args:
        data: folder of the data sets; ``ml-1m``, or ``ml-100k`` where quick.
        quick: a minute on a small set instead of hours.
        kept: a transformer of an earlier full run, used if the file is there;
            otherwise one is trained and kept there. A killed training goes on.
    """
    if quick:
        split = last_items(load(str(data / "ml-100k")))
        return compare(split, parse(defaults() | QUICK), None)
    return compare(published(data / "ml-1m"), parse(defaults() | FULL), kept)


def compare(split: Split, config: RunConfig, kept: Path | None) -> dict[str, Any]:
    """Every teacher on every task: mean and 95 % interval of each metric."""
    candidates = [
        _popularity(split),
        _ease(split),
        _transformer(split, config, kept),
    ]
    return {
        "num_items": split.num_items,
        "users": {name: len(task.held) for name, task in split.tasks.items()},
        "settings": config.transformer.model_dump(mode="json"),
        "teachers": {
            each.name: {
                "seconds": each.seconds,
                "megabytes": each.num_bytes / 1e6,
                "tasks": {
                    name: rank(each.score, task, split.num_items)
                    for name, task in split.tasks.items()
                },
            }
            for each in candidates
        },
        "published": {name: list(values) for name, values in TARGETS.items()},
    }


def rank(score: Score, task: Task, num_items: int) -> dict[str, list[float]]:
    """By metric: value, low and high; also with seen items in the ranking.

    In these data nobody touches an item twice, so that keeping what was seen in the
    ranking can only lower a value; some papers do.
    """
    scores = score(task.shown, task.missing)
    held = multi_hot([np.asarray([item]) for item in task.held], num_items)
    shown = multi_hot(task.shown, num_items)
    found = {}
    for suffix, seen in (("", shown), ("_seen_ranked", sp.csr_matrix(shown.shape))):
        values = evaluate_ranking(
            lambda start, stop: scores[start:stop],
            seen,
            held,
            batch_size=BATCH,
            metrics=METRICS,
        )
        for name in METRICS:
            bounds = bootstrap_interval(values[name], seed=SEED)
            found[name + suffix] = [bounds.value, bounds.low, bounds.high]
    return found


def _popularity(split: Split) -> Candidate:
    start = time.perf_counter()
    items = np.concatenate(split.histories)
    counts = np.bincount(items, minlength=split.num_items).astype(np.float32)
    seconds = time.perf_counter() - start
    return Candidate(
        "popularity",
        lambda rows, missing: np.tile(counts, (len(rows), 1)),
        seconds,
        counts.nbytes,
    )


def _ease(split: Split) -> Candidate:
    """The penalty that is best on the validation users."""
    start = time.perf_counter()
    histories = multi_hot(split.histories, split.num_items).astype(np.float64)
    gram = np.asarray((histories.T @ histories).todense())
    held = list(split.validation.held)
    shown = list(split.validation.shown)
    task = Task(shown, held, np.zeros(len(held), dtype=np.int64))
    fits = [Ease(fit_gram(gram, l2)) for l2 in EASE_L2]
    values = [rank(_additive(fit), task, split.num_items)["ndcg@10"][0] for fit in fits]
    best = int(np.argmax(values))
    return Candidate(
        f"EASE (l2 = {EASE_L2[best]:g})",
        _additive(fits[best]),
        time.perf_counter() - start,
        fits[best].weights.nbytes,
    )


def _additive(teacher: Ease) -> Score:
    n = len(teacher.weights)
    return lambda rows, missing: teacher.score(multi_hot(rows, n))


def _transformer(split: Split, config: RunConfig, kept: Path | None) -> Candidate:
    start = time.perf_counter()
    read = kept is not None and kept.is_file()
    if kept is not None and read:
        teacher = _read(kept, split.catalogue)
    else:
        teacher = train(
            *(split.histories, split.validation, None, config.transformer),
            num_items=split.num_items,
            seed=SEED,
            device=config.run.device,
            progress=kept and kept.with_suffix(".progress.safetensors"),
        )
    if kept is not None and not read:
        save_teacher(kept, teacher, split.catalogue)
    return Candidate(
        "transformer",
        _over_holes(teacher, split.validation),
        None if read else time.perf_counter() - start,
        sum(tensor.nbytes for tensor in teacher.tensors().values()),
    )


def _read(path: Path, catalogue: str) -> SequentialTeacher:
    teacher = load_teacher(path, catalogue)
    if not isinstance(teacher, SequentialTeacher):
        raise DataFormatError(f"{path}: expected a transformer, got another teacher.")
    return teacher


def _over_holes(teacher: SequentialTeacher, validation: Validation) -> Score:
    """Fill holes by unknown items, or close them, as suits the validation users.

    They have no holes, so that one is made: their latest item is taken away.
    """
    held = list(validation.held)
    ones = np.ones(len(held), dtype=np.int64)
    task = Task([row[:-1] for row in validation.shown], held, ones)
    ways = [_filling(teacher, most) for most in (0, 1)]
    values = [rank(way, task, len(teacher.items))["ndcg@10"][0] for way in ways]
    return ways[int(np.argmax(values))]


def _filling(teacher: SequentialTeacher, most: int) -> Score:
    def score(rows: Sequence[IntArray], missing: IntArray) -> FloatArray:
        scores = np.empty((len(rows), len(teacher.items)), dtype=np.float32)
        for count in np.unique(missing):
            users = np.flatnonzero(missing == count)
            some = [rows[user] for user in users.tolist()]
            scores[users] = teacher.score_sequences(some, min(most, int(count)))
        return scores

    return score


def tables(found: dict[str, Any]) -> list[Table]:
    """One table a task."""
    return [_table(found, task) for task in found["users"]]


def _table(found: dict[str, Any], task: str) -> Table:
    users, items = found["users"][task], found["num_items"]
    table = Table(title=f"{task} ({users:,} users, {items:,} items ranked)")
    for column in ("teacher", "NDCG@10", "HR@10", "NDCG@10, seen ranked", "s", "MB"):
        table.add_column(column, justify="left" if column == "teacher" else "right")
    for name, row in found["teachers"].items():
        values = row["tasks"][task]
        table.add_row(
            name,
            *(_interval(values[metric]) for metric in METRICS),
            f"{values['ndcg@10_seen_ranked'][0]:.4f}",
            "read" if row["seconds"] is None else f"{row['seconds']:,.1f}",
            f"{row['megabytes']:.1f}",
        )
    return table


def _interval(bounds: list[float]) -> str:
    value, low, high = bounds
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"
