"""Canaries as many as the declared sizes allow: what is refused ends no audit."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from client.randomness import seeded_stream
from client.statistics import pair_sums
from common.config import parse, to_flat
from common.errors import ConfigError
from server.bounds import bounds_of
from simulations.audits.canaries import DESIGNS
from simulations.audits.capacity import fitted, room_for
from simulations.audits.one_run import audit_canaries
from simulations.audits.settings import AuditSettings


def made(world, name, count):
    return DESIGNS[name](world, count, np.random.default_rng(0))


def declaring(world, users, **more):
    flat = to_flat(world.config) | {"privacy.declared-users": users} | more
    return replace(world, config=parse(flat))


@pytest.mark.parametrize("name", ["random", "rare-item", "dirac"])
def test_as_many_fit_as_the_server_takes_and_no_more_than_twice(unprotected, name):
    canaries = made(unprotected, name, 1000)
    room = room_for(unprotected, canaries)
    assert 20 < room < 1000
    bounds, share = bounds_of(unprotected.config), 0.08
    chosen = np.ones(unprotected.num_items, dtype=np.bool_)

    def longest(count):
        """Norms of the largest client's sums with so many canaries, all of them in."""
        found = []
        for place, client in enumerate(unprotected.clients):
            theirs = canaries.at(place)
            rows = canaries.present[theirs[theirs < count]]
            both = sp.vstack([client.histories, rows], format="csr")
            sums = pair_sums(both, chosen, share, 0.0, seeded_stream(0))
            counts = np.linalg.norm(sums.counts) / np.sqrt(share)
            found.append(max(counts, np.linalg.norm(sums.pairs) / np.sqrt(1 - share)))
        return max(found)

    assert unprotected.config.statistics.counts_share == share
    assert longest(room) <= bounds.users < longest(2 * room)


def test_who_is_in_has_no_part_in_it(unprotected):
    canaries = made(unprotected, "rare-item", 300)
    room = room_for(unprotected, canaries)
    kept = fitted(unprotected, canaries)
    assert len(kept) == room < 300
    assert kept.users == canaries.users[:room]
    assert (kept.present != canaries.present[:room]).nnz == 0
    assert kept.client.tolist() == canaries.client[:room].tolist()


def test_more_declared_users_and_more_noise_leave_more_room(unprotected, sums):
    canaries = made(unprotected, "rare-item", 1000)
    rooms = [room_for(declaring(unprotected, n), canaries) for n in (45, 90, 10_000)]
    assert rooms == sorted(rooms) and rooms[-1] == 1000
    assert room_for(sums, made(sums, "rare-item", 1000)) > rooms[0]


@pytest.mark.slow
def test_without_sums_and_of_interactions_all_fit(unprotected, rounds):
    canaries = made(rounds, "rare-item", 500)
    assert room_for(declaring(rounds, 1), canaries) == 500
    rows = made(unprotected, "interaction", 500)
    assert room_for(declaring(unprotected, 1), rows) == len(rows)


def test_no_room_is_said_before_anything_runs(unprotected):
    with pytest.raises(ConfigError, match=r"declared-users.* got 3 declared"):
        fitted(declaring(unprotected, 3), made(unprotected, "dirac", 50))


@pytest.mark.slow
def test_a_thousand_canaries_are_cut_to_what_fits(unprotected, tmp_path):
    settings = AuditSettings(designs=("rare-item",), num_canaries=1000, workers=0)
    told: list[str] = []
    found = audit_canaries(unprotected, settings, tmp_path, told.append)
    assert len({each.num_canaries for each in found}) == 1
    assert 60 < found[0].num_canaries < 400
    assert any("there is room for" in text for text in told)
