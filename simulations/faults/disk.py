"""A small disk in place of a folder, to be filled to its last byte.

Simulations only. A file system in memory is mounted over the folder, which only the
system's administrator may; where it is not allowed, :func:`is_allowed` says so.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILLER = "filler"
#: Blocks of a file system in memory.
PAGE = 4096


def is_allowed(folder: Path) -> bool:
    """Whether a disk may be mounted over this folder; it is taken off again."""
    if shutil.which("mount") is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    if _run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)):
        return _run("umount", str(folder))
    return False


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of this size that holds what the folder held, and goes with the block.

    What was written to it is in the folder afterwards. No process may be at work in
    the folder when the block begins or ends.
    """
    aside = folder.with_name(f".{folder.name}.aside")
    shutil.copytree(folder, aside)
    mode = f"{folder.stat().st_mode & 0o777:o}"
    options = f"size={megabytes}m,mode={mode}"
    subprocess.run(  # noqa: S603 - our own folder, no shell
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],  # noqa: S607
        check=True,
    )
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        yield folder
    finally:
        free(folder)
        shutil.rmtree(aside)
        shutil.copytree(folder, aside)
        _run("umount", "--lazy", str(folder))
        shutil.rmtree(folder)
        aside.rename(folder)


def fill(disk: Path) -> None:
    """Leave not a page on it."""
    with (disk / FILLER).open("ab", buffering=0) as file:
        for size in (1 << 20, PAGE):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def free(disk: Path) -> None:
    """Give the room back."""
    (disk / FILLER).unlink(missing_ok=True)


def _run(*command: str) -> bool:
    done = subprocess.run(  # noqa: S603 - our own folder, no shell
        command, capture_output=True, check=False
    )
    return done.returncode == 0
