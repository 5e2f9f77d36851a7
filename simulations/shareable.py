"""What a report says of the machine that made it: names, never where things lie.

Simulations only, since only they report. A path tells user names, organisations and
how a disk is laid out; a run can be repeated without.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from common.config import FlatConfig, Scalar

#: In place of a figure over too few users.
SUPPRESSED = "suppressed"


def without_folders(value: str) -> str:
    """The last part of a path; other texts as they are.

    >>> without_folders("/home/ada/rows.csv"), without_folders("ml-100k")
    ('rows.csv', 'ml-100k')
    """
    trimmed = value.replace("\\", "/").rstrip("/")
    return trimmed.rpartition("/")[2] if "/" in trimmed else value


def shareable_command(arguments: Sequence[str]) -> str:
    """A command line without folders, also behind an equals sign."""
    words = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        words.append(without_folders(key) + equals + without_folders(value))
    return shlex.join(words)


def shareable_config(config: Mapping[str, Scalar]) -> FlatConfig:
    """A flat configuration whose texts hold no folders."""
    return {
        key: without_folders(value) if isinstance(value, str) else value
        for key, value in config.items()
    }
