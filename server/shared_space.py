"""One space of features for two catalogues that share no item.

Server only: it encodes public catalogues. Text and categories mean the same in both
domains; numbers, pictures and vectors need not, so they do not cross.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from common.catalogue import SCHEMA, Catalogue
from common.features import Features, Matrix
from common.fusion import weigh
from common.sections import Features as Settings
from server.features import build_features

#: What two domains may have in common.
MODALITIES = ("categories", "period", "text")


def common_features(
    source: Catalogue, target: Catalogue, settings: Settings
) -> tuple[Matrix, Matrix, tuple[str, ...]]:
    """Features of both catalogues under one vocabulary, and which modalities crossed.

    A modality that either side lacks is left out: it could teach the map something
    that no item of the target can show.

    Args:
        source: the teacher's domain.
        target: the student's domain.
        settings: ``text`` names the encoder.

    Returns:
        float32 ``[n, F]`` and ``[m, F]``, rows of zeros where an item has nothing
        that crosses; the modalities. F is 0 where none crosses.
    """
    joined = pl.concat([_named(source, "source"), _named(target, "target")])
    features = build_features(Catalogue(joined), settings)
    n = source.num_items
    both = [name for name in MODALITIES if _on_both_sides(features, name, n)]
    if not both:
        nothing = np.zeros((joined.height, 0), dtype=np.float32)
        return nothing[:n], nothing[n:], ()
    fused = weigh(features.select(both), {})
    return fused[:n], fused[n:], tuple(both)


def _named(catalogue: Catalogue, side: str) -> pl.DataFrame:
    """Ids of two domains may coincide, and then mean nothing."""
    return catalogue.table.select(
        pl.concat_str(pl.lit(f"{side}:"), pl.col("item")).alias("item"),
        *SCHEMA.names()[1:],
        "text",
    )


def _on_both_sides(features: Features, name: str, n: int) -> bool:
    """Whether some column of the modality is set on either side."""
    if name not in features.values:
        return False
    known = features.known[name]
    values = features.values[name] * known[:, None]
    return bool((values[:n].any(axis=0) & values[n:].any(axis=0)).any())
