"""Canaries: what they are made of, and that they enter as rows and nothing else."""

import json

import numpy as np
import pytest

from common.folders import INTERACTIONS
from common.interactions import read_table
from simulations.audits.canaries import (
    DESIGNS,
    RARE_ITEMS,
    insert,
    toss,
    write_truth,
)
from simulations.audits.world import write_clients


def made(world, name, count=40, seed=0):
    return DESIGNS[name](world, count, np.random.default_rng(seed))


@pytest.mark.parametrize("name", DESIGNS)
def test_every_design_makes_canaries_that_differ_by_their_coin(sums, name):
    canaries = made(sums, name)
    assert len(canaries) == 40 == len(canaries.users) == len(set(canaries.users))
    differs = (canaries.present - canaries.absent).getnnz(axis=1)
    assert (differs > 0).all()
    assert set(canaries.client.tolist()) == {0, 1}


def test_random_users_are_of_the_length_of_somebody(sums):
    lengths = {int(n) for c in sums.clients for n in np.diff(c.histories.indptr)}
    found = np.diff(made(sums, "random").present.indptr)
    assert set(found.tolist()) <= lengths


def test_rare_users_have_rare_items_alone(sums):
    counts = sum(np.asarray(c.histories.sum(axis=0)).ravel() for c in sums.clients)
    rare = np.argsort(counts, kind="stable")[: sums.num_items // 4]
    present = made(sums, "rare-item").present
    assert set(np.diff(present.indptr).tolist()) == {RARE_ITEMS}
    assert np.isin(present.indices, rare).all()


def test_dirac_users_of_a_client_share_no_item_while_there_are_enough(sums):
    canaries = made(sums, "dirac", 20)
    for client in range(2):
        touched = canaries.present[canaries.at(client)].indices
        assert len(touched) == len(set(touched.tolist()))
    # In sums one item is in no pair: two say the most.
    assert set(np.diff(canaries.present.indptr).tolist()) == {2}


def test_an_interaction_is_one_more_item_of_a_real_user(sums):
    canaries = made(sums, "interaction")
    assert canaries.unit == "interaction"
    more = canaries.present.toarray() - canaries.absent.toarray()
    assert (more.sum(axis=1) == 1).all() and more.min() == 0
    real = {user for client in sums.clients for user in client.users}
    assert set(canaries.users) <= real


def test_interactions_are_at_most_one_a_user(sums):
    total = sum(len(client.users) for client in sums.clients)
    assert len(made(sums, "interaction", 10_000)) == total


def test_the_coin_is_fair_and_repeats_by_its_seed_alone(sums):
    canaries = made(sums, "random", 1000)
    tossed = toss(canaries, np.random.default_rng(3))
    assert 430 < tossed.sum() < 570
    assert (tossed == toss(canaries, np.random.default_rng(3))).all()
    assert (toss(canaries, np.random.default_rng()) != tossed).any()


@pytest.mark.parametrize("name", ["rare-item", "interaction"])
def test_only_included_canaries_are_rows_of_their_clients(sums, tmp_path, name):
    canaries = made(sums, name)
    included = toss(canaries, np.random.default_rng(1))
    clients, known = insert(sums, canaries, included)
    folders = write_clients(sums, clients, tmp_path / "federation", None)
    for place, client in enumerate(sums.clients):
        table = read_table(folders / client.name / INTERACTIONS)
        rows = set(table.select("user", "item").iter_rows())
        expected = canaries.present.multiply(included[:, None]) + (
            canaries.absent.multiply(~included[:, None])
        )
        expected = expected.tocsr()
        for index in canaries.at(place):
            user = canaries.users[index]
            items = {sums.catalogue.items.ids[i] for i in expected[index].indices}
            assert {item for u, item in rows if u == user} == items
        # Everybody else is as before.
        others = set(client.users) - set(canaries.users)
        assert others <= {user for user, _ in rows}
        assert known[place].shape[0] == len(others)


def test_truth_is_written_for_the_auditor(sums, tmp_path):
    canaries = made(sums, "dirac", 6)
    included = np.array([True, False] * 3)
    write_truth(tmp_path / "truth.jsonl", sums, canaries, included)
    lines = [json.loads(line) for line in (tmp_path / "truth.jsonl").open()]
    assert [line["included"] for line in lines] == included.tolist()
    assert all(len(line["items"]) == 2 for line in lines)
    assert (tmp_path / "truth.jsonl").stat().st_mode & 0o077 == 0
