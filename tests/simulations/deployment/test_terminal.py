"""What clients and apps write, on the operator's terminal: words, no commands."""

from types import SimpleNamespace

import pytest

from common.config import defaults, parse
from common.structured_logs import in_one_line
from simulations.deployment import control, verbs
from simulations.deployment.terminal import plain

EVIL = "x\x1b]0;owned\x07\x1b[2J\nComplete; results in /srv.\x9b2J\u202e"
CONFIG = parse(defaults())


def is_harmless(text: str) -> bool:
    return all(c.isprintable() or c in "\t\n" for c in text)


def test_nothing_is_left_that_steers_a_terminal():
    assert plain(EVIL) == "x]0;owned[2J\nComplete; results in /srv.2J"
    assert plain("\ttab, \u00fc and \u4eba\n") == "\ttab, \u00fc and \u4eba\n"


def test_a_refusal_is_one_line_whatever_it_says(capsys):
    verbs._tell({"event": "refusal", "round": 1, "reason": EVIL}, CONFIG)
    output = capsys.readouterr().out
    assert output.startswith("Round 1: x")
    assert output.count("\n") == 1
    assert is_harmless(output)


def test_what_the_server_app_writes_is_filtered(monkeypatch, capsys):
    class Now:
        def __init__(self, target, **_):
            self.start = target

    class Connection:
        def __enter__(self):
            return SimpleNamespace(lines=lambda number: iter([EVIL, "next\n"]))

        def __exit__(self, *_):
            return None

    monkeypatch.setattr("threading.Thread", Now)
    monkeypatch.setattr(control, "connect", lambda folder: Connection())
    verbs._stream(None, 1)
    output = capsys.readouterr().out
    assert output == f"{plain(EVIL)}next\n"
    assert is_harmless(output)


@pytest.mark.parametrize("details", ["", EVIL])
def test_why_a_run_failed_is_one_line(details):
    state = control.RunState(1, "failed", in_one_line(details), "lab", "ab", "now")
    assert is_harmless(verbs._why(state))
    told = SimpleNamespace(
        run_id=1,
        status=SimpleNamespace(status="finished", sub_status="failed", details=details),
        override_config={},
        fab_hash="ab",
        pending_at="now",
    )
    assert control._state(told).details == in_one_line(details)
