"""Nothing passes the exit door but what the allow-list names."""

import ast
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.common.serde import message_to_proto

import client.app as wiring
from client.app import app
from client.ledger import inspect_ledger
from client.release import CLOSED, FAILED, MISFIT, REFUSED, exit_door
from client.settings import read_settings, witness_place
from common import wire
from common.config import parse, to_flat
from common.errors import BudgetExhausted, ConfigError, DataFormatError, ProtocolError
from common.signature import public_key, signed
from common.student import random_state, shapes
from tests.client.conftest import (
    SPEC,
    context_of,
    message_of,
    nonce_of,
    rows,
    sent,
    spent,
    write_folder,
)

MARKER = "MARKERXYZ"


def content_of(reply: Message) -> bytes:
    return message_to_proto(reply).content.SerializeToString()


def sign(message: Message, context, secret: bytes) -> Message:
    header = wire.unpack_header(message.content)
    config = to_flat(parse(context.run_config))
    made = signed(
        header, message.metadata.message_type, message.content, config, secret
    )
    message.content[wire.ROUND] = wire.pack_header(made)
    return message


def test_a_reply_holds_the_update_and_the_header_and_nothing_else(folder) -> None:
    reply = app(message_of(), context_of(folder))
    assert set(reply.content) == {wire.UPDATE, wire.ROUND}
    update = wire.unpack_state(reply.content, wire.UPDATE, shapes(SPEC))
    assert any(bool(value.any()) for value in update.values())
    header = wire.unpack_reply_header(reply.content)
    assert (header.run, header.number, header.nonce) == ("11", 1, nonce_of(1))


def damaged(folder: Path, how: str) -> Path:
    table = rows(8)
    if how == "unknown item":
        table = table.with_columns(item=pl.lit(MARKER))
    write_folder(folder, table)
    if how == "corrupt file":
        (folder / "interactions.parquet").write_bytes(MARKER.encode() * 50)
    if how == "missing column":
        table.rename({"item": MARKER}).write_parquet(folder / "interactions.parquet")
    if how == "raw ids":
        rows(8).write_parquet(folder / "interactions.parquet")
    if how == "no file":
        (folder / "interactions.parquet").unlink()
    return folder


@pytest.mark.parametrize(
    "how",
    ["unknown item", "corrupt file", "missing column", "raw ids", "no file"],
)
def test_no_byte_of_a_failure_tells_what_failed(tmp_path, caplog, how: str) -> None:
    folder = damaged(tmp_path / MARKER, how)
    reply = app(message_of(), context_of(folder))
    assert reply.error.reason == FAILED
    assert MARKER.encode() not in sent(reply)
    assert MARKER not in caplog.text


def test_the_owners_log_names_the_setting_at_fault(folder, caplog) -> None:
    (folder / "settings.toml").write_text('max-epsilom = "much"\n')
    reply = app(message_of(), context_of(folder))
    assert reply.error.reason == FAILED
    assert b"epsilom" not in sent(reply)
    assert "max-epsilom" in caplog.text
    assert "much" not in caplog.text


@pytest.mark.parametrize("error", [KeyError, ValueError, RuntimeError, MemoryError])
def test_every_exception_becomes_a_fixed_text(folder, caplog, error) -> None:
    def fails(message, context):
        raise error(MARKER)

    reply = exit_door(message_of(), context_of(folder), fails)
    assert reply.error.reason == FAILED
    assert MARKER.encode() not in sent(reply)
    assert MARKER not in caplog.text
    assert error.__name__ in caplog.text


def test_records_beside_the_allowed_ones_are_dropped(folder) -> None:
    def chatty(message, context):
        state = random_state(SPEC, torch.Generator().manual_seed(2))
        content = RecordDict(
            {
                wire.UPDATE: wire.pack_state(state),
                wire.ROUND: ConfigRecord({"secret": MARKER}),
                "metrics": MetricRecord({"loss": 1.5, "num-examples": 8}),
                "more": ArrayRecord({MARKER: Array(np.ones(3, np.float32))}),
            }
        )
        return Message(content, reply_to=message)

    reply = exit_door(message_of(), context_of(folder), chatty)
    assert set(reply.content) == {wire.UPDATE, wire.ROUND}
    assert MARKER.encode() not in sent(reply)


def test_an_update_of_other_names_or_shapes_is_held_back(folder) -> None:
    def smuggler(message, context):
        state = random_state(SPEC, torch.Generator().manual_seed(2))
        state[MARKER] = torch.ones(1000)
        return Message(
            RecordDict({wire.UPDATE: wire.pack_state(state)}), reply_to=message
        )

    reply = exit_door(message_of(), context_of(folder), smuggler)
    assert reply.error.reason == MISFIT


