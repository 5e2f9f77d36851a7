"""Strangers' words on the operator's terminal: shown, and unable to steer it.

Simulations only: the server app's log and those of the processes are printed by
``tutela deploy``, and each may quote what somebody sent. Within a line of ours such
words go through ``common.structured_logs.in_one_line`` instead.
"""

from __future__ import annotations

import re

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def plain(text: str) -> str:
    r"""The text without colours and control characters; lines and tabs stay.

    >>> plain("\x1b[92mINFO\x1b[0m: x\a\n")
    'INFO: x\n'
    """
    shown = _COLOUR.sub("", text)
    return "".join(c for c in shown if c.isprintable() or c in "\t\n")
