"""The benchmark of teachers, on histories whose order is known."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from common.catalogue import SCHEMA as CATALOGUE_SCHEMA
from common.catalogue import Catalogue
from common.config import defaults, parse
from common.errors import DataFormatError
from common.interactions import SCHEMA
from server.teacher.checkpoint import load_teacher, save_teacher
from server.teacher.ease import Ease
from simulations.benchmarks import teacher
from simulations.benchmarks.last_items import Task, last_items, published
from simulations.datasets import Dataset

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="shared data folder not present"
)
N = 15
CONFIG = parse(
    defaults()
    | {
        "transformer.dim": 16,
        "transformer.length": 8,
        "transformer.epochs": 25,
        "transformer.batch-users": 16,
        "transformer.learning-rate": 0.01,
    }
)


def dataset() -> Dataset:
    """Users who step through a cycle of items; rows in no order."""
    starts = np.random.default_rng(0).integers(N, size=60)
    rows = [
        (str(user), str((start + step) % N), 1.0, 100 + step)
        for user, start in enumerate(starts)
        for step in range(7)
    ]
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    items = [str(i) for i in range(N)]
    catalogue = Catalogue(
        pl.DataFrame(
            {
                "item": items,
                "title": items,
                "year": [0] * N,
                "categories": [[]] * N,
            },
            schema_overrides=CATALOGUE_SCHEMA,
        )
    )
    frame = pl.DataFrame(shuffled, schema=SCHEMA, orient="row")
    return Dataset("cycle", frame, catalogue, None, "made here")


def test_the_last_items_are_found_only_by_the_teacher_that_knows_order(tmp_path):
    split = last_items(dataset())
    kept = tmp_path / "teacher.safetensors"
    found = teacher.compare(split, CONFIG, kept)
    by_name = {
        name: row["tasks"]["last item"] for name, row in found["teachers"].items()
    }
    assert by_name["transformer"]["hr@10"][0] == 1.0
    assert by_name["transformer"]["ndcg@10"][0] > 0.9
    assert by_name["popularity"]["ndcg@10"][0] < 0.7
    assert found["users"] == {"last item": 60}

    again = teacher.compare(split, CONFIG, kept)  # read, not trained
    assert again["teachers"]["transformer"]["seconds"] is None
    assert again["teachers"]["transformer"]["tasks"] == {
        "last item": by_name["transformer"]
    }
    rows = [len(each.rows) for each in teacher.tables(again)]
    assert rows == [3]


def test_nothing_that_is_asked_for_teaches() -> None:
    split = last_items(dataset())
    (task,) = split.tasks.values()
    assert [len(row) for row in task.shown] == [6] * 60
    lengths = sorted(len(row) for row in split.histories)
    assert lengths == [5] * 30 + [6] * 30
    for row, held in zip(split.validation.shown, split.validation.held, strict=True):
        assert held == (row[-1] + 1) % N
        assert len(row) == 5
    for row, held in zip(task.shown, task.held, strict=True):
        assert held == (row[-1] + 1) % N


def test_a_rank_by_hand_with_and_without_seen_items() -> None:
    scores = np.asarray([[4.0, 3.0, 2.0, 1.0]], np.float32)
    task = Task([np.asarray([0])], [2], np.zeros(1, dtype=np.int64))
    found = teacher.rank(lambda rows, missing: scores, task, 4)
    assert found["ndcg@10"][0] == pytest.approx(1 / np.log2(3))
    assert found["ndcg@10_seen_ranked"][0] == pytest.approx(0.5)
    assert found["hr@10"] == [1.0, 1.0, 1.0]


def test_a_kept_teacher_of_another_kind_is_refused(tmp_path) -> None:
    split = last_items(dataset())
    kept = tmp_path / "teacher.safetensors"
    save_teacher(kept, Ease(np.zeros((N, N), np.float32)), split.catalogue)
    assert load_teacher(kept, split.catalogue).additive
    with pytest.raises(DataFormatError, match=r"teacher\.safetensors.*transformer"):
        teacher.compare(split, CONFIG, kept)


@needs_shared
def test_the_published_split_of_movielens_1m() -> None:
    split = published(SHARED / "ml-1m")
    sizes = [len(task.held) for task in split.tasks.values()]
    assert sizes == [6040, 512, 6040]
    assert split.num_items == 3416
    first, whole, before = split.tasks.values()
    assert int(first.missing.sum()) == 5528
    assert not whole.missing.any()
    assert not before.missing.any()
    # The files' 987,019 interactions, less one of each user with a hole.
    assert sum(map(len, split.histories)) == 987_019 - 5528
    for task in split.tasks.values():
        assert all(
            held not in row for row, held in zip(task.shown, task.held, strict=True)
        )
    # No history that teaches goes on into an item of a task without a hole.
    ends = {row.tobytes() for row in split.histories}
    assert all(row.tobytes() in ends for row in before.shown[512:])
