"""Data sets by name and folder, and fetching them."""

import functools
import http.server
import shutil
import threading
import zipfile
from pathlib import Path

import pytest

from common.errors import ConfigError, DataFormatError, DataUnavailableError
from simulations import fetching
from simulations.datasets import load, read_folder
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
