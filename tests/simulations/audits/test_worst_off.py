"""Who is recognised most: by hand, without bias by chance, and with nobody named."""

import doctest
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import simulations.audits.worst_off as module
from simulations.audits.membership import Trials
from simulations.audits.people import activity, known_attributes, properties, taste
from simulations.audits.world import World
from simulations.audits.worst_off import FPR, UserSuccess, share_interval, worst_off

RUNS = 16


def trials(scores, member) -> dict:
    empty = np.zeros((len(scores), 0))
    return {("public", "final student"): Trials(scores, member, empty)}


@pytest.fixture
def coins(sums: World):
    """Who was in, ``[runs, users]``: as shadow models toss it."""
    users = sum(len(client.users) for client in sums.clients)
    return np.random.default_rng(1).random((RUNS, users)) < 0.5


def test_doctests():
    assert doctest.testmod(module).failed == 0


def test_a_users_own_auc_by_hand():
    member = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 1]], dtype=bool)
    scores = np.array([[5.0, 1, 9], [2, 2, 9], [3, 1, 9], [1, 2, 0]])
    found = UserSuccess(scores, member).values()
    # First: 5 > 3, 5 > 1, 2 > 1, 2 < 3. Second: pairs 1-2, 1=1, 2=2, 2>1.
    np.testing.assert_allclose(found.auc, [3 / 4, (0 + 0.5 + 0.5 + 1) / 4, 0.0])


def test_a_user_never_in_or_never_out_is_not_known():
    member = np.array([[True, False], [True, False]])
    found = UserSuccess(np.ones((2, 2)), member).values()
    assert np.isnan(found.auc).all() and not found.known.any()


def test_found_and_alarms_are_at_one_threshold_for_everybody():
    rng = np.random.default_rng(0)
    member = rng.random((20, 500)) < 0.5
    scores = rng.normal(size=member.shape) + 4 * member
    found = UserSuccess(scores, member).values()
    assert np.average(found.alarms, weights=(~member).sum(axis=0)) <= FPR
    said = np.average(found.found, weights=member.sum(axis=0))
    # Φ(4 − 2.33): what a threshold at 1 % of standard normals finds four above.
    assert said == pytest.approx(0.953, abs=0.02)


