"""One round as named phases: train → aggregate → validate → record.

An explicit loop over Flower's message API rather than a subclass of its strategies:
an error reply costs one client's contribution, never the round, and a reply counts
only if it belongs to this run and round. The arithmetic is in ``aggregation.py``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from common import wire
from common.config import RunConfig
from common.errors import ProtocolError
from common.soft_labels import SoftLabels
from common.student import StateDict, StudentSpec, shapes
from server.aggregation import (
    AGGREGATORS,
    OptimiserState,
    running_average,
    weighted_mean,
)
from server.records import Recorder, RoundRecord
from server.safeguard import validate
from server.settings import PublicData

TRAIN = "train"


@dataclass
class Progress:
    """What changes from round to round; the only state of a federation."""

    student: StateDict
    optimiser: OptimiserState = field(default_factory=OptimiserState)
    average: StateDict = field(default_factory=dict)
    num_averaged: int = 0

    @property
    def released(self) -> StateDict:
        """The averaged iterate once averaging began, before it the latest."""
        return self.average or self.student


class Federation:
    """A run's rounds over a Flower grid."""

    def __init__(
        self,
        grid: Grid,
        run_id: str,
        config: RunConfig,
        spec: StudentSpec,
        public: PublicData,
        labels: SoftLabels | None,
        recorder: Recorder,
    ) -> None:
        self.grid, self.run_id, self.config = grid, run_id, config
        self.spec, self.public, self.recorder = spec, public, recorder
        self.labels = None if labels is None else wire.pack_soft_labels(labels)

    def rounds(
        self, student: StateDict, epsilons: Sequence[float]
    ) -> Iterator[Progress]:
        """Run every round; yields the progress after each.

        Args:
            student: where the clients start.
            epsilons: ε spent by a client after each round, for the record.
        """
        progress = Progress(student)
        for number in range(1, self.config.training.rounds + 1):
            record = RoundRecord(number, epsilons[number - 1])
            with self._phase(record, "train"):
                updates, num_clients = self._train(number, progress.student, record)
            with self._phase(record, "aggregate"):
                self._aggregate(progress, updates, number)
            with self._phase(record, "validate"):
                record.validation = self._validate(progress)
            record.survivors, record.num_clients = len(updates), num_clients
            self.recorder.round(record)
            self._keep(progress, number)
            yield progress

    @contextmanager
    def _phase(self, record: RoundRecord, name: str) -> Iterator[None]:
        self.recorder.phase(record.round, name)
        start = time.perf_counter()
        yield
        record.seconds[name] = time.perf_counter() - start

    def _train(
        self, number: int, student: StateDict, record: RoundRecord
    ) -> tuple[list[StateDict], int]:
        nodes = sorted(self._nodes())
        content = self._instructions(number, student)
        record.bytes_down_per_client = wire.num_bytes(content)
        timeout = self.config.run.round_timeout
        messages = [
            Message(content, node, TRAIN, ttl=timeout, group_id=str(number))
            for node in nodes
        ]
        replies = self.grid.send_and_receive(messages, timeout=timeout)
        return list(self._updates(replies, number, record)), len(nodes)

    def _nodes(self) -> list[int]:
        """The grid's nodes; right after a start it may take them a moment."""
        deadline = time.monotonic() + min(30.0, self.config.run.round_timeout)
        while not (nodes := list(self.grid.get_node_ids())):
            if time.monotonic() > deadline:
                raise ProtocolError("Expected at least one connected client, got none.")
            time.sleep(0.2)
        return nodes

    def _instructions(self, number: int, student: StateDict) -> RecordDict:
        header = wire.RoundHeader(self.run_id, number, self.public.catalogue.digest)
        content = RecordDict(
            {
                wire.ROUND: wire.pack_header(header),
                wire.STUDENT: wire.pack_state(student),
            }
        )
        if self.labels is not None:
            content[wire.SOFT_LABELS] = self.labels
        return content

    def _updates(
        self, replies: Iterable[Message], number: int, record: RoundRecord
    ) -> Iterator[StateDict]:
        # Replies arrive in any order; a fixed one makes the record repeatable.
        for reply in sorted(replies, key=lambda reply: reply.metadata.src_node_id):
            if reply.has_error():
                self.recorder.refusal(number, reply.error.reason or "no reason given")
                continue
            try:
                self._check_round(reply, number)
                update = wire.unpack_state(
                    reply.content, wire.UPDATE, shapes(self.spec)
                )
            except ProtocolError as error:
                self.recorder.refusal(number, str(error))
                continue
            size = wire.num_bytes(reply.content)
            record.bytes_up_per_client = max(record.bytes_up_per_client, size)
            yield update

    def _check_round(self, reply: Message, number: int) -> None:
        header = wire.unpack_header(reply.content)
        if (header.run, header.number) != (self.run_id, number):
            raise ProtocolError(
                f"Expected a reply of round {number} of this run, got another's."
            )

    def _aggregate(
        self, progress: Progress, updates: list[StateDict], number: int
    ) -> None:
        if not updates:
            raise ProtocolError(
                f"Round {number}: every client failed or refused; see "
                "metrics.jsonl for their replies."
            )
        settings = self.config.aggregation
        # Every client of a run declares the same size, so both weightings agree
        # until clients declare their own.
        size = self.config.privacy.declared_users
        weight = float(size) if settings.weights == "declared" else 1.0
        update = weighted_mean(updates, [weight] * len(updates))
        aggregate = AGGREGATORS[settings.name]
        progress.student, progress.optimiser = aggregate(
            progress.student, update, progress.optimiser, settings
        )
        if number > settings.average_from * self.config.training.rounds:
            progress.num_averaged += 1
            progress.average = running_average(
                progress.average or progress.student,
                progress.student,
                progress.num_averaged,
            )

    def _validate(self, progress: Progress) -> float | None:
        value = validate(
            progress.released, self.spec, self.public.shown, self.public.held
        )
        return None if math.isnan(value) else value

    def _keep(self, progress: Progress, number: int) -> None:
        every = self.config.run.keep_every
        if every and number % every == 0:
            self.recorder.keep(number, self.spec, progress.released)
