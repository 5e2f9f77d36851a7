"""A client's own model: EASE in closed form, whichever way it is solved."""

import numpy as np
import pytest
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


@pytest.mark.parametrize("num_users", [5, 30])
@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_sparse_and_dense_products_are_the_same(num_users, share) -> None:
    rows = rows_of(num_users, 25)
    model = fit_organisation(rows, 2.0)
    drawn = np.random.default_rng(1).random((4, 25)) < share
    history = sp.csr_matrix(drawn.astype(np.float32))
    expected = history.toarray() @ dense_weights(rows, 2.0)
    np.testing.assert_allclose(model.score(history), expected, atol=1e-5)
    assert history.nnz == drawn.sum() and set(history.data) <= {1.0}, "left as it was"


def test_one_history_of_many_takes_a_dense_product(monkeypatch) -> None:
    """Row by row, scipy takes many times as long: it is every call of a service."""
    model = fit_organisation(rows_of(40, 60), 2.0)
    asked = []
    original = sp.csr_matrix.toarray

    def counted(self, *rest, **options):
        asked.append(self.shape)
        return original(self, *rest, **options)

    monkeypatch.setattr(sp.csr_matrix, "toarray", counted)
    model.score(rows_of(1, 60))
    assert (1, 40) in asked
