"""Mode ``distributed`` on the server: one secure sum a round, or the round discarded.

Server only. It asks every connected client, up to ``secagg.clients``, step by step;
each step has ``run.round-timeout``. A client that falls silent, refuses or lies costs
itself alone. Where fewer are left than the noise was planned for, nothing is unmasked:
the student stays as it was, ledgers stay charged, and the next round begins. Masked
vectors are added as they come and not kept.

Soft labels stay here. Their gradient touches no private row, so it must not share the
clip and the noise with what does; where the server sees no update of a client's own, it
takes those steps itself and adds them to the decoded mean, as it would have been had
every client taken them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict

from common import wire
from common.config import RunConfig
from common.distillation import distillation_loss
from common.errors import RoundFailed
from common.fixed_point import Float, decode
from common.secure_round import (
    SecureRound,
    num_parameters,
    secure_round,
    update_of,
)
from common.soft_labels import SoftLabels
from common.student import StateDict, StudentSpec, build, shapes
from server.kept_answers import KeptAnswers
from server.messages import Counts, Postbox
from server.records import Recorder, RoundRecord
from server.secagg import SecureSum

#: So many rounds in a row may be discarded; with one more the run stops.
MOST_DISCARDED = 5

#: What takes a node's message into the sum.
Take = Callable[[int, bytes], None]


@dataclass
class SumRecord:
    """The facts of one round's sum.

    Attributes:
        least: survivors below which the round is discarded.
        bits: of an integer of the sum.
        steps: by step, how many were asked and how many answers were taken.
        wrong_shares: shares that were left out.
        reason: why the round was discarded; "" if it was not.
    """

    least: int
    bits: int
    steps: dict[str, list[int]] = field(default_factory=dict)
    wrong_shares: int = 0
    reason: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """As a line of the record has them."""
        found = asdict(self)
        if not self.reason:
            del found["reason"]
        return found


class SecureRounds:
    """A run's secure sums; its only state is how many in a row were discarded.

    Args:
        roster: identities that may take part, where ``secagg.roster`` asks for one.
        kept: keeps every sum for an audit, if anything is to be kept.
    """

    def __init__(
        self,
        postbox: Postbox,
        config: RunConfig,
        spec: StudentSpec,
        recorder: Recorder,
        roster: frozenset[bytes] | None = None,
        kept: KeptAnswers | None = None,
    ) -> None:
        self._kept = kept
        self._postbox, self._config, self._spec = postbox, config, spec
        self._recorder, self._roster = recorder, roster
        self._dim = num_parameters(shapes(spec).values())
        self._discarded = 0

    def mean(
        self,
        student: StateDict,
        labels: SoftLabels | None,
        nodes: Sequence[int],
        record: RoundRecord,
    ) -> StateDict | None:
        """The mean update of a round, ``None`` if it was discarded.

        Args:
            student: that the round starts from.
            labels: what it distils from, if anything.
            nodes: who is connected.
            record: of this round, to be filled.

        Raises:
            RoundFailed: after ``MOST_DISCARDED`` discarded rounds in a row.
        """
        number = record.round
        found = secure_round(self._config, self._dim, self._postbox.run, number)
        facts = SumRecord(found.plan.least, found.plan.bits)
        try:
            self._check_new(number)
            chosen = self._chosen(nodes, number)
            record.num_clients = len(chosen)
            mean = self._sum(found, student, chosen, record, facts)
        except RoundFailed as failure:
            self._discard(number, facts, str(failure))
            return None
        self._discarded = 0
        self._recorder.secure_sum(number, facts.facts)
        update = update_of(mean, self._spec)
        if labels is None or self._config.distillation.weight == 0:
            return update
        with self._phase(record, "distil"):
            public = distilled(student, labels, self._config, self._spec)
        return {name: update[name] + public[name] for name in update}

    def _check_new(self, number: int) -> None:
        if self._postbox.asked_before(wire.ADVERTS, number):
            raise RoundFailed(
                "The run was interrupted in this round, whose clients answer each "
                "step once."
            )

    def _chosen(self, nodes: Sequence[int], number: int) -> list[int]:
        """All, or as many as the sum is planned for, by lot.

        Who takes part is no secret: who of them is in the sample, their coins say.
        """
        secagg = self._config.secagg
        if len(nodes) < secagg.least:
            raise RoundFailed(
                f"Expected {secagg.least} connected clients or more, got {len(nodes)}."
            )
        seed = self._config.run.seed
        lot = np.random.default_rng((seed, number) if seed >= 0 else None)
        size = min(len(nodes), secagg.clients)
        # By place: a node's id may be no number of NumPy's.
        places = lot.choice(len(nodes), size, replace=False)
        ordered = sorted(nodes)
        return [ordered[place] for place in sorted(places.tolist())]

    def _sum(
        self,
        found: SecureRound,
        student: StateDict,
        nodes: Sequence[int],
        record: RoundRecord,
        facts: SumRecord,
    ) -> Float:
        """All steps; the decoded sum over the expected size of the sample."""
        sum_ = SecureSum(found.terms, self._roster)
        asks = _Asking(self._postbox, self._recorder, record, facts)
        asks.step(wire.ADVERTS, dict.fromkeys(nodes, b""), sum_.add_advert)
        asks.step(wire.SHARES, sum_.to_share(), sum_.add_shares)
        down = RecordDict({wire.STUDENT: wire.pack_state(student)})
        asks.step(wire.MASKED, sum_.to_mask(), sum_.add_masked, down)
        to_confirm = sum_.to_confirm()
        if found.terms.policy.active:
            asks.step(wire.CONFIRM, to_confirm, sum_.add_confirmation)
        asks.step(wire.REVEAL, sum_.to_reveal(), sum_.add_reveal)
        with self._phase(record, "unmask"):
            total = sum_.result()
            facts.wrong_shares = sum_.wrong_shares
            record.survivors = len(total.survivors)
            signed = found.terms.ring.decode(total.values)
            summed = decode(signed, found.plan.grid, found.seed)
        mean: Float = summed / found.plan.expected
        if self._kept is not None:
            own = update_of(mean, self._spec)
            self._kept.summed(record.round, student, own, total.survivors)
        return mean

    def _discard(self, number: int, facts: SumRecord, reason: str) -> None:
        facts.reason = reason
        self._discarded += 1
        self._recorder.discarded(number, facts.facts)
        if self._discarded > MOST_DISCARDED:
            raise RoundFailed(
                f"Round {number} is the {self._discarded}th in a row to be discarded: "
                f"{reason} See metrics.jsonl for the clients' replies. The run can be "
                "resumed once that is mended."
            )

    @contextmanager
    def _phase(self, record: RoundRecord, name: str) -> Iterator[None]:
        self._recorder.phase(record.round, name)
        with record.timed(name):
            yield


@dataclass(frozen=True)
class _Asking:
    """Asks one step after another, and adds up what they cost."""

    postbox: Postbox
    recorder: Recorder
    record: RoundRecord
    facts: SumRecord

    def step(
        self,
        kind: str,
        told: Mapping[int, bytes],
        take: Take,
        shared: RecordDict | None = None,
    ) -> None:
        """Tell each node its part, and take what each answers."""
        name, record = kind.partition(".")[2], self.record
        self.recorder.phase(record.round, name)
        own = {
            node: RecordDict({wire.TOLD: wire.pack_bytes(data)} if data else {})
            for node, data in told.items()
        }
        answer = ANSWERS[kind]

        def unpacked(node: int, content: RecordDict) -> None:
            take(node, wire.unpack_bytes(content, answer))

        with record.timed(name):
            came = self.postbox.ask_each(
                kind, record.round, shared or RecordDict(), own, unpacked
            )
        self._count(name, came)

    def _count(self, name: str, came: Counts) -> None:
        record = self.record
        self.facts.steps[name] = [came.asked, came.taken]
        record.bytes_down_per_client += came.bytes_down
        record.bytes_up_per_client += came.bytes_up


#: The record that answers a step.
ANSWERS = {
    wire.ADVERTS: wire.ADVERT,
    wire.SHARES: wire.PARCELS,
    wire.MASKED: wire.MASKED_VECTOR,
    wire.CONFIRM: wire.CONFIRMATION,
    wire.REVEAL: wire.REVEALED,
}


def distilled(
    student: StateDict, labels: SoftLabels, config: RunConfig, spec: StudentSpec
) -> StateDict:
    """What a round's local steps change by distillation alone, float32."""
    model = build(spec, student).double().to(config.run.device)
    loss = distillation_loss(model, labels, config.distillation)
    steps = torch.optim.SGD(model.parameters(), lr=config.training.learning_rate)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(config.training.local_steps):
        steps.zero_grad(set_to_none=True)
        torch.autograd.backward([loss()])
        steps.step()
    after = model.state_dict()
    return {name: (after[name] - before[name]).float().cpu() for name in before}
