"""The loss by which a student distils from soft labels, on public rows alone.

In ``common`` because clients add its gradient to their private steps, and where the
server sees only a sum of those (mode ``distributed``) it adds the gradient itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from common.losses import DISTILLATION
from common.sections import Distillation
from common.soft_labels import SoftLabels, decode
from common.student import Student


def distillation_loss(
    student: Student, labels: SoftLabels, settings: Distillation
) -> Callable[[], Tensor]:
    """The weighted mean distillation loss over the proxy set, as a function."""
    weight = student.encoder.weight
    proxy = torch.tensor(labels.proxy.toarray()).to(weight)
    items = torch.from_numpy(labels.item).long().to(weight.device)
    teacher = decode(labels).to(weight)
    loss = DISTILLATION[settings.loss]

    def evaluate() -> Tensor:
        logits = student(proxy).gather(1, items)
        return loss(teacher, logits, settings.temperature).mean() * settings.weight

    return evaluate
