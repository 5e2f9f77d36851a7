"""Entries as canonical JSON, each bound to the one before."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.chain import (
    Charge,
    LedgerEntry,
    check_chain,
    export_text,
    hash_of,
    head_of,
    read_entry,
    read_export,
)
from client.faults import Fault, LedgerFault
from common.errors import DataFormatError
from common.events import DpEvent
from tests.client.conftest import nonce_of

EVENT = DpEvent(1.5, 0.25, 3)
NOON = datetime(2026, 5, 1, 12, 0, 0, 123000, tzinfo=UTC)
CHARGE = Charge("7", "movies", 2, nonce_of(2), "train", EVENT, (EVENT,))


def chain(length: int) -> list[LedgerEntry]:
    entries: list[LedgerEntry] = []
    for sequence in range(1, length + 1):
        made = replace(CHARGE, number=sequence, nonce=nonce_of(sequence))
        entry = LedgerEntry(sequence, NOON, head_of("id", entries), "5a17", made)
        entries.append(entry)
    return entries


def rows(entries) -> list[tuple[str, str]]:
    return [(entry.body, entry.hash) for entry in entries]


def test_an_entry_by_hand() -> None:
    assert json.loads(chain(1)[0].body) == {
        "sequence": 1,
        "utc": "2026-05-01T12:00:00.123+00:00",
        "previous": "id",
        "salt": "5a17",
        "run": "7",
        "name": "movies",
        "round": 1,
        "nonce": nonce_of(1),
        "purpose": "train",
        "seeded": False,
        "unit": "user",
        "relation": "add-or-remove-one",
        "event": {
            "class_name": "SelfComposedDpEvent",
            "count": 3,
            "event": {
                "class_name": "PoissonSampledDpEvent",
                "sampling_probability": 0.25,
                "event": {"class_name": "GaussianDpEvent", "noise_multiplier": 1.5},
            },
        },
        "plan": [
            {
                "unit": "user",
                "relation": "add-or-remove-one",
                "event": json.loads(chain(1)[0].body)["event"],
            }
        ],
    }


@given(
    number=st.integers(1, 2**31 - 1),
    name=st.text(min_size=1, max_size=64),
    noise=st.floats(0.25, 1e6),
    rate=st.floats(1e-6, 1.0),
    steps=st.integers(1, 10**6),
    unit=st.sampled_from(["user", "interaction"]),
)
def test_an_entry_is_read_as_it_was_written(
    number, name, noise, rate, steps, unit
) -> None:
    event = DpEvent(noise, rate, steps, unit=unit)
    made = replace(CHARGE, number=number, name=name, event=event, plan=(event, EVENT))
    entry = LedgerEntry(1, NOON, "id", "5a17", made)
    assert read_entry(entry.body) == entry
    assert check_chain("id", rows([entry])) == [entry]


def test_a_note_has_no_charge() -> None:
    note = LedgerEntry(1, NOON, "id", "5a17", None, "accepted: unwitnessed")
    assert check_chain("id", rows([note])) == [note]


@given(st.data())
def test_no_changed_character_passes(data) -> None:
    whole = rows(chain(3))
    place = data.draw(st.integers(0, 2))
    body, stored = whole[place]
    at = data.draw(st.integers(0, len(body) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != body[at]))
    whole[place] = (body[:at] + other + body[at + 1 :], stored)
    with pytest.raises(LedgerFault) as refusal:
        check_chain("id", whole)
    assert refusal.value.fault is Fault.EDITED
    assert refusal.value.entry == place + 1, "and the entry is named"


def test_a_changed_entry_with_its_hash_made_to_fit_breaks_the_next() -> None:
    whole = rows(chain(3))
    body = whole[1][0].replace("movies", "novels")
    whole[1] = (body, hash_of(body))
    with pytest.raises(LedgerFault) as refusal:
        check_chain("id", whole)
    assert refusal.value.entry == 3


@pytest.mark.parametrize(
    ("wrong", "entry"),
    [
        (lambda w: w[1:], 1),
        (lambda w: [w[0], w[2]], 2),
        (lambda w: [w[1], w[0], w[2]], 1),
        (lambda w: [*w, w[2]], 4),
        (lambda w: [w[0], w[0], w[1]], 2),
    ],
)
def test_a_gap_a_swap_and_a_copy_are_found(wrong, entry: int) -> None:
    with pytest.raises(LedgerFault) as refusal:
        check_chain("id", wrong(rows(chain(3))))
    assert (refusal.value.fault, refusal.value.entry) == (Fault.EDITED, entry)


def test_a_chain_belongs_to_its_ledger() -> None:
    with pytest.raises(LedgerFault):
        check_chain("another", rows(chain(1)))


def test_equal_facts_in_another_form_are_no_entry() -> None:
    """One body, one hash: blanks or another order of keys would give a second."""
    body = json.dumps(json.loads(chain(1)[0].body))
    with pytest.raises(LedgerFault):
        check_chain("id", [(body, hash_of(body))])


def test_an_export_is_verified_by_anybody() -> None:
    text = export_text("id", chain(3))
    assert len(text.splitlines()) == 4
    assert read_export(text) == ("id", chain(3))
    lines = text.splitlines()
    for wrong in (
        "\n".join([lines[0], lines[1], lines[3]]),
        text.replace('"count', '"Count', 1),
        text.replace("1.5", "9.5", 1),
    ):
        with pytest.raises(LedgerFault):
            read_export(wrong)


@pytest.mark.parametrize(
    "text", ["", "{}", "x", "[]\n", '{"format":"other"}\n', "1\n2"]
)
def test_another_text_is_no_export(text: str) -> None:
    with pytest.raises(DataFormatError, match="tutela-ledger-1"):
        read_export(text)


def test_numbers_of_another_kind_are_no_event() -> None:
    """A count of 3.0 or true, or a mechanism of another class, is an edit."""
    body = chain(1)[0].body
    for old, new in (
        ('"count":3', '"count":3.0'),
        ('"count":3', '"count":true'),
        ('"count":3', '"count":1e999'),
        ("2026-05-01T12:00:00.123+00:00", "0001-01-01T00:00:00.000+14:00"),
        ("GaussianDpEvent", "LaplaceDpEvent"),
        ('"noise_multiplier":1.5', '"noise_multiplier":"1.5"'),
    ):
        wrong = body.replace(old, new)
        assert wrong != body
        with pytest.raises(LedgerFault):
            check_chain("id", [(wrong, hash_of(wrong))])
