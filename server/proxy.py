"""Proxy histories: what the teacher is asked about in place of private users.

Public users' histories; histories drawn from the teacher alone, for want of any data;
and augmented views of either (crop, mask, reorder: Xie et al. 2022, CL4SRec, arXiv
2010.14395; the mask also of BERT4Rec, Sun et al. 2019). On the server: all of it is
public, and every draw starts from a public constant, so that it can be done again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.interactions import FloatArray, IntArray
from common.sections import Distillation

#: Of every draw in this module; it protects nothing.
PUBLIC_SEED = 0

#: Users drawn at once: what bounds memory is this times the catalogue.
BATCH = 256

#: Items of a synthetic history where no public user tells how long one is.
USUAL_LENGTH = 20

#: Share of a history that a view keeps (crop), hides (mask) or shuffles (reorder).
KEPT, HIDDEN, SHUFFLED = 0.6, 0.3, 0.3

Augmentation = Callable[[sp.csr_matrix, np.random.Generator], sp.csr_matrix]


class Scorer(Protocol):
    """Whoever histories can be drawn from: a teacher, or a released student."""

    @property
    def additive(self) -> bool:
        """Whether scores grow with the history; otherwise they are logits."""
        ...

    def score(self, history: sp.csr_matrix) -> FloatArray:
        """Scores of every item, float32 ``[B, n]``; the history may be ordered."""
        ...


@dataclass(frozen=True)
class Sampling:
    """How the next item of a synthetic history is drawn.

    Attributes:
        temperature: of the softmax; lower follows the teacher's best items closer.
        top_k: only the teacher's best so many unseen items can be drawn: a flat tail
            of a large catalogue would else outweigh them all.
    """

    temperature: float = 1.0
    top_k: int = 50


def proxy_set(
    teacher: Scorer, public: sp.csr_matrix, settings: Distillation
) -> sp.csr_matrix:
    """The histories that soft labels are computed on; the same at every call.

    The first ``proxy-users`` public users, ``synthetic-users`` histories drawn from
    the teacher, and, with an augmentation, a view of each of these.

    Args:
        teacher: whom to draw synthetic histories from.
        public: public histories, CSR ``[users, n]``, ordered.
        settings: ``proxy-users``, ``synthetic-users``, ``augmentation``.

    Returns:
        CSR int32 ``[rows, n]``, ordered.
    """
    rng = np.random.default_rng(PUBLIC_SEED)
    proxies = public[: settings.proxy_users].astype(np.int32)
    if settings.synthetic_users:
        drawn = synthetic_histories(
            teacher,
            lengths_like(public, settings.synthetic_users, rng),
            rng,
            start=popularity(public),
        )
        proxies = sp.vstack([proxies, drawn], format="csr")
    if settings.augmentation != "none":
        views = AUGMENTATIONS[settings.augmentation](proxies, rng)
        proxies = sp.vstack([proxies, views], format="csr")
    return proxies


def popularity(public: sp.csr_matrix) -> npt.NDArray[np.float64]:
    """Public users of each item, float64 ``[n]``; ones where there is no row."""
    counts = np.asarray((public > 0).sum(axis=0), dtype=np.float64).ravel()
    return counts if counts.any() else np.ones(public.shape[1])


def lengths_like(public: sp.csr_matrix, num: int, rng: np.random.Generator) -> IntArray:
    """Lengths drawn from those of public users, int64 ``[num]``."""
    lengths = np.diff(public.indptr).astype(np.int64)
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return np.full(num, min(USUAL_LENGTH, public.shape[1]), dtype=np.int64)
    return rng.choice(lengths, size=num)


def synthetic_histories(
    teacher: Scorer,
    lengths: IntArray,
    rng: np.random.Generator,
    *,
    start: npt.NDArray[np.float64],
    sampling: Sampling | None = None,
) -> sp.csr_matrix:
    """Histories drawn from the teacher, item by item, with no data at all.

    The first item is drawn by ``start``, each next one by the softmax of the teacher's
    scores of what was drawn before. An additive teacher's scores, which are no logits,
    are standardised within a user first.

    Args:
        teacher: any; it is asked about ordered histories.
        lengths: int64 ``[num]``, each in ``1..n``.
        rng: the randomness.
        start: weights of the first item, ≥ 0, ``[n]``: popularity in public data, or
            ones where there is none.
        sampling: how to draw; None for the default.

    Returns:
        CSR int32 ``[num, n]``, ordered, no item twice in a row.
    """
    sampling = sampling or Sampling()
    batches = [
        _draw_batch(teacher, lengths[first : first + BATCH], rng, start, sampling)
        for first in range(0, len(lengths), BATCH)
    ]
    if not batches:
        return sp.csr_matrix((0, len(start)), dtype=np.int32)
    return sp.vstack(batches, format="csr")


def _draw_batch(
    teacher: Scorer,
    lengths: IntArray,
    rng: np.random.Generator,
    start: npt.NDArray[np.float64],
    sampling: Sampling,
) -> sp.csr_matrix:
    num, num_items = len(lengths), len(start)
    drawn = np.zeros((num, num_items), dtype=np.int32)
    first = rng.choice(num_items, size=num, p=start / start.sum())
    drawn[np.arange(num), first] = 1
    for place in range(2, int(lengths.max(initial=1)) + 1):
        growing = np.flatnonzero(lengths >= place)
        history = sp.csr_matrix(drawn[growing])
        scores = np.asarray(teacher.score(history), dtype=np.float64)
        logits = _standardised(scores) if teacher.additive else scores
        logits[drawn[growing] > 0] = -np.inf
        drawn[growing, draw_items(logits, sampling, rng)] = place
    return sp.csr_matrix(drawn)


def _standardised(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    centred = scores - scores.mean(axis=1, keepdims=True)
    spread = np.maximum(centred.std(axis=1, keepdims=True), 1e-12)
    standard: npt.NDArray[np.float64] = centred / spread
    return standard


def draw_items(
    logits: npt.NDArray[np.float64], sampling: Sampling, rng: np.random.Generator
) -> IntArray:
    """One item a row by the softmax over its best, int64 ``[B]``.

    Args:
        logits: float64 ``[B, n]``; −inf for what must not be drawn, at least one not.
        sampling: temperature, and how many of the best can be drawn.
        rng: one uniform number a row.
    """
    k = min(sampling.top_k, logits.shape[1])
    best = np.argpartition(-logits, k - 1, axis=1)[:, :k]
    value = np.take_along_axis(logits, best, axis=1) / sampling.temperature
    weight = np.exp(value - value.max(axis=1, keepdims=True))
    edges = weight.cumsum(axis=1)
    # A uniform number in (0, 1], so that an item of weight 0 is never drawn.
    point = (1.0 - rng.random((len(logits), 1))) * edges[:, -1:]
    place = (edges < point).sum(axis=1)
    items: IntArray = best[np.arange(len(logits)), place].astype(np.int64)
    return items


def none(history: sp.csr_matrix, rng: np.random.Generator) -> sp.csr_matrix:
    """The history itself."""
    del rng
    return history


def crop(
    history: sp.csr_matrix, rng: np.random.Generator, kept: float = KEPT
) -> sp.csr_matrix:
    """A random stretch in time of each history, ``⌈kept · length⌉`` items of it."""
    rows = _InTime.of(history)
    size = np.ceil(kept * rows.length).astype(np.int64)
    begin = rng.integers(0, rows.length - size + 1)
    after = rows.place - begin[rows.row]
    return rows.keep((after >= 0) & (after < size[rows.row]))


def mask(
    history: sp.csr_matrix, rng: np.random.Generator, hidden: float = HIDDEN
) -> sp.csr_matrix:
    """Each item left out with probability ``hidden``, but for one a history."""
    rows = _InTime.of(history)
    chance = rng.random(len(rows.row))
    spared = rng.integers(0, np.maximum(rows.length, 1))
    return rows.keep((chance >= hidden) | (rows.place == spared[rows.row]))


def reorder(
    history: sp.csr_matrix, rng: np.random.Generator, shuffled: float = SHUFFLED
) -> sp.csr_matrix:
    """A random stretch of each history, ``⌈shuffled · length⌉`` items, shuffled."""
    rows = _InTime.of(history)
    size = np.ceil(shuffled * rows.length).astype(np.int64)
    begin = rng.integers(0, rows.length - size + 1)
    after = rows.place - begin[rows.row]
    inside = (after >= 0) & (after < size[rows.row])
    key = begin[rows.row] + rng.random(len(rows.row)) * size[rows.row]
    order = np.lexsort((np.where(inside, key, rows.place), rows.row))
    return rows.keep(np.ones(len(order), dtype=bool), rows.item[order])


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": none,
    "crop": crop,
    "mask": mask,
    "reorder": reorder,
}


@dataclass(frozen=True)
class _InTime:
    """Entries of ordered histories by row and time; ties, as in binary rows, by id."""

    row: IntArray
    item: IntArray
    place: IntArray
    length: IntArray
    num_items: int

    @classmethod
    def of(cls, history: sp.csr_matrix) -> _InTime:
        rows = sp.csr_matrix(history, copy=True)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        length = np.diff(rows.indptr).astype(np.int64)
        row = np.repeat(np.arange(len(length)), length)
        item = rows.indices[np.lexsort((rows.data, row))].astype(np.int64)
        place = np.arange(len(row)) - rows.indptr[:-1].astype(np.int64)[row]
        return cls(row, item, place, length, rows.shape[1])

    def keep(
        self, kept: npt.NDArray[np.bool_], item: IntArray | None = None
    ) -> sp.csr_matrix:
        """The entries marked, numbered in time anew; other items if so given."""
        items = (self.item if item is None else item)[kept]
        length = np.bincount(self.row[kept], minlength=len(self.length))
        indptr = np.concatenate([[0], np.cumsum(length)])
        place = np.arange(len(items)) - np.repeat(indptr[:-1], length) + 1
        shape = (len(self.length), self.num_items)
        history = sp.csr_matrix((place.astype(np.int32), items, indptr), shape=shape)
        history.sort_indices()
        return history
