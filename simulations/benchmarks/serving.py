"""How quickly a device answers: latency on one core, calls a second on two.

Simulations only: it makes up a whole client. The service and its caller are processes
of their own over a Unix socket, the service on one core and the caller on another; a
pass is repeated and the quietest one (the least 99th percentile) stands for it, since
a machine has other things to do. All passes are in the figures.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.table import Table

from client.importing import write_rows
from client.serving.engine import choose_engine
from common.catalogue import SCHEMA, Catalogue, write_catalogue
from common.errors import ConfigError
from common.folders import CATALOGUE, STUDENT
from common.interactions import SCHEMA as ROWS
from common.student import StudentSpec, random_state, save_student

TITLE = "Serving on the device"
ITEMS, DIM, USERS, HISTORY = 3416, 64, 500, 60
#: Calls under way at once: one finds the service at rest, sixteen let it queue.
CALLERS = {"history": (1, 4, 16)}
OTHERS = (1, 4)
#: Seconds between two students delivered in the pass with hot swaps.
DELIVERY = 4.0
ROOT = Path(__file__).parents[2]


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """Passes by engine and kind of call, and one with students delivered meanwhile.

    Args:
        data: not read: catalogue, rows and students are made up.
    """
    seconds, times = (1.0, 1) if quick else (1.5, 6)
    engines = dict.fromkeys([choose_engine("auto"), "torch"])
    found: dict[str, Any] = {
        "items": ITEMS,
        "dim": DIM,
        "cores": _cores(),
        "seconds": seconds,
        "passes": times,
        "load_before": list(os.getloadavg()),
        "engines": {},
    }
    for engine in engines:
        with TemporaryDirectory() as place:
            folder = make_client(Path(place, "0000"))
            with service(folder, engine, _cores()[:1]) as address:
                found["engines"][engine] = _passes(address, seconds, times)
                found["engines"][engine]["swaps"] = _swapping(
                    folder, address, seconds * 8
                )
    found["load_after"] = list(os.getloadavg())
    return found


def tables(found: dict[str, Any]) -> list[Table]:
    """A row a kind of call: latency of one caller, rate of many."""
    shown = []
    for engine, kinds in found["engines"].items():
        table = Table(
            *("call", "callers", "p50 ms", "p99 ms", "calls/s", "errors"),
            title=f"{engine}, {found['items']} items, {found['dim']} dimensions; the "
            f"quietest of {found['passes']} passes of "
            f"{found['seconds']:g} s",
        )
        swaps = {"swaps": {"1": [kinds["swaps"]]}}
        for kind, passes in (kinds | swaps).items():
            for measured in passes.values():
                best = quietest(measured)
                table.add_row(
                    "history, students delivered" if kind == "swaps" else kind,
                    str(best["callers"]),
                    f"{best['p50']:.2f}",
                    f"{best['p99']:.2f}",
                    f"{best['rate']:,.0f}",
                    str(sum(sum(each["errors"].values()) for each in measured)),
                )
        shown.append(table)
    return shown


def quietest(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """The pass with the least 99th percentile."""
    return min(passes, key=lambda each: float(each["p99"]))


def make_client(folder: Path) -> Path:
    """A client's folder with made-up rows and a student of random numbers."""
    folder.mkdir(parents=True)
    columns = {
        "item": [f"item-{n}" for n in range(ITEMS)],
        "title": [f"A title of some length, part {n} (1999)" for n in range(ITEMS)],
        "year": [1999] * ITEMS,
        "categories": [[f"category {n % 18}"] for n in range(ITEMS)],
    }
    write_catalogue(Catalogue(pl.DataFrame(columns, schema=SCHEMA)), folder / CATALOGUE)
    draw = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"item-{item}", 1.0, 0)
        for user in range(USERS)
        for item in draw.choice(ITEMS, HISTORY, replace=False)
    ]
    write_rows(folder, pl.DataFrame(rows, schema=ROWS, orient="row"))
    deliver(folder, 0)
    return folder


def deliver(folder: Path, seed: int) -> None:
    """Rename a student of random numbers into place, as the Flower app does."""
    spec = StudentSpec(ITEMS, DIM, 20.0, 0.8)
    state = random_state(spec, torch.Generator().manual_seed(seed))
    save_student(folder / STUDENT, spec, state)


@contextmanager
def service(folder: Path, engine: str, cores: list[int]) -> Iterator[str]:
    """A running service on these cores; its address."""
    command = [sys.executable, "-m", "client", "serve", str(folder), "--rate", "0"]
    # Each call of feedback comes from a new user.
    limits = ["--most-users", "100000000"]
    running = subprocess.Popen(  # noqa: S603 - our own module
        [*command, "--engine", engine, *limits],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    os.sched_setaffinity(running.pid, cores)
    try:
        line = running.stdout.readline() if running.stdout else ""
        if not line.startswith("Serving on "):
            raise ConfigError(f"Expected a service on {engine}, got none.")
        yield line.split()[2].rstrip(",")
    finally:
        running.terminate()
        running.communicate(timeout=60)


def _passes(address: str, seconds: float, times: int) -> dict[str, Any]:
    """Each kind of call, by one caller and by many."""
    found: dict[str, Any] = {}
    for kind in ("history", "reasons", "user", "similar", "feedback"):
        found[kind] = {
            str(callers): [_pass(address, kind, callers, seconds) for _ in range(times)]
            for callers in CALLERS.get(kind, OTHERS)
        }
    return found


def _pass(address: str, kind: str, callers: int, seconds: float) -> dict[str, Any]:
    done: dict[str, Any] = json.loads(_caller(address, kind, callers, seconds)())
    return done


def _swapping(folder: Path, address: str, seconds: float) -> dict[str, Any]:
    """A pass at rest's pace while students are delivered."""
    wait = _caller(address, "history", 1, seconds)
    end, seed = time.monotonic() + seconds, 1
    while time.monotonic() < end:
        deliver(folder, seed)
        seed += 1
        time.sleep(min(DELIVERY, seconds / 3))
    found: dict[str, Any] = json.loads(wait()) | {"delivered": seed - 1}
    return found


def _caller(address: str, kind: str, callers: int, seconds: float) -> Any:
    """Begin a pass on the last core; what it returns waits for the figures."""
    load = {
        "address": address,
        "kind": kind,
        "callers": callers,
        "seconds": seconds,
        "items": [f"item-{n}" for n in range(ITEMS)],
        "users": USERS,
    }
    running = subprocess.Popen(
        [sys.executable, "-m", "client.serving.load"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(running.pid, _cores()[-1:])
    if running.stdin is not None:
        running.stdin.write(json.dumps(load))
        running.stdin.close()
        running.stdin = None
    return lambda: running.communicate(timeout=seconds + 60)[0]


def _cores() -> list[int]:
    """Two of this process's cores, or the one it has."""
    return sorted(os.sched_getaffinity(0))[:2]
