"""Neighbours and thresholds: exact tails, kept bounds, a graph as it should be."""

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from common.errors import ConfigError
from common.secagg.bounds import (
    Shape,
    availability_failure,
    choose_shape,
    hypergeometric_tail,
    most_corrupt,
    security_failure,
    stays_whole,
)
from common.secagg.graph import Graph
from common.secagg.terms import Policy, Terms
from common.secagg.trust import trust_sentence


def test_a_tail_counted_by_hand():
    # Of 6 with 3 marked, draw 3: 20 draws, 9 with two marked, 1 with three.
    assert hypergeometric_tail(6, 3, 3, 2) == Fraction(10, 20)
    assert hypergeometric_tail(6, 3, 3, 4) == 0
    assert hypergeometric_tail(6, 3, 3, -1) == 1


@given(st.integers(1, 60), st.data())
def test_tails_are_those_of_scipy(population, data):
    marked = data.draw(st.integers(0, population))
    drawn = data.draw(st.integers(0, population))
    least = data.draw(st.integers(0, population))
    expected = hypergeom(population, marked, drawn).sf(least - 1)
    found = float(hypergeometric_tail(population, marked, drawn, least))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def exposed_by_enumeration(members, corrupt, degree, threshold):
    """P[some member has so many corrupt neighbours], over all orders of a circle."""
    worst = total = 0
    for chosen in itertools.combinations(range(members), corrupt):
        total += 1
        worst += any(
            sum((place + step) % members in chosen for step in steps(degree))
            >= threshold
            for place in range(members)
        )
    return worst / total


def steps(degree):
    half = degree // 2
    return [*range(-half, 0), *range(1, half + 1)]


def test_the_bound_is_above_what_enumeration_finds():
    policy = Policy(corrupt=0.3, dropped=0.0, degree=4, complete_up_to=0)
    shape = Shape(members=10, degree=4, threshold=3)
    exact = exposed_by_enumeration(10, 3, 4, 3)
    assert 0 < exact <= float(security_failure(policy, shape))


@pytest.mark.parametrize("members", [50, 100, 200, 544, 1000, 5000])
@pytest.mark.parametrize("active", [False, True])
def test_chosen_shapes_keep_both_bounds(members, active):
    policy, bits = Policy(active=active), 80 if active else 40
    assert policy.bits == bits and Policy(security_bits=7).bits == 7
    shape = choose_shape(policy, members)
    assert security_failure(policy, shape) <= Fraction(1, 1 << bits)
    assert availability_failure(policy, shape) <= Fraction(1, 1 << 10)
    assert shape.degree < members and shape.degree % 2 == 0
    least = 2 * shape.degree / 3 if active else shape.degree / 2
    assert least < shape.threshold <= shape.degree


@pytest.mark.parametrize(
    ("members", "corrupt"), [(544, 0.1), (1000, 0.2), (5440, 0.05)]
)
def test_two_sets_that_open_a_secret_share_somebody_honest(members, corrupt):
    # A server that lies has a member mask with one set and its own mask opened by
    # another; the honest confirm one list, so they are in one of both.
    policy = Policy(active=True, corrupt=corrupt)
    shape = choose_shape(policy, members)
    marked, shared = round(corrupt * members), 2 * shape.threshold - shape.degree
    tail = hypergeometric_tail(members - 1, marked, shape.degree, shared)
    assert members * tail <= Fraction(1, 1 << 80)
    assert members * tail <= security_failure(policy, shape)


@pytest.mark.parametrize("corrupt", [0.0, 0.05, 0.1, 0.2, 0.33])
def test_so_do_they_in_complete_cohorts_or_the_quorum_is_out_of_reach(corrupt):
    for members in range(3, 130):
        policy = Policy(active=True, corrupt=corrupt, complete_up_to=130)
        shape, marked = choose_shape(policy, members), most_corrupt(policy, members)
        left = shape.degree - (shape.quorum - marked)
        shared = 2 * shape.threshold - shape.degree
        assert marked < shared or left < shape.threshold


def halves_by_enumeration(members, gone, half):
    """P[a circle falls into two], over all sets of so many who are gone."""
    cut = total = 0
    for silent in itertools.combinations(range(members), gone):
        total += 1
        left = [place for place in range(members) if place not in silent]
        pairs = zip(left, [*left[1:], left[0] + members], strict=True)
        cut += sum(after - before > half for before, after in pairs) >= 2
    return cut / total


@pytest.mark.parametrize("gone", [4, 5, 7])
def test_a_sum_that_may_fall_into_two_is_not_whole(gone):
    exact = halves_by_enumeration(12, gone, 2)
    assert exact > 0
    bits = int(-math.log2(exact))
    for more in range(bits, 12):
        policy = Policy(corrupt=0, degree=4, security_bits=more, complete_up_to=0)
        assert not stays_whole(policy, Shape(12, 4, 3), 12 - gone)
    assert stays_whole(policy, Shape(12, 11, 6), 12 - gone)
    assert stays_whole(policy, Shape(12, 4, 3, window=1), 12 - gone)


