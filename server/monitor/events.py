"""Lines of ``metrics.jsonl`` as events, whatever stands in them.

Server only. Other versions of the server, a crash or a full disk may have written them:
a line that cannot be read is counted, an unknown event or key is passed over, and a
value of another kind counts as absent.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.monitor.reasons import reason_of

#: Where an event has a word of its own.
_WORDS = ("phase", "stage", "kind")
_WORD = re.compile(r"[a-z][a-z0-9_ -]{0,31}")

#: A number beyond is no count of anything here.
_MOST = 2**53


@dataclass(frozen=True)
class Event:
    """One line, checked.

    Attributes:
        time: Unix seconds, ``None`` where the line says none.
        name: phase, refusal, round, … or "other".
        number: the round, 0 where none.
        word: a phase's or stage's name or a refusal's reason, of a fixed form.
        bytes_down, bytes_up: of one client.
        facts: the line, unchecked.
    """

    time: float | None
    name: str
    number: int = 0
    word: str = ""
    bytes_down: int = 0
    bytes_up: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class RoundFacts:
    """A round that ended.

    Attributes:
        epsilon: spent by a client so far; infinite where nothing is promised, ``None``
            where the line does not say.
        bytes_down, bytes_up: one client's.
        seconds: by phase.
    """

    number: int
    epsilon: float | None
    survivors: int
    num_clients: int
    bytes_down: int
    bytes_up: int
    seconds: Mapping[str, float]
    validation: float | None


def read_events(text: str) -> tuple[list[Event], int]:
    """Events of a file's text, and how many lines could not be read.

    A last line without its end is still being written, and waited for.
    """
    whole = text[: text.rfind("\n") + 1]
    lines = [line for line in whole.split("\n") if line.strip()]
    found = [event for line in lines if (event := _read(line)) is not None]
    return found, len(lines) - len(found)


def rounds_of(events: Iterable[Event]) -> tuple[RoundFacts, ...]:
    """Rounds that ended, in order; one done again after a resume counts as last."""
    found = {e.number: _round(e) for e in events if e.name == "round" and e.number}
    return tuple(found[number] for number in sorted(found))


def count(value: object) -> int:
    """A whole number from 0 on, 0 for anything else."""
    fits = type(value) is int and 0 <= value < _MOST
    return int(value) if fits else 0  # type: ignore[call-overload]


def number(value: object) -> float | None:
    """A finite number, ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _MOST and math.isfinite(value) else None


def word(value: object) -> str:
    """A short lower-case word, "other" for anything else."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else "other"


def _read(line: str) -> Event | None:
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(facts, dict):
        return None
    name, said = word(facts.get("event")), ""
    if name == "refusal":
        said = reason_of(facts.get("reason"))
    else:
        said = next((word(facts[key]) for key in _WORDS if key in facts), "")
    when, place = number(facts.get("time")), count(facts.get("round"))
    down, up = (count(facts.get(f"bytes_{way}_per_client")) for way in ("down", "up"))
    return Event(when, name, place, said, down, up, facts)


def _round(event: Event) -> RoundFacts:
    facts = event.facts
    given = facts.get("seconds")
    seconds = given if isinstance(given, dict) else {}
    timed = {word(phase): number(value) for phase, value in seconds.items()}
    return RoundFacts(
        event.number,
        _epsilon(facts),
        count(facts.get("survivors")),
        count(facts.get("num_clients")),
        event.bytes_down,
        event.bytes_up,
        {phase: each for phase, each in timed.items() if each is not None},
        number(facts.get("validation")),
    )


def _epsilon(facts: Mapping[str, Any]) -> float | None:
    """JSON has no infinity: the server writes null."""
    if "epsilon" in facts and facts["epsilon"] is None:
        return math.inf
    return number(facts.get("epsilon"))
