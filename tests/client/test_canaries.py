"""Canaries that an owner plants: fair coins, rows like any, out again as they came."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client import canaries as module
from client.canaries import (
    DESIGNS,
    plant,
    read_truth,
    receipts_since,
    remove,
    write_truth,
)
from client.data import read_client_data
from client.ledger import open_ledger
from client.settings import read_settings, witness_place
from common.errors import ConfigError, DataFormatError
from common.folders import INTERACTIONS
from common.interactions import SCHEMA, read_table
from tests.client.conftest import NUM_ITEMS, rows, write_folder
from tests.client.test_ledger import charge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "0000", rows(8))


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return tmp_path / "truth.json"


@pytest.mark.parametrize("design", DESIGNS)
def test_exactly_those_of_the_coin_are_among_the_rows(folder, truth, design):
    before = read_client_data(folder)
    found, users = plant(folder, truth, count=40, design=design, num_items=3)
    assert users == 8
    after = read_client_data(folder)
    assert after.users.ids[:8] == before.users.ids
    assert (after.histories[:8] != before.histories).nnz == 0
    inside = [each for each in found.canaries if each.included]
    assert after.users.ids[8:] == tuple(each.user for each in inside)
    for place, each in enumerate(inside, start=8):
        assert after.histories[place].indices.tolist() == list(each.items)
        assert len(set(each.items)) == 3
    assert 8 <= found.num_included <= 32  # of 40 coins: beyond in one of 10,000
    stored = read_table(folder / INTERACTIONS)
    assert stored.schema == SCHEMA and stored["value"].unique().to_list() == [1.0]


def test_the_truth_is_its_owners_alone_and_read_back(folder, truth):
    found, _ = plant(folder, truth, count=10, design="random", num_items=4)
    assert truth.stat().st_mode & 0o777 == 0o600
    assert (folder / INTERACTIONS).stat().st_mode & 0o777 == 0o600
    assert read_truth(truth) == found
    assert found.client == "0000" and found.receipts == ()
    assert not [p for p in folder.iterdir() if b"included" in p.read_bytes()]


def test_coins_are_the_systems(folder, truth, monkeypatch):
    monkeypatch.setattr(module.secrets, "randbits", lambda bits: 0b0110)
    found, _ = plant(folder, truth, count=4, design="dirac")
    assert [each.included for each in found.canaries] == [False, True, True, False]


def test_removing_leaves_the_rows_as_they_were(folder, truth):
    before = read_table(folder / INTERACTIONS)
    found, _ = plant(folder, truth, count=20, design="dirac")
    assert remove(folder, truth) == found.num_included
    assert read_table(folder / INTERACTIONS).equals(before)
    assert remove(folder, truth) == 0
    assert read_truth(truth).canaries == found.canaries


def test_what_was_charged_meanwhile_is_noted_once(folder, truth):
    place = witness_place(folder, read_settings(folder))
    with open_ledger(folder, place) as ledger:
        ledger.append(charge(1))
    planted, _ = plant(folder, truth, count=4, design="dirac")
    assert planted.entries == 1
    with open_ledger(folder, place) as ledger:
        hashes = [ledger.append(charge(number)).hash for number in (2, 3)]
    assert receipts_since(folder, planted) == tuple(hashes)
    remove(folder, truth)
    with open_ledger(folder, place) as ledger:
        ledger.append(charge(4))
    remove(folder, truth)
    noted = read_truth(truth)
    assert noted.receipts == tuple(hashes)
    # What is told at planting does not change by what is noted.
    assert noted.digest == planted.digest
    other = planted.canaries[0].model_copy(
        update={"included": not planted.canaries[0].included}
    )
    canaries = (other, *planted.canaries[1:])
    assert planted.model_copy(update={"canaries": canaries}).digest != planted.digest


def test_a_folder_without_rows_can_have_canaries_alone(folder, truth):
    (folder / INTERACTIONS).unlink()
    found, users = plant(folder, truth, count=20, design="rare-item")
    assert users == 0
    assert len(read_client_data(folder).users) == found.num_included
    remove(folder, truth)
    assert read_table(folder / INTERACTIONS).height == 0


def test_random_users_have_items_from_all_over():
    rng = np.random.default_rng(0)
    counts = np.arange(40)
    items = np.concatenate(DESIGNS["random"].design(counts, 400, 10, rng))
    shares = np.bincount(items, minlength=40) / 400
    assert abs(shares - 0.25).max() < 0.09  # four deviations


def test_rare_users_have_items_of_the_rarest_quarter():
    rng = np.random.default_rng(0)
    counts = np.array([5, 0, 9, 0, 7, 1, 8, 1, 6, 6, 6, 6])
    items = np.concatenate(DESIGNS["rare-item"].design(counts, 50, 2, rng))
    chosen = set(items.tolist())
    assert {1, 3} <= chosen <= {1, 3, 5, 7} and len(chosen) == 3


def test_dirac_users_share_nothing_while_items_last():
    rng = np.random.default_rng(0)
    counts = np.array([9] * 6 + [0] * 6)
    three = DESIGNS["dirac"].design(counts, 3, 2, rng)
    assert sorted(np.concatenate(three)) == [6, 7, 8, 9, 10, 11]
    many = DESIGNS["dirac"].design(counts, 11, 5, rng)
    assert [len(set(each.tolist())) for each in many] == [5] * 11


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"design": "magic"}, "random, rare-item, dirac"),
        ({"count": 1}, "2 canaries"),
        ({"num_items": 0}, f"1 to {NUM_ITEMS}"),
        ({"num_items": NUM_ITEMS + 1}, f"1 to {NUM_ITEMS}"),
        ({"design": "random"}, "got 20"),
    ],
)
def test_impossible_wishes_are_refused_before_anything_is_written(
    folder, truth, changes, said
):
    before = (folder / INTERACTIONS).read_bytes()
    with pytest.raises(ConfigError, match=said):
        plant(folder, truth, **({"count": 10, "design": "dirac"} | changes))
    assert not truth.exists()
    assert (folder / INTERACTIONS).read_bytes() == before


def test_a_truth_is_not_written_over_and_no_folder_is_refused(folder, truth, tmp_path):
    plant(folder, truth, count=4, design="dirac")
    with pytest.raises(ConfigError, match="there already"):
        plant(folder, truth, count=4, design="dirac")
    with pytest.raises(ConfigError, match="declared catalogue"):
        plant(tmp_path / "nowhere", tmp_path / "t", count=4, design="dirac")


def test_nothing_is_planted_where_the_truth_cannot_be_kept(folder, tmp_path):
    (tmp_path / "file").write_text("")
    before = (folder / INTERACTIONS).read_bytes()
    with pytest.raises(OSError, match="file"):
        plant(folder, tmp_path / "file" / "truth", count=4, design="dirac")
    assert (folder / INTERACTIONS).read_bytes() == before


def test_another_clients_truth_removes_nothing(folder, truth):
    found, _ = plant(folder, truth, count=4, design="dirac")
    write_truth(truth, found.model_copy(update={"client": "0007"}))
    before = (folder / INTERACTIONS).read_bytes()
    with pytest.raises(ConfigError, match="client 0007"):
        remove(folder, truth)
    assert (folder / INTERACTIONS).read_bytes() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "tutela-canaries-9"}, "format does not fit"),
        ({"canaries": []}, "canaries does not fit"),
        ({"more": 1}, "more does not fit"),
        ({"num_items": 3}, "catalogue of 3"),
    ],
)
def test_a_damaged_truth_names_the_key_and_no_canary(folder, truth, change, said):
    found, _ = plant(folder, truth, count=8, design="random", num_items=12)
    truth.write_text(json.dumps(json.loads(truth.read_text()) | change))
    with pytest.raises(DataFormatError, match=said) as error:
        read_truth(truth)
    assert not [each for each in found.canaries if each.user in str(error.value)]


def test_no_truth_and_no_json_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="found none"):
        read_truth(tmp_path / "truth.json")
    (tmp_path / "truth.json").write_text("{")
    with pytest.raises(DataFormatError, match="no JSON"):
        read_truth(tmp_path / "truth.json")
    (tmp_path / "truth.json").write_text("[]")
    with pytest.raises(DataFormatError, match="no table"):
        read_truth(tmp_path / "truth.json")


def test_a_canary_is_drawn_like_any_pseudonym(folder, truth):
    found, _ = plant(folder, truth, count=200, design="dirac")
    names = pl.Series([each.user for each in found.canaries])
    assert names.n_unique() == 200
    assert names.str.contains("^[0-9a-f]{32}$").all()
