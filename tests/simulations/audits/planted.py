"""Faults planted into the product's code, in this process, while a block lasts.

Test-only: nothing in the product can switch them on. Each is a mistake that somebody
could make, and changes as little as that mistake would.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import torch

import client.admission
import client.app
import client.dp
import client.evaluate
import client.randomness
import client.release
import client.statistics
import client.train
import common.interactions
from client.dp import BookKeeping, NoisyOptimizer
from client.randomness import RandomStream
from tests.simulations.audits.planted_door import (
    another_question_under_one_nonce,
    budget_reset,
    charged_too_little,
    errors_speak,
    key_rides_along,
    metrics_let_through,
    one_stream_for_all_tensors,
    refunded,
    seeded_in_production,
    shared_stream,
)


@contextmanager
def noise_halved() -> Iterator[None]:
    original = RandomStream.normal
    with patch.object(RandomStream, "normal", lambda s, shape: original(s, shape) / 2):
        yield


@contextmanager
def layer_without_noise() -> Iterator[None]:
    """The bias alone."""
    original = NoisyOptimizer.add_noise

    def add_noise(self):
        bias = self.params[-1]
        bare = bias.summed_grad
        original(self)
        bias.grad = torch.zeros_like(bias) if bare is None else bare.clone()

    with patch.object(NoisyOptimizer, "add_noise", add_noise):
        yield


@contextmanager
def empty_batch_without_noise() -> Iterator[None]:
    original = NoisyOptimizer.add_noise

    def add_noise(self):
        original(self)
        if all(each.summed_grad is None for each in self.params):
            for each in self.params:
                each.grad = torch.zeros_like(each)

    with patch.object(NoisyOptimizer, "add_noise", add_noise):
        yield


@contextmanager
def metrics_noise_too_small() -> Iterator[None]:
    """Made for a user who adds 1, where one may add the root of three."""

    def noised(values, noise_multiplier, noise):
        drawn = noise.normal((values.shape[1],)).numpy() * noise_multiplier
        return (values.sum(axis=0) + drawn).astype(np.float32)

    with patch.object(client.evaluate, "noised", noised):
        yield


@contextmanager
def _coefficients(change: Callable) -> Iterator[None]:
    original = BookKeeping.set_sum
    with patch.object(
        BookKeeping, "set_sum", lambda self, clip: change(self, clip, original)
    ):
        yield


def no_clip():
    return _coefficients(lambda self, clip, sums: sums(self, torch.ones_like(clip)))


def layer_unclipped():
    """The encoder's gradients are added as they are."""

    def change(self, clip, sums):
        sums(self, torch.ones_like(clip))
        encoder, _ = _layers(self)
        bare = encoder.weight.grad
        sums(self, clip)
        encoder.weight.grad = bare

    return _coefficients(change)


def tied_tables():
    """One table for both layers: each layer's part is measured, both are added."""

    def change(self, clip, sums):
        sums(self, clip)
        encoder, decoder = _layers(self)
        tied = encoder.weight.grad + decoder.weight.grad.T
        encoder.weight.grad, decoder.weight.grad = tied, tied.T.clone()

    return _coefficients(change)


def _layers(steps):
    """Encoder and decoder."""
    return sorted(steps.kept, key=lambda each: each.bias is not None)


@contextmanager
def sketch_unclipped() -> Iterator[None]:
    def sketch_sum(histories, chosen, directions, noise_multiplier, noise):
        rows = histories[:, np.flatnonzero(chosen)].toarray().astype(np.float64)
        together = rows.T @ rows
        np.fill_diagonal(together, 0.0)
        total = together @ directions.astype(np.float64)
        return client.statistics._noised(total, noise_multiplier, noise)

    with patch.object(client.app, "sketch_sum", sketch_sum):
        yield


@contextmanager
def counts_unscaled() -> Iterator[None]:
    """Every user adds a one for each item, however many there are."""
    original = client.statistics.pair_sums

    def pair_sums(histories, chosen, share, noise_multiplier, noise):
        found = original(histories, chosen, share, noise_multiplier, noise)
        more = original(histories, chosen, share, 0.0, noise).counts
        ones = np.asarray(histories[:, np.flatnonzero(chosen)].sum(axis=0)).ravel()
        counts = (found.counts - more + ones).astype(np.float32)
        return replace(found, counts=counts)

    with patch.object(client.app, "pair_sums", pair_sums):
        yield


@contextmanager
def not_a_number() -> Iterator[None]:
    """Values instead of ones in the rows, and a NaN is no longer left out."""

    def matrix(self):
        from scipy.sparse import csr_matrix

        shape = (self.num_users, self.num_items)
        rows = csr_matrix((self.value, (self.user, self.item)), shape=shape)
        rows.sum_duplicates()
        return rows.astype(np.float32)

    ones = patch.object(torch, "isfinite", lambda x: torch.ones_like(x, dtype=bool))
    with ones, patch.object(common.interactions.Interactions, "matrix", matrix):
        yield


def _drawn(draw: Callable):
    return patch.object(client.train, "draw_users", draw)


def fixed_batches():
    """As many users in each step as are expected, whoever they are."""

    def draw(count, rate, stream):
        order = np.argsort(stream.uniform(count))
        return np.sort(order[: round(rate * count)])

    return _drawn(draw)


