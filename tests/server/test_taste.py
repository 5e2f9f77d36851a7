"""Tastes behind noisy pairs: planted ones found, noise alone let go."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from server.taste import Evidence, find_tastes, leading

#: Planted tastes, and how many are looked for.
RANK, LOOKED_FOR = 3, 12


@dataclass(frozen=True)
class Planted:
    """What there is, and what was told of it."""

    pairs: np.ndarray
    evidence: Evidence


def off_diagonal(tastes: np.ndarray) -> np.ndarray:
    pairs = tastes @ tastes.T
    np.fill_diagonal(pairs, 0.0)
    return pairs


def noisy(pairs: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    upper = np.triu(rng.normal(size=pairs.shape) * noise, 1)
    return (pairs + upper + upper.T).astype(np.float32)


def planted(noise: float, seed: int = 0, num_items: int = 60) -> Planted:
    """Rows of variance 4 in three directions, hence pairs of deviation 7 or so."""
    rng = np.random.default_rng(seed)
    pairs = off_diagonal(2.0 * rng.normal(size=(num_items, RANK)))
    popularity, ones = np.full(num_items, 4.0), np.ones((num_items, 1))
    found = Evidence(popularity, ones, noisy(pairs, noise, rng), noise)
    return Planted(pairs, found)


def found_in(evidence: Evidence, iterations: int = 20) -> np.ndarray:
    return find_tastes(evidence, leading(evidence.pairs, LOOKED_FOR), iterations)


def error(tastes: np.ndarray, case: Planted) -> float:
    missing = off_diagonal(tastes) - case.pairs
    return float(np.linalg.norm(missing) / np.linalg.norm(case.pairs))


def eigenvectors(pairs: np.ndarray, rank: int) -> np.ndarray:
    """As many as asked for, each as heavy as its eigenvalue."""
    values, vectors = np.linalg.eigh(pairs.astype(np.float64))
    return vectors[:, -rank:] * np.sqrt(np.maximum(values[-rank:], 0.0))


def test_the_start_is_the_leading_eigenvectors() -> None:
    """Eigenvalues 9 and 4; a third, below one, weighs one all the same."""
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    values = np.array([9.0, 4.0, 0.25, 0, 0, 0, -1, -2])
    pairs = ((basis * values) @ basis.T).astype(np.float32)
    start = leading(pairs, 3)
    np.testing.assert_allclose(np.linalg.norm(start, axis=0), [3, 2, 1], rtol=1e-3)
    along = np.abs(np.diag(basis[:, :3].T @ start))
    np.testing.assert_allclose(along, [3, 2, 1], rtol=1e-3)


def test_there_are_fewer_directions_than_items() -> None:
    assert leading(np.ones((4, 4), np.float32), 32).shape == (4, 3)


def test_without_any_pair_there_is_a_start_and_nothing_to_find() -> None:
    evidence = Evidence(np.ones(6), np.ones((6, 1)), np.zeros((6, 6), np.float32), 1.0)
    assert leading(evidence.pairs, 3).shape == (6, 3)
    assert np.abs(found_in(evidence, 40)).max() < 1e-3
    # What is asked next has directions, whose pairs are nothing too.
    sketched = replace(evidence, sketch=np.zeros((6, 2)), sketch_noise=0.05)
    again = find_tastes(sketched, found_in(evidence, 40), 8)
    assert np.abs(again).max() < 1e-3


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_noise_the_planted_pairs_are_found(seed) -> None:
    case = planted(0.05, seed)
    assert error(found_in(case.evidence), case) < 0.01


@pytest.mark.parametrize("noise", [10.0, 12.0, 16.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_pairs_are_found_better_than_by_eigenvectors(noise, seed) -> None:
    """Even than by as many as were planted, which nobody could have told."""
    case = planted(noise, seed)
    ours = error(found_in(case.evidence), case)
    assert ours < 0.65 * error(eigenvectors(case.evidence.pairs, LOOKED_FOR), case)
    assert ours < error(eigenvectors(case.evidence.pairs, RANK), case)
    assert ours < 1.0, "no worse than to say nothing"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_of_noise_alone_next_to_nothing_is_left(seed) -> None:
    pairs = noisy(np.zeros((60, 60)), 5.0, np.random.default_rng(seed))
    evidence = Evidence(np.full(60, 4.0), np.ones((60, 1)), pairs, 5.0)
    start = leading(pairs, LOOKED_FOR)
    heavy, left = ((start**2).sum(), (found_in(evidence, 80) ** 2).sum())
    assert heavy > 500
    assert left < 1e-3


@pytest.mark.parametrize("noise", [4.0, 8.0, 12.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_sketch_sharpens(noise, seed) -> None:
    """Of a third of the noise, along four directions: a fifteenth of the numbers."""
    case = planted(noise, seed)
    first = found_in(case.evidence, 10)
    directions = np.linalg.svd(first, full_matrices=False)[0][:, :4]
    rng = np.random.default_rng(100 + seed)
    fault = noise / 3 * rng.normal(size=directions.shape)
    sketched = replace(
        case.evidence, sketch=case.pairs @ directions + fault, sketch_noise=noise / 3
    )
    assert error(find_tastes(sketched, first, 8), case) < 0.7 * error(first, case)


def test_a_sketch_of_noise_alone_does_little_harm() -> None:
    case = planted(8.0)
    first = found_in(case.evidence, 10)
    fault = 100 * np.random.default_rng(1).normal(size=(60, 4))
    sketched = replace(case.evidence, sketch=fault, sketch_noise=100.0)
    assert error(find_tastes(sketched, first, 8), case) < 1.1 * error(first, case)


def test_features_that_tell_tastes_help() -> None:
    """Items of two kinds, pairs within a kind alone, under much noise."""
    kind = np.repeat([1.0, -1.0], 30)
    truth = off_diagonal(2.0 * kind[:, None])
    evidence = Evidence(
        np.full(60, 4.0),
        np.ones((60, 1)),
        noisy(truth, 16.0, np.random.default_rng(0)),
        16.0,
    )
    case = Planted(truth, evidence)
    told = replace(evidence, features=np.stack([np.ones(60), kind], axis=1))
    assert error(found_in(told), case) < 0.7 * error(found_in(evidence), case)


def test_the_order_of_items_does_not_matter() -> None:
    case = planted(8.0)
    order = np.random.default_rng(5).permutation(60)
    evidence = case.evidence
    sketch = case.pairs[:, :4].astype(np.float64)
    popularity = np.linspace(1.0, 5.0, 60)
    evidence = replace(evidence, sketch=sketch, popularity=popularity)
    shuffled = replace(
        evidence,
        popularity=popularity[order],
        pairs=evidence.pairs[np.ix_(order, order)],
        sketch=sketch[order],
    )
    start = leading(case.evidence.pairs, LOOKED_FOR)
    one, other = (
        off_diagonal(find_tastes(evidence, start, 10)),
        off_diagonal(find_tastes(shuffled, start[order], 10)),
    )
    scale = np.abs(one).max()
    np.testing.assert_allclose(other, one[np.ix_(order, order)], atol=1e-3 * scale)


def test_the_same_evidence_gives_the_same_tastes() -> None:
    first, second = (found_in(planted(8.0).evidence) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_no_argument_is_changed() -> None:
    case = planted(8.0)
    start = leading(case.evidence.pairs, LOOKED_FOR)
    kept, pairs = start.copy(), case.evidence.pairs.copy()
    find_tastes(case.evidence, start, 3)
    np.testing.assert_array_equal(start, kept)
    np.testing.assert_array_equal(case.evidence.pairs, pairs)
