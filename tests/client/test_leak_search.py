"""The leak suite's search, and that it finds a secret however it is written."""

import base64
import struct

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict

from tests.client.conftest import message_of, sent

MARK = "MarkerQx7Zk"
VALUE, TIME = 48271.625, 1_987_654_321


Forms = dict[str, set[bytes]]


def base64_forms(raw: bytes) -> set[bytes]:
    """What stays of ``raw`` in base64 at each of three alignments, both alphabets."""
    forms = set()
    for lead in range(3):
        text = base64.b64encode(bytes(lead) + raw)
        inner = text[-(-8 * lead // 6) : 8 * (lead + len(raw)) // 6]
        forms |= {inner, inner.translate(bytes.maketrans(b"+/", b"-_"))}
    return forms


def byte_forms(raw: bytes) -> set[bytes]:
    digits = raw.hex().encode()
    return {raw, raw[::-1], digits, digits.upper()} | base64_forms(raw)


def text_forms(text: str) -> set[bytes]:
    wide = {text.encode("utf-16-le"), text.encode("utf-16-be")}
    return byte_forms(text.encode()) | wide


def number_forms(number: float) -> set[bytes]:
    forms = text_forms(str(number))
    for kind in "qi" if isinstance(number, int) else "df":
        forms |= byte_forms(struct.pack(f"<{kind}", number))
        forms |= byte_forms(struct.pack(f">{kind}", number))
    if isinstance(number, int):
        forms |= {varint(number), varint(2 * number)}
    return forms


def varint(number: int) -> bytes:
    """As protobuf writes an integer; twice the number is how it writes a signed one."""
    parts = [number >> shift & 127 for shift in range(0, number.bit_length(), 7)]
    return bytes([part | 128 for part in parts[:-1]] + parts[-1:])


PLANTED: Forms = {
    "mark": text_forms(MARK),
    "value": number_forms(VALUE),
    "time": number_forms(TIME),
}


def found(data: bytes, forms: Forms) -> list[str]:
    """Names of the secrets that ``data`` holds in any form."""
    return [name for name, each in forms.items() if any(f in data for f in each)]


WRITTEN = {
    "utf-8": MARK.encode(),
    "utf-16, little-endian": MARK.encode("utf-16-le"),
    "utf-16, big-endian": MARK.encode("utf-16-be"),
    "hex": MARK.encode().hex().encode(),
    "capital hex": MARK.encode().hex().upper().encode(),
    "base64, first": base64.b64encode(f"{MARK}-and-more".encode()),
    "base64, second": base64.b64encode(f"1{MARK}-and-more".encode()),
    "base64, third": base64.urlsafe_b64encode(f"22{MARK}-and-more".encode()),
    "reversed": MARK[::-1].encode(),
    "float32": np.full(3, VALUE, "<f4").tobytes(),
    "float32, big-endian": np.full(3, VALUE, ">f4").tobytes(),
    "float64": np.full(3, VALUE, "<f8").tobytes(),
    "float64, big-endian": np.full(3, VALUE, ">f8").tobytes(),
    "float as text": f"got {VALUE}".encode(),
    "int64": np.full(3, TIME, "<i8").tobytes(),
    "int64, big-endian": np.full(3, TIME, ">i8").tobytes(),
    "int as text": f"got {TIME}".encode(),
    "int in a record": sent(
        Message(RecordDict({"m": MetricRecord({"n": TIME})}), reply_to=message_of())
    ),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_the_search_finds_a_secret_however_it_is_written(how: str) -> None:
    noise = np.random.default_rng(0).bytes(5000)
    assert not found(noise, PLANTED)
    assert len(found(noise + WRITTEN[how] + noise, PLANTED)) == 1
