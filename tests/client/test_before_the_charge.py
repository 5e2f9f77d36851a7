"""What would fail every round is found out before the ledger is charged for it."""

import logging

import pytest
import torch

import client.app as wiring
from client.app import app
from client.feedback import Feedback, FeedbackRow, encode_feedback, open_feedback
from client.importing import write_rows
from client.release import FAILED
from client.store_key import FEEDBACK, store_key
from common import wire
from common.catalogue import Catalogue, write_catalogue
from common.folders import CATALOGUE, INTERACTIONS
from common.student import StudentSpec, random_state
from tests.client.conftest import (
    NUM_ITEMS,
    asking,
    catalogue,
    context_of,
    message_of,
    rows,
    spent,
    write_folder,
)

KINDS = (wire.TRAIN, wire.STATISTICS)
SHARE = {"statistics.share": 0.4, "privacy.noise-multiplier": 0.0}
SHARE |= {"privacy.target-epsilon": 10.0}
SECRET = "ab" * 32


def say(folder, item, key=None):
    log = open_feedback(folder, key)
    log.append(encode_feedback(Feedback("ab" * 16, (FeedbackRow(item),))))
    log.close()


def ask(folder, kind=wire.TRAIN, **overrides):
    message = message_of() if kind == wire.TRAIN else asking(kind)
    return app(message, context_of(folder, **SHARE, **overrides))


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    """A folder whose feedback is sealed with a key in the environment."""
    monkeypatch.setenv("STORE", SECRET)
    folder = write_folder(tmp_path / "0000", rows(8), **{"store-key": "env:STORE"})
    say(folder, "i1", store_key(folder, "env:STORE"))
    return folder


@pytest.fixture
def unread(monkeypatch):
    """Private rows that nobody looks at."""

    def never(folder):
        raise AssertionError("private rows were read")

    monkeypatch.setattr(wiring, "read_client_data", never)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_key_costs_nothing(sealed, monkeypatch, unread, caplog, kind) -> None:
    monkeypatch.delenv("STORE")
    with caplog.at_level(logging.WARNING, "tutela.client"):
        assert ask(sealed, kind).error.reason == FAILED
    assert spent(sealed) == []
    assert "store-key: expected the key that feedback.log is sealed" in caplog.text
    assert str(sealed) not in caplog.text


@pytest.mark.parametrize("other", ["a passphrase, not a key", ""])
def test_a_key_of_another_kind_costs_nothing(
    sealed, monkeypatch, unread, other
) -> None:
    """The log's head tells, before a record is opened."""
    if other:
        monkeypatch.setenv("STORE", other)
    else:
        settings = sealed / "settings.toml"
        settings.write_text(settings.read_text().replace("env:STORE", ""))
    assert ask(sealed).error.reason == FAILED
    assert spent(sealed) == []


@pytest.mark.parametrize("source", ["file:../store.key", "env:NOT_SET"])
def test_without_feedback_no_key_is_asked_for(tmp_path, source) -> None:
    folder = write_folder(tmp_path / "0000", rows(8), **{"store-key": source})
    assert ask(folder).has_content()


def test_a_log_without_a_head_costs_nothing(folder, unread) -> None:
    (folder / FEEDBACK).write_bytes(b"tutela-log-1\n")
    assert ask(folder).error.reason == FAILED
    assert spent(folder) == []


def test_the_key_that_fits_is_charged_and_answered(sealed) -> None:
    assert ask(sealed).has_content()
    assert len(spent(sealed)) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("device", "available", "count"),
    [("cuda", False, 0), ("cuda:1", True, 1), ("cuda", True, 0)],
)
def test_a_device_that_is_not_here_costs_nothing(
    folder, monkeypatch, unread, kind, device, available, count
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert ask(folder, kind, **{"run.device": device}).error.reason == FAILED
    assert spent(folder) == []


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_a_device_that_is_here_lets_the_message_in(folder, monkeypatch, device) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    message = asking(wire.STATISTICS)
    context = context_of(folder, **SHARE, **{"run.device": device})
    assert app(message, context).has_content()


def test_on_the_processor_the_driver_is_not_asked(folder, monkeypatch) -> None:
    def never():
        raise AssertionError("the driver was asked")

    monkeypatch.setattr(torch.cuda, "is_available", never)
    assert ask(folder).has_content()


def test_without_any_rows_file_nothing_is_charged(folder) -> None:
    (folder / INTERACTIONS).unlink()
    assert ask(folder).error.reason == FAILED
    assert spent(folder) == []


def test_a_final_student_is_kept_whatever_is_missing(sealed, monkeypatch) -> None:
    monkeypatch.delenv("STORE")
    context = context_of(sealed, **{"run.device": "cuda"})
    assert app(message_of(kind=wire.DELIVER), context).has_content()


def test_feedback_on_an_item_that_was_taken_away_stops_nobody(folder, caplog) -> None:
    """Whoever replaces catalogue and rows keeps the log; no budget burns for it."""
    say(folder, f"i{NUM_ITEMS - 1}")
    smaller = Catalogue(catalogue().table.head(NUM_ITEMS - 1))
    write_catalogue(smaller, folder / CATALOGUE)
    write_rows(folder, rows(2))
    spec = StudentSpec(NUM_ITEMS - 1, 3, 20.0, 0.8)
    for number in (1, 2):
        state = random_state(spec, torch.Generator().manual_seed(1))
        message = message_of(number, digest=smaller.digest, state=state)
        assert app(message, context_of(folder)).has_content()
    assert [number for number, _ in spent(folder)] == [1, 2]
    assert "outside the declared catalogue is left out" in caplog.text
    assert f"i{NUM_ITEMS - 1}" not in caplog.text


def test_an_update_that_is_to_be_summed_in_secret_is_not_given_by_itself(
    tmp_path, unread, caplog
):
    folder = write_folder(tmp_path / "0000", rows(8))
    with caplog.at_level(logging.INFO):
        reply = app(message_of(), context_of(folder, **{"privacy.mode": "distributed"}))
    assert reply.has_error()
    assert not spent(folder)
    assert "Expected the messages of a secure sum" in caplog.text
