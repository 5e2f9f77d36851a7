"""A public random rotation: it spreads a vector's weight over all coordinates.

In ``common`` because clients rotate and the server rotates back; both know the seed,
which hides nothing. Sums in a ring need every coordinate to be small, and one user's
update may sit in a few. Random signs and a Walsh–Hadamard transform spread it (Ailon &
Chazelle 2006; for secure sums Suresh et al. 2017, arXiv 1611.00429). The transform
needs a power of two: rather than pad the vector, which would send up to twice as
much, it is applied to the first and then to the last 2^k coordinates.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float64]


def block(dim: int) -> int:
    """The largest power of two that is at most ``dim``."""
    return 1 << (dim.bit_length() - 1)


def rotate(vector: Float, seed: bytes) -> Float:
    """The rotated vector, float64 ``[d]``; its L2 norm is the same.

    Each coordinate becomes a sum of at least d/2 old ones (or of parts of them), each
    under a fair sign: at any height t it is beyond it with a probability of at most
    2·exp(−t²·n / 2|v|²), n = ``block(d)`` (Hoeffding).

    Args:
        vector: float64 ``[d]``, d ≥ 1; it is left as it is.
        seed: public, another one each round.
    """
    found, size = vector.astype(np.float64), block(len(vector))
    for place, part in enumerate(_parts(found, size)):
        part *= _signs(seed, place, size)
        _transform(part)
    return found


def unrotate(vector: Float, seed: bytes) -> Float:
    """What :func:`rotate` with this seed made the vector of, float64 ``[d]``."""
    found, size = vector.astype(np.float64), block(len(vector))
    for place, part in reversed(list(enumerate(_parts(found, size)))):
        _transform(part)
        part *= _signs(seed, place, size)
    return found


def _parts(vector: Float, size: int) -> list[Float]:
    """The first and the last ``size`` coordinates, as views; one if that is all."""
    if size == len(vector):
        return [vector]
    return [vector[:size], vector[-size:]]


def _signs(seed: bytes, place: int, size: int) -> Float:
    text = b"tutela rotation\x1f" + bytes([place]) + seed
    stream = hashlib.shake_256(text).digest(-(-size // 8))
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), count=size)
    return np.asarray(1.0 - 2.0 * bits, dtype=np.float64)


def _transform(vector: Float) -> None:
    """Walsh–Hadamard in place, orthonormal, hence its own inverse."""
    half, size = 1, len(vector)
    while half < size:
        pairs = vector.reshape(-1, 2, half)
        first = pairs[:, 0].copy()
        pairs[:, 0] += pairs[:, 1]
        np.subtract(first, pairs[:, 1], out=pairs[:, 1])
        half *= 2
    vector *= 1.0 / math.sqrt(size)
