"""Checks of conformance: their bounds, their own arithmetic, and which a run has."""

import math
from dataclasses import replace

import numpy as np
import pytest

from client.randomness import seeded_stream
from client.statistics import pair_sums, sketch_sum
from common import wire
from common.config import parse, to_flat
from simulations.audits.audit import ATTACKS
from simulations.audits.conformance import checks, exact
from simulations.audits.conformance.bench import Bench
from simulations.audits.conformance.checks import observe, run_checks
from simulations.audits.conformance.observed import (
    Observed,
    deviation_bounds,
    drawn_bounds,
    exactly,
    judged,
    normal_bounds,
    scaled,
    share_bounds,
)
from simulations.audits.conformance.sampling import figures
from simulations.audits.conformance.streams import strongest
from simulations.audits.records import refuted
from simulations.audits.settings import AuditSettings


def seen(measured, bounds, **more):
    values = {"check": "noise", "assumption": "A.", "measure": "m", "expected": 1.0}
    return Observed(**values, measured=measured, bounds=bounds, detail="D.", **more)


def test_bounds_are_exact():
    low, high = deviation_bounds(1)(0.1)
    # One normal number: its size, between the quantiles of chi-squared with 1 degree.
    assert (low, high) == pytest.approx((0.0627, 1.9600), abs=1e-4)
    assert share_bounds(10, 0.5)(0.05) == (0.2, 0.8)
    assert normal_bounds()(0.05) == pytest.approx((-1.96, 1.96), abs=1e-3)
    assert scaled(normal_bounds(), 2.0, 1.0)(0.05)[1] == pytest.approx(4.92, abs=1e-3)
    drawn = drawn_bounds(lambda: np.linspace(0, 1, 1001))(0.1)
    assert drawn == pytest.approx((0.05, 0.95), abs=0.01)
    assert exactly(3.0)(0.5) == (3.0, 3.0)


def test_all_of_chance_share_one_alpha():
    one = seen(0.0, normal_bounds())
    (alone,) = judged([one], 0.95)
    together = judged([one] * 4 + [seen(0.0, exactly(0.0), chance=False)], 0.95)
    assert alone.high == pytest.approx(1.960, abs=1e-3)
    # 1 − 0.05 / 8 of the normal distribution; an exact check takes no share.
    assert together[0].high == pytest.approx(2.498, abs=1e-3)
    assert together[-1].high == 0.0


@pytest.mark.parametrize(
    ("measured", "refuting", "finding", "refutes"),
    [
        (1.0, "both", "holds", False),
        (0.4, "both", "deviates", True),
        (0.4, "above", "deviates", False),
        (2.1, "above", "deviates", True),
        (2.1, "below", "deviates", False),
        (math.inf, "above", "deviates", True),
        (math.nan, "below", "deviates", True),
        (None, "both", "unknown", False),
    ],
)
def test_a_deviation_refutes_on_the_side_that_breaks_the_promise(
    measured, refuting, finding, refutes
):
    (record,) = judged([seen(measured, exactly(0.5, 2.0), refuting=refuting)], 0.95)
    assert (record.finding, record.refutes) == (finding, refutes)
    assert refuted(record) is refutes
    assert record.source == "rerun" and record.low == 0.5


def test_exact_sums_are_those_of_the_client_where_it_adds_no_noise():
    rows = [[0, 1, 4], [2], [], [5, 1], [0, 1, 2, 3, 4, 5]]
    chosen = np.array([True, True, False, True, True, True])
    matrix = np.zeros((5, 6), dtype=np.float32)
    for user, items in enumerate(rows):
        matrix[user, items] = 1.0
    from scipy.sparse import csr_matrix

    own = exact.pair_sums(rows, chosen, 0.3)
    found = pair_sums(csr_matrix(matrix), chosen, 0.3, 0.0, seeded_stream(0))
    np.testing.assert_allclose(own["counts"], found.counts, rtol=1e-6)
    np.testing.assert_allclose(own["pairs"], found.pairs, rtol=1e-6)
    directions = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    found = sketch_sum(csr_matrix(matrix), chosen, directions, 0.0, seeded_stream(0))
    own = exact.sketch_sum(rows, chosen, directions)
    np.testing.assert_allclose(own["sketch"], found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lag", [0, 7, -30])
def test_shared_noise_is_found_at_whatever_offset(lag):
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=400), rng.normal(size=300)
    other[max(0, -lag) : 200] = one[max(0, lag) : 200 + lag]
    found = strongest(one, other)
    assert found.correlation > 0.5 and found.p_value * found.lags < 1e-6
    alone = strongest(rng.normal(size=400), rng.normal(size=300))
    assert alone.p_value * alone.lags > 1e-3


