"""What the apps log where it was asked for: JSON lines, the client's without data."""

import json
import logging

import pytest

from client.app import app
from common.structured_logs import switch_on_if_asked
from server.records import Recorder, RoundRecord
from tests.client.conftest import context_of, message_of, rows, write_folder


@pytest.fixture(autouse=True)
def asked(monkeypatch, tmp_path):
    """JSON is asked for; afterwards handlers and level are as they were."""
    monkeypatch.setenv("TUTELA_LOG", "json")
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    logger = logging.getLogger("tutela")
    handlers, level, upwards = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, upwards
    logger.setLevel(level)


def test_the_server_logs_what_it_records(capsys, tmp_path):
    switch_on_if_asked()
    recorder = Recorder(tmp_path / "run")
    recorder.phase(1, "train")
    recorder.round(RoundRecord(1, float("inf"), seconds={"wait": 1.0}, survivors=3))

    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["logger"], first["event"]) == ("tutela.server", "phase")
    assert first["fields"] == {"round": 1, "phase": "train"}
    assert second["event"] == "round"
    assert (second["fields"]["epsilon"], second["fields"]["survivors"]) == (None, 3)
    assert "seconds" not in second["fields"]


def test_a_client_logs_json_and_nothing_of_its_rows(capsys, tmp_path):
    folder = write_folder(tmp_path / "titanic7351", rows(8))
    (folder / "interactions.parquet").write_bytes(b"titanic7351 is no table")

    reply = app(message_of(1), context_of(folder))

    assert reply.has_error()
    text = capsys.readouterr().err
    (line,) = map(json.loads, text.splitlines())
    assert line["logger"] == "tutela.client"
    assert line["event"].startswith("A round failed with ")
    assert "titanic7351" not in text
