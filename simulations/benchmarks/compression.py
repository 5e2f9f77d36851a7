"""Benchmark: how small a student gets before its ranking suffers.

An EASE teacher trained on everyone but the held-out users (NOT PRIVATE: this is about
size, not about learning), a student made of its SVD, and what ``common/compression.py``
and ``common/export.py`` make of that. Sizes are of files on disk, latencies of one
user's scoring at one thread, accuracy that of the very files read back. Nothing is
chosen by held-out users: the amounts of pruning are fixed beforehand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from rich.table import Table
from safetensors.numpy import save_file

from common.catalogue import Catalogue
from common.compact_files import Labels, Precision, load_compact, save_compact
from common.compression import (
    Compact,
    CompactStudent,
    item_energy,
    prune_dimensions,
    prune_rows,
    whole,
)
from common.config import RunConfig, defaults, parse
from common.export import load_onnx, save_onnx
from common.interactions import FloatArray, encode_table
from common.intervals import bootstrap_interval
from common.metrics import evaluate_ranking
from common.student import StudentSpec
from server.teacher.ease import Ease, fit_gram
from server.transfer import from_svd
from simulations.datasets import load

TITLE = "Compression: size, latency and ranking of teacher, student and its exports"
#: Held-out users, at most a quarter of all; the rest teach.
HELDOUT, SHOWN, SEED = 600, 0.8, 1
L2, DIM = 600.0, 64
#: Timed calls a pass, and passes; the one of the lowest p99 is reported, since other
#: work on the machine only ever adds.
CALLS, PASSES = 1000, 5
METRICS = ("ndcg@10", "ndcg@100", "coverage@10")
#: The aim: so many times smaller than the teacher, at this share of the student.
SMALLER, SHARE = 10.0, 0.97
#: Shares of dimensions and of items kept, where a row of the table says pruned.
PRUNED_DIMS, PRUNED_ITEMS = 0.75, 0.5
SWEEP = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125)

Score = Callable[[sp.csr_matrix], FloatArray]
PerUser = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class HeldOut:
    """Users nobody trained on: items shown and to find, CSR ``[users, items]``."""

    shown: sp.csr_matrix
    held: sp.csr_matrix


@dataclass(frozen=True)
class Model:
    """A file, and how to score by it."""

    name: str
    size: int
    score: Score


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """Sizes, latencies and ranking on MovieLens-1M; quick: on MovieLens-100K.

    Args:
        data: folder with the folder ``ml-1m`` (quick: ``ml-100k``) in it.
    """
    name = "ml-100k" if quick else "ml-1m"
    dataset = load(str(data / name))
    rows = encode_table(dataset.interactions, dataset.catalogue.items)
    teaching, heldout = split(rows.interactions.matrix())
    config = parse(defaults())
    with _one_thread(), TemporaryDirectory() as folder:
        teacher = _teach(teaching)
        student = _transfer(teacher, config)
        models = _models(teacher, student, dataset.catalogue, Path(folder))
        measured = _measure_all(models, heldout)
        sweep = _sweep(student, heldout)
    return {
        "data": name,
        "users": int(teaching.shape[0]),
        "heldout_users": int(heldout.shown.shape[0]),
        "items": student.catalogue_size,
        "dim": student.spec.dim,
        "threads": 1,
        "calls": CALLS,
        "passes": PASSES,
        "private": False,
        "rows": measured,
        "sweep": sweep,
        "target": _verdict(measured),
    }


def tables(found: dict[str, Any]) -> list[Table]:
    """Sizes and latencies, ranking, and what each amount of pruning costs."""
    return [_size_table(found), _ranking_table(found), _sweep_table(found)]


def split(rows: sp.csr_matrix) -> tuple[sp.csr_matrix, HeldOut]:
    """Users to teach from, and held-out ones with a fifth of their items to find.

    Args:
        rows: multi-hot, CSR ``[users, items]``.
    """
    draw = np.random.default_rng(SEED)
    order = draw.permutation(rows.shape[0])
    num_heldout = min(HELDOUT, rows.shape[0] // 4)
    users = rows[np.sort(order[:num_heldout])]
    keys = draw.random(users.nnz)
    to_find = np.zeros(users.nnz, dtype=bool)
    for start, stop in zip(users.indptr[:-1], users.indptr[1:], strict=True):
        num_held = max(1, round((1 - SHOWN) * (stop - start)))
        to_find[start + np.argsort(keys[start:stop])[:num_held]] = True
    return rows[np.sort(order[num_heldout:])], HeldOut(
        _only(users, ~to_find), _only(users, to_find)
    )


def _only(rows: sp.csr_matrix, keep: npt.NDArray[np.bool_]) -> sp.csr_matrix:
    chosen = rows.copy()
    chosen.data = np.where(keep, rows.data, 0).astype(np.float32)
    chosen.eliminate_zeros()
    return chosen


def _teach(rows: sp.csr_matrix) -> Ease:
    gram = np.asarray((rows.T @ rows).todense(), dtype=np.float64)
    # Rows in one piece, as a deployed teacher would hold them: sums of rows score.
    return Ease(np.ascontiguousarray(fit_gram(gram, L2)))


def _transfer(teacher: Ease, config: RunConfig) -> Compact:
    num_items, shape = len(teacher.weights), config.student
    dim = min(DIM, num_items - 1)
    spec = StudentSpec(num_items, dim, shape.logit_scale, shape.history_exponent)
    nothing, known = np.zeros((num_items, 1), np.float32), np.ones(num_items, bool)
    return whole(spec, from_svd(teacher, nothing, known, spec, config.transfer))


def _models(
    teacher: Ease, student: Compact, catalogue: Catalogue, folder: Path
) -> list[Model]:
    """Every file of the table, written and read back."""
    labels = Labels(catalogue.digest, "NOT PRIVATE: a benchmark of size.")
    dims = max(1, int(PRUNED_DIMS * student.spec.dim))
    items = max(1, int(PRUNED_ITEMS * student.spec.num_items))
    fewer_items = prune_rows(student, items, item_energy(student))
    both = prune_dimensions(fewer_items, min(dims, items))
    variants: list[tuple[str, Compact, Precision]] = [
        ("ONNX", student, "float32"),
        (f"{dims} dims", prune_dimensions(student, dims), "float32"),
        (f"{items} items", fewer_items, "float32"),
        (f"{dims} dims, {items} items", both, "float32"),
        ("int8", student, "int8"),
        (f"{items} items, int8", fewer_items, "int8"),
        (f"{dims} dims, {items} items, int8", both, "int8"),
    ]
    return [
        _teacher_model(teacher, folder),
        _torch_model("student", student, labels, folder, "float32"),
        _torch_model("safetensors, int8", student, labels, folder, "int8"),
        *(
            _onnx_model(name, compact, labels, folder, precision)
            for name, compact, precision in variants
        ),
    ]


def _teacher_model(teacher: Ease, folder: Path) -> Model:
    path = folder / "teacher.safetensors"
    save_file(teacher.tensors(), path)
    return Model("teacher", path.stat().st_size, teacher.score)


def _torch_model(
    name: str, student: Compact, labels: Labels, folder: Path, precision: Precision
) -> Model:
    path = folder / f"student.{precision}.safetensors"
    save_compact(path, student, labels, precision)
    loaded = CompactStudent(load_compact(path, labels.catalogue_digest)).eval()
    size = path.stat().st_size
    return Model(name, size, lambda history: loaded.score(history.toarray()))


def _onnx_model(
    name: str, student: Compact, labels: Labels, folder: Path, precision: Precision
) -> Model:
    path = folder / "student.onnx"
    save_onnx(path, student, labels, precision)
    loaded = load_onnx(path, labels.catalogue_digest)
    size = path.stat().st_size
    return Model(name, size, lambda history: loaded.score(history.toarray()))


def _measure_all(models: list[Model], heldout: HeldOut) -> list[dict[str, Any]]:
    values = {model.name: _rank(model.score, heldout) for model in models}
    teacher_size, base = models[0].size, values["student"]["ndcg@10"]
    return [
        {
            "name": model.name,
            "bytes": model.size,
            "times_smaller": teacher_size / model.size,
            **_latency(model.score, heldout.shown),
            **_means(values[model.name], heldout.shown.shape[1]),
            **_against(values[model.name]["ndcg@10"], base),
        }
        for model in models
    ]


def _rank(score: Score, heldout: HeldOut) -> PerUser:
    return evaluate_ranking(
        lambda start, stop: score(heldout.shown[start:stop]),
        heldout.shown,
        heldout.held,
        batch_size=200,
        metrics=METRICS,
    )


def _means(values: PerUser, num_items: int) -> dict[str, float]:
    lists = values["coverage@10"]
    means = {name: float(np.nanmean(values[name])) for name in METRICS[:2]}
    return means | {"coverage@10": len(np.unique(lists[lists >= 0])) / num_items}


def _against(
    values: npt.NDArray[np.float64], base: npt.NDArray[np.float64]
) -> dict[str, Any]:
    """Share of the student's NDCG@10; the difference with its paired 95 % interval."""
    gap = bootstrap_interval(values - base, seed=0)
    return {
        "share_of_student": float(np.nanmean(values) / np.nanmean(base)),
        "difference": gap.value,
        "difference_95": [gap.low, gap.high],
    }


