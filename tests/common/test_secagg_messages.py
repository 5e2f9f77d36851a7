"""Messages: each comes back as it was, and whatever is not quite one is refused."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.secagg import messages
from common.secagg.cohort import Advert, Cohort
from common.secagg.frames import HEAD, SIGNATURE
from common.secagg.messages import SEALED, Parcel, Reveal

ROUND, OTHER = b"r" * 32, b"o" * 32
MEMBERS = 11
SHARE = st.binary(min_size=16, max_size=16)
MEMBER = st.integers(0, 2**32 - 1)


def advert(number):
    keys = (bytes([number + i]) * 32 for i in range(4))
    return Advert(*keys, bytes([number]) * SIGNATURE)


def cohort(count=4):
    entries = [(bytes([i]) * 32, advert(i).digest()) for i in range(count)]
    return Cohort(tuple(entries), (advert(1), advert(2)))


def read_cohort(data, context):
    return Cohort.from_bytes(data, context, lambda members: 2)


PARCELS = (
    Parcel(b"s" * SEALED, (b"a" * 32, b"b" * 32)),
    Parcel(b"t" * SEALED, (b"c" * 32, b"d" * 32)),
)
DELIVERED = {3: b"s" * SEALED, 70_000: b"t" * SEALED}
CONFIRMED = {1: b"s" * 64, 9: b"t" * 64}
#: What is sent, its bytes, and how they are read.
ALL = {
    "advert": (advert(3), advert(3).to_bytes(ROUND), Advert.from_bytes),
    "cohort": (cohort(), cohort().to_bytes(ROUND), read_cohort),
    "parcels": (
        PARCELS,
        messages.parcels_to_bytes(PARCELS, ROUND),
        lambda data, context: messages.parcels_from_bytes(data, context, 2),
    ),
    "deliveries": (
        DELIVERED,
        messages.deliveries_to_bytes(DELIVERED, ROUND),
        lambda data, context: messages.deliveries_from_bytes(data, context, 2),
    ),
    "masked": (
        b"packed",
        messages.masked_to_bytes(b"packed", ROUND),
        lambda data, context: bytes(messages.masked_from_bytes(data, context, 6)),
    ),
    "survivors": (
        frozenset({0, 7, 8, 10}),
        messages.survivors_to_bytes([0, 7, 8, 10], MEMBERS, ROUND),
        lambda data, context: messages.survivors_from_bytes(data, context, MEMBERS),
    ),
    "confirmation": (
        b"s" * 64,
        messages.confirmation_to_bytes(b"s" * 64, ROUND),
        messages.confirmation_from_bytes,
    ),
    "confirmations": (
        CONFIRMED,
        messages.confirmations_to_bytes(CONFIRMED, ROUND),
        lambda data, context: messages.confirmations_from_bytes(data, context, 2),
    ),
    "reveal": (
        Reveal(b"seed" * 4, {4: b"x" * 16, 5: b"y" * 16}),
        Reveal(b"seed" * 4, {4: b"x" * 16, 5: b"y" * 16}).to_bytes(ROUND),
        lambda data, context: Reveal.from_bytes(data, context, 2),
    ),
}
each_message = pytest.mark.parametrize("name", ALL)


@each_message
def test_it_comes_back(name):
    sent, data, read = ALL[name]
    assert read(data, ROUND) == sent


@each_message
def test_another_round_is_refused(name):
    _, data, read = ALL[name]
    with pytest.raises(ProtocolError, match="this round"):
        read(data, OTHER)


@each_message
def test_other_kinds_are_refused(name):
    _, _, read = ALL[name]
    for other in ALL.keys() - {name}:
        with pytest.raises(ProtocolError):
            read(ALL[other][1], ROUND)


@each_message
def test_it_is_refused_when_cut_anywhere_or_padded(name):
    _, data, read = ALL[name]
    for end in range(len(data)):
        # Lists may be shorter by whole records: who misses one says so elsewhere.
        record = {"deliveries": 4 + SEALED, "confirmations": 68, "reveal": 20}
        if name in record and end >= HEAD and (len(data) - end) % record[name] == 0:
            continue
        with pytest.raises(ProtocolError):
            read(data[:end], ROUND)
    for more in (1, 7, 20, 52, 68, 100_000):
        with pytest.raises(ProtocolError):
            read(data + bytes(more), ROUND)


@each_message
def test_a_changed_head_is_refused(name):
    _, data, read = ALL[name]
    for place in range(HEAD):
        changed = bytearray(data)
        changed[place] ^= 0x10
        with pytest.raises(ProtocolError):
            read(bytes(changed), ROUND)


@given(st.sampled_from(sorted(ALL)), st.binary(max_size=300))
def test_noise_is_refused_with_a_protocol_error_and_nothing_else(name, noise):
    _, data, read = ALL[name]
    for made in (noise, data[:HEAD] + noise):
        try:
            read(made, ROUND)
        except ProtocolError:
            continue
        assert made[:HEAD] == data[:HEAD]


@given(st.dictionaries(MEMBER, SHARE, max_size=6), SHARE)
def test_any_shares_come_back(shares, seed):
    made = Reveal(seed, shares)
    assert Reveal.from_bytes(made.to_bytes(ROUND), ROUND, 6) == made


@given(st.sets(st.integers(0, 99)))
def test_any_survivors_come_back(survivors):
    data = messages.survivors_to_bytes(survivors, 100, ROUND)
    assert messages.survivors_from_bytes(data, ROUND, 100) == survivors
    assert len(data) == HEAD + 13


@pytest.mark.parametrize("order", [(5, 4), (4, 4)])
def test_members_out_of_order_or_twice_are_refused(order):
    body = b"".join(each.to_bytes(4, "big") + b"x" * 16 for each in order)
    data = Reveal(b"seed" * 4, {}).to_bytes(ROUND) + body
    with pytest.raises(ProtocolError, match="rising order"):
        Reveal.from_bytes(data, ROUND, 2)


def test_more_records_than_neighbours_are_refused():
    data = messages.deliveries_to_bytes(DELIVERED, ROUND)
    with pytest.raises(ProtocolError, match="at most 1"):
        messages.deliveries_from_bytes(data, ROUND, 1)


def test_bits_of_nobody_are_refused():
    data = messages.survivors_to_bytes([15], 16, ROUND)
    with pytest.raises(ProtocolError, match="members of the cohort"):
        messages.survivors_from_bytes(data, ROUND, MEMBERS)


@pytest.mark.parametrize("members", [0, 2, 20_001, 2**32 - 1])
def test_a_cohort_says_a_possible_size_before_anything_is_read(members):
    data = cohort().to_bytes(ROUND)
    changed = data[:HEAD] + members.to_bytes(4, "big") + data[HEAD + 4 :]
    with pytest.raises(ProtocolError, match="3 to 20000 members"):
        read_cohort(changed, ROUND)


def test_a_cohort_in_another_order_is_refused():
    whole = cohort()
    for entries in (whole.entries[::-1], (whole.entries[0],) * 4):
        with pytest.raises(ProtocolError, match="rising order"):
            read_cohort(Cohort(entries, whole.adverts).to_bytes(ROUND), ROUND)


def test_a_cohorts_digest_has_every_entry_and_the_terms_in_it():
    whole = cohort()
    others = (
        whole.digest(OTHER),
        cohort(3).digest(ROUND),
        Cohort(whole.entries[::-1], ()).digest(ROUND),
    )
    assert whole.digest(ROUND) not in others
    assert whole.digest(ROUND) == Cohort(whole.entries, ()).digest(ROUND)


def test_an_advert_is_its_identitys_for_its_terms_only():
    identity, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    public = identity.public_key().public_bytes_raw()
    signed = Advert(public, b"a" * 32, b"b" * 32, b"c" * 32).sign(identity, ROUND)
    signed.verify(ROUND)
    forged = [
        signed.sign(other, ROUND),
        Advert(public, b"x" * 32, b"b" * 32, b"c" * 32, signed.signature),
        Advert(public, b"a" * 32, b"x" * 32, b"c" * 32, signed.signature),
        Advert(public, b"a" * 32, b"b" * 32, b"x" * 32, signed.signature),
        # The same bytes, cut elsewhere or swapped.
        Advert(public, b"b" * 32, b"a" * 32, b"c" * 32, signed.signature),
        Advert(b"\xff" * 32, b"a" * 32, b"b" * 32, b"c" * 32, signed.signature),
    ]
    for each in forged:
        with pytest.raises(ProtocolError, match="signature"):
            each.verify(ROUND)
    with pytest.raises(ProtocolError, match="signature"):
        signed.verify(OTHER)
    assert len({each.digest() for each in [signed, *forged]}) == 7
