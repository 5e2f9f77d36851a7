"""Distillation on the server: the teacher's whole ranking into the student's tables.

Beside what ``transfer.py`` copies in closed form; the loss sees every unseen item, so
nothing is sampled (Kang et al. 2020, arXiv 2012.04357; 2023, arXiv 2303.01130). Items
of the history are left out: nobody is recommended what they have, and a small student
has no room to spare for them. On the server: public or synthetic histories alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from scipy import linalg
from torch import Tensor
from torch.nn import functional as F

from common.interactions import FloatArray, IntArray
from common.losses import kl, order_loss
from common.sections import Distillation
from common.student import StateDict, StudentSpec, shapes
from server.proxy import AUGMENTATIONS, PUBLIC_SEED
from server.teacher import Teacher

#: Far below any logit, and still a number: no infinity is subtracted from another.
NEVER = -1e9

#: Of the ridge in :func:`project`.
RIDGE = 0.1

#: (teacher's logits, student's logits, seen: all ``[B, n]``, settings) → ``[B]``.
FullLoss = Callable[[Tensor, Tensor, Tensor, Distillation], Tensor]


@dataclass(frozen=True)
class Recipe:
    """How the student is fitted, whatever the loss.

    Attributes:
        learning_rate: Adam's at width 1, falling to zero over the epochs; divided by
            the root of the student's width, since all dimensions move a score at once.
        batch_users: histories a step.
        least_shown: of each history a share between this and 1 is shown, each time
            another, so that a few histories make many inputs.
    """

    learning_rate: float = 0.03
    batch_users: int = 256
    least_shown: float = 0.5


def teacher_logits(
    teacher: Teacher, history: sp.csr_matrix, spec: StudentSpec
) -> FloatArray:
    """The teacher's scores in the student's units, float32 ``[B, n]``.

    Scores that grow with the history are divided and scaled as the student's own are;
    logits stay what they are.
    """
    scores = teacher.score(history)
    if not teacher.additive:
        return scores
    length = np.maximum(np.diff(history.indptr), 1)[:, None]
    scale = spec.logit_scale / length**spec.history_exponent
    logits: FloatArray = (scores * scale).astype(np.float32)
    return logits


def full_kl(
    teacher: Tensor, student: Tensor, seen: Tensor, settings: Distillation
) -> Tensor:
    """KL with temperature over all unseen items, float32 ``[B]``."""
    return kl(
        teacher.masked_fill(seen, NEVER),
        student.masked_fill(seen, NEVER),
        settings.temperature,
    )


def full_mse(
    teacher: Tensor, student: Tensor, seen: Tensor, settings: Distillation
) -> Tensor:
    """Half the squared error of a logit, mean over all unseen items, ``[B]``."""
    del settings
    error = torch.square(teacher - student).masked_fill(seen, 0.0).sum(dim=1)
    return 0.5 * error / (~seen).sum(dim=1).clamp(min=1)


def full_rank(
    teacher: Tensor, student: Tensor, seen: Tensor, settings: Distillation
) -> Tensor:
    """The teacher's top K in order, before all other unseen items, float32 ``[B]``."""
    k = min(settings.top_k, teacher.shape[1])
    best = teacher.masked_fill(seen, NEVER).topk(k, dim=1).indices
    student = student.masked_fill(seen, NEVER)
    rest = student.scatter(1, best, NEVER)
    return order_loss(student.gather(1, best), rest, settings.temperature)


FULL_LOSSES: dict[str, FullLoss] = {"kl": full_kl, "mse": full_mse, "rank": full_rank}


def project(
    teacher: Teacher,
    spec: StudentSpec,
    proxies: sp.csr_matrix,
    *,
    l2: float = RIDGE,
) -> StateDict:
    """The student that fits the teacher's logits on proxies best in least squares.

    Reduced-rank regression (Izenman 1975), in closed form: item vectors along the
    heaviest directions of the teacher's logits, and a ridge from histories to the
    coordinates in these. Against the SVD of the teacher's tables it weighs items by
    how people use them, and works for any teacher.

    Args:
        teacher: any.
        spec: the student; dimensions beyond the number of proxies stay zero.
        proxies: public or synthetic histories, CSR ``[Q, n]``, ordered; memory and
            time grow with Q².
        l2: of the ridge, in units of the mean squared norm of a history.
    """
    shown = _scaled(proxies, spec).astype(np.float64)
    logits = teacher_logits(teacher, proxies, spec).astype(np.float32)
    rank = min(spec.dim, *logits.shape)
    size = logits.shape[0]
    _, axes = linalg.eigh(logits @ logits.T, subset_by_index=(size - rank, size - 1))
    directions = logits.T @ axes[:, ::-1]
    directions /= np.maximum(np.linalg.norm(directions, axis=0), 1e-12)
    kernel = (shown @ shown.T).toarray()
    ridge = l2 * kernel.diagonal().mean() + 1e-12
    kernel[np.diag_indices_from(kernel)] += ridge
    wanted = (logits @ directions).astype(np.float64) / spec.logit_scale
    factor = linalg.cho_factor(kernel, overwrite_a=True)
    encoder = shown.T @ linalg.cho_solve(factor, wanted)
    return _state(encoder, directions, spec)


def _scaled(history: sp.csr_matrix, spec: StudentSpec) -> sp.csr_matrix:
    """Multi-hot histories as the student divides them, CSR float32 ``[Q, n]``."""
    length = np.diff(history.indptr)
    each = np.maximum(length, 1).astype(np.float32) ** -spec.history_exponent
    scaled = history.astype(np.float32)
    scaled.data = np.repeat(each, length).astype(np.float32)
    return scaled


