"""Personal parameters: better where the own rows say so, and never less than asked."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch

from client.personal import (
    Personal,
    personal_scores,
    personalise,
    standardise,
)
from client.randomness import seeded_stream
from client.taste import directions
from common.catalogue import SCHEMA, Catalogue
from common.recommend import score_histories
from common.student import Student, StudentSpec, build, random_state

ITEMS, GROUPS = 60, 3
SPEC = StudentSpec(ITEMS, 4, 20.0, 0.8)


def catalogue() -> Catalogue:
    """Twenty items of each of three categories, in turns."""
    columns = {
        "item": [f"i{n}" for n in range(ITEMS)],
        "title": [f"Title {n}" for n in range(ITEMS)],
        "year": [2000] * ITEMS,
        "categories": [[f"c{n % GROUPS}"] for n in range(ITEMS)],
    }
    return Catalogue(pl.DataFrame(columns, schema=SCHEMA))


def rows_of(num_users: int, *, taste: bool, seed: int = 0) -> sp.csr_matrix:
    """Fifteen items a user, of one category alone if they have taste."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((num_users, ITEMS), dtype=np.float32)
    for user in range(num_users):
        own = np.arange(ITEMS)
        if taste:
            own = own[own % GROUPS == user % GROUPS]
        rows[user, rng.choice(own, 15, replace=False)] = 1
    return sp.csr_matrix(rows)


@pytest.fixture(scope="module")
def student() -> Student:
    """A released student that knows nothing of categories."""
    return build(SPEC, random_state(SPEC, torch.Generator().manual_seed(0))).eval()


def fitted(student: Student, rows: sp.csr_matrix, seed: int = 0) -> Personal:
    users = tuple(f"u{n}" for n in range(rows.shape[0]))
    axes = directions(student, catalogue())
    return personalise(student, axes, rows, users, seeded_stream(seed, "p"))


def test_users_with_taste_gain(student: Student) -> None:
    found = fitted(student, rows_of(12, taste=True))
    assert np.mean(found.after - found.before) > 0.2
    assert (found.alpha > 0).any() or (found.user_share > 0).any()


def test_one_user_alone_gains_by_taste_and_has_no_organisation(
    student: Student,
) -> None:
    found = fitted(student, rows_of(1, taste=True))
    assert found.organisation is None and found.share == 0
    assert found.alpha[0] > 0 and found.after[0] > found.before[0]


def test_without_anything_to_learn_nearly_nobody_departs(student: Student) -> None:
    shares = []
    for seed in range(4):
        found = fitted(student, rows_of(12, taste=False, seed=seed), seed)
        assert np.isfinite(found.taste).all()
        if found.alpha.any() or found.user_share.any():
            gain = found.after - found.before
            # What is kept is held to have gained on items it was not chosen by.
            assert gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain))
        shares.append(float((found.alpha > 0).mean()))
    assert np.mean(shares) < 0.5


def test_nobody_moves_where_nothing_is_chosen(student: Student) -> None:
    rows = rows_of(3, taste=True)
    found = fitted(student, rows)
    off = replace(
        found,
        organisation=None,
        share=0.0,
        user_share=np.zeros(3, np.float32),
        alpha=np.zeros(3, np.float32),
    )
    axes = directions(student, catalogue())
    scores = personal_scores(off, student, axes, rows, np.arange(3))
    np.testing.assert_allclose(
        scores, standardise(score_histories(student, rows)(0, 3)), atol=1e-6
    )


def test_scores_are_share_and_taste_by_hand(student: Student) -> None:
    rows = rows_of(8, taste=True)
    found = fitted(student, rows)
    axes = directions(student, catalogue())
    set_up = replace(found, alpha=np.full(8, 0.5, np.float32))
    alone = standardise(score_histories(student, rows)(0, 8))
    scores = personal_scores(
        replace(set_up, user_share=np.zeros(8, np.float32)),
        student,
        axes,
        rows,
        np.arange(8),
    )
    np.testing.assert_allclose(scores, alone + 0.5 * set_up.taste @ axes.T, atol=1e-5)


def test_a_stranger_gets_the_organisations_share_and_no_taste(
    student: Student,
) -> None:
    rows = rows_of(24, taste=True)
    found = fitted(student, rows)
    axes = directions(student, catalogue())
    scores = personal_scores(found, student, axes, rows[:1], np.array([-1]))
    alone = standardise(score_histories(student, rows[:1])(0, 1))
    if found.share:
        theirs = standardise(found.organisation.score(rows[:1]))
        alone = standardise((1 - found.share) * alone + found.share * theirs)
    np.testing.assert_allclose(scores, alone, atol=1e-4)


def test_the_same_rows_and_draw_give_the_same_parameters(student: Student) -> None:
    rows = rows_of(6, taste=True)
    first, again = fitted(student, rows), fitted(student, rows)
    for name in ("alpha", "user_share", "taste", "before", "after"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_users_with_no_or_few_items_are_served_all_the_same(student: Student) -> None:
    rows = rows_of(6, taste=True).tolil()
    rows[0] = 0
    rows[1] = 0
    rows[1, 4] = 1
    found = fitted(student, sp.csr_matrix(rows))
    assert np.isnan(found.before[0])
    axes = directions(student, catalogue())
    scores = personal_scores(
        found, student, axes, sp.csr_matrix(rows)[:2], np.arange(2)
    )
    assert np.isfinite(scores).all()


def test_the_released_student_is_left_as_it_is(student: Student) -> None:
    before = {name: value.clone() for name, value in student.state_dict().items()}
    fitted(student, rows_of(6, taste=True))
    after = student.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_equal_scores_standardise_to_nought() -> None:
    np.testing.assert_array_equal(
        standardise(np.full((1, 4), 3, np.float32)), np.zeros((1, 4), np.float32)
    )
