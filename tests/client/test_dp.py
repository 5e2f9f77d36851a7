"""The private step: clip, sample, noise, public constants."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from client.dp import Mechanism, PrivateSteps, draw_users
from client.randomness import seeded_stream
from common.losses import multinomial
from common.student import Student, StudentSpec, build, random_state

DOUBLE = torch.float64
N = 20
SPEC = StudentSpec(N, 4, 20.0, 0.8)
EXACT = Mechanism(0.0, 0.1, 1.0, 1)


def student() -> Student:
    state = random_state(SPEC, torch.Generator().manual_seed(0))
    return build(SPEC, {k: v * 10 for k, v in state.items()}).train().double()


def steps(model: Student, mechanism: Mechanism, loss=multinomial, seed=0):
    return PrivateSteps(model, loss, mechanism, 1.0, seeded_stream(seed, "noise"))


def movement(history: Tensor, target: Tensor, mechanism=EXACT, loss=multinomial):
    """All tensors' movement by one step, as one vector."""
    model = student()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    private = steps(model, mechanism, loss)
    private.accumulate(history, target)
    private.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]) - before


def users(num: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand((num, N), generator=generator)
    return (draws < 0.3).double(), (draws > 0.7).double()


def naive(history: Tensor, target: Tensor, clip: float) -> Tensor:
    """Sum of clipped per-user gradients by one autograd pass a user."""
    total = torch.zeros(sum(p.numel() for p in student().parameters()), dtype=DOUBLE)
    for h, t in zip(history, target, strict=True):
        model = student()
        multinomial(model(h[None]), t[None]).sum().backward()
        grad = torch.cat([p.grad.flatten() for p in model.parameters()])
        total += grad * min(1.0, clip / float(grad.norm()))
    return total


one_hot = torch.eye(N, dtype=DOUBLE)[:1]
HARD_USERS = {
    "heavy": (torch.ones(1, N, dtype=DOUBLE), torch.ones(1, N, dtype=DOUBLE)),
    "empty history": (0 * one_hot, one_hot),
    "empty target": (one_hot, 0 * one_hot),
    "repeated": (one_hot * 6, one_hot * 6),
    "huge": (one_hot * 1e6, one_hot),
}


@pytest.mark.parametrize("name", HARD_USERS)
def test_one_user_moves_all_tensors_together_by_at_most_the_clip(name: str) -> None:
    """Mistake 2."""
    assert float(movement(*HARD_USERS[name]).norm()) <= 0.1 * (1 + 1e-5)


def test_the_clip_binds_and_is_not_vacuous() -> None:
    assert float(movement(*HARD_USERS["heavy"]).norm()) == pytest.approx(0.1, rel=1e-4)


def test_the_clipped_sum_equals_one_autograd_pass_a_user() -> None:
    history, target = users(9)
    expected = -naive(history, target, 0.1)
    torch.testing.assert_close(
        movement(history, target), expected, rtol=1e-5, atol=1e-7
    )


def test_small_gradients_are_not_scaled() -> None:
    history, target = users(5)
    loose = Mechanism(0.0, 1e6, 1.0, 1)
    torch.testing.assert_close(
        movement(history, target, loose),
        -naive(history, target, math.inf),
        rtol=1e-4,
        atol=1e-6,
    )


def test_a_user_who_is_not_finite_contributes_zero_and_others_count() -> None:
    history, target = users(4)

    def broken(logits: Tensor, wanted: Tensor) -> Tensor:
        losses = multinomial(logits, wanted)
        return (
            torch.cat([losses[:1] * float("nan"), losses[1:]])
            if len(losses) == 4
            else losses
        )

    whole = movement(history, target, loss=broken)
    torch.testing.assert_close(whole, movement(history[1:], target[1:]))

    def hopeless(logits: Tensor, wanted: Tensor) -> Tensor:
        return multinomial(logits, wanted) * float("inf")

    assert not movement(history, target, loss=hopeless).any()


def test_chunks_add_up_to_the_whole_sample() -> None:
    history, target = users(7)
    model = student()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    private = steps(model, EXACT)
    for part in (slice(0, 3), slice(3, 7)):
        private.accumulate(history[part], target[part])
    private.step()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(after - before, movement(history, target))


def test_examples_are_not_coupled() -> None:
    """Mistake 11: user j changes, user i's contribution does not."""
    history, target = users(2)
    both = movement(history, target)
    alone = movement(history[:1], target[:1])
    other = movement(*users(1, seed=5))
    swapped = movement(
        torch.cat([history[:1], users(1, seed=5)[0]]),
        torch.cat([target[:1], users(1, seed=5)[1]]),
    )
    torch.testing.assert_close(both - alone, movement(history[1:], target[1:]))
    torch.testing.assert_close(swapped - alone, other, rtol=1e-4, atol=1e-7)


def test_an_empty_sample_is_a_step_with_noise() -> None:
    """Mistake 5."""
    model = student()
    before = [p.detach().clone() for p in model.parameters()]
    private = steps(model, Mechanism(1.0, 0.1, 0.01, 1))
    for _ in range(3):
        private.step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert (old != new).all()


def test_noise_has_the_promised_deviation() -> None:
    mechanism = Mechanism(2.0, 0.1, 0.5, 40)
    empty = torch.zeros(0, N)
    moves = torch.cat([_noise(mechanism, seed) for seed in range(40)])
    assert len(empty) == 0
    assert float(moves.std()) == pytest.approx(2.0 * 0.1 / 20, rel=0.03)
    assert abs(float(moves.mean())) < 5 * 0.01 / math.sqrt(len(moves))


def _noise(mechanism: Mechanism, seed: int) -> Tensor:
    model = student()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    steps(model, mechanism, seed=seed).step()
    return torch.cat([p.detach().flatten() for p in model.parameters()]) - before


def test_noise_of_two_clients_is_uncorrelated() -> None:
    """Mistake 9."""
    mechanism = Mechanism(1.0, 1.0, 1.0, 1)
    first = torch.cat([_noise(mechanism, seed) for seed in range(0, 60)])
    second = torch.cat([_noise(mechanism, seed) for seed in range(60, 120)])
    correlation = float(torch.corrcoef(torch.stack([first, second]))[0, 1])
    assert abs(correlation) < 5 / math.sqrt(len(first))


def test_the_noise_and_the_denominator_ignore_how_many_users_there_are() -> None:
    """Mistake 3: with n and n + 1 users every public constant is the same."""
    mechanism = Mechanism(1.0, 0.1, 0.5, 8)
    quiet = Mechanism(0.0, 0.1, 0.5, 8)
    history, target = users(9)
    noise = [
        movement(history[:n], target[:n], mechanism)
        - movement(history[:n], target[:n], quiet)
        for n in (8, 9)
    ]
    torch.testing.assert_close(noise[0], noise[1], rtol=1e-4, atol=1e-6)
    assert mechanism.denominator == 4.0


def test_sampling_is_poisson() -> None:
    """Mistake 1: inclusions are independent and binomial, sizes vary."""
    stream = seeded_stream(3, "sampling")
    draws = [draw_users(200, 0.3, stream) for _ in range(500)]
    sizes = np.asarray([len(draw) for draw in draws])
    assert sizes.mean() == pytest.approx(60, abs=5 * math.sqrt(42 / 500))
    assert sizes.var() == pytest.approx(42, rel=0.3)
    counts = np.bincount(np.concatenate(draws), minlength=200)
    deviation = math.sqrt(500 * 0.3 * 0.7)
    assert np.abs(counts - 150).max() < 5 * deviation
    assert len(draw_users(200, 1.0, stream)) == 200
    assert len(draw_users(0, 0.3, stream)) == 0


def test_distillation_is_added_after_the_noise_and_without_clipping() -> None:
    def extra(model: Student):
        return lambda: 100.0 * sum(p.square().sum() for p in model.parameters())

    history, target = users(6)
    plain = movement(history, target)
    model = student()
    start = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    private = steps(model, EXACT)
    private.accumulate(history, target)
    private.step(extra(model))
    moved = torch.cat([p.detach().flatten() for p in model.parameters()]) - start
    torch.testing.assert_close(moved - plain, -200.0 * start, rtol=1e-3, atol=1e-3)


def test_mode_off_clips_nothing_and_adds_nothing() -> None:
    off = Mechanism(0.0, math.inf, 1.0, 1)
    history, target = users(5)
    torch.testing.assert_close(
        movement(history, target, off),
        -naive(history, target, math.inf),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_user_with_broken_rows_contributes_exactly_zero(broken: float) -> None:
    """Mistake 2: a NaN passes a norm clip, so it must not get that far."""
    history, target = users(4)
    history[1, 3] = broken
    kept = [0, 2, 3]
    expected = movement(history[kept], target[kept])
    torch.testing.assert_close(
        movement(history, target), expected, rtol=1e-12, atol=1e-15
    )
    assert expected.any()
    assert not movement(history[1:2], target[1:2]).any()


def test_users_left_out_are_counted_for_the_client_alone() -> None:
    history, target = users(5)
    history[0] = float("nan")
    target[4] = float("inf")
    model = student()
    assert steps(model, EXACT).accumulate(history, target) == 2
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("clip", [1e-3, 0.1, 5.0])
def test_no_user_of_any_student_exceeds_the_clip(scale: float, clip: float) -> None:
    """Mistakes 2 and 10: the bound is on all tensors together, C and not 2C."""
    history, target = users(6, seed=3)
    history[0] = target[0] = 1.0
    for h, t in zip(history, target, strict=True):
        model = student()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        before = [p.detach().clone() for p in model.parameters()]
        private = steps(model, Mechanism(0.0, clip, 1.0, 1))
        private.accumulate(h[None], t[None])
        private.optimizer.privatise()
        grads = torch.cat([p.grad.flatten() for p in model.parameters()])
        assert float(grads.double().norm()) <= clip * (1 + 1e-5)
        assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_no_chunk_size_changes_the_sum(size: int) -> None:
    history, target = users(7)
    history[2] = float("nan")
    model = student()
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    private = steps(model, EXACT)
    for start in range(0, 7, size):
        private.accumulate(history[start : start + size], target[start : start + size])
    private.step()
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.testing.assert_close(
        after - before, movement(history, target), rtol=1e-5, atol=1e-6
    )


def test_a_step_starts_anew() -> None:
    """Nothing of one step's users is in the next one's sum."""
    model = student()
    private = steps(model, EXACT)
    private.accumulate(*users(4))
    private.step()
    before = [p.detach().clone() for p in model.parameters()]
    private.step()
    assert all(map(torch.equal, before, model.parameters()))


def test_inclusions_of_two_users_are_independent() -> None:
    """Mistake 1: in a shuffled batch of fixed size they would not be."""
    stream = seeded_stream(8, "sampling")
    joint = np.zeros((2, 2))
    for _ in range(4000):
        drawn = set(draw_users(2, 0.3, stream).tolist())
        joint[int(0 in drawn), int(1 in drawn)] += 1
    expected = 4000 * np.outer([0.7, 0.3], [0.7, 0.3])
    chi_square = ((joint - expected) ** 2 / expected).sum()
    assert chi_square < 17.7, "the 99.95 % point of chi-square with 3 degrees"


def test_sample_sizes_follow_the_binomial() -> None:
    """Mistake 1, by chi-square over the sizes of 5000 samples of 6 users."""
    stream = seeded_stream(12, "sampling")
    sizes = [len(draw_users(6, 0.4, stream)) for _ in range(5000)]
    counts = np.bincount(sizes, minlength=7)
    binomial = [math.comb(6, k) * 0.4**k * 0.6 ** (6 - k) for k in range(7)]
    expected = 5000 * np.asarray(binomial)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < 24.1, "the 99.95 % point of chi-square with 6 degrees"


@pytest.mark.parametrize(
    ("noise", "clip", "rate", "declared"),
    [(1.0, 0.1, 0.5, 8), (0.5, 2.0, 0.01, 1), (4.0, 1.0, 1.0, 300)],
)
def test_noise_deviation_is_sigma_c_over_the_denominator(
    noise: float, clip: float, rate: float, declared: int
) -> None:
    mechanism = Mechanism(noise, clip, rate, declared)
    start = torch.cat([p.detach().flatten() for p in student().parameters()])
    moved = torch.cat([_noise(mechanism, seed) for seed in range(60)]).double()
    expected = noise * clip / (rate * declared)
    assert len(moved) >= 10_000
    # Parameters are float32: a movement cannot be finer than their own last bit.
    assert expected > 1e-4 * float(start.abs().max())
    assert float(moved.std()) == pytest.approx(expected, rel=0.03)


def test_noise_of_two_rounds_and_of_two_tensors_is_uncorrelated() -> None:
    """Mistake 9: the stream goes on from step to step and tensor to tensor."""
    model = student()
    private = steps(model, Mechanism(1.0, 1.0, 1.0, 1))
    drawn = []
    for _ in range(130):
        private.optimizer.privatise()
        drawn.append([p.grad.flatten().clone() for p in model.parameters()])
    whole = torch.stack([torch.cat(each) for each in drawn])
    lag = torch.stack([whole[:-1].flatten(), whole[1:].flatten()])
    encoder = torch.cat([each[0] for each in drawn])
    decoder = torch.cat([each[1] for each in drawn])
    assert min(lag.shape[1], len(encoder)) >= 10_000
    assert abs(float(torch.corrcoef(lag)[0, 1])) < 0.05
    assert abs(float(torch.corrcoef(torch.stack([encoder, decoder]))[0, 1])) < 0.05
