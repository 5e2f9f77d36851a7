"""The client's app from message to reply, as the server would see it."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from flwr.app import Array, Message
from flwr.common.serde import message_from_proto, message_to_proto
from safetensors import safe_open

import client.app as wiring
from client.app import app
from client.data import read_client_data
from client.release import CLOSED, FAILED, MISFIT, REFUSED
from common import wire
from common.events import DpEvent
from common.folders import STUDENT
from common.soft_labels import encode
from common.student import random_state, shapes
from tests.client.conftest import (
    NUM_ITEMS,
    SPEC,
    context_of,
    message_of,
    nonce_of,
    rows,
    sent,
    spent,
    write_folder,
)

MARKER = "MARKER-XYZ"
NOISE_ONLY = {"privacy.max-grad-norm": 1e-8, "privacy.noise-multiplier": 1e8}


def update_of(reply: Message) -> dict[str, torch.Tensor]:
    return wire.unpack_state(reply.content, wire.UPDATE, shapes(SPEC))


def with_labels(message: Message) -> Message:
    proxy = sp.csr_matrix(np.eye(4, NUM_ITEMS, dtype=np.float32))
    scores = np.random.default_rng(0).normal(size=(4, NUM_ITEMS)).astype(np.float32)
    message.content[wire.SOFT_LABELS] = wire.pack_soft_labels(encode(scores, proxy, 5))
    return message


def test_a_reply_survives_the_wire_with_two_records_and_three_tensors(folder) -> None:
    reply = app(with_labels(message_of()), context_of(folder))
    read = message_from_proto(message_to_proto(reply))
    assert set(read.content) == {wire.UPDATE, wire.ROUND}
    assert set(read.content[wire.UPDATE]) == set(shapes(SPEC))
    assert set(read.content[wire.ROUND]) == {
        *("protocol", "run", "number", "nonce", "receipt")
    }


@pytest.mark.parametrize("outside", [MARKER, f"i0{MARKER}"])
def test_an_item_outside_the_catalogue_leaves_no_trace(
    tmp_path, caplog, capfd, outside: str
) -> None:
    """Mistake 7: one bad row among good ones, in a folder with a telling name."""
    table = rows(8)
    bad = table.head(1).with_columns(item=pl.lit(outside), user=pl.lit(MARKER))
    folder = write_folder(tmp_path / MARKER, pl.concat([table, bad]))
    reply = app(message_of(), context_of(folder))
    assert reply.error.reason == FAILED
    assert MARKER.encode() not in sent(reply)
    assert MARKER not in caplog.text
    assert MARKER not in "".join(capfd.readouterr())


@pytest.mark.parametrize("fault", ["folder is a file", "no folder", "other catalogue"])
def test_a_broken_folder_leaves_no_trace(tmp_path, caplog, fault: str) -> None:
    folder = tmp_path / MARKER
    if fault == "folder is a file":
        folder.write_text(MARKER)
    if fault == "other catalogue":
        write_folder(folder, rows(8))
        pl.DataFrame({MARKER: [MARKER]}).write_parquet(folder / "catalogue.parquet")
    reply = app(message_of(), context_of(folder))
    expected = FAILED if fault == "other catalogue" else REFUSED
    assert reply.error.reason == expected, "no settings, no consent"
    assert MARKER.encode() not in sent(reply)
    assert MARKER not in caplog.text


def test_users_and_folders_by_name_are_not_in_a_good_reply(tmp_path, caplog) -> None:
    table = rows(8).with_columns(user=pl.lit(MARKER) + pl.col("user"))
    folder = write_folder(tmp_path / MARKER, table)
    reply = app(with_labels(message_of()), context_of(folder))
    assert reply.has_content()
    assert MARKER.encode() not in sent(reply)
    assert MARKER not in caplog.text


def changed_header(**values) -> Message:
    message = message_of()
    for key, value in values.items():
        message.content[wire.ROUND][key] = value
    return message


def without(record: str) -> Message:
    message = message_of()
    del message.content[record]
    return message


def broken(value: float) -> Message:
    state = random_state(SPEC, torch.Generator().manual_seed(1))
    state["encoder.weight"][0, 0] = value
    return message_of(state=state)


def narrow() -> Message:
    state = random_state(SPEC, torch.Generator().manual_seed(1))
    return message_of(state={name: value[:1] for name, value in state.items()})


def wrong_labels() -> Message:
    message = with_labels(message_of())
    del message.content[wire.SOFT_LABELS]["scale"]
    return message


MISFITS = {
    "newer protocol": lambda: changed_header(protocol=wire.PROTOCOL_VERSION + 1),
    "protocol as text": lambda: changed_header(protocol="1"),
    "other catalogue": lambda: changed_header(catalogue="0" * 64),
    "round as text": lambda: changed_header(number="1"),
    "round as truth": lambda: changed_header(number=True),
    "round zero": lambda: changed_header(number=0),
    "short nonce": lambda: changed_header(nonce="ab"),
    "another name": lambda: changed_header(name="other"),
    "a signature of nobody": lambda: changed_header(server="ab" * 32),
    "no header": lambda: without(wire.ROUND),
    "no student": lambda: without(wire.STUDENT),
    "NaN student": lambda: broken(float("nan")),
    "infinite student": lambda: broken(float("inf")),
    "other shapes": narrow,
    "labels in part": wrong_labels,
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_message_that_does_not_fit_gets_the_one_text(folder, name: str) -> None:
    reply = app(MISFITS[name](), context_of(folder))
    assert reply.error.reason == MISFIT
    assert not reply.has_content()
    assert spent(folder) == [], "and costs nothing"


def _never(folder: Path) -> None:
    raise AssertionError("private rows were read")


@pytest.mark.parametrize("kind", ["evaluate", "query"])
def test_other_kinds_are_refused_without_a_charge_or_a_look(
    folder, monkeypatch, kind: str
) -> None:
    monkeypatch.setattr(wiring, "read_client_data", _never)
    context = context_of(folder)
    assert app(message_of(kind=kind), context).error.reason == MISFIT
    assert spent(folder) == []


def test_every_byte_count_is_the_same_with_one_user_more(tmp_path) -> None:
    """Mistake 3: the size on the wire, too, says nothing about the rows."""
    replies = [
        app(message_of(), context_of(write_folder(tmp_path / "0000", rows(n))))
        for n in (7, 8, 9)
    ]
    contents = [message_to_proto(r).content.SerializeToString() for r in replies]
    assert len({len(content) for content in contents}) == 1


def test_one_user_more_leaves_the_noise_alone(tmp_path) -> None:
    """Mistake 3, through the whole app: at a tiny clip only noise is left."""
    first, second = (
        update_of(app(message_of(), context_of(folder, **NOISE_ONLY)))
        for folder in (write_folder(tmp_path / f"{n}/0000", rows(n)) for n in (8, 9))
    )
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-5, atol=1e-6)


def test_two_clients_and_two_rounds_have_their_own_noise(tmp_path) -> None:
    """Mistake 9: the same rows, config and seed, and yet no noise in common."""
    drawn = []
    for name in ("0000", "0001"):
        context = context_of(write_folder(tmp_path / name, rows(8)), **NOISE_ONLY)
        for number in (1, 2):
            update = update_of(app(message_of(number), context))
            drawn.append(torch.cat([value.flatten() for value in update.values()]))
    for first in range(4):
        for second in range(first):
            assert float((drawn[first] == drawn[second]).double().mean()) < 0.1


@pytest.mark.parametrize("other", [{"number": 2}, {"name": "other", "run": "12"}])
def test_a_nonce_sent_twice_brings_no_noise_twice(tmp_path, other) -> None:
    """Mistake 9: the same noise in two updates would cancel in their difference."""
    folder = write_folder(tmp_path / "0000", rows(8), runs=["*"])
    drawn = []
    for values in ({"number": 1}, other):
        name = values.get("name", "tutela")
        context = context_of(folder, **NOISE_ONLY, **{"run.name": name})
        values = {"number": 1, "nonce": nonce_of(1)} | values
        update = update_of(app(message_of(**values), context))
        drawn.append(torch.cat([value.flatten() for value in update.values()]))
    assert float((drawn[0] == drawn[1]).double().mean()) < 0.1


def test_without_a_seed_no_round_repeats(tmp_path) -> None:
    folder = write_folder(tmp_path / "0000", rows(8), seed=None)
    context = context_of(folder)
    first, second = (
        update_of(app(message_of(run=run), context)) for run in ("11", "12")
    )
    assert not torch.equal(first["encoder.weight"], second["encoder.weight"])


def test_the_charge_is_what_the_round_does(folder) -> None:
    context = context_of(folder, **{"training.local-steps": 3})
    for number in (1, 2):
        assert app(message_of(number), context).has_content()
    assert spent(folder) == [(1, DpEvent(1.0, 0.5, 3)), (2, DpEvent(1.0, 0.5, 3))]


@pytest.mark.parametrize("less", [0.9, 1e-6])
def test_too_little_noise_is_refused_before_a_row_is_read(
    tmp_path, monkeypatch, less: float
) -> None:
    folder = write_folder(tmp_path / "0000", rows(8), **{"target_epsilon": 8.0})
    enough = {"privacy.noise-multiplier": 3.0}
    assert app(message_of(), context_of(folder, **enough)).has_content()
    monkeypatch.setattr(wiring, "read_client_data", _never)
    before = spent(folder)
    context = context_of(folder, **{"privacy.noise-multiplier": less})
    for number, run in ((2, "11"), (1, "12")):
        assert app(message_of(number, run=run), context).error.reason == REFUSED
    assert spent(folder) == before


def test_noise_lowered_within_a_run_is_refused(folder) -> None:
    context = context_of(folder, **{"privacy.noise-multiplier": 3.0})
    assert app(message_of(1), context).has_content()
    context.run_config["privacy.noise-multiplier"] = 1.0
    assert app(message_of(2), context).error.reason == REFUSED


@pytest.mark.parametrize("error", [RuntimeError, KeyError, MemoryError])
def test_a_failure_in_training_leaves_the_charge(folder, monkeypatch, error) -> None:
    def fails(*args):
        raise error(MARKER)

    monkeypatch.setattr("client.train.train", fails)
    context = context_of(folder)
    reply = app(message_of(), context)
    assert reply.error.reason == FAILED
    assert MARKER.encode() not in sent(reply)
    assert [number for number, _ in spent(folder)] == [1]
    monkeypatch.undo()
    assert app(message_of(1), context).error.reason == MISFIT, "never trained again"
    assert app(message_of(2), context).has_content()


def test_the_charge_comes_before_the_first_look(folder, monkeypatch) -> None:
    seen = []
    context = context_of(folder)

    def looks(place: Path):
        seen.append([number for number, _ in spent(folder)])
        raise RuntimeError

    monkeypatch.setattr(wiring, "read_client_data", looks)
    app(message_of(4), context)
    assert seen == [[4]]


@pytest.mark.parametrize("name", ["c[1]", "a*", "what?", "my folder [red]", "{x,y}"])
def test_a_folder_is_its_very_name_and_no_pattern(tmp_path, name: str) -> None:
    """A client must not train on the rows of a folder that a pattern would match."""
    write_folder(tmp_path / "c1", rows(8))
    folder = write_folder(tmp_path / name, rows(3))
    assert read_client_data(folder).histories.shape[0] == 3
    assert app(message_of(), context_of(folder)).has_content()
    assert [number for number, _ in spent(folder)] == [1]
    assert spent(tmp_path / "c1") == []


def wrong_kind(part: str, kind: str) -> Message:
    message = with_labels(message_of())
    record = message.content[wire.SOFT_LABELS]
    record[part] = Array(record[part].numpy().astype(kind))
    return message


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        *(("logit", kind) for kind in ("U1", "M8[s]", "c8", "f4", "i4")),
        *(("item", kind) for kind in ("f4", "?", "u8", "i8")),
        *(("scale", kind) for kind in ("f8", "i4")),
    ],
)
def test_labels_of_another_type_cost_nothing(folder, part: str, kind: str) -> None:
    reply = app(wrong_kind(part, kind), context_of(folder))
    assert reply.error.reason == MISFIT
    assert spent(folder) == []


def test_more_labels_than_announced_cost_nothing(folder) -> None:
    context = context_of(folder, **{"distillation.proxy-users": 3})
    assert app(with_labels(message_of()), context).error.reason == MISFIT
    assert spent(folder) == []


def test_a_run_that_aims_beyond_the_budget_is_not_calibrated(
    tmp_path, monkeypatch
) -> None:
    """Calibration for next to no noise takes minutes and gigabytes."""

    def never(*args):
        raise AssertionError("calibrated")

    monkeypatch.setattr("common.accounting.calibrate", never)
    folder = write_folder(tmp_path / "0000", rows(8), target_epsilon=8.0)
    asked = {"privacy.noise-multiplier": 0.0, "privacy.target-epsilon": 1e4}
    assert app(message_of(), context_of(folder, **asked)).error.reason == REFUSED


def test_a_stranger_writes_no_line_into_the_log(folder, caplog) -> None:
    forged = "run.x\n2026-01-01 ERROR Ledger edited: retire this folder\x1b[31m"
    reply = app(message_of(), context_of(folder, **{forged: 1}))
    assert reply.error.reason == MISFIT
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert "\x1b" not in record.getMessage()
    assert len(record.getMessage()) < 400


def test_budget_and_consent_may_come_from_the_nodes_configuration(folder) -> None:
    context = context_of(folder)
    for key, value in (("budget.user.target-epsilon", 0.5), ("runs", "books, songs")):
        context.node_config[key] = value
        assert app(message_of(), context).error.reason == REFUSED
        del context.node_config[key]
    assert spent(folder) == []
    context.node_config["runs"] = "books, tutela"
    assert app(message_of(), context).has_content()


def test_a_client_put_back_from_a_backup_is_told_by_its_server(tmp_path) -> None:
    """Folder and witness together: only the server's receipt knows better."""
    folder = write_folder(tmp_path / "home" / "0000", rows(8))
    context = context_of(folder)
    assert app(message_of(1), context).has_content()
    shutil.copytree(tmp_path / "home", tmp_path / "backup")
    reply = app(message_of(2), context)
    receipt = wire.unpack_reply_header(reply.content).receipt
    shutil.rmtree(tmp_path / "home")
    shutil.copytree(tmp_path / "backup", tmp_path / "home")
    refused = app(message_of(3, acknowledged=receipt), context)
    assert refused.error.reason == CLOSED
    assert [number for number, _ in spent(folder)] == [1]


def test_a_delivered_student_says_what_its_training_promised(folder) -> None:
    reply = app(message_of(kind=wire.DELIVER), context_of(folder))
    assert not reply.has_error()
    with safe_open(folder / STUDENT, framework="np") as file:
        promise = file.metadata()["promise"]
    for part in ("ε = ", "δ = 1e-05", "per user", "nobody else is trusted", "Poisson"):
        assert part in promise
    assert "no bundle is pinned" in promise
