"""Progress of a run, read off the file that the server writes as it goes.

Simulations only. Following ``metrics.jsonl`` serves every engine alike: the server
may run in this process, in a thread, or elsewhere.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

Listener = Callable[[str, dict[str, Any]], None]
INTERVAL = 0.2


@contextmanager
def follow(
    path: Path, arm: str, listener: Listener, *, resumed: bool = False
) -> Iterator[None]:
    """Give ``listener`` each line of ``path`` while the block runs.

    Args:
        path: written anew; or, ``resumed``, gone on with after its last whole line.
    """
    done, start = threading.Event(), 0
    if resumed and path.is_file():
        start = path.read_bytes().rfind(b"\n") + 1
    else:
        path.unlink(missing_ok=True)
    thread = threading.Thread(target=_tail, args=(path, arm, listener, done, start))
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tail(
    path: Path, arm: str, listener: Listener, done: threading.Event, position: int
) -> None:
    last = False
    while not last:
        last = done.wait(INTERVAL)
        if not path.is_file():
            continue
        with path.open(encoding="utf-8") as file:
            file.seek(position)
            for line in iter(file.readline, ""):
                if not line.endswith("\n"):
                    break
                position += len(line.encode())
                listener(arm, json.loads(line))


@contextmanager
def reporter(arms: list[str], rounds: int, *, as_json: bool) -> Iterator[Listener]:
    """Bars on a terminal, lines of JSON for machines, silence otherwise."""
    if as_json:
        yield _print_json
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda arm, line: None
        return
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[phase]:<10}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks = {arm: progress.add_task(arm, total=rounds, phase="") for arm in arms}

        def show(arm: str, line: dict[str, Any]) -> None:
            if line["event"] == "phase":
                progress.update(tasks[arm], phase=line["phase"])
            elif line["event"] == "round":
                progress.update(tasks[arm], completed=line["round"])

        yield show


def _print_json(arm: str, line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps({"arm": arm, **line}) + "\n")
    sys.stdout.flush()
