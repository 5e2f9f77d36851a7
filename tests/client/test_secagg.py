"""A client against a server that lies: it answers each thing once, or not at all."""

import numpy as np
import pytest

from client.secagg import advertise, confirm, mask, reveal, share
from client.secagg_state import Phase
from common.errors import ConfigError, ProtocolError
from common.secagg import messages
from common.secagg.cohort import Advert, Cohort
from common.secagg.messages import Reveal
from common.secagg.terms import Policy
from tests.secagg_parts import (
    ACTIVE,
    CURIOUS,
    masked_play,
    play,
    roster_of,
    terms_of,
)

COUNT = 7


def advertised(policy=CURIOUS, count=COUNT, **others):
    made = play(count, terms_of(policy, **others))
    made.advertise(range(count))
    return made, made.server.to_share()


def shared(policy=CURIOUS):
    made, sent = advertised(policy)
    made.share(range(COUNT), sent)
    return made, made.server.to_mask()


def cohort_of(made, message):
    return Cohort.from_bytes(message, made.terms.digest, lambda members: members - 1)


def listing(made, survivors):
    """A list of survivors that the server made up."""
    place = made.state(0).place
    return messages.survivors_to_bytes(survivors, COUNT, place.cohort)


def others_of(made):
    return [peer.member for peer in made.state(0).place.peers]


def own(made):
    return made.state(0).place.member


# ---------------------------------------------------------------- the cohort


def test_a_cohort_without_this_client_is_refused():
    made, sent = advertised()
    cohort = cohort_of(made, sent[0])
    state = made.state(0)
    entries = tuple(each for each in cohort.entries if each[0] != state.identity)
    adverts = tuple(each for each in cohort.adverts)[: len(entries) - 1]
    message = Cohort(entries, adverts).to_bytes(made.terms.digest)
    with pytest.raises(ProtocolError, match="own advert"):
        share(state, message, None)


def test_a_cohort_with_an_old_advert_of_this_client_is_refused():
    made, sent = advertised()
    again, _ = advertised()
    again.identities = made.identities
    step = advertise(None, made.terms, made.identities[0])
    with pytest.raises(ProtocolError, match="own advert"):
        share(step.state, sent[0], None)


def test_a_cohort_below_the_terms_is_refused():
    made, _ = advertised(least=5)
    small = play(3, made.terms)
    small.terms = terms_of(least=5)
    entries = sorted(
        (Advert.from_bytes(made.replies[node], made.terms.digest) for node in range(3)),
        key=lambda advert: advert.identity,
    )
    near = tuple(each for each in entries if each.identity != made.state(0).identity)
    pairs = tuple((each.identity, each.digest()) for each in entries)
    message = Cohort(pairs, near).to_bytes(made.terms.digest)
    with pytest.raises(ProtocolError, match="5 members or more"):
        share(made.state(0), message, None)


def test_a_cohort_above_the_terms_is_refused():
    # Of more members, more could be corrupt than the noise was planned for.
    made, sent = advertised()
    step = advertise(None, terms_of(most=COUNT - 1), made.identities[0])
    message = Cohort.to_bytes(cohort_of(made, sent[0]), step.state.terms.digest)
    with pytest.raises(ProtocolError, match="6 members at most"):
        share(step.state, message, None)


@pytest.mark.parametrize("field", ["seal_key", "mask_key", "commitment"])
def test_keys_that_the_server_put_in_are_refused(field):
    made, sent = advertised()
    cohort = cohort_of(made, sent[0])
    first = cohort.adverts[0]
    values = {
        name: getattr(first, name)
        for name in ("identity", "seal_key", "mask_key", "commitment", "signature")
    }
    false = Advert(**values | {field: b"\x07" * 32})
    adverts = (false, *cohort.adverts[1:])
    # In the graph's list as it was: the digest does not fit.
    message = Cohort(cohort.entries, adverts).to_bytes(made.terms.digest)
    with pytest.raises(ProtocolError, match="graph's neighbours"):
        share(made.state(0), message, None)
    # And with the digest changed as well: the signature does not.
    entries = tuple(
        (identity, false.digest() if identity == false.identity else digest)
        for identity, digest in cohort.entries
    )
    message = Cohort(entries, adverts).to_bytes(made.terms.digest)
    with pytest.raises(ProtocolError, match="signature"):
        share(made.state(0), message, None)


