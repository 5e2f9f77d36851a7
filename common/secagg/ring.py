"""Integers modulo 2^b, and their packing: b bits each on the wire.

In ``common`` because clients pack and the server unpacks. Sums are kept in the next
wider machine word and wrap there, which is right because 2^b divides its modulus; only
what is sent or handed out is reduced. Packing works on whole rows of words at once: the
values of one word's worth of lanes (32 for 32-bit words) go to b words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.errors import ProtocolError

MOST_BITS = 64
UintArray = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Ring:
    """The integers modulo 2 to ``bits``, 1 to 64."""

    bits: int

    @property
    def word_bits(self) -> int:
        """Bits of the machine word that holds one: 16, 32 or 64."""
        return next(width for width in (16, 32, 64) if width >= self.bits)

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """The machine word; little-endian, as key streams and the wire are read."""
        return np.dtype(f"<u{self.word_bits // 8}")

    def zeros(self, length: int) -> UintArray:
        """A sum of nothing, ``[length]``."""
        return np.zeros(length, self.dtype)

    def reduce(self, values: UintArray) -> UintArray:
        """The values modulo 2 to ``bits``, in place."""
        if self.bits < self.word_bits:
            values &= self.dtype.type((1 << self.bits) - 1)
        return values

    def encode(self, values: npt.NDArray[np.integer]) -> UintArray:
        """Signed or unsigned integers as elements; negative ones wrap around.

        >>> Ring(4).encode(np.array([-1, 3])).tolist()
        [15, 3]
        """
        return self.reduce(values.astype(self.dtype))

    def decode(self, values: UintArray) -> npt.NDArray[np.int64]:
        """Elements as the signed integers from ``-2**(bits-1)``, int64.

        >>> Ring(4).decode(np.array([15, 3], dtype=np.uint16)).tolist()
        [-1, 3]
        """
        spare = np.uint64(64 - self.bits)
        shifted = values.astype(np.uint64) << spare
        return shifted.view(np.int64) >> np.int64(spare)

    def packed_size(self, length: int) -> int:
        """Bytes of ``length`` packed elements, padding of up to 63 included."""
        return _rows(length, self.word_bits) * self.bits * self.word_bits // 8

    def pack(self, values: UintArray) -> bytes:
        """``bits`` bits an element; higher ones are cut off."""
        rows = _rows(len(values), self.word_bits)
        lanes = np.zeros((self.word_bits, rows), self.dtype)
        lanes.reshape(-1)[: len(values)] = values
        self.reduce(lanes)
        words = np.zeros((self.bits, lanes.shape[1]), self.dtype)
        for lane, (word, shift, spilled) in zip(lanes, self._places(), strict=True):
            words[word] |= lane << self.dtype.type(shift)
            if spilled:
                words[word + 1] |= lane >> self.dtype.type(self.word_bits - shift)
        return words.tobytes()

    def unpack(self, data: bytes | memoryview, length: int) -> UintArray:
        """The elements, ``[length]``.

        Raises:
            ProtocolError: if the bytes are not so many as that takes.
        """
        if len(data) != self.packed_size(length):
            raise ProtocolError(
                f"Expected {self.packed_size(length)} bytes of packed integers, got "
                f"{len(data)}."
            )
        words = np.frombuffer(data, self.dtype).reshape(self.bits, -1)
        lanes = np.empty((self.word_bits, words.shape[1]), self.dtype)
        for lane, (word, shift, spilled) in zip(lanes, self._places(), strict=True):
            np.right_shift(words[word], self.dtype.type(shift), out=lane)
            if spilled:
                lane |= words[word + 1] << self.dtype.type(self.word_bits - shift)
        return self.reduce(lanes).reshape(-1)[:length]

    def _places(self) -> Iterator[tuple[int, int, bool]]:
        """Of each lane: its word, its lowest bit there, whether it needs the next."""
        for lane in range(self.word_bits):
            word, shift = divmod(lane * self.bits, self.word_bits)
            yield word, shift, shift + self.bits > self.word_bits


def _rows(length: int, lanes: int) -> int:
    return -(-length // lanes)
