"""What a client keeps between the messages of one round of secure aggregation.

Client only: it holds the round's secrets. They are here and nowhere else, and each
step drops those that no later step needs, so that what was not answered in time cannot
be answered later. It is kept as bytes, in Flower's state of the run, and is lost with
the process on purpose.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import ProtocolError
from common.secagg.bounds import Shape, choose_shape
from common.secagg.graph import Graph
from common.secagg.terms import Terms


class Phase(IntEnum):
    """What a client did last in its round."""

    ADVERTISED = 1
    SHARED = 2
    MASKED = 3
    CONFIRMED = 4
    REVEALED = 5


class _Kept(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_bytes="hex", val_json_bytes="hex"
    )


class Secrets(_Kept):
    """Until the vector is masked: private key and seeds of this round alone.

    Attributes:
        seal: X25519 private key, for the shares that others send.
        mask_seed: of the X25519 private key that masks come from.
        self_seed: of the client's own mask.
    """

    seal: bytes = Field(repr=False)
    mask_seed: bytes = Field(repr=False)
    self_seed: bytes = Field(repr=False)


class Peer(_Kept):
    """A neighbour, as its advert was checked."""

    member: int
    identity: bytes
    seal_key: bytes
    mask_key: bytes


class Place(_Kept):
    """Where the client stands in its cohort.

    Attributes:
        cohort: the cohort's digest.
        member: the client's number.
        members: how many there are.
        peers: its neighbours, in rising order.
        identities: of all members, where they confirm a list to each other.
    """

    cohort: bytes
    member: int
    members: int
    peers: tuple[Peer, ...]
    identities: tuple[bytes, ...] = ()


class Held(_Kept):
    """A neighbour's two shares: one will be told; empty where none could be read."""

    self_share: bytes = Field(default=b"", repr=False)
    mask_share: bytes = Field(default=b"", repr=False)


class ClientState(_Kept):
    """A client in a round; each step makes another.

    Attributes:
        identity: its public key.
        advert: digest of what it advertised.
        self_seed: of its own mask, from when the vector is masked.
        held: by number, the neighbours with whom the vector was masked.
        survivors: the list that it confirmed.
    """

    phase: Phase
    terms_bytes: bytes
    identity: bytes
    advert: bytes
    secrets: Secrets | None = None
    place: Place | None = None
    self_seed: bytes = Field(default=b"", repr=False)
    held: dict[int, Held] = Field(default_factory=dict)
    survivors: frozenset[int] = frozenset()

    @cached_property
    def terms(self) -> Terms:
        """The round's public numbers."""
        return Terms.from_bytes(self.terms_bytes)

    def expect(self, phase: Phase) -> None:
        """Refuse what does not follow on the last step, a repetition too.

        Raises:
            ProtocolError: naming both steps.
        """
        if self.phase != phase:
            raise ProtocolError(
                f"Expected the message that follows {phase.name}, and this client "
                f"has {self.phase.name}."
            )

    def secrets_and_place(self) -> tuple[Secrets, Place]:
        """Both, where the phase has them."""
        if self.secrets is None:
            raise ProtocolError("Expected the secrets of this round, found none.")
        return self.secrets, self.whereabouts()

    def whereabouts(self) -> Place:
        """The place, where the phase has one."""
        if self.place is None:
            raise ProtocolError("Expected a place in this round, found none.")
        return self.place

    @property
    def shape(self) -> Shape:
        """The cohort's graph and thresholds, worked out again."""
        return choose_shape(self.terms.policy, self.whereabouts().members)

    @property
    def graph(self) -> Graph:
        """The cohort's graph, worked out again."""
        return Graph(self.shape, self.whereabouts().cohort)

    def to_bytes(self) -> bytes:
        """All of it, secrets included: for the client's own keeping."""
        return self.model_dump_json().encode()

    @staticmethod
    def from_bytes(data: bytes) -> ClientState:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            ProtocolError: if it is anything else; nothing of it is quoted.
        """
        try:
            return ClientState.model_validate_json(data)
        except ValidationError:
            raise ProtocolError("Expected a client's state, got another.") from None
