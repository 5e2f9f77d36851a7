"""Every format by its number: what an older, this and a newer one lead to."""

import json
import sqlite3

import numpy as np
import polars as pl
import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from safetensors.torch import save

from client.app import app
from client.chain import hash_of, read_export
from client.ledger import FIRST_VERSION, inspect_ledger, open_ledger
from client.release import MISFIT
from client.settings import read_settings, witness_place
from client.vault import LOG_FORMAT, LOG_HEAD, sealer, unseal
from client.witness import read_witness
from common import wire
from common.catalogue import OPTIONAL, SCHEMA, read_catalogue
from common.compact_files import load_compact
from common.errors import DataFormatError, LedgerError, ProtocolError
from common.student import StudentSpec, load_student, random_state, save_student
from common.versions import check_format
from server.monitor.reasons import reason_of
from server.monitor.runs import JOURNAL
from server.receipts import Receipts
from server.round_checkpoint import decode
from server.run_journal import read_facts
from server.teacher.checkpoint import load_teacher
from tests.client.conftest import context_of, message_of, rows, write_folder

KNOWN = ("tutela-thing-1", "tutela-thing-3")
SPEC = StudentSpec(4, 2, 20.0, 0.8)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """Nothing is written into the home of whoever runs the tests."""
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home))


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "0000", rows(8))


# ------------------------------------------------------------------ the sentence


@pytest.mark.parametrize("found", KNOWN)
def test_a_known_format_is_returned(found):
    assert check_format("a.file", found, KNOWN) == found


@pytest.mark.parametrize(
    ("number", "todo"),
    [
        (4, "A newer Tutela wrote it: update this one"),
        (2, "An older Tutela wrote it: read it with that one, or make it anew."),
        (0, "An older Tutela wrote it"),
    ],
)
def test_another_number_is_named_with_what_to_do(number, todo):
    with pytest.raises(DataFormatError) as caught:
        check_format("a.file", f"tutela-thing-{number}", KNOWN)

    text = str(caught.value)
    assert text.startswith(
        "a.file: expected format tutela-thing-1 or tutela-thing-3, got "
        f"tutela-thing-{number}. "
    )
    assert todo in text


@pytest.mark.parametrize(
    "found", [None, 3, "", "x" * 900, "tutela-thing-", "tutela-other-1", "tutela-thing"]
)
def test_another_family_is_not_repeated(found):
    with pytest.raises(DataFormatError, match="got another or none") as caught:
        check_format("a.file", found, KNOWN)

    assert len(str(caught.value)) < 200


# ------------------------------------------------------------------ students


def rewritten(path, **metadata):
    """A student's file that says something else of itself."""
    state = random_state(SPEC, torch.Generator().manual_seed(1))
    said = {"format": "tutela-student-1", "logit_scale": "20.0"}
    said |= {"history_exponent": "0.8"} | metadata
    path.write_bytes(save(state, said))
    return path


def test_a_student_written_by_the_first_version_is_read(tmp_path):
    first = load_student(rewritten(tmp_path / "by_hand.safetensors"))
    save_student(tmp_path / "now.safetensors", first.spec, first.state_dict())
    now = load_student(tmp_path / "now.safetensors")

    assert now.spec == first.spec == SPEC
    for name, tensor in first.state_dict().items():
        assert torch.equal(now.state_dict()[name], tensor)


def test_a_newer_student_is_refused_by_both_versions(tmp_path):
    path = rewritten(tmp_path / "s.safetensors", format="tutela-student-2")

    with pytest.raises(
        DataFormatError,
        match=r"expected format tutela-student-1, got tutela-student-2\. A newer",
    ):
        load_student(path)


@pytest.mark.parametrize(
    ("read", "form"),
    [
        (load_compact, "tutela-compact-2"),
        (lambda path: load_teacher(path, None), "tutela-teacher-2"),
    ],
)
def test_newer_compact_students_and_teachers_are_refused(tmp_path, read, form):
    path = rewritten(tmp_path / "s.safetensors", format=form)

    with pytest.raises(DataFormatError, match=f"{form[:-1]}1.*, got {form}. A newer"):
        read(path)


def test_a_teacher_of_all_items_is_still_read(tmp_path):
    weights = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    said = {"format": "tutela-teacher-1", "catalogue": "c", "name": "ease"}
    (tmp_path / "t.safetensors").write_bytes(save({"weights": weights}, said))

    teacher = load_teacher(tmp_path / "t.safetensors", "c")

    np.testing.assert_array_equal(teacher.weights, weights.numpy())
    assert teacher.items is None


# ------------------------------------------------------------------ catalogue


