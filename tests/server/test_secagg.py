"""The server drops what does not fit, loses nobody else, or fails the round."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.secagg import advertise, reveal, share
from common.errors import ProtocolError, RoundFailed
from common.secagg import messages
from common.secagg.bounds import stays_whole
from common.secagg.cohort import Advert
from common.secagg.frames import HEAD
from common.secagg.messages import Reveal
from common.secagg.terms import Policy
from server.secagg import SecureSum
from tests.secagg_parts import (
    ACTIVE,
    CURIOUS,
    masked_play,
    plain_sum,
    play,
    roster_of,
    terms_of,
)

COUNT = 6
STEPS = ("advert", "shares", "masked", "confirmation", "reveal")


def refused(call, *rest):
    with pytest.raises(ProtocolError) as caught:
        call(*rest)
    assert not isinstance(caught.value, RoundFailed)


def whole(made, found):
    expected = plain_sum(made.terms, made.vectors)
    return found.values.tolist() == expected.tolist() and len(found.survivors) == COUNT


def run_attacked(policy, attack, **others):
    """A whole round; ``attack(step, server, node, reply)`` before each true reply.

    And each true reply a second time.
    """
    made = play(COUNT, terms_of(policy, **others))
    server = made.server

    class Attacked:
        def __getattr__(self, name):
            found = getattr(server, name)

            def add(node, reply):
                attack(name.removeprefix("add_"), server, node, reply)
                found(node, reply)
                refused(found, node, reply)

            return add if name.startswith("add_") else found

    made.server = Attacked()
    made.advertise(range(COUNT))
    made.share(range(COUNT), server.to_share())
    made.mask(range(COUNT), server.to_mask())
    sent = server.to_confirm()
    made.confirm(sent, sent)
    made.reveal(range(COUNT), server.to_reveal())
    return made, server.result()


def steps_of(policy):
    return set(STEPS) - (set() if policy.active else {"confirmation"})


@pytest.fixture(params=[CURIOUS, ACTIVE], ids=["curious", "active"])
def policy(request):
    return request.param


def test_messages_that_are_cut_padded_or_changed_lose_nobody(policy):
    tried = set()

    def attack(step, server, node, reply):
        tried.add(step)
        add = getattr(server, f"add_{step}")
        for wrong in (b"", reply[:-1], reply + b"\0", reply[:HEAD], reply[:20]):
            refused(add, node, wrong)
        refused(add, node, reply + bytes(1_000_000))
        for place in range(HEAD):
            changed = bytearray(reply)
            changed[place] ^= 0x20
            refused(add, node, bytes(changed))

    assert whole(*run_attacked(policy, attack))
    assert tried == steps_of(policy)


def test_messages_of_other_rounds_lose_nobody(policy):
    """The same client's true message of another round of the same run."""
    other = {}

    def keep(step, server, node, reply):
        other[step, node] = reply

    run_attacked(policy, keep, round=7)

    def attack(step, server, node, reply):
        refused(getattr(server, f"add_{step}"), node, other[step, node])

    assert whole(*run_attacked(policy, attack))


def test_messages_out_of_order_lose_nobody(policy):
    earlier = []

    def attack(step, server, node, reply):
        for name, old in earlier:
            if name != step:
                refused(getattr(server, f"add_{step}"), node, old)
                refused(getattr(server, f"add_{name}"), node, old)
        earlier.append((step, reply))

    assert whole(*run_attacked(policy, attack))


def test_strangers_and_borrowed_names_lose_nobody(policy):
    def attack(step, server, node, reply):
        if step == "advert":
            return
        add = getattr(server, f"add_{step}")
        refused(add, 99, reply)
        if step == "confirmation":
            # Signed by one, sent by another.
            refused(add, (node + 1) % COUNT, reply)

    assert whole(*run_attacked(policy, attack))


# ---------------------------------------------------------------- adverts


def test_more_members_than_the_terms_ask_for_are_refused():
    made = play(4, terms_of(most=3))
    made.advertise(range(3))
    late = advertise(None, made.terms, made.identities[3]).reply
    with pytest.raises(ProtocolError, match="3 members at most"):
        made.server.add_advert(3, late)
    assert len(made.server.to_share()) == 3


def test_a_second_advert_of_an_identity_or_a_node_is_refused():
    made = play(3, terms_of())
    made.advertise(range(3))
    again = advertise(None, made.terms, made.identities[0]).reply
    refused(made.server.add_advert, 9, made.replies[0])
    refused(made.server.add_advert, 9, again)
    other = advertise(None, made.terms, Ed25519PrivateKey.generate()).reply
    refused(made.server.add_advert, 0, other)
    assert len(made.server.to_share()) == 3


