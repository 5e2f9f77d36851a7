"""Figures by group: by hand, small groups never shown nor to be worked out."""

import doctest

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simulations.groups
from common.intervals import Estimate
from simulations.groups import gap_of, group_figures, labels_of, reportable


def figures(values, labels, **settings):
    settings = {"metric": "ndcg@10", "min_users": 2, "resamples": 50} | settings
    return group_figures(
        {name: np.array(value, dtype=float) for name, value in values.items()},
        {name: np.array(label) for name, label in labels.items()},
        **settings,
    )


def test_doctests():
    result = doctest.testmod(simulations.groups)

    assert result.attempted >= 2
    assert result.failed == 0


def test_worked_example():
    (found,) = figures(
        {
            "student_private": [0.1, 0.3, 0.5, 0.5],
            "student_nonprivate": [0.6, 0.8, 0.6, 0.6],
        },
        {"gender": ["F", "F", "M", "M"]},
    )

    women, men = found.groups
    assert (women.group, women.num_users, men.group, men.num_users) == ("F", 2, "M", 2)
    assert women.models["student_private"].value == pytest.approx(0.2)
    assert men.models["student_private"] == Estimate(0.5, 0.5, 0.5)
    # Privacy takes .5 from each woman and .1 from each man.
    assert women.cost is not None and men.cost is not None
    assert women.cost.low == pytest.approx(0.5)
    assert men.cost.high == pytest.approx(0.1)
    gap = found.gaps["student_private"]
    assert (gap.value, gap.best, gap.worst) == (pytest.approx(0.3), "M", "F")
    assert found.gaps["student_nonprivate"].value == pytest.approx(0.1)
    assert (found.attribute, found.metric, found.suppressed) == (
        "gender", "ndcg@10", (),
    )  # fmt: skip


def test_without_the_pair_there_is_no_cost():
    (found,) = figures({"teacher": [1, 0, 1, 0]}, {"age": ["a", "a", "b", "b"]})

    assert found.groups[0].cost is None


def test_users_without_held_items_belong_to_no_group():
    (found,) = figures(
        {"teacher": [1, 0, 1, 0, np.nan]}, {"gender": ["F", "F", "M", "M", "M"]}
    )

    assert [group.num_users for group in found.groups] == [2, 2]


def test_an_attribute_that_everyone_shares_is_left_out():
    assert figures({"teacher": [1, 0, 1]}, {"gender": ["F", "F", "F"]}) == ()
    assert figures({}, {"gender": ["F"]}) == ()


@pytest.mark.parametrize(
    "labels",
    [
        ["F", "F", "M"],  # M is too few, and F would give it away
        ["F", "M", "X"],  # all are too few
        ["F", "F", "F", "M", "X"],  # one is left, with nothing to compare
        ["F"],
    ],
)
def test_an_attribute_of_which_nothing_is_left_is_said_to_be_suppressed(labels):
    (found,) = figures({"teacher": [1.0] * len(labels)}, {"gender": labels})

    assert (found.attribute, found.groups, found.gaps) == ("gender", (), {})
    assert found.suppressed == tuple(sorted(set(labels)))


def test_users_without_held_items_keep_no_group_above_the_floor():
    """Two of F count, one of M does: the second has nothing to find."""
    (found,) = figures({"teacher": [1, 0, 1, np.nan]}, {"gender": ["F", "F", "M", "M"]})

    assert found.groups == ()


# ---------------------------------------------------------------- suppression
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=60), st.integers(1, 12))
def test_what_is_suppressed_is_never_a_small_group(labels, min_users):
    shown, hidden = reportable(np.array(labels), min_users)

    assert set(shown) | set(hidden) == set(labels)
    assert not set(shown) & set(hidden)
    assert all(labels.count(name) >= min_users for name in shown)
    # Total less shown groups is the figure of everyone suppressed, together.
    together = sum(labels.count(name) for name in hidden)
    assert together == 0 or together >= min_users or not shown


def test_a_single_small_group_takes_the_next_with_it():
    shown, hidden = reportable(np.array(list("aaaaabbbbcc")), 3)

    assert (shown, hidden) == (("a",), ("b", "c"))


# ---------------------------------------------------------------- gaps
def test_a_gap_of_the_grouping_is_told_from_one_of_chance():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 200)
    value = rng.random(400)

    alike = gap_of(value, labels, ("a", "b"), 200)
    apart = gap_of(value + 0.2 * (labels == "b"), labels, ("a", "b"), 200)

    assert alike.chance > 0.05
    assert apart.chance == pytest.approx(1 / 201)
    assert apart.best == "b"


def test_suppressed_groups_do_not_make_the_gap():
    labels = np.array(["a", "a", "b", "b", "c"])
    value = np.array([0.1, 0.1, 0.2, 0.2, 1.0])

    assert gap_of(value, labels, ("a", "b"), 10).value == pytest.approx(0.1)


# ---------------------------------------------------------------- labels
def test_labels_are_joined_by_outside_id():
    users = pl.DataFrame(
        {"user": ["7", "8", "9"], "age": ["1", "56", ""], "gender": ["F", "M", None],
         "zip_code": ["1", "2", "3"]}
    )  # fmt: skip

    found = labels_of(users, ["9", "7", "nobody", "8"])

    assert list(found) == ["age", "gender"]
    assert found["age"].tolist() == ["unknown", "under 25", "unknown", "50 and over"]
    assert found["gender"].tolist() == ["unknown", "F", "unknown", "M"]
    assert labels_of(None, ["7"]) == {}
