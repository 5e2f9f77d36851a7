"""The client's side of secure aggregation: it masks, and answers each thing once.

Client only: its vector leaves it masked. Every step takes the state and a message,
checks the message against what the state says, and returns the next state and the
reply; a refusal is a ``ProtocolError`` and leaves the state as it was. Keep the new
state before the reply is sent. Whatever a server says, a client tells of each neighbour
either the share of its own mask or that of its pair masks, never both, and once.

Bonawitz et al. 2017, figure 4; the steps are those of ``common/secagg/__init__.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from client.secagg_state import ClientState, Held, Peer, Phase, Place, Secrets
from common.errors import ConfigError, ProtocolError
from common.secagg import keys, messages, sealing, shares
from common.secagg.bounds import Shape, choose_shape, stays_whole
from common.secagg.cohort import Advert, Cohort
from common.secagg.graph import Graph
from common.secagg.masks import Masker
from common.secagg.ring import UintArray
from common.secagg.signing import signed_by
from common.secagg.terms import Terms


@dataclass(frozen=True)
class Step:
    """The state to keep, and the reply to send once it is kept."""

    state: ClientState
    reply: bytes


def advertise(
    before: ClientState | None, terms: Terms, identity: Ed25519PrivateKey
) -> Step:
    """Begin a round: draw its secrets and advertise their public halves.

    Args:
        before: the state that the run's last round left; ``None`` in its first.
        terms: from the client's own copy of the run's configuration.
        identity: the key by which the roster knows this client; without a roster, any.

    Raises:
        ProtocolError: for a round that this client began before, or another run.
    """
    _check_new(before, terms)
    public = identity.public_key().public_bytes_raw()
    seal = X25519PrivateKey.generate()
    mask_seed, self_seed = keys.draw_seed(), keys.draw_seed()
    masking = keys.mask_private_key(mask_seed, terms.digest, public)
    advert = Advert(
        public,
        seal.public_key().public_bytes_raw(),
        masking.public_key().public_bytes_raw(),
        keys.commitment(self_seed, terms.digest, public),
    ).sign(identity, terms.digest)
    state = ClientState(
        phase=Phase.ADVERTISED,
        terms_bytes=terms.to_bytes(),
        identity=public,
        advert=advert.digest(),
        secrets=Secrets(
            seal=seal.private_bytes_raw(), mask_seed=mask_seed, self_seed=self_seed
        ),
    )
    return Step(state, advert.to_bytes(terms.digest))


def share(state: ClientState, message: bytes, roster: frozenset[bytes] | None) -> Step:
    """Learn the cohort, and seal shares of both seeds for each neighbour.

    Args:
        roster: identities that may take part, where the policy is ``active``.

    Raises:
        ProtocolError: for a cohort too small or large, that this client is not in, that
            holds others than the roster's, or whose graph or adverts are not right.
        ConfigError: if the policy needs a roster and there is none.
    """
    state.expect(Phase.ADVERTISED)
    terms = state.terms
    cohort = Cohort.from_bytes(
        message, terms.digest, lambda members: _degree(terms, members)
    )
    _check_members(cohort, terms, roster)
    place = _find_place(state, cohort)
    following = state.model_copy(update={"phase": Phase.SHARED, "place": place})
    parcels = messages.parcels_to_bytes(_parcels(following), place.cohort)
    return Step(following, parcels)


def mask(state: ClientState, message: bytes, vector: UintArray) -> Step:
    """Mask the vector with everybody whose shares have come.

    Args:
        vector: elements of the ring in its machine word, ``[length]``; not changed.

    Raises:
        ProtocolError: for shares of fewer neighbours than the threshold, or of others;
            for a vector of another type or length.
    """
    state.expect(Phase.SHARED)
    secrets, place = state.secrets_and_place()
    ring = state.terms.ring
    if vector.dtype != ring.dtype or vector.shape != (state.terms.length,):
        raise ProtocolError(
            f"Expected a vector of {state.terms.length} elements as {ring.dtype}, got "
            f"{vector.shape} as {vector.dtype}."
        )
    sealed = accept_deliveries(state, message)
    peers = {each.member: each for each in place.peers}
    partners = [peers[member] for member in sealed]
    masked = _masked(state, partners, vector)
    held = {each.member: _open(state, each, sealed[each.member]) for each in partners}
    packed = ring.pack(masked)
    update = {
        "phase": Phase.MASKED,
        "secrets": None,
        "self_seed": secrets.self_seed,
        "held": held,
    }
    reply = messages.masked_to_bytes(packed, place.cohort)
    return Step(state.model_copy(update=update), reply)


def accept_deliveries(state: ClientState, message: bytes) -> dict[int, bytes]:
    """What each neighbour sealed, if a vector can be masked by it; nothing changes.

    Raises:
        ProtocolError: for shares of fewer neighbours than the threshold, or of others;
            at another step.
    """
    state.expect(Phase.SHARED)
    place, shape = state.whereabouts(), state.shape
    sealed = messages.deliveries_from_bytes(message, place.cohort, shape.degree)
    known = {each.member for each in place.peers}
    if not sealed.keys() <= known or len(sealed) < shape.threshold:
        raise ProtocolError(
            f"Expected shares of {shape.threshold} neighbours or more and of nobody "
            f"else, got {len(sealed)}."
        )
    return sealed


def confirm(state: ClientState, message: bytes, identity: Ed25519PrivateKey) -> Step:
    """Sign the list of survivors, so that the others know which one this client saw.

    Raises:
        ProtocolError: for a list that :func:`reveal` would refuse; where the policy is
            not ``active``; for another identity than the one that advertised.
    """
    state.expect(Phase.MASKED)
    place = state.whereabouts()
    if not state.terms.policy.active:
        raise ProtocolError("Expected no list to confirm: the policy asks for none.")
    if identity.public_key().public_bytes_raw() != state.identity:
        raise ProtocolError("Expected the identity that advertised, got another.")
    survivors = _accept(state, message)
    signed = messages.survivors_signed(survivors, place.members, place.cohort)
    update = {"phase": Phase.CONFIRMED, "survivors": survivors}
    reply = messages.confirmation_to_bytes(identity.sign(signed), place.cohort)
    return Step(state.model_copy(update=update), reply)


def reveal(state: ClientState, message: bytes) -> Step:
    """Tell of each neighbour one share: of its own mask if it survived, else the other.

    And this client's own mask, for it survived: its neighbours would tell the same.

    Args:
        message: the list of survivors; where the policy is ``active``, the others'
            confirmations of the list that this client confirmed.

    Raises:
        ProtocolError: for a list without this client, with fewer survivors than the
            terms ask for or than open a secret, or with neighbours that never shared;
            for too few confirmations; for a second list, the same or not.
    """
    place = state.whereabouts()
    if state.terms.policy.active:
        state.expect(Phase.CONFIRMED)
        _check_quorum(state, message)
        survivors = state.survivors
    else:
        state.expect(Phase.MASKED)
        survivors = _accept(state, message)
    told = {
        member: held.self_share if member in survivors else held.mask_share
        for member, held in state.held.items()
        if held.self_share
    }
    over = ClientState(
        phase=Phase.REVEALED,
        terms_bytes=state.terms_bytes,
        identity=state.identity,
        advert=state.advert,
    )
    reply = messages.Reveal(state.self_seed, told)
    return Step(over, reply.to_bytes(place.cohort))


def _check_new(before: ClientState | None, terms: Terms) -> None:
    if before is None:
        return
    if before.terms.run != terms.run or before.terms.round >= terms.round:
        raise ProtocolError(
            f"Expected a round after {before.terms.round} of the same run, got "
            f"round {terms.round}."
        )


def _shape(terms: Terms, members: int) -> Shape:
    try:
        return choose_shape(terms.policy, members)
    except ConfigError as error:
        raise ProtocolError(f"COHORT: {error}") from None


def _degree(terms: Terms, members: int) -> int:
    if members > terms.most:
        raise ProtocolError(
            f"COHORT: expected {terms.most} members at most, got {members}."
        )
    return _shape(terms, members).degree


def _check_members(
    cohort: Cohort, terms: Terms, roster: frozenset[bytes] | None
) -> None:
    if len(cohort.entries) < terms.least:
        raise ProtocolError(
            f"COHORT: expected {terms.least} members or more, got "
            f"{len(cohort.entries)}."
        )
    if not terms.policy.active:
        return
    if roster is None:
        raise ConfigError("secagg: the policy is active: expected a roster, got none.")
    if not all(identity in roster for identity, _ in cohort.entries):
        raise ProtocolError("COHORT: expected members of the roster, got others.")


def _find_place(state: ClientState, cohort: Cohort) -> Place:
    """The client's number and neighbours, every advert of theirs checked."""
    mine = (state.identity, state.advert)
    if mine not in cohort.entries:
        raise ProtocolError("COHORT: expected this client's own advert, found none.")
    terms, members = state.terms, len(cohort.entries)
    member, digest = cohort.entries.index(mine), cohort.digest(state.terms.digest)
    neighbours = Graph(_shape(terms, members), digest).neighbours(member)
    peers = []
    for number, advert in zip(neighbours, cohort.adverts, strict=True):
        if cohort.entries[number] != (advert.identity, advert.digest()):
            raise ProtocolError("COHORT: expected the graph's neighbours, got others.")
        advert.verify(terms.digest)
        peers.append(
            Peer(
                member=number,
                identity=advert.identity,
                seal_key=advert.seal_key,
                mask_key=advert.mask_key,
            )
        )
    everyone = tuple(identity for identity, _ in cohort.entries)
    return Place(
        cohort=digest,
        member=member,
        members=members,
        peers=tuple(peers),
        identities=everyone if terms.policy.active else (),
    )