@pytest.mark.parametrize("kind", ["evaluate", "query"])
def test_other_kinds_of_message_get_a_fixed_refusal(folder, kind: str) -> None:
    reply = app(message_of(kind=kind), context_of(folder))
    assert reply.error.reason == MISFIT


def test_messages_that_do_not_fit_are_refused(folder) -> None:
    good = random_state(SPEC, torch.Generator().manual_seed(1))
    poisoned = good | {"decoder.bias": torch.full_like(good["decoder.bias"], np.nan)}
    for message in (message_of(digest="0" * 64), message_of(state=poisoned)):
        assert app(message, context_of(folder)).error.reason == MISFIT


def test_sizes_are_the_same_with_one_user_more(tmp_path: Path) -> None:
    sizes = []
    for n in (8, 9):
        folder = write_folder(tmp_path / str(n), rows(n))
        reply = app(message_of(), context_of(folder))
        sizes.append(len(content_of(reply)))
    assert sizes[0] == sizes[1]


def test_a_client_refuses_what_its_settings_do_not_allow(tmp_path: Path) -> None:
    poor = write_folder(tmp_path / "poor", rows(8), target_epsilon=0.5)
    assert app(message_of(), context_of(poor)).error.reason == REFUSED
    closed = write_folder(tmp_path / "closed", rows(8), runs=["books"])
    assert app(message_of(), context_of(closed)).error.reason == REFUSED
    off = {"privacy.mode": "off"}
    folder = write_folder(tmp_path / "strict", rows(8))
    assert app(message_of(), context_of(folder, **off)).error.reason == REFUSED
    consent = write_folder(tmp_path / "off", rows(8), **{"allow-non-private": True})
    assert app(message_of(), context_of(consent, **off)).has_content()


def test_a_reply_carries_the_receipt_of_its_own_charge(folder) -> None:
    context = context_of(folder)
    receipts = []
    for number in (1, 2):
        reply = app(message_of(number), context)
        receipts.append(wire.unpack_reply_header(reply.content).receipt)
    _, entries = inspect_ledger(folder, witness_place(folder, read_settings(folder)))
    assert receipts == [entry.hash for entry in entries]
    known = message_of(3, acknowledged=receipts[0])
    assert app(known, context).has_content()
    unknown = message_of(4, acknowledged="ab" * 32)
    assert app(unknown, context).error.reason == CLOSED
    assert len(spent(folder)) == 3


def test_a_fault_of_the_ledger_is_told_to_the_operator_and_not_the_server(
    folder, caplog
) -> None:
    context = context_of(folder)
    assert app(message_of(1), context).has_content()
    (folder / "ledger.sqlite").unlink()
    reply = app(message_of(2), context)
    assert reply.error.reason == CLOSED
    assert b"missing" not in sent(reply)
    assert "Ledger missing" in caplog.text
    assert "newest ledger" in caplog.text


def test_the_ledger_stays_locked_while_the_app_answers(folder) -> None:
    seen = []

    def asks_again(message, context):
        inner = exit_door(message_of(2), context, lambda m, c: pytest.fail("trained"))
        seen.append(inner.error.reason)
        raise RuntimeError

    exit_door(message_of(1), context_of(folder), asks_again)
    assert seen == [CLOSED]
    assert [number for number, _ in spent(folder)] == [1]


def test_every_error_has_one_length(folder) -> None:
    assert {len(text) for text in (REFUSED, CLOSED, MISFIT, FAILED)} == {64}


@pytest.mark.parametrize("signed_by_us", [True, False])
def test_consent_by_key_needs_the_keys_signature(tmp_path, signed_by_us) -> None:
    ours, theirs = b"a" * 32, b"b" * 32
    folder = write_folder(
        tmp_path / "0000", rows(8), runs=[], servers=[public_key(ours)]
    )
    context = context_of(folder)
    assert app(message_of(), context).error.reason == REFUSED
    message = sign(message_of(), context, ours if signed_by_us else theirs)
    reply = app(message, context)
    assert reply.has_content() if signed_by_us else reply.error.reason == REFUSED


def test_a_signature_that_does_not_fit_is_refused_even_with_consent(folder) -> None:
    context = context_of(folder)
    message = sign(message_of(), context, b"a" * 32)
    assert app(message, context).has_content()
    message = sign(message_of(2), context, b"a" * 32)
    context.run_config["training.learning-rate"] = 2.0
    assert app(message, context).error.reason == MISFIT


def test_every_handler_of_the_app_is_behind_the_door() -> None:
    """A handler registered without it would answer whatever it likes."""
    tree = ast.parse(Path(wiring.__file__).read_text(encoding="utf-8"))
    handlers = [
        decorator
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
        for decorator in function.decorator_list
    ]
    assert len(handlers) == 11
    for handler in handlers:
        assert isinstance(handler, ast.Call)
        mods = {key.arg: ast.unparse(key.value) for key in handler.keywords}
        assert mods == {"mods": "[exit_door]"}


