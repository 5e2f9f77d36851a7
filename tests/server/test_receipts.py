"""Receipts: the last of each node, through restarts."""

import json
import stat

import pytest

from common.errors import DataFormatError
from common.folders import RECEIPTS
from server.receipts import Receipts

FIRST, SECOND = "1" * 64, "2" * 64


def test_a_node_that_gave_none_is_sent_none(tmp_path):
    receipts = Receipts(tmp_path / "state")
    assert receipts.of(100) == ""
    receipts.keep({})
    assert not (tmp_path / "state").exists(), "nothing to keep, nothing written"


def test_the_last_receipt_of_each_node_is_kept(tmp_path):
    receipts = Receipts(tmp_path)
    receipts.keep({100: FIRST, 101: FIRST})
    receipts.keep({101: SECOND})
    assert [receipts.of(node) for node in (100, 101, 102)] == [FIRST, SECOND, ""]


def test_receipts_outlive_the_server(tmp_path):
    Receipts(tmp_path).keep({100: FIRST, 2**63: SECOND})
    again = Receipts(tmp_path)
    assert (again.of(100), again.of(2**63)) == (FIRST, SECOND)
    again.keep({100: SECOND})
    assert Receipts(tmp_path).of(2**63) == SECOND


def test_the_file_is_plain_json_for_the_owner_alone(tmp_path):
    Receipts(tmp_path).keep({100: FIRST})
    path = tmp_path / RECEIPTS
    assert json.loads(path.read_text()) == {"100": FIRST}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"5", b'"text"', b"[1]", b"\xff"])
def test_a_damaged_file_is_named_and_left_alone(tmp_path, content):
    path = tmp_path / RECEIPTS
    path.write_bytes(content)
    with pytest.raises(DataFormatError, match=r"receipts\.json: .*remove the file"):
        Receipts(tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", ['{"1": null}', '{"1": "x"}', "[]", '"a"', "{", "1"]
)
def test_damaged_receipts_are_named_and_not_sent(tmp_path, content: str) -> None:
    """A receipt of another form would be refused by the client for ever."""
    (tmp_path / "receipts.json").write_text(content)
    with pytest.raises(DataFormatError, match=r"receipts\.json: expected receipts"):
        Receipts(tmp_path)


def test_two_runs_of_one_server_keep_each_others_receipts(tmp_path) -> None:
    one, other = Receipts(tmp_path), Receipts(tmp_path)
    one.keep({1: FIRST})
    other.keep({2: SECOND})
    again = Receipts(tmp_path)
    assert (again.of(1), again.of(2)) == (FIRST, SECOND)


def test_a_checkpoints_receipts_fill_gaps_alone(tmp_path) -> None:
    """What is on the server's disk is newer, or as good."""
    receipts = Receipts(tmp_path)
    receipts.keep({1: "1" * 64})
    receipts.restore({"1": "2" * 64, "3": "3" * 64})
    assert receipts.last == {"1": "1" * 64, "3": "3" * 64}
    assert Receipts(tmp_path).of(3) == "3" * 64
