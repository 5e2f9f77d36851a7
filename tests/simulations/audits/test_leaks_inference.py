"""Figures by hand, beliefs that add up, and what is found where something is there."""

import numpy as np
import pytest

from simulations.audits.leaks.inference import believe, infer
from simulations.audits.leaks.measures import Question, Subject

NONE = np.zeros(6, dtype=bool)


def question(known, hidden):
    return Question(np.array([known], dtype=bool), np.array([hidden], dtype=bool))


def test_figures_by_hand():
    asked = question([1, 0, 0, 0, 0], [0, 1, 0, 1, 0])
    scores = np.array([[9.0, 3.0, 2.0, 1.0, 0.0]])
    # Of four pairs of a hidden and another item one is the wrong way round.
    assert asked.auc(scores).tolist() == [0.75]
    assert asked.precision(scores).tolist() == [0.5]


def test_equal_scores_find_what_chance_finds():
    asked = question([0, 0, 0, 0], [1, 0, 0, 0])
    assert asked.precision(np.zeros((1, 4))).tolist() == [0.25]
    assert asked.auc(np.zeros((1, 4))).tolist() == [0.5]


def test_who_has_nothing_hidden_counts_in_no_figure():
    known = np.array([[1, 0, 0], [1, 0, 0]], dtype=bool)
    hidden = np.array([[0, 0, 0], [0, 1, 0]], dtype=bool)
    asked, scores = Question(known, hidden), np.array([[0.0, 1.0, 0.5]] * 2)
    values = asked.auc(scores)
    assert np.isnan(values[0])
    assert np.isnan(asked.precision(scores)[0])
    record = Subject("a", "public", "b", promised=True, note="").record(
        "AUC", values, 0.5, "chance", 0.95
    )
    assert (record.num_targets, record.achieved, record.exceeds) == (1, 1.0, False)
    assert record.allowed is None


def test_belief_adds_up_to_the_length_and_holds_what_is_known():
    known = np.array([1, 0, 0, 0, 0, 0], dtype=bool)
    belief = believe(np.array([-50.0, 3.0, 2.0, 1.0, 0.0, -9.0]), known, 4)
    assert belief.sum() == pytest.approx(4, abs=1e-6)
    assert belief[0] == 1.0
    assert (np.diff(belief[1:]) < 0).all()


def test_belief_stands_huge_odds():
    belief = believe(np.array([1e6, 1e6, 0.0, 0.0, 0.0, -1e6]), NONE, 2)
    assert np.isfinite(belief).all()
    np.testing.assert_allclose(belief, [1, 1, 0, 0, 0, 0], atol=1e-6)


def test_without_evidence_the_prior_decides():
    prior = np.arange(6.0)
    found = infer([], prior, NONE, 2)
    np.testing.assert_array_equal(found.total, prior)
    assert not found.evidence.any()


class Pairs:
    """Items 4 and 5 go together with item 0."""

    def score(self, belief, length):
        found = np.zeros(6)
        found[[4, 5]] = 5 * belief[0]
        return found


def test_evidence_about_pairs_follows_from_what_is_known():
    known = np.array([1, 0, 0, 0, 0, 0], dtype=bool)
    found = infer([Pairs()], np.zeros(6), known, 3).total
    assert set(np.argsort(-found[1:])[:2] + 1) == {4, 5}
