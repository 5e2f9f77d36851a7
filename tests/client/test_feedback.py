"""Feedback on disk, and among the rows that training reads."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client.data import read_client_data
from client.feedback import (
    Feedback,
    FeedbackRow,
    decode_feedback,
    encode_feedback,
    feedback_table,
    merge,
    open_feedback,
    read_feedback,
)
from client.identifiers import folder_key, pseudonym
from client.store_key import FEEDBACK
from client.vault import Key
from common.errors import ConfigError, DataFormatError
from common.interactions import SCHEMA
from tests.client.conftest import NUM_ITEMS, rows, write_folder

ROOT = Path(__file__).parents[2]
KEY = Key(bytes(range(32)), stretched=False)
USER, NEW = "ab" * 16, "cd" * 16


def keep(folder: Path, *said: Feedback, key: Key | None = None) -> None:
    log = open_feedback(folder, key)
    for each in said:
        log.append(encode_feedback(each))
    log.close()


def of(user: str, *items: str) -> Feedback:
    return Feedback(user, tuple(FeedbackRow(item, 2.0, 5) for item in items))


def test_a_record_comes_back() -> None:
    said = Feedback(USER, (FeedbackRow("é", 0.5, 7), FeedbackRow("b")))
    assert decode_feedback(encode_feedback(said)) == said


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"user": "ab"}',
        b'{"user": 3, "rows": []}',
        b'{"user": "ab", "rows": 3}',
        b'{"user": "ab", "rows": [["i", 1.0, 5]]',
        b'{"user": "ab", "rows": [["i", 1, 5]]}',
        b'{"user": "ab", "rows": [["i", NaN, 5]]}',
        b'{"user": "ab", "rows": [["i", 1e39, 5]]}',
        b'{"user": "ab", "rows": [["i", 1.0, -5]]}',
        b'{"user": "ab", "rows": [["i", 1.0, true]]}',
        b'{"user": "ab", "rows": [["i", 1.0, 1e9]]}',
        b'{"user": "ab", "rows": [["i", 1.0, 5, 6]]}',
        b'{"user": "ab", "rows": [[7, 1.0, 5]]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_feedback_is_refused(record: bytes) -> None:
    with pytest.raises(DataFormatError, match="records of feedback"):
        decode_feedback(record)


def test_feedback_does_not_show_itself() -> None:
    assert USER not in repr(of(USER, "secret")) + repr(FeedbackRow("secret"))
    assert "secret" not in repr(of(USER, "secret"))


def test_known_pairs_count_once_and_rows_keep_their_order() -> None:
    imported = pl.DataFrame(
        [(USER, "a", 5.0, 1), (USER, "a", 4.0, 2), (NEW, "b", 3.0, 3)],
        schema=SCHEMA,
        orient="row",
    )
    said = feedback_table([of(NEW, "a", "b", "a"), of(USER, "a", "c")])
    found = merge(imported, said)
    assert found.rows() == [
        *imported.rows(),
        (NEW, "a", 2.0, 5),
        (USER, "c", 2.0, 5),
    ]
    assert dict(found.schema) == dict(SCHEMA)


@pytest.mark.parametrize("sealed", [False, True])
def test_training_reads_feedback_like_imported_rows(tmp_path, sealed) -> None:
    source = "file:../store.key" if sealed else ""
    folder = write_folder(tmp_path / "0000", rows(2), **{"store-key": source})
    (tmp_path / "store.key").write_bytes(KEY.secret)
    (tmp_path / "store.key").chmod(0o600)
    user = pseudonym("u1", folder_key(folder))
    key = KEY if sealed else None
    keep(folder, of(user, "i3", "i9"), of(NEW, "i0"), of(user, "i9"), key=key)
    data = read_client_data(folder)
    expected = np.zeros((3, NUM_ITEMS), np.float32)
    expected[0, [0, 1, 2, 3]] = expected[1, [3, 4, 5, 6, 9]] = expected[2, 0] = 1.0
    np.testing.assert_array_equal(data.histories.toarray(), expected)
    assert data.users.ids[1:] == (user, NEW), "nobody is renumbered"
    assert (b"i9" in (folder / FEEDBACK).read_bytes()) == (not sealed)


def test_the_same_rows_from_either_side_are_the_same_data(tmp_path: Path) -> None:
    """Privacy unit and width: a row's way into the folder changes nothing."""
    whole = write_folder(tmp_path / "a", rows(3))
    part = write_folder(tmp_path / "b", rows(2))
    (part / "id.key").write_bytes((whole / "id.key").read_bytes())
    key = folder_key(whole)
    table = rows(3)
    for name in ("u0", "u1", "u2"):
        items = table.filter(pl.col("user") == name)["item"].to_list()
        keep(part, of(pseudonym(name, key), *items))
    (part / "interactions.parquet").unlink()
    one, other = read_client_data(whole), read_client_data(part)
    assert one.users == other.users
    np.testing.assert_array_equal(one.histories.toarray(), other.histories.toarray())


def test_an_item_outside_the_catalogue_is_left_out_not_named(tmp_path, caplog) -> None:
    """It comes back with the catalogue: the log keeps it."""
    folder = write_folder(tmp_path / "0000", rows(2))
    keep(folder, of(NEW, "i1", "MARKER-XYZ"))
    data = read_client_data(folder)
    assert data.histories[2].indices.tolist() == [1]
    (record,) = caplog.records
    assert record.getMessage() == (
        "Feedback on items outside the declared catalogue is left out."
    )
    assert read_feedback(folder, None).height == 2


def test_a_user_of_unknown_items_alone_is_nobody(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "0000", rows(2))
    keep(folder, of(NEW, "MARKER-XYZ"))
    assert read_client_data(folder).histories.shape == (2, NUM_ITEMS)


def test_a_user_that_is_no_pseudonym_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "0000", rows(2))
    keep(folder, of("Ann", "i1"))
    with pytest.raises(DataFormatError, match="keyed hashes"):
        read_client_data(folder)


def test_without_the_key_training_stops(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "0000", rows(2))
    keep(folder, of(NEW, "i1"), key=KEY)
    with pytest.raises(ConfigError, match="Expected a key"):
        read_client_data(folder)


WRITER = """
    import sys
    from pathlib import Path
    from client.feedback import Feedback, FeedbackRow, encode_feedback, open_feedback
    from client.vault import Key

    log = open_feedback(Path(sys.argv[1]), Key(bytes(range(32)), stretched=False))
    for number in range(10**6):
        said = Feedback("ab" * 16, (FeedbackRow(f"i{number}"),))
        log.append(encode_feedback(said))
        print(number, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [3, 40])
def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path, acknowledged) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for _ in range(acknowledged):
            last = int(writer.stdout.readline())
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        # Of the same buffer as the lines before; communicate() would look beside it.
        rest = writer.stdout.read()
        writer.wait(20)
    whole = rest[: rest.rfind("\n") + 1].split()
    last = int(whole[-1]) if whole else last
    items = read_feedback(tmp_path, KEY)["item"].to_list()
    assert items[: last + 1] == [f"i{n}" for n in range(last + 1)]
    assert len(items) in (last + 1, last + 2), "at most one was on disk, not yet told"
    keep(tmp_path, of(NEW, "after"), key=KEY)
    assert read_feedback(tmp_path, KEY)["item"].to_list() == [*items, "after"]
