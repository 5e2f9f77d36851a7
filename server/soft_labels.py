"""The server's half of soft labels: the teacher scores a public proxy set."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from common.sections import Distillation
from common.soft_labels import SoftLabels, encode
from common.student import StudentSpec
from server.distillation import teacher_logits
from server.teacher import Teacher


def label_proxy_set(
    teacher: Teacher, proxies: sp.csr_matrix, spec: StudentSpec, settings: Distillation
) -> SoftLabels:
    """Soft labels of proxy histories, CSR ``[Q, n]``, ordered; sent without order."""
    binary = (proxies > 0).astype(np.float32)
    return encode(teacher_logits(teacher, proxies, spec), binary, settings.top_k)
