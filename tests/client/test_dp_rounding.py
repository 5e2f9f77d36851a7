"""What rounding may do to the clip: nothing that a crafted student can use."""

import pytest
import torch
from torch import Tensor

from client.dp import Mechanism
from common.student import Student, StudentSpec, build
from tests.client.test_dp import steps


def cancelling(scale: float, num_items: int = 200, dim: int = 16) -> Student:
    """A student whose gradients of a history's items cancel but for rounding.

    Every item's output vector is the same, so that a softmax less a mean of targets,
    which add up to nothing, meets it times nothing; a huge vector makes what rounding
    leaves of that nothing as large as the server likes.
    """
    generator = torch.Generator().manual_seed(0)
    spec = StudentSpec(num_items, dim, 1.0, 0.0)
    signs = torch.sign(torch.randn(1, dim, generator=generator))
    state = {
        "encoder.weight": torch.zeros(dim, num_items),
        "decoder.weight": torch.full((num_items, dim), scale) * signs,
        "decoder.bias": torch.randn(num_items, generator=generator) * 2,
    }
    return build(spec, state)


def crowd(num: int, num_items: int = 200) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_items)
    history, target = torch.zeros(num, num_items), torch.zeros(num, num_items)
    for user in range(num):
        items = torch.randperm(num_items, generator=generator)[:20]
        history[user, items[:12]], target[user, items[12:]] = 1.0, 1.0
    return history, target


def clipped_sum(model: Student, rows: tuple[Tensor, Tensor], chunk: int) -> Tensor:
    private = steps(model, Mechanism(1.0, 0.1, 1.0, 1))
    for start in range(0, len(rows[0]), chunk):
        private.accumulate(
            rows[0][start : start + chunk], rows[1][start : start + chunk]
        )
    return torch.cat([p.summed_grad.flatten() for p in model.parameters()])


POWERS = (0, 20, 40, 50, 60)


@pytest.mark.parametrize("power", POWERS)
def test_rounding_takes_no_user_beyond_the_clip(power: int) -> None:
    """Mistake 2: the norm and the clipped gradient are of one and the same pass."""
    for user in range(20):
        rows = tuple(part[user : user + 1] for part in crowd(20))
        model = cancelling(2.0**power)
        moved = clipped_sum(model, rows, 1)
        assert float(moved.norm()) <= 0.1 * (1 + 1e-9)
        # The encoder's gradient is nothing but rounding here.
        assert float(moved[: model.encoder.weight.numel()].norm()) <= 0.1 * 1e-6


@pytest.mark.parametrize("chunk", [4, 512])
@pytest.mark.parametrize("power", POWERS)
def test_a_user_less_moves_the_sum_by_the_clip_at_most(power: int, chunk: int) -> None:
    """Mistake 11: nothing of the others' gradients depends on who is in the batch.

    Last bits do, and a cancelling student turns them into directions; the room left
    for rounding in every clip keeps them small.
    """
    history, target = crowd(9)
    whole = clipped_sum(cancelling(2.0**power), (history, target), chunk)
    for user in range(9):
        others = [other for other in range(9) if other != user]
        rest = (history[others], target[others])
        without = clipped_sum(cancelling(2.0**power), rest, chunk)
        assert float((whole - without).norm()) <= 0.1 * (1 + 1e-4)
