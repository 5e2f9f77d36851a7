"""Baselines: worked by hand, deterministic, better than chance; FedMF's clip."""

import builtins
import math
from statistics import NormalDist

import numpy as np
import pytest
import scipy.sparse as sp

from common.accounting import epsilon
from common.config import defaults, parse
from common.errors import ConfigError
from common.interactions import encode_table
from common.metrics import evaluate_ranking
from simulations.baselines import (
    BASELINES,
    _folded,
    fedmf,
    ials,
    item_knn,
    popularity,
    puresvd,
    scorer_of,
    tune,
)
from simulations.baselines.fedmf import FedMF
from simulations.baselines.rows import comparison_scorers
from simulations.evaluation import private_rows, public_rows, rank, read_heldout
from simulations.experiment import prepare
from simulations.synthetic import generate


def csr(rows):
    return sp.csr_matrix(np.array(rows, dtype=np.float32))


@pytest.fixture(scope="module")
def rows():
    """300 users of four tastes: training rows, and others shown and held."""
    table, catalogue, _ = generate(num_users=400, num_items=120, seed=1)
    matrix = encode_table(table, catalogue.items).interactions.matrix()
    return matrix[:300], *_folded(matrix[300:], np.random.default_rng(0))


def ndcg(model, shown, held):
    found = evaluate_ranking(
        scorer_of(model, shown), shown, held, batch_size=64, metrics=["ndcg@10"]
    )
    return float(np.nanmean(found["ndcg@10"]))


# ---------------------------------------------------------------- by hand
def test_popularity_counts_users():
    model = popularity.fit(csr([[1, 0, 1], [0, 0, 1]]))

    assert model(csr([[0, 1, 0]])).tolist() == [[1, 0, 2]]


def test_item_knn_worked_example():
    # Items 0 and 1 share two users, 0 and 2 one; counts are 3, 2, 1.
    train = csr([[1, 1, 0], [1, 1, 0], [1, 0, 1]])
    settings = item_knn.ItemKnn(neighbours=1, shrinkage=1.0)

    found = item_knn.similarities(train, settings).toarray()

    near = 2 / (np.sqrt(6) + 1)
    far = 1 / (np.sqrt(3) + 1)
    # Column j holds the one neighbour of j.
    assert found == pytest.approx(np.array([[0, near, far], [near, 0, 0], [0, 0, 0]]))
    scores = item_knn.fit(train, settings)(csr([[1, 0, 0]]))
    assert scores == pytest.approx(np.array([[0, near, far]]))


def test_puresvd_projects_onto_the_leading_direction():
    train = csr([[1, 1, 0], [1, 1, 0], [0, 0, 1]])

    scores = puresvd.fit(train, puresvd.PureSVD(factors=1))(csr([[1, 0, 0]]))

    assert scores == pytest.approx(np.array([[0.5, 0.5, 0]]), abs=1e-6)


# ---------------------------------------------------------------- all of them
#: For 300 users and 120 items; the grids are for real sets.
SMALL = {
    "popularity": None,
    "puresvd": puresvd.PureSVD(8),
    "item_knn": item_knn.ItemKnn(20, 10.0),
    "ials": ials.Ials(8, 10.0, 4.0),
}


@pytest.mark.parametrize("name", BASELINES)
def test_fits_are_repeatable_and_beat_popularity(name, rows):
    train, shown, held = rows
    if name == "ials":
        pytest.importorskip("implicit")

    model = BASELINES[name].fit(train, SMALL[name])
    again = BASELINES[name].fit(train, SMALL[name])

    assert model(shown).dtype == np.float32
    assert np.array_equal(model(shown), again(shown))
    floor = ndcg(popularity.fit(train), shown, held)
    assert name == "popularity" or ndcg(model, shown, held) > 1.1 * floor


def test_tuning_finds_the_better_settings(rows):
    train, *_ = rows
    good, bad = puresvd.PureSVD(4), puresvd.PureSVD(100)

    assert tune(puresvd.fit, (bad, good), train, seed=0) == good
    assert tune(puresvd.fit, (bad,), train, seed=0) == bad


def test_without_implicit_the_extra_is_named(monkeypatch):
    whole = builtins.__import__

    def without(name, *rest):
        if name.startswith("implicit"):
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(ConfigError, match=r"tutela\[benchmark\]"):
        ials.fit(csr([[1, 0]]), ials.Ials())


# ---------------------------------------------------------------- FedMF
SETTINGS = FedMF(dim=3, max_grad_norm=0.1)


def factors(num_items=20, seed=0):
    return np.random.default_rng(seed).normal(size=(num_items, SETTINGS.dim))


def histories(num_users=8, num_items=20, seed=0):
    rng = np.random.default_rng(seed)
    return csr(rng.random((num_users, num_items)) < 0.3)


def test_user_factors_solve_the_weighted_least_squares():
    items, history = factors(), histories()

    found = fedmf.user_factors(history, items, SETTINGS)

    for row, factor in zip(history.toarray(), found, strict=True):
        weight = 1 + SETTINGS.confidence * row
        slope = items.T @ (weight * (items @ factor - row)) + SETTINGS.l2 * factor
        assert slope == pytest.approx(np.zeros(3), abs=1e-9)


def test_clipped_sum_equals_clipping_each_gradient():
    items, history = factors(), histories()
    users = fedmf.user_factors(history, items, SETTINGS)
    wanted = np.zeros_like(items)
    for row, user in zip(history.toarray(), users, strict=True):
        errors = (1 + SETTINGS.confidence * row) * (items @ user - row)
        gradient = np.outer(errors, user)
        wanted += gradient * min(1.0, 0.1 / np.linalg.norm(gradient))

    assert fedmf.clipped_sum(history, items, SETTINGS) == pytest.approx(wanted)


