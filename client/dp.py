"""DP-SGD over users: Poisson sampling, per-user clip, noise, public constants.

The only module that imports Opacus: its hooks and ghost norms give each user's
gradient norm over *all* tensors without materialising per-user gradients (Lee and
Kifer 2021; Abadi et al. 2016, algorithm 1). The clipped sum comes from the same
backward pass as the norms (book-keeping, Bu et al. 2023): a second pass would round
otherwise, and a crafted student can make all of a gradient out of rounding. Client
only. Rate, clip, noise and the mean's denominator are public constants of the run;
the number of rows enters none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import Tensor, nn

from client.randomness import RandomStream
from common.student import Student

UserLoss = Callable[[Tensor, Tensor], Tensor]

#: A million times double precision's unit roundoff, with room for long sums.
ROUNDING = 1e-9

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


class BookKeeping(GradSampleModuleFastGradientClipping):  # type: ignore[misc]
    """Opacus' hooks, keeping what the clipped sum is made of."""

    def __init__(self, student: Student, mechanism: Mechanism) -> None:
        super().__init__(
            student,
            loss_reduction="sum",
            max_grad_norm=mechanism.max_grad_norm,
            use_ghost_clipping=True,
        )
        self.kept: dict[nn.Linear, tuple[Tensor, Tensor]] = {}

    def rearrange_grad_samples(
        self, *, module: nn.Module, **more: Any
    ) -> tuple[list[Tensor], Tensor]:
        """Opacus' step between a hook and the norms; all layers are linear."""
        activations, backprops = super().rearrange_grad_samples(module=module, **more)
        if not isinstance(module, nn.Linear):
            raise TypeError(f"Expected linear layers alone, got {type(module)}.")
        self.kept[module] = (activations[0], backprops)
        return activations, backprops

    def set_sum(self, coefficient: Tensor) -> None:
        """Each parameter's ``grad``: users' gradients times ``[B]`` coefficients.

        A user whose coefficient is 0 adds exactly 0, whatever its gradient is.
        """
        counts = coefficient > 0
        for layer, (activations, backprops) in self.kept.items():
            if not bool(counts.all()):
                # Nothing times what is not finite would not be nothing.
                activations = torch.where(counts[:, None], activations, 0.0)
                backprops = torch.where(counts[:, None], backprops, 0.0)
            scaled = coefficient[:, None] * backprops
            layer.weight.grad = scaled.T @ activations
            if layer.bias is not None:
                layer.bias.grad = scaled.sum(dim=0)


class PrivateSteps:
    """Private gradient steps on one student, in double precision."""

    def __init__(
        self,
        student: Student,
        loss: UserLoss,
        mechanism: Mechanism,
        learning_rate: float,
        noise: RandomStream,
    ) -> None:
        self.student, self.loss, self.mechanism = student.double(), loss, mechanism
        self.optimizer = NoisyOptimizer(student, learning_rate, mechanism, noise)

    def accumulate(self, history: Tensor, target: Tensor) -> int:
        """Add the clipped gradients of some users of the step's sample.

        A user whose gradient or loss is not finite contributes zero, since a NaN
        passes any norm clip; how many stays on the client.

        Args:
            history: multi-hot ``[B, n]``.
            target: multi-hot ``[B, n]``.

        Returns:
            The number of users left out.
        """
        history, target = history.double(), target.double()
        wrapped = BookKeeping(self.student, self.mechanism)
        try:
            losses = self.loss(wrapped(history), target)
            torch.autograd.backward([losses.sum()])
            length = wrapped.kept[self.student.encoder][0].sum(dim=1)
            norms = wrapped.get_norm_sample() + rounding(self.student, length)
            finite = torch.isfinite(norms) & torch.isfinite(losses.detach())
            clip = (self.mechanism.max_grad_norm / norms).clamp(max=1.0)
            wrapped.set_sum(torch.where(finite, clip, 0.0))
            self.optimizer.accumulate()
        finally:
            wrapped.to_standard_module()
        return int((~finite).sum())

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


def rounding(student: Student, length: Tensor) -> Tensor:
    """Room in each user's clip for what rounding makes of its gradient, ``[B]``.

    The last bits of a product depend on the shape of the batch, and so on who else
    is in it; a crafted student whose gradients cancel can turn them into a direction
    of its choice. Adding far more than they can be to the norm keeps what others may
    change of a user's contribution below 1e-6 of the clip. The bound is that of a
    forward and a backward pass of two linear layers and a softmax over a mean of
    targets (Higham 2002, section 3.1, with a factor of a million to spare).

    Args:
        length: sum of each user's scaled history, ``[B]``.
    """
    spec = student.spec
    encoder = student.encoder.weight.detach().norm(dim=0).max()
    decoder = student.decoder.weight.detach().norm(dim=1).max()
    user = spec.logit_scale * encoder * length
    logits = decoder * user + student.decoder.bias.detach().abs().max()
    gradient = user + spec.logit_scale * decoder * length + 1.0
    slack: Tensor = ROUNDING * (1.0 + logits) * gradient
    return slack
