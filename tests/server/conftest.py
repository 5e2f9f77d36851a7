"""Validation users who all want item 5, and students that do or do not rank it."""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from common.student import StateDict, StudentSpec, shapes


@dataclass(frozen=True)
class SafeguardCase:
    spec: StudentSpec
    shown: sp.csr_matrix
    held: sp.csr_matrix
    good: StateDict
    bad: StateDict


@pytest.fixture
def case() -> SafeguardCase:
    spec = StudentSpec(6, 2, 1.0, 0.0)
    eye = np.eye(6, dtype=np.float32)
    zero = {name: torch.zeros(shape) for name, shape in shapes(spec).items()}
    return SafeguardCase(
        spec,
        shown=sp.csr_matrix(eye[:3]),
        held=sp.csr_matrix(np.repeat(eye[5:], 3, axis=0)),
        good=zero | {"decoder.bias": torch.arange(6.0)},
        bad=zero | {"decoder.bias": -torch.arange(6.0)},
    )