def _parcels(state: ClientState) -> Iterator[messages.Parcel]:
    secrets, place = state.secrets_and_place()
    seal = X25519PrivateKey.from_private_bytes(secrets.seal)
    threshold, degree = state.shape.threshold, state.shape.degree
    pairs = zip(
        shares.split(secrets.self_seed, threshold, degree),
        shares.split(secrets.mask_seed, threshold, degree),
        strict=True,
    )
    for peer, pair in zip(place.peers, pairs, strict=True):
        key = sealing.seal_key(
            seal, peer.seal_key, place.cohort, state.identity, peer.identity
        )
        digests = (shares.share_digest(pair[0]), shares.share_digest(pair[1]))
        yield messages.Parcel(sealing.seal(key, place.cohort, *pair), digests)


def _masked(state: ClientState, partners: list[Peer], vector: UintArray) -> UintArray:
    """The vector, its own mask, and a mask a pair that its other half takes away."""
    secrets, place = state.secrets_and_place()
    context, mine = state.terms.digest, state.identity
    private = keys.mask_private_key(secrets.mask_seed, context, mine)
    total = vector.copy()
    masker = Masker(total)
    masker.add(keys.self_mask_key(secrets.self_seed, context, mine))
    for peer in partners:
        key = keys.pair_mask_key(private, peer.mask_key, context, mine, peer.identity)
        masker.add(key, subtract=peer.member < place.member)
    return total