def test_chance_alone_makes_nobody_worst_off(sums, coins):
    """Chosen and measured in the same runs, the most recognised would look bad."""
    scores = np.random.default_rng(2).normal(size=coins.shape)
    (record,) = worst_off(world_of(sums, least=1), trials(scores, coins), 0.95)
    same = np.sort(UserSuccess(scores, coins).values().auc)
    assert same[-len(same) // 10 :].mean() > 0.65
    assert record.deciles[-1].auc_low < 0.5 < record.deciles[-1].auc_high + 0.05
    assert abs(record.deciles[-1].auc - 0.5) < 0.1


def test_users_who_are_given_away_again_and_again_are_the_last_tenth(sums, coins):
    scores = np.random.default_rng(3).normal(size=coins.shape)
    weak = np.arange(coins.shape[1]) % 10 == 0
    scores += 6.0 * (coins & weak)
    (record,) = worst_off(world_of(sums, least=1), trials(scores, coins), 0.95)
    assert record.deciles[-1].auc > 0.85
    assert record.deciles[-1].found > 0.7
    assert all(each.auc < 0.7 for each in record.deciles[:8])
    assert record.everybody.auc < 0.65


def test_users_who_are_suspected_more_have_more_false_alarms():
    """Their scores are higher whether or not they are in."""
    rng = np.random.default_rng(4)
    coins, suspected = rng.random((RUNS, 400)) < 0.5, np.arange(400) < 200
    scores = rng.normal(size=coins.shape) + 3.0 * suspected
    found = UserSuccess(scores, coins).values()
    for each in (found.found, found.alarms):
        assert np.nanmean(each[suspected]) > 10 * np.nanmean(each[~suspected])
    assert abs(np.nanmean(found.auc[suspected]) - 0.5) < 0.03


def test_the_strongest_attack_of_a_viewpoint_is_looked_at(sums, coins):
    rng = np.random.default_rng(5)
    noise, leaking = rng.normal(size=coins.shape), rng.normal(size=coins.shape)
    leaking += 2.0 * coins
    made = trials(noise, coins) | {
        ("public", "students"): Trials(leaking, coins, np.zeros((RUNS, 0))),
        ("server-local", "answers"): Trials(noise, coins, np.zeros((RUNS, 0))),
    }
    found = worst_off(sums, made, 0.95)
    assert [(e.viewpoint, e.released) for e in found] == [
        ("public", "students"),
        ("server-local", "answers"),
    ]


def test_groups_of_too_few_are_suppressed(sums, coins):
    scores = np.random.default_rng(6).normal(size=coins.shape)
    (record,) = worst_off(world_of(sums, least=30), trials(scores, coins), 0.95)
    assert record.deciles == ()
    shown = [group for table in record.tables for group in table.groups]
    assert all(group.num_users >= 30 for group in shown)
    (quarters,) = [table for table in record.tables if table.by == "taste"]
    assert quarters.groups == () and len(quarters.suppressed) == 4


def test_nobody_is_named(sums, coins):
    scores = np.random.default_rng(7).normal(size=coins.shape)
    (record,) = worst_off(world_of(sums, least=1), trials(scores, coins), 0.95)
    text = record.model_dump_json()
    users = [user for client in sums.clients for user in client.users]
    assert users and not any(user in text for user in users)


def world_of(world: World, least: int) -> World:
    few = world.config.evaluation.model_copy(update={"min_group_users": least})
    return replace(world, config=world.config.model_copy(update={"evaluation": few}))


def test_activity_is_named_by_quarters_in_their_order():
    counts = [1, 2, 3, 4, 5, 6, 7, 8]
    rows = sp.csr_matrix(np.arange(10) < np.asarray(counts)[:, None], dtype=np.float32)
    found = activity(rows)
    assert found.order == (
        "up to 3 items",
        "4 to 4 items",
        "5 to 6 items",
        "more than 6 items",
    )
    assert found.labels[0] == found.order[0] and found.labels[-1] == found.order[-1]


def test_everybody_as_active_is_in_one_group():
    found = activity(sp.csr_matrix(np.ones((6, 5), dtype=np.float32)))
    assert set(found.labels) == {"up to 5 items"}


def test_taste_is_by_the_popularity_of_a_users_items():
    rows = np.zeros((8, 8), dtype=np.float32)
    rows[:, 0] = 1.0  # known to all
    rows[6:, 0] = 0.0
    rows[6, 6] = rows[7, 7] = 1.0  # known to one
    found = taste(sp.csr_matrix(rows))
    assert set(found.labels[6:]) == {"most niche quarter"}
    assert "most niche quarter" not in found.labels[:6]


def test_attributes_are_joined_by_each_clients_own_key(sums):
    """The synthetic set knows a cluster of each of its users."""
    found = known_attributes(sums)
    users = sum(len(client.users) for client in sums.clients)
    assert len(found["cluster"].labels) == users
    assert "unknown" not in set(found["cluster"].labels)
    assert set(properties(sums)) == {"activity", "taste", "client", "cluster"}


def test_without_the_data_set_or_a_key_attributes_are_not_known(sums, tmp_path):
    assert known_attributes(replace(sums, run=tmp_path)) == {}
    data = sums.config.data.model_copy(update={"private": str(tmp_path / "gone")})
    other = sums.config.model_copy(update={"data": data})
    assert known_attributes(replace(sums, config=other)) == {}


@pytest.mark.parametrize("mean", [0.0, 0.01, 0.5, 1.0])
def test_the_interval_of_shares_covers_and_stays_within_bounds(mean):
    """Clopper–Pearson of whole counts is its special case."""
    from simulations.audits.bounds import clopper_pearson

    low, high = share_interval(mean, 200, 0.95)
    assert (low, high) == pytest.approx(clopper_pearson(int(mean * 200), 200, 0.95))
    assert 0 <= low <= mean <= high <= 1
