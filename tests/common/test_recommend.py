"""Recommendations: never what was seen, best first, no more than there is."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.recommend import recommend, similar
from common.student import StudentSpec, build, random_state

SPEC = StudentSpec(6, 3, 5.0, 0.5)
STUDENT = build(SPEC, random_state(SPEC, torch.Generator().manual_seed(4)))


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1), st.integers(1, 9))
def test_the_history_is_never_recommended(items, k):
    best = recommend(STUDENT, items, k)
    left = set(range(6)) - set(items)
    found = best.item[0].tolist()
    assert len(found) == len(set(found)) == min(k, len(left))
    assert set(found) <= left
    scores = best.score[0].tolist()
    assert scores == sorted(scores, reverse=True)


def test_scores_are_the_students():
    history = torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0, 0.0]])
    with torch.no_grad():
        scores = STUDENT(history)[0]
    scores[[1, 4]] = -torch.inf
    best = recommend(STUDENT, [4, 1, 1], 3)
    assert best.item[0].tolist() == scores.topk(3).indices.tolist()
    assert best.score[0].tolist() == pytest.approx(scores.topk(3).values.tolist())


def test_similar_items_by_cosine_and_never_itself():
    spec = StudentSpec(4, 2, 1.0, 1.0)
    state = random_state(spec, torch.Generator())
    state["decoder.weight"] = torch.tensor(
        [[1.0, 0.0], [9.0, 9.0], [0.1, 0.0], [-1.0, 0.0]]
    )
    best = similar(build(spec, state), 0, 99)
    assert best.item[0].tolist() == [2, 1, 3]
    assert best.score[0].tolist() == pytest.approx([1.0, 0.5**0.5, -1.0])
    assert similar(build(spec, state), 0, 1).item.tolist() == [[2]]
