"""The compression benchmark: a fair split, and figures that add up."""

from io import StringIO

import numpy as np
import pytest
import scipy.sparse as sp
from rich.console import Console

from simulations.benchmarks import compression
from simulations.benchmarks.compression import SWEEP, measure, split, tables


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    """The quick benchmark on sixty users of ours in the shape of MovieLens-100K."""
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    folder = tmp_path_factory.mktemp("data") / "ml-100k"
    folder.mkdir()
    draw = np.random.default_rng(0)
    lines = []
    for user in range(1, 61):
        taste = 15 * (user % 2)
        items = draw.choice(20, 8, replace=False) + taste + 1
        lines += [f"{user}\t{item}\t4\t{900 + item}" for item in items]
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    items = [f"{i}|Title {i} (1995)|||u" + "|0" * 19 for i in range(1, 36)]
    (folder / "u.item").write_text("\n".join(items) + "\n", encoding="latin-1")
    users = [f"{i}|24|M|writer|85711" for i in range(1, 61)]
    (folder / "u.user").write_text("\n".join(users) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compression, "CALLS", 20)
        patch.setattr(compression, "PASSES", 2)
        return measure(folder.parent, quick=True)


def test_a_fifth_of_each_held_out_users_items_is_to_find() -> None:
    rows = sp.csr_matrix(np.float32(np.tri(40, 40)))
    teaching, heldout = split(rows)
    assert teaching.shape == (30, 40)
    assert heldout.shown.multiply(heldout.held).nnz == 0
    lengths = np.diff((heldout.shown + heldout.held).indptr)
    num_held = np.diff(heldout.held.indptr)
    assert num_held.tolist() == [max(1, round(0.2 * n)) for n in lengths.tolist()]
    everyone = np.concatenate([np.diff(teaching.indptr), lengths])
    assert sorted(everyone) == list(range(1, 41))


@pytest.mark.slow
def test_every_file_is_measured(found: dict) -> None:
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == 10
    assert list(rows)[:2] == ["teacher", "student"]
    teacher = rows["teacher"]
    assert teacher["bytes"] == pytest.approx(35 * 35 * 4, abs=100)
    for row in rows.values():
        assert row["times_smaller"] == pytest.approx(teacher["bytes"] / row["bytes"])
        assert 0 < row["p50_us"] <= row["p99_us"]
        share = row["ndcg@10"] / rows["student"]["ndcg@10"]
        assert row["share_of_student"] == pytest.approx(share)
        low, high = row["difference_95"]
        assert low <= row["difference"] <= high
    assert rows["student"]["difference_95"] == [0.0, 0.0]
    assert rows["ONNX"]["ndcg@10"] == rows["student"]["ndcg@10"]
    assert found["private"] is False


@pytest.mark.slow
def test_pruning_nothing_costs_nothing(found: dict) -> None:
    student = found["rows"][1]
    whole = [point for point in found["sweep"] if point["share"] == 1.0]
    assert len(found["sweep"]) == 2 * len(SWEEP)
    assert [point["kept"] for point in whole] == [34, 35]
    for point in whole:
        assert point["ndcg@10"] == pytest.approx(student["ndcg@10"], abs=1e-6)


@pytest.mark.slow
def test_the_verdict_is_the_smallest_file_that_keeps_the_share(found: dict) -> None:
    target = found["target"]
    kept = [row for row in found["rows"][1:] if row["share_of_student"] >= 0.97]
    best = min(kept, key=lambda row: row["bytes"])
    assert target["smallest"] == best["name"]
    assert target["met"] == (best["times_smaller"] >= 10)


@pytest.mark.slow
def test_tables_show_every_row_within_eighty_columns(found: dict) -> None:
    console = Console(width=80, record=True, file=StringIO())
    for table in tables(found):
        console.print(table)
    text = console.export_text()
    for row in found["rows"]:
        assert row["name"] in text
        assert f"{row['bytes']:,}" in text
    assert "NOT PRIVATE" in text
    assert "Aim: 10× smaller" in text
