"""Readers: clean files, every wart, and the message that names its place."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.columns import Columns
from common.errors import ConfigError, DataFormatError
from common.interactions import SCHEMA
from common.readers import READERS, read_interactions
from common.repairs import Repairs

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="shared data folder not present"
)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


EXPECTED = [("1", "10", 5.0, 900), ("2", "11", 3.0, 901)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "x.inter",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
            "1\t10\t5\t900\n2\t11\t3\t901\n",
        ),
        ("u.data", "1\t10\t5\t900\n2\t11\t3\t901\n"),
        ("ratings.dat", "1::10::5::900\n2::11::3::901\n"),
        ("x.csv", "userId,movieId,rating,timestamp\n1,10,5,900\n2,11,3,901\n"),
        ("x.csv", 'userId,movieId,rating,timestamp\n"1","10",5,900\n2,11,3,901'),
        ("x.tsv", "user\titem\tvalue\ttimestamp\n1\t10\t5\t900\n2\t11\t3\t901\n"),
    ],
)
def test_each_format_gives_the_same_table(tmp_path: Path, name, text) -> None:
    read = read_interactions(write(tmp_path / name, text))
    assert read.frame.schema == SCHEMA
    assert read.frame.rows() == EXPECTED
    assert (read.report.rows, read.report.kept, read.report.repaired) == (2, 2, {})


def test_parquet_with_named_columns(tmp_path: Path) -> None:
    frame = pl.DataFrame({"u": [1, 2], "i": [10, 11], "r": [5, 3], "t": [900, 901]})
    frame.write_parquet(tmp_path / "x.parquet")
    read = read_interactions(
        tmp_path / "x.parquet", columns=Columns("u", "i", "r", "t")
    )
    assert read.frame.rows() == EXPECTED


def test_parquet_with_times_lists_and_brackets_in_its_name(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "user": [1, 2],
            "item": [10, 11],
            "tags": [["a"], []],
            "value": [5, 3],
            "time": pl.from_epoch(pl.Series([900, 901]), "s"),
        }
    )
    frame.write_parquet(tmp_path / "x[1].parquet")
    assert read_interactions(tmp_path / "x[1].parquet").frame.rows() == EXPECTED


def test_damaged_parquet_is_a_format_error(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pl.DataFrame({"user": ["1"], "item": ["2"]}).write_parquet(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :]
        )
        try:
            assert read_interactions(path).frame.schema == SCHEMA
        except DataFormatError as error:
            assert str(path) in str(error)
    with pytest.raises(DataFormatError, match="no readable file"):
        read_interactions(tmp_path / "none.parquet")


def test_sequences_number_users_by_line_and_keep_order(tmp_path: Path) -> None:
    path = write(tmp_path / "input.txt", "7 3 9\n\n3\n")
    read = read_interactions(path)
    assert read.frame.rows() == [
        ("1", "7", 1.0, 0),
        ("1", "3", 1.0, 1),
        ("1", "9", 1.0, 2),
        ("3", "3", 1.0, 0),
    ]
    assert "1 blank lines passed over" in read.report.notes


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("1\t10\t5\t900\n2\t11\t3\n", "line 2: expected as many fields"),
        ("1\t10\t5\t900\n2\t11\tfive\t901\n", "line 2, column 3 (value)"),
        ("1\t10\tnan\t900\n", "line 1, column 3 (value)"),
        ("1\t10\tinf\t900\n", "line 1, column 3 (value)"),
        ("1\t10\t5\t900\n\n \t11\t3\t901\n", "line 3, column 1 (user)"),
        ("1\t10\t5\t900\n2\t-4\t3\t901\n", "line 2, column 2 (item)"),
        ("1\t10\t5\tyesterday\n", "line 1, column 4 (timestamp)"),
        ("1\t10\t5\t900\n1\t10\t4\t901\n", "line 2: expected each user and item once"),
    ],
)
def test_damage_is_named_by_line_and_column(tmp_path: Path, text, place) -> None:
    path = write(tmp_path / "u.data", text)
    with pytest.raises(DataFormatError) as caught:
        read_interactions(path)
    assert str(path) in str(caught.value)
    assert place in str(caught.value)
    for value in ("five", "yesterday", "-4"):
        assert value not in str(caught.value).removeprefix(str(path))


def test_repairs_are_chosen_and_counted(tmp_path: Path) -> None:
    text = "1\t10\t5\t900\n1\t10\t4\t901\n2\t11\tx\t9\n3\t12\n \t1\t1\t1\n"
    path = write(tmp_path / "u.data", text)
    first = read_interactions(path, repairs=Repairs("drop", "keep_first"))
    assert first.frame.rows() == [("1", "10", 5.0, 900)]
    assert first.report.repaired == {
        "value": 1,
        "fields": 1,
        "user": 1,
        "duplicates": 1,
    }
    assert (first.report.rows, first.report.kept) == (5, 1)
    assert "dropped 1 for duplicates" in str(first.report)
    last = read_interactions(path, repairs=Repairs("drop", "keep_last"))
    assert last.frame.rows() == [("1", "10", 4.0, 901)]


def test_encodings_and_line_ends_are_noted(tmp_path: Path) -> None:
    bom = b"\xef\xbb\xbfuser,item\r\n1,caf\xc3\xa9\r\n"
    read = read_interactions(write(tmp_path / "a.csv", bom))
    assert read.frame.rows() == [("1", "café", 1.0, 0)]
    assert {"byte order mark stripped", "CRLF line ends"} <= set(read.report.notes)
    latin = b"user,item\n1,caf\xe9\n"
    read = read_interactions(write(tmp_path / "b.csv", latin))
    assert read.frame["item"].to_list() == ["café"]
    assert "not UTF-8: read as Latin-1" in read.report.notes


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\0\1\2\3", b"\xff\xfea\0"])
@pytest.mark.parametrize("format", sorted(READERS))
def test_empty_and_binary_files_are_refused(tmp_path: Path, content, format) -> None:
    path = write(tmp_path / "x", content)
    with pytest.raises(DataFormatError, match="expected"):
        read_interactions(path, format=format)


def test_missing_files_folders_and_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match="no readable file"):
        read_interactions(tmp_path / "none.csv")
    with pytest.raises(DataFormatError, match="a folder"):
        read_interactions(tmp_path, format="csv")
    with pytest.raises(DataFormatError, match="tells no format"):
        read_interactions(tmp_path / "none.xyz")
    with pytest.raises(DataFormatError, match="expected a format of"):
        read_interactions(tmp_path / "none.csv", format="nope")


def test_columns_are_named_or_recognised(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "who,what\n1,2\n")
    with pytest.raises(DataFormatError, match="one column for the user"):
        read_interactions(path)
    read = read_interactions(path, columns=Columns("who", "what"))
    assert read.frame.rows() == [("1", "2", 1.0, 0)]
    with pytest.raises(DataFormatError, match="'when' for the timestamp"):
        read_interactions(path, columns=Columns("who", "what", timestamp="when"))
    with pytest.raises(ConfigError, match="all by name or all by position"):
        Columns("who", 2)


@given(content=st.binary(max_size=200), format=st.sampled_from(sorted(READERS)))
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_bytes_give_a_table_or_a_format_error(tmp_path, content, format) -> None:
    path = write(tmp_path / "x", content)
    try:
        read = read_interactions(path, format=format)
    except DataFormatError:
        return
    assert read.frame.schema == SCHEMA
    assert read.report.kept == read.frame.height


ids = st.text("abcXYZ0189", min_size=1, max_size=6)
tables = st.lists(
    st.tuples(ids, ids, st.integers(-5, 99), st.integers(0, 2**31)),
    min_size=1,
    max_size=30,
    unique_by=lambda row: row[:2],
)


@given(rows=tables)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, rows) -> None:
    lines = ["\t".join(map(str, row)) for row in rows]
    path = write(tmp_path / "u.data", "\n".join(lines) + "\n")
    found = read_interactions(path).frame.rows()
    assert found == [(u, i, float(v), t) for u, i, v, t in rows]


@needs_shared
def test_published_files_are_read_whole() -> None:
    counts = {
        "ml-100k/u.data": 100_000,
        "ml-latest-small/ratings.csv": 100_836,
        "ml-1m/gsasrec/train/input.txt": 987_019,
    }
    for name, rows in counts.items():
        assert read_interactions(SHARED / name).report.kept == rows
