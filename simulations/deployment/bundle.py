"""The Flower App Bundle of this very installation, byte for byte the same each time.

Simulations only: it packs the rooms of server and client together. The file is what
clients pin, so it is built once, kept beside its hash and submitted as it lies there.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

import client
import common
import server
from common.config import project_file
from common.durable_files import write_durably
from common.errors import ConfigError

BUNDLE = "tutela.fab"
HASH = "sha256"
LICENSE = "LICENSE"


def sources() -> dict[str, bytes]:
    """What a bundle is made of: its path within → its bytes."""
    found = {"pyproject.toml": project_file().read_bytes(), LICENSE: _license()}
    for room in (common, server, client):
        folder = Path(str(room.__file__)).parent
        for path in folder.rglob("*.py"):
            name = path.relative_to(folder.parent).as_posix()
            found[name] = path.read_bytes()
    return found


def _license() -> bytes:
    """Beside the sources, or with an installed wheel's metadata."""
    path = Path(str(common.__file__)).parents[1] / LICENSE
    if path.is_file():
        return path.read_bytes()
    text = metadata.distribution("tutela").read_text(f"licenses/{LICENSE}")
    if text is None:
        raise ConfigError(f"Expected {LICENSE} with this installation; install again.")
    return text.encode()


def build_bundle(folder: Path) -> tuple[Path, str]:
    """Write the bundle and its hash into a folder.

    Returns:
        The bundle's file and its SHA-256, hexadecimal.

    Raises:
        ConfigError: if Flower finds that these files make no bundle.
    """
    from flwr.cli.build import build_fab_from_files

    try:
        content, _ = build_fab_from_files(sources())
    except ValueError as error:
        raise ConfigError(f"The bundle could not be built: {error}") from None
    name = hashlib.sha256(content).hexdigest()
    write_durably(folder / BUNDLE, content, mode=0o644)
    write_durably(folder / HASH, f"{name}\n".encode(), mode=0o644)
    return folder / BUNDLE, name


def read_bundle(folder: Path) -> tuple[bytes, str]:
    """The bundle of a folder and its hash.

    Raises:
        ConfigError: if either is missing, or they do not belong together.
    """
    path, kept = folder / BUNDLE, folder / HASH
    if not path.is_file() or not kept.is_file():
        raise ConfigError(f"Expected {BUNDLE} and {HASH} in {folder}.")
    content, name = path.read_bytes(), kept.read_text("ascii").strip()
    if hashlib.sha256(content).hexdigest() != name:
        raise ConfigError(f"{path}: expected the bundle whose SHA-256 is {name}.")
    return content, name
