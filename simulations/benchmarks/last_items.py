"""Last items to find, by data set, for the benchmark of teachers.

Simulations only: a split sees who is tested. gSASRec's files of MovieLens-1M lack the
last but one item of the 5,528 users that do not validate, so at their test items a
model must look over a hole. Two further tasks have none: the same test items of the
512 users whose files are whole, and the last item before any hole of everyone, which
training leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from common.errors import DataFormatError
from common.interactions import IntArray
from server.teacher.training import Validation
from simulations.datasets import Dataset, load

SEED, VALIDATION_USERS = 1, 512


@dataclass(frozen=True, eq=False)
class Task:
    """Items to find: one a user.

    Attributes:
        shown: items in time order, one sequence a user.
        held: the item to find.
        missing: int64 ``[users]``, interactions between the two that nobody knows.
    """

    shown: list[IntArray]
    held: list[int]
    missing: IntArray


@dataclass(frozen=True, eq=False)
class Split:
    """What teaches, what chooses, and what is to be found, by task."""

    num_items: int
    catalogue: str
    histories: list[IntArray]
    validation: Validation
    tasks: dict[str, Task]


def last_items(dataset: Dataset) -> Split:
    """Everyone's last item to find; the last but one of some users to choose by."""
    ids = {name: i for i, name in enumerate(dataset.catalogue.items.ids)}
    rows = (
        dataset.interactions.sort("timestamp", "item", maintain_order=True)
        .unique(["user", "item"], keep="first", maintain_order=True)
        .group_by("user", maintain_order=True)
        .agg(pl.col("item").replace_strict(ids, return_dtype=pl.Int64))
    )
    whole = [row.to_numpy() for row in rows["item"] if len(row) > 2]
    order = np.random.default_rng(SEED).permutation(len(whole))
    chosen = set(order[: min(VALIDATION_USERS, len(whole) // 2)].tolist())
    histories = [row[: -2 if u in chosen else -1] for u, row in enumerate(whole)]
    picked = sorted(chosen)
    return Split(
        num_items=len(ids),
        catalogue=dataset.catalogue.digest,
        histories=histories,
        validation=Validation(
            [histories[u] for u in picked], [int(whole[u][-2]) for u in picked]
        ),
        tasks={"last item": _task([(row[:-1], int(row[-1]), 0) for row in whole])},
    )


def published(folder: Path) -> Split:
    """MovieLens-1M by gSASRec's files, and two tasks without holes beside theirs."""
    base = folder / "gsasrec"
    lines, ends = _rows(base / "train/input.txt"), _rows(base / "test/output.txt")
    shown, next_ones = _rows(base / "val/input.txt"), _rows(base / "val/output.txt")
    # A line of val/input is the user's line of train/input, and one item more.
    user_of = {line.tobytes(): user for user, line in enumerate(lines)}
    place = {user_of[row[:-1].tobytes()]: i for i, row in enumerate(shown)}
    hole, whole, before = [], [], []
    for user, line in enumerate(lines):
        end = int(ends[user][0])
        if user in place:
            i = place[user]
            whole.append((np.append(shown[i], next_ones[i]), end, 0))
        else:
            hole.append((line, end, 1))
            before.append((line[:-1], int(line[-1]), 0))
    catalogue = load(str(folder)).catalogue
    return Split(
        num_items=catalogue.num_items,
        catalogue=catalogue.digest,
        histories=[
            line if user in place else line[:-1] for user, line in enumerate(lines)
        ],
        validation=Validation(shown, [int(row[0]) for row in next_ones]),
        tasks={
            "published last item, most with a hole before": _task(whole + hole),
            "published last item, users without a hole": _task(whole),
            "last item before any hole": _task(whole + before),
        },
    )


def _task(parts: list[tuple[IntArray, int, int]]) -> Task:
    shown, held, missing = zip(*parts, strict=True)
    return Task(list(shown), list(held), np.asarray(missing, dtype=np.int64))


def _rows(path: Path) -> list[IntArray]:
    """Item ids from 1 in the files, from 0 here."""
    try:
        text = path.read_text(encoding="ascii")
        return [
            np.asarray(row.split(), dtype=np.int64) - 1 for row in text.splitlines()
        ]
    except (OSError, ValueError):
        raise DataFormatError(f"{path}: expected lines of item ids.") from None
