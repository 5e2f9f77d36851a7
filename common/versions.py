"""Formats by name and number (``tutela-student-1``), and what to do about another one.

In ``common`` because every zone keeps files, and each must say the same of one that it
does not know: what was expected, what came, what to do. ``docs/upgrades.md`` lists all
formats; a number goes up when the meaning of a file changes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from common.errors import DataFormatError


def check_format(where: str, found: object, known: Sequence[str]) -> str:
    """The format, if it is one of ``known``.

    Args:
        where: the file, as the message should name it.
        found: what the file says of itself; anything.
        known: the formats that are read, oldest first.

    Raises:
        DataFormatError: saying which came, if it is a number of the same family, and
            what to do about it.
    """
    if isinstance(found, str) and found in known:
        return found
    expected = " or ".join(known)
    number = _number_of(found, known)
    if number is None:
        # What a file of another kind calls itself is not repeated: it may be long.
        raise DataFormatError(
            f"{where}: expected format {expected}, got another or none; it is no such "
            "file, or damaged."
        )
    todo = advice(number, _newest(known))
    raise DataFormatError(f"{where}: expected format {expected}, got {found}. {todo}")


def advice(found: int, newest: int) -> str:
    """What to do about a version that is not read."""
    if found > newest:
        return (
            "A newer Tutela wrote it: update this one, or read it with the one that "
            "wrote it."
        )
    return "An older Tutela wrote it: read it with that one, or make it anew."


def _newest(known: Sequence[str]) -> int:
    return max(int(each.rpartition("-")[2]) for each in known)


def _number_of(found: object, known: Sequence[str]) -> int | None:
    """The number of a format of a known family, ``None`` for anything else."""
    families = "|".join({re.escape(each.rpartition("-")[0]) for each in known})
    text = found if isinstance(found, str) else ""
    match = re.fullmatch(rf"(?:{families})-([0-9]{{1,6}})", text)
    return int(match[1]) if match else None
