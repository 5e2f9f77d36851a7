"""Logs as JSON lines: one object a line, no traceback, an allow-list for clients."""

import io
import json
import logging
import math

import pytest

from common.errors import ConfigError
from common.structured_logs import (
    CLIENT_FIELDS,
    fields,
    in_one_line,
    logger_of,
    switch_on,
    switch_on_if_asked,
)

MARKER = "titanic-7351"


@pytest.fixture(autouse=True)
def restored():
    """The handlers and the level of our loggers as they were."""
    logger = logging.getLogger("tutela")
    handlers, level, upwards = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, upwards
    logger.setLevel(level)


@pytest.fixture
def stream(monkeypatch) -> io.StringIO:
    monkeypatch.setenv("TUTELA_LOG", "json")
    stream = io.StringIO()
    switch_on(stream)
    return stream


def lines(stream) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_object_of_five_facts(stream):
    logger_of("server").info("round", extra=fields(round=3, survivors=4, share=0.5))

    (line,) = lines(stream)
    assert list(line) == ["time", "level", "logger", "event", "fields"]
    assert line["time"].endswith("Z")
    assert (line["level"], line["logger"]) == ("info", "tutela.server")
    assert (line["event"], line["fields"]) == (
        "round",
        {"round": 3, "survivors": 4, "share": 0.5},
    )


def test_an_exception_is_its_type_alone(stream):
    try:
        raise KeyError(MARKER)
    except KeyError:
        logger_of("server").exception("a phase failed")

    (line,) = lines(stream)
    assert line["fields"] == {"exception": "KeyError"}
    assert MARKER not in stream.getvalue()
    assert "Traceback" not in stream.getvalue()


def test_a_client_says_only_what_the_allow_list_names(stream):
    given = dict.fromkeys(CLIENT_FIELDS, 1) | {"item": MARKER, "folder": MARKER}
    logger_of("client").info("charged", extra=fields(**given))
    for part in ("client.ledger", "serving"):
        logger_of(part).info("charged", extra=fields(user=MARKER))
    logger_of("clients").info("others", extra=fields(item=1))

    first, second, third, fourth = lines(stream)
    assert set(first["fields"]) == CLIENT_FIELDS
    assert second["fields"] == third["fields"] == {}
    assert fourth["fields"] == {"item": 1}
    assert MARKER not in stream.getvalue()


def test_a_strangers_words_write_no_line_of_their_own(stream):
    logger_of("client").warning(
        "refused %s", 'x"}\n{"event": "forged"\u2028' + "y" * 900
    )

    (line,) = lines(stream)
    assert len(stream.getvalue().splitlines()) == 1
    assert line["event"].startswith('refused x"}?{"event": "forged"?y')
    assert len(line["event"]) == 300


def test_words_in_one_line_are_printable_and_short():
    assert in_one_line("é a\tb\r\n\x1b[2J\u202e") == "é a?b???[2J?"
    assert in_one_line("y" * 900) == "y" * 300


def test_what_json_does_not_know_is_null_or_text(stream):
    extra = fields(a=math.nan, b=math.inf, c=None, d=True, e=ValueError)
    logger_of("server").info("odd", extra=extra)

    (line,) = lines(stream)
    found = line["fields"]
    assert (found["a"], found["b"], found["c"], found["d"]) == (None, None, None, True)
    assert "ValueError" in found["e"]


def test_text_is_the_default_and_holds_the_same(monkeypatch):
    monkeypatch.delenv("TUTELA_LOG", raising=False)
    stream = io.StringIO()
    switch_on(stream)
    logger_of("monitor").info("listening", extra=fields(port=9464))

    assert stream.getvalue().endswith("Z INFO tutela.monitor listening port=9464\n")


def test_switching_on_again_writes_each_line_once(stream):
    again = io.StringIO()
    switch_on(again)
    logger_of("server").info("round")

    assert stream.getvalue() == ""
    assert len(lines(again)) == 1


def test_another_kind_of_log_is_refused(monkeypatch):
    monkeypatch.setenv("TUTELA_LOG", "xml")

    with pytest.raises(
        ConfigError, match="TUTELA_LOG: expected json or text, got 'xml'"
    ):
        switch_on(io.StringIO())


def test_json_is_not_written_again_by_a_handler_of_the_root(stream):
    root = io.StringIO()
    handler = logging.StreamHandler(root)
    logging.getLogger().addHandler(handler)
    try:
        logger_of("client").error("refused")
    finally:
        logging.getLogger().removeHandler(handler)

    assert root.getvalue() == ""
    assert len(lines(stream)) == 1


def test_an_app_switches_it_on_only_where_it_was_asked(monkeypatch, capsys):
    monkeypatch.delenv("TUTELA_LOG", raising=False)
    before = list(logging.getLogger("tutela").handlers)
    switch_on_if_asked()
    assert logging.getLogger("tutela").handlers == before

    monkeypatch.setenv("TUTELA_LOG", "json")
    switch_on_if_asked()
    logger_of("server").info("round")
    assert json.loads(capsys.readouterr().err)["event"] == "round"
