"""A client's own metrics: from ledger and folder, never from a row."""

import os
import sqlite3

import polars as pl
import pytest
import tomli_w
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from client import monitor as module
from client.__main__ import app
from client.app import app as client_app
from client.ledger import open_ledger
from client.monitor import metrics_of, open_site, read_facts
from client.settings import read_settings, witness_place
from common.accounting import epsilon
from common.errors import ConfigError
from common.events import DpEvent
from common.exposition import Facts
from tests.client.conftest import (
    context_of,
    message_of,
    rows,
    settings_of,
    write_folder,
)

MARKER = "titanic7351"
NOW = 1_990_000_000.0


def text_of(folder) -> str:
    facts = read_facts(folder, read_settings(folder))
    registry = CollectorRegistry()
    registry.register(Facts(lambda: list(metrics_of(facts, NOW))))
    return generate_latest(registry).decode()


def values(text) -> dict[str, float]:
    return {
        sample.name + str(tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def train(folder, *numbers):
    for number in numbers:
        reply = client_app(message_of(number), context_of(folder))
        assert not reply.has_error(), reply.error


def test_a_client_that_never_trained(folder):
    found = values(text_of(folder))

    assert found["tutela_client_ledger_begun()"] == 0
    assert found["tutela_client_ledger_sound()"] == 1
    assert found["tutela_client_rounds_charged_total()"] == 0
    assert found["tutela_client_epsilon_spent('1e-05', 'user')"] == 0
    assert found["tutela_client_epsilon_left('1e-05', 'user')"] == 1e6
    assert not [name for name in found if "_age_" in name]


def test_what_was_charged_and_what_is_left(folder):
    train(folder, 1, 2)

    found = values(text_of(folder))

    assert found["tutela_client_ledger_begun()"] == 1
    assert found["tutela_client_rounds_charged_total()"] == 2
    assert found["tutela_client_charges_total('train',)"] == 2
    cost = found["tutela_client_epsilon_spent('1e-05', 'user')"]
    assert cost == epsilon([DpEvent(1.0, 0.5, 2)], 1e-5)
    assert found["tutela_client_epsilon_left('1e-05', 'user')"] == 1e6 - cost
    assert found["tutela_client_epsilon_budget('1e-05', 'user')"] == 1e6
    assert found["tutela_client_last_charge_age_seconds()"] > 0


def test_the_age_of_the_student(folder):
    (folder / "student.safetensors").write_bytes(b"x")
    os.utime(folder / "student.safetensors", (NOW - 60, NOW - 60))

    found = values(text_of(folder))

    assert found["tutela_client_student_timestamp_seconds()"] == NOW - 60
    assert found["tutela_client_student_age_seconds()"] == 60


def test_nothing_of_a_clients_rows_or_names_is_told(tmp_path):
    table = rows(8).with_columns(user=pl.lit(f"{MARKER}-user-") + pl.col("user"))
    folder = write_folder(tmp_path / f"{MARKER}-folder", table)
    train(folder, 1)
    text = text_of(folder)

    assert MARKER not in text
    assert str(tmp_path) not in text
    more = write_folder(tmp_path / "0001", rows(3))
    train(more, 1)
    same = {"tutela_client_last_charge_timestamp_seconds()"}
    same |= {"tutela_client_last_charge_age_seconds()"}
    ours, theirs = values(text), values(text_of(more))
    assert {k: v for k, v in ours.items() if k not in same} == {
        k: v for k, v in theirs.items() if k not in same
    }


def test_a_refused_ledger_is_named_and_tells_no_figures(folder):
    train(folder, 1)
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        connection.execute("DROP TRIGGER entries_stay")
        connection.execute("UPDATE entries SET hash = 'x'")

    found = values(text_of(folder))

    assert found["tutela_client_ledger_sound()"] == 0
    assert found["tutela_client_ledger_fault('edited',)"] == 1
    assert found["tutela_client_ledger_fault('missing',)"] == 0
    assert not [name for name in found if "epsilon" in name or "charged" in name]


def test_a_ledger_that_went_away_is_missing(folder):
    train(folder, 1)
    for path in folder.glob("ledger.sqlite*"):
        path.unlink()

    assert values(text_of(folder))["tutela_client_ledger_fault('missing',)"] == 1


def test_a_scrape_waits_for_no_round_and_no_round_for_a_scrape(folder):
    train(folder, 1)
    place = witness_place(folder, read_settings(folder))
    with open_ledger(folder, place):
        found = values(text_of(folder))

    assert found["tutela_client_rounds_charged_total()"] == 1
    train(folder, 2)


def test_nothing_is_written_or_computed_twice(folder, monkeypatch):
    train(folder, 1)
    calls = []
    monkeypatch.setattr(
        module, "epsilon", lambda events, delta: calls.append(events) or 1.0
    )
    module._cost.cache_clear()
    before = {each: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    text_of(folder)
    text_of(folder)
    module._cost.cache_clear()

    assert len(calls) == 1
    after = {each: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    assert {k: v for k, v in after.items() if k in before} == before


def test_a_unit_without_budget_has_a_cost_and_nothing_left(folder, tmp_path):
    train(folder, 1)
    settings = settings_of() | {"budget": {"interaction": {"target-epsilon": 2.0}}}
    settings |= {"witness": "../witness/0000.json"}
    (folder / "settings.toml").write_text(tomli_w.dumps(settings))
    found = values(text_of(folder))

    assert found["tutela_client_epsilon_spent('1e-05', 'user')"] > 0
    assert "tutela_client_epsilon_left('1e-05', 'user')" not in found
    assert found["tutela_client_epsilon_left('1e-05', 'interaction')"] == 2.0


def test_only_loopback(folder):
    with pytest.raises(ConfigError, match="expected a loopback address"):
        open_site(folder, read_settings(folder), "0.0.0.0")


def test_a_missing_folder_is_not_named(tmp_path):
    done = CliRunner().invoke(app, ["monitor", str(tmp_path / MARKER)])

    assert isinstance(done.exception, ConfigError)
    assert MARKER not in str(done.exception)