def test_an_identity_that_the_roster_lacks_is_refused():
    made = play(4, terms_of(ACTIVE))
    made.server = SecureSum(made.terms, roster_of(made.identities[:3]))
    made.advertise(range(3))
    with pytest.raises(ProtocolError, match="roster"):
        made.advertise([3])
    assert made.server.to_share().keys() == {0, 1, 2}


def test_an_active_policy_needs_a_roster():
    with pytest.raises(ProtocolError, match="roster"):
        SecureSum(terms_of(ACTIVE))


@pytest.mark.parametrize("field", ["seal_key", "mask_key"])
def test_a_key_that_would_stop_its_neighbours_is_refused(field):
    made = play(3, terms_of())
    identity = made.identities[0]
    true = Advert.from_bytes(
        advertise(None, made.terms, identity).reply, made.terms.digest
    )
    keys = {"seal_key": true.seal_key, "mask_key": true.mask_key} | {field: bytes(32)}
    false = Advert(true.identity, **keys, commitment=true.commitment)
    signed = false.sign(identity, made.terms.digest)
    with pytest.raises(ProtocolError, match="full order"):
        made.server.add_advert(0, signed.to_bytes(made.terms.digest))


def test_a_cohort_too_small_fails():
    made = play(4, terms_of(least=4))
    made.advertise(range(3))
    with pytest.raises(RoundFailed, match="4 members or more, got 3"):
        made.server.to_share()


# ---------------------------------------------------------------- drop-outs


def test_who_never_shared_cannot_put_in_a_vector():
    made = play(COUNT, terms_of())
    made.advertise(range(COUNT))
    sent = made.server.to_share()
    made.share(range(COUNT - 1), sent)
    assert made.server.to_mask().keys() == set(range(COUNT - 1))
    cohort = made.state(0).place.cohort
    size = made.terms.ring.packed_size(made.terms.length)
    message = messages.masked_to_bytes(bytes(size), cohort)
    refused(made.server.add_masked, COUNT - 1, message)


def test_a_vector_that_comes_late_is_refused_and_is_not_in_the_sum():
    made = play(COUNT, terms_of())
    made.advertise(range(COUNT))
    made.share(range(COUNT), made.server.to_share())
    sent = made.server.to_mask()
    made.mask(range(COUNT - 1), sent)
    made.server.to_confirm()
    with pytest.raises(ProtocolError, match="at this step"):
        made.mask([COUNT - 1], sent)
    made.reveal(range(COUNT - 1), made.server.to_reveal())
    found = made.server.result()
    expected = plain_sum(made.terms, made.vectors[: COUNT - 1])
    assert found.values.tolist() == expected.tolist()


def test_fewer_survivors_than_the_terms_ask_for_fail():
    made = play(COUNT, terms_of(least=5))
    made.advertise(range(COUNT))
    made.share(range(COUNT), made.server.to_share())
    made.mask(range(4), made.server.to_mask())
    with pytest.raises(RoundFailed, match="5 survivors or more, got 4"):
        made.server.to_confirm()


def test_fewer_confirmations_than_the_quorum_fail():
    made, sent = masked_play(COUNT, terms_of(ACTIVE))
    made.confirm(range(3), sent)
    with pytest.raises(RoundFailed, match="4 confirmations"):
        made.server.to_reveal()


def test_fewer_reveals_than_open_a_secret_fail():
    made, sent = masked_play(COUNT, terms_of(), silent={0})
    threshold = made.state(1).shape.threshold
    made.reveal(range(1, threshold), sent)
    with pytest.raises(RoundFailed, match="cannot be unmasked"):
        made.server.result()
    refused(made.server.result)


def test_a_member_whose_neighbours_never_shared_fails_the_round():
    """Nobody could unmask it, so nobody masks."""
    policy = Policy(
        corrupt=0.0, dropped=0.0, degree=4, security_bits=1, complete_up_to=0
    )
    made = play(12, terms_of(policy))
    made.advertise(range(12))
    sent = made.server.to_share()
    first = share(made.state(0), sent[0], None).state
    near = {peer.identity for peer in first.place.peers[:2]}
    silent = {
        node for node, each in enumerate(made.identities) if roster_of([each]) & near
    }
    made.share(sorted(set(range(12)) - silent), sent)
    with pytest.raises(RoundFailed, match="3 neighbours of each member"):
        made.server.to_mask()


