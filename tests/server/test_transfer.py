"""Transfer, on cases small enough to check."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from common.config import defaults, parse
from common.errors import ConfigError
from common.student import StudentSpec, build
from server.transfer import (
    TRANSFERS,
    across,
    content_map,
    factorise,
    start_across,
)

SETTINGS = parse(defaults()).transfer.model_copy(update={"content": False})
WITH_CONTENT = SETTINGS.model_copy(update={"content": True, "content_l2": 1e-9})


@dataclass
class Tables:
    """A teacher that has only tables."""

    inputs: np.ndarray
    outputs: np.ndarray

    def tables(self, rank=None):
        return self.inputs, self.outputs


def teacher(num_items: int, width: int, seed: int = 0) -> Tables:
    drawn = np.random.default_rng(seed).normal(size=(2, num_items, width))
    return Tables(*drawn.astype(np.float32))


def start(method: str, taught: Tables, dim: int, settings=SETTINGS, known=None):
    num_items = len(taught.inputs)
    known = np.ones(num_items, dtype=bool) if known is None else known
    features = np.eye(num_items, dtype=np.float32)
    spec = StudentSpec(num_items, dim, 2.0, 0.0)
    return TRANSFERS[method](taught, features, known, spec, settings)


def product(state) -> np.ndarray:
    return (state["encoder.weight"].T @ state["decoder.weight"].T).numpy()


@pytest.mark.parametrize("width", [1, 3, 9, 12])
def test_a_teacher_of_rank_d_is_kept_whole_by_d_dimensions(width: int) -> None:
    taught = teacher(9, width)
    state = start("svd", taught, width)
    np.testing.assert_allclose(
        product(state), taught.inputs @ taught.outputs.T, atol=1e-4
    )


@pytest.mark.parametrize(("num_items", "width"), [(9, 5), (9, 12), (400, 300)])
def test_svd_is_the_best_of_its_rank(num_items: int, width: int) -> None:
    taught = teacher(num_items, width)
    whole = taught.inputs.astype(np.float64) @ taught.outputs.T
    left, values, right = np.linalg.svd(whole)
    best = (left[:, :4] * values[:4]) @ right[:4]
    np.testing.assert_allclose(
        product(start("svd", taught, 4)), best, atol=1e-3 * values[0]
    )


def test_svd_shares_singular_values_evenly_and_largest_first() -> None:
    encoder, decoder = factorise(*teacher(9, 5).tables(), 5)
    norms = np.linalg.norm(encoder, axis=0)
    np.testing.assert_allclose(norms, np.linalg.norm(decoder, axis=0))
    assert (np.diff(norms) < 0).all()


def test_more_dimensions_than_the_teacher_has_are_left_at_zero() -> None:
    state = start("svd", teacher(9, 3), 20)
    assert state["encoder.weight"].shape == (20, 9)
    assert not state["encoder.weight"][3:].any()
    assert not state["decoder.weight"][:, 3:].any()


def test_two_servers_start_alike() -> None:
    taught = teacher(400, 300)
    first, second = (start("svd", taught, 8) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_copy_keeps_the_tables_and_the_scores() -> None:
    taught = teacher(9, 3)
    state = start("copy", taught, 4)
    np.testing.assert_array_equal(state["encoder.weight"][:3].T, taught.inputs)
    np.testing.assert_array_equal(state["decoder.weight"][:, :3], taught.outputs)
    assert not state["encoder.weight"][3:].any()
    history = torch.eye(9)[2:3]
    with torch.no_grad():
        scores = build(StudentSpec(9, 4, 2.0, 0.0), state)(history).numpy()
    expected = 2.0 * taught.inputs[2] @ taught.outputs.T
    np.testing.assert_allclose(scores[0], expected, rtol=1e-5)


def test_copy_refuses_a_teacher_wider_than_the_student() -> None:
    with pytest.raises(ConfigError, match=r"student\.dim \(2\) wide, got 3"):
        start("copy", teacher(9, 3), 2)


@pytest.mark.parametrize("method", ["svd", "copy"])
def test_unseen_items_get_what_their_features_predict(method: str) -> None:
    """Items 0 and 3 share their features: item 3 starts where item 0 does."""
    taught = teacher(4, 2)
    features = np.asarray([[1, 0], [0, 1], [0, 1], [1, 0]], dtype=np.float32)
    known = np.asarray([True, True, True, False])
    spec = StudentSpec(4, 2, 1.0, 0.0)
    state = TRANSFERS[method](taught, features, known, spec, WITH_CONTENT)
    plain = TRANSFERS[method](taught, features, known, spec, SETTINGS)
    for name in ("encoder.weight", "decoder.weight"):
        axis = 0 if name.startswith("encoder") else 1
        mapped = state[name].numpy() if axis else state[name].T.numpy()
        before = plain[name].numpy() if axis else plain[name].T.numpy()
        np.testing.assert_allclose(mapped[:3], before[:3], atol=1e-6)
        np.testing.assert_allclose(mapped[3], before[0], atol=1e-5)


def test_unknown_items_are_predicted_from_features_and_known_ones_kept() -> None:
    features = np.asarray([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    vectors = np.asarray([[2.0], [4.0], [-6.0], [99.0]])
    known = np.asarray([True, True, True, False])
    mapped = content_map(features, vectors, known, 1e-9)
    np.testing.assert_allclose(mapped.ravel(), [2.0, 4.0, -6.0, 3.0], atol=1e-6)


@pytest.mark.parametrize("num_features", [3, 40])
def test_both_normal_equations_solve_the_same_ridge(num_features: int) -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(10, num_features)).astype(np.float32)
    vectors = rng.normal(size=(10, 2))
    gram = features.T.astype(np.float64) @ features + 0.7 * np.eye(num_features)
    expected = np.linalg.solve(gram, features.T.astype(np.float64) @ vectors)
    found = across(features, vectors, np.eye(num_features, dtype=np.float32), 0.7)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_random_start_ignores_the_teacher_and_repeats() -> None:
    first, second = start("random", teacher(9, 3), 4), start("random", teacher(9, 2), 4)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first["encoder.weight"].std() > 0


def crossed(source: np.ndarray, target: np.ndarray, known=None):
    taught = teacher(len(source), 2)
    known = np.ones(len(source), dtype=bool) if known is None else known
    spec = StudentSpec(len(target), 4, 1.0, 0.0)
    return taught, start_across(taught, source, known, target, spec, WITH_CONTENT)


def test_across_domains_an_item_starts_where_its_like_stands() -> None:
    """One feature an item: the target's items 0 and 1 are source items 2 and 0."""
    source = np.eye(3, dtype=np.float32)
    target = np.asarray([[0, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=np.float32)
    taught, state = crossed(source, target)
    whole = taught.inputs @ taught.outputs.T
    found = product(state)
    np.testing.assert_allclose(found[:2, :2], whole[np.ix_([2, 0], [2, 0])], atol=1e-5)
    assert not found[2].any()
    assert not found[:, 2].any()


def test_across_domains_items_the_teacher_never_saw_teach_nothing() -> None:
    source, target = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    _, state = crossed(source, target, np.asarray([True, False, True]))
    assert state["encoder.weight"][:, 0].any()
    assert not state["encoder.weight"][:, 1].any()


@pytest.mark.parametrize("empty", ["source", "target"])
def test_where_nothing_can_cross_the_start_is_random(empty: str) -> None:
    full, none = np.eye(3, dtype=np.float32), np.zeros((3, 3), dtype=np.float32)
    source, target = (none, full) if empty == "source" else (full, none)
    _, state = crossed(source, target)
    expected = start("random", teacher(3, 2), 4)
    assert torch.equal(state["encoder.weight"], expected["encoder.weight"])
