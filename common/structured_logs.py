"""Logs for machines: one JSON object a line, through the standard library's logging.

In ``common`` because every process writes logs. ``TUTELA_LOG=json`` switches them on,
otherwise lines are text. An exception is named by its type alone, whoever logs it: its
text may quote a row. What a client logs is held to an allow-list of fields as well,
since its log must hold no data value, id, path or host name.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from common.errors import ConfigError

VARIABLE = "TUTELA_LOG"
ROOT = "tutela"
#: Loggers of what runs beside a client's rows.
CLIENTS = ("tutela.client.", "tutela.serving.")

#: What a client's log may say beside an event: public numbers, and names from fixed
#: lists. Everything else is dropped.
CLIENT_FIELDS = frozenset(
    {"round", "rounds", "kind", "phase", "seconds", "fault", "exception", "port"}
)

_MOST = 300


def logger_of(part: str) -> logging.Logger:
    """The logger of a part, such as ``client``, ``server`` or ``monitor``."""
    return logging.getLogger(f"{ROOT}.{part}")


def fields(**values: bool | int | float | str | None) -> dict[str, Any]:
    """For ``extra=``: facts that stand beside the event.

    >>> logger_of("server").info("round", extra=fields(round=3, survivors=4))
    """
    return {"fields": values}


def in_one_line(text: str) -> str:
    """A stranger's words, fit to be quoted: they write no lines of their own.

    What is not printable becomes a question mark, what is long is cut.
    """
    return "".join(c if c.isprintable() else "?" for c in text)[:_MOST]


def switch_on(stream: TextIO | None = None) -> None:
    """Send this process's log to ``stream``, by default standard error, from INFO on.

    Once a process is enough; again replaces what was there.

    Raises:
        ConfigError: if ``TUTELA_LOG`` is neither json nor text.
    """
    chosen = os.environ.get(VARIABLE, "text")
    if chosen not in _FORMATTERS:
        raise ConfigError(f"{VARIABLE}: expected json or text, got {chosen!r}.")
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_FORMATTERS[chosen]())
    handler.set_name(ROOT)
    logger = logging.getLogger(ROOT)
    for old in [each for each in logger.handlers if each.get_name() == ROOT]:
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    # A library may have given the root logger a handler: it would write each line
    # again, not as JSON, and tracebacks with it.
    logger.propagate = chosen != "json"


def switch_on_if_asked() -> None:
    """As :func:`switch_on` where ``TUTELA_LOG`` is set: for what Flower starts.

    A simulation runs the same apps in its own process, whose output is not ours.

    Raises:
        ConfigError: if ``TUTELA_LOG`` is neither json nor text.
    """
    if VARIABLE in os.environ:
        switch_on()


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line says: time, level, logger, event, fields."""
    given = dict(getattr(record, "fields", {}))
    if record.exc_info and record.exc_info[0] is not None:
        given["exception"] = record.exc_info[0].__name__
    if f"{record.name}.".startswith(CLIENTS):
        given = {name: each for name, each in given.items() if name in CLIENT_FIELDS}
    when = datetime.fromtimestamp(record.created, UTC)
    return {
        "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": in_one_line(record.getMessage()),
        "fields": {name: _plain(each) for name, each in given.items()},
    }


class JsonLines(logging.Formatter):
    """One JSON object a line; never a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return json.dumps(facts_of(record), ensure_ascii=False)


class Text(logging.Formatter):
    """The same facts for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        facts = facts_of(record)
        said = [facts["time"], facts["level"].upper(), facts["logger"], facts["event"]]
        return " ".join([*said, *(f"{k}={v}" for k, v in facts["fields"].items())])


_FORMATTERS: dict[str, type[logging.Formatter]] = {"json": JsonLines, "text": Text}


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        # NaN and infinity are no JSON.
        return value if abs(value) < float("inf") else None
    return in_one_line(str(value))
