"""Faults planted into the product's code, in this process, while a block lasts.

Test-only: nothing in the product can switch them on. Each is a mistake that somebody
could make, and changes as little as that mistake would.
"""

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import torch
from flwr.app import MetricRecord

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
from client.settings import read_settings, witness_place
from common.folders import LEDGER


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
def budget_reset() -> Iterator[None]:
    """Each message finds an empty ledger."""
    original = client.release.open_ledger

    def open_ledger(folder, place):
        for path in (*folder.glob(f"{LEDGER}*"), place):
            path.unlink(missing_ok=True)
        return original(folder, place)

    with patch.object(client.release, "open_ledger", open_ledger):
        yield


@contextmanager
def refunded() -> Iterator[None]:
    """A client that fails takes its charge back."""
    original = client.release._answer

    def answer(ticket, message, run_app):
        try:
            return original(ticket, message, run_app)
        except Exception:
            _forget_last(ticket.request.folder)
            raise

    with patch.object(client.release, "_answer", answer):
        yield


def _forget_last(folder) -> None:
    with closing(sqlite3.connect(folder / LEDGER)) as connection:
        connection.execute("DROP TRIGGER entries_remain")
        last = "(SELECT max(sequence) FROM entries)"
        connection.execute(f"DELETE FROM entries WHERE sequence = {last}")
        connection.commit()
    witness_place(folder, read_settings(folder)).unlink()


@contextmanager
def charged_too_little() -> Iterator[None]:
    """The ledger says twice the noise."""
    original = client.release.Ledger.append

    def append(self, charge):
        event = replace(
            charge.event, noise_multiplier=2 * charge.event.noise_multiplier
        )
        return original(self, replace(charge, event=event))

    with patch.object(client.release.Ledger, "append", append):
        yield


def shared_stream():
    """One key for all clients, rounds and purposes."""
    fixed = lambda message, context: lambda purpose: RandomStream(bytes(32))  # noqa: E731
    return patch.object(client.app, "_streams", fixed)


@contextmanager
def seeded_in_production() -> Iterator[None]:
    """Each client, message and purpose has its stream, and everybody can make it."""
    original = client.app.stream
    with patch.object(
        client.app, "stream", lambda seed, *labels: original(seed or 0, *labels)
    ):
        yield


@contextmanager
def one_stream_for_all_tensors() -> Iterator[None]:
    """Each array's noise starts from the beginning of a message's stream."""
    original = RandomStream.normal
    made = RandomStream.__init__

    def init(self, key):
        self.own_key = key
        made(self, key)

    def normal(self, shape):
        return original(RandomStream(self.own_key), shape)

    with (
        patch.object(RandomStream, "__init__", init),
        patch.object(RandomStream, "normal", normal),
    ):
        yield


@contextmanager
def _replies(change: Callable) -> Iterator[None]:
    original = client.release._reply

    def reply(ticket, record):
        content = original(ticket, record)
        change(content)
        return content

    with patch.object(client.release, "_reply", reply):
        yield


def metrics_let_through():
    """As Flower's own strategies ask for: examples and a loss, beside the update."""
    found = MetricRecord({"num-examples": 4, "loss": 0.3})
    return _replies(lambda content: content.update({"num_examples": found}))


def key_rides_along():
    """A private number in the header, where nobody looks."""
    return _replies(
        lambda content: content.config_records["round"].update({"users": 4})
    )


@contextmanager
def errors_speak() -> Iterator[None]:
    """What went wrong is sent, as Flower does where nothing stops it."""
    original = client.release._answer

    def answer(ticket, message, run_app):
        try:
            return original(ticket, message, run_app)
        except Exception as error:
            client.release.FAILED = str(error)
            raise

    before = client.release.FAILED
    with patch.object(client.release, "_answer", answer):
        try:
            yield
        finally:
            client.release.FAILED = before


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


@contextmanager
def another_question_under_one_nonce() -> Iterator[None]:
    """What was paid for once is worked out again if the message is another."""
    original, seen = client.release._answer, {}

    def answer(ticket, message, run_app):
        records = message.content.array_records.values()
        asked = [array.data for record in records for array in record.values()]
        key = (ticket.request.folder, ticket.entry.hash)
        if ticket.again and seen[key] != asked:
            return client.release._reply(
                ticket, client.release._allowed(ticket.request, message, run_app())
            )
        seen[key] = asked
        return original(ticket, message, run_app)

    with patch.object(client.release, "_answer", answer):
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
    clipped_in_the_first_step_alone,
    metrics_noise_too_small,
    not_a_number,
    shuffled,
    sampled_more,
)
