"""The catalogue: declared columns, a digest both sides share, finding titles."""

import numpy as np
import polars as pl
import pytest

from common.catalogue import (
    OPTIONAL,
    SCHEMA,
    Catalogue,
    read_catalogue,
    write_catalogue,
)
from common.errors import ConfigError, DataFormatError

ROWS = [
    ("7", "Alien (1979)", 1979, ["horror"]),
    ("3", "Aliens (1986)", 1986, []),
    ("9", "7", 0, []),
]


def catalogue(rows=ROWS):
    return Catalogue(pl.DataFrame(rows, schema=SCHEMA, orient="row"))


def test_items_keep_the_order_of_rows():
    assert catalogue().items.ids == ("7", "3", "9")
    assert catalogue().num_items == 3


def test_the_digest_is_of_ids_in_order_alone():
    same = catalogue([(item, "?", 0, []) for item, *_ in ROWS])
    assert catalogue().digest == same.digest
    assert len(same.digest) == 64
    assert catalogue(ROWS[::-1]).digest != same.digest
    assert catalogue(ROWS[:2]).digest != same.digest


def test_titles_come_before_ids():
    assert catalogue().find("Aliens (1986)") == 1
    assert catalogue().find("3") == 1
    assert catalogue().find("7") == 2


def test_an_unknown_title_gets_hints():
    with pytest.raises(ConfigError) as caught:
        catalogue().find("alien")
    assert "'alien'" in str(caught.value)
    assert "Did you mean: Alien (1979); Aliens (1986)?" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        catalogue().find("Brazil")
    assert "Did you mean" not in str(caught.value)


def test_a_catalogue_round_trips(tmp_path):
    write_catalogue(catalogue(), tmp_path / "catalogue.parquet")
    back = read_catalogue(tmp_path / "catalogue.parquet")
    assert back.table.equals(catalogue().table)
    assert back.digest == catalogue().digest


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "catalogue.parquet"
    with pytest.raises(DataFormatError, match="found no file"):
        read_catalogue(path)
    pl.DataFrame({"item": ["1"]}).write_parquet(path)
    with pytest.raises(DataFormatError, match="Expected a catalogue with columns"):
        read_catalogue(path)


FULL = pl.Schema({**SCHEMA, **OPTIONAL})


def full(*rows):
    whole = [(str(i), f"T{i}", 0, [], *row) for i, row in enumerate(rows)]
    return Catalogue(pl.DataFrame(whole, schema=FULL, orient="row"))


def test_a_table_of_titles_alone_is_completed():
    table = catalogue().table
    assert table.schema == FULL
    assert table["text"].to_list() == ["", "", ""]
    assert catalogue().numbers.shape == (3, 0)
    assert catalogue([]).numbers.shape == (0, 0)


def test_a_file_without_the_optional_columns_is_read(tmp_path):
    path = tmp_path / "catalogue.parquet"
    pl.DataFrame(ROWS, schema=SCHEMA, orient="row").write_parquet(path)
    assert read_catalogue(path).table.equals(catalogue().table)


def test_text_and_numbers_round_trip(tmp_path):
    declared = full(("a, b", [1.0, 2.5]), (None, None), ("", [None, 3.0]))
    write_catalogue(declared, tmp_path / "catalogue.parquet")
    back = read_catalogue(tmp_path / "catalogue.parquet")
    assert back.table["text"].to_list() == ["a, b", "", ""]
    nan = np.nan
    wanted = np.array([[1, 2.5], [nan, nan], [nan, 3]], np.float32)
    assert np.array_equal(back.numbers, wanted, equal_nan=True)
    assert back.numbers.dtype == np.float32


def test_unlike_counts_of_numbers_are_refused():
    with pytest.raises(DataFormatError, match=r"Expected 2 numbers .* for 1 items"):
        full(("", [1.0, 2.0]), ("", [1.0]))


def test_text_is_added_by_outside_id_and_leaves_the_digest():
    told = catalogue().with_text({"3": "queen, marines", "unheard of": "x"})
    assert told.table["text"].to_list() == ["", "queen, marines", ""]
    assert told.digest == catalogue().digest
    assert told.table.drop("text").equals(catalogue().table.drop("text"))
