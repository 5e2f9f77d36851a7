"""Random streams for sampling and noise: ChaCha20 under a fresh or seeded key.

Client only. In production the key comes from the operating system; a seed is
accepted in simulations alone, from the client's own settings. Seeded streams are
separated by client, run, round, nonce and purpose, so that no two share noise and a
round's draws do not depend on the engine or on the order of clients; two runs with
one seed and one name do share it, which is one reason why their results are stamped.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor


class RandomStream:
    """A stream of words, and of uniform and normal numbers."""

    def __init__(self, key: bytes) -> None:
        cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None)
        self._key_stream = cipher.encryptor()

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """``count`` uniform 64-bit words."""
        return np.frombuffer(self._key_stream.update(bytes(8 * count)), dtype=np.uint64)

    def uniform(self, count: int) -> npt.NDArray[np.float64]:
        """``count`` numbers in the open interval (0, 1), 53 bits each."""
        unit = (
            (self.words(count) >> np.uint64(11)).astype(np.float64) + 0.5
        ) * 2.0**-53
        # The largest word would round up to 1, whose normal number is infinite.
        return np.minimum(unit, 1.0 - 2.0**-53)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal float64 numbers by inversion, tails to about 8.2."""
        uniform = torch.from_numpy(self.uniform(int(np.prod(shape))))
        normal: Tensor = torch.special.ndtri(uniform).reshape(shape)
        return normal


def secure_stream() -> RandomStream:
    """A stream keyed by the operating system."""
    return RandomStream(os.urandom(32))


def seeded_stream(seed: int, *labels: str) -> RandomStream:
    """A repeatable stream for simulations, separated by ``labels``."""
    text = "\x1f".join(("tutela", str(seed), *labels))
    return RandomStream(hashlib.sha256(text.encode()).digest())


def stream(seed: int | None, *labels: str) -> RandomStream:
    """The stream of a client: seeded where its settings say so, else secure."""
    return secure_stream() if seed is None else seeded_stream(seed, *labels)
