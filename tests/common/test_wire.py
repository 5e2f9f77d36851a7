"""The wire: what goes in comes out, bit for bit, and nothing else does."""

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
HEADER = wire.RoundHeader("17446744073709551615", 3, "ab" * 32)


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


def test_a_header_round_trips():
    content = RecordDict({wire.ROUND: wire.pack_header(HEADER)})
    assert wire.unpack_header(content) == HEADER


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"protocol": 2}, "version 1, got 2"),
        ({"run": 5}, "header"),
        ({"round": "1"}, "header"),
        ({"catalogue": 1}, "header"),
    ],
)
def test_another_header_is_refused(change, text):
    record = ConfigRecord({**wire.pack_header(HEADER), **change})
    with pytest.raises(ProtocolError, match=text):
        wire.unpack_header(RecordDict({wire.ROUND: record}))


@pytest.mark.parametrize("key", ["protocol", "run", "round", "catalogue"])
def test_a_header_is_whole(key):
    whole = wire.pack_header(HEADER)
    part = ConfigRecord({name: whole[name] for name in whole if name != key})
    with pytest.raises(ProtocolError):
        wire.unpack_header(RecordDict({wire.ROUND: part}))
    with pytest.raises(ProtocolError, match="'round'"):
        wire.unpack_header(RecordDict())


def test_soft_labels_round_trip():
    sent = labels()
    content = RecordDict({wire.SOFT_LABELS: wire.pack_soft_labels(sent)})
    back = wire.unpack_soft_labels(content)
    assert (back.proxy != sent.proxy).nnz == 0
    for part in ("item", "logit", "scale", "centre"):
        came, went = getattr(back, part), getattr(sent, part)
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
