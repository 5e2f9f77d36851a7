"""Item features of the declared catalogue: categories and release period.

In ``common`` because features come from the public catalogue alone and either side
may need them. Vocabularies derive from the declared catalogue, never from rows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.catalogue import Catalogue

#: First year of each period; an unknown year sets none of them.
PERIODS = (1, 1930, 1940, 1950, 1960, 1970, 1980, 1986, 1990, 1993, 1995, 1997, 2000)


def item_features(catalogue: Catalogue) -> npt.NDArray[np.float32]:
    """Multi-hot categories and one-hot periods, float32 ``[num_items, F]``."""
    categories = catalogue.table["categories"].to_list()
    names = sorted({name for row in categories for name in row})
    column = {name: index for index, name in enumerate(names)}
    features = np.zeros(
        (catalogue.num_items, len(names) + len(PERIODS)), dtype=np.float32
    )
    for row, present in enumerate(categories):
        features[row, [column[name] for name in present]] = 1.0
    years = catalogue.table["year"].to_numpy()
    period = np.searchsorted(np.asarray(PERIODS), years, side="right") - 1
    known = np.flatnonzero(period >= 0)
    features[known, len(names) + period[known]] = 1.0
    return features
