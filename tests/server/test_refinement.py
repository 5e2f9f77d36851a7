"""Refinement: what is asked of clients, how answers are read, and what they teach."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from common.catalogue import SCHEMA, Catalogue
from common.config import RunConfig, defaults, parse
from common.plan import statistics_noise
from server.refinement import (
    LEAST_COUNT,
    LEAST_NOISE,
    RefinementFailed,
    Summed,
    choose_items,
    main_directions,
    public_tastes,
    read_pairs,
    refine,
    teacher_of,
)
from server.settings import PublicData
from server.teacher.factors import Factors

NUM_ITEMS, NUM_CLUSTERS = 40, 4
CLUSTER = np.arange(NUM_ITEMS) // (NUM_ITEMS // NUM_CLUSTERS)
NO_FEATURES = np.zeros((NUM_ITEMS, 0), np.float32)


def config(**overrides) -> RunConfig:
    small = {
        "statistics.share": 1.0,
        "statistics.noise-multiplier": 3.0,
        "statistics.rank": 8,
        "statistics.directions": 5,
        "training.rounds": 0,
    }
    return parse(defaults() | small | overrides)


def public_of(rows: np.ndarray) -> PublicData:
    teaching = sp.csr_matrix(rows.astype(np.float32))
    size = rows.shape[1]
    listed = [(str(i), f"title {i}", 0, []) for i in range(size)]
    catalogue = Catalogue(pl.DataFrame(listed, schema=SCHEMA, orient="row"))
    nobody = sp.csr_matrix((0, size), dtype=np.float32)
    return PublicData(catalogue, teaching, teaching.astype(np.int32), nobody, nobody)


def users(num: int, seed: int) -> np.ndarray:
    """Each likes one cluster: half of its items, and one in twenty of the others."""
    rng = np.random.default_rng(seed)
    likes = rng.integers(NUM_CLUSTERS, size=num)[:, None] == CLUSTER
    return (rng.random((num, NUM_ITEMS)) < np.where(likes, 0.5, 0.05)).astype(float)


@dataclass
class FakeCensus:
    """Answers for clients that share out these users, each with noise of its own."""

    rows: np.ndarray
    config: RunConfig
    num_clients: int = 1
    asked: list[str] = field(default_factory=list)
    directions: np.ndarray | None = None
    chosen: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def pairs(self, chosen) -> Summed:
        self.asked.append("pairs")
        self.chosen = chosen
        rows, share = self.rows[:, chosen], self.config.statistics.counts_share
        size = rows.sum(axis=1, keepdims=True)
        counts = np.sqrt(share) * (rows / np.sqrt(np.maximum(size, 1))).sum(axis=0)
        weight = np.sqrt((1 - share) / np.maximum(size * (size - 1) / 2, 1))
        pairs = (rows * weight).T @ rows
        upper = pairs[np.triu_indices(len(pairs), 1)]
        noise = statistics_noise(self.config).pairs
        return self._answer((self._noised(counts, noise), self._noised(upper, noise)))

    def sketch(self, chosen, directions) -> Summed:
        self.asked.append("sketch")
        self.directions = directions
        rows = self.rows[:, chosen]
        along = rows[:, :, None] * ((rows @ directions)[:, None] - directions)
        norm = np.linalg.norm(along, axis=(1, 2), keepdims=True)
        total = (along / np.maximum(norm, 1e-12)).sum(axis=0)
        noise = statistics_noise(self.config).sketch
        return self._answer((self._noised(total, noise),))

    def _answer(self, arrays) -> Summed:
        return Summed(arrays, self.num_clients)

    def _noised(self, total: np.ndarray, noise: float) -> np.ndarray:
        drawn = self.rng.normal(size=(self.num_clients, *total.shape)).sum(axis=0)
        return total + noise * drawn


def hits(teacher: Factors, shown: np.ndarray) -> float:
    """Share of the five best unseen items that are of the user's own cluster."""
    scores = teacher.score(sp.csr_matrix(shown.astype(np.float32)))
    scores[shown > 0] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :5]
    liked = CLUSTER[shown.argmax(axis=1)]
    return float((CLUSTER[best] == liked[:, None]).mean())


#: A user of each item, who has touched nothing else.
ONE_ITEM_EACH = np.eye(NUM_ITEMS)


def public_teacher(public: PublicData, settings: RunConfig) -> Factors:
    """What is made where the clients have told nothing."""
    chosen = np.ones(NUM_ITEMS, bool)
    nothing = np.zeros((NUM_ITEMS, 1))
    return teacher_of(
        nothing, np.full(NUM_ITEMS, LEAST_COUNT), chosen, public, settings.statistics
    )


# ------------------------------------------------------------- reading answers


