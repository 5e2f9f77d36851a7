"""Item features of the declared catalogue, by modality.

In ``common`` because features come from the public catalogue alone and either side
may need them. Vocabularies derive from the declared catalogue, never from rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.catalogue import Catalogue
from common.errors import DataFormatError

Matrix = npt.NDArray[np.float32]
Known = npt.NDArray[np.bool_]

#: First year of each period; an unknown year sets none of them.
PERIODS = (1, 1930, 1940, 1950, 1960, 1970, 1980, 1986, 1990, 1993, 1995, 1997, 2000)


@dataclass(frozen=True, eq=False)
class Features:
    """What is known of each item, by modality; a missing modality is normal.

    Attributes:
        values: modality → float32 ``[num_items, dim]``, finite.
        known: modality → bool ``[num_items]``, whether the item has the modality;
            where it has not, its row of ``values`` means nothing.

    Raises:
        DataFormatError: if there is no modality, or shapes, types or names differ
            from these, or a known row is not finite.
    """

    values: dict[str, Matrix]
    known: dict[str, Known]

    def __post_init__(self) -> None:
        if not self.values or self.values.keys() != self.known.keys():
            raise DataFormatError(
                "Expected the same modalities, at least one, in values and known; "
                f"got {sorted(self.values)} and {sorted(self.known)}."
            )
        for name in self.values:
            _check(name, self.values[name], self.known[name], self.num_items)

    @property
    def num_items(self) -> int:
        """How many items the features describe."""
        return len(next(iter(self.values.values())))

    def select(self, modalities: Iterable[str]) -> Features:
        """Only these modalities, in this order.

        Raises:
            DataFormatError: naming those that are not there.
        """
        names = list(modalities)
        missing = [name for name in names if name not in self.values]
        if missing:
            raise DataFormatError(
                f"Expected modalities among {', '.join(self.values)}; got "
                f"{', '.join(missing)}."
            )
        return Features(
            {name: self.values[name] for name in names},
            {name: self.known[name] for name in names},
        )


def _check(name: str, values: Matrix, known: Known, num_items: int) -> None:
    if (
        values.dtype != np.float32
        or values.ndim != 2
        or known.dtype != np.bool_
        or known.shape != (num_items,)
        or len(values) != num_items
    ):
        raise DataFormatError(
            f"features, {name}: expected float32 [{num_items}, dim] and bool "
            f"[{num_items}]; got {values.dtype} {list(values.shape)} and "
            f"{known.dtype} {list(known.shape)}."
        )
    if not np.isfinite(values[known]).all():
        raise DataFormatError(f"features, {name}: expected finite values.")


def categories(catalogue: Catalogue) -> tuple[Matrix, Known]:
    """Multi-hot categories, float32 ``[num_items, C]`` by name, and who has any."""
    rows = catalogue.table["categories"].to_list()
    names = sorted({name for row in rows for name in row})
    column = {name: index for index, name in enumerate(names)}
    values = np.zeros((catalogue.num_items, len(names)), dtype=np.float32)
    for row, present in enumerate(rows):
        values[row, [column[name] for name in present]] = 1.0
    known = np.asarray([bool(present) for present in rows], dtype=np.bool_)
    return values, known


def period(catalogue: Catalogue) -> tuple[Matrix, Known]:
    """One-hot periods, float32 ``[num_items, len(PERIODS)]``, and who has a year."""
    years = catalogue.table["year"].to_numpy()
    index = np.searchsorted(np.asarray(PERIODS), years, side="right") - 1
    known = index >= 0
    values = np.zeros((catalogue.num_items, len(PERIODS)), dtype=np.float32)
    values[np.flatnonzero(known), index[known]] = 1.0
    return values, known


def item_features(catalogue: Catalogue) -> Matrix:
    """Multi-hot categories and one-hot periods, float32 ``[num_items, F]``."""
    return np.hstack([categories(catalogue)[0], period(catalogue)[0]])
