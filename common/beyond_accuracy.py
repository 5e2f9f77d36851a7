"""What accuracy does not show of top-k lists: how varied, novel and widespread.

In ``common`` beside the ranking metrics: whoever has lists and *public* facts of
items can judge them. Intra-list diversity (Smyth & McClave 2001), novelty as mean
self-information (Zhou et al. 2010), coverage and the Gini index over the catalogue
(Shani & Gunawardana 2011).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from common.errors import DataFormatError
from common.interactions import FloatArray, IntArray

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ItemFacts:
    """Public facts of the items that lists are judged by.

    Attributes:
        popularity: ``[n]``, public counts ≥ 0; never counts of private rows.
        features: float32 ``[n, F]``, e.g. categories; a row of zeros is unknown.

    Raises:
        DataFormatError: if the two are not of the same items.
    """

    popularity: npt.NDArray[np.float32]
    features: FloatArray

    def __post_init__(self) -> None:
        if self.popularity.shape != self.features.shape[:1]:
            raise DataFormatError(
                "Expected a count and a row of features for each item, got shapes "
                f"{self.popularity.shape} and {self.features.shape}."
            )

    @cached_property
    def information(self) -> Values:
        """−log₂ of each item's share of public rows, one row added to every item.

        >>> facts = ItemFacts(np.float32([3, 0]), np.eye(2, dtype=np.float32))
        >>> facts.information.round(3)  # shares (3 + 1) / 5 and (0 + 1) / 5
        array([0.322, 2.322])
        """
        counts = self.popularity.astype(np.float64) + 1.0
        bits: Values = -np.log2(counts / counts.sum())
        return bits

    @cached_property
    def directions(self) -> Values:
        """Features scaled to length 1; unknown ones stay zero."""
        features = self.features.astype(np.float64)
        length = np.linalg.norm(features, axis=1, keepdims=True)
        unit: Values = np.divide(features, length, out=features, where=length > 0)
        return unit


def diversity(item: IntArray, facts: ItemFacts) -> Values:
    """Mean of 1 − cosine over the pairs of a list, among items of known features.

    With unit vectors fᵢ, the cosines of all pairs sum to (|Σ fᵢ|² − m) / 2.

    Args:
        item: int64 ``[users, k]``, −1 for no item.
        facts: whose ``features`` the cosines are of.

    Returns:
        ``[users]``; NaN for a list with fewer than two known items.

    >>> facts = ItemFacts(np.float32([1, 1, 1]), np.float32([[1, 0], [2, 0], [0, 1]]))
    >>> diversity(np.array([[0, 1, -1], [0, 1, 2]]), facts).round(4)
    array([0.    , 0.6667])
    """
    listed = np.where((item >= 0)[..., None], facts.directions[item], 0.0)
    known = listed.any(axis=2).sum(axis=1)
    cosines = (listed.sum(axis=1) ** 2).sum(axis=1) - known
    pairs = known * (known - 1.0)
    mean = np.full(len(item), np.nan)
    np.divide(cosines, pairs, out=mean, where=pairs > 0)
    spread: Values = 1.0 - mean
    return spread


def novelty(item: IntArray, facts: ItemFacts) -> Values:
    """Mean self-information of the items of a list, in bits, by public popularity.

    Args:
        item: int64 ``[users, k]``, −1 for no item.
        facts: whose ``information`` is averaged.

    Returns:
        ``[users]``; NaN for an empty list.

    >>> facts = ItemFacts(np.float32([3, 0]), np.eye(2, dtype=np.float32))
    >>> novelty(np.array([[0, 1], [1, -1]]), facts).round(3)
    array([1.322, 2.322])
    """
    bits = np.where(item >= 0, facts.information[item], 0.0).sum(axis=1)
    length = (item >= 0).sum(axis=1)
    mean: Values = np.full(len(item), np.nan)
    np.divide(bits, length, out=mean, where=length > 0)
    return mean


def coverage(item: IntArray, num_items: int) -> float:
    """Share of the catalogue in any of the lists: |∪ lists| / num_items.

    Args:
        item: int64 ``[users, k]`` in ``0..num_items-1``, or −1 for no item.
        num_items: items in the catalogue.

    >>> coverage(np.array([[0, 1], [1, -1]]), num_items=4)
    0.5
    """
    return len(np.unique(item[item >= 0])) / num_items


def coverage_without(item: IntArray, num_items: int) -> Values:
    """Coverage without each user in turn: less the items only they were given."""
    listed = item >= 0
    users_of = np.bincount(item[listed], minlength=num_items)
    only_theirs = (listed & (users_of[item] == 1)).sum(axis=1)
    left: Values = coverage(item, num_items) - only_theirs / num_items
    return left


def gini(item: IntArray, num_items: int) -> float:
    """How unequally lists share themselves out among the catalogue's items.

    With cᵢ the number of lists that hold item i: Σᵢ<ⱼ |cᵢ − cⱼ| / (n Σ cᵢ); 0 where
    all items are given equally often, (n−1)/n where every list is the same item.
    It falls as users are added, so compare models on the same users alone.

    Args:
        item: int64 ``[users, k]`` in ``0..num_items-1``, or −1 for no item; no
            repeats within a list.
        num_items: items in the catalogue.

    Raises:
        DataFormatError: if all lists are empty.

    >>> gini(np.array([[0, 1], [1, -1]]), num_items=3)  # counts 0, 1, 2
    0.4444444444444444
    """
    counts = np.bincount(item[item >= 0], minlength=num_items)
    if not counts.any():
        raise DataFormatError("Expected a list with an item, got empty lists alone.")
    return _differences(counts) / (num_items * int(counts.sum()))


def gini_without(item: IntArray, num_items: int) -> Values:
    """The Gini index without each user in turn, exactly, without recounting.

    Where an item's count c falls by one, its distance to each count ≥ c grows by
    one and to each smaller one shrinks by one; between two items of the same list
    nothing changes. A user without whom all lists are empty changes nothing.
    """
    listed = item >= 0
    counts = np.bincount(item[listed], minlength=num_items)
    smaller = np.searchsorted(np.sort(counts), counts, side="left")
    change = np.where(listed, (num_items - 2 * smaller)[item], 0).sum(axis=1)
    own = np.where(listed, counts[item], 0)
    pairs = listed[:, :, None] & listed[:, None, :]
    signs = np.where(own[:, None, :] >= own[:, :, None], 1, -1)
    change = change - np.where(pairs, signs, 0).sum(axis=(1, 2))
    rest = int(counts.sum()) - listed.sum(axis=1)
    without: Values = np.full(len(item), gini(item, num_items))
    differences = _differences(counts) + change
    np.divide(differences, num_items * rest, out=without, where=rest > 0)
    return without


def _differences(counts: IntArray) -> int:
    """Σᵢ<ⱼ |cᵢ − cⱼ|: with counts ascending, Σᵢ (2i − n − 1) cᵢ."""
    weights = 2 * np.arange(1, len(counts) + 1) - len(counts) - 1
    return int(np.sort(counts) @ weights)


#: Of each user's list: (lists, facts) → float64 ``[users]``.
LIST_METRICS: dict[str, Callable[[IntArray, ItemFacts], Values]] = {
    "diversity": diversity,
    "novelty": novelty,
}
#: Of all lists together: (lists, number of items) → one value.
CATALOGUE_METRICS: dict[str, Callable[[IntArray, int], float]] = {
    "coverage": coverage,
    "gini": gini,
}
