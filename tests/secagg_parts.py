"""A cohort to try secure aggregation on: clients, and both sides step by step."""

import copy
from dataclasses import dataclass, field
from itertools import chain, combinations

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.secagg import advertise, confirm, mask, reveal, share
from client.secagg_state import ClientState
from common.errors import RoundFailed
from common.secagg.bounds import choose_shape
from common.secagg.terms import Policy, Terms
from server.secagg import SecureSum

CURIOUS = Policy()
#: One in ten of ten clients is one; of three or four none could be told from half.
ACTIVE = Policy(active=True, corrupt=0.0)


def terms_of(policy=CURIOUS, **others):
    values = {"run": "run", "round": 0, "length": 7, "bits": 20, "least": 2}
    return Terms(**values | others, policy=policy)


def roster_of(identities):
    return frozenset(each.public_key().public_bytes_raw() for each in identities)


def vectors_of(terms, count, seed=0):
    draw = np.random.default_rng(seed)
    drawn = draw.integers(0, 2**63, (count, terms.length), dtype=np.uint64)
    return [terms.ring.encode(each) for each in drawn]


def plain_sum(terms, vectors):
    total = sum(each.astype(object) for each in vectors)
    return (total % (1 << terms.bits)).astype(terms.ring.dtype)


@dataclass
class Play:
    """Both sides; each step sends what the nodes in ``nodes`` answer."""

    terms: Terms
    identities: list
    vectors: list
    server: SecureSum
    states: dict = field(default_factory=dict)
    replies: dict = field(default_factory=dict)

    def __deepcopy__(self, memo):
        return Play(
            self.terms,
            self.identities,
            self.vectors,
            copy.deepcopy(self.server),
            dict(self.states),
            dict(self.replies),
        )

    @property
    def roster(self):
        return roster_of(self.identities) if self.terms.policy.active else None

    def answer(self, node, step, *rest):
        """A client's step on its state, kept as bytes, and its reply."""
        state = self.states.get(node)
        before = ClientState.from_bytes(state) if state else None
        made = step(before, *rest)
        self.states[node] = made.state.to_bytes()
        self.replies[node] = made.reply
        return made.reply

    def state(self, node):
        return ClientState.from_bytes(self.states[node])

    def advertise(self, nodes):
        for node in nodes:
            reply = self.answer(node, advertise, self.terms, self.identities[node])
            self.server.add_advert(node, reply)

    def share(self, nodes, sent):
        for node in nodes:
            reply = self.answer(node, share, sent[node], self.roster)
            self.server.add_shares(node, reply)

    def mask(self, nodes, sent):
        for node in nodes:
            reply = self.answer(node, mask, sent[node], self.vectors[node])
            self.server.add_masked(node, reply)

    def confirm(self, nodes, sent):
        for node in nodes:
            reply = self.answer(node, confirm, sent[node], self.identities[node])
            self.server.add_confirmation(node, reply)

    def reveal(self, nodes, sent):
        for node in nodes:
            self.server.add_reveal(node, self.answer(node, reveal, sent[node]))


def play(count, terms, seed=0):
    identities = [Ed25519PrivateKey.generate() for _ in range(count)]
    roster = roster_of(identities) if terms.policy.active else None
    vectors = vectors_of(terms, count, seed)
    return Play(terms, identities, vectors, SecureSum(terms, roster))


def masked_play(count, terms, silent=()):
    """A play up to where the list of survivors goes out, and what goes out."""
    made = play(count, terms)
    made.advertise(range(count))
    made.share(range(count), made.server.to_share())
    sent = made.server.to_mask()
    made.mask([node for node in sent if node not in silent], sent)
    listed = made.server.to_confirm()
    return made, listed or made.server.to_reveal()


def whole_round(made, dropping):
    """Run a play in which ``dropping[node]`` is the step (0…4) a node misses first.

    Returns:
        The sum, ``None`` where the round failed.
    """

    def left(step, nodes):
        return [node for node in nodes if dropping.get(node, 9) > step]

    server = made.server
    try:
        made.advertise(left(0, range(len(made.identities))))
        sent = server.to_share()
        made.share(left(1, sent), sent)
        sent = server.to_mask()
        made.mask(left(2, sent), sent)
        sent = server.to_confirm()
        made.confirm(left(3, sent), sent)
        sent = server.to_reveal()
        made.reveal(left(4, sent), sent)
        return server.result()
    except RoundFailed:
        return None


def subsets(nodes):
    nodes = list(nodes)
    sizes = range(len(nodes) + 1)
    return list(chain.from_iterable(combinations(nodes, size) for size in sizes))


def opens(policy, least, adverts, shared, masked, confirmed, revealed):
    """Whether a round of so many, all neighbours of each other, should succeed."""
    if len(adverts) < max(3, least):
        return False
    shape = choose_shape(policy, len(adverts))
    if min(len(shared), len(masked)) < least or len(shared) - 1 < shape.threshold:
        return False
    if any(len(set(masked) - {one}) < shape.threshold for one in shared):
        return False
    if policy.active and len(confirmed) < max(shape.quorum, least):
        return False
    return all(
        one in revealed or len(set(revealed) - {one}) >= shape.threshold
        for one in shared
    )
