"""Masks: ChaCha20 key streams, added straight into arrays of integers.

In ``common`` because the server adds again what clients subtracted. Every integer of a
mask is fresh bits of the key stream (RFC 8439's cipher under a key used once), so a
masked element is uniform. The stream is made in pieces that stay in the processor's
cache, and no Python loop runs over elements.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from common.secagg.ring import UintArray

#: Bytes of a piece: large enough that calls cost nothing, small enough for the cache.
PIECE = 1 << 18
_ZEROS = memoryview(bytes(PIECE))


class Masker:
    """Adds masks to one vector; keeps its scratch space between them.

    Args:
        total: the vector, unsigned words, changed in place and wrapping around.
    """

    def __init__(self, total: UintArray) -> None:
        self._total = total
        self._raw = memoryview(bytearray(PIECE))
        self._drawn = np.frombuffer(self._raw, total.dtype)

    def add(self, key: bytes, *, subtract: bool = False) -> None:
        """Add (or subtract) the mask of a 32-byte key that serves nothing else."""
        combine = np.subtract if subtract else np.add
        stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
        words = PIECE // self._total.itemsize
        for start in range(0, len(self._total), words):
            piece = self._total[start : start + words]
            stream.update_into(_ZEROS[: piece.nbytes], self._raw[: piece.nbytes])
            combine(piece, self._drawn[: len(piece)], out=piece)
