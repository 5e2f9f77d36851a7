"""Data sets by name and folder, and fetching them."""

import functools
import http.server
import shutil
import threading
import zipfile
from pathlib import Path

import polars as pl
import pytest

from common.errors import ConfigError, DataFormatError, DataUnavailableError
from simulations import fetching
from simulations.datasets import load, read_folder
from simulations.datasets.books import mend_encoding, read_books
from simulations.fetching import fetch

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="shared data folder not present"
)
FILES = {
    "u.data": "1\t1\t5\t900\n",
    "u.item": "1|A (1995)|||u" + "|0" * 19 + "\n",
    "u.user": "1|24|M|writer|85711\n",
}


@pytest.fixture
def own_copy(tmp_path: Path, monkeypatch) -> Path:
    """A tiny ml-100k of our own, with its checksums pinned."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    sums = {name: fetching._sha256(folder / name) for name in FILES}
    monkeypatch.setattr(fetching, "GROUPLENS_FILES", sums)
    monkeypatch.setenv("TUTELA_CACHE", str(tmp_path / "cache"))
    return folder


def archive(folder: Path, path: Path, prefix: str) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        for name in FILES:
            bundle.write(folder / name, f"{prefix}/{name}")
    return path


def test_a_copy_of_ones_own_is_kept_and_then_works_offline(own_copy: Path) -> None:
    first = fetch("ml-100k", str(own_copy))
    assert "verified" in first.statement
    shutil.rmtree(own_copy)
    again = fetch("ml-100k")
    assert "was there already" in again.statement
    data = load("ml-100k")
    assert data.interactions.rows() == [("1", "1", 5.0, 900)]
    assert data.name == "ml-100k"


def test_a_damaged_cache_is_replaced_and_said(own_copy: Path) -> None:
    folder = fetch("ml-100k", str(own_copy)).folder
    (folder / "u.data").write_text("1\t1\t1\t900\n")
    again = fetch("ml-100k", str(own_copy))
    assert "was damaged and is replaced" in again.statement
    assert (folder / "u.data").read_text() == FILES["u.data"]


def test_a_file_with_another_checksum_is_not_kept(own_copy: Path) -> None:
    (own_copy / "u.item").write_text(FILES["u.item"].replace("A", "B"))
    with pytest.raises(DataUnavailableError, match=r"u\.item: expected SHA-256"):
        fetch("ml-100k", str(own_copy))
    assert not fetching.cache_folder().joinpath("ml-100k").exists()


def test_the_publishers_zip_over_http(own_copy: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    archive(own_copy, site / "ml-100k.zip", "ml-100k")
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(site)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/ml-100k.zip"
        statement = fetch("ml-100k", "grouplens", url).statement
        server.shutdown()
    assert url in statement
    with pytest.raises(DataUnavailableError, match="did not answer"):
        shutil.rmtree(fetching.cache_folder())
        fetch("ml-100k", "grouplens", url)


def test_the_wheel_is_verified_before_it_is_opened(
    own_copy: Path, tmp_path: Path, monkeypatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    wheel = archive(own_copy, index / "recbole-1.2.1-py3-none-any.whl", "data")
    with zipfile.ZipFile(wheel, "a") as bundle:
        name = "recbole-1.2.1.dist-info"
        bundle.writestr(
            f"{name}/METADATA", "Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n"
        )
        bundle.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        bundle.writestr(f"{name}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(DataUnavailableError, match=r"whl: expected SHA-256"):
        fetch("ml-100k")
    monkeypatch.setattr(fetching, "WHEEL_SHA256", fetching._sha256(wheel))
    assert "wheel of recbole==1.2.1" in fetch("ml-100k").statement


def test_without_any_source_it_says_what_to_do(own_copy: Path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(DataUnavailableError, match="--from grouplens, or --from FOLD"):
        fetch("ml-100k")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "expected ml-100k, synthetic or a folder"),
        ("synthetic:users=3", "expected synthetic:key=number"),
        ("synthetic:num_users=x", "expected synthetic:key=number"),
        ("synthetic:num_users=0", "expected sizes"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(name)


def test_an_unrecognised_folder_lists_what_is(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"u\.data, u\.item"):
        read_folder(tmp_path)


def test_synthetic_is_skewed_clustered_and_repeats() -> None:
    name = "synthetic:num_users=300,num_items=100,interactions_per_user=10,seed=4"
    data, again = load(name), load(name)
    assert data.interactions.equals(again.interactions)
    counts = data.interactions.group_by("item").len()["len"].sort(descending=True)
    assert counts[:10].sum() > 2.5 * counts.sum() / 10
    cluster = dict(data.users.iter_rows())
    category = {
        item: names[0].removeprefix("cluster-")
        for item, names in data.catalogue.table.select("item", "categories").iter_rows()
    }
    own = [
        cluster[user] == category[item]
        for user, item in data.interactions.select("user", "item").iter_rows()
    ]
    assert 0.5 < sum(own) / len(own) < 1.0


@needs_shared
def test_movielens_1m_from_the_sequences_as_published() -> None:
    data = load(str(SHARED / "ml-1m"))
    assert data.catalogue.num_items == 3416
    assert data.interactions["user"].n_unique() == 6040
    assert data.interactions.height == 987_019 + 2 * 512 + 6040
    assert not data.interactions.select("user", "item").is_duplicated().any()
    assert data.catalogue.find("Toy Story (1995)") >= 0


@needs_shared
def test_movielens_100k_reads_alike_raw_and_from_the_cache() -> None:
    raw = load(str(SHARED / "ml-100k"))
    assert (raw.interactions.height, raw.catalogue.num_items) == (100_000, 1682)
    assert raw.catalogue.table["title"][266] == "unknown"


# ------------------------------------------------- sets as they were published
PUBLISHED = {
    # folder: (interactions, users, items declared, pairs merged)
    "ml-100k": (100_000, 943, 1682, 0),
    "ml-latest-small": (100_836, 610, 9742, 0),
    "hetrec2011-lastfm-2k": (92_834, 1892, 17_632, 0),
    "amazon-instant-video": (63_836, 8072, 11_830, 0),
    "retailrocket": (79_595, 3431, 8885, 12_892),
    "book-crossing": (272_678, 2946, 17_384, 62_656),
    "citeulike-a": (204_986, 5551, 16_980, 0),
    "msweb": (113_845, 37_711, 294, 0),
}


@needs_shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_each_published_set_is_read_as_it_is(name: str) -> None:
    data = load(str(SHARED / name))
    merged = sum(report.repaired.get("duplicates", 0) for report in data.reports)
    found = (
        data.interactions.height,
        data.interactions["user"].n_unique(),
        data.catalogue.num_items,
        merged,
    )
    assert found == PUBLISHED[name]
    assert not data.interactions.select("user", "item").is_duplicated().any()
    if data.users is not None:
        people = set(data.users["user"].to_list())
        assert set(data.interactions["user"].to_list()) <= people


@needs_shared
def test_lastfm_repairs_its_damaged_ids_as_the_clean_copy_has_them() -> None:
    folder = SHARED / "hetrec2011-lastfm-2k"
    data = load(str(folder))
    assert "blanks stripped around fields of 8 rows" in str(data.reports[0])
    clean = [
        line.split("\t")
        for line in (folder / "user_artist_reindexed.dat").read_text().splitlines()
    ]
    rows = data.interactions.rows()
    assert [row[2] for row in rows] == [float(line[2]) for line in clean]
    # One artist of ours is one of theirs, and the other way round.
    pairs = {(row[1], line[1]) for row, line in zip(rows, clean, strict=True)}
    assert len(pairs) == 17_632
    assert max(row[2] for row in rows) == 352_698.0
    assert data.catalogue.find("Radiohead") >= 0


@needs_shared
def test_books_have_their_authors_years_and_encodings_back() -> None:
    data = load(str(SHARED / "book-crossing"))
    table = data.catalogue.table
    told = "\n".join(map(str, data.reports))
    assert "ages outside 5–100 blanked: 16 users" in told
    assert "decoded again: 268 books" in told
    little_prince = table.filter(pl.col("text").str.contains("Saint-Exupéry"))
    assert "The Little Prince" in little_prince["title"].to_list()
    titles = table["title"].to_list()
    assert "Die Säulen der Erde. Roman." in titles
    assert "Foundation (Foundation Series; Bk 1)" in titles
    assert table.filter(pl.col("title") == "Decision in Normandy")["year"][0] == 1991
    assert table["year"].max() <= 2004
    assert data.interactions["value"].n_unique() == 11
    explicit = data.interactions.filter(pl.col("value") > 0)
    assert (explicit.height, explicit["user"].n_unique()) == (62_656, 1295)


@needs_shared
def test_of_a_visitors_events_the_strongest_is_kept() -> None:
    data = load(str(SHARED / "retailrocket"))
    counts = dict(data.interactions.group_by("value").len().iter_rows())
    assert counts[3.0] == 5088
    assert sum(counts.values()) == data.interactions.height
    assert "README swaps" in str(data.reports[-1])


@needs_shared
def test_web_users_of_the_two_files_are_different_people() -> None:
    data = load(str(SHARED / "msweb"))
    parts = dict(data.users["part"].value_counts().iter_rows())
    assert parts == {"train": 32_711, "test": 5000}
    support = data.catalogue.find("Support Desktop")
    assert data.catalogue.table["text"][support] == "support"


@needs_shared
def test_tags_are_users_rows_and_stay_out_of_the_catalogue() -> None:
    data = load(str(SHARED / "ml-latest-small"))
    assert (data.catalogue.table["text"] == "").all()
    assert "tags are users' rows" in str(data.reports[0])


BOOK = (
    "1\t01\t{title}\t{author}\t{year}\tPress &amp\t Co\thttp://a\thttp://b\thttp://c\t"
)


@pytest.mark.parametrize(
    ("title", "author", "year", "expected"),
    [
        ("It", "King", "1986", ("It", 1986, "King, Press & Co")),
        ("It\t Vol. 2", "King", "1986", ("It; Vol. 2", 1986, "King, Press & Co")),
        ("It", "King", "2050", ("It", 0, "King, Press & Co")),
        ("ErzÃ?Â¤hlt", "RenÃ©", "0", ("Erzählt", 0, "René, Press & Co")),
    ],
)
def test_a_line_of_the_book_file_is_put_together_again(
    tmp_path: Path, title: str, author: str, year: str, expected: tuple
) -> None:
    path = tmp_path / "items_info.dat"
    line = BOOK.format(title=title, author=author, year=year)
    path.write_text(f"Book_ID\theader\n{line}\n", encoding="utf-8")
    catalogue, report = read_books(path)
    found = catalogue.table.select("title", "year", "text").row(0)
    assert found == expected
    assert "entities closed: 1 books" in str(report)


def test_a_line_without_images_is_dropped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "items_info.dat"
    good = BOOK.format(title="It", author="King", year="1986")
    path.write_text(f"header\n{good}\n2\tbroken\n{good}\n", encoding="utf-8")
    catalogue, report = read_books(path)
    assert catalogue.num_items == 1
    assert report.repaired == {"fields": 1, "duplicates": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Erzählung", "Erzählung"),
        ("plain", "plain"),
        ("Ã", "Ã"),
        ("ClÃ\xa0ssica", "Clàssica"),
    ],
)
def test_only_what_was_decoded_wrongly_is_decoded_again(
    text: str, expected: str
) -> None:
    assert mend_encoding(text) == expected


def test_a_count_that_is_not_that_of_its_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "users.dat").write_text("2 5 6\n3 5 6\n")
    with pytest.raises(DataFormatError, match=r"users\.dat, line 2: expected the numb"):
        load(str(tmp_path))


@pytest.mark.parametrize("line", ["V,1,1", "A,1,1", 'C,"1"'])
def test_a_damaged_record_is_named(tmp_path: Path, line: str) -> None:
    whole = 'A,1000,1,"Home","/home"\nC,"1",1\nV,1000,1\n'
    (tmp_path / "anonymous-msweb.data").write_text(f"{line}\n{whole}")
    (tmp_path / "anonymous-msweb.test").write_text(whole)
    with pytest.raises(DataFormatError, match=r"msweb\.data, line 1: expected A,id"):
        load(str(tmp_path))


def test_web_visits_twice_merged_and_unknown_areas_counted(tmp_path: Path) -> None:
    whole = 'A,1000,1,"Home","/home"\nC,"1",1\nV,1000,1\nV,1000,1\nV,2000,1\n'
    (tmp_path / "anonymous-msweb.data").write_text(whole)
    (tmp_path / "anonymous-msweb.test").write_text(whole)
    data = load(str(tmp_path))
    assert data.interactions["user"].to_list() == ["1", "test-1"]
    for report in data.reports:
        assert report.repaired == {"item": 1, "duplicates": 1}
        assert (report.rows, report.kept) == (3, 1)


def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "book_crossing.zip").write_bytes(b"PK no zip")
    with pytest.raises(DataFormatError, match="expected a sound zip"):
        load(str(tmp_path))
    with zipfile.ZipFile(tmp_path / "book_crossing.zip", "w") as bundle:
        bundle.writestr("book_ratings.dat", "user\titem\trating\n")
    with pytest.raises(DataFormatError, match=r"one member book_history\.dat"):
        load(str(tmp_path))
