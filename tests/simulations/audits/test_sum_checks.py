"""The audit's own secure sums: how many clients, who falls silent, what is unknown."""

from dataclasses import replace

import numpy as np
import pytest

from common.config import parse, to_flat
from simulations.audits.conformance import sums
from simulations.audits.conformance.bench import Bench
from simulations.audits.conformance.observed import judged
from simulations.audits.conformance.summing import (
    Shares,
    learn,
    shares_of,
    summing_clients,
)
from simulations.audits.conformance.sums import check_sum_noise, promised_event


def varied(world, **overrides):
    return replace(world, config=parse(to_flat(world.config) | overrides))


def test_as_few_clients_as_stand_for_the_run_s(devices, tmp_path):
    assert shares_of(Bench(devices, tmp_path, 0)) == Shares(8, 6, 1)
    # Of eight, two lists of five could meet in the two that may be corrupt.
    thin = {"secagg.threshold": 0.61, "secagg.corrupt": 0.2}
    assert shares_of(Bench(varied(devices, **thin), tmp_path, 0)) == Shares(9, 6, 2)
    few = {"secagg.clients": 5, "secagg.corrupt": 0.0}
    assert shares_of(Bench(varied(devices, **few), tmp_path, 0)) == Shares(5, 4, 0)


def test_a_sum_is_what_survivors_put_in_or_none(devices, tmp_path):
    bench = Bench(devices, tmp_path, 5)
    clients = summing_clients(bench, [], 5, training__rounds=4)
    everybody = learn(bench, clients, 1)
    assert sorted(everybody.survivors) == list(range(8))
    assert len(everybody.adverts) == len(everybody.seeds) == 8
    assert len(set(everybody.seeds)) == 8
    some = learn(bench, clients, 2, silent=2)
    assert sorted(some.survivors) == list(range(6))
    event = promised_event(bench)
    share = (event.noise_multiplier * event.l2_sensitivity) ** 2 / 5
    for learnt, count in ((everybody, 8), (some, 6)):
        assert learnt.values.var() == pytest.approx(share * count, rel=0.4)
    # One more, and the round is discarded; so is one that was made before.
    for none in (learn(bench, clients, 3, silent=3), learn(bench, clients, 1)):
        assert none.survivors == () and none.values.size == 0


def test_where_clients_make_no_sum_nothing_is_claimed(devices, tmp_path, monkeypatch):
    bench = Bench(devices, tmp_path, 5)
    clients = summing_clients(bench, [], 5)
    nothing = learn(bench, clients, silent=len(clients))
    monkeypatch.setattr(sums, "learn", lambda *rest, **more: nothing)
    found = judged(check_sum_noise(bench), 0.95)
    assert [each.finding for each in found] == ["unknown"] * 3
    assert not any(each.refutes for each in found)
    clip = judged(sums.check_sum_clip(bench), 0.95)
    assert [each.finding for each in clip] == ["unknown"] * 2


@pytest.mark.slow
def test_what_heavy_clients_add_are_integers_within_the_norm(devices, tmp_path):
    bench = Bench(devices, tmp_path, 5)
    added = dict(sums._added(bench))
    event = promised_event(bench)
    assert "one item" in added and "every item" in added
    for vector in added.values():
        assert vector.dtype == np.int64
        assert np.linalg.norm(vector) <= event.l2_sensitivity
    # Clipped, not small: the clip is what holds it.
    assert np.linalg.norm(added["every item"]) > 0.9 * event.l2_sensitivity
