"""Protocols: worked by hand, and no row to find ever teaches."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError, DataFormatError
from common.interactions import SCHEMA, IdMap, encode_held
from simulations.protocols import PROTOCOLS, Shares


def table_of(*rows):
    users, items, times = zip(*rows, strict=True)
    columns = {"user": users, "item": items, "value": [1.0] * len(rows)}
    return pl.DataFrame(columns | {"timestamp": times}, schema=SCHEMA)


def parts_of(name, table, **shares):
    return PROTOCOLS[name](table, Shares(**shares), np.random.default_rng(0))


def pairs(frame):
    return set(frame.select("user", "item").iter_rows())


@st.composite
def tables(draw):
    """Many repeats and ties; always somebody to rank for, whichever the protocol.

    Item v is in no drawn row, so that user a stays on both sides of a cut in time.
    """
    row = st.tuples(st.sampled_from("abcd"), st.sampled_from("wxyz"), st.integers(0, 5))
    rows = draw(st.lists(row, min_size=1, max_size=30))
    return table_of(
        ("a", "w", 0),
        ("a", "v", 9),
        ("b", "y", 2),
        ("b", "v", 5),
        ("c", "w", 3),
        ("c", "v", 4),
        *rows,
    )


# ---------------------------------------------------------------- by hand
def test_leave_one_out_holds_the_last_by_time_and_of_ties_the_last_row():
    table = table_of(
        ("a", "x", 5), ("a", "y", 9), ("a", "z", 1), ("b", "x", 3), ("b", "y", 3)
    )

    parts = parts_of("leave_one_out", table)

    assert pairs(parts.held) == {("a", "y"), ("b", "y")}
    assert pairs(parts.train) == {("a", "x"), ("a", "z"), ("b", "x")}


def test_a_repeated_item_counts_at_its_first_visit():
    table = table_of(("a", "x", 1), ("a", "y", 2), ("a", "x", 3))

    assert pairs(parts_of("leave_one_out", table).held) == {("a", "y")}


def test_a_user_with_one_item_teaches_nothing_and_is_not_asked():
    table = table_of(("a", "x", 1), ("b", "x", 1), ("b", "y", 2))

    parts = parts_of("leave_one_out", table)

    assert pairs(parts.train) == {("b", "x")}
    assert pairs(parts.evaluated) == {("b", "x"), ("b", "y")}


def test_temporal_cuts_once_for_everybody():
    table = table_of(
        ("a", "x", 1), ("a", "y", 4), ("b", "x", 2), ("b", "z", 3), ("c", "x", 4)
    )

    parts = parts_of("temporal", table, shown=0.5)

    # The third of five rows is of time 3; user c, new after it, is not asked for.
    assert pairs(parts.train) == {("a", "x"), ("b", "x"), ("b", "z")}
    assert pairs(parts.held) == {("a", "y")}
    assert pairs(parts.evaluated) == {("a", "x"), ("a", "y")}


def test_random_holds_a_share_of_each_users_items():
    rows = [(user, str(item), 0) for user in "ab" for item in range(10)]

    parts = parts_of("random", table_of(*rows), shown=0.7)

    assert parts.held["user"].to_list().count("a") == 3
    assert parts.train.height == 14


def test_held_out_users_teach_nothing():
    rows = [(user, item, 0) for user in "abcdefghij" for item in "wxyz"]

    parts = parts_of("held_out_users", table_of(*rows), users=0.3, shown=0.5)

    assert parts.evaluated["user"].n_unique() == 3
    assert parts.train["user"].n_unique() == 7
    assert parts.held.height == 6


# ---------------------------------------------------------------- properties
@settings(max_examples=40)
@given(tables(), st.sampled_from(sorted(PROTOCOLS)), st.floats(0.2, 0.6))
def test_nothing_leaks(table, name, shown):
    parts = parts_of(name, table, shown=shown, users=0.5)

    assert not pairs(parts.train) & pairs(parts.held)
    assert not pairs(parts.shown) & pairs(parts.held)
    assert pairs(parts.train) | pairs(parts.evaluated) <= pairs(table)
    assert set(parts.shown["user"]) == set(parts.held["user"])
    assert not parts.evaluated.select("user", "item").is_duplicated().any()
    if name == "held_out_users":
        assert not set(parts.train["user"]) & set(parts.evaluated["user"])
    else:
        assert pairs(parts.shown) <= pairs(parts.train)
    if name == "temporal":
        assert parts.train["timestamp"].max() < parts.held["timestamp"].min()


@settings(max_examples=20)
@given(tables(), st.sampled_from(sorted(PROTOCOLS)))
def test_parts_are_what_the_metrics_read(table, name):
    parts = parts_of(name, table, shown=0.5, users=0.5)

    shown, held = encode_held(parts.evaluated, IdMap(tuple("vwxyz")))

    assert shown.nnz == parts.shown.height
    assert held.nnz == parts.held.height
    assert shown.multiply(held).nnz == 0


# ---------------------------------------------------------------- faults
def test_temporal_needs_times():
    table = table_of(("a", "x", 0), ("a", "y", 0))

    with pytest.raises(DataFormatError, match="take another protocol"):
        parts_of("temporal", table)


def test_a_cut_that_leaves_nobody_to_rank_for_is_refused():
    # a has nothing after the cut at 1, b nothing before it; the repeat is no visit.
    table = table_of(
        ("a", "w", 0), ("a", "x", 1), ("b", "y", 2), ("b", "z", 9), ("a", "w", 9)
    )

    with pytest.raises(DataFormatError, match="an item to find, got none"):
        parts_of("temporal", table, shown=0.5)


@pytest.mark.parametrize("name", ["leave_one_out", "random", "held_out_users"])
def test_users_of_one_item_alone_are_refused(name):
    with pytest.raises(DataFormatError, match="an item to find, got none"):
        parts_of(name, table_of(("a", "x", 0), ("b", "y", 1)))


def test_held_out_users_need_two():
    with pytest.raises(DataFormatError, match="two users or more, got 1"):
        parts_of("held_out_users", table_of(("a", "x", 0)))


@pytest.mark.parametrize("share", [{"shown": 1.0}, {"users": 0.0}])
def test_impossible_shares_are_refused(share):
    with pytest.raises(ConfigError, match="Expected 0 <"):
        Shares(**share)