def test_a_panic_inside_polars_is_held_back_too(folder, caplog) -> None:
    """It derives from BaseException, so ``except Exception`` would let it by."""

    def panics(message, context):
        raise pl.exceptions.PanicException(MARKER)

    reply = exit_door(message_of(), context_of(folder), panics)
    assert reply.error.reason == FAILED
    assert MARKER.encode() not in sent(reply)
    assert MARKER not in caplog.text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (BudgetExhausted, REFUSED),
        (ProtocolError, MISFIT),
        (ConfigError, FAILED),
        (DataFormatError, FAILED),
    ],
)
def test_each_kind_of_error_has_one_text_and_no_cause(folder, error, text) -> None:
    def fails(message, context):
        try:
            raise KeyError(MARKER)
        except KeyError as cause:
            raise error(f"{MARKER} was at fault") from cause

    reply = exit_door(message_of(), context_of(folder), fails)
    assert (reply.error.code, reply.error.reason) == (0, text)
    assert not reply.has_content()
    assert MARKER.encode() not in sent(reply)


def test_an_error_reply_of_the_inner_app_does_not_pass(folder) -> None:
    """Flower itself would put an exception's text there."""

    def errs(message, context):
        return Message(Error(code=5, reason=MARKER), reply_to=message)

    reply = exit_door(message_of(), context_of(folder), errs)
    assert reply.error.reason in {REFUSED, MISFIT, FAILED}
    assert MARKER.encode() not in sent(reply)


def test_the_header_is_the_servers_own_not_the_clients(folder) -> None:
    def forges(message, context):
        header = wire.ReplyHeader(MARKER, 99, MARKER, MARKER)
        state = random_state(SPEC, torch.Generator().manual_seed(2))
        content = RecordDict(
            {wire.UPDATE: wire.pack_state(state), wire.ROUND: wire.pack_header(header)}
        )
        return Message(content, reply_to=message)

    message = message_of(3)
    reply = exit_door(message, context_of(folder), forges)
    came = wire.unpack_header(message.content)
    sent_back = wire.unpack_reply_header(reply.content)
    assert (sent_back.run, sent_back.number) == (came.run, came.number)
    assert sent_back.nonce == came.nonce
    assert set(reply.content[wire.ROUND]) == {
        *("protocol", "run", "number", "nonce", "receipt")
    }
    assert MARKER.encode() not in sent(reply)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_update_that_is_not_finite_stays(folder, value: float) -> None:
    def breaks(message, context):
        state = random_state(SPEC, torch.Generator().manual_seed(2))
        state["decoder.bias"][0] = value
        return Message(
            RecordDict({wire.UPDATE: wire.pack_state(state)}), reply_to=message
        )

    assert exit_door(message_of(), context_of(folder), breaks).error.reason == MISFIT


def test_a_wider_array_under_an_allowed_name_is_held_back(folder) -> None:
    def widens(message, context):
        state = random_state(SPEC, torch.Generator().manual_seed(2))
        state["decoder.bias"] = torch.zeros(SPEC.num_items + 1)
        return Message(
            RecordDict({wire.UPDATE: wire.pack_state(state)}), reply_to=message
        )

    assert exit_door(message_of(), context_of(folder), widens).error.reason == MISFIT


@pytest.mark.parametrize("kind", ["evaluate", "query", "query.student", "train.more"])
def test_what_no_list_names_leaves_with_nothing(folder, kind: str) -> None:
    """Deny by default, even where an inner app did answer."""

    def answers(message, context):
        state = random_state(SPEC, torch.Generator().manual_seed(2))
        content = RecordDict(
            {
                wire.UPDATE: wire.pack_state(state),
                "metrics": MetricRecord({MARKER: 1.0}),
            }
        )
        return Message(content, reply_to=message)

    reply = exit_door(message_of(kind=kind), context_of(folder), answers)
    assert MARKER.encode() not in sent(reply)
    assert spent(folder) == []
    if kind == "query.student":
        assert set(reply.content) == {wire.ROUND}
    else:
        assert reply.error.reason == MISFIT


@pytest.mark.parametrize("kind", ["train.more", "evaluate.rows", "query.rows", "query"])
def test_flowers_own_complaints_get_a_fixed_text_too(folder, kind: str) -> None:
    """It answers an unknown type with a text of its own, before any of our mods."""
    reply = app(message_of(kind=kind), context_of(folder))
    assert reply.error.reason == MISFIT
    assert spent(folder) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_whoever_ends_the_client_ends_it(folder, error) -> None:
    def ends(message, context):
        raise error

    with pytest.raises(error):
        exit_door(message_of(), context_of(folder), ends)
