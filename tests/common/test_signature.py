"""Signatures: each part of a message is bound, and nothing else opens the lock."""

from dataclasses import replace

import pytest
import torch
from flwr.app import Array, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from common import wire
from common.config import defaults
from common.errors import ProtocolError
from common.signature import check_signature, public_key, signed
from common.student import StudentSpec, random_state

SECRET, OTHER = bytes(range(32)), bytes(32)
CONFIG = defaults()
STATE = random_state(StudentSpec(3, 2, 1.0, 0.0), torch.Generator().manual_seed(0))
HEADER = wire.RoundHeader("7", "movies", 2, "0f" * 16, "ab" * 32)


def content() -> RecordDict:
    """Fresh records: a test may damage them."""
    return RecordDict({wire.STUDENT: wire.pack_state(STATE)})


def sign(secret: bytes = SECRET) -> wire.RoundHeader:
    return signed(HEADER, "train", content(), CONFIG, secret)


SIGNED = sign()


def refuse(header=SIGNED, kind="train", records=None, config=CONFIG) -> None:
    with pytest.raises(ProtocolError, match="signed by the key it names"):
        check_signature(header, kind, records or content(), config)


def test_the_public_key_is_that_of_rfc_8032():
    """Section 7.1, test 1."""
    secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert public_key(bytes.fromhex(secret)) == public


def test_a_signed_message_is_accepted_and_names_its_server():
    check_signature(SIGNED, "train", content(), CONFIG)
    assert SIGNED.server == public_key(SECRET)
    assert replace(SIGNED, server="", signature="") == HEADER


def test_it_is_accepted_after_the_wire():
    record = RecordDict({wire.ROUND: wire.pack_header(SIGNED)})
    check_signature(wire.unpack_header(record), "train", content(), CONFIG)


def test_it_is_accepted_whatever_the_order_of_keys_and_records():
    backwards = dict(reversed(CONFIG.items()))
    arrays = wire.pack_state(dict(reversed(STATE.items())))
    check_signature(SIGNED, "train", RecordDict({wire.STUDENT: arrays}), backwards)


@pytest.mark.parametrize("kind", ["evaluate", "query.student", "train2", ""])
def test_the_kind_is_bound(kind):
    refuse(kind=kind)


@pytest.mark.parametrize(
    "change",
    [
        {"run": "8"},
        {"name": "music"},
        {"number": 3},
        {"nonce": "0e" * 16},
        {"catalogue": "aa" * 32},
        {"server": public_key(OTHER)},
        {"signature": "00" * 64},
        {"server": "ff" * 32},
        {"server": ""},
        {"signature": ""},
    ],
)
def test_every_field_of_the_header_is_bound(change):
    refuse(replace(SIGNED, **change))


def test_every_field_but_the_acknowledgement_was_tried():
    tried = {"run", "name", "number", "nonce", "catalogue", "server", "signature"}
    assert set(vars(HEADER)) - tried == {"acknowledged"}


@pytest.mark.parametrize("acknowledged", ["", "00" * 32, "cd" * 32])
def test_the_acknowledgement_is_free(acknowledged):
    header = replace(SIGNED, acknowledged=acknowledged)
    check_signature(header, "train", content(), CONFIG)


def test_another_secret_with_its_own_key_is_another_server():
    other = sign(OTHER)
    check_signature(other, "train", content(), CONFIG)
    refuse(replace(other, server=SIGNED.server))
    refuse(replace(SIGNED, signature=other.signature))


@settings(max_examples=100)
@given(st.data())
def test_every_byte_of_every_array_is_bound(data):
    records = content()
    arrays = records[wire.STUDENT]
    name = data.draw(st.sampled_from(sorted(arrays)))
    changed = bytearray(arrays[name].data)
    place = data.draw(st.integers(0, len(changed) - 1))
    changed[place] ^= data.draw(st.integers(1, 255))
    arrays[name] = replace_array(arrays[name], data=bytes(changed))
    refuse(records=records)


def replace_array(array: Array, **changes) -> Array:
    parts = {name: getattr(array, name) for name in ("dtype", "shape", "stype", "data")}
    return Array(**parts | changes)


@pytest.mark.parametrize(
    "change",
    [{"dtype": "float64"}, {"shape": (1, 3)}, {"stype": "other"}, {"data": b""}],
)
def test_how_an_array_is_read_is_bound(change):
    records = content()
    arrays = records[wire.STUDENT]
    arrays["decoder.bias"] = replace_array(arrays["decoder.bias"], **change)
    refuse(records=records)


def test_names_and_places_of_arrays_are_bound():
    whole = wire.pack_state(STATE)
    renamed = wire.pack_state({name + "x": value for name, value in STATE.items()})
    fewer = wire.pack_state({"decoder.bias": STATE["decoder.bias"]})
    refuse(records=RecordDict({wire.UPDATE: whole}))
    refuse(records=RecordDict({wire.STUDENT: renamed}))
    refuse(records=RecordDict({wire.STUDENT: fewer}))
    refuse(records=RecordDict({wire.STUDENT: whole, wire.SOFT_LABELS: fewer}))
    refuse(records=RecordDict({wire.ROUND: ConfigRecord({})}))


def test_bytes_moved_from_one_array_to_the_next_are_noticed():
    first = {"a": torch.zeros(2), "b": torch.zeros(3)}
    second = {"a": torch.zeros(3), "b": torch.zeros(2)}
    records = RecordDict({wire.STUDENT: wire.pack_state(first)})
    header = signed(HEADER, "train", records, CONFIG, SECRET)
    check_signature(header, "train", records, CONFIG)
    refuse(header, records=RecordDict({wire.STUDENT: wire.pack_state(second)}))


@pytest.mark.parametrize("key", sorted(CONFIG))
def test_every_key_of_the_configuration_is_bound(key):
    value = CONFIG[key]
    other = not value if isinstance(value, bool) else value * 2 or 1
    refuse(config=CONFIG | {key: other})
    refuse(config={name: CONFIG[name] for name in CONFIG if name != key})


def test_a_further_key_is_noticed():
    refuse(config=CONFIG | {"privacy.more": 1})


def test_signing_twice_gives_the_same_bytes():
    assert sign() == SIGNED
