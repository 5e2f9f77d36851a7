"""Interactions: dense ids there and back, and what a subset keeps."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataFormatError
from common.interactions import SCHEMA, IdMap, Interactions, encode_table

ITEMS = IdMap(("x", "y", "z"))
ROWS = [("bo", "z", 5.0, 10), ("al", "x", 3.0, 0), ("bo", "x", 1.0, 30)]


def encoded(rows):
    return encode_table(pl.DataFrame(rows, schema=SCHEMA, orient="row"), ITEMS)


@given(st.lists(st.text(), unique=True), st.data())
def test_decode_undoes_encode(ids, data):
    mapping = IdMap(tuple(ids))
    some = data.draw(st.lists(st.sampled_from(ids))) if ids else []
    assert mapping.decode(mapping.encode(some)) == some
    assert mapping.encode(ids).tolist() == list(range(len(ids)))


def test_repeated_ids_are_refused():
    with pytest.raises(DataFormatError, match="distinct"):
        IdMap(("a", "b", "a"))


def test_unknown_ids_are_counted_and_never_named():
    with pytest.raises(DataFormatError) as caught:
        ITEMS.encode(["x", "secret-1", "secret-2"])
    assert "2 of 3 rows" in str(caught.value)
    assert "3 ids" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "secret-1" not in ITEMS
    assert "x" in ITEMS


def test_a_table_is_encoded_in_order_of_first_appearance():
    table = encoded(ROWS)
    assert table.users.ids == ("bo", "al")
    found = table.interactions
    assert (found.num_users, found.num_items, len(found)) == (2, 3, 3)
    assert found.user.tolist() == [0, 1, 0]
    assert found.item.tolist() == [2, 0, 0]
    assert found.value.tolist() == [5.0, 3.0, 1.0]
    assert found.timestamp.tolist() == [10, 0, 30]


def test_a_row_more_never_renumbers_the_users_before_it():
    more = encoded([*ROWS, ("aa", "y", 1.0, 0)])
    assert more.users.ids == ("bo", "al", "aa")
    assert more.interactions.matrix()[:2].toarray().tolist() == [[1, 0, 1], [1, 0, 0]]


def test_repeats_count_once_in_the_matrix():
    matrix = encoded([*ROWS, ("bo", "z", 2.0, 99)]).interactions.matrix()
    assert matrix.dtype == np.float32
    assert matrix.toarray().tolist() == [[1, 0, 1], [1, 0, 0]]


def test_where_keeps_rows_and_numbers():
    found = encoded(ROWS).interactions
    kept = found.where(found.value > 2)
    assert kept.user.tolist() == [0, 1]
    assert (kept.num_users, kept.num_items) == (2, 3)


def test_ordered_rows_hold_each_items_place_in_time():
    """User 0 touches 2, 0, then 2 again; user 1 two items at one time; 2 nothing."""
    found = Interactions(
        user=np.array([0, 0, 0, 1, 1]),
        item=np.array([2, 0, 2, 3, 1]),
        value=np.ones(5, np.float32),
        timestamp=np.array([5, 9, 7, 4, 4]),
        num_users=3,
        num_items=4,
    )
    places = [[2, 0, 1, 0], [0, 2, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_array_equal(found.ordered().toarray(), places)
    np.testing.assert_array_equal(
        found.ordered().toarray() > 0, found.matrix().toarray()
    )
