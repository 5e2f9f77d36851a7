"""Robust means: small cases by hand, properties, and against Flower's own."""

import itertools

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, RecordDict
from flwr.common import Array
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common import wire
from common.config import defaults, parse
from common.errors import ConfigError, ProtocolError, RoundFailed
from common.sections import check_possible
from common.student import StudentSpec, random_state
from server.aggregation import combined, weighted_mean
from server.robust import (
    BY_NUMBER,
    BY_ROW,
    check_enough,
    fewest,
    item_rows,
    noise_spread,
    num_items,
    pair_rows,
    robust_mean,
    robust_mean_of_pairs,
    robust_update,
)
from tests.server.conftest import FakeGrid
from tests.server.test_strategy import NOBODY, START, federation, honest, nowhere
from tests.server.test_strategy_statistics import CHOSEN, DIRECTIONS, giving, sketching

NAMES = [*BY_NUMBER, *BY_ROW]
every = pytest.mark.parametrize("name", NAMES)
SPEC = StudentSpec(5, 2, 1.0, 0.0)


def chosen(name: str, malicious: float = 0.2, norm_bound: float = 2.0):
    flat = {
        "aggregation.robust": name,
        "aggregation.malicious": malicious,
        "aggregation.norm-bound": norm_bound,
    }
    return parse(defaults() | flat).aggregation


def update(seed: int, scale: float = 1.0):
    state = random_state(SPEC, torch.Generator().manual_seed(seed))
    return {name: (each + 0.01 * seed) * scale for name, each in state.items()}


def tables(*rows):
    return [np.float32(each) for each in rows]


# ------------------------------------------------------------ by hand
def test_the_trimmed_mean_leaves_out_one_of_five_on_either_side():
    found = robust_mean(
        tables([1.0, 9], [2, 8], [3, 7], [4, 1e30], [-1e30, 6]),
        chosen("trimmed-mean"),
    )
    np.testing.assert_array_equal(found, [2.0, 8.0])


@pytest.mark.parametrize(("last", "expected"), [([], 2.0), ([1e30], 2.5)])
def test_the_median_is_the_middle_or_the_mean_of_both(last, expected):
    values = [[3.0], [-1e30], [2.0], [2.0], [9.0], *([last] if last else [])]
    found = robust_mean(tables(*values), chosen("median"))
    assert found.tolist() == [expected]


def test_multi_krum_leaves_the_farthest_out_row_by_row():
    """Five clients, two items: one lies about the first item, one about the second."""
    clean = [[0.0, 0.0], [1.0, 1.0]]
    clients = [np.float64(clean) + k / 10 for k in range(3)]
    first, second = np.float64(clean), np.float64(clean)
    first[0], second[1] = [50.0, 0.0], [0.0, -50.0]
    found = robust_mean([*clients, first, second], chosen("multi-krum"))
    # Item 0 of clients 0, .1, .2 and 0 (the second liar's); likewise item 1.
    np.testing.assert_allclose(found, [[0.075, 0.075], [1.075, 1.075]])


def test_norms_are_bounded_row_by_row_and_not_as_a_whole():
    """The liar's whole is shorter than anybody's; its one row is ten times as long."""
    honest_table = np.full((100, 1), 1.0)
    liar = np.zeros((100, 1))
    liar[7] = 10.0
    clients = [*[honest_table] * 4, liar]
    assert np.linalg.norm(liar) <= np.linalg.norm(honest_table)
    found = robust_mean(clients, chosen("norm-bound", norm_bound=2.0))
    assert found[7].tolist() == pytest.approx([(4 * 1.0 + 2.0) / 5])
    assert found[8].tolist() == pytest.approx([4 / 5])


def test_a_row_that_hardly_anybody_has_may_be_as_long_as_others():
    clients = [np.ones((9, 1)) for _ in range(5)]
    for each in clients:
        each[3] = 0.0
    clients[0][3] = 1.5
    found = robust_mean(clients, chosen("norm-bound"))
    assert found[3].tolist() == pytest.approx([1.5 / 5])