def _state(
    encoder: npt.NDArray[Any], decoder: npt.NDArray[Any], spec: StudentSpec
) -> StateDict:
    """Tables ``[n, rank]``, rank ≤ dim, that share the scale equally."""
    rank = encoder.shape[1]
    sizes = [max(float(np.linalg.norm(t)), 1e-12) for t in (encoder, decoder)]
    balance = (sizes[1] / sizes[0]) ** 0.5
    state = {name: torch.zeros(shape) for name, shape in shapes(spec).items()}
    state["encoder.weight"][:rank] = torch.from_numpy((encoder * balance).T).float()
    state["decoder.weight"][:, :rank] = torch.from_numpy(decoder / balance).float()
    return state


def distil(
    teacher: Teacher,
    start: StateDict,
    spec: StudentSpec,
    proxies: sp.csr_matrix,
    settings: Distillation,
    epochs: int,
    recipe: Recipe | None = None,
    *,
    device: str = "cpu",
) -> StateDict:
    """Fit the student to the teacher by gradient descent over proxy histories.

    Args:
        teacher: any; asked about the very histories that the student sees.
        start: where the student begins, as ``transfer.py`` left it or random.
        spec: the student's shape.
        proxies: public or synthetic histories, CSR ``[Q, n]``, ordered.
        settings: loss, temperature, top K and augmentation.
        epochs: passes over the proxies; 0 returns the start.
        recipe: how to descend; None for the default.
        device: where to fit; the teacher answers on the CPU.

    Returns:
        A new state; the same for the same arguments on one machine.
    """
    recipe = recipe or Recipe()
    rng = np.random.default_rng(PUBLIC_SEED)
    tables = StudentTables.of(start, spec, device)
    rate = recipe.learning_rate * spec.dim**-0.5
    optimiser = torch.optim.Adam(tables.parameters(), lr=rate)
    steps = max(1, epochs * -(-proxies.shape[0] // recipe.batch_users))
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda n: 1.0 - n / steps)
    for _ in range(epochs):
        order = rng.permutation(proxies.shape[0])
        for rows in batches(order, recipe.batch_users):
            view = AUGMENTATIONS[settings.augmentation](proxies[rows], rng)
            history = thin(view, recipe.least_shown, rng)
            logits = teacher_logits(teacher, history, spec)
            target = torch.from_numpy(logits).to(device)
            seen = torch.from_numpy(history.toarray()).to(device) > 0
            loss = FULL_LOSSES[settings.loss]
            optimiser.zero_grad()
            mean = loss(target, tables.logits(history), seen, settings).mean()
            mean.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            decay.step()
    return tables.state()


def batches(rows: IntArray, size: int) -> list[IntArray]:
    """``rows`` in as few parts of like size as keep to ``size``."""
    return np.array_split(rows, -(-len(rows) // size)) if len(rows) else []


def thin(
    history: sp.csr_matrix, least: float, rng: np.random.Generator
) -> sp.csr_matrix:
    """Show of each history a random share between ``least`` and 1; order is kept."""
    share = rng.uniform(least, 1.0, size=history.shape[0])
    length = np.diff(history.indptr)
    shown = rng.random(history.nnz) < np.repeat(share, length)
    thinned = history.copy()
    thinned.data = np.where(shown, history.data, 0)
    thinned.eliminate_zeros()
    return thinned


@dataclass(frozen=True)
class StudentTables:
    """A student with its encoder laid out by item, for sparse histories.

    A bag is wrong for per-sample gradients; here there are none.
    """

    spec: StudentSpec
    encoder: Tensor
    decoder: Tensor
    bias: Tensor
    #: Its logits, like an additive teacher's scores, are flat beside a softmax's.
    additive: ClassVar[bool] = True

    @classmethod
    def of(
        cls, state: StateDict, spec: StudentSpec, device: str = "cpu"
    ) -> StudentTables:
        """A copy of a student's state, ready to be fitted."""
        encoder = state["encoder.weight"].T
        tensors = (encoder, state["decoder.weight"], state["decoder.bias"])
        return cls(
            spec,
            *(
                t.detach().to(device, copy=True).contiguous().requires_grad_()
                for t in tensors
            ),
        )

    def parameters(self) -> list[Tensor]:
        """What an optimiser changes in place."""
        return [self.encoder, self.decoder, self.bias]

    def logits(self, history: sp.csr_matrix) -> Tensor:
        """As ``Student.forward`` of the multi-hot history, float32 ``[B, n]``."""
        scaled = _scaled(history, self.spec)
        device = self.encoder.device
        user = F.embedding_bag(
            torch.from_numpy(scaled.indices.astype(np.int64)).to(device),
            self.encoder,
            torch.from_numpy(scaled.indptr[:-1].astype(np.int64)).to(device),
            mode="sum",
            per_sample_weights=torch.from_numpy(scaled.data).to(device),
        )
        return F.linear(user * self.spec.logit_scale, self.decoder, self.bias)

    def score(self, history: sp.csr_matrix) -> FloatArray:
        """The logits, float32 ``[B, n]``."""
        with torch.no_grad():
            scores: FloatArray = self.logits(history).cpu().numpy()
        return scores

    def state(self) -> StateDict:
        """A copy under the student's own names."""
        return {
            "encoder.weight": self.encoder.detach().T.contiguous().cpu(),
            "decoder.weight": self.decoder.detach().to("cpu", copy=True),
            "decoder.bias": self.bias.detach().to("cpu", copy=True),
        }
