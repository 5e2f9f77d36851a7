"""The ring: packing loses nothing, sums wrap where they should, sizes are exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.secagg.ring import Ring

BITS = st.integers(1, 64)


def elements(ring, length, seed):
    draw = np.random.default_rng(seed)
    return ring.encode(draw.integers(0, 2**64, length, dtype=np.uint64))


@given(BITS, st.integers(1, 300), st.integers(0, 2**32))
def test_what_is_packed_is_unpacked(bits, length, seed):
    ring = Ring(bits)
    values = elements(ring, length, seed)
    packed = ring.pack(values)
    assert len(packed) == ring.packed_size(length)
    assert ring.unpack(packed, length).tolist() == values.tolist()
    assert values.max() < 1 << bits


@given(BITS, st.integers(1, 40), st.integers(0, 2**32))
def test_packing_cuts_what_the_machine_word_has_beyond_the_ring(bits, length, seed):
    ring = Ring(bits)
    draw = np.random.default_rng(seed)
    words = draw.integers(0, 2**64, length, dtype=np.uint64).astype(ring.dtype)
    kept = [int(word) % (1 << bits) for word in words]
    assert ring.unpack(ring.pack(words), length).tolist() == kept


@settings(max_examples=50)
@given(BITS, st.integers(2, 9), st.integers(0, 2**32))
def test_sums_of_machine_words_are_sums_in_the_ring(bits, count, seed):
    ring = Ring(bits)
    vectors = [elements(ring, 5, seed + each) for each in range(count)]
    total = ring.zeros(5)
    for vector in vectors:
        total += vector
    exact = [sum(int(v[i]) for v in vectors) % (1 << bits) for i in range(5)]
    assert ring.reduce(total).tolist() == exact


@given(st.integers(2, 63), st.data())
def test_signed_integers_come_back(bits, data):
    ring = Ring(bits)
    half = 1 << (bits - 1)
    values = data.draw(st.lists(st.integers(-half, half - 1), min_size=1, max_size=9))
    encoded = ring.encode(np.array(values, np.int64))
    assert encoded.dtype == ring.dtype and int(encoded.max()) < 1 << bits
    assert ring.decode(encoded).tolist() == values


def test_a_whole_word_is_its_own_encoding():
    ring = Ring(64)
    values = np.array([-(2**63), -1, 2**63 - 1])
    assert ring.decode(ring.encode(values)).tolist() == values.tolist()


@pytest.mark.parametrize(("bits", "word"), [(1, 16), (16, 16), (17, 32), (33, 64)])
def test_the_machine_word_is_the_next_wider_one(bits, word):
    assert Ring(bits).word_bits == word


def test_a_long_vector_takes_its_bits_and_no_more():
    assert Ring(20).packed_size(1_000_000) == 1_000_000 * 20 // 8
    assert Ring(20).packed_size(1_000_001) == 1_000_032 * 20 // 8


@pytest.mark.parametrize("change", [-1, 1, -80])
def test_other_sizes_are_refused(change):
    ring = Ring(20)
    packed = ring.pack(ring.zeros(32))
    wrong = packed[:change] if change < 0 else packed + bytes(change)
    with pytest.raises(ProtocolError, match="80 bytes"):
        ring.unpack(wrong, 32)