def test_correlations_of_independent_noise_are_as_rare_as_said():
    rng = np.random.default_rng(2)
    draws = [strongest(rng.normal(size=60), rng.normal(size=40)) for _ in range(400)]
    alarms = sum(each.p_value * each.lags * 2 < 0.1 for each in draws)
    # Correlations at neighbouring lags depend on each other: fewer alarms than 10 %.
    assert 2 <= alarms <= 55


def test_alarms_about_honest_sampling_are_as_rare_as_said():
    rng, alarms = np.random.default_rng(3), 0
    for _ in range(60):
        counts = rng.binomial(2, 0.3, size=(32, 47))
        records = judged(list(figures(counts, 2, 0.3)), 0.9)
        alarms += any(each.finding == "deviates" for each in records)
    assert alarms <= 14  # 10 % of 60, with 99.9 % of the binomial above


@pytest.mark.parametrize(
    "users",
    [
        lambda rng: np.sort(rng.permuted(np.arange(40) < 20)),
        lambda rng: rng.random(40) < (0.2 if rng.random() < 0.5 else 0.8),
    ],
    ids=["fixed size", "in together"],
)
def test_samples_that_are_not_independent_are_found(users):
    rng = np.random.default_rng(4)
    counts = np.stack([users(rng).astype(np.int64) for _ in range(32)])
    records = judged(list(figures(counts, 1, 0.5)), 0.999)
    assert any(refuted(each) for each in records)


def test_a_run_has_only_the_checks_of_its_configuration(sums):
    assert observe(sums, 1, names=("sampling",)) == []
    bare = to_flat(sums.config) | {"privacy.mode": "off"}
    off = replace(sums, config=parse(bare))
    for name in ("noise", "clip", "streams"):
        assert observe(off, 1, names=(name,)) == []
    found = judged(observe(off, 1, names=("ledger", "channels", "constants")), 0.95)
    assert {each.finding for each in found} == {"holds"}


def test_of_a_sum_the_report_says_what_was_not_seen(devices, tmp_path, monkeypatch):
    assert checks.checks_of(devices) is checks.SUM_CHECKS
    only = {"mask-seeds": checks.SUM_CHECKS["mask-seeds"]}
    monkeypatch.setattr(checks, "SUM_CHECKS", only)
    *found, unseen = run_checks(devices, AuditSettings(), tmp_path, lambda text: None)
    assert {(each.check, each.finding) for each in found} == {("mask-seeds", "holds")}
    assert (unseen.check, unseen.finding) == ("conformance", "unknown")
    assert not unseen.refutes


def test_checks_are_an_attack_of_an_audit():
    assert ATTACKS["checks"] is run_checks


def test_a_bench_asks_what_the_run_asks(sums, tmp_path):
    bench = Bench(sums, tmp_path, 5)
    assert bench.kinds == (wire.STATISTICS, wire.SKETCH)
    assert bench.nonce() != bench.nonce()
    one = bench.client(bench.real[:3])
    answer = bench.ask(one, wire.STATISTICS)
    assert answer.error is None and len(answer.receipt) == 64
    again = Bench(sums, tmp_path / "again", 5)
    assert again.nonce() == Bench(sums, tmp_path / "third", 5).nonce()
    table = bench.table([[0, 0], [], [2]], last_value=7.0)
    assert table["value"].to_list() == [1.0, 1.0, 7.0]
    assert table["user"].n_unique() == 2
