"""The server's side of secure aggregation: it collects, unmasks the sum, no vector.

Server only. One object is one round. What a client sends is refused by a
``ProtocolError`` that changes nothing: drop that message and go on, nobody else's
contribution is touched. ``RoundFailed`` ends the round: fewer are left than the terms
ask for, or than it takes to unmask. Nodes are whatever names the transport vouches for;
a member's messages must all come from the node that its advert came from.

Bonawitz et al. 2017, figure 4; the steps are those of ``common/secagg/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Container, Set
from dataclasses import dataclass
from enum import IntEnum

from common.errors import ProtocolError, RoundFailed
from common.secagg import keys, messages
from common.secagg.bounds import choose_shape, stays_whole
from common.secagg.cohort import Advert, Cohort
from common.secagg.graph import Graph
from common.secagg.masks import Masker
from common.secagg.ring import UintArray
from common.secagg.shares import share_digest
from common.secagg.signing import signed_by
from common.secagg.terms import LEAST_MEMBERS, Terms
from server.secagg_unmask import (
    Owner,
    remove_pair_masks,
    remove_self_mask,
    self_seed_is,
)


class _Step(IntEnum):
    """What the server waits for."""

    ADVERTS = 1
    SHARES = 2
    MASKED = 3
    CONFIRMATIONS = 4
    REVEALS = 5
    OVER = 6


@dataclass(frozen=True)
class Sum:
    """What a round is for.

    Attributes:
        values: elements of the ring, ``[length]``.
        survivors: nodes whose vectors they are the sum of.
    """

    values: UintArray
    survivors: tuple[int, ...]


class SecureSum:
    """One round; the methods are called in the order in which they stand.

    Args:
        terms: the same that the clients derive.
        roster: identities that may take part; ``None``: any, if the policy is not
            ``active``.
    """

    def __init__(self, terms: Terms, roster: frozenset[bytes] | None = None) -> None:
        if terms.policy.active and roster is None:
            raise ProtocolError("Expected a roster: the policy is active.")
        self._terms, self._roster = terms, roster
        self._step = _Step.ADVERTS
        self._arrived: dict[int, Advert] = {}
        self._identities: set[bytes] = set()
        self._parcels: dict[int, tuple[messages.Parcel, ...]] = {}
        self._total = terms.ring.zeros(terms.length)
        self._survivors: set[int] = set()
        self._confirmed: dict[int, bytes] = {}
        self._heard: set[int] = set()
        self._seeds: dict[int, bytes] = {}
        self._shares: dict[int, dict[int, bytes]] = {}
        self.wrong_shares = 0

    def add_advert(self, node: int, message: bytes) -> None:
        """Take a client's keys.

        Raises:
            ProtocolError: for a second advert of a node or an identity, an identity
                that the roster lacks, a wrong signature or a key that is none.
        """
        self._expect(_Step.ADVERTS)
        advert = Advert.from_bytes(message, self._terms.digest)
        if node in self._arrived or advert.identity in self._identities:
            raise ProtocolError("ADVERT: expected one of a client, got a second.")
        if self._roster is not None and advert.identity not in self._roster:
            raise ProtocolError("ADVERT: expected an identity of the roster.")
        if len(self._arrived) == self._terms.most:
            raise ProtocolError(f"ADVERT: expected {self._terms.most} members at most.")
        advert.verify(self._terms.digest)
        _check_keys(advert)
        self._arrived[node] = advert
        self._identities.add(advert.identity)

    def to_share(self) -> dict[int, bytes]:
        """Close the cohort; the message for each of its nodes.

        Raises:
            RoundFailed: if it is too small.
        """
        self._expect(_Step.ADVERTS)
        self._enough(len(self._arrived), "members", LEAST_MEMBERS)
        order = sorted(self._arrived.items(), key=lambda each: each[1].identity)
        self._nodes = tuple(node for node, _ in order)
        self._adverts = tuple(advert for _, advert in order)
        self._members = {node: member for member, node in enumerate(self._nodes)}
        entries = tuple((each.identity, each.digest()) for each in self._adverts)
        context = self._terms.digest
        self._cohort = Cohort(entries, ()).digest(context)
        self._shape = choose_shape(self._terms.policy, len(entries))
        graph = self._graph = Graph(self._shape, self._cohort)
        self._near = tuple(map(graph.neighbours, range(len(entries))))
        self._step = _Step.SHARES
        return {
            node: Cohort(entries, self._adverts_near(member)).to_bytes(context)
            for node, member in self._members.items()
        }

    def add_shares(self, node: int, message: bytes) -> None:
        """Take a member's parcels for its neighbours.

        Raises:
            ProtocolError: for a node that is no member, or a second message.
        """
        member = self._sender(_Step.SHARES, node, self._parcels)
        self._parcels[member] = messages.parcels_from_bytes(
            message, self._cohort, self._shape.degree
        )

    def to_mask(self) -> dict[int, bytes]:
        """Close the shares; for each node that goes on, what its neighbours sealed.

        Raises:
            RoundFailed: if too few go on, or any of them with too few neighbours.
        """
        self._expect(_Step.SHARES)
        self._enough(len(self._parcels), "members who shared")
        self._check_openable(self._parcels.keys())
        self._step = _Step.MASKED
        return {
            self._nodes[member]: messages.deliveries_to_bytes(
                self._deliveries(member), self._cohort
            )
            for member in self._parcels
        }

    def add_masked(self, node: int, message: bytes) -> None:
        """Add a member's masked vector to the sum; the vector itself is not kept.

        Raises:
            ProtocolError: for a node that did not share, or a second message.
        """
        member = self._sender(_Step.MASKED, node, self._survivors)
        if member not in self._parcels:
            raise ProtocolError("MASKED: expected a member who had shared.")
        ring, length = self._terms.ring, self._terms.length
        size = ring.packed_size(length)
        packed = messages.masked_from_bytes(message, self._cohort, size)
        self._total += ring.unpack(packed, length)
        self._survivors.add(member)

    def to_confirm(self) -> dict[int, bytes]:
        """Close the sum; the list of survivors for each, where clients confirm it.

        Raises:
            RoundFailed: if fewer survived than the terms or any secret ask for.
        """
        self._expect(_Step.MASKED)
        self._enough(len(self._survivors), "survivors")
        if not stays_whole(self._terms.policy, self._shape, len(self._survivors)):
            raise RoundFailed(
                "Expected so many survivors that the sum cannot fall into two, got "
                f"{len(self._survivors)} of {len(self._nodes)}: set more neighbours."
            )
        self._check_openable(self._survivors)
        active = self._terms.policy.active
        self._step = _Step.CONFIRMATIONS if active else _Step.REVEALS
        return self._survivors_messages() if active else {}

    def add_confirmation(self, node: int, message: bytes) -> None:
        """Take a survivor's signature of the list.

        Raises:
            ProtocolError: for a node that is no survivor, a second or a wrong one.
        """
        member = self._sender(_Step.CONFIRMATIONS, node, self._confirmed)
        signature = messages.confirmation_from_bytes(message, self._cohort)
        signed = messages.survivors_signed(
            self._survivors, len(self._nodes), self._cohort
        )
        identity = self._adverts[member].identity
        if member not in self._survivors or not signed_by(identity, signature, signed):
            raise ProtocolError("CONFIRMATION: expected a survivor's signature.")
        self._confirmed[member] = signature

    def to_reveal(self) -> dict[int, bytes]:
        """What lets each client reveal: the list, or the others' confirmations of it.

        Raises:
            RoundFailed: if too few confirmed.
        """
        if not self._terms.policy.active:
            self._expect(_Step.REVEALS)
            return self._survivors_messages()
        self._expect(_Step.CONFIRMATIONS)
        least = self._terms.least
        if not self._graph.confirmed_by(frozenset(self._confirmed), least):
            raise RoundFailed(
                f"Expected {max(self._shape.quorum, least)} confirmations of the "
                f"survivors, all round the circle, got {len(self._confirmed)}."
            )
        self._step = _Step.REVEALS
        message = messages.confirmations_to_bytes(self._confirmed, self._cohort)
        return {self._nodes[member]: message for member in self._confirmed}

    def add_reveal(self, node: int, message: bytes) -> None:
        """Take a survivor's shares; a wrong one is left out and counted.

        Raises:
            ProtocolError: for a node that is no survivor, a second message, or shares
                of members who never shared with it.
        """
        holder = self._sender(_Step.REVEALS, node, self._heard)
        if holder not in self._survivors:
            raise ProtocolError("REVEAL: expected a survivor.")
        degree = self._shape.degree
        found = messages.Reveal.from_bytes(message, self._cohort, degree)
        known = self._parcels.keys() & set(self._near[holder])
        if not found.shares.keys() <= known:
            raise ProtocolError("REVEAL: expected shares of neighbours who had shared.")
        self._heard.add(holder)
        self._keep_seed(holder, found.seed)
        for owner, share in found.shares.items():
            self._keep(owner, holder, share)

    def result(self) -> Sum:
        """Unmask the sum.

        Raises:
            RoundFailed: if too few revealed, or an owner's shares were wrong.
        """
        self._expect(_Step.REVEALS)
        self._step = _Step.OVER
        masker, context = Masker(self._total), self._terms.digest
        threshold = self._shape.threshold
        for member in sorted(self._parcels):
            owner = self._owner(member)
            if member in self._survivors:
                remove_self_mask(masker, owner, threshold, context)
            else:
                near = sorted(self._survivors.intersection(self._near[member]))
                partners = [self._owner(each) for each in near]
                remove_pair_masks(masker, owner, partners, threshold, context)
        values = self._terms.ring.reduce(self._total)
        return Sum(values, tuple(self._nodes[each] for each in sorted(self._survivors)))

    def _expect(self, step: _Step) -> None:
        if self._step != step:
            raise ProtocolError(
                f"Expected {self._step.name} at this step, got {step.name}."
            )

    def _sender(self, step: _Step, node: int, heard: Container[int]) -> int:
        """The member behind a node that has not been heard at this step."""
        self._expect(step)
        if node not in self._members:
            raise ProtocolError(f"{step.name}: expected a member of the cohort.")
        member = self._members[node]
        if member in heard:
            raise ProtocolError(f"{step.name}: expected one message, got a second.")
        return member

    def _enough(self, found: int, whom: str, least: int = 0) -> None:
        least = max(self._terms.least, least)
        if found < least:
            raise RoundFailed(f"Expected {least} {whom} or more, got {found}.")

    def _check_openable(self, left: Set[int]) -> None:
        """Of each who shared, enough neighbours are left to open a secret."""
        fewest = min(len(left & set(self._near[each])) for each in self._parcels)
        if fewest < self._shape.threshold:
            raise RoundFailed(
                f"Expected {self._shape.threshold} neighbours of each member to be "
                f"left, got {fewest} of one."
            )

    def _adverts_near(self, member: int) -> tuple[Advert, ...]:
        return tuple(self._adverts[each] for each in self._near[member])

    def _deliveries(self, member: int) -> dict[int, bytes]:
        return {
            owner: self._parcels[owner][self._near[owner].index(member)].sealed
            for owner in self._near[member]
            if owner in self._parcels
        }

    def _survivors_messages(self) -> dict[int, bytes]:
        message = messages.survivors_to_bytes(
            self._survivors, len(self._nodes), self._cohort
        )
        return {self._nodes[member]: message for member in sorted(self._survivors)}

    def _keep_seed(self, member: int, seed: bytes) -> None:
        advert = self._adverts[member]
        if self_seed_is(seed, advert, self._terms.digest):
            self._seeds[member] = seed
        else:
            self.wrong_shares += 1

    def _keep(self, owner: int, holder: int, share: bytes) -> None:
        place = self._near[owner].index(holder)
        kind = 0 if owner in self._survivors else 1
        if share_digest(share) == self._parcels[owner][place].digests[kind]:
            self._shares.setdefault(owner, {})[place + 1] = share
        else:
            self.wrong_shares += 1

    def _owner(self, member: int) -> Owner:
        shares, seed = self._shares.get(member, {}), self._seeds.get(member)
        return Owner(member, self._adverts[member], shares, seed)


def _check_keys(advert: Advert) -> None:
    """A key of low order would make every neighbour refuse the cohort."""
    for key in (advert.seal_key, advert.mask_key):
        keys.check_public(key)