@pytest.mark.parametrize("taken", [0, 1, 20])
def test_no_user_adds_more_than_the_clip(taken):
    items, others = 1e3 * factors(), histories()
    user = csr([[1.0] * taken + [0.0] * (20 - taken)])

    with_user = fedmf.clipped_sum(sp.vstack([others, user]).tocsr(), items, SETTINGS)
    without = fedmf.clipped_sum(others, items, SETTINGS)

    assert np.linalg.norm(with_user - without) <= 0.1 * (1 + 1e-9)


def test_a_run_costs_what_its_rounds_cost_together():
    # 25 Gaussian rounds of noise 10 are one of noise 2, on which this δ is exact.
    spent = epsilon([fedmf.event_of(FedMF(rounds=25), 10.0)], 1e-5)
    tail = NormalDist().cdf

    delta = tail(-2 * spent + 0.25) - math.exp(spent) * tail(-2 * spent - 0.25)
    assert delta == pytest.approx(1e-5, rel=1e-2)


def test_a_public_start_has_the_size_of_a_random_one_and_zeros_for_the_unseen():
    public = csr([[1, 1, 0, 1, 0], [1, 1, 0, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 0]])
    settings = FedMF(dim=2, scale=0.3)

    start = fedmf.public_start(public, settings)

    assert start.T @ start == pytest.approx(5 * 0.3**2 * np.eye(2), abs=1e-5)
    assert start[[2, 4]] == pytest.approx(np.zeros((2, 2)), abs=1e-6)


def test_every_number_gets_noise_of_its_own():
    total = np.full((4000, 3), 7.0)

    noise = fedmf.noised(total, 0.2, np.random.default_rng(0)) - total

    assert noise.std() == pytest.approx(0.2, rel=0.03)
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.06
    assert len(np.unique(noise)) == noise.size


def test_a_run_adds_noise_of_multiplier_times_clip_once_a_round(monkeypatch):
    deviations = []
    whole = fedmf.noised

    def noised(total, deviation, rng):
        deviations.append(deviation)
        return whole(total, deviation, rng)

    monkeypatch.setattr(fedmf, "noised", noised)
    settings = FedMF(dim=3, rounds=4, max_grad_norm=0.5)
    for num_clients in (1, 4):
        fedmf.fit(
            histories(), settings, noise_multiplier=3.0, declared_users=8, seed=0,
            num_clients=num_clients,
        )  # fmt: skip

    # Four clients' own noises are together twice one.
    assert deviations == [1.5] * 4 + [3.0] * fedmf.event_of(settings, 3.0).steps


def test_fedmf_learns_without_noise_and_less_with(rows):
    train, shown, held = rows
    settings = FedMF(dim=4, rounds=30, learning_rate=0.03, max_grad_norm=10.0)

    def value(noise, seed=1):
        model = fedmf.fit(
            train, settings, noise_multiplier=noise, declared_users=300, seed=seed
        )
        return ndcg(model, shown, held)

    floor = ndcg(popularity.fit(train), shown, held)
    assert value(0.0) > 1.1 * floor
    assert value(1000.0) < value(0.0)


def test_the_number_of_users_enters_no_constant(rows):
    train, *_ = rows
    start = factors(train.shape[1]).astype(np.float32)
    settings = FedMF(dim=3, rounds=1, learning_rate=1.0)
    nobody = csr(np.zeros((1, train.shape[1])))

    def trained(matrix):
        model = fedmf.fit(
            matrix, settings, noise_multiplier=1.0, declared_users=300, seed=3,
            start=start,
        )  # fmt: skip
        return model(train[:5])

    assert np.array_equal(trained(nobody), trained(sp.vstack([nobody] * 3).tocsr()))


# ---------------------------------------------------------------- rows of a run
def test_rows_of_an_experiment_rank_its_held_out_users(tmp_path):
    pytest.importorskip("implicit")
    data = "synthetic:num_users=120,num_items=60"
    config = parse(
        defaults()
        | {"data.public": data, "data.private": data, "partition.heldout-users": 20}
        | {"partition.public-users": 30, "privacy.declared-users": 18}
    )
    prepare(config, tmp_path)
    heldout = read_heldout(tmp_path)

    found = comparison_scorers(tmp_path, heldout, config, math.inf)

    assert set(found) == {
        "puresvd_nonprivate", "item_knn_nonprivate", "ials_nonprivate", "fedmf",
    }  # fmt: skip
    for scorer in found.values():
        values = rank(scorer, heldout, config.evaluation)
        assert np.nanmean(values["ndcg@10"]) > 0.1
        assert values["diversity@10"].shape == (20,)


def test_private_rows_are_all_clients_users(tmp_path):
    data = "synthetic:num_users=120,num_items=60,interactions_per_user=7"
    config = parse(
        defaults()
        | {"data.public": data, "data.private": data, "partition.heldout-users": 20}
        | {"partition.public-users": 30, "partition.validation-users": 8}
    )
    prepare(config, tmp_path)
    heldout = read_heldout(tmp_path)

    private = private_rows(tmp_path, heldout.catalogue)
    public = public_rows(tmp_path, heldout.catalogue)

    assert (private.shape, private.nnz) == ((70, 60), 490)
    assert (public.shape, public.nnz) == ((22, 60), 154)
    assert heldout.facts.popularity.sum() == 154
    assert len(heldout.users) == heldout.num_users == 20
