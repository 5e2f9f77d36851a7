"""Aggregation, by hand and against torch."""

import itertools
import math

import numpy as np
import pytest
import torch

from common.config import defaults, parse
from common.errors import ProtocolError
from server.aggregation import (
    OptimiserState,
    fedadam,
    fedavg,
    mean_metrics,
    running_average,
    weighted_mean,
)

SETTINGS = parse(defaults()).aggregation


def state(*values: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values)}


def test_no_bit_of_a_mean_depends_on_the_order_of_the_replies() -> None:
    # In double precision (a + 1) - a is 0 and (a - a) + 1 is 1.
    updates = [state(2.0**60, 3.0), state(1.0, 0.1), state(-(2.0**60), 0.7)]
    means = [
        weighted_mean(list(each), [1.0] * 3)["w"].numpy().tobytes()
        for each in itertools.permutations(updates)
    ]
    assert len(set(means)) == 1


def test_no_bit_of_the_metrics_depends_on_the_order_of_the_replies() -> None:
    sums = [np.array([v, v, 9.0], np.float32) for v in (2.0**60, 1.0, -(2.0**60))]
    means = [str(mean_metrics(each, 1.0)) for each in itertools.permutations(sums)]
    assert len(set(means)) == 1


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


def test_mean_metrics_by_hand() -> None:
    """Two clients of 6 and 4 noised users; three entries each, σ = 2."""
    sums = [np.float32([3.0, 1.5, 6.0]), np.float32([1.0, 0.5, 4.0])]
    found = mean_metrics(sums, 2.0)
    # Each of the two sums has noise of deviation 2·√3; a mean divides by 10 users.
    expected = {"ndcg@10": 0.4, "recall@20": 0.2, "users": 10.0}
    deviation = 2.0 * math.sqrt(3) * math.sqrt(2) / 10
    assert found == pytest.approx(expected | {"noise_deviation": deviation})


def test_mean_metrics_of_one_client_without_noise_are_the_plain_means() -> None:
    found = mean_metrics([np.float32([2.0, 1.0, 4.0])], 0.0)
    expected = {"ndcg@10": 0.5, "recall@20": 0.25, "users": 4.0, "noise_deviation": 0.0}
    assert found == expected


@pytest.mark.parametrize("users", [-3.0, 0.0, 0.5])
def test_mean_metrics_never_divide_by_less_than_one_user(users) -> None:
    found = mean_metrics([np.float32([0.5, -0.5, users])], 1.0)
    assert (found["ndcg@10"], found["recall@20"]) == (0.5, -0.5)
    assert found["users"] == users, "the noised number stays as it came"
    assert found["noise_deviation"] == pytest.approx(math.sqrt(3))


def test_mean_metrics_have_the_noise_they_state() -> None:
    """100 users with metrics (0.3, 0.6): the spread of many noised means."""
    rng = np.random.default_rng(0)
    truth, noise = np.array([30.0, 60.0, 100.0]), 0.5
    means, deviation = [], 0.0
    for _ in range(4000):
        noised = truth + rng.normal(size=3) * noise * math.sqrt(3)
        found = mean_metrics([noised.astype(np.float32)], noise)
        means.append(found["ndcg@10"])
        deviation = found["noise_deviation"]
    assert np.mean(means) == pytest.approx(0.3, abs=1e-3)
    # The divisor's own noise adds a little: √(1 + 0.3²) of it here.
    assert np.std(means) == pytest.approx(deviation * math.sqrt(1.09), rel=0.06)
