"""Audit: can the seeds of secure aggregation's masks be guessed?

Simulations only: it looks at what the server saw of many clients. A seed that was drawn
from few bits is found by trying them: each client advertises a commitment to one of its
seeds and the public key of the other, and a guess is checked against both without
asking anybody. Seeds that survivors revealed are held against each other as well.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from common.secagg.cohort import Advert
from common.secagg.keys import commitment, mask_private_key
from common.secagg.shares import SHARE_BYTES

#: How a short seed may have been stretched to 16 bytes.
STRETCHES: dict[str, Callable[[int], bytes]] = {
    "zeros before": lambda seed: seed.to_bytes(SHARE_BYTES, "big"),
    "zeros behind": lambda seed: seed.to_bytes(SHARE_BYTES, "little"),
    "repeated": lambda seed: seed.to_bytes(4, "big") * (SHARE_BYTES // 4),
    "SHA-256": lambda seed: hashlib.sha256(seed.to_bytes(4, "big")).digest()[
        :SHARE_BYTES
    ],
    "Mersenne Twister": lambda seed: random.Random(seed).randbytes(SHARE_BYTES),  # noqa: S311
    "NumPy": lambda seed: np.random.default_rng(seed).bytes(SHARE_BYTES),
}


@dataclass(frozen=True)
class GuessedSeed:
    """A seed that was found.

    Attributes:
        identity: whose.
        seed_of: ``self mask`` or ``pair masks``.
        stretch: how it was made from a short one.
    """

    identity: bytes
    seed_of: str
    stretch: str


def guessed_seeds(
    adverts: Iterable[Advert], context: bytes, *, bits: int = 12, key_bits: int = 6
) -> list[GuessedSeed]:
    """Every advertised seed that is one of few.

    Args:
        adverts: of a round.
        context: the digest of the round's terms.
        bits: tries of a self mask's seed, as a power of 2; a microsecond each.
        key_bits: tries of a mask key's seed; a tenth of a millisecond each.
    """
    tries = list(_candidates(max(bits, key_bits)))
    return [
        guess
        for advert in adverts
        for guess in _guess(advert, context, tries, key_bits)
    ]


def repeated_seeds(seeds: Iterable[bytes]) -> int:
    """Seeds that were drawn more than once; any at all are a fault."""
    return sum(count - 1 for count in Counter(seeds).values())


def _candidates(bits: int) -> Iterator[tuple[int, str, bytes]]:
    for seed in range(1 << bits):
        for name, stretch in STRETCHES.items():
            yield seed, name, stretch(seed)


def _guess(
    advert: Advert, context: bytes, tries: list[tuple[int, str, bytes]], key_bits: int
) -> Iterator[GuessedSeed]:
    identity = advert.identity
    for number, stretch, seed in tries:
        if commitment(seed, context, identity) == advert.commitment:
            yield GuessedSeed(identity, "self mask", stretch)
        if number < 1 << key_bits:
            key = mask_private_key(seed, context, identity).public_key()
            if key.public_bytes_raw() == advert.mask_key:
                yield GuessedSeed(identity, "pair masks", stretch)