def test_a_catalogue_from_before_texts_and_numbers_is_completed(tmp_path):
    columns = {"item": ["a"], "title": ["A"], "year": [1999], "categories": [["c"]]}
    pl.DataFrame(columns, schema=SCHEMA).write_parquet(tmp_path / "c.parquet")

    found = read_catalogue(tmp_path / "c.parquet")

    assert found.table.columns == [*SCHEMA.names(), *OPTIONAL.names()]
    assert found.table["text"].to_list() == [""]


def test_a_catalogue_with_columns_of_a_newer_one_is_refused(tmp_path):
    columns = {"item": ["a"], "title": ["A"], "year": [1999], "categories": [["c"]]}
    table = pl.DataFrame(columns, schema=SCHEMA).with_columns(mood=pl.lit("glad"))
    table.write_parquet(tmp_path / "c.parquet")

    with pytest.raises(DataFormatError, match="Expected a catalogue with columns"):
        read_catalogue(tmp_path / "c.parquet")


# ------------------------------------------------------------------ the wire

#: Headers as their writers packed them.
OLD_HEADERS = {
    1: {"protocol": 1, "run": "11", "round": 1, "catalogue": "ab" * 32},
    2: {
        "protocol": 2,
        "run": "11",
        "name": "tutela",
        "number": 1,
        "nonce": "0f" * 16,
        "catalogue": "ab" * 32,
    },
}
NEWER = OLD_HEADERS[2] | {"protocol": wire.PROTOCOL_VERSION + 1}


@pytest.mark.parametrize("unpack", [wire.unpack_header, wire.unpack_reply_header])
@pytest.mark.parametrize(
    ("header", "todo"),
    [
        (OLD_HEADERS[1], r"got another \(1\); update the sender, which is older"),
        (OLD_HEADERS[2], r"got another \(2\); update the sender, which is older"),
        (NEWER, r"got another \(\d\); update the receiver, which is older"),
        ({"run": "11"}, "got another or none; the sender is another program"),
        (OLD_HEADERS[2] | {"protocol": "3"}, "got another or none"),
        (OLD_HEADERS[2] | {"protocol": True}, "got another or none"),
        (OLD_HEADERS[2] | {"protocol": 3.0}, "got another or none"),
    ],
)
def test_either_side_refuses_another_protocol_with_a_sentence(unpack, header, todo):
    content = RecordDict({wire.ROUND: ConfigRecord(dict(header))})

    with pytest.raises(ProtocolError, match=todo) as caught:
        unpack(content)
    text = f"Expected protocol version {wire.PROTOCOL_VERSION}"
    assert str(caught.value).startswith(text)
    assert reason_of(str(caught.value)) == "version"


@pytest.mark.parametrize("header", [*OLD_HEADERS.values(), NEWER])
def test_a_client_refuses_another_server_charges_nothing_and_logs_why(
    folder, header, caplog
):
    message = message_of(1)
    message.content[wire.ROUND] = ConfigRecord(dict(header))

    reply = app(message, context_of(folder))

    assert reply.error.reason == MISFIT
    assert not (folder / "ledger.sqlite").exists()
    assert f"got another ({header['protocol']}); update the" in caplog.text


# ------------------------------------------------------------------ the ledger

LEDGER_ID = "ab" * 32
#: An entry as the first version with a ledger on disk wrote it.
OLD_BODY = (
    '{"event":{"class_name":"SelfComposedDpEvent","count":1,"event":{"class_name":'
    '"PoissonSampledDpEvent","event":{"class_name":"GaussianDpEvent",'
    '"noise_multiplier":1.0},"sampling_probability":0.5}},"name":"tutela",'
    '"nonce":"00000000000000000000000000000009","plan":[{"event":{"class_name":'
    '"SelfComposedDpEvent","count":5,"event":{"class_name":"PoissonSampledDpEvent",'
    '"event":{"class_name":"GaussianDpEvent","noise_multiplier":1.0},'
    '"sampling_probability":0.5}},"relation":"add-or-remove-one","unit":"user"}],'
    '"previous":"' + LEDGER_ID + '","purpose":"train","relation":"add-or-remove-one",'
    '"round":1,"run":"7","salt":"00112233445566778899aabbccddeeff","seeded":false,'
    '"sequence":1,"unit":"user","utc":"2026-11-25T09:50:00.000+00:00"}'
)


def write_old_ledger(folder):
    """A ledger and its witness from before versions were written down."""
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.executescript(
        "CREATE TABLE ledger (id TEXT NOT NULL);"
        "CREATE TABLE entries (sequence INTEGER PRIMARY KEY, body TEXT NOT NULL,"
        " hash TEXT NOT NULL, charge TEXT UNIQUE);"
    )
    digest, key = hash_of(OLD_BODY), "7/1/00000000000000000000000000000009/train"
    connection.execute("INSERT INTO ledger VALUES (?)", (LEDGER_ID,))
    entry = (1, OLD_BODY, digest, key)
    connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", entry)
    connection.commit()
    connection.close()
    place = witness_place(folder, read_settings(folder))
    place.parent.mkdir(parents=True, exist_ok=True)
    witness = {"ledger": LEDGER_ID, "entries": 1, "head": digest}
    place.write_text(json.dumps(witness))
    return place


