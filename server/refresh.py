"""Refresh: the released students teach their teacher.

Post-processing of what already left the clients, so it costs no privacy; better soft
labels come of it. A refreshed teacher counts only if public validation users say so.
On the server: it sees released students, public rows and proxy histories. Mutual
learning of this kind: Kweon, Kang & Yu 2021, "Bidirectional Distillation for Top-K
Recommender System" (arXiv 2106.02870).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from common.config import RunConfig
from common.errors import ConfigError
from common.interactions import FloatArray
from common.losses import kl
from common.student import StateDict, StudentSpec
from server.distillation import StudentTables, batches
from server.proxy import PUBLIC_SEED, lengths_like, synthetic_histories
from server.safeguard import BATCH, rank_public
from server.settings import PublicData
from server.teacher import Teacher
from server.teacher.ease import Ease
from server.teacher.histories import left_aligned, sequences
from server.teacher.scoring import SequentialTeacher

Known = npt.NDArray[np.bool_]
Float = npt.NDArray[np.float64]

#: Descent of a sequential teacher: passes over the proxies, and Adam's step.
EPOCHS, LEARNING_RATE = 3, 1e-4


@dataclass(frozen=True)
class Refreshed:
    """What a refresh led to.

    Attributes:
        teacher: the refreshed one, or the old one where it was not better.
        before, after: NDCG@100 on public validation users of the old and the
            refreshed teacher, taken or not; NaN without such users.
        gain: ``after − before`` where the refreshed teacher was taken, else None.
    """

    teacher: Teacher
    before: float
    after: float
    gain: float | None


def refresh(
    teacher: Teacher,
    student: StateDict,
    spec: StudentSpec,
    public: PublicData,
    proxies: sp.csr_matrix,
    config: RunConfig,
) -> Refreshed:
    """Distil a released student into the teacher, and keep it if it ranks better.

    The student is asked about the proxies and as many histories drawn from itself:
    what public users never touched is in no history of theirs.

    Args:
        teacher: the one in office.
        student: released, hence already private.
        spec: its shape.
        public: what the teacher was taught with, and who judges.
        proxies: public or synthetic histories, CSR ``[Q, n]``, ordered.
        config: ``refresh.weight``, ``teacher.l2`` and ``run.seed``.
    """
    tables = StudentTables.of(student, spec)
    asked = sp.vstack([proxies, draw_from(tables, proxies)], format="csr")
    learned = learn(teacher, tables, asked, public, config)
    before = validate_teacher(teacher, public.shown, public.held)
    after = validate_teacher(learned, public.shown, public.held)
    # NaN, without anyone to judge, is not greater.
    if after > before:
        return Refreshed(learned, before, after, after - before)
    return Refreshed(teacher, before, after, None)


def validate_teacher(
    teacher: Teacher, shown: sp.csr_matrix, held: sp.csr_matrix
) -> float:
    """NDCG@100 of a teacher on public users; NaN without any."""
    if shown.shape[0] == 0:
        return float("nan")
    values = rank_public(
        lambda start, stop: teacher.score(shown[start:stop]), shown, held
    )
    return float(np.nanmean(values))


def draw_from(student: StudentTables, like: sp.csr_matrix) -> sp.csr_matrix:
    """As many histories as ``like`` has, and as long, drawn from a student alone."""
    rng = np.random.default_rng(PUBLIC_SEED)
    lengths = lengths_like(like, like.shape[0], rng)
    start = np.ones(student.spec.num_items)
    return synthetic_histories(student, lengths, rng, start=start)


def learn(
    teacher: Teacher,
    student: StudentTables,
    proxies: sp.csr_matrix,
    public: PublicData,
    config: RunConfig,
) -> Teacher:
    """The teacher after a student's lesson on proxies, for better or worse.

    Raises:
        ConfigError: if there is no refresh for a teacher of this kind.
    """
    weight = config.refresh.weight
    if isinstance(teacher, Ease):
        seen = (proxies > 0).astype(np.float32)
        target = student_targets(teacher, student, seen, public.known)
        teaching = (public.ordered > 0).astype(np.float32)
        l2 = config.teacher.l2
        return Ease(refit(teaching, seen, target, l2=l2, weight=weight))
    if isinstance(teacher, SequentialTeacher):
        return descend(teacher, student, proxies, weight=weight)
    raise ConfigError(
        "refresh.every: expected a teacher that students can teach (ease, "
        f"transformer), got {type(teacher).__name__}; set it to 0."
    )


def student_targets(
    teacher: Ease, student: StudentTables, seen: sp.csr_matrix, known: Known
) -> FloatArray:
    """The student's scores in the teacher's units, float32 ``[Q, n]``.

    The student's own units undone, then the scale and each user's offset that fit the
    teacher's scores best, over unseen items that the teacher knows. Seen items keep
    the teacher's scores: how a student scores what is never recommended means nothing.

    Args:
        teacher: gives the units.
        student: the released one.
        seen: proxy histories, multi-hot CSR ``[Q, n]``.
        known: which items the teacher saw, bool ``[n]``.
    """
    old = teacher.score(seen).astype(np.float64)
    length = np.maximum(np.diff(seen.indptr), 1)[:, None]
    logits = student.score(seen).astype(np.float64)
    new = logits * length**student.spec.history_exponent / student.spec.logit_scale
    unseen = seen.toarray() == 0
    compared = unseen & known
    old_mean, new_mean = _row_means(old, compared), _row_means(new, compared)
    deviation = np.where(compared, new - new_mean, 0.0)
    agreement = float((deviation * (old - old_mean)).sum())
    scale = max(0.0, agreement) / max(float(np.square(deviation).sum()), 1e-30)
    fitted = old_mean + scale * (new - new_mean)
    return np.where(unseen, fitted, old).astype(np.float32)


def _row_means(values: Float, counted: Known) -> Float:
    count = np.maximum(counted.sum(axis=1, keepdims=True), 1)
    means: Float = np.where(counted, values, 0.0).sum(axis=1, keepdims=True) / count
    return means


def refit(
    teaching: sp.csr_matrix,
    proxies: sp.csr_matrix,
    target: FloatArray,
    *,
    l2: float,
    weight: float,
) -> FloatArray:
    """EASE beside a student: the zero-diagonal minimiser B of three squares.

    ``‖X − XB‖² + l2·‖B‖² + w·‖PB − S‖²``, where ``w = weight · |X| / |P|`` and |·|
    counts interactions, so that at weight 1 public rows and proxies pull alike. As in
    EASE, with ``A`` the minimiser without the constraint and ``Q`` the inverse of
    ``XᵀX + w·PᵀP + l2``, column j is ``A_j − Q_j · A_jj / Q_jj``.

    Args:
        teaching: public histories X, multi-hot CSR ``[users, n]``.
        proxies: P, multi-hot CSR ``[Q, n]``.
        target: S, float32 ``[Q, n]``.
        l2: > 0.
        weight: > 0.

    Returns:
        float32 ``[n, n]``.
    """
    pull = weight * teaching.nnz / max(1, proxies.nnz)
    gram = np.asarray((teaching.T @ teaching).todense(), dtype=np.float64)
    matched = np.asarray((proxies.T @ proxies).todense(), dtype=np.float64)
    wanted = torch.from_numpy(gram + pull * (proxies.T @ target))
    gram += pull * matched
    gram[np.diag_indices_from(gram)] += l2
    factor = torch.linalg.cholesky(torch.from_numpy(gram))
    inverse = torch.cholesky_inverse(factor)
    free = torch.cholesky_solve(wanted, factor)
    weights = free - inverse * (free.diagonal() / inverse.diagonal())[None, :]
    weights.fill_diagonal_(0.0)
    refitted: FloatArray = weights.numpy().astype(np.float32)
    return refitted


def descend(
    teacher: SequentialTeacher,
    student: StudentTables,
    proxies: sp.csr_matrix,
    *,
    weight: float,
    epochs: int = EPOCHS,
) -> SequentialTeacher:
    """A few epochs of KL towards a mixture of the teacher's own view and the student's.

    Its own share, ``1 / (1 + weight)``, is what keeps it from forgetting.

    Args:
        teacher: stays as it is.
        student: the released one.
        proxies: CSR ``[Q, n]``, ordered; rows without items are passed over.
        weight: of the student beside the teacher, > 0.
        epochs: passes over the proxies.
    """
    encoder = copy.deepcopy(teacher.encoder).requires_grad_(True)
    items = teacher.items.clone().requires_grad_()
    optimiser = torch.optim.Adam([items, *encoder.parameters()], lr=LEARNING_RATE)
    rng = np.random.default_rng(PUBLIC_SEED)
    rows = np.flatnonzero(np.diff(proxies.indptr))
    learned = SequentialTeacher(items, encoder)
    for _ in range(epochs):
        for users in batches(rng.permutation(rows), BATCH):
            history = proxies[users]
            goal = _mixture(teacher, student, history, weight)
            optimiser.zero_grad()
            loss = kl(goal, _logits(learned, history), 1.0).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return replace(learned, items=items.detach(), encoder=encoder.requires_grad_(False))


def _mixture(
    teacher: SequentialTeacher,
    student: StudentTables,
    history: sp.csr_matrix,
    weight: float,
) -> Tensor:
    """Log of ``(teacher + weight · student) / (1 + weight)`` in probabilities."""
    own = torch.from_numpy(teacher.score(history)).log_softmax(dim=1)
    lesson = torch.from_numpy(student.score(history)).log_softmax(dim=1)
    share = weight / (1.0 + weight)
    return torch.logaddexp(own + np.log1p(-share), lesson + np.log(share))


def _logits(teacher: SequentialTeacher, history: sp.csr_matrix) -> Tensor:
    """As the teacher's score, with gradients."""
    shape = teacher.encoder.shape
    rows = [row[-shape.length :] for row in sequences(history)]
    shown = torch.from_numpy(left_aligned(rows, shape.num_items))
    vectors = teacher.encoder(shown, teacher.items)
    last = torch.tensor([len(row) - 1 for row in rows])
    logits: Tensor = vectors[torch.arange(len(rows)), last] @ teacher.items.T
    return logits