def _latency(score: Score, shown: sp.csr_matrix) -> dict[str, float]:
    """Microseconds from one user's history, in CSR, to scores of every item."""
    users = [shown[row] for row in range(shown.shape[0])]
    return min((_time(score, users) for _ in range(PASSES)), key=lambda t: t["p99_us"])


def _time(score: Score, users: list[sp.csr_matrix]) -> dict[str, float]:
    """One pass: of the clock, and of the processor alone, which waits for nobody."""
    wall, busy = np.empty(CALLS), np.empty(CALLS)
    for call in range(CALLS):
        user = users[call % len(users)]
        start, start_busy = time.perf_counter(), time.thread_time()
        score(user)
        busy[call] = time.thread_time() - start_busy
        wall[call] = time.perf_counter() - start
    middle, late = np.quantile(wall * 1e6, (0.5, 0.99))
    late_busy = np.quantile(busy * 1e6, 0.99)
    return {
        "p50_us": float(middle),
        "p99_us": float(late),
        "p99_cpu_us": float(late_busy),
    }


def _sweep(student: Compact, heldout: HeldOut) -> list[dict[str, Any]]:
    """Ranking at each share of dimensions, and of items, kept; 32 bits."""
    energy = item_energy(student)
    found = []
    for share in SWEEP:
        dims = max(1, int(share * student.spec.dim))
        items = max(1, int(share * student.spec.num_items))
        for kind, kept, compact in (
            ("dimensions", dims, prune_dimensions(student, dims)),
            ("items", items, prune_rows(student, items, energy)),
        ):
            values = _rank(_in_torch(compact), heldout)
            means = _means(values, student.catalogue_size)
            found.append({"kind": kind, "share": share, "kept": kept, **means})
    return found