def test_neighbours_that_the_graph_does_not_give_are_refused():
    policy = Policy(
        corrupt=0.0, dropped=0.0, degree=4, security_bits=1, complete_up_to=0
    )
    made = play(12, terms_of(policy))
    made.advertise(range(12))
    sent = made.server.to_share()
    assert share(made.state(0), sent[0], None).state.phase == Phase.SHARED
    cohorts = {
        node: Cohort.from_bytes(sent[node], made.terms.digest, lambda members: 4)
        for node in range(12)
    }
    for node in range(1, 12):
        message = Cohort(cohorts[0].entries, cohorts[node].adverts)
        with pytest.raises(ProtocolError, match="graph's neighbours"):
            share(made.state(0), message.to_bytes(made.terms.digest), None)


def test_members_beyond_the_roster_are_refused():
    made, sent = advertised(ACTIVE)
    known = roster_of(made.identities[:-1])
    with pytest.raises(ProtocolError, match="roster"):
        share(made.state(0), sent[0], known)
    assert share(made.state(0), sent[0], made.roster).state.phase == Phase.SHARED


def test_an_active_policy_needs_a_roster():
    made, sent = advertised(ACTIVE)
    with pytest.raises(ConfigError, match="roster"):
        share(made.state(0), sent[0], None)


# ---------------------------------------------------------------- shares


def test_too_few_neighbours_are_refused():
    made, sent = shared()
    cohort = made.state(0).place.cohort
    delivered = messages.deliveries_from_bytes(sent[0], cohort, COUNT - 1)
    least = made.state(0).shape.threshold
    few = dict(list(delivered.items())[: least - 1])
    with pytest.raises(ProtocolError, match=f"{least} neighbours or more"):
        mask(made.state(0), messages.deliveries_to_bytes(few, cohort), made.vectors[0])


@pytest.mark.parametrize("stranger", ["self", "nobody"])
def test_shares_of_others_than_neighbours_are_refused(stranger):
    made, sent = shared()
    place = made.state(0).place
    delivered = messages.deliveries_from_bytes(sent[0], place.cohort, COUNT - 1)
    taken = delivered.pop(min(delivered))
    delivered[place.member if stranger == "self" else 99] = taken
    message = messages.deliveries_to_bytes(delivered, place.cohort)
    with pytest.raises(ProtocolError, match="nobody else"):
        mask(made.state(0), message, made.vectors[0])


def test_shares_that_cannot_be_opened_cost_one_answer_and_no_round():
    made, sent = shared()
    cohort = made.state(0).place.cohort
    delivered = messages.deliveries_from_bytes(sent[0], cohort, COUNT - 1)
    victim = min(delivered)
    delivered[victim] = bytes(len(delivered[victim]))
    sent[0] = messages.deliveries_to_bytes(delivered, cohort)
    made.mask(range(COUNT), sent)
    made.server.to_confirm()
    sent = made.server.to_reveal()
    made.reveal(range(COUNT), sent)
    told = Reveal.from_bytes(made.replies[0], cohort, COUNT - 1)
    assert told.shares.keys() == delivered.keys() - {victim}
    assert len(made.server.result().survivors) == COUNT


@pytest.mark.parametrize(
    "change",
    [lambda v: v[:-1], lambda v: v.astype(np.uint64), lambda v: v.reshape(1, -1)],
    ids=["short", "wide", "nested"],
)
def test_a_vector_of_another_form_is_refused(change):
    made, sent = shared()
    with pytest.raises(ProtocolError, match="vector of 7 elements"):
        mask(made.state(0), sent[0], change(made.vectors[0]))