def _open(state: ClientState, peer: Peer, sealed: bytes) -> Held:
    """A neighbour's shares; what cannot be read costs only this client's answer."""
    secrets, place = state.secrets_and_place()
    seal = X25519PrivateKey.from_private_bytes(secrets.seal)
    key = sealing.seal_key(
        seal, peer.seal_key, place.cohort, peer.identity, state.identity
    )
    opened = sealing.unseal(key, place.cohort, sealed)
    if opened is None:
        return Held()
    return Held(self_share=opened[0], mask_share=opened[1])


def _accept(state: ClientState, message: bytes) -> frozenset[int]:
    """The survivors, if a reveal by this list shows no more than it should."""
    place, shape = state.whereabouts(), state.shape
    survivors = messages.survivors_from_bytes(message, place.cohort, place.members)
    if place.member not in survivors:
        raise ProtocolError("SURVIVORS: expected this client among them.")
    if len(survivors) < state.terms.least:
        raise ProtocolError(
            f"SURVIVORS: expected {state.terms.least} or more, got {len(survivors)}."
        )
    if not stays_whole(state.terms.policy, shape, len(survivors)):
        raise ProtocolError("SURVIVORS: expected more, so that the sum stays whole.")
    near = survivors & {peer.member for peer in place.peers}
    if not near <= state.held.keys() or len(near) < shape.threshold:
        raise ProtocolError(
            f"SURVIVORS: expected {shape.threshold} neighbours or more, all of whom "
            f"had shared, got {len(near)}."
        )
    return survivors


def _check_quorum(state: ClientState, message: bytes) -> None:
    """So many signed this list that no honest client accepted another.

    And nowhere on the circle so few that the honest among them fall into parts. Those
    who did are there, so their noise is: the list alone could name whom it likes.
    """
    place, shape = state.whereabouts(), state.shape
    found = messages.confirmations_from_bytes(message, place.cohort, place.members)
    signed = messages.survivors_signed(state.survivors, place.members, place.cohort)
    valid = frozenset(
        member
        for member, signature in found.items()
        if member in state.survivors
        and signed_by(place.identities[member], signature, signed)
    )
    least = state.terms.least
    if not state.graph.confirmed_by(valid, least):
        raise ProtocolError(
            f"CONFIRMATIONS: expected {max(shape.quorum, least)} of this list, "
            f"{shape.window} in any {shape.degree // 2} places in a row, got "
            f"{len(valid)}."
        )
