"""Transfer: the student starts from the teacher.

Weight copy where the teacher's item tables have the student's width, else the best
projection of that rank (Eckart & Young 1936), and a content map (ridge regression
from item features to item vectors) for items the teacher never saw; across domains
whose catalogues share no item, the content map alone. Server only: it sees the
teacher and the public catalogues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse.linalg import svds

from common.errors import ConfigError
from common.sections import Transfer
from common.student import StateDict, StudentSpec, random_state

Matrix = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
Known = npt.NDArray[np.bool_]

#: Below this size all singular vectors are as quick as a few.
DENSE_SVD = 256


class Tabled(Protocol):
    """A teacher as far as transfer looks at it."""

    def tables(self, rank: int | None = None) -> tuple[Matrix, Matrix]:
        """Input and output item vectors, ``[n, D]``: scores ≈ x·input·outputᵀ.

        With a rank, at least what the best product of that rank needs.
        """


def from_svd(
    teacher: Tabled,
    features: Matrix,
    known: Known,
    spec: StudentSpec,
    settings: Transfer,
) -> StateDict:
    """Tables with ``encoder.T @ decoder.T ≈ input @ output.T``, the best of rank dim.

    Args:
        teacher: of ``[n, D]`` tables.
        features: item features ``[n, F]``, a row of zeros where nothing is known.
        known: which items the teacher saw, bool ``[n]``.
        spec: the student; dimensions beyond the teacher's rank stay zero.
        settings: ``content`` and ``content_l2`` of the content map.
    """
    encoder, decoder = factorise(*teacher.tables(spec.dim), spec.dim)
    return _start(encoder, decoder, features, known, spec, settings)


def from_copy(
    teacher: Tabled,
    features: Matrix,
    known: Known,
    spec: StudentSpec,
    settings: Transfer,
) -> StateDict:
    """The teacher's own tables: encoder is its input, decoder its output.

    Arguments as :func:`from_svd`.

    Raises:
        ConfigError: if the teacher is wider than the student.
    """
    inputs, outputs = teacher.tables()
    if inputs.shape[1] > spec.dim:
        raise ConfigError(
            f"transfer.method: copy expected a teacher at most student.dim ({spec.dim})"
            f" wide, got {inputs.shape[1]}; raise student.dim or take svd."
        )
    return _start(
        inputs.astype(np.float64),
        outputs.astype(np.float64),
        features,
        known,
        spec,
        settings,
    )


def from_nothing(
    teacher: Tabled,
    features: Matrix,
    known: Known,
    spec: StudentSpec,
    settings: Transfer,
) -> StateDict:
    """A random start that ignores the teacher: the from-scratch baseline.

    Its seed is a public constant, so that two servers start alike.
    """
    del teacher, features, known, settings
    return random_state(spec, torch.Generator().manual_seed(0))


TRANSFERS: dict[
    str, Callable[[Tabled, Matrix, Known, StudentSpec, Transfer], StateDict]
] = {"svd": from_svd, "copy": from_copy, "random": from_nothing}


def start_across(
    teacher: Tabled,
    source_features: Matrix,
    source_known: Known,
    target_features: Matrix,
    spec: StudentSpec,
    settings: Transfer,
) -> StateDict:
    """A student for a catalogue that shares no item with the teacher's.

    The teacher's tables are projected to the student's width, and predicted for the
    target's items from features of one space (see ``common_features``). An item
    without features starts at zero; where none has any, nothing can cross, and the
    start is random.

    Args:
        teacher: of ``[n, D]`` tables over the source's items.
        source_features: ``[n, F]``.
        source_known: which source items the teacher saw, bool ``[n]``.
        target_features: ``[m, F]``, the same columns.
        spec: a student over the target's ``m`` items.
        settings: ``content_l2``.
    """
    fit = source_known & source_features.any(axis=1)
    if not fit.any() or not target_features.any():
        return random_state(spec, torch.Generator().manual_seed(0))
    tables = [
        across(source_features[fit], table[fit], target_features, settings.content_l2)
        for table in factorise(*teacher.tables(spec.dim), spec.dim)
    ]
    return _state(tables[0], tables[1], spec)


def across(
    source_features: Matrix,
    source_vectors: npt.NDArray[np.floating],
    target_features: Matrix,
    l2: float,
) -> Float:
    """Item vectors of a catalogue from those of another, through shared features.

    Args:
        source_features: ``[n, F]``.
        source_vectors: ``[n, d]``.
        target_features: ``[m, F]``, the same columns.
        l2: of the ridge regression, > 0.

    Returns:
        float64 ``[m, d]``; a row of zeros where an item has no features.
    """
    return target_features @ _ridge(source_features, source_vectors, l2)


def factorise(left: Matrix, right: Matrix, dim: int) -> tuple[Float, Float]:
    """Two tables ``[n, k]`` whose product is the best of rank k for left @ right.T.

    The singular values are shared out evenly. No ``n × n`` matrix is formed where
    the tables are narrower than long: thin QR of both leaves a core ``D × D``.

    Args:
        left: ``[n, D]``.
        right: ``[n, D]``.
        dim: rank wanted; k is less where the tables are narrower.
    """
    if left.shape[1] < left.shape[0]:
        basis_l, upper_l = np.linalg.qr(left.astype(np.float64))
        basis_r, upper_r = np.linalg.qr(right.astype(np.float64))
        u, values, v = _largest(upper_l @ upper_r.T, dim)
        u, v = basis_l @ u, basis_r @ v
    else:
        u, values, v = _largest(left.astype(np.float64) @ right.T, dim)
    root = np.sqrt(values)
    return u * root, v * root


def _largest(core: Float, dim: int) -> tuple[Float, Float, Float]:
    """The ``dim`` largest singular triples, largest first: ``[n, k], [k], [n, k]``."""
    n = len(core)
    if n <= DENSE_SVD or dim > n // 4:
        u, values, vt = np.linalg.svd(core)
        return u[:, :dim], values[:dim], vt[:dim].T
    # A fixed first vector, so that two servers start alike.
    first = np.random.default_rng(0).normal(size=n)
    u, values, vt = svds(core, k=dim, v0=first)
    order = np.argsort(-values)
    return u[:, order], values[order], vt[order].T


def content_map(
    features: Matrix, vectors: npt.NDArray[np.floating], known: Known, l2: float
) -> Float:
    """Vectors ``[n, d]`` where unknown rows are predicted from features by ridge."""
    predicted = across(features[known], vectors[known], features, l2)
    return np.where(known[:, None], vectors, predicted)


def _ridge(features: Matrix, vectors: npt.NDArray[np.floating], l2: float) -> Float:
    """Coefficients ``[F, d]``; the smaller of the two normal equations is solved."""
    rows, targets = features.astype(np.float64), vectors.astype(np.float64)
    num_rows, num_features = rows.shape
    if num_features <= num_rows:
        gram = rows.T @ rows + l2 * np.eye(num_features)
        return np.asarray(np.linalg.solve(gram, rows.T @ targets), dtype=np.float64)
    kernel = rows @ rows.T + l2 * np.eye(num_rows)
    return np.asarray(rows.T @ np.linalg.solve(kernel, targets), dtype=np.float64)


def _start(
    encoder: Float,
    decoder: Float,
    features: Matrix,
    known: Known,
    spec: StudentSpec,
    settings: Transfer,
) -> StateDict:
    if settings.content and known.any() and not known.all():
        encoder = content_map(features, encoder, known, settings.content_l2)
        decoder = content_map(features, decoder, known, settings.content_l2)
    return _state(encoder, decoder, spec)


def _state(encoder: Float, decoder: Float, spec: StudentSpec) -> StateDict:
    """Tables ``[n, k]`` as a student's tensors; what k lacks to dim is zero."""
    width = encoder.shape[1]
    state = {
        "encoder.weight": torch.zeros(spec.dim, spec.num_items),
        "decoder.weight": torch.zeros(spec.num_items, spec.dim),
        "decoder.bias": torch.zeros(spec.num_items),
    }
    state["encoder.weight"][:width] = torch.from_numpy(encoder.T.astype(np.float32))
    state["decoder.weight"][:, :width] = torch.from_numpy(decoder.astype(np.float32))
    return state
