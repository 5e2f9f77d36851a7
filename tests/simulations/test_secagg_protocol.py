"""Both sides together: the masked sum is the plain sum, or the round fails."""

import copy
import random

import numpy as np
import pytest

from common.errors import RoundFailed
from common.secagg.bounds import choose_shape
from common.secagg.terms import Policy
from tests.secagg_parts import (
    ACTIVE,
    CURIOUS,
    opens,
    plain_sum,
    play,
    subsets,
    terms_of,
    whole_round,
)


def every_pattern(count, policy):
    """Each way in which clients fall silent: who sent what, and the sum or ``None``.

    What clients answer is made once for all patterns that begin alike.
    """
    start = play(count, terms_of(policy))
    start.advertise(range(count))
    adverts = dict(start.replies)
    for advertised in subsets(range(count)):
        made = play(0, start.terms)
        made.identities, made.vectors = start.identities, start.vectors
        made.server = type(start.server)(start.terms, start.roster)
        made.states = dict(start.states)
        for node in advertised:
            made.server.add_advert(node, adverts[node])
        yield from follow(made, (advertised,))


STEPS = {1: ("to_share", "share"), 2: ("to_mask", "mask"), 4: ("to_reveal", "reveal")}
STEPS |= {3: ("to_confirm", "confirm")}
ADD = {1: "add_shares", 2: "add_masked", 3: "add_confirmation", 4: "add_reveal"}


def follow(made, sent):
    step = len(sent)
    if step == 5:
        yield sent, result_or_none(made.server)
        return
    try:
        messages = getattr(made.server, STEPS[step][0])()
    except RoundFailed:
        yield sent + ((),) * (5 - step), None
        return
    if step == 3 and not messages:
        yield from follow(made, (*sent, sent[-1]))
        return
    answering = copy.deepcopy(made)
    getattr(answering, STEPS[step][1])(messages, messages)
    for chosen in subsets(messages):
        branch = copy.deepcopy(made)
        branch.states = answering.states
        for node in chosen:
            getattr(branch.server, ADD[step])(node, answering.replies[node])
        yield from follow(branch, (*sent, chosen))


def result_or_none(server):
    try:
        return server.result()
    except RoundFailed:
        return None


def check_every_pattern(count, policy):
    successes = failures = 0
    vectors = None
    for sent, found in every_pattern(count, policy):
        terms = terms_of(policy)
        vectors = vectors or play(count, terms).vectors
        masked = sent[2]
        assert (found is not None) == opens(policy, terms.least, *sent), sent
        if found is None:
            failures += 1
            continue
        successes += 1
        assert sorted(found.survivors) == sorted(masked)
        expected = plain_sum(terms, [vectors[node] for node in masked])
        assert found.values.tolist() == expected.tolist(), sent
    return successes, failures


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("policy", [CURIOUS, ACTIVE], ids=["curious", "active"])
def test_every_pattern_of_few_gives_the_plain_sum_or_fails(count, policy):
    successes, failures = check_every_pattern(count, policy)
    assert successes >= 1 and failures >= 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "policy"),
    [(5, CURIOUS), (5, ACTIVE), (6, CURIOUS), (6, ACTIVE)],
    ids=["5 curious", "5 active", "6 curious", "6 active"],
)
def test_every_pattern_of_six_gives_the_plain_sum_or_fails(count, policy):
    successes, failures = check_every_pattern(count, policy)
    assert successes >= 20 and failures >= 100


#: Few neighbours, so that two hundred take a second; bounds as low as they are.
SPARSE = {"corrupt": 0.02, "dropped": 0.05, "degree": 16, "security_bits": 8}


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("active", "bits"),
    [
        (False, 20),
        *(pytest.param(False, bits, marks=SLOW) for bits in (13, 32, 47)),
        pytest.param(True, 20, marks=SLOW),
    ],
)
def test_two_hundred_with_drop_outs_at_every_step(active, bits):
    terms = terms_of(Policy(active=active, **SPARSE), bits=bits, length=33, least=100)
    draw = random.Random(bits)
    made = play(200, terms, seed=bits)
    gone = draw.sample(range(200), 10)
    dropping = {node: step % 5 for step, node in enumerate(gone)}
    found = whole_round(made, dropping)
    assert found is not None
    survivors = [node for node in range(200) if dropping.get(node, 9) > 2]
    assert sorted(found.survivors) == survivors
    expected = plain_sum(terms, [made.vectors[node] for node in survivors])
    assert found.values.tolist() == expected.tolist()


@pytest.mark.slow
def test_two_hundred_under_the_bounds_of_the_policy():
    policy = Policy(active=True, corrupt=0.05)
    terms = terms_of(policy, least=150)
    draw, made = random.Random(1), play(200, terms)
    assert not choose_shape(policy, 200).complete
    dropping = {node: draw.randrange(5) for node in draw.sample(range(200), 15)}
    found = whole_round(made, dropping)
    survivors = [node for node in range(200) if dropping.get(node, 9) > 2]
    expected = plain_sum(terms, [made.vectors[node] for node in survivors])
    assert found.values.tolist() == expected.tolist()


def test_the_rounds_of_a_run_follow_each_other():
    made = play(4, terms_of())
    assert whole_round(made, {}) is not None
    following = play(4, terms_of(round=1), seed=1)
    following.identities, following.states = made.identities, made.states
    found = whole_round(following, {})
    expected = plain_sum(following.terms, following.vectors)
    assert found.values.tolist() == expected.tolist()


def test_what_the_server_adds_up_looks_like_chance():
    terms = terms_of(length=20_000, bits=16)
    made = play(3, terms)
    made.vectors = [np.zeros_like(each) for each in made.vectors]
    made.advertise(range(3))
    made.share(range(3), made.server.to_share())
    made.mask(range(3), made.server.to_mask())
    seen = []
    for node in range(3):
        words = np.frombuffer(made.replies[node][37:], np.uint8)
        counts = np.bincount(words, minlength=256)
        expected = len(words) / 256
        # Chi-square with 255 degrees: mean 255, deviation 22.6.
        assert abs(((counts - expected) ** 2 / expected).sum() - 255) < 8 * 22.6
        seen.append(words.astype(float))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(seen[first], seen[second])[0, 1]) < 0.03