# ---------------------------------------------------------------- wrong shares


def lying_reveals(liars, change):
    """A round where one dropped out and the liars' reveals are changed."""
    made, sent = masked_play(COUNT, terms_of(), silent={5})
    cohort = made.state(0).place.cohort
    for node in sent:
        if node in liars:
            made.answer(node, reveal, sent[node])
            told = Reveal.from_bytes(made.replies[node], cohort, COUNT - 1)
            made.server.add_reveal(node, change(told).to_bytes(cohort))
        else:
            made.reveal([node], sent)
    return made


def all_wrong(told):
    return Reveal(told.seed, {member: bytes(16) for member in told.shares})


def test_wrong_shares_are_left_out_and_the_sum_is_right():
    made = lying_reveals({0}, all_wrong)
    assert made.server.wrong_shares == COUNT - 1
    expected = plain_sum(made.terms, made.vectors[:5])
    assert made.server.result().values.tolist() == expected.tolist()


def test_a_wrong_seed_is_left_out_and_found_from_shares():
    made = lying_reveals({0, 1}, lambda told: Reveal(bytes(16), told.shares))
    assert made.server.wrong_shares == 2
    expected = plain_sum(made.terms, made.vectors[:5])
    assert made.server.result().values.tolist() == expected.tolist()


def test_too_many_wrong_shares_fail_the_round_and_give_no_sum():
    made = lying_reveals({0, 1, 2}, all_wrong)
    with pytest.raises(RoundFailed, match="cannot be unmasked"):
        made.server.result()


def test_shares_of_who_is_no_neighbour_are_refused():
    made, sent = masked_play(COUNT, terms_of(), silent={5})
    made.answer(0, reveal, sent[0])
    head = made.replies[0][5:HEAD]
    told = Reveal.from_bytes(made.replies[0], head, COUNT - 1)
    owner = ({*range(COUNT)} - told.shares.keys()).pop()
    shares = dict(list(told.shares.items())[1:]) | {owner: bytes(16)}
    refused(made.server.add_reveal, 0, Reveal(told.seed, shares).to_bytes(head))
    made.server.add_reveal(0, made.replies[0])


def sharing_another(seed):
    """A cohort whose first client shares zeros in place of this seed."""
    made = play(COUNT, terms_of())
    made.advertise(range(COUNT))
    true = made.state(0)
    false = true.secrets.model_copy(update={seed: bytes(16)})
    sent = made.server.to_share()
    made.states[0] = true.model_copy(update={"secrets": false}).to_bytes()
    made.share(range(COUNT), sent)
    return made, made.server.to_mask()


@pytest.mark.parametrize(
    ("seed", "masking"), [("mask_seed", range(1, 6)), ("self_seed", range(6))]
)
def test_an_owner_who_shared_something_else_fails_the_round(seed, masking):
    """Digests fit the shares, and the shares are of another seed: its fault alone."""
    made, sent = sharing_another(seed)
    made.mask(masking, sent)
    made.server.to_confirm()
    made.reveal(range(1, COUNT), made.server.to_reveal())
    with pytest.raises(RoundFailed, match="advertised"):
        made.server.result()


def test_only_survivors_confirm():
    made, sent = masked_play(COUNT, terms_of(ACTIVE), silent={5})
    made.confirm(range(5), sent)
    cohort = made.state(0).place.cohort
    signed = messages.survivors_signed(made.state(0).survivors, COUNT, cohort)
    signature = made.identities[5].sign(signed)
    message = messages.confirmation_to_bytes(signature, cohort)
    refused(made.server.add_confirmation, 5, message)
    made.reveal(range(5), made.server.to_reveal())
    assert len(made.server.result().survivors) == 5


def test_a_sum_that_chance_may_have_cut_in_two_is_not_unmasked():
    # Enough are left for the terms and for every secret; not for the graph.
    policy = Policy(corrupt=0.0, dropped=0.0, degree=12, security_bits=6)
    made = play(40, terms_of(policy))
    made.advertise(range(40))
    made.share(range(40), made.server.to_share())
    sent = made.server.to_mask()
    shape = made.state(0).shape
    few = next(left for left in range(40) if stays_whole(policy, shape, left)) - 1
    circle = made.state(0).graph.circle
    node = {made.state(each).place.member: each for each in range(40)}
    silent = {circle[round(place * 40 / (40 - few))] for place in range(40 - few)}
    made.mask([node[each] for each in circle if each not in silent], sent)
    with pytest.raises(RoundFailed, match="fall into two"):
        made.server.to_confirm()
