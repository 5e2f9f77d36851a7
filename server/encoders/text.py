"""Text features: hashed character n-grams, or a sentence encoder from disk.

Server only: it reads the public catalogue and models a client could not hold. The
hash is that of Weinberger et al. 2009 (arXiv 0902.2206); sentence encoders are those
of Reimers and Gurevych 2019 (arXiv 1908.10084).
"""

from __future__ import annotations

import importlib.util
import os
import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.catalogue import Catalogue
from common.errors import ConfigError

Matrix = npt.NDArray[np.float32]

HASHED_DIM = 512
GRAM_SIZES = (3, 4, 5)
#: What marks a folder as a sentence encoder's.
_MARK = "modules.json"


def item_texts(catalogue: Catalogue) -> list[str]:
    """Title and text of each item; the year is a modality of its own, so left out."""
    rows = catalogue.table.select("title", "text").iter_rows()
    return [_plain(f"{title or ''} {text}") for title, text in rows]


def _plain(text: str) -> str:
    without_year = re.sub(r"\(\d{4}\)", " ", text)
    return " ".join(unicodedata.normalize("NFKC", without_year).split())


def encode_text(texts: Sequence[str], name: str) -> Matrix:
    """Rows of unit length, float32 ``[len(texts), dim]``; an empty text gives zeros.

    Args:
        texts: one an item.
        name: ``hashed``, a sentence encoder's folder, or the name of an installed
            package that holds one.

    Raises:
        ConfigError: if there is no such encoder, or the extra is not installed.
    """
    if name == "hashed":
        return hashed(texts)
    return _encode_sentences(texts, find_encoder(name))


def hashed(texts: Sequence[str], dim: int = HASHED_DIM) -> Matrix:
    """Tf-idf of character 3- to 5-grams, signed and summed into ``dim`` places.

    The same on every platform and in every process: CRC-32, unlike ``hash()``, is
    not salted.
    """
    counts, grams = _count_grams(texts)
    counts.data = 1.0 + np.log(counts.data)
    spread = np.bincount(counts.indices, minlength=len(grams))
    idf = np.log((1.0 + len(texts)) / (1.0 + spread)) + 1.0
    values = np.asarray((counts @ _projection(grams, idf, dim)).todense())
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    unit: Matrix = (values / np.where(norm > 0, norm, 1.0)).astype(np.float32)
    return unit


def _count_grams(texts: Sequence[str]) -> tuple[sp.csr_matrix, list[str]]:
    rows: list[int] = []
    columns: list[int] = []
    place: dict[str, int] = {}
    for row, text in enumerate(texts):
        found = [place.setdefault(gram, len(place)) for gram in _grams(text)]
        columns += found
        rows += [row] * len(found)
    ones = np.ones(len(rows))
    counts = sp.csr_matrix((ones, (rows, columns)), shape=(len(texts), len(place)))
    counts.sum_duplicates()
    return counts, list(place)


def _grams(text: str) -> Iterator[str]:
    padded = f" {text.casefold()} " if text else ""
    for size in GRAM_SIZES:
        yield from (padded[i : i + size] for i in range(len(padded) - size + 1))


def _projection(
    grams: Sequence[str], idf: npt.NDArray[np.float64], dim: int
) -> sp.csr_matrix:
    """Gram → its place, with its idf and a sign that lets collisions cancel."""
    codes = np.asarray([zlib.crc32(g.encode()) for g in grams], dtype=np.int64)
    signed = idf * np.where(codes & 1, 1.0, -1.0)
    entries = (signed, (np.arange(len(grams)), (codes >> 1) % dim))
    return sp.csr_matrix(entries, shape=(len(grams), dim))


def find_encoder(name: str) -> Path:
    """Where a sentence encoder lies: a folder, or inside an installed package.

    The package is looked into, not imported.

    Raises:
        ConfigError: if neither holds one.
    """
    folder = Path(name).expanduser()
    if (folder / _MARK).is_file():
        return folder
    module = name.replace("-", "_")
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    places = (spec.submodule_search_locations or []) if spec else []
    found = sorted(path for place in places for path in Path(place).rglob(_MARK))
    if not found:
        raise ConfigError(
            "features.text: expected none, hashed, a folder with a sentence encoder "
            f"({_MARK} in it), or an installed package that holds one; got {name!r}."
        )
    return found[0].parent


def _encode_sentences(texts: Sequence[str], folder: Path) -> Matrix:
    # The model is on disk: nothing may ask a hub for it, or tell one of this run.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from server.encoders.operators import declare_operators

    declare_operators()
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise ConfigError(
            "features.text: a sentence encoder needs the text extra; run "
            "pip install 'tutela[text]', or set features.text to hashed."
        ) from None
    try:
        model = SentenceTransformer(
            str(folder),
            device="cpu",
            local_files_only=True,
            model_kwargs={"use_safetensors": True},  # never unpickle weights
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"features.text: expected a sentence encoder with safetensors weights "
            f"in {folder}: {error}"
        ) from error
    encoded = model.encode(
        list(texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False
    )
    values = np.array(encoded, dtype=np.float32)
    values[[not text for text in texts]] = 0.0
    return values