def test_the_vector_itself_is_left_as_it_was():
    made, sent = shared()
    before = made.vectors[0].copy()
    mask(made.state(0), sent[0], made.vectors[0])
    assert (made.vectors[0] == before).all()


# ---------------------------------------------------------------- survivors


def test_of_each_neighbour_one_kind_of_share_is_told_and_once():
    gone = {2, 5}
    made, sent = masked_play(COUNT, terms_of(), silent=gone)
    held, survivors = made.state(0).held, {made.state(n).place.member for n in sent}
    step = reveal(made.state(0), sent[0])
    cohort = made.state(0).place.cohort
    told = Reveal.from_bytes(step.reply, cohort, COUNT - 1)
    assert told.shares.keys() == held.keys() == set(others_of(made))
    for member, share_told in told.shares.items():
        both = held[member]
        right, wrong = both.self_share, both.mask_share
        if member not in survivors:
            right, wrong = wrong, right
        assert share_told == right != wrong
        assert wrong not in step.reply
    assert made.state(0).self_seed == told.seed
    for message in (sent[0], listing(made, range(COUNT)), made.replies[1]):
        with pytest.raises(ProtocolError):
            reveal(step.state, message)


@pytest.mark.parametrize("policy", [CURIOUS, ACTIVE], ids=["curious", "active"])
def test_a_second_list_is_refused_the_same_or_not(policy):
    made, sent = masked_play(COUNT, terms_of(policy))
    state = made.state(0)
    if policy.active:
        accepted = confirm(state, sent[0], made.identities[0]).state
        answer = (confirm, (made.identities[0],))
    else:
        accepted = reveal(state, sent[0]).state
        answer = (reveal, ())
    for message in (sent[0], listing(made, [own(made), *others_of(made)[:5]])):
        with pytest.raises(ProtocolError):
            answer[0](accepted, message, *answer[1])


def test_a_list_without_this_client_is_refused():
    made, _ = masked_play(COUNT, terms_of())
    with pytest.raises(ProtocolError, match="this client"):
        reveal(made.state(0), listing(made, others_of(made)))


def test_a_list_below_the_terms_is_refused():
    made, _ = masked_play(COUNT, terms_of(least=6))
    few = [own(made), *others_of(made)[:4]]
    with pytest.raises(ProtocolError, match="6 or more"):
        reveal(made.state(0), listing(made, few))
    assert reveal(made.state(0), listing(made, [*few, others_of(made)[4]]))


def test_a_list_below_the_neighbours_threshold_is_refused():
    made, _ = masked_play(COUNT, terms_of())
    least = made.state(0).shape.threshold
    few = [own(made), *others_of(made)[: least - 1]]
    with pytest.raises(ProtocolError, match=f"{least} neighbours or more"):
        reveal(made.state(0), listing(made, few))


def test_a_survivor_who_never_shared_is_refused():
    made, sent = shared()
    cohort = made.state(0).place.cohort
    delivered = messages.deliveries_from_bytes(sent[0], cohort, COUNT - 1)
    kept_back = min(delivered)
    del delivered[kept_back]
    sent[0] = messages.deliveries_to_bytes(delivered, cohort)
    made.mask(range(COUNT), sent)
    with pytest.raises(ProtocolError, match="all of whom had shared"):
        reveal(made.state(0), listing(made, range(COUNT)))
    without = [own(made), *(set(others_of(made)) - {kept_back})]
    assert reveal(made.state(0), listing(made, without)).state.phase == Phase.REVEALED


def test_a_curious_policy_confirms_nothing():
    made, sent = masked_play(COUNT, terms_of())
    with pytest.raises(ProtocolError, match="no list to confirm"):
        confirm(made.state(0), sent[0], made.identities[0])
