"""Zips of data files: unpacked where nothing else lies, then read as usual.

Simulations only: the published archives of the e-commerce and the book set.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from common.errors import DataFormatError
from common.repairs import ReadReport

#: No published member is near it; a bomb is.
LARGEST_MEMBER = 2**30


@contextmanager
def unpacked(archive: Path, names: tuple[str, ...]) -> Iterator[Path]:
    """A folder, while the block lasts, with these members, whatever folder held them.

    Raises:
        DataFormatError: if it is no zip, or lacks a member, or one is too large.
    """
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch)
        try:
            with zipfile.ZipFile(archive) as bundle:
                for name in names:
                    (target / name).write_bytes(_member(bundle, name, archive))
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise DataFormatError(f"{archive}: expected a sound zip.") from error
        yield target


def _member(bundle: zipfile.ZipFile, name: str, archive: Path) -> bytes:
    found = [info for info in bundle.infolist() if Path(info.filename).name == name]
    if len(found) != 1 or found[0].file_size > LARGEST_MEMBER:
        raise DataFormatError(
            f"{archive}: expected one member {name} of at most {LARGEST_MEMBER} bytes, "
            f"found {len(found)}."
        )
    return bundle.read(found[0])


def under(archive: Path, report: ReadReport) -> ReadReport:
    """The report of an unpacked file, under the archive it came from."""
    return replace(report, path=archive / report.path.name)