def shuffled():
    """Users pass by one after another, in a new order each time all have."""
    waiting: dict[int, list[int]] = {}

    def draw(count, rate, stream):
        queue = waiting.setdefault(count, [])
        batch = []
        for _ in range(round(rate * count)):
            if not queue:
                queue.extend(np.argsort(stream.uniform(count)).tolist())
            batch.append(queue.pop())
        return np.unique(np.array(batch, dtype=np.int64))

    return _drawn(draw)


def sampled_more():
    """A rate from how many batches there are: 1 / 1 where 0.5 is claimed."""
    original = client.train.draw_users

    def draw(count, rate, stream):
        return original(count, 1 / max(1, math.floor(1 / rate - 0.5)), stream)

    return _drawn(draw)


@contextmanager
def denominator_from_rows() -> Iterator[None]:
    """The mean over the users that there are."""
    original = client.train.train

    def train(student, histories, labels, config, mechanism, streams):
        own = replace(mechanism, declared_users=max(1, histories.shape[0]))
        return original(student, histories, labels, config, own, streams)

    with patch.object(client.train, "train", train):
        yield


@contextmanager
def noise_from_rows() -> Iterator[None]:
    """More noise where there are more users, in the sums of pairs."""
    original = client.app.pair_sums

    def pair_sums(histories, chosen, share, noise_multiplier, noise):
        more = noise_multiplier * math.sqrt(1 + histories.shape[0])
        return original(histories, chosen, share, more, noise)

    with patch.object(client.app, "pair_sums", pair_sums):
        yield


@contextmanager
def weighted_by_rows() -> Iterator[None]:
    """Users count more where there are more of them; the noise is as it was."""
    original = client.train.train

    def train(student, histories, labels, config, mechanism, streams):
        weight = histories.shape[0] / mechanism.declared_users
        with _coefficients(lambda self, clip, sums: sums(self, clip * weight)):
            return original(student, histories, labels, config, mechanism, streams)

    with patch.object(client.train, "train", train):
        yield


@contextmanager
def clipped_in_the_first_step_alone() -> Iterator[None]:
    original = client.dp.PrivateSteps.step

    def step(self, extra=None):
        original(self, extra)
        self.mechanism = replace(self.mechanism, max_grad_norm=1e9)

    with patch.object(client.dp.PrivateSteps, "step", step):
        yield


@contextmanager
def sum_of_the_step_before_stays() -> Iterator[None]:
    original = client.dp.PrivateSteps.step

    def step(self, extra=None):
        before = [each.summed_grad for each in self.optimizer.params]
        original(self, extra)
        for parameter, kept in zip(self.optimizer.params, before, strict=True):
            parameter.summed_grad = kept

    with patch.object(client.dp.PrivateSteps, "step", step):
        yield


def noise_bounded():
    """Of the right deviation, and uniform."""

    def normal(self, shape):
        uniform = torch.from_numpy(self.uniform(int(np.prod(shape))))
        return ((uniform - 0.5) * math.sqrt(12)).reshape(shape)

    return patch.object(RandomStream, "normal", normal)


@contextmanager
def some_numbers_without_noise() -> Iterator[None]:
    """One in twenty; so few that the noise as a whole is as long as claimed."""
    original = RandomStream.normal

    def normal(self, shape):
        found = original(self, shape)
        found.view(-1)[::20] = 0.0
        return found

    with patch.object(RandomStream, "normal", normal):
        yield


#: Fault → the check that catches it, and the run that it is planted in.
CAUGHT: dict[Callable, tuple[str, str]] = {
    noise_halved: ("noise", "sums"),
    layer_without_noise: ("noise", "rounds"),
    empty_batch_without_noise: ("noise", "rounds"),
    metrics_noise_too_small: ("noise", "everything"),
    no_clip: ("clip", "rounds"),
    layer_unclipped: ("clip", "rounds"),
    tied_tables: ("clip", "rounds"),
    sketch_unclipped: ("clip", "sums"),
    counts_unscaled: ("clip", "sums"),
    not_a_number: ("clip", "rounds"),
    weighted_by_rows: ("clip", "rounds"),
    clipped_in_the_first_step_alone: ("clip", "rounds"),
    sum_of_the_step_before_stays: ("clip", "rounds"),
    noise_bounded: ("shape", "sums"),
    some_numbers_without_noise: ("shape", "sums"),
    another_question_under_one_nonce: ("ledger", "sums"),
    fixed_batches: ("sampling", "rounds"),
    shuffled: ("sampling", "everything"),
    sampled_more: ("sampling", "rounds"),
    budget_reset: ("ledger", "sums"),
    refunded: ("ledger", "sums"),
    charged_too_little: ("ledger", "sums"),
    shared_stream: ("streams", "sums"),
    seeded_in_production: ("streams", "sums"),
    one_stream_for_all_tensors: ("streams", "rounds"),
    metrics_let_through: ("channels", "sums"),
    key_rides_along: ("channels", "sums"),
    errors_speak: ("channels", "sums"),
    denominator_from_rows: ("constants", "rounds"),
    noise_from_rows: ("constants", "sums"),
}
#: Those that take seconds, and are akin to others.
SLOW = (
    fixed_batches,
    clipped_in_the_first_step_alone,
    metrics_noise_too_small,
    not_a_number,
    shuffled,
    sampled_more,
)
