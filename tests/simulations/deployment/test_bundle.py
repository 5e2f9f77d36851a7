"""The bundle that clients pin: the same bytes each time, and Flower's own."""

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

import common
from client.deploy.pins import read_bundle as files_of
from common.errors import ConfigError
from simulations.deployment import bundle as module
from simulations.deployment.bundle import BUNDLE, HASH, build_bundle, read_bundle

ROOT = Path(common.__file__).parents[1]
ROOMS = ("common", "server", "client")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """One build for all."""
    folder = tmp_path_factory.mktemp("bundle")
    return folder, *build_bundle(folder)


def test_it_lies_beside_its_hash(built):
    folder, path, name = built
    assert path == folder / BUNDLE
    assert name == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (folder / HASH).read_text() == f"{name}\n"
    assert read_bundle(folder) == (path.read_bytes(), name)


def test_the_same_sources_give_the_same_bytes(tmp_path, monkeypatch):
    sources = module.sources()
    monkeypatch.setattr(module, "sources", lambda: dict(reversed(sources.items())))
    first = build_bundle(tmp_path / "a")[1]
    monkeypatch.setattr(module, "sources", lambda: sources)
    assert build_bundle(tmp_path / "b")[1] == first
    monkeypatch.setattr(module, "sources", lambda: sources | {"client/x.py": b"1"})
    assert build_bundle(tmp_path / "c")[1] != first


def test_it_is_what_flower_builds_from_a_checkout(tmp_path, monkeypatch):
    from flwr.cli.build import build_fab_from_disk

    copy = tmp_path / "tutela"
    copy.mkdir()
    for room in (*ROOMS, "simulations"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room, copy / room, ignore=ignored)
    for name in ("pyproject.toml", "LICENSE", "README.md", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    sources = {
        path.relative_to(copy).as_posix(): path.read_bytes()
        for room in ROOMS
        for path in (copy / room).rglob("*.py")
    }
    sources |= {n: (copy / n).read_bytes() for n in ("pyproject.toml", "LICENSE")}
    monkeypatch.setattr(module, "sources", lambda: sources)
    path, _ = build_bundle(tmp_path / "built")
    assert path.read_bytes() == build_fab_from_disk(copy)


def test_it_holds_the_rooms_and_no_simulations(built):
    names = set(files_of(built[1].read_bytes()))
    assert {"client/deploy/guard.py", "server/app.py", "LICENSE"} <= names
    assert {name.partition("/")[0] for name in names} == {
        *ROOMS,
        "LICENSE",
        "pyproject.toml",
    }
    with zipfile.ZipFile(built[1]) as packed:
        assert ".info/CONTENT" in packed.namelist()


def test_files_that_make_no_bundle_are_an_error_of_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "sources", lambda: {"pyproject.toml": b"[project]\n"})
    with pytest.raises(ConfigError, match="could not be built"):
        build_bundle(tmp_path)


def test_a_bundle_and_another_s_hash_are_refused(built, tmp_path):
    with pytest.raises(ConfigError, match=BUNDLE):
        read_bundle(tmp_path)
    for name in (BUNDLE, HASH):
        shutil.copy(built[0] / name, tmp_path)
    (tmp_path / HASH).write_text("0" * 64)
    with pytest.raises(ConfigError, match="0000"):
        read_bundle(tmp_path)