@pytest.mark.parametrize("members", [100, 544, 5440])
def test_a_sum_stays_whole_with_the_share_that_may_drop_out_not_half(members):
    policy = Policy()
    shape = choose_shape(policy, members)
    assert stays_whole(policy, shape, members - members // 10)
    assert not stays_whole(policy, shape, members // 2)


def test_neighbours_grow_slowly_with_the_cohort():
    degrees = [choose_shape(Policy(), n).degree for n in (100, 1000, 10_000)]
    assert degrees == sorted(degrees) and degrees[-1] < 60


def test_more_security_takes_more_neighbours():
    degrees = [
        choose_shape(Policy(active=True, security_bits=bits), 1000).degree
        for bits in (20, 40, 80)
    ]
    assert degrees[0] < degrees[1] < degrees[2]


@pytest.mark.parametrize("members", range(3, 33))
def test_small_cohorts_are_complete(members):
    for policy in (Policy(), Policy(active=True)):
        shape = choose_shape(policy, members)
        assert shape.complete and shape.window == 0
        least = 2 * shape.degree / 3 if policy.active else shape.degree / 2
        assert shape.threshold > least


def test_a_quorum_is_more_than_two_lists_could_have():
    for members in range(3, 200):
        policy = Policy(active=True, corrupt=0.1)
        shape, corrupt = choose_shape(policy, members), -(-members // 10)
        honest = members - corrupt
        # Two lists, each confirmed by all the corrupt and by half of the honest.
        assert honest // 2 + corrupt < shape.quorum <= members
    assert choose_shape(Policy(), 100).quorum == 0


@pytest.mark.parametrize("members", [2, 20_001])
def test_cohorts_of_other_sizes_are_refused(members):
    with pytest.raises(ConfigError, match="3 to 20000"):
        choose_shape(Policy(), members)


def test_a_degree_that_keeps_no_bound_is_refused():
    with pytest.raises(ConfigError, match="raise the degree"):
        choose_shape(Policy(degree=4, corrupt=0.3), 100)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"corrupt": 0.5}, "corrupt"),
        ({"corrupt": 0.34, "active": True}, "corrupt"),
        ({"corrupt": -0.1}, "corrupt"),
        ({"corrupt": float("nan")}, "corrupt"),
        ({"dropped": 1.0}, "dropped"),
        ({"security_bits": -1}, "bits"),
        ({"availability_bits": -3}, "bits"),
        ({"degree": 3}, "degree"),
        ({"degree": -2}, "degree"),
    ],
)
def test_impossible_policies_are_refused(facts, named):
    with pytest.raises(ConfigError, match=named):
        Policy(**facts)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run", ""),
        ("run", "x" * 257),
        ("round", -1),
        ("round", 1 << 32),
        ("length", 0),
        ("length", 1 << 29),
        ("bits", 0),
        ("bits", 65),
        ("least", 1),
        ("least", 20_001),
        ("most", 1),
        ("most", 20_001),
        ("agreed", "x" * 257),
    ],
)
def test_impossible_terms_are_refused(key, value):
    facts = {"run": "r", "round": 0, "length": 1, "bits": 8, "least": 2}
    with pytest.raises(ConfigError, match=key):
        Terms(**facts | {key: value})


def test_terms_come_back_and_every_number_is_in_their_digest():
    facts = {"run": "r", "round": 0, "length": 5, "bits": 8, "least": 2}
    terms = Terms(**facts)
    assert Terms.from_bytes(terms.to_bytes()) == terms
    changed = [
        Terms(**facts | change)
        for change in (
            {"run": "s"},
            {"round": 1},
            {"length": 6},
            {"bits": 9},
            {"least": 3},
            {"most": 9},
            {"agreed": "x"},
            {"policy": Policy(active=True)},
            {"policy": Policy(security_bits=41)},
        )
    ]
    assert len({each.digest for each in [terms, *changed]}) == 10


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(8, 60), st.integers(2, 3))
def test_the_graph_is_regular_symmetric_and_connected(seed, members, half):
    graph = Graph(Shape(members, 2 * half, half + 1), seed.to_bytes(32, "big"))
    assert sorted(graph.circle) == list(range(members))
    near = [graph.neighbours(member) for member in range(members)]
    for member, others in enumerate(near):
        assert len(set(others)) == 2 * half and member not in others
        assert list(others) == sorted(others)
        assert all(member in near[other] for other in others)
    reached, border = {0}, {0}
    while border:
        border = {n for one in border for n in near[one]} - reached
        reached |= border
    assert len(reached) == members


def test_each_seed_draws_another_graph_and_each_order_comes_up():
    shape = Shape(4, 2, 2)
    circles = {Graph(shape, bytes([seed])).circle for seed in range(256)}
    assert len(circles) == 24


def test_the_thinnest_window_counts_round_the_circle():
    graph = Graph(Shape(10, 6, 4, window=2), b"seed")
    circle = graph.circle
    assert graph.thinnest_window(frozenset(circle)) == 3
    assert graph.thinnest_window(frozenset(circle[:-1])) == 2
    assert graph.thinnest_window(frozenset(circle[1:-1])) == 1
    assert graph.thinnest_window(frozenset(circle[:4] + circle[7:])) == 0
    assert graph.confirmed_by(frozenset(circle[:-1]), 9)
    assert not graph.confirmed_by(frozenset(circle[:-1]), 10)
    assert not graph.confirmed_by(frozenset(circle[1:-1]), 2)


def test_the_sentence_says_whom_to_trust():
    curious = trust_sentence(Policy(), 1000)
    assert curious.startswith("honest-but-curious server")
    assert "up to 100 of a cohort's 1000 clients" in curious
    assert "44 neighbours" in curious and "2^-" in curious
    active = trust_sentence(Policy(active=True), 20)
    assert "the server may lie" in active and "honest-but-curious" not in active
    assert "roster" in active and "12 of them confirm" in active
    assert "no draw of the neighbours" in active
    assert "times the graphs" in trust_sentence(Policy(active=True), 500)
