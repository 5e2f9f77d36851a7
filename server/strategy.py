"""One round as named phases: train → aggregate → validate → measure → refresh → record.

An explicit loop over Flower's message API rather than a subclass of its strategies:
an error reply costs one client's contribution, never the round, and a reply counts
only if it belongs to this run and round. The arithmetic is in ``aggregation.py``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from flwr.app import RecordDict
from flwr.serverapp import Grid

from common import wire
from common.config import RunConfig
from common.errors import ProtocolError
from common.interactions import FloatArray
from common.plan import releases
from common.soft_labels import SoftLabels
from common.statistics import (
    Chosen,
    pack_directions,
    pack_items,
    unpack_pairs,
    unpack_sketch,
)
from common.student import StateDict, StudentSpec, shapes
from server.aggregation import (
    AGGREGATORS,
    OptimiserState,
    mean_metrics,
    running_average,
    weighted_mean,
)
from server.messages import Exchange, Postbox
from server.records import Recorder, RoundRecord
from server.refinement import Summed
from server.safeguard import validate
from server.settings import PublicData

Reply = TypeVar("Reply")


class Tutor(Protocol):
    """Whoever gives the clients' soft labels (``teaching.py``)."""

    @property
    def labels(self) -> SoftLabels | None:
        """What clients distil from, if anything."""
        ...

    def refresh(self, student: StateDict) -> float | None:
        """Learn from a released student; the gain on public validation users."""
        ...


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
        config: RunConfig,
        spec: StudentSpec,
        public: PublicData,
        postbox: Postbox,
        recorder: Recorder,
    ) -> None:
        self.grid, self.config, self.spec = grid, config, spec
        self.public, self.postbox, self.recorder = public, postbox, recorder

    def rounds(
        self, student: StateDict, tutor: Tutor, epsilons: Sequence[float]
    ) -> Iterator[Progress]:
        """Run every round; yields the progress after each.

        Args:
            student: where the clients start.
            tutor: gives the soft labels, and learns from the released students.
            epsilons: ε spent by a client after each round, for the record.
        """
        progress = Progress(student)
        for number in range(1, self.config.training.rounds + 1):
            record = RoundRecord(number, epsilons[number - 1])
            with self._phase(record, "train"):
                updates, num_clients = self._train(
                    number, progress.student, tutor.labels, record
                )
            with self._phase(record, "aggregate"):
                self._aggregate(progress, updates, number)
            with self._phase(record, "validate"):
                record.validation = self._validate(progress)
            every = self.config.client_metrics.every
            if every and number % every == 0:
                with self._phase(record, "measure"):
                    record.client_metrics = self._measure(number, progress.released)
            every = self.config.refresh.every
            if every and number % every == 0:
                with self._phase(record, "refresh"):
                    record.teacher_gain = tutor.refresh(progress.released)
            record.survivors, record.num_clients = len(updates), num_clients
            self.recorder.round(record)
            self._keep(progress, number)
            yield progress

    def pairs(self, chosen: Chosen) -> Summed:
        """Ask every client, once, for its noised counts and pairs of items.

        Args:
            chosen: the items that count, bool ``[n]``; public.

        Raises:
            ProtocolError: if no client answered.
        """
        content = RecordDict({wire.ITEMS: pack_items(chosen)})
        answers = self._statistics(
            wire.STATISTICS,
            content,
            partial(unpack_pairs, num_chosen=int(chosen.sum())),
        )
        arrays = ([each.counts for each in answers], [each.pairs for each in answers])
        return Summed(tuple(map(_total, arrays)), len(answers))

    def sketch(self, chosen: Chosen, directions: FloatArray) -> Summed:
        """Ask every client, once, for its noised pairs along some directions.

        Args:
            chosen: as in :meth:`pairs`.
            directions: float32 ``[m, q]``.

        Raises:
            ProtocolError: if no client answered.
        """
        content = RecordDict(
            {
                wire.ITEMS: pack_items(chosen),
                wire.DIRECTIONS: pack_directions(directions),
            }
        )
        num_chosen, num_directions = directions.shape
        unpack = partial(
            unpack_sketch, num_chosen=num_chosen, num_directions=num_directions
        )
        answers = self._statistics(wire.SKETCH, content, unpack)
        return Summed((_total(answers),), len(answers))

    def _statistics(
        self, kind: str, content: RecordDict, unpack: Callable[[RecordDict], Reply]
    ) -> list[Reply]:
        self.recorder.phase(1, kind.partition(".")[2])
        nodes = self._nodes()
        exchange = self.postbox.ask(kind, 1, content, nodes)
        answers = list(self._unpacked(exchange, 1, unpack))
        if not answers:
            raise ProtocolError("Every client failed or refused its statistics.")
        self.recorder.statistics(
            len(answers), len(nodes), exchange.bytes_down, exchange.bytes_up
        )
        return answers

    def deliver(self, student: StateDict) -> int:
        """Send the final student to every client, those out of budget included.

        Returns:
            How many took it.
        """
        number = max(1, self.config.training.rounds)
        content = RecordDict({wire.STUDENT: wire.pack_state(student)})
        nodes = self._nodes()
        exchange = self.postbox.ask(wire.DELIVER, number, content, nodes)
        self.recorder.delivery(len(exchange.replies), len(nodes))
        return len(exchange.replies)

    @contextmanager
    def _phase(self, record: RoundRecord, name: str) -> Iterator[None]:
        self.recorder.phase(record.round, name)
        start = time.perf_counter()
        yield
        record.seconds[name] = time.perf_counter() - start

    def _train(
        self,
        number: int,
        student: StateDict,
        labels: SoftLabels | None,
        record: RoundRecord,
    ) -> tuple[list[StateDict], int]:
        content = RecordDict({wire.STUDENT: wire.pack_state(student)})
        if labels is not None:
            content[wire.SOFT_LABELS] = wire.pack_soft_labels(labels)
        nodes = self._nodes()
        exchange = self.postbox.ask(wire.TRAIN, number, content, nodes)
        record.bytes_down_per_client = exchange.bytes_down
        record.bytes_up_per_client = exchange.bytes_up
        unpack = partial(
            wire.unpack_state, record=wire.UPDATE, shapes=shapes(self.spec)
        )
        return list(self._unpacked(exchange, number, unpack)), len(nodes)

    def _measure(self, number: int, student: StateDict) -> dict[str, float] | None:
        content = RecordDict({wire.STUDENT: wire.pack_state(student)})
        exchange = self.postbox.ask(wire.EVALUATE, number, content, self._nodes())
        sums = list(self._unpacked(exchange, number, wire.unpack_sums))
        noise = releases(self.config, 0.0, number)[wire.EVALUATE].noise_multiplier
        return mean_metrics(sums, noise) if sums else None

    def _nodes(self) -> list[int]:
        """The grid's nodes; right after a start it may take them a moment."""
        deadline = time.monotonic() + min(30.0, self.config.run.round_timeout)
        while not (nodes := sorted(self.grid.get_node_ids())):
            if time.monotonic() > deadline:
                raise ProtocolError("Expected at least one connected client, got none.")
            time.sleep(0.2)
        return nodes

    def _unpacked(
        self, exchange: Exchange, number: int, unpack: Callable[[RecordDict], Reply]
    ) -> Iterator[Reply]:
        """What each reply holds; one that does not fit costs itself alone."""
        for content in exchange.replies:
            try:
                yield unpack(content)
            except ProtocolError as error:
                self.recorder.refusal(number, str(error))

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


def _total(parts: Sequence[FloatArray]) -> npt.NDArray[np.float64]:
    """In double precision: the order in which replies came leaves no trace."""
    total: npt.NDArray[np.float64] = np.sum(
        [each.astype(np.float64) for each in parts], axis=0
    )
    return total
