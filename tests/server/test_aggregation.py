"""Aggregation, by hand and against torch."""

import itertools

import pytest
import torch

from common.config import defaults, parse
from common.errors import ProtocolError
from server.aggregation import (
    OptimiserState,
    fedadam,
    fedavg,
    running_average,
    weighted_mean,
)

SETTINGS = parse(defaults()).aggregation


def state(*values: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values)}


def test_weighted_mean_by_hand() -> None:
    mean = weighted_mean([state(1.0, 2.0), state(5.0, -2.0)], [3.0, 1.0])
    torch.testing.assert_close(mean["w"], torch.tensor([2.0, 1.0]))


def test_the_order_of_replies_leaves_no_trace() -> None:
    updates = [
        {"w": torch.randn(500, generator=torch.Generator().manual_seed(seed))}
        for seed in range(4)
    ]
    means = [
        weighted_mean(list(order), [1.0] * 4)["w"]
        for order in itertools.permutations(updates)
    ]
    assert all(torch.equal(means[0], mean) for mean in means)


@pytest.mark.parametrize("case", [([], []), ([state(1.0)], []), ([state(1.0)], [0.0])])
def test_nothing_to_average_is_refused(case) -> None:
    with pytest.raises(ProtocolError):
        weighted_mean(*case)


def test_fedavg_moves_by_the_learning_rate() -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 0.5})
    moved, after = fedavg(state(1.0), state(4.0), OptimiserState(), settings)
    assert moved["w"].item() == 3.0
    assert after.step == 1


def test_fedadam_equals_torchs_adam_on_the_negative_update() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    adam = torch.optim.Adam([parameter], lr=SETTINGS.learning_rate)
    student = {"w": parameter.detach().clone()}
    optimiser = OptimiserState()
    for step in range(5):
        update = torch.tensor([0.1 * step, -0.3, 0.2])
        parameter.grad = -update
        adam.step()
        student, optimiser = fedadam(student, {"w": update}, optimiser, SETTINGS)
    torch.testing.assert_close(student["w"], parameter.detach())


def test_running_average_is_the_mean_of_the_iterates() -> None:
    average = state(0.0)
    for count, value in enumerate((2.0, 4.0, 9.0), start=1):
        average = running_average(average, state(value), count)
    assert average["w"].item() == pytest.approx(5.0)


def test_fedavg_by_hand_over_two_tensors_and_unequal_sizes() -> None:
    """Sizes 1 and 3, updates 4 and 8: mean 7, half of it is applied."""
    updates = [
        {"a": torch.tensor([4.0]), "b": torch.tensor([[0.0, 4.0]])},
        {"a": torch.tensor([8.0]), "b": torch.tensor([[4.0, 0.0]])},
    ]
    mean = weighted_mean(updates, [1.0, 3.0])
    settings = SETTINGS.model_copy(update={"learning_rate": 0.5})
    start = {"a": torch.tensor([1.0]), "b": torch.zeros(1, 2)}
    moved, _ = fedavg(start, mean, OptimiserState(), settings)
    assert moved["a"].tolist() == [4.5]
    assert moved["b"].tolist() == [[1.5, 0.5]]
    assert start["a"].tolist() == [1.0], "the student before is left alone"
