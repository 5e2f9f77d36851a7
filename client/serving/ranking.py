"""From scores to a list: filters, the best k, and what speaks for each of them.

Client only: it sees one user's history. All on arrays of one history; ties go to the
lower dense id, as everywhere (``common.metrics.top_k``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from common.catalogue import Catalogue
from common.interactions import FloatArray, IdMap, IntArray

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Shelf:
    """The catalogue as the service looks things up in it.

    Attributes:
        categories: which items are of a category, bool ``[num_items]`` each.
    """

    items: IdMap = field(repr=False)
    titles: list[str] = field(repr=False)
    categories: dict[str, Mask] = field(repr=False)
    digest: str

    @property
    def num_items(self) -> int:
        """Of the catalogue."""
        return len(self.titles)


@dataclass(frozen=True)
class Ranked:
    """A list, best first.

    Attributes:
        item: dense ids int64 ``[k]``.
        score: float32 ``[k]``.
    """

    item: IntArray
    score: FloatArray


def shelf_of(catalogue: Catalogue) -> Shelf:
    """What is looked up, from the declared catalogue."""
    masks: dict[str, Mask] = {}
    for row, names in enumerate(catalogue.table["categories"].to_list()):
        for name in names or ():
            mask = masks.setdefault(name, np.zeros(catalogue.num_items, dtype=bool))
            mask[row] = True
    titles = [title or "" for title in catalogue.table["title"].to_list()]
    return Shelf(catalogue.items, titles, masks, catalogue.digest)


def left_out(
    shelf: Shelf, categories: Sequence[str], excluded: Sequence[IntArray]
) -> Mask:
    """Which items may not be listed, bool ``[num_items]``.

    Args:
        categories: known ones; an item of any of them may be, and any where empty.
        excluded: dense ids, several arrays of them.
    """
    out = np.zeros(shelf.num_items, dtype=bool)
    if categories:
        out[:] = True
        for name in set(categories):
            out &= ~shelf.categories[name]
    for items in excluded:
        out[items] = True
    return out


def best(scores: FloatArray, out: Mask, k: int) -> Ranked:
    """The k best of what may be listed, or all of it where it is less.

    Args:
        scores: finite float32 ``[num_items]``; changed in place.
        out: of :func:`left_out`.
        k: at least 1.

    >>> best(np.float32([1, 3, 3, 2]), np.array([False, True, False, False]), 2).item
    array([2, 3])
    """
    scores[out] = -np.inf
    k = min(k, len(scores) - int(out.sum()))
    if not k:
        return Ranked(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))
    # All that are as good as the k-th: the order by id decides between them.
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    found = np.flatnonzero(scores >= least)
    found = found[np.lexsort((found, -scores[found]))][:k]
    return Ranked(found, scores[found])


def strongest(contributions: FloatArray, count: int) -> list[IntArray]:
    """For each listed item, places in the history that add most, and only such.

    Args:
        contributions: float32 ``[k, n]``, see ``Model.contributions``.
    """
    order = np.argsort(-contributions, axis=1, kind="stable")[:, :count]
    return [row[contributions[place, row] > 0] for place, row in enumerate(order)]
