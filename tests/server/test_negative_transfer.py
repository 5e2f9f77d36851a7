"""Negative transfer: a good start helps, a harmful one is named."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from common.errors import DataFormatError
from common.intervals import Estimate
from common.student import StudentSpec
from server.negative_transfer import check_transfer, say

NUM = 12
SPEC = StudentSpec(NUM, NUM, 1.0, 0.0)
#: Twenty-four users: each shows item i and looks for item i + 1.
SHOWN = sp.csr_matrix(np.tile(np.eye(NUM, dtype=np.float32), (2, 1)))
HELD = sp.csr_matrix(np.roll(SHOWN.toarray(), 1, axis=1))
POPULAR = np.arange(NUM, 0, -1).astype(np.float32)


def student(scores: np.ndarray):
    """Scores ``[n, n]`` of item j for a history of item i alone."""
    return {
        "encoder.weight": torch.eye(NUM),
        "decoder.weight": torch.from_numpy(scores.T.astype(np.float32).copy()),
        "decoder.bias": torch.zeros(NUM),
    }


def test_a_start_that_ranks_the_held_item_first_helped() -> None:
    ideal = np.roll(np.eye(NUM), 1, axis=1)
    found = check_transfer(student(ideal), SPEC, SHOWN, HELD, POPULAR)
    assert found.ndcg["transferred"] == pytest.approx(1.0)
    assert not found.negative
    assert found.over_popularity.low > 0
    assert found.over_random.low > 0
    assert found.sentence.startswith("transfer helped")
    assert "24 public validation users" in found.sentence


def test_a_start_that_ranks_the_held_item_last_is_negative_transfer() -> None:
    harmful = -np.roll(np.eye(NUM), 1, axis=1)
    found = check_transfer(student(harmful), SPEC, SHOWN, HELD, POPULAR)
    # One shown, so the eleventh place of eleven: 1 / log2(12).
    assert found.ndcg["transferred"] == pytest.approx(1 / np.log2(12))
    assert found.negative
    assert found.over_popularity.high < 0
    assert found.sentence.startswith("negative transfer: ")


def test_a_start_that_is_popularity_is_neither() -> None:
    same = np.tile(POPULAR, (NUM, 1))
    found = check_transfer(student(same), SPEC, SHOWN, HELD, POPULAR)
    assert found.over_popularity == Estimate(0.0, 0.0, 0.0)
    assert not found.negative
    assert "neither" in found.sentence


def test_differences_are_paired_over_users() -> None:
    """Half the users gain, half lose: popularity's own spread over users is gone."""
    same = np.tile(POPULAR, (NUM, 1))
    found = check_transfer(student(same), SPEC, SHOWN, HELD, POPULAR)
    assert found.over_popularity.high - found.over_popularity.low == 0.0
    assert found.over_random.high > found.over_random.low


def test_without_validation_users_nothing_is_said() -> None:
    none = sp.csr_matrix((0, NUM), dtype=np.float32)
    assert check_transfer(student(np.eye(NUM)), SPEC, none, none, POPULAR) is None
    nothing_held = sp.csr_matrix(HELD.shape, dtype=np.float32)
    found = check_transfer(student(np.eye(NUM)), SPEC, SHOWN, nothing_held, POPULAR)
    assert found is None


def test_another_catalogue_is_refused() -> None:
    with pytest.raises(DataFormatError, match="Expected 12 items, got 12 and 3"):
        check_transfer(student(np.eye(NUM)), SPEC, SHOWN, HELD, POPULAR[:3])


def test_the_sentence_gives_both_differences_and_their_intervals() -> None:
    gains = {
        "popularity": Estimate(-0.02, -0.03, -0.01),
        "random": Estimate(0.1, 0.05, 0.15),
    }
    assert say(gains, negative=True, num_users=40) == (
        "negative transfer: the transferred start's NDCG@100 is -0.0200 [-0.0300, "
        "-0.0100] against popularity and +0.1000 [+0.0500, +0.1500] against random "
        "(40 public validation users, 95 %)."
    )


def test_a_start_no_better_than_chance_is_said_to_have_brought_nothing() -> None:
    gains = {
        "popularity": Estimate(-0.02, -0.03, -0.01),
        "random": Estimate(0.0, -0.01, 0.01),
    }
    told = say(gains, negative=True, num_users=40)
    assert told.startswith("negative transfer, nothing crossed: ")