def test_pairs_and_counts_come_back_to_their_own_scale() -> None:
    """A share of 0.36: counts were scaled by 0.6, pairs by 0.8."""
    settings = config(**{"statistics.counts-share": 0.36}).statistics
    answer = Summed((np.array([6.0, 12, 0.6]), np.array([0.8, -1.6, 2.4])), 1)
    found = read_pairs(answer, 4.0, settings, np.ones((3, 1)))
    np.testing.assert_allclose(found.popularity, [10, 20, LEAST_COUNT])
    expected = [[0, 1, -2], [1, 0, 3], [-2, 3, 0]]
    np.testing.assert_allclose(found.pairs, expected, rtol=1e-6)
    assert found.pairs.dtype == np.float32
    assert found.pairs_noise == pytest.approx(4.0 / 0.8)
    assert found.sketch is None


@pytest.mark.parametrize("num_clients", [1, 4, 9])
def test_noise_grows_with_the_root_of_the_clients(num_clients) -> None:
    settings = config(**{"statistics.counts-share": 0.36}).statistics
    answer = Summed((np.ones(3), np.ones(3)), num_clients)
    found = read_pairs(answer, 4.0, settings, np.ones((3, 1)))
    assert found.pairs_noise == pytest.approx(5.0 * num_clients**0.5)


def test_without_noise_a_little_is_assumed() -> None:
    answer = Summed((np.ones(3), np.ones(3)), 1)
    found = read_pairs(answer, 0.0, config().statistics, np.ones((3, 1)))
    assert found.pairs_noise == pytest.approx(LEAST_NOISE, rel=0.1)


def test_a_client_and_its_reader_agree_on_the_scale() -> None:
    """A user of two items: one in the counts by root 2, one in the pairs whole."""
    quiet = config(**{"privacy.mode": "off"})
    census = FakeCensus(np.array([[1.0, 1, 0]]), quiet)
    answer = census.pairs(np.ones(3, bool))
    found = read_pairs(answer, 0.0, quiet.statistics, np.ones((3, 1)))
    np.testing.assert_allclose(found.pairs, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


# ----------------------------------------------------------------- what to ask


def test_the_items_that_public_users_touched_most_are_chosen() -> None:
    public = public_of(np.array([[1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0]]))
    assert choose_items(public, 2).tolist() == [True, False, True, False]
    assert choose_items(public, 3).tolist() == [True, False, True, True]
    assert choose_items(public, 9).all()


def test_a_tie_goes_to_the_earlier_item() -> None:
    public = public_of(np.zeros((0, 4)))
    assert choose_items(public, 2).tolist() == [True, True, False, False]


def test_main_directions_are_orthonormal_and_leave_out_the_first() -> None:
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 4)))[0]
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    found = main_directions((basis * [9.0, 5, 3, 1]) @ turn, 2)
    assert (found.shape, found.dtype) == ((9, 2), np.dtype(np.float32))
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found.T @ found, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(np.abs(basis.T @ found), np.eye(4)[:, 1:3], atol=1e-6)


def test_there_are_no_more_directions_than_tastes_but_always_one() -> None:
    tastes = np.random.default_rng(0).normal(size=(9, 4))
    assert main_directions(tastes, 19).shape == (9, 3)
    assert main_directions(tastes[:, :1], 19).shape == (9, 1)


@pytest.mark.parametrize(
    ("share", "asked"), [(0.0, ["pairs"]), (0.4, ["pairs", "sketch"])]
)
def test_a_sketch_is_asked_for_where_it_has_a_share(share, asked) -> None:
    settings = config(**{"statistics.sketch-share": share})
    census = FakeCensus(users(200, 1), settings)
    refine(census, public_of(users(20, 2)), NO_FEATURES, settings)
    assert census.asked == asked
    if census.directions is not None:
        assert census.directions.shape == (NUM_ITEMS, 5)
        inner = census.directions.T @ census.directions
        np.testing.assert_allclose(inner, np.eye(5), atol=1e-5)


# ------------------------------------------------------------ what is made of it


@pytest.mark.parametrize("mode", ["local", "off"])
def test_clients_teach_clusters_that_few_public_users_do_not(mode) -> None:
    settings = config(**{"privacy.mode": mode})
    public = public_of(users(6, 2))
    census = FakeCensus(users(1500, 1), settings)
    refined = refine(census, public, NO_FEATURES, settings)
    before = hits(public_teacher(public, settings), ONE_ITEM_EACH)
    assert before < 0.8
    assert hits(refined, ONE_ITEM_EACH) > 0.9


@pytest.mark.parametrize("num_items", [4, 12, 40])
def test_a_small_catalogue_has_few_tastes(num_items) -> None:
    """As many as asked for would overshoot, in each round by more."""
    settings = config(**{"privacy.mode": "off", "statistics.rank": 32})
    census = FakeCensus(users(1500, 1)[:, :num_items], settings)
    public = public_of(users(6, 2)[:, :num_items])
    features = np.zeros((num_items, 0), np.float32)
    refined = refine(census, public, features, settings)
    assert np.abs(refined.inputs @ refined.outputs.T).max() < 2.0


def test_many_clients_are_noisier_than_one() -> None:
    """Of the same users: each client's noise is as large as one's alone."""
    settings = config(**{"statistics.noise-multiplier": 6.0})
    public = public_of(np.zeros((0, NUM_ITEMS)))
    values = [
        hits(
            refine(
                FakeCensus(users(600, 1), settings, num_clients=many),
                public,
                NO_FEATURES,
                settings,
            ),
            ONE_ITEM_EACH,
        )
        for many in (1, 100)
    ]
    assert values[0] > values[1] + 0.2


