"""A node whose clock is wrong: the same command, with the time shifted in its process.

Simulations only. Run as ``python -m simulations.faults.clock SECONDS node FOLDER …``.
Flower signs the node's time into each call, by a function of its own; that one and
``time.time`` are shifted. The app's process, which the node starts, keeps its clock.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Sequence


def command(node: Sequence[str], ahead: float) -> list[str]:
    """A node's command, with a clock that is ahead by so many seconds."""
    python, start = node[0], node.index("client") + 1
    module = ["-P", "-m", "simulations.faults.clock", str(ahead)]
    return [python, *module, *node[start:]]


def shift(ahead: float) -> None:
    """Shift this process's clock; before anything of Flower's is imported."""
    from flwr.supercore import date

    true_time, delta = time.time, datetime.timedelta(seconds=ahead)
    time.time = lambda: true_time() + ahead
    date.now = lambda: datetime.datetime.now(tz=datetime.UTC) + delta


def main() -> None:
    """Be the client with the shifted clock."""
    shift(float(sys.argv.pop(1)))
    from client.__main__ import app
    from common.command_line import run

    run(app)


if __name__ == "__main__":
    main()
