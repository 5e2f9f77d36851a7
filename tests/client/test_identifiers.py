"""User ids become keyed hashes before they are stored."""

import hashlib
import hmac
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.identifiers import (
    check_pseudonyms,
    folder_key,
    pseudonym,
    pseudonymise,
)
from client.importing import write_rows
from common.errors import DataFormatError
from tests.client.conftest import rows

KEY, OTHER = b"k" * 32, b"o" * 32


def test_a_pseudonym_by_hand() -> None:
    expected = hmac.new(KEY, b"ada", hashlib.sha256).hexdigest()[:32]
    assert pseudonym("ada", KEY) == expected


@given(st.text(), st.text())
def test_users_stay_apart_and_themselves(first: str, second: str) -> None:
    assert (pseudonym(first, KEY) == pseudonym(second, KEY)) == (first == second)
    assert pseudonym(first, KEY) != pseudonym(first, OTHER)


def test_rows_keep_their_order_and_their_owner() -> None:
    table = rows(5).sample(fraction=1.0, shuffle=True, seed=1)
    hashed = pseudonymise(table, KEY)
    assert hashed.drop("user").equals(table.drop("user"))
    assert hashed["user"].to_list() == [pseudonym(u, KEY) for u in table["user"]]
    check_pseudonyms(hashed)


def test_an_empty_table_is_no_trouble() -> None:
    assert pseudonymise(rows(0), KEY).equals(rows(0))
    check_pseudonyms(rows(0))


def test_each_folder_has_a_key_of_its_own_for_its_owner_alone(tmp_path: Path) -> None:
    keys = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        keys.append(folder_key(tmp_path / name))
        assert (tmp_path / name / "id.key").stat().st_mode & 0o777 == 0o600
        assert folder_key(tmp_path / name) == keys[-1], "and keeps it"
    assert keys[0] != keys[1]
    assert {len(key) for key in keys} == {32}


def test_one_person_has_nothing_in_common_at_two_clients(tmp_path: Path) -> None:
    stored = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_rows(tmp_path / name, rows(5))
        stored.append(pl.read_parquet(tmp_path / name / "interactions.parquet"))
    assert set(stored[0]["user"]).isdisjoint(stored[1]["user"])
    assert stored[0].drop("user").equals(stored[1].drop("user"))


@pytest.mark.parametrize(
    "user", ["u1", "", "a" * 31, "a" * 33, "G" * 32, "a" * 32 + "\n"]
)
def test_a_raw_id_is_counted_and_not_named(user: str) -> None:
    table = pseudonymise(rows(2), KEY)
    mixed = pl.concat([table, table.head(3).with_columns(user=pl.lit(user))])
    with pytest.raises(DataFormatError, match="got 3 rows of others") as refusal:
        check_pseudonyms(mixed)
    assert "tutela import" in str(refusal.value)
    assert len(user) < 3 or user not in str(refusal.value)
