"""Readers of titles, years, categories and user attributes."""

from pathlib import Path

import pytest

from common.catalogue import SCHEMA
from common.errors import DataFormatError
from common.item_readers import read_items, read_tags, read_users, tag_text


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        (
            "ml.item",
            "item_id:token\tmovie_title:token_seq\trelease_year:token\t"
            "class:token_seq\n1\tToy Story\t1995\tAnimation Comedy\n"
            "2\tunknown\t\t\n",
            [
                ("1", "Toy Story (1995)", 1995, ["Animation", "Comedy"]),
                ("2", "unknown", 0, []),
            ],
        ),
        (
            "u.item",
            "1|Café (1995)|d||u|0|1" + "|0" * 17 + "\n267|unknown||||1" + "|0" * 18,
            [("1", "Café (1995)", 1995, ["Action"]), ("267", "unknown", 0, [])],
        ),
        (
            "movies.dat",
            "1::Heat (1995)::Action|Crime\n",
            [("1", "Heat (1995)", 1995, ["Action", "Crime"])],
        ),
        (
            "movies.csv",
            'movieId,title,genres\n1,"Heat, The (1995)",Action|Crime\n'
            "2,X,(no genres listed)\n",
            [("1", "Heat, The (1995)", 1995, ["Action", "Crime"]), ("2", "X", 0, [])],
        ),
    ],
)
def test_items(tmp_path: Path, name: str, content: str, rows) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    frame = read_items(path)
    assert frame.schema == SCHEMA
    assert frame.rows() == rows


def test_users(tmp_path: Path) -> None:
    (tmp_path / "u.user").write_text("1|24|M|writer|85711\n")
    (tmp_path / "x.user").write_text("user_id:token\tage:token\n1\t24\n")
    assert read_users(tmp_path / "u.user").row(0, named=True) == {
        "user": "1",
        "age": "24",
        "gender": "M",
        "occupation": "writer",
        "zip_code": "85711",
    }
    assert read_users(tmp_path / "x.user").row(0) == ("1", "24")


def test_a_short_row_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_text("1::A::B\n2::C\n")
    with pytest.raises(DataFormatError, match="line 2"):
        read_items(tmp_path / "movies.dat")
    with pytest.raises(DataFormatError, match="name ending in"):
        read_items(tmp_path / "movies.xyz")


@pytest.mark.parametrize("name", ["movies.dat", "users.dat", "u.user", "u.item"])
def test_a_file_of_too_few_fields_is_refused_with_its_line(tmp_path, name) -> None:
    (tmp_path / name).write_text("\n1\n")
    reader = read_items if name in ("movies.dat", "u.item") else read_users
    with pytest.raises(DataFormatError, match=r"line \d"):
        reader(tmp_path / name)


TAGS = (
    "userId,movieId,tag,timestamp\n"
    '1,60,"Funny, ha",9\n2,60,dark,9\n3,60,Dark,9\n3,60,dark,8\n2,71,Slow,9\n'
    "4,60,secret,9\n"
)


def test_tags_are_public_users_tags_the_commonest_first(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text(TAGS)
    tags = read_tags(tmp_path / "tags.csv")
    assert tags.columns == ["user", "item", "tag"]
    assert tags.row(0) == ("1", "60", "Funny, ha")
    found = tag_text(tags, ["1", "2", "3"])
    assert found == {"60": "dark, funny, ha", "71": "slow"}
    assert tag_text(tags, []) == {}


def test_a_private_users_tags_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text(TAGS)
    tags = read_tags(tmp_path / "tags.csv")
    without = tags.filter(tags["user"] != "4")
    public = {"1", "2", "3"}
    assert tag_text(tags, public) == tag_text(without, public)


def test_tags_without_their_column_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("userId,movieId,label\n1,2,x\n")
    with pytest.raises(DataFormatError, match="line 1: expected one column named tag"):
        read_tags(tmp_path / "tags.csv")
