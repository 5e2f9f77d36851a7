"""Faults of ledger, streams and exit door, planted for tests; see ``planted.py``."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from unittest.mock import patch

from flwr.app import MetricRecord

import client.admission
import client.app
import client.dp
import client.evaluate
import client.randomness
import client.release
import client.statistics
import client.train
from client.randomness import RandomStream
from client.settings import read_settings, witness_place
from common.folders import LEDGER


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
