"""The server's half of soft labels: the teacher scores a public proxy set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.config import Distillation
from common.soft_labels import SoftLabels, encode
from common.student import StudentSpec


def teacher_logits(
    weights: npt.NDArray[np.float32], history: sp.csr_matrix, spec: StudentSpec
) -> npt.NDArray[np.float32]:
    """The teacher's scores in the student's units, float32 ``[B, n]``.

    The student divides its history by ``|history| ** p`` and multiplies by its logit
    scale; so must the teacher, or the squared error would compare unlike things.
    """
    length = np.maximum(np.asarray(history.sum(axis=1)), 1.0)
    scores = np.asarray(history @ weights) / length**spec.history_exponent
    logits: npt.NDArray[np.float32] = (scores * spec.logit_scale).astype(np.float32)
    return logits


def label_proxy_set(
    weights: npt.NDArray[np.float32],
    public: sp.csr_matrix,
    spec: StudentSpec,
    settings: Distillation,
) -> SoftLabels:
    """Soft labels of the first ``proxy-users`` public users."""
    proxy = public[: settings.proxy_users]
    return encode(teacher_logits(weights, proxy, spec), proxy, settings.top_k)