def test_noise_alone_does_not_unteach_what_is_public() -> None:
    settings = config(**{"statistics.noise-multiplier": 200.0})
    public = public_of(users(200, 2))
    census = FakeCensus(np.zeros((1, NUM_ITEMS)), settings)
    refined = refine(census, public, NO_FEATURES, settings)
    assert hits(public_teacher(public, settings), ONE_ITEM_EACH) > 0.95
    assert hits(refined, ONE_ITEM_EACH) > 0.6


def test_without_public_users_there_is_still_a_teacher() -> None:
    settings = config()
    for rows in (np.zeros((0, NUM_ITEMS)), np.zeros((5, NUM_ITEMS))):
        census = FakeCensus(users(1500, 1), settings)
        refined = refine(census, public_of(rows), NO_FEATURES, settings)
        assert np.isfinite(refined.inputs).all()
        assert hits(refined, ONE_ITEM_EACH) > 0.95


def test_where_no_user_has_a_pair_there_is_still_a_teacher() -> None:
    settings = config(**{"privacy.mode": "off"})
    census = FakeCensus(np.eye(NUM_ITEMS), settings)
    refined = refine(census, public_of(users(200, 2)), NO_FEATURES, settings)
    assert hits(refined, ONE_ITEM_EACH) > 0.95


def test_items_beyond_the_most_keep_what_is_public_of_them() -> None:
    settings = config(**{"statistics.most-items": 20, "privacy.mode": "off"})
    rows = users(200, 2)
    # The first two clusters' items are the most popular: the others stay out.
    rows[:, :20] = np.maximum(rows[:, :20], users(200, 3)[:, :20])
    public, census = public_of(rows), FakeCensus(users(1500, 1), settings)
    refined = refine(census, public, NO_FEATURES, settings)
    assert census.chosen is not None
    assert census.chosen.sum() == 20
    left_out = ~census.chosen
    alone = public_teacher(public, settings)
    weights, publicly = (
        (each.inputs @ each.outputs.T)[np.ix_(left_out, left_out)]
        for each in (refined, alone)
    )
    np.fill_diagonal(weights, 0)
    np.fill_diagonal(publicly, 0)
    assert publicly.any()
    assert np.corrcoef(weights.ravel(), publicly.ravel())[0, 1] > 0.9


def test_an_item_that_nobody_may_tell_of_is_like_no_other() -> None:
    """Left out of the question and of public rows: no score but zero."""
    settings = config(**{"statistics.most-items": 30})
    rows = users(100, 2)
    rows[:, 30:] = 0
    census = FakeCensus(users(500, 1), settings)
    refined = refine(census, public_of(rows), NO_FEATURES, settings)
    scores = refined.score(sp.csr_matrix(np.eye(NUM_ITEMS, dtype=np.float32)))
    assert np.abs(scores[:, 30:]).max() < 1e-6
    assert np.abs(scores[30:]).max() < 1e-6


def test_public_tastes_make_the_users_weighted_pairs() -> None:
    """Users of three, two and one items, each pair weighing root 2 over the length."""
    rows = np.array(
        [[1, 1, 1, 0, 0], [0, 0, 1, 1, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 1]]
    )
    expected = sum(
        2**0.5 / row.sum() * np.outer(row, row) for row in rows.astype(float)
    )
    found = public_tastes(sp.csr_matrix(rows))
    values, vectors = np.linalg.eigh(expected)
    best = (vectors[:, -3:] * values[-3:]) @ vectors[:, -3:].T
    np.testing.assert_allclose(found @ found.T, best, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 6), (1, 6), (4, 6)])
def test_public_rows_of_nothing_give_no_tastes(shape) -> None:
    found = public_tastes(sp.csr_matrix(shape, dtype=np.float32))
    assert found.shape[0] == 6
    assert not found.any()


def test_the_same_answers_make_the_same_teacher() -> None:
    settings = config()
    first, second = (
        refine(
            FakeCensus(users(300, 1), settings),
            public_of(users(20, 2)),
            NO_FEATURES,
            settings,
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.inputs, second.inputs)
    np.testing.assert_array_equal(first.outputs, second.outputs)


@pytest.mark.parametrize("value", [1e200, 1e38, np.nan, np.inf])
@pytest.mark.parametrize("asked", ["pairs", "sketch"])
def test_answers_that_make_no_teacher_are_said_and_do_not_end_in_numpy(
    value, asked, monkeypatch
) -> None:
    settings = config()
    census = FakeCensus(users(300, 1), settings)
    honest = getattr(census, asked)

    def answer(*question):
        found = honest(*question)
        arrays = tuple(np.full_like(array, value) for array in found.arrays)
        return Summed(arrays, 1)

    monkeypatch.setattr(census, asked, answer)
    with pytest.raises(RefinementFailed, match="public teacher stays"):
        refine(census, public_of(users(20, 2)), NO_FEATURES, settings)
