"""DP-SGD over users: Poisson sampling, per-user clip, noise, public constants.

The only module that imports Opacus: its ghost clipping gives each user's gradient
norm over *all* tensors without materialising per-user gradients (Lee and Kifer 2021;
Abadi et al. 2016, algorithm 1). Client only. Rate, clip, noise and the mean's
denominator are public constants of the run; the number of rows enters none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import Tensor

from client.randomness import RandomStream
from common.student import Student

UserLoss = Callable[[Tensor, Tensor], Tensor]

# The histories need no gradient, and torch says so at each of Opacus' hooks.
warnings.filterwarnings("ignore", message="Full backward hook is firing")


@dataclass(frozen=True)
class Mechanism:
    """The public constants of a step.

    Attributes:
        noise_multiplier: 0 adds no noise (mode ``off``).
        max_grad_norm: L2 bound of one user's gradient; ``inf`` clips nothing.
        sample_rate: probability that a user is in a step.
        declared_users: the client's public size; the mean divides by
            ``sample_rate · declared_users`` whatever was drawn.
    """

    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    declared_users: int

    @property
    def denominator(self) -> float:
        """Expected number of users in a step, from public numbers alone."""
        return self.sample_rate * self.declared_users


def draw_users(
    num_users: int, rate: float, stream: RandomStream
) -> npt.NDArray[np.int64]:
    """Poisson sample: each user independently with probability ``rate``."""
    return np.flatnonzero(stream.uniform(num_users) < rate)


class NoisyOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """Opacus' optimiser with our noise, and a step for an empty sample too."""

    def __init__(
        self,
        student: Student,
        learning_rate: float,
        mechanism: Mechanism,
        noise: RandomStream,
    ) -> None:
        super().__init__(
            torch.optim.SGD(student.parameters(), lr=learning_rate),
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=mechanism.max_grad_norm,
            expected_batch_size=mechanism.denominator,
        )
        self._noise = noise

    def add_noise(self) -> None:
        """``grad = clipped sum + σ·C·N(0, 1)``; the sum of nobody is zero."""
        for parameter in self.params:
            total = parameter.summed_grad
            grad = torch.zeros_like(parameter) if total is None else total.clone()
            if self.noise_multiplier > 0:
                noise = self._noise.normal(tuple(parameter.shape)).to(grad.device)
                grad += noise * (self.noise_multiplier * self.max_grad_norm)
            parameter.grad = grad

    def privatise(self) -> None:
        """Turn the accumulated sum into the private mean gradient."""
        self.add_noise()
        self.scale_grad()


class PrivateSteps:
    """Private gradient steps on one student."""

    def __init__(
        self,
        student: Student,
        loss: UserLoss,
        mechanism: Mechanism,
        learning_rate: float,
        noise: RandomStream,
    ) -> None:
        self.student, self.loss, self.mechanism = student, loss, mechanism
        self.optimizer = NoisyOptimizer(student, learning_rate, mechanism, noise)

    def accumulate(self, history: Tensor, target: Tensor) -> int:
        """Add the clipped gradients of some users of the step's sample.

        A user whose gradient or loss is not finite contributes zero, since a NaN
        passes any norm clip; how many stays on the client.

        Args:
            history: multi-hot float32 ``[B, n]``.
            target: multi-hot float32 ``[B, n]``.

        Returns:
            The number of users left out.
        """
        finite = self._accumulate_finite(history, target)
        left_out = int((~finite).sum())
        if left_out and bool(finite.any()):
            self._accumulate_finite(history[finite], target[finite])
        return left_out

    def _accumulate_finite(self, history: Tensor, target: Tensor) -> Tensor:
        """Accumulate if every user is finite; says who is."""
        wrapped = GradSampleModuleFastGradientClipping(
            self.student,
            loss_reduction="sum",
            max_grad_norm=self.mechanism.max_grad_norm,
            use_ghost_clipping=True,
        )
        try:
            losses = self.loss(wrapped(history), target)
            self._forget_grad()
            torch.autograd.backward([losses.sum()], retain_graph=True)
            norms = wrapped.get_norm_sample()
            finite = torch.isfinite(norms) & torch.isfinite(losses.detach())
            if bool(finite.all()):
                self._forget_grad()
                wrapped.disable_hooks()
                clipped = wrapped.get_clipping_coef().detach() * losses
                torch.autograd.backward([clipped.sum()])
                self.optimizer.accumulate()
        finally:
            wrapped.to_standard_module()
        return finite

    def _forget_grad(self) -> None:
        for parameter in self.student.parameters():
            parameter.grad = None

    def step(self, extra: Callable[[], Tensor] | None = None) -> None:
        """Noise the accumulated sum, add a public gradient, move, start anew.

        Args:
            extra: a loss that touches no private row (distillation); its gradient
                is added after the noise and costs no privacy.
        """
        self.optimizer.privatise()
        if extra is not None:
            torch.autograd.backward([extra()])
        self.optimizer.original_optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
