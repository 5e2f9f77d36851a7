"""Masks, keys and shares: they cancel, they are apart, and few shares say nothing."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.secagg import keys, masks, sealing
from common.secagg.masks import Masker
from common.secagg.ring import Ring
from common.secagg.shares import combine, share_digest, split

SECRET = st.binary(min_size=16, max_size=16)
KEY = st.binary(min_size=32, max_size=32)


def masked(values, key, **how):
    total = values.copy()
    Masker(total).add(key, **how)
    return total


@settings(max_examples=40)
@given(KEY, st.sampled_from([9, 20, 33]), st.integers(1, 200), st.integers(0, 2**32))
def test_what_one_adds_the_other_takes_away(key, bits, length, seed):
    ring, draw = Ring(bits), np.random.default_rng(seed)
    ours, theirs = (ring.encode(draw.integers(0, 1 << bits, length)) for _ in range(2))
    total = masked(ours, key) + masked(theirs, key, subtract=True)
    assert ring.reduce(total).tolist() == ring.reduce(ours + theirs).tolist()


def test_a_mask_is_the_key_stream_whole_across_pieces(monkeypatch):
    key, length = bytes(range(32)), 1000
    stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
    expected = np.frombuffer(stream.update(bytes(4 * length)), "<u4")
    assert masked(Ring(20).zeros(length), key).tolist() == expected.tolist()
    monkeypatch.setattr(masks, "PIECE", 64)
    assert masked(Ring(20).zeros(length), key).tolist() == expected.tolist()


def test_every_bit_of_every_element_is_masked():
    drawn = masked(Ring(32).zeros(4096), keys.derive(b"s" * 16, keys.SELF, b"c"))
    share_of_ones = [(drawn >> bit & 1).mean() for bit in range(32)]
    # 4096 fair coins: deviation 0.0078.
    assert max(abs(share - 0.5) for share in share_of_ones) < 6 * 0.0078


@settings(max_examples=25, deadline=None)
@given(SECRET, st.integers(2, 6), st.integers(0, 4), st.randoms())
def test_enough_shares_give_the_secret_whichever_they_are(secret, least, more, random):
    holders = least + more
    shares = dict(enumerate(split(secret, least, holders), start=1))
    kept = {place: shares[place] for place in random.sample(sorted(shares), least)}
    assert combine(kept, least) == secret
    assert combine(shares, least) == secret


def test_fewer_shares_fit_any_secret():
    """One share short, each secret belongs to one last share: nothing is known."""
    first, second, _ = split(b"a secret of ours", 3, 3)

    def secret_by(last):
        return int.from_bytes(combine({1: first, 2: second, 3: last}, 3))

    base = secret_by(bytes(16))
    changes = [secret_by((1 << bit).to_bytes(16)) ^ base for bit in range(128)]
    # Linear in the last share's bits, and of full rank: a bijection.
    assert secret_by((0b101).to_bytes(16)) == base ^ changes[0] ^ changes[2]
    assert rank(changes) == 128


def rank(rows):
    found = 0
    rows = list(rows)
    while rows:
        pivot = rows.pop()
        if pivot:
            found += 1
            low = pivot & -pivot
            rows = [row ^ pivot if row & low else row for row in rows]
    return found


def test_shares_are_drawn_anew_and_their_digests_differ():
    first, second = split(bytes(16), 2, 3), split(bytes(16), 2, 3)
    assert not set(first) & set(second)
    assert len({share_digest(each) for each in first + second}) == 6
    assert len(share_digest(first[0])) == 32


def test_keys_differ_by_purpose_round_and_owner():
    contexts, whose = (b"a" * 32, b"b" * 32), (b"x" * 32, b"y" * 32)
    purposes = (keys.SELF, keys.PAIR, keys.PRIVATE, keys.SEAL)
    found = {
        keys.derive(bytes(16), purpose, context, one)
        for purpose in purposes
        for context in contexts
        for one in whose
    }
    assert len(found) == 16
    assert keys.derive(bytes(16), keys.SEAL, contexts[0], *whose) != keys.derive(
        bytes(16), keys.SEAL, contexts[0], *reversed(whose)
    )


def test_both_of_a_pair_find_the_same_key_and_nobody_else_does():
    ours, theirs, others = (X25519PrivateKey.generate() for _ in range(3))
    names = (b"x" * 32, b"y" * 32)

    def pair(mine, other, *whose):
        public = other.public_key().public_bytes_raw()
        return keys.pair_mask_key(mine, public, b"c" * 32, *whose)

    key = pair(ours, theirs, *names)
    assert key == pair(theirs, ours, *reversed(names))
    assert key != pair(others, ours, *names)
    assert len(key) == 32


def test_seeds_are_whole_and_come_from_the_operating_system(monkeypatch):
    asked = []
    monkeypatch.setattr(keys.os, "urandom", lambda n: asked.append(n) or bytes(n))
    assert keys.draw_seed() == bytes(16) and asked == [16]
    monkeypatch.undo()
    drawn = {keys.draw_seed() for _ in range(1000)}
    assert len(drawn) == 1000
    for bit in range(128):
        ones = sum(int.from_bytes(each) >> bit & 1 for each in drawn)
        assert abs(ones - 500) < 8 * 15.8


@pytest.mark.parametrize("key", [bytes(32), (1).to_bytes(32, "little")])
def test_public_keys_of_low_order_are_refused(key):
    with pytest.raises(ProtocolError, match="full order"):
        keys.check_public(key)


def test_sealed_shares_open_for_their_key_and_cohort_only():
    key, cohort = bytes(32), b"c" * 32
    sealed = sealing.seal(key, cohort, b"s" * 16, b"m" * 16)
    assert sealing.unseal(key, cohort, sealed) == (b"s" * 16, b"m" * 16)
    assert sealing.unseal(bytes(31) + b"1", cohort, sealed) is None
    assert sealing.unseal(key, b"d" * 32, sealed) is None
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        assert sealing.unseal(key, cohort, bytes(changed)) is None
