"""Features of the catalogue's items, one matrix a modality, as the settings ask.

Server only: it reads models, pictures and vectors that no client has. All of it is
public; nothing comes from anybody's rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from common import features
from common.catalogue import Catalogue
from common.errors import DataFormatError
from common.features import Features, Known, Matrix
from common.sections import Features as Settings
from server.encoders.image import encode_images
from server.encoders.text import encode_text, item_texts
from server.encoders.vectors import read_vectors


def build_features(catalogue: Catalogue, settings: Settings) -> Features:
    """Every modality of ``MODALITIES`` that the settings ask for and items have.

    The period is always there, though it may be known of no item.

    Raises:
        ConfigError: if a model or file is missing, or an extra is not installed.
        DataFormatError: if a picture, a vector or a number is damaged.
    """
    values: dict[str, Matrix] = {}
    known: dict[str, Known] = {}
    for name, build in MODALITIES.items():
        found, present = build(catalogue, settings)
        if found.shape[1]:
            values[name], known[name] = found, present
    return Features(values, known)


def _categories(catalogue: Catalogue, settings: Settings) -> tuple[Matrix, Known]:
    return features.categories(catalogue)


def _period(catalogue: Catalogue, settings: Settings) -> tuple[Matrix, Known]:
    return features.period(catalogue)


def _numbers(catalogue: Catalogue, settings: Settings) -> tuple[Matrix, Known]:
    """Each column of mean 0 and deviation 1 over the catalogue; missing is 0."""
    numbers = catalogue.numbers.astype(np.float64)
    if np.isinf(numbers).any():
        raise DataFormatError("numbers: expected finite numbers, or NaN for missing.")
    there = ~np.isnan(numbers)
    count = np.maximum(there.sum(axis=0), 1)
    centred = np.where(there, numbers - np.nansum(numbers, axis=0) / count, 0.0)
    deviation = np.sqrt((centred**2).sum(axis=0) / count)
    scaled = centred / np.where(deviation > 0, deviation, 1.0)
    return scaled.astype(np.float32), np.asarray(there.any(axis=1), dtype=np.bool_)


def _text(catalogue: Catalogue, settings: Settings) -> tuple[Matrix, Known]:
    if settings.text == "none":
        return _nothing(catalogue)
    texts = item_texts(catalogue)
    known = np.asarray([bool(text) for text in texts], dtype=np.bool_)
    return encode_text(texts, settings.text), known


def _image(catalogue: Catalogue, settings: Settings) -> tuple[Matrix, Known]:
    if not settings.images:
        return _nothing(catalogue)
    folder = Path(settings.images).expanduser()
    return encode_images(folder, settings.image_backbone, catalogue.items)


def _vectors(catalogue: Catalogue, settings: Settings) -> tuple[Matrix, Known]:
    if not settings.vectors:
        return _nothing(catalogue)
    return read_vectors(Path(settings.vectors).expanduser(), catalogue.items)


def _nothing(catalogue: Catalogue) -> tuple[Matrix, Known]:
    empty = np.zeros((catalogue.num_items, 0), dtype=np.float32)
    return empty, np.zeros(catalogue.num_items, dtype=np.bool_)


#: Modality → (values float32 ``[num_items, dim]``, known bool); no columns: absent.
MODALITIES: dict[str, Callable[[Catalogue, Settings], tuple[Matrix, Known]]] = {
    "categories": _categories,
    "period": _period,
    "numbers": _numbers,
    "text": _text,
    "image": _image,
    "vectors": _vectors,
}
