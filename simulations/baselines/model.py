"""What a baseline is: a function from histories to scores.

Simulations only; apart from the package's list of baselines, which imports them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import scipy.sparse as sp

from common.interactions import FloatArray

#: Histories, binary CSR ``[B, n]`` → scores float32 ``[B, n]``.
Model = Callable[[sp.csr_matrix], FloatArray]
#: Training rows, binary CSR ``[users, n]``, and settings → model.
Fit = Callable[[sp.csr_matrix, Any], Model]
