"""Evidence in a round's update: the gradient beyond what known rows explain.

Simulations only. The product of that gradient with a user's own clipped one is the
likelihood ratio's exponent; its derivative by each item's presence is what the update
says of the item. Masks are averaged over: an item is target or history by chance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor

from common.student import StateDict
from simulations.audits.gradients import MASKS_OF_SUM, Gradients
from simulations.audits.leaks.sight import Sight
from simulations.audits.scores import gradients_at, noisy_sum
from simulations.audits.transcript import Exchange
from simulations.audits.world import World

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

#: Times that masks are drawn to see how much they blur a sum.
_DRAWS = 4


@dataclass(frozen=True)
class UpdateEvidence:
    """One round's gradient beyond the known rows' expected one.

    Attributes:
        gradients: what a user's gradient is at the student that was sent.
        beyond: sum of gradients by tensor.
        expected: how many of a user's gradients are in it on average.
        deviation: of what blurs the numbers of a tensor, by tensor.
    """

    gradients: Gradients = field(repr=False)
    beyond: StateDict = field(repr=False)
    expected: float
    deviation: StateDict = field(repr=False)

    def beside(self, items: Bool) -> UpdateEvidence:
        """With one user's own expected contribution, bool ``[n]``."""
        rows = sp.csr_matrix(items[None].astype(np.float32))
        own = self.gradients.sum(rows)
        beyond = {
            name: value + own[name] * self.expected
            for name, value in self.beyond.items()
        }
        return replace(self, beyond=beyond)

    def score(self, belief: Float, length: int) -> Float:
        """See ``inference.Evidence``."""
        items = torch.from_numpy(belief.astype(np.float32)).requires_grad_()
        torch.autograd.backward([self._product(items) * self.expected])
        if items.grad is None:
            return np.zeros(len(belief))
        return np.asarray(items.grad.numpy(), dtype=np.float64)

    def bare(self) -> Float:
        """Where nothing is noised and nobody else is in it: what is simply there.

        The gradient of an output bias is negative for a target alone, and that of an
        input row is zero but for the history's.
        """
        target = np.maximum(-self.beyond["decoder.bias"].numpy(), 0.0)
        history = self.beyond["encoder.weight"].norm(dim=0).numpy()
        parts = [each / max(float(each.max()), 1e-30) for each in (target, history)]
        return np.asarray(parts[0] + parts[1], dtype=np.float64)

    def _product(self, items: Tensor) -> Tensor:
        """The expected clipped gradient along what is left over, each by its blur."""
        spec, state = self.gradients.spec, self.gradients.state
        shown = 1 - self.gradients.target_fraction
        count = items.sum().clamp(min=1.0)
        scale = shown / (count * shown).clamp(min=1.0) ** spec.history_exponent
        user = state["encoder.weight"] @ items * (scale * spec.logit_scale)
        decoder = state["decoder.weight"]
        residual = (decoder @ user + state["decoder.bias"]).softmax(0) - items / count
        pull = residual @ decoder * spec.logit_scale
        along = {
            name: value / self.deviation[name] ** 2
            for name, value in self.beyond.items()
        }
        outward = along["decoder.weight"] @ user + along["decoder.bias"]
        inward = pull @ along["encoder.weight"] * scale
        with torch.no_grad():
            clip = self._clip(items, residual, user, pull, scale)
        return ((residual * outward).sum() + (inward * items).sum()) * clip

    def _clip(
        self, items: Tensor, residual: Tensor, user: Tensor, pull: Tensor, scale: Tensor
    ) -> float:
        """What is left of a gradient of such a user, whose items are there or not."""
        most, fraction = self.gradients.max_grad_norm, self.gradients.target_fraction
        if not math.isfinite(most):
            return 1.0
        count = items.sum().clamp(min=1.0)
        # A target is there in some masks alone, and larger then.
        masked = (items / fraction - items.square()).clamp(min=0.0).sum() / count**2
        outer = (residual.square().sum() + masked) * (1 + user.square().sum())
        history = items.sum() * scale**2 / max(1 - fraction, 1e-6)
        squared = outer + pull.square().sum() * history
        return min(1.0, most / max(float(squared.sqrt()), 1e-12))


def update_evidence(
    world: World, exchange: Exchange, sight: Sight, known: sp.csr_matrix
) -> UpdateEvidence:
    """What a visible sum of updates holds beyond known rows."""
    config = world.config
    gradients = gradients_at(world.spec, exchange.student, config)
    expected = config.training.local_steps * config.privacy.sample_rate
    explained = gradients.sum(known)
    beyond = {name: -value * expected for name, value in explained.items()}
    for client in sight.clients:
        for name, value in noisy_sum(exchange, client, world.spec, config).items():
            beyond[name] = beyond[name] + value
    several = config.training.local_steps * sight.noises
    noise = world.noise * config.privacy.max_grad_norm * math.sqrt(several)
    if noise:
        deviation = {name: torch.tensor(noise) for name in beyond}
    elif known.shape[0]:
        deviation = _of_masks(gradients, known, expected)
    else:
        deviation = {
            name: value.std().clamp(min=1e-12) for name, value in beyond.items()
        }
    return UpdateEvidence(gradients, beyond, expected, deviation)


def _of_masks(gradients: Gradients, known: sp.csr_matrix, expected: float) -> StateDict:
    """Where nothing is noised, others' masks alone blur: how much, by tensor.

    The attacker draws masks itself. A sum that it draws is a mean over several masks,
    and varies by so much less.
    """
    drawn = [replace(gradients, seed=seed).sum(known) for seed in range(1, _DRAWS + 1)]
    found = {}
    for name in drawn[0]:
        each = torch.stack([one[name] for one in drawn])
        variance = each.var(dim=0).mean() * MASKS_OF_SUM * expected
        found[name] = variance.clamp(min=1e-24).sqrt()
    return found
