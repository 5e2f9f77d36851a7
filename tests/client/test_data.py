"""Private rows, encoded by the declared catalogue and nothing else."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client.data import read_client_data
from common.errors import ConfigError, DataFormatError
from tests.client.conftest import NUM_ITEMS, catalogue, rows, write_folder


def test_rows_become_binary_histories_by_catalogue_order(tmp_path: Path) -> None:
    data = read_client_data(write_folder(tmp_path / "0000", rows(2)))
    expected = np.zeros((2, NUM_ITEMS), np.float32)
    expected[0, [0, 1, 2, 3]] = 1.0
    expected[1, [3, 4, 5, 6]] = 1.0
    np.testing.assert_array_equal(data.histories.toarray(), expected)
    assert data.histories.dtype == np.float32
    assert data.catalogue.digest == catalogue().digest


def test_repeats_and_values_make_no_heavier_user(tmp_path: Path) -> None:
    """Mistake 2: six ratings of an item are one entry of one."""
    table = pl.concat([rows(2)] * 6).with_columns(value=pl.lit(5.0, pl.Float32()))
    data = read_client_data(write_folder(tmp_path / "0000", table))
    once = read_client_data(write_folder(tmp_path / "0001", rows(2)))
    np.testing.assert_array_equal(data.histories.toarray(), once.histories.toarray())
    assert data.histories.has_canonical_format


def test_one_user_more_changes_no_other_row_and_no_width(tmp_path: Path) -> None:
    """Mistake 6: vocabulary and numbering come from the catalogue."""
    before = read_client_data(write_folder(tmp_path / "0000", rows(5)))
    after = read_client_data(write_folder(tmp_path / "0001", rows(6)))
    assert after.histories.shape == (6, NUM_ITEMS)
    np.testing.assert_array_equal(
        after.histories[:5].toarray(), before.histories.toarray()
    )


def test_a_client_without_rows_is_a_client(tmp_path: Path) -> None:
    data = read_client_data(write_folder(tmp_path / "0000", rows(1).clear()))
    assert data.histories.shape == (0, NUM_ITEMS)


def test_an_item_outside_the_catalogue_is_counted_not_named(tmp_path: Path) -> None:
    table = rows(2).with_columns(item=pl.lit("MARKER-XYZ"))
    folder = write_folder(tmp_path / "0000", table)
    with pytest.raises(DataFormatError) as error:
        read_client_data(folder)
    assert "MARKER-XYZ" not in str(error.value)


def test_a_folder_without_interactions_is_refused_without_its_name(tmp_path) -> None:
    folder = write_folder(tmp_path / "MARKER-XYZ", rows(2))
    (folder / "interactions.parquet").unlink()
    with pytest.raises(ConfigError, match="Expected interactions") as error:
        read_client_data(folder)
    assert "MARKER-XYZ" not in str(error.value)


def test_a_folder_without_a_catalogue_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "0000", rows(2))
    (folder / "catalogue.parquet").unlink()
    with pytest.raises(DataFormatError, match="Expected a catalogue"):
        read_client_data(folder)
