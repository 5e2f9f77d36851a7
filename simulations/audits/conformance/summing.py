"""A secure sum of the audit's own clients, asked step by step as a server would.

Simulations only. Mode ``distributed``: no client answers by itself, so checks look at
what a server learns of a few of them: the sum, adverts, revealed seeds. The clients are
the product's, behind their exit door; some fall silent where the audit wants it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common import wire
from common.config import parse
from common.errors import ProtocolError, RoundFailed
from common.fixed_point import Integer
from common.secagg.cohort import Advert
from common.secagg.frames import HEAD
from common.secagg.shares import SHARE_BYTES
from common.secure_round import SecureRound, num_parameters, secure_round
from common.student import StateDict, shapes
from server.secagg import SecureSum
from simulations.audits.conformance.asking import Client, Records
from simulations.audits.conformance.bench import Bench, Items

#: Clients of a sum, where the run's shares of them allow it.
CLIENTS = 8

#: A step's record, and what takes it in.
_RECORDS = {
    wire.ADVERTS: wire.ADVERT,
    wire.SHARES: wire.PARCELS,
    wire.MASKED: wire.MASKED_VECTOR,
    wire.REVEAL: wire.REVEALED,
}


@dataclass(frozen=True)
class Shares:
    """Who has to finish in a sum of so many clients, by the run's own shares of them.

    Worked out here, so that a check does not inherit the product's arithmetic.
    """

    clients: int
    least: int
    corrupt: int

    @property
    def honest(self) -> int:
        """Clients whose noise is what is promised."""
        return self.least - self.corrupt

    @property
    def is_possible(self) -> bool:
        """Two lists of survivors share more than those in league with the server."""
        return 2 * self.least - self.clients > self.corrupt


def shares_of(bench: Bench) -> Shares:
    """Of as few clients as stand for the run's."""
    secagg = bench.world.config.secagg
    sizes = (
        Shares(n, _part(secagg.threshold, n), _part(secagg.corrupt, n))
        for n in range(min(CLIENTS, secagg.clients), secagg.clients + 1)
    )
    return next(each for each in sizes if each.is_possible)


def _part(share: float, whole: int) -> int:
    return math.ceil(round(share * whole, 9))


def summing_clients(
    bench: Bench,
    rows: Sequence[Sequence[Items]],
    seed: int | None,
    *,
    last_value: float = 1.0,
    **overrides: Any,
) -> list[Client]:
    """Clients of one sum, the last of them without rows.

    Args:
        rows: users' items of the first ones, client by client.
        seed: of their noise; ``None`` for the operating system's.
        last_value, overrides: see ``Bench.client``.
    """
    count = shares_of(bench).clients
    more = [*rows, *[[]] * (count - len(rows))]
    return [
        bench.client(
            own,
            name=f"{place:04d}",
            seed=seed,
            last_value=last_value,
            secagg__clients=count,
            secagg__neighbours=0,
            secagg__roster=False,
            **overrides,
        )
        for place, own in enumerate(more)
    ]


@dataclass
class Learnt:
    """What a server learnt of one sum.

    Attributes:
        found: the round in public numbers.
        values: the sum, int64 ``[d]``, centred; empty where there is none.
        survivors: places of the clients that are in it.
        adverts: of all that advertised.
        seeds: of self masks, as survivors revealed them.
    """

    found: SecureRound
    values: Integer = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    survivors: tuple[int, ...] = ()
    adverts: list[Advert] = field(default_factory=list)
    seeds: list[bytes] = field(default_factory=list)


def learn(
    bench: Bench,
    clients: Sequence[Client],
    number: int = 1,
    *,
    nonce: str = "",
    silent: int = 0,
    student: StateDict | None = None,
) -> Learnt:
    """Ask for one sum; where the clients do not make one, it stays empty.

    Args:
        number: the round.
        nonce: a fresh one unless given.
        silent: so many, the last ones, say nothing from the masked vector on.
        student: the transferred one unless given.
    """
    config = parse(clients[0].config)
    dim = num_parameters(shapes(bench.world.spec).values())
    found = secure_round(config, dim, str(clients[0].run_id), number)
    learnt, server = Learnt(found), SecureSum(found.terms)
    asking = _Asking(bench, clients, number, nonce or bench.nonce())
    sent = {wire.STUDENT: wire.pack_state(student or bench.world.start)}
    try:
        everybody = dict.fromkeys(range(len(clients)), b"")
        for place, reply in asking.step(wire.ADVERTS, everybody):
            server.add_advert(place, reply)
            learnt.adverts.append(Advert.from_bytes(reply, found.terms.digest))
        asking.take(wire.SHARES, server.to_share(), server.add_shares)
        told = server.to_mask()
        still = {p: told[p] for p in told if p < len(clients) - silent}
        asking.take(wire.MASKED, still, server.add_masked, sent)
        server.to_confirm()
        for place, reply in asking.step(wire.REVEAL, server.to_reveal()):
            server.add_reveal(place, reply)
            learnt.seeds.append(reply[HEAD : HEAD + SHARE_BYTES])
        total = server.result()
    except (ProtocolError, RoundFailed):
        return learnt
    learnt.values = found.terms.ring.decode(total.values)
    learnt.survivors = total.survivors
    return learnt


@dataclass(frozen=True)
class _Asking:
    """Asks one step after another, of clients by their places."""

    bench: Bench
    clients: Sequence[Client]
    number: int
    nonce: str
    receipts: dict[int, str] = field(default_factory=dict)

    def step(
        self, kind: str, told: Mapping[int, bytes], beside: Records | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """The answers of those who are told something, but for errors."""
        for place, data in told.items():
            records = dict(beside or {})
            if data:
                records[wire.TOLD] = wire.pack_bytes(data)
            answer = self.bench.ask(
                self.clients[place],
                kind,
                records,
                number=self.number,
                nonce=self.nonce,
                acknowledged=self.receipts.get(place, ""),
            )
            if answer.error is None:
                yield place, wire.unpack_bytes(answer.content, _RECORDS[kind])

    def take(
        self,
        kind: str,
        told: Mapping[int, bytes],
        take: Callable[[int, bytes], None],
        beside: Records | None = None,
    ) -> None:
        """The same, into the server's sum."""
        for place, reply in self.step(kind, told, beside):
            take(place, reply)
