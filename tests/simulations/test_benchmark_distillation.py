"""The distillation benchmark: exact sizes, paired shares, and all of its students."""

from io import StringIO

import numpy as np
import pytest
import scipy.sparse as sp
from rich.console import Console

from server.teacher.ease import fit_gram
from simulations.benchmarks import distillation
from simulations.benchmarks.distillation import (
    METRIC,
    PLANS,
    fit_ease,
    measure,
    share,
    tables,
    verdict,
)

NUM_ITEMS = {"citeulike-a": 16_980, "ml-1m": 3_416, "ml-100k": 1_682}


@pytest.mark.parametrize("plan", [*PLANS, *distillation.QUICK], ids=lambda p: p.folder)
def test_the_widest_student_has_a_tenth_of_the_teachers_numbers(plan) -> None:
    n = NUM_ITEMS[plan.folder]
    widest = plan.dims[-1]
    assert n * n >= 10 * n * (2 * widest + 1)
    assert n * n < 10 * n * (2 * (widest + 1) + 1)


@pytest.mark.parametrize("users", [7, 30])
def test_both_ways_to_fit_ease_agree(users: int) -> None:
    draw = np.random.default_rng(0)
    rows = sp.csr_matrix((draw.random((users, 12)) < 0.4).astype(np.int32) * 3)
    binary = (rows > 0).toarray().astype(np.float64)
    expected = fit_gram(binary.T @ binary, 2.0)
    np.testing.assert_allclose(fit_ease(rows, 2.0), expected, rtol=1e-4, atol=1e-6)


def test_a_share_is_of_means_and_paired_over_users() -> None:
    teacher = np.array([0.2, 0.4, 0.9, 0.5])
    found = share(0.5 * teacher, teacher)
    assert found["share"] == pytest.approx(0.5)
    # What is hard for both cancels: half of every user is half of any users.
    assert found["share_95"] == pytest.approx([0.5, 0.5])
    assert found[METRIC] == pytest.approx(0.25)


def test_the_verdict_is_of_students_that_are_small_enough() -> None:
    rows = [
        {"student": name, "dim": 1, "times_smaller": times, "share": kept}
        | {"share_95": [0.0, 1.0]}
        for name, times, kept in (("wide", 9.9, 0.99), ("a", 20, 0.9), ("b", 10, 0.94))
    ]
    found = verdict(rows)
    assert (found["student"], found["met"]) == ("b", False)
    rows[-1]["share"] = 0.95
    assert verdict(rows)["met"]
    assert verdict(rows[:1])["student"] == "wide"
    assert not verdict(rows[:1])["met"]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    """The quick benchmark on eighty users of ours with two tastes."""
    folder = tmp_path_factory.mktemp("data") / "ml-100k"
    folder.mkdir()
    draw = np.random.default_rng(0)
    lines = []
    for user in range(1, 81):
        taste = 15 * (user % 2)
        items = draw.choice(15, 8, replace=False) + taste + 1
        lines += [f"{user}\t{item}\t4\t{900 + item}" for item in items]
    (folder / "u.data").write_text("\n".join(lines) + "\n")
    items = [f"{i}|Title {i} (1995)|||u" + "|0" * 19 for i in range(1, 31)]
    (folder / "u.item").write_text("\n".join(items) + "\n", encoding="latin-1")
    users = [f"{i}|24|M|writer|85711" for i in range(1, 81)]
    (folder / "u.user").write_text("\n".join(users) + "\n")
    return measure(folder.parent, quick=True)


def test_every_student_is_measured_against_one_teacher(found: dict) -> None:
    one = found["sets"]["ml-100k"]
    assert one["teaching_users"] + one["heldout_users"] == 80
    assert one["items"] == 30
    assert one["teacher_numbers"] == 900
    names = {row["student"] for row in one["rows"]}
    assert {"SVD", "projection", "kl", "mse", "rank"} <= names
    assert any("synthetic" in name for name in names)
    for row in one["rows"]:
        assert row["dim"] <= 29
        assert row["times_smaller"] == pytest.approx(900 / row["numbers"])
        assert row["share"] == pytest.approx(row[METRIC] / one["teacher"])
        low, high = row["share_95"]
        assert low <= row["share"] <= high


def test_students_of_two_tastes_know_them(found: dict) -> None:
    for row in found["sets"]["ml-100k"]["rows"]:
        assert row["share"] > 0.6


def test_the_table_names_the_verdict(found: dict) -> None:
    (table,) = tables(found)
    page = StringIO()
    Console(file=page, width=160).print(table)
    best = found["sets"]["ml-100k"]["verdict"]
    assert f"{best['share']:.1%}" in page.getvalue()
    assert len(table.rows) == len(found["sets"]["ml-100k"]["rows"])
