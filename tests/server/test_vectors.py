"""Vectors of items from files, and every way they can fail to fit."""

import numpy as np
import polars as pl
import pytest

from common.errors import ConfigError, DataFormatError
from common.interactions import IdMap
from server.encoders.vectors import read_vectors

ITEMS = IdMap(("a", "b", "c"))


def test_numpy_is_in_the_catalogues_order(tmp_path):
    np.save(tmp_path / "v.npy", np.array([[1, 2], [np.nan, np.nan], [5, 6.0]]))
    values, known = read_vectors(tmp_path / "v.npy", ITEMS)
    assert values.dtype == np.float32
    assert values.tolist() == [[1, 2], [0, 0], [5, 6]]
    assert known.tolist() == [True, False, True]


@pytest.mark.parametrize(
    "columns",
    [
        {"v": pl.Series([[5, 6], [1, 2]], dtype=pl.List(pl.Float32))},
        {"v": pl.Series([[5, 6], [1, 2]], dtype=pl.Array(pl.Float64, 2))},
        {"v": pl.Series([[5, 6], [1, 2]], dtype=pl.List(pl.Int64))},
        {"x": [5.0, 1.0], "y": [6, 2]},
    ],
)
def test_parquet_is_by_item(tmp_path, columns):
    pl.DataFrame({"item": ["c", "a"], **columns}).write_parquet(tmp_path / "v.parquet")
    values, known = read_vectors(tmp_path / "v.parquet", ITEMS)
    assert values.dtype == np.float32
    assert values.tolist() == [[1, 2], [0, 0], [5, 6]]
    assert known.tolist() == [True, False, True]


def test_item_ids_may_be_numbers(tmp_path):
    pl.DataFrame({"item": [7], "x": [1.0]}).write_parquet(tmp_path / "v.parquet")
    values, known = read_vectors(tmp_path / "v.parquet", IdMap(("3", "7")))
    assert values.tolist() == [[0], [1]]
    assert known.tolist() == [False, True]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 4)), r"expected numbers \[3, dim\].*\[2, 4\]"),
        (np.ones(3), r"expected numbers \[3, dim\]"),
        (np.array([["a"], ["b"], ["c"]]), "expected numbers"),
        (np.array([[1, np.nan], [1, 1], [np.inf, 1]]), "2 items have others"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, array, message):
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(DataFormatError, match=r"v\.npy: .*" + message):
        read_vectors(tmp_path / "v.npy", ITEMS)


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.array([{}, {}, {}]), allow_pickle=True)
    with pytest.raises(DataFormatError, match="expected a NumPy array of numbers"):
        read_vectors(tmp_path / "v.npy", ITEMS)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"], "x": [1.0]}, "expected a column item"),
        ({"item": ["a", "z", "y"], "x": [1.0, 1, 1]}, "got 2 others, the first 'z'"),
        ({"item": ["a", "a"], "x": [1.0, 1]}, "each item once"),
        ({"item": ["a", "b"], "x": [1.0, None]}, "1 items have others"),
        ({"item": ["a", "b"], "x": [1.0, float("nan")]}, "1 items have others"),
        ({"item": ["a"], "x": ["1"]}, "columns of numbers"),
        ({"item": ["a"]}, "columns of numbers"),
        ({"item": ["a", "b"], "v": [[1.0], [1.0, 2.0]]}, "lists of one length"),
        ({"item": ["a", "b"], "v": [[1.0], None]}, "lists of one length"),
        ({"item": ["a", "b"], "v": [["x"], ["y"]]}, "lists of numbers"),
        ({"item": ["a", "b"], "v": [[1.0], [None]]}, "1 items have others"),
    ],
)
def test_tables_that_do_not_fit_are_named(tmp_path, columns, message):
    pl.DataFrame(columns).write_parquet(tmp_path / "v.parquet")
    with pytest.raises(DataFormatError, match=r"v\.parquet: .*" + message):
        read_vectors(tmp_path / "v.parquet", ITEMS)


def test_damaged_files_are_named(tmp_path):
    for name in ("v.npy", "v.parquet"):
        (tmp_path / name).write_bytes(b"not this")
        with pytest.raises(DataFormatError, match=name):
            read_vectors(tmp_path / name, ITEMS)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "v.csv").write_text("item,x\na,1\n")
    for name in ("v.csv", "none.npy"):
        with pytest.raises(ConfigError, match=r"expected a \.npy or \.parquet file"):
            read_vectors(tmp_path / name, ITEMS)