def test_pairs_belong_to_both_items_rows():
    """Norms by row of the symmetric matrix; a pair is scaled by the longer row."""
    size = 4
    upper = np.arange(1.0, 7.0)
    full = np.zeros((size, size))
    full[np.triu_indices(size, 1)] = upper
    full += full.T
    np.testing.assert_array_equal(pair_rows(upper, size, 0, size), full)
    np.testing.assert_array_equal(pair_rows(upper, size, 1, 3), full[1:3])
    assert [num_items(n * (n - 1) // 2) for n in range(2, 500)] == [*range(2, 500)]
    flat = np.ones(6)
    liar = np.array([100.0, 1, 1, 1, 1, 1])  # items 0 and 1
    found = robust_mean_of_pairs([flat] * 4 + [liar], chosen("norm-bound"))
    scale = 2 * np.sqrt(3) / np.linalg.norm([100.0, 1, 1])
    expected = [4 + 100 * scale, *[4 + scale] * 4, 5]
    np.testing.assert_allclose(found, np.array(expected) / 5)


def test_a_pair_counts_those_whom_both_items_choose():
    rng = np.random.default_rng(0)
    clients = [rng.normal(size=10) for _ in range(9)]  # five items
    poisoned = clients[0].copy()
    poisoned[:4] = 40.0  # all pairs of item 0
    found = robust_mean_of_pairs([poisoned, *clients[1:]], chosen("multi-krum", 0.12))
    assert np.abs(found).max() < 2


# ------------------------------------------------------------ beside Flower's
def test_trimmed_means_are_flowers():
    rng = np.random.default_rng(1)
    clients = [rng.normal(size=(6, 3)) for _ in range(10)]
    found = robust_mean(clients, chosen("trimmed-mean", 0.2))
    np.testing.assert_allclose(found, trim_mean(np.stack(clients), 0.2))


def test_multi_krum_of_one_row_is_flowers():
    rng = np.random.default_rng(2)
    clients = [rng.normal(size=(1, 40)) for _ in range(10)]
    clients[4] += 5
    records = [RecordDict({"a": ArrayRecord({"w": Array(each)})}) for each in clients]
    selected = select_multikrum(records, 2, 8)
    expected = np.mean([each["a"]["w"].numpy() for each in selected], axis=0)
    found = robust_mean(clients, chosen("multi-krum", 0.2))
    np.testing.assert_allclose(found, expected)


# ------------------------------------------------------------ properties
numbers = st.floats(-1e6, 1e6, width=32)
huge = st.floats(-(2.0**99), 2.0**99, width=32)
several = st.integers(5, 9).flatmap(
    lambda n: arrays(np.float32, (n, 4, 3), elements=numbers)
)


@every
@settings(max_examples=40, deadline=None)
@given(stack=several, data=st.data())
def test_no_bit_depends_on_the_order_of_the_clients(name, stack, data):
    order = data.draw(st.permutations(range(len(stack))))
    shuffled = [stack[place] for place in order]
    given_so, otherwise = (
        robust_mean(list(each), chosen(name)).tobytes() for each in (stack, shuffled)
    )
    assert given_so == otherwise
    pairs = [each.reshape(-1)[:10] for each in stack]
    mixed = [pairs[place] for place in order]
    first, second = (
        robust_mean_of_pairs(each, chosen(name)).tobytes() for each in (pairs, mixed)
    )
    assert first == second


@every
@settings(max_examples=30, deadline=None)
@given(one=arrays(np.float32, (4, 3), elements=numbers), count=st.integers(5, 12))
def test_of_equals_it_is_the_mean(name, one, count):
    np.testing.assert_allclose(
        robust_mean([one] * count, chosen(name)), one, rtol=1e-6, atol=0
    )
    pairs = one.reshape(-1)[:6]
    np.testing.assert_allclose(
        robust_mean_of_pairs([pairs] * count, chosen(name)), pairs, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("name", ["trimmed-mean", "median", "multi-krum"])
@settings(max_examples=40, deadline=None)
@given(
    stack=arrays(np.float32, (9, 4, 3), elements=numbers),
    lies=arrays(np.float32, (2, 4, 3), elements=huge),
)
def test_as_many_lies_as_assumed_leave_it_among_honest_values(name, stack, lies):
    found = robust_mean([*stack, *lies], chosen(name, 0.19))
    if name == "multi-krum":
        # Chosen lies lie by honest rows: no farther than honest ones from each other.
        spread = np.linalg.norm(np.ptp(stack, axis=0), axis=1).max()
        assert np.abs(found).max() <= np.abs(stack).max() + 20 * spread + 1e-3
        return
    assert (found >= stack.min(axis=0) - 1e-6 * np.abs(stack).max()).all()
    assert (found <= stack.max(axis=0) + 1e-6 * np.abs(stack).max()).all()


@every
def test_one_lie_more_than_assumed_can_break_all_but_norms(name):
    """The breakdown point is exact: of five, one is assumed and two do lie."""
    table = np.float32([[0.0], [0.1], [0.2]])
    lie = np.full((3, 1), 1e9, np.float32)
    assumed = [*[table] * 4, lie]
    more = [*[table] * 2, *[lie] * 3]
    settings_ = chosen(name)
    assert np.abs(robust_mean(assumed, settings_)).max() < 1
    broken = np.abs(robust_mean(more, settings_)).max()
    assert broken > 1e8


@every
@pytest.mark.parametrize("count", [5, 20])
def test_the_spread_of_noise_is_what_it_is_said_to_be(name, count):
    """Over rows of many numbers, as those of pairs are; norms bounded at twice."""
    drawn = np.random.default_rng(7).standard_normal((count, 60, 300))
    spread = robust_mean(list(drawn), chosen(name, 0.1)).std() * np.sqrt(count)
    assert noise_spread(count, chosen(name, 0.1)) == pytest.approx(spread, rel=0.03)


@every
def test_the_spread_of_noise_in_pairs_counts_both_rows(name):
    rng = np.random.default_rng(8)
    drawn = [rng.standard_normal(200 * 199 // 2) for _ in range(20)]
    spread = robust_mean_of_pairs(drawn, chosen(name, 0.1)).std() * np.sqrt(20)
    said = noise_spread(20, chosen(name, 0.1), rows=2)
    assert said == pytest.approx(spread, rel=0.03)


def test_a_plain_mean_is_as_noisy_as_it_is():
    assert noise_spread(7, chosen("none")) == 1.0
    assert noise_spread(50, chosen("median")) == pytest.approx(1.25, abs=0.02)


# ------------------------------------------------------------ updates
def test_rows_of_an_update_are_an_items_numbers_in_all_tensors():
    found = update(3)
    rows = item_rows(found)
    assert rows.shape == (5, 5)
    np.testing.assert_allclose(rows[:, :2], found["encoder.weight"].numpy().T)
    np.testing.assert_allclose(rows[:, 2:4], found["decoder.weight"].numpy())
    np.testing.assert_allclose(rows[:, 4], found["decoder.bias"].numpy())


@every
def test_a_robust_update_has_every_tensor_where_it_was(name):
    updates = [update(4)] * 6
    found = robust_update(updates, chosen(name))
    assert list(found) == list(updates[0])
    for key, tensor in found.items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, updates[0][key])


def test_without_a_robust_aggregator_no_bit_changes():
    updates = [update(seed) for seed in range(4)]
    weights = [1.0, 2.0, 3.0, 4.0]
    expected = weighted_mean(updates, weights)
    found = combined(updates, weights, parse(defaults()).aggregation)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@every
def test_one_hot_row_is_bounded_in_an_update(name):
    """Push: one item's bias and output row, the whole no longer than the others'."""
    updates = [update(seed) for seed in range(9)]
    whole = float(np.median([np.linalg.norm(item_rows(each)) for each in updates]))
    hot = {key: torch.zeros_like(each) for key, each in updates[0].items()}
    hot["decoder.bias"][2] = whole
    poisoned, clean = [*updates, hot], [*updates, update(9)]
    plain = weighted_mean(poisoned, [1.0] * 10)["decoder.bias"][2]
    found = robust_update(poisoned, chosen(name, 0.1, 1.0))["decoder.bias"][2]
    truth = weighted_mean(clean, [1.0] * 10)["decoder.bias"][2]
    assert abs(found - truth) < abs(plain - truth) / 3


# ------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("name", "share", "least"),
    [
        ("none", 0.4, 1),
        ("median", 0.1, 3),
        ("norm-bound", 0.1, 3),
        ("trimmed-mean", 0.1, 3),
        ("trimmed-mean", 0.4, 3),
        ("multi-krum", 0.1, 5),
        ("multi-krum", 0.4, 7),
    ],
)
def test_how_many_answers_it_takes(name, share, least):
    asked = chosen(name, share)
    assert fewest(asked) == least
    check_enough(least, asked)
    if least > 1:
        said = rf"aggregation\.robust.*expected at least {least} .*got {least - 1}"
        with pytest.raises(RoundFailed, match=said):
            check_enough(least - 1, asked)


@every
@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_clients_outvote_nobody(name, count):
    with pytest.raises(RoundFailed, match=r"aggregation\.malicious"):
        robust_mean([np.ones(3)] * count, chosen(name))
    with pytest.raises(RoundFailed, match="Wait for more"):
        robust_mean_of_pairs([np.ones(3)] * count, chosen(name))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("aggregation.robust", "krum"),
        ("aggregation.malicious", 0.5),
        ("aggregation.malicious", 0.0),
        ("aggregation.norm-bound", 0.5),
        ("aggregation.norm-bound", float("inf")),
    ],
)
def test_impossible_settings_name_their_key(key, value):
    with pytest.raises(ConfigError, match=f"^{key}: "):
        parse(defaults() | {key: value})


def test_nothing_is_robust_over_a_sum():
    for name in NAMES:
        check_possible("local", name)
        check_possible("off", name)
        with pytest.raises(ConfigError, match=r"only the sum.*") as caught:
            check_possible("distributed", name)
        assert str(caught.value).startswith("aggregation.robust: ")
    check_possible("distributed", "none")
    mode = {"privacy.mode": "distributed", "aggregation.robust": "median"}
    with pytest.raises(ConfigError, match=r"aggregation\.robust.*only the sum"):
        parse(defaults() | mode)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused_before_it_is_averaged(value):
    state = update(1)
    state["decoder.bias"][1] = value
    content = RecordDict({wire.UPDATE: wire.pack_state(state)})
    expected = {name: tuple(each.shape) for name, each in state.items()}
    with pytest.raises(ProtocolError, match="finite"):
        wire.unpack_state(content, wire.UPDATE, expected)


# ------------------------------------------------------------ in a federation
FIVE = {"aggregation.robust": "median", "run.start-timeout": 0.01}


def test_updates_of_a_round_are_combined_robustly(tmp_path):
    clients = {3: honest(), 4: honest(), 5: honest(2.0), 6: honest(-1e30)}
    clients[7] = honest(3.0)
    rounds = federation(tmp_path, FakeGrid(clients), **FIVE, **{"training.rounds": 1})
    (progress,) = rounds.rounds(START, NOBODY, [0.0], nowhere)
    for name, before in START.items():
        torch.testing.assert_close(progress.student[name], before + 1.0)


@pytest.mark.parametrize("order", list(itertools.permutations([3, 4, 5]))[::2])
def test_totals_of_statistics_are_clients_times_the_robust_mean(tmp_path, order):
    answers = [giving([1, 2, 3], [4, 5, 6]), giving([2, 2, 2], [5, 5, 5])]
    answers.append(giving([20, -20, 20], [20, -20, 20]))
    grid = FakeGrid(dict(zip(order, answers, strict=True)))
    found = federation(tmp_path, grid, **FIVE).pairs(CHOSEN)
    np.testing.assert_array_equal(found.arrays[0], [6, 6, 9])
    np.testing.assert_array_equal(found.arrays[1], [15, 15, 18])
    assert found.num_clients == 3


def test_a_robust_total_of_sketches(tmp_path):
    given_ = [np.ones((3, 2)), np.eye(3, 2), np.full((3, 2), 50.0)]
    grid = FakeGrid({3 + k: sketching(each) for k, each in enumerate(given_)})
    found = federation(tmp_path, grid, **FIVE).sketch(CHOSEN, DIRECTIONS)
    np.testing.assert_array_equal(found.arrays[0], np.full((3, 2), 3.0))


def test_nobody_is_asked_where_too_few_could_answer(tmp_path):
    grid = FakeGrid({3: giving([1, 2, 3], [4, 5, 6]), 4: giving([1] * 3, [4] * 3)})
    with pytest.raises(RoundFailed, match=r"at least 3 .*aggregation\.robust"):
        federation(tmp_path, grid, **FIVE).pairs(CHOSEN)
    assert grid.sent == []
