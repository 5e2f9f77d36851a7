"""The operator's page: one HTML file that fetches its own ``status.json`` alone.

Server only. One template draws the runs for the first sight, for each update and for a
snapshot. All texts are escaped; the style and the script are named by their hashes in
the page's own security policy, so that no other script could run even if one got in.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from server.monitor import charts
from server.monitor.events import Event, RoundFacts, count
from server.monitor.metrics import phase_seconds
from server.monitor.reasons import MEANING, OTHER
from server.monitor.runs import Run, Status

SCHEMA = 1
TEMPLATES = Path(__file__).parent / "templates"

#: So many events are shown of a run, and so many runs in full: the latest. The
#: others are in the table.
LAST_EVENTS, MOST_SHOWN = 12, 10

_BYTES = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Phase:
    """A phase's seconds; ``share`` of the longest mean, in [0, 1]."""

    name: str
    last: float | None
    mean: float
    share: float


class Drawing:
    """The page's inner part, drawn again only where a run or its status changed."""

    def __init__(self) -> None:
        self._drawn: tuple[list[tuple[Run, Status]], str] = ([], render_main([], 0.0))

    def main(self, runs: Sequence[Run], now: float) -> str:
        """As :func:`render_main`."""
        # Unchanged runs are the same objects, so that this comparison is quick.
        mark = [(run, run.status(now)) for run in runs]
        if mark != self._drawn[0]:
            self._drawn = mark, render_main(runs, now)
        return self._drawn[1]


def status(runs: Sequence[Run], now: float, main: str | None = None) -> dict[str, Any]:
    """What ``/status.json`` holds: facts for programs, and the page's inner part.

    ``digest`` is another whenever ``main`` is; what ages by itself is in neither.

    Args:
        runs: the latest first.
        now: Unix seconds.
        main: of :meth:`Drawing.main`, if that was drawn already.
    """
    main = render_main(runs, now) if main is None else main
    return {
        "schema": SCHEMA,
        "time": round(now, 3),
        "digest": digest_of(main),
        "runs": [run_record(run, now) for run in runs],
        "main": main,
    }


def digest_of(main: str) -> str:
    """What tells one drawing from another."""
    return hashlib.sha256(main.encode()).hexdigest()[:16]


def run_record(run: Run, now: float) -> dict[str, Any]:
    """A run's facts for programs, its last round among them; infinity is null."""
    phase = run.phase
    return {
        "folder": run.folder,
        "name": run.plan.name,
        "status": run.status(now),
        "rounds_done": run.num_done,
        "rounds_planned": run.plan.rounds,
        "round": phase.number if phase else run.num_done,
        "phase": phase.word if phase else "",
        "last_event": run.last,
        "refusals": dict(run.refusals),
        "damaged_lines": run.damaged,
        "last_round": _round_record(run.rounds[-1]) if run.rounds else None,
    }


def _round_record(each: RoundFacts) -> dict[str, Any]:
    return {
        "round": each.number,
        "epsilon": _finite(each.epsilon),
        "survivors": each.survivors,
        "num_clients": each.num_clients,
        "bytes_down_per_client": each.bytes_down,
        "bytes_up_per_client": each.bytes_up,
        "seconds": dict(each.seconds),
        "validation": each.validation,
    }


def render_main(runs: Sequence[Run], now: float) -> str:
    """The inner part of the page."""
    template = _environment().get_template("runs.html.j2")
    views = [_view(run, now) for run in runs[:MOST_SHOWN]]
    rows = [(run, run.status(now)) for run in runs]
    return template.render(views=views, rows=rows)


