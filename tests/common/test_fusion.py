"""Fusion of features and of decisions, by hand."""

import numpy as np
import pytest

from common.errors import DataFormatError
from common.features import Features
from common.fusion import (
    DECISIONS,
    FUSIONS,
    borda,
    choose_weights,
    min_max,
    reciprocal_ranks,
    weigh,
    z_scores,
)

INF = np.inf


def array(*rows):
    return np.array(rows, dtype=np.float32)


def features(**modalities):
    values = {name: values for name, (values, _) in modalities.items()}
    known = {name: np.array(known, np.bool_) for name, (_, known) in modalities.items()}
    return Features(values, known)


def test_modalities_get_equal_say_and_missing_is_zero():
    fused = FUSIONS["concatenate"](
        features(
            a=(array([3, 4], [0, 5], [9, 9]), [1, 1, 0]),  # norms 5 and 5
            b=(array([2], [0], [0]), [1, 1, 1]),  # mean square 4/3
        ),
        array([0], [0], [0]),
        np.ones(3, np.bool_),
        1.0,
    )
    assert fused.dtype == np.float32
    root = np.sqrt(3)
    wanted = array([0.6, 0.8, root], [0, 1, 0], [0, 0, 0])
    np.testing.assert_allclose(fused, wanted, rtol=1e-6)


def test_weights_multiply_and_default_to_one():
    both = features(a=(array([2], [2]), [1, 1]), b=(array([-5], [5]), [1, 1]))
    assert weigh(both, {"b": 0.5}).tolist() == [[1, -0.5], [1, 0.5]]


def test_a_modality_nobody_has_or_of_zeros_is_zero():
    both = features(a=(array([7], [7]), [0, 0]), b=(array([0], [0]), [1, 1]))
    assert weigh(both, {}).tolist() == [[0, 0], [0, 0]]


def test_the_weight_goes_to_what_predicts():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(60, 3)).astype(np.float32)
    noise = rng.normal(size=(60, 30)).astype(np.float32)
    targets = (signal @ rng.normal(size=(3, 2))).astype(np.float32)
    known = np.ones(60, np.bool_)
    both = features(signal=(signal, known), noise=(noise, known))
    weights = choose_weights(both, targets, known, 1.0)
    assert weights["noise"] == 0.0
    assert weights["signal"] == 2.0
    fused = FUSIONS["weight"](both, targets, known, 1.0)
    assert fused.shape == (60, 33)
    assert not fused[:, 3:].any()


def test_rows_of_unknown_targets_change_no_weight():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(20, 4)).astype(np.float32)
    targets = rng.normal(size=(20, 2)).astype(np.float32)
    rows = np.arange(20) < 15
    both = features(a=(values[:, :2], rows), b=(values[:, 2:], rows))
    other = np.where(rows[:, None], targets, np.float32(1e6))
    assert choose_weights(both, targets, rows, 1.0) == choose_weights(
        both, other, rows, 1.0
    )


def test_without_targets_all_have_equal_say():
    both = features(a=(array([1], [2]), [1, 1]), b=(array([3], [4]), [1, 1]))
    equal = {"a": 1.0, "b": 1.0}
    none, all_rows = np.zeros(2, np.bool_), np.ones(2, np.bool_)
    assert choose_weights(both, array([1], [2]), none, 1.0) == equal
    assert choose_weights(both, array([0], [0]), all_rows, 1.0) == equal


def test_leaving_one_out_is_exact():
    """Two items, one feature of 1: predicting each from the other by hand."""
    one = np.ones((2, 1), np.float32)
    known = np.ones(2, np.bool_)
    # k = w², prediction of item 1 from item 2 alone is w²·y₂ / (w² + 1): for equal
    # targets the largest weight is best, for opposite ones no weight at all.
    alike = choose_weights(features(a=(one, known)), array([1], [1]), known, 1.0)
    against = choose_weights(features(a=(one, known)), array([1], [-1]), known, 1.0)
    assert (alike, against) == ({"a": 2.0}, {"a": 0.0})


def test_z_scores_by_hand():
    # [1, 3] and [30, 10] have deviations 1 and 10.
    fused = z_scores([array([1, 3]), array([30, 10])], [1.0, 0.5])
    np.testing.assert_allclose(fused, [[-0.5, 0.5]], rtol=1e-6)


def test_min_max_by_hand():
    fused = min_max([array([1, 2, 5]), array([0, 4, 4])])
    np.testing.assert_allclose(fused, [[0, 1.25, 2]], rtol=1e-6)


def test_reciprocal_ranks_by_hand():
    fused = reciprocal_ranks([array([9, 8, 7]), array([1, 5, 1])], [2.0, 1.0])
    wanted = [2 / 61 + 1 / 62.5, 2 / 62 + 1 / 61, 2 / 63 + 1 / 62.5]
    np.testing.assert_allclose(fused, [wanted], rtol=1e-6)


def test_borda_by_hand():
    # Of four, the best leaves 3/3 behind; of the two that b scores, 1/1.
    fused = borda([array([4, 3, 2, 1]), array([-INF, 1, -INF, 5])])
    np.testing.assert_allclose(fused, [[1, 2 / 3, 1 / 3, 1]], rtol=1e-6)


@pytest.mark.parametrize("name", DECISIONS)
def test_what_nobody_scores_stays_out(name):
    scores = [array([-INF, 2, 1], [3, np.nan, 1]), array([-INF, -INF, 1], [3, 2, 1])]
    fused = DECISIONS[name](scores, None)
    assert fused.dtype == np.float32
    assert (fused == -INF).tolist() == [[True, False, False], [False, False, False]]
    assert np.isfinite(fused[fused != -INF]).all()


@pytest.mark.parametrize("name", DECISIONS)
def test_scorers_who_agree_are_not_overruled(name):
    rng = np.random.default_rng(2)
    scores = rng.normal(size=(3, 7)).astype(np.float32)
    fused = DECISIONS[name]([scores, 5 * scores + 2], [0.3, 0.7])
    assert np.array_equal(fused.argsort(axis=1), scores.argsort(axis=1))


@pytest.mark.parametrize("name", DECISIONS)
def test_one_opinion_for_all_items_decides_nothing(name):
    scores = array([3, 1, 2])
    flat = np.full((1, 3), 0.1, np.float32)
    fused = DECISIONS[name]([scores, flat], None)
    assert fused.argsort().tolist() == scores.argsort().tolist()


@pytest.mark.parametrize("name", DECISIONS)
def test_a_user_without_any_score_is_no_error(name):
    fused = DECISIONS[name]([np.full((1, 3), -INF, np.float32)], None)
    assert (fused == -INF).all()


@pytest.mark.parametrize(
    ("scores", "weights"),
    [([array([1, 2]), array([1])], None), ([array([1])], [1.0, 2.0]), ([], None)],
)
def test_scores_that_do_not_fit_are_refused(scores, weights):
    with pytest.raises(DataFormatError, match="of one shape"):
        borda(scores, weights)