def version_of(folder):
    connection = sqlite3.connect(folder / "ledger.sqlite")
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return found


def test_a_ledger_from_before_numbers_is_read_and_goes_on(folder):
    place = write_old_ledger(folder)

    ledger, (entry,) = inspect_ledger(folder, place)
    reply = app(message_of(1), context_of(folder))

    assert (ledger, entry.charge.run, entry.charge.event.steps) == (LEDGER_ID, "7", 1)
    assert not reply.has_error()
    _, entries = inspect_ledger(folder, place)
    assert [each.charge.run for each in entries] == ["7", "11"]
    assert entries[1].previous == hash_of(OLD_BODY)


def test_a_new_ledger_has_a_number(folder):
    app(message_of(1), context_of(folder))

    assert version_of(folder) == FIRST_VERSION == 1


@pytest.mark.parametrize("witnessed", [True, False])
def test_a_newer_ledger_is_refused_and_not_touched(folder, witnessed):
    place = write_old_ledger(folder)
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA user_version = 3")
    connection.close()
    if not witnessed:
        place.unlink()
    before = (folder / "ledger.sqlite").read_bytes()

    sentence = (
        "ledger of version 2 at most, got one of version 3: a newer .* Update this one"
    )
    with pytest.raises(LedgerError, match=sentence):
        inspect_ledger(folder, place)
    with pytest.raises(LedgerError, match=sentence), open_ledger(folder, place):
        pass

    assert (folder / "ledger.sqlite").read_bytes() == before


def test_a_client_with_a_newer_ledger_trains_nothing_and_logs_why(folder, caplog):
    write_old_ledger(folder)
    connection = sqlite3.connect(folder / "ledger.sqlite")
    connection.execute("PRAGMA user_version = 3")
    connection.close()

    reply = app(message_of(1), context_of(folder))

    assert reply.has_error()
    assert "got one of version 3" in caplog.text


def test_an_export_of_a_newer_ledger_is_refused():
    text = json.dumps({"format": "tutela-ledger-3", "ledger": LEDGER_ID}) + "\n"

    with pytest.raises(
        DataFormatError, match=r"tutela-ledger-2, got tutela-ledger-3\."
    ):
        read_export(text)


def test_a_witness_with_facts_of_a_newer_one_is_not_taken_for_ours(tmp_path):
    facts = {"ledger": LEDGER_ID, "entries": 1, "head": LEDGER_ID, "format": 2}
    (tmp_path / "w.json").write_text(json.dumps(facts))

    with pytest.raises(LedgerError, match="unwitnessed"):
        read_witness(tmp_path / "w.json")


# ------------------------------------------------------------------ private state


def test_a_newer_vault_is_refused():
    with pytest.raises(DataFormatError, match=r"tutela-vault-1, got tutela-vault-2\."):
        unseal(b"tutela-vault-2\n\x00content", "label", None)


def test_a_newer_log_of_records_is_refused():
    head = LOG_FORMAT.replace(b"-1\n", b"-2\n").ljust(LOG_HEAD, b"\x00")

    with pytest.raises(DataFormatError, match=r"tutela-log-1, got tutela-log-2\."):
        sealer(head, "label", None)


# ------------------------------------------------------------------ a run's own files


def test_a_newer_journal_of_a_run_is_refused_by_both_versions(tmp_path):
    path = tmp_path / JOURNAL
    path.parent.mkdir()
    path.write_text(json.dumps({"format": "tutela-run-2", "digest": "", "run": "1"}))

    with pytest.raises(
        DataFormatError, match="expected format tutela-run-1, got 'tutela-run-2'"
    ):
        read_facts(tmp_path)


def test_a_newer_checkpoint_of_a_run_is_refused_by_both_versions(tmp_path):
    said = {"format": "tutela-checkpoint-2", "facts": "{}", "digest": ""}
    path = tmp_path / "00001-trained.safetensors"
    path.write_bytes(save({"a": torch.zeros(1)}, said))

    with pytest.raises(
        DataFormatError,
        match="expected format tutela-checkpoint-1, got 'tutela-checkpoint-2'; resume",
    ):
        decode(path)


def test_receipts_of_another_form_are_refused_with_what_to_do(tmp_path):
    newer = {"format": "tutela-receipts-2", "receipts": {}}
    (tmp_path / "receipts.json").write_text(json.dumps(newer))

    with pytest.raises(DataFormatError, match=r"expected receipts by node; remove"):
        Receipts(tmp_path)