def render_page(runs: Sequence[Run], now: float, main: str | None = None) -> str:
    """The whole page, which goes on by itself where a monitor serves it.

    Args:
        runs, now, main: as of :func:`status`.
    """
    main = render_main(runs, now) if main is None else main
    style, script = (
        (TEMPLATES / name).read_text(encoding="utf-8")
        for name in ("status.css", "status.js")
    )
    return (
        _environment()
        .get_template("status.html.j2")
        .render(
            now=now,
            digest=digest_of(main),
            # Rendered above, its texts escaped there.
            main=Markup(main),  # noqa: S704
            style=Markup(style),  # noqa: S704
            script=Markup(script),  # noqa: S704
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )


def status_json(runs: Sequence[Run], now: float, main: str | None = None) -> bytes:
    """:func:`status` as JSON."""
    tree = status(runs, now, main)
    return json.dumps(tree, ensure_ascii=False, allow_nan=False).encode()


def phases_of(run: Run) -> list[Phase]:
    """Seconds of each phase, of the last round and on average."""
    total = phase_seconds(run.rounds)
    means = {phase: seconds / times for phase, (times, seconds) in total.items()}
    longest = max(means.values(), default=0.0) or 1.0
    last = run.rounds[-1].seconds if run.rounds else {}
    return [
        Phase(phase, last.get(phase), mean, mean / longest)
        for phase, mean in means.items()
    ]


def describe(event: Event) -> str:
    """An event in words, none of them a client's.

    >>> describe(Event(0.0, "phase", 3, "train"))
    'Round 3: train began.'
    """
    place = f"Round {event.number}: " if event.number else ""
    facts = event.facts
    came = f"{count(facts.get('survivors'))} of {count(facts.get('num_clients'))}"
    texts = {
        "phase": f"{place}{event.word} began.",
        "refusal": f"{place}refused, {MEANING.get(event.word, MEANING[OTHER])}.",
        "round": f"{place}ended with {came} clients.",
        "statistics": f"{place}{came} clients gave statistics.",
        "sum": f"{place}the sum of the clients was unmasked.",
        "discarded": f"{place}discarded, since too few finished.",
        "resume": f"Resumed: round {event.number} {event.word or 'begun'}.",
        "delivery": f"The final student went out; {came} clients took it.",
    }
    return texts.get(event.name, f"{place}{event.name}.")


def _view(run: Run, now: float) -> dict[str, Any]:
    """What the template shows of a run."""
    last = run.rounds[-1] if run.rounds else None
    state = run.status(now)
    return {
        "run": run,
        "id": _anchor(run.folder),
        "status": state,
        "open": state in ("running", "silent", "waiting"),
        "last": last,
        "quiet": state == "silent",
        "phases": phases_of(run),
        "survivors": charts.survivors(run.rounds, run.plan.rounds),
        "path": charts.epsilon_path(
            run.rounds, run.plan.rounds, run.plan.target_epsilon
        ),
        "width": charts.WIDTH,
        "height": charts.HEIGHT,
        "refusals": [
            (MEANING.get(word, MEANING[OTHER]), times)
            for word, times in sorted(run.refusals.items(), key=lambda each: -each[1])
        ],
        "events": [
            (event.time, describe(event))
            for event in run.events[: -LAST_EVENTS - 1 : -1]
        ],
    }


def _anchor(folder: str) -> str:
    return "run-" + hashlib.sha256(folder.encode()).hexdigest()[:10]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": _clock,
        "day": _day,
        "iso": _iso,
        "bytes": _bytes,
        "seconds": _seconds,
        "epsilon": _epsilon,
        "anchor": _anchor,
    }
    return environment


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _epsilon(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if math.isfinite(value) else "no promise"


def _when(time: float, form: str) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime(form)
    except (ValueError, OverflowError, OSError):
        return "at no known time"


def _clock(time: float) -> str:
    return _when(time, "%H:%M:%S")


def _day(time: float) -> str:
    return _when(time, "%Y-%m-%d %H:%M:%S UTC")


def _iso(time: float) -> str:
    return _when(time, "%Y-%m-%dT%H:%M:%SZ")


def _bytes(number: float) -> str:
    """Decimal units, three digits."""
    unit = 0
    while number >= 999.5 and unit + 1 < len(_BYTES):
        number, unit = number / 1000, unit + 1
    return f"{number:.3g} {_BYTES[unit]}"


def _seconds(value: float) -> str:
    if value < 100:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"
