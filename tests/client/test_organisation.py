"""A client's own model: EASE in closed form, whichever way it is solved."""

import numpy as np
import scipy.sparse as sp

from client import organisation
from client.organisation import fit_organisation


def rows_of(num_users: int, num_items: int) -> sp.csr_matrix:
    drawn = np.random.default_rng(0).random((num_users, num_items)) < 0.4
    drawn[:, 0] = True  # nobody without items
    return sp.csr_matrix(drawn.astype(np.float32))


def dense_weights(rows: sp.csr_matrix, l2: float) -> np.ndarray:
    """Equation 8 of the paper, users weighing 1 / |history|."""
    x = rows.toarray().astype(float)
    x /= np.sqrt(x.sum(axis=1, keepdims=True))
    precision = np.linalg.inv(x.T @ x + l2 * np.eye(x.shape[1]))
    weights = -precision / np.diag(precision)
    np.fill_diagonal(weights, 0.0)
    return weights


def test_two_users_and_two_items_by_hand() -> None:
    # Both have both items: Gram (½+½) in every cell, λ = 1. The inverse of
    # [[2, 1], [1, 2]] is [[2, −1], [−1, 2]] / 3, so B = [[0, ½], [½, 0]].
    rows = sp.csr_matrix(np.ones((2, 2), dtype=np.float32))
    one = sp.csr_matrix(np.float32([[1, 0]]))
    np.testing.assert_allclose(
        fit_organisation(rows, 1.0).score(one), [[0.0, 0.5]], atol=1e-6
    )


def test_few_users_and_many_give_the_same_model() -> None:
    for shape in ((5, 12), (12, 12), (30, 12)):
        rows = rows_of(*shape)
        everybody = sp.identity(12, dtype=np.float32, format="csr")
        found = fit_organisation(rows, 2.0).score(everybody)
        np.testing.assert_allclose(found, dense_weights(rows, 2.0), atol=1e-5)


def test_an_item_never_recommends_itself() -> None:
    everybody = sp.identity(9, dtype=np.float32, format="csr")
    for num_users in (4, 20):
        found = fit_organisation(rows_of(num_users, 9), 1.0).score(everybody)
        np.testing.assert_allclose(np.diag(found), 0.0, atol=1e-5)


def test_a_user_without_items_counts_for_nothing() -> None:
    rows = rows_of(4, 9)
    more = sp.vstack([rows, sp.csr_matrix((1, 9), dtype=np.float32)], format="csr")
    np.testing.assert_allclose(
        fit_organisation(rows, 1.0).score(rows),
        fit_organisation(more, 1.0).score(rows),
        atol=1e-6,
    )


def test_a_huge_client_is_cut_to_what_can_be_solved(monkeypatch) -> None:
    monkeypatch.setattr(organisation, "MOST_ROWS", 6)
    rows = rows_of(20, 9)
    np.testing.assert_array_equal(
        fit_organisation(rows, 1.0).score(rows),
        fit_organisation(rows[:6], 1.0).score(rows),
    )
