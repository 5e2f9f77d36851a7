"""One round as named phases: train → aggregate → validate → measure → refresh → keep.

An explicit loop over Flower's message API rather than a subclass of its strategies:
an error reply costs one client's contribution, never the round, and a reply counts
only if it belongs to this run and round. The arithmetic is in ``aggregation.py``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from flwr.app import RecordDict
from flwr.serverapp import Grid

from common import wire
from common.config import RunConfig
from common.errors import ProtocolError, RoundFailed
from common.interactions import FloatArray
from common.plan import releases
from common.soft_labels import SoftLabels
from common.statistics import (
    Chosen,
    pack_directions,
    pack_items,
)
from common.student import StateDict, StudentSpec, shapes
from server.aggregation import (
    AGGREGATORS,
    combined,
    mean_metrics,
    running_average,
)
from server.answers import Answers
from server.bounds import bounds_of
from server.kept_answers import KeptAnswers
from server.messages import Exchange, Postbox, content_digest
from server.records import Recorder, RoundRecord
from server.refinement import Summed
from server.robust import fewest
from server.round_checkpoint import ENDED, TRAINED, Checkpoint, Progress
from server.safeguard import validate
from server.secure_rounds import SecureRounds
from server.settings import PublicData
from server.taste import Float
from server.totals import total, total_pairs

Reply = TypeVar("Reply")
#: Writes a checkpoint.
Keep = Callable[[Checkpoint], None]


class Tutor(Protocol):
    """Whoever gives the clients' soft labels (``teaching.py``)."""

    @property
    def labels(self) -> SoftLabels | None:
        """What clients distil from, if anything."""
        ...

    def refresh(self, student: StateDict) -> float | None:
        """Learn from a released student; the gain on public validation users."""
        ...


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
        answers: Answers,
        kept: KeptAnswers | None = None,
        secure: SecureRounds | None = None,
    ) -> None:
        """With ``kept``, all that is asked and answered is kept for an audit.

        With ``secure``, the server sees no update but their sum.
        """
        self.grid, self.config, self.spec = grid, config, spec
        self.public, self.postbox, self.recorder = public, postbox, recorder
        self.answers, self.kept, self._begun = answers, kept, False
        self.secure = secure

    def rounds(
        self,
        start: StateDict,
        tutor: Tutor,
        epsilons: Sequence[float],
        keep: Keep,
        resumed: Checkpoint | None = None,
    ) -> Iterator[Progress]:
        """Run every round that is left; yields the progress after each.

        Args:
            start: the student that the clients start from.
            tutor: gives the soft labels, and learns from the released students.
            epsilons: ε spent by a client after each round, for the record.
            keep: writes a checkpoint; twice a round, and once before the first.
            resumed: where to go on, if not at the start.

        Raises:
            RoundFailed: if too few clients are connected or give a valid reply; the
                last checkpoint stands.
        """
        point = resumed or Checkpoint.before_the_first(start)
        if resumed is None:
            keep(point)
        elif point.stage == ENDED and point.round:
            # The line that was to follow the checkpoint may be missing.
            self.recorder.round(point.record)
        self.answers.forget()
        while point.stage == TRAINED or point.round < self.config.training.rounds:
            if point.stage == ENDED:
                point = self._trained(point, tutor, epsilons[point.round])
                self._kept(point, keep)
            point = self._ended(point, tutor)
            self._kept(point, keep)
            self.recorder.round(point.record)
            yield point.progress

    def pairs(self, chosen: Chosen) -> Summed:
        """Ask every client, once, for its noised counts and pairs of items.

        Args:
            chosen: the items that count, bool ``[n]``; public.

        Raises:
            RoundFailed: if too few clients answered.
        """
        content = RecordDict({wire.ITEMS: pack_items(chosen)})
        num_chosen = int(chosen.sum())
        unpack = partial(bounds_of(self.config).pairs_of, num_chosen=num_chosen)
        add = partial(total_pairs, settings=self.config.aggregation)
        return self._statistics(wire.STATISTICS, content, unpack, add)

    def sketch(self, chosen: Chosen, directions: FloatArray) -> Summed:
        """Ask every client, once, for its noised pairs along some directions.

        Args:
            chosen: as in :meth:`pairs`.
            directions: float32 ``[m, q]``.

        Raises:
            RoundFailed: if too few clients answered.
        """
        content = RecordDict(
            {
                wire.ITEMS: pack_items(chosen),
                wire.DIRECTIONS: pack_directions(directions),
            }
        )
        num_chosen, num_directions = directions.shape
        unpack = partial(
            bounds_of(self.config).sketch_of,
            num_chosen=num_chosen,
            num_directions=num_directions,
        )
        settings = self.config.aggregation
        return self._statistics(
            wire.SKETCH, content, unpack, lambda answers: (total(answers, settings),)
        )

    def _statistics(
        self,
        kind: str,
        content: RecordDict,
        unpack: Callable[[RecordDict], Reply],
        total: Callable[[list[Reply]], tuple[Float, ...]],
    ) -> Summed:
        """The clients' answers, added; those kept, if this was asked before."""
        digest = content_digest(content)
        found = self.answers.kept(kind, digest)
        if found is None:
            self.recorder.phase(1, kind.partition(".")[2])
            answers, facts = self._ask_statistics(kind, content, unpack)
            found = Summed(total(answers), len(answers)), facts
            self.answers.keep(kind, digest, *found)
        answer, facts = found
        self.recorder.statistics("sketch" if kind == wire.SKETCH else "pairs", facts)
        return answer

    def _ask_statistics(
        self, kind: str, content: RecordDict, unpack: Callable[[RecordDict], Reply]
    ) -> tuple[list[Reply], dict[str, Any]]:
        nodes = self._nodes()
        exchange = self._ask(kind, 1, content, nodes)
        answers = list(self._unpacked(kind, exchange, 1, unpack))
        self._check_enough(1, len(answers), len(nodes))
        facts = {
            "survivors": len(answers),
            "num_clients": len(nodes),
            "bytes_down_per_client": exchange.bytes_down,
            "bytes_up_per_client": exchange.bytes_up,
        }
        return answers, facts

    def deliver(self, student: StateDict) -> int:
        """Send the final student to every client, those out of budget included.

        Returns:
            How many took it.
        """
        number = max(1, self.config.training.rounds)
        content = RecordDict({wire.STUDENT: wire.pack_state(student)})
        nodes = self._nodes()
        exchange = self._ask(wire.DELIVER, number, content, nodes)
        self.recorder.delivery(len(exchange.replies), len(nodes))
        return len(exchange.replies)

    @contextmanager
    def _phase(self, record: RoundRecord, name: str) -> Iterator[None]:
        self.recorder.phase(record.round, name)
        with record.timed(name):
            yield

    def _kept(self, point: Checkpoint, keep: Keep) -> None:
        with point.record.timed("checkpoint"):
            keep(point)

    def _trained(self, point: Checkpoint, tutor: Tutor, epsilon: float) -> Checkpoint:
        """The round after this point, as far as the updates are in the student."""
        record = RoundRecord(point.round + 1, epsilon)
        if self.secure is not None:
            progress = self._summed(self.secure, point.progress, tutor.labels, record)
            return Checkpoint(record.round, TRAINED, point.start, progress, record)
        exchange = self._train(point.progress.student, tutor.labels, record)
        with self._phase(record, "aggregate"):
            unpack = partial(
                wire.unpack_state, record=wire.UPDATE, shapes=shapes(self.spec)
            )
            number = record.round
            updates = list(self._unpacked(wire.TRAIN, exchange, number, unpack))
            record.survivors = len(updates)
            self._check_enough(record.round, record.survivors, record.num_clients)
            progress = self._aggregated(point.progress, updates, record.round)
        return Checkpoint(record.round, TRAINED, point.start, progress, record)

    def _summed(
        self,
        secure: SecureRounds,
        progress: Progress,
        labels: SoftLabels | None,
        record: RoundRecord,
    ) -> Progress:
        """The progress after a secure sum; the same as before if it was discarded."""
        mean = secure.mean(progress.student, labels, self._nodes(), record)
        if mean is None:
            return progress
        with self._phase(record, "aggregate"):
            return self._moved(progress, mean, record.round)

    def _ended(self, point: Checkpoint, tutor: Tutor) -> Checkpoint:
        """The same round to its end: what its student is worth, and teaches."""
        progress, record, number = point.progress, point.record, point.round
        with self._phase(record, "validate"):
            record.validation = self._validate(progress)
        if _is_due(self.config.client_metrics.every, number):
            with self._phase(record, "measure"):
                record.client_metrics = self._measure(number, progress.released)
        if _is_due(self.config.refresh.every, number):
            with self._phase(record, "refresh"):
                record.teacher_gain = tutor.refresh(progress.released)
        if _is_due(self.config.run.keep_every, number):
            self.recorder.keep(number, self.spec, progress.released)
        return Checkpoint(number, ENDED, point.start, progress, record)

    def _train(
        self, student: StateDict, labels: SoftLabels | None, record: RoundRecord
    ) -> Exchange:
        self.recorder.phase(record.round, "train")
        begun = time.perf_counter()
        content = RecordDict({wire.STUDENT: wire.pack_state(student)})
        if labels is not None:
            content[wire.SOFT_LABELS] = wire.pack_soft_labels(labels)
        nodes = self._nodes()
        exchange = self._ask(wire.TRAIN, record.round, content, nodes)
        record.seconds["send"] = time.perf_counter() - begun - exchange.wait
        record.seconds["wait"] = exchange.wait
        record.bytes_down_per_client = exchange.bytes_down
        record.bytes_up_per_client = exchange.bytes_up
        record.num_clients = len(nodes)
        return exchange

    def _measure(self, number: int, student: StateDict) -> dict[str, float] | None:
        content = RecordDict({wire.STUDENT: wire.pack_state(student)})
        exchange = self._ask(wire.EVALUATE, number, content, self._nodes())
        unpack = wire.unpack_sums
        sums = list(self._unpacked(wire.EVALUATE, exchange, number, unpack))
        noise = releases(self.config, 0.0, number)[wire.EVALUATE].noise_multiplier
        return mean_metrics(sums, noise) if sums else None

    def _nodes(self) -> list[int]:
        """The grid's nodes; a run begins with enough of them, or waits a while."""
        pace = self.config.run
        needed = max(pace.min_clients, fewest(self.config.aggregation))
        if self.secure is not None:
            needed = max(needed, self.config.secagg.least)
        least = 1 if self._begun else needed
        deadline = time.monotonic() + pace.start_timeout
        while len(nodes := sorted(self.grid.get_node_ids())) < least:
            if time.monotonic() > deadline:
                raise RoundFailed(
                    f"Expected at least {least} connected client(s) within "
                    f"{pace.start_timeout:g} seconds (run.min-clients, what "
                    "aggregation.robust or secagg.threshold needs, "
                    f"run.start-timeout), got {len(nodes)}."
                )
            time.sleep(pace.poll_interval)
        self._begun = True
        return nodes

    def _check_enough(self, number: int, came: int, asked: int) -> None:
        least = self.config.run.min_replies
        if came >= least:
            return
        found = (
            f"expected at least {least} valid replies (run.min-replies), got {came} "
            f"from {asked} clients"
            if came
            else "every client failed or refused"
        )
        raise RoundFailed(
            f"Round {number}: {found}; see metrics.jsonl for their replies. The run "
            "can be resumed: it asks the same again, and nobody is charged twice."
        )

    def _ask(
        self, kind: str, number: int, content: RecordDict, nodes: list[int]
    ) -> Exchange:
        if self.kept is not None:
            self.kept.asked(kind, number, content)
        return self.postbox.ask(kind, number, content, nodes)

    def _unpacked(
        self,
        kind: str,
        exchange: Exchange,
        number: int,
        unpack: Callable[[RecordDict], Reply],
    ) -> Iterator[Reply]:
        """What each reply holds; one that does not fit costs itself alone."""
        for node, content in zip(exchange.nodes, exchange.replies, strict=True):
            try:
                found = unpack(content)
            except ProtocolError as error:
                self.recorder.refusal(number, str(error))
                continue
            if self.kept is not None:
                self.kept.answered(kind, number, node, content)
            yield found

    def _aggregated(
        self, progress: Progress, updates: list[StateDict], number: int
    ) -> Progress:
        settings = self.config.aggregation
        # Every client of a run declares the same size, so both weightings agree
        # until clients declare their own.
        size = self.config.privacy.declared_users
        weight = float(size) if settings.weights == "declared" else 1.0
        update = combined(updates, [weight] * len(updates), settings)
        return self._moved(progress, update, number)

    def _moved(self, progress: Progress, update: StateDict, number: int) -> Progress:
        """The progress after the round's one update."""
        settings = self.config.aggregation
        aggregate = AGGREGATORS[settings.name]
        student, optimiser = aggregate(
            progress.student, update, progress.optimiser, settings
        )
        if number <= settings.average_from * self.config.training.rounds:
            return replace(progress, student=student, optimiser=optimiser)
        count = progress.num_averaged + 1
        average = running_average(progress.average or student, student, count)
        return Progress(student, optimiser, average, count)

    def _validate(self, progress: Progress) -> float | None:
        value = validate(
            progress.released, self.spec, self.public.shown, self.public.held
        )
        return None if math.isnan(value) else value


def _is_due(every: int, number: int) -> bool:
    return every > 0 and number % every == 0