def _in_torch(student: Compact) -> Score:
    module = CompactStudent(student).eval()
    return lambda history: module.score(history.toarray())


def _verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The smallest file that keeps the share aimed at, and whether that is enough."""
    kept = [row for row in rows[1:] if row["share_of_student"] >= SHARE]
    best = min(kept, key=lambda row: row["bytes"])
    return {
        "times_smaller_aim": SMALLER,
        "share_aim": SHARE,
        "smallest": best["name"],
        "times_smaller": best["times_smaller"],
        "share_of_student": best["share_of_student"],
        "met": best["times_smaller"] >= SMALLER,
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _size_table(found: dict[str, Any]) -> Table:
    table = Table(
        *("model", "bytes", "smaller", "p50 µs", "p99 µs", "p99, CPU"),
        title=f"Files; one user's scores of {found['items']} items at one thread",
        caption=f"{found['calls']} calls, the quietest of {found['passes']} passes",
    )
    for row in found["rows"]:
        table.add_row(
            row["name"],
            f"{row['bytes']:,}",
            f"{row['times_smaller']:.0f}×",
            f"{row['p50_us']:.0f}",
            f"{row['p99_us']:.0f}",
            f"{row['p99_cpu_us']:.0f}",
        )
    return table


def _ranking_table(found: dict[str, Any]) -> Table:
    target = found["target"]
    table = Table(
        *("model", "NDCG@10", "of student", "difference, 95 %", "NDCG@100"),
        title=f"{found['data']}: {found['heldout_users']} held-out users, NOT PRIVATE",
        caption=f"Aim: {SMALLER:g}× smaller than the teacher at {SHARE:.0%} of the "
        f"student's NDCG@10: {'met' if target['met'] else 'missed'}; "
        f"{target['smallest']} is {target['times_smaller']:.0f}× smaller "
        f"at {target['share_of_student']:.1%}.",
    )
    for row in found["rows"]:
        low, high = row["difference_95"]
        table.add_row(
            row["name"],
            f"{row['ndcg@10']:.4f}",
            f"{row['share_of_student']:.1%}",
            f"{low:+.3f} … {high:+.3f}",
            f"{row['ndcg@100']:.4f}",
        )
    return table


def _sweep_table(found: dict[str, Any]) -> Table:
    table = Table(
        *("kept", "NDCG@10", "NDCG@100", "coverage@10"),
        title="What pruning costs, in 32 bits",
    )
    for row in sorted(found["sweep"], key=lambda row: row["kind"]):
        table.add_row(
            f"{row['kept']} {row['kind']}",
            *(f"{row[name]:.4f}" for name in METRICS),
        )
    return table
