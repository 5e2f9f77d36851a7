"""A client in a cohort of three: the others, and the server, are bare protocol."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Context, Message

import client.app as wiring
from client import secagg
from common import wire
from common.config import parse
from common.secure_round import num_parameters, secure_round
from common.student import random_state, shapes
from server.secagg import SecureSum
from tests.client.conftest import FLAT, SPEC, context_of, message_of

SECURE = {
    "privacy.mode": "distributed",
    "privacy.declared-users": 1,
    "privacy.noise-multiplier": 1.0,
    "privacy.sample-rate": 0.5,
    "secagg.clients": 3,
    "secagg.threshold": 1.0,
    "secagg.corrupt": 0.0,
    "secagg.parameters": 100,
    "client-metrics.every": 0,
    "statistics.share": 0.0,
}
#: The node of the client that is tested; the others are 1 and 2.
MINE = 100
ANSWERS = {
    wire.ADVERTS: wire.ADVERT,
    wire.SHARES: wire.PARCELS,
    wire.MASKED: wire.MASKED_VECTOR,
    wire.CONFIRM: wire.CONFIRMATION,
    wire.REVEAL: wire.REVEALED,
}


def secure_context(folder: Path, **overrides) -> Context:
    return context_of(folder, **SECURE | overrides)


def step_message(kind: str, number: int = 1, told: bytes = b"", **values) -> Message:
    """A step of a secure sum, as the server would ask it; unsigned."""
    message = message_of(number, kind=kind, **values)
    if kind != wire.MASKED:
        del message.content[wire.STUDENT]
    if told:
        message.content[wire.TOLD] = wire.pack_bytes(told)
    return message


@dataclass
class Cohort:
    """One round after another with the client of a folder.

    Attributes:
        told: what the client was told last, by step, for a test to tell again.
        replies: its replies, by step.
    """

    context: Context
    number: int = 1
    app: object = wiring.app
    roster: frozenset[bytes] | None = None
    keys: list = field(
        default_factory=lambda: [Ed25519PrivateKey.generate() for _ in range(2)]
    )
    vectors: dict = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    replies: dict[str, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        config = parse(self.context.run_config)
        dim = num_parameters(shapes(SPEC).values())
        self.found = secure_round(config, dim, "11", self.number)
        self.server = SecureSum(self.found.terms, self.roster)
        self.states = {}

    @property
    def active(self) -> bool:
        return self.found.terms.policy.active

    def ask(self, kind: str, told: bytes = b"", **values) -> bytes:
        """Ask the client; its answer's bytes."""
        self.messages[kind] = step_message(kind, self.number, told, **values)
        reply = self.replies[kind] = self.app(self.messages[kind], self.context)
        assert reply.has_content(), reply.error.reason
        return wire.unpack_bytes(reply.content, ANSWERS[kind])

    def advertise(self) -> None:
        self.server.add_advert(MINE, self.ask(wire.ADVERTS))
        for node, key in enumerate(self.keys, start=1):
            made = secagg.advertise(None, self.found.terms, key)
            self.take(node, made, self.server.add_advert)

    def take(self, node: int, made: secagg.Step, add) -> None:
        self.states[node] = made.state
        add(node, made.reply)

    def share(self) -> None:
        told = self.server.to_share()
        self.server.add_shares(MINE, self.ask(wire.SHARES, told[MINE]))
        for node in (1, 2):
            made = secagg.share(self.states[node], told[node], self.roster)
            self.take(node, made, self.server.add_shares)

    def mask(self) -> None:
        told = self.server.to_mask()
        self.server.add_masked(MINE, self.ask(wire.MASKED, told[MINE]))
        ring, length = self.found.terms.ring, self.found.terms.length
        for node in (1, 2):
            made = secagg.mask(self.states[node], told[node], ring.zeros(length))
            self.take(node, made, self.server.add_masked)

    def confirm(self) -> None:
        told = self.server.to_confirm()
        if self.active:
            answer = self.ask(wire.CONFIRM, told[MINE])
            self.server.add_confirmation(MINE, answer)
            for node in (1, 2):
                key = self.keys[node - 1]
                made = secagg.confirm(self.states[node], told[node], key)
                self.take(node, made, self.server.add_confirmation)

    def reveal(self):
        told = self.server.to_reveal()
        self.server.add_reveal(MINE, self.ask(wire.REVEAL, told[MINE]))
        for node in (1, 2):
            made = secagg.reveal(self.states[node], told[node])
            self.take(node, made, self.server.add_reveal)

    def result(self):
        return self.found.terms.ring.decode(self.server.result().values)

    def until(self, kind: str) -> bytes:
        """Every step before this one; what the client is to be told in it."""
        steps = [self.advertise, self.share, self.mask, self.confirm, self.reveal]
        kinds = list(ANSWERS)
        for step in steps[: kinds.index(kind)]:
            step()
        told = {
            wire.ADVERTS: lambda: {MINE: b""},
            wire.SHARES: self.server.to_share,
            wire.MASKED: self.server.to_mask,
            wire.CONFIRM: self.server.to_confirm,
            wire.REVEAL: self.server.to_reveal,
        }[kind]()
        return told[MINE]

    def whole(self):
        for step in (
            self.advertise,
            self.share,
            self.mask,
            self.confirm,
            self.reveal,
        ):
            step()
        return self.result()


def other_student():
    return random_state(SPEC, torch.Generator().manual_seed(9))


def flat(**overrides) -> dict:
    return FLAT | SECURE | overrides


def reason(message: Message, context) -> str | None:
    """Why the client refused; ``None`` if it answered."""
    reply = wiring.app(message, context)
    return reply.error.reason if reply.has_error() else None
