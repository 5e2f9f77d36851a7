"""The wire: what goes in comes out, bit for bit, and nothing else does."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.common import Array

from common import wire
from common.errors import ProtocolError
from common.soft_labels import encode
from common.student import StudentSpec, random_state, shapes

SPEC = StudentSpec(5, 3, 2.0, 0.5)
STATE = random_state(SPEC, torch.Generator().manual_seed(0))
HEADER = wire.RoundHeader(
    run="17446744073709551615",
    name="movies",
    number=3,
    nonce="0f" * 16,
    catalogue="ab" * 32,
    acknowledged="cd" * 32,
    server="ef" * 32,
    signature="01" * 64,
)
REPLY = wire.ReplyHeader(HEADER.run, HEADER.number, HEADER.nonce, "23" * 32)
#: A header says nothing of these: the server signed or heard nothing yet.
MAY_BE_EMPTY = ("acknowledged", "server", "signature")


def unpack(arrays):
    record = ArrayRecord({name: Array(values) for name, values in arrays.items()})
    return wire.unpack_state(RecordDict({"update": record}), "update", shapes(SPEC))


def plain():
    return {name: tensor.numpy().copy() for name, tensor in STATE.items()}


def labels():
    scores = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)
    proxy = sp.csr_matrix(np.float32([[1, 0, 1, 0, 0], [0, 0, 0, 0, 0]]))
    return encode(scores, proxy, 3)


def test_a_state_round_trips_bit_for_bit():
    content = RecordDict({"student": wire.pack_state(STATE)})
    back = wire.unpack_state(content, "student", shapes(SPEC))
    assert list(back) == list(STATE)
    assert all(torch.equal(back[name], STATE[name]) for name in STATE)


def test_a_state_that_came_is_writable_and_our_own():
    content = RecordDict({"student": wire.pack_state(STATE)})
    wire.unpack_state(content, "student", shapes(SPEC))["decoder.bias"] += 1
    again = wire.unpack_state(content, "student", shapes(SPEC))
    assert torch.equal(again["decoder.bias"], STATE["decoder.bias"])


def test_a_missing_record_is_named():
    with pytest.raises(ProtocolError, match="'update'"):
        wire.unpack_state(RecordDict(), "update", shapes(SPEC))


def test_other_names_are_refused_and_not_repeated():
    with pytest.raises(ProtocolError) as caught:
        unpack(plain() | {"titanic": np.zeros(1, np.float32)})
    assert "4 of other names" in str(caught.value)
    assert "titanic" not in str(caught.value)
    fewer = plain()
    del fewer["decoder.bias"]
    with pytest.raises(ProtocolError, match="2 of other names"):
        unpack(fewer)


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(4, np.float32),
        np.zeros((5, 1), np.float32),
        np.zeros(5, np.float64),
        np.zeros(5, np.int32),
        np.float32([0, 0, np.nan, 0, 0]),
        np.float32([0, 0, np.inf, 0, 0]),
    ],
)
def test_a_misfitting_tensor_is_named(values):
    with pytest.raises(ProtocolError, match=r"^update/decoder\.bias: expected"):
        unpack(plain() | {"decoder.bias": values})


def sent(header, **changes) -> RecordDict:
    record = {**wire.pack_header(header), **changes}
    kept = {name: value for name, value in record.items() if value is not None}
    return RecordDict({wire.ROUND: ConfigRecord(kept)})


def test_a_header_round_trips():
    assert wire.unpack_header(sent(HEADER)) == HEADER
    bare = replace(HEADER, **dict.fromkeys(MAY_BE_EMPTY, ""))
    assert wire.unpack_header(sent(bare)) == bare


def test_a_reply_header_round_trips():
    assert wire.unpack_reply_header(sent(REPLY)) == REPLY
    nothing_charged = replace(REPLY, receipt=wire.NO_RECEIPT)
    assert wire.unpack_reply_header(sent(nothing_charged)) == nothing_charged


def test_a_reply_weighs_the_same_whether_it_was_charged_or_not():
    free = replace(REPLY, receipt=wire.NO_RECEIPT)
    assert wire.num_bytes(sent(REPLY)) == wire.num_bytes(sent(free))


@pytest.mark.parametrize("value", ["", [], [""], b"", "x" * 1000])
def test_only_arrays_are_counted_whatever_else_came(value):
    """Flower cannot count an empty text: one reply must not end a run."""
    content = RecordDict({"update": wire.pack_state(STATE)})
    size = wire.num_bytes(content)
    assert size >= 4 * sum(tensor.numel() for tensor in STATE.values())
    content["more"] = ConfigRecord({"x": value})
    assert wire.num_bytes(content) == size


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"protocol": 1}, "version 3, got another"),
        ({"protocol": 4}, "version 3, got another"),
        ({"run": 5}, "'run'"),
        ({"run": "1" * 21}, "'run'"),
        ({"run": "-1"}, "'run'"),
        ({"name": ""}, "'name'"),
        ({"name": "a\u2028b"}, "'name'"),
        ({"name": "a" * 65}, "'name'"),
        ({"name": "two\nlines"}, "'name'"),
        ({"number": "1"}, "'number'"),
        ({"number": True}, "'number'"),
        ({"number": 1.0}, "'number'"),
        ({"number": 0}, "'number'"),
        ({"number": 2**31}, "'number'"),
        ({"nonce": "0f" * 15}, "'nonce'"),
        ({"nonce": "0F" * 16}, "'nonce'"),
        ({"nonce": "0f" * 16 + "\n"}, "'nonce'"),
        ({"catalogue": 1}, "'catalogue'"),
        ({"acknowledged": "cd" * 31}, "'acknowledged'"),
        ({"server": "xy" * 32}, "'server'"),
        ({"signature": "01" * 32}, "'signature'"),
    ],
)
def test_another_header_is_refused(change, text):
    with pytest.raises(ProtocolError, match=text):
        wire.unpack_header(sent(HEADER, **change))


@pytest.mark.parametrize(
    "change", [{"receipt": "23" * 31}, {"receipt": ""}, {"nonce": "x"}, {"number": 0}]
)
def test_another_reply_header_is_refused(change):
    with pytest.raises(ProtocolError, match=f"'{next(iter(change))}'"):
        wire.unpack_reply_header(sent(REPLY, **change))


def test_a_refusal_does_not_repeat_what_came():
    with pytest.raises(ProtocolError) as caught:
        wire.unpack_header(sent(HEADER, nonce="titanic", name="a" * 65))
    assert "['name', 'nonce']" in str(caught.value)
    assert "titanic" not in str(caught.value)


@pytest.mark.parametrize(
    ("unpack", "header"),
    [(wire.unpack_header, HEADER), (wire.unpack_reply_header, REPLY)],
)
def test_a_header_is_whole(unpack, header):
    for key in set(wire.pack_header(header)) - set(MAY_BE_EMPTY):
        with pytest.raises(ProtocolError):
            unpack(sent(header, **{key: None}))
    with pytest.raises(ProtocolError, match="'round'"):
        unpack(RecordDict())


def test_metric_sums_round_trip():
    sums = np.float32([1.5, -2.25, 30.0])
    content = RecordDict({wire.METRICS: wire.pack_sums(sums)})
    np.testing.assert_array_equal(wire.unpack_sums(content), sums)


@pytest.mark.parametrize(
    "sums",
    [np.float32([1, 2]), np.float64([1, 2, 3]), np.float32([1, 2, np.nan])],
)
def test_other_sums_are_refused(sums):
    content = RecordDict({wire.METRICS: wire.pack_sums(sums)})
    with pytest.raises(ProtocolError, match=r"^metrics/sums: expected"):
        wire.unpack_sums(content)
    with pytest.raises(ProtocolError, match="'metrics'"):
        wire.unpack_sums(RecordDict())


def test_no_user_adds_more_than_the_metric_norm():
    best = np.ones(len(wire.METRIC_NAMES) + 1)
    assert np.linalg.norm(best) == pytest.approx(wire.METRIC_NORM)
    assert {"sums": best.shape} == wire.METRIC_SHAPES


def test_soft_labels_round_trip():
    went_out = labels()
    content = RecordDict({wire.SOFT_LABELS: wire.pack_soft_labels(went_out)})
    back = wire.unpack_soft_labels(content)
    assert (back.proxy != went_out.proxy).nnz == 0
    for part in ("item", "logit", "scale", "centre"):
        came, went = getattr(back, part), getattr(went_out, part)
        assert came.dtype == went.dtype
        assert np.array_equal(came, went)


def test_no_soft_labels_is_none():
    assert wire.unpack_soft_labels(RecordDict()) is None


@pytest.mark.parametrize(
    "part", ["indptr", "indices", "shape", "item", "logit", "scale", "centre"]
)
def test_missing_parts_of_soft_labels_are_refused(part):
    record = wire.pack_soft_labels(labels())
    del record[part]
    with pytest.raises(ProtocolError, match="whole soft labels"):
        wire.unpack_soft_labels(RecordDict({wire.SOFT_LABELS: record}))


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("indices", np.int32([0, 5])),
        ("indices", np.int32([-1, 2])),
        ("indptr", np.int64([0, 2])),
        ("indptr", np.int64([0, 3, 2])),
        ("indptr", np.int64([0, 10**6, 0])),
        ("indptr", np.int64([-1, 1, 2])),
        ("indptr", np.int64([])),
        ("indptr", np.int64([[0, 2, 2]])),
        ("shape", np.int64([2])),
    ],
)
def test_histories_that_are_no_matrix_are_refused(part, values):
    record = wire.pack_soft_labels(labels())
    record[part] = Array(values)
    with pytest.raises(ProtocolError, match="whole soft labels"):
        wire.unpack_soft_labels(RecordDict({wire.SOFT_LABELS: record}))


def test_a_state_weighs_four_bytes_a_parameter_and_little_more():
    size = wire.num_bytes(RecordDict({"student": wire.pack_state(STATE)}))
    assert 4 * 35 <= size <= 4 * 35 + 1024


def test_bytes_come_back_as_they_were() -> None:
    content = RecordDict({wire.TOLD: wire.pack_bytes(bytes(range(256)))})
    assert wire.unpack_bytes(content, wire.TOLD) == bytes(range(256))


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"other": Array(np.zeros(3, np.uint8))},
        {"bytes": Array(np.zeros(3, np.uint8)), "more": Array(np.zeros(1, np.uint8))},
        {"bytes": Array(np.zeros(3, np.int8))},
        {"bytes": Array(np.zeros((1, 3), np.uint8))},
    ],
)
def test_what_is_not_one_row_of_bytes_is_refused(arrays) -> None:
    content = RecordDict({wire.TOLD: ArrayRecord(arrays)})
    with pytest.raises(ProtocolError):
        wire.unpack_bytes(content, wire.TOLD)
    with pytest.raises(ProtocolError, match="told"):
        wire.unpack_bytes(RecordDict(), wire.TOLD)
