"""A user's taste: personal weights over public directions, fitted on the device.

Client only: it touches one user's own items without noise, and never leaves. The
directions are the catalogue's features and the released student's output table, so
the weights are at once a profile of categories and an offset of the user vector. They
are the maximum a posteriori of the multinomial likelihood the student was trained
with (Liang et al. 2018, arXiv 1802.05814), with the scores so far as the offset and
a normal prior about zero: nothing learned is nothing changed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch

from common.catalogue import Catalogue
from common.features import item_features
from common.interactions import FloatArray
from common.student import Student

#: Prior precision, and the length of an average output vector beside a feature row
#: of length 1: constants, so that no two users are treated differently.
RIDGE = 3.0
OUTPUT_LENGTH = 0.5
ITERATIONS = 20


def directions(student: Student, catalogue: Catalogue) -> FloatArray:
    """What a taste is made of, float32 ``[num_items, features + dim]``; public."""
    features = item_features(catalogue)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    output = student.decoder.weight.detach().numpy()
    scale = OUTPUT_LENGTH / max(float(np.linalg.norm(output, axis=1).mean()), 1e-12)
    parts = [features / np.maximum(length, 1.0), output * scale]
    return np.concatenate(parts, axis=1).astype(np.float32)


def fit_taste(
    offset: FloatArray, rows: sp.csr_matrix, axes: FloatArray
) -> npt.NDArray[np.float32]:
    """``argmax_v Σ_i log softmax(offset + axes·v)_i − RIDGE·‖v‖²``, i over the items.

    Args:
        offset: standardised scores ``[B, num_items]``, see ``personal.standardise``.
        rows: multi-hot histories, CSR ``[B, num_items]``.
        axes: of :func:`directions`, ``[num_items, q]``.

    Returns:
        float32 ``[B, q]``; zero for a user without items.
    """
    start, base = torch.from_numpy(axes).double(), torch.from_numpy(offset).double()
    own = torch.from_numpy(rows.toarray()).double()
    taste = torch.zeros(len(base), start.shape[1]).double().requires_grad_()
    solver = torch.optim.LBFGS(
        [taste], max_iter=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def objective() -> torch.Tensor:
        solver.zero_grad()
        likelihood = own * torch.log_softmax(base + taste @ start.T, dim=1)
        loss = RIDGE * taste.square().sum() - likelihood.sum()
        torch.autograd.backward([loss])
        return loss.detach()

    solver.step(objective)  # type: ignore[no-untyped-call]
    return taste.detach().numpy().astype(np.float32)
