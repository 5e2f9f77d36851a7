"""From shares to masks, and from the masked sum to the sum.

Server only: it sees what many clients revealed. What is put together from shares is
held against what its owner advertised, so wrong shares fail the round and never give a
wrong sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from common.errors import RoundFailed
from common.secagg import keys
from common.secagg.cohort import Advert
from common.secagg.masks import Masker
from common.secagg.shares import combine


@dataclass(frozen=True)
class Owner:
    """A member whose secret is to be put together.

    Attributes:
        member: its number.
        advert: what it advertised.
        shares: by its holder's place among its neighbours, from 1.
        seed: of its own mask, where it told that itself.
    """

    member: int
    advert: Advert
    shares: Mapping[int, bytes]
    seed: bytes | None = None


def self_seed_is(seed: bytes, advert: Advert, context: bytes) -> bool:
    """Whether this is the seed that was advertised."""
    return keys.commitment(seed, context, advert.identity) == advert.commitment


def remove_self_mask(
    masker: Masker, owner: Owner, threshold: int, context: bytes
) -> None:
    """Subtract the own mask of a member whose vector is in the sum.

    Raises:
        RoundFailed: for too few shares, or shares of another seed.
    """
    seed = owner.seed or _combine(owner, threshold)
    if not self_seed_is(seed, owner.advert, context):
        raise _wrong(owner)
    identity = owner.advert.identity
    masker.add(keys.self_mask_key(seed, context, identity), subtract=True)


def remove_pair_masks(
    masker: Masker,
    owner: Owner,
    partners: Iterable[Owner],
    threshold: int,
    context: bytes,
) -> None:
    """Subtract what neighbours added for a member whose vector never came.

    Args:
        partners: its neighbours whose vectors are in the sum.

    Raises:
        RoundFailed: for too few shares, or shares of another seed.
    """
    private = _mask_key(owner, threshold, context)
    for partner in partners:
        theirs = partner.advert
        key = keys.pair_mask_key(
            private, theirs.mask_key, context, owner.advert.identity, theirs.identity
        )
        masker.add(key, subtract=partner.member < owner.member)


def _mask_key(owner: Owner, threshold: int, context: bytes) -> X25519PrivateKey:
    seed = _combine(owner, threshold)
    private = keys.mask_private_key(seed, context, owner.advert.identity)
    if private.public_key().public_bytes_raw() != owner.advert.mask_key:
        raise _wrong(owner)
    return private


def _combine(owner: Owner, threshold: int) -> bytes:
    if len(owner.shares) < threshold:
        raise RoundFailed(
            f"Expected {threshold} shares of member {owner.member}'s secret, got "
            f"{len(owner.shares)}: the sum cannot be unmasked."
        )
    return combine(owner.shares, threshold)


def _wrong(owner: Owner) -> RoundFailed:
    return RoundFailed(
        f"Expected shares of what member {owner.member} advertised, got others: the "
        "sum cannot be unmasked."
    )
