"""Files that must be whole, lasting or secret: each written so, or not at all.

In ``common`` because the server keeps a signing key and receipts as the client keeps
its id key, its witness and its last reply, and both keep students.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from common.errors import ConfigError

SECRET_BYTES = 32


def write_durably(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file: afterwards it holds the old bytes or the new, through a crash.

    It is on disk when the call returns, and its owner's alone unless ``mode`` says
    otherwise.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.new")
    opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(opened, "wb") as file:
            os.fchmod(opened, mode)  # one left behind by a crash keeps its own mode
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's own entries (a new or renamed file) last."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def check_owners_alone(path: Path) -> None:
    """Refuse a secret that others than its owner may read, write or run.

    Raises:
        ConfigError: naming the file; not its folder, since a log may quote it.
    """
    if path.stat().st_mode & 0o077:
        raise ConfigError(
            f"{path.name}: others may read this secret; run chmod 600 on it, and "
            "replace it if somebody did."
        )


def read_or_create_secret(path: Path) -> bytes:
    """A secret of 32 bytes, drawn from the operating system when first asked for.

    Raises:
        ConfigError: if others may read the file, or it holds something else.
    """
    if not path.exists():
        write_durably(path, secrets.token_bytes(SECRET_BYTES))
    check_owners_alone(path)
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise ConfigError(f"{path.name}: expected {SECRET_BYTES} bytes, got others.")
    return secret
