"""A client's steps in order: confirmations, replays, and what its state holds."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client import secagg
from client.secagg import advertise, confirm, mask, reveal, share
from client.secagg_state import ClientState, Phase
from common.errors import ConfigError, ProtocolError
from common.secagg import messages
from common.secagg.shares import combine
from common.secagg.terms import Policy
from tests.secagg_parts import (
    ACTIVE,
    CURIOUS,
    masked_play,
    play,
    terms_of,
    whole_round,
)

COUNT = 7


def listing(made, survivors):
    """A list of survivors that the server made up."""
    place = made.state(0).place
    return messages.survivors_to_bytes(survivors, COUNT, place.cohort)


# ---------------------------------------------------------------- confirmations


def confirmed(policy=ACTIVE, count=COUNT):
    made, sent = masked_play(count, terms_of(policy))
    made.confirm(range(count), sent)
    return made, made.server.to_reveal()


def test_an_active_policy_reveals_nothing_for_a_list_alone():
    made, sent = masked_play(COUNT, terms_of(ACTIVE))
    with pytest.raises(ProtocolError, match="has MASKED"):
        reveal(made.state(0), sent[0])


def test_too_few_confirmations_are_refused_and_enough_are_not():
    made, sent = confirmed()
    state = made.state(0)
    cohort, quorum = state.place.cohort, state.shape.quorum
    signatures = messages.confirmations_from_bytes(sent[0], cohort, COUNT)
    for count in (0, quorum - 1):
        few = dict(list(signatures.items())[:count])
        with pytest.raises(ProtocolError, match=f"expected {quorum}"):
            reveal(state, messages.confirmations_to_bytes(few, cohort))
    enough = dict(list(signatures.items())[:quorum])
    assert reveal(state, messages.confirmations_to_bytes(enough, cohort))


def test_members_who_are_named_and_not_there_do_not_count():
    """A list may name whom it likes; noise was planned for clients who are there."""
    made, sent = masked_play(COUNT, terms_of(ACTIVE, least=COUNT))
    made.confirm(range(COUNT), sent)
    sent, state = made.server.to_reveal(), made.state(0)
    cohort = state.place.cohort
    signatures = messages.confirmations_from_bytes(sent[0], cohort, COUNT)
    del signatures[max(signatures)]
    assert len(signatures) >= state.shape.quorum
    with pytest.raises(ProtocolError, match=f"expected {COUNT} of this list"):
        reveal(state, messages.confirmations_to_bytes(signatures, cohort))
    assert reveal(state, sent[0]).state.phase == Phase.REVEALED


def test_confirmations_of_another_list_or_by_others_do_not_count():
    made, _ = confirmed()
    state = made.state(0)
    cohort = state.place.cohort
    everybody = messages.survivors_signed(range(COUNT), COUNT, cohort)
    fewer = messages.survivors_signed(range(COUNT - 1), COUNT, cohort)
    strangers = [Ed25519PrivateKey.generate() for _ in range(COUNT)]
    by_member = {made.state(n).place.member: made.identities[n] for n in range(COUNT)}
    for signatures in (
        {member: key.sign(fewer) for member, key in by_member.items()},
        {member: key.sign(everybody) for member, key in enumerate(strangers)},
        {member: by_member[0].sign(everybody) for member in by_member},
    ):
        message = messages.confirmations_to_bytes(signatures, cohort)
        with pytest.raises(ProtocolError, match="CONFIRMATIONS"):
            reveal(state, message)


def test_two_lists_for_two_halves_open_nothing():
    """The split that one list for all is there to prevent."""
    made, _ = masked_play(COUNT, terms_of(ACTIVE))
    place = {node: made.state(node).place for node in range(COUNT)}
    everyone = {each.member for each in place.values()}
    lists = [everyone - {place[6].member}, everyone - {place[5].member}]
    told = {node: lists[node % 2] for node in range(5)}
    states, signatures = {}, [{}, {}]
    for node, survivors in told.items():
        step = confirm(
            made.state(node), listing(made, survivors), made.identities[node]
        )
        states[node] = step.state
        signature = messages.confirmation_from_bytes(step.reply, place[0].cohort)
        signatures[node % 2][place[node].member] = signature
    for node, state in states.items():
        for each in (*signatures, signatures[0] | signatures[1]):
            message = messages.confirmations_to_bytes(each, place[0].cohort)
            with pytest.raises(ProtocolError, match="CONFIRMATIONS"):
                reveal(state, message)
            assert state.phase == Phase.CONFIRMED, node


def test_a_stretch_of_the_circle_that_nobody_confirmed_is_refused():
    policy = Policy(
        active=True, corrupt=0.02, degree=12, security_bits=20, complete_up_to=0
    )
    made, sent = confirmed(policy, 50)
    state = made.state(0)
    cohort, shape = state.place.cohort, state.shape
    assert 0 < shape.window < shape.degree // 2
    signatures = messages.confirmations_from_bytes(sent[0], cohort, 50)
    circle = [member for member in state.graph.circle if member in signatures]
    missing = shape.degree // 2 - shape.window
    kept = {m: signatures[m] for m in circle[missing:]}
    assert reveal(state, messages.confirmations_to_bytes(kept, cohort))
    kept = {m: signatures[m] for m in circle[missing + 1 :]}
    assert len(kept) > shape.quorum
    with pytest.raises(ProtocolError, match="places in a row"):
        reveal(state, messages.confirmations_to_bytes(kept, cohort))


def test_another_identity_confirms_nothing():
    made, sent = masked_play(COUNT, terms_of(ACTIVE))
    with pytest.raises(ProtocolError, match="identity that advertised"):
        confirm(made.state(0), sent[0], made.identities[1])


# ---------------------------------------------------------------- order, replays


def everything(policy):
    """A client's state before each step, and the message that belongs to it."""
    made = play(COUNT, terms_of(policy))
    found = {}

    def note(name, sent):
        found[name] = (made.state(0), sent[0])

    made.advertise(range(COUNT))
    sent = made.server.to_share()
    note("share", sent)
    made.share(range(COUNT), sent)
    sent = made.server.to_mask()
    note("mask", sent)
    made.mask(range(COUNT), sent)
    if sent := made.server.to_confirm():
        note("confirm", sent)
        made.confirm(range(COUNT), sent)
    sent = made.server.to_reveal()
    note("reveal", sent)
    made.reveal(range(COUNT), sent)
    found["over"] = (made.state(0), b"")
    return made, found


def steps(made):
    return {
        "share": lambda state, data: share(state, data, made.roster),
        "mask": lambda state, data: mask(state, data, made.vectors[0]),
        "confirm": lambda state, data: confirm(state, data, made.identities[0]),
        "reveal": reveal,
    }


@pytest.mark.parametrize("policy", [CURIOUS, ACTIVE], ids=["curious", "active"])
def test_every_step_takes_its_own_message_in_its_own_place_only(policy):
    made, found = everything(policy)
    for at, (state, _) in found.items():
        for name, step in steps(made).items():
            for belongs, (_, message) in found.items():
                if at == name == belongs:
                    assert step(state, message).state.phase > state.phase
                    continue
                before = state.to_bytes()
                with pytest.raises(ProtocolError):
                    step(state, message)
                assert state.to_bytes() == before


@pytest.mark.parametrize("change", [{"round": 1}, {"run": "other"}, {"length": 8}])
def test_messages_of_another_round_run_or_terms_are_refused(change):
    made, found = everything(CURIOUS)
    other = play(COUNT, terms_of(**change))
    other.identities = made.identities
    other.advertise(range(COUNT))
    for name, step in steps(made).items():
        if name in found:
            with pytest.raises(ProtocolError):
                step(other.state(0), found[name][1])
    with pytest.raises(ProtocolError, match="this round"):
        share(other.state(0), found["share"][1], None)


@pytest.mark.parametrize("policy", [CURIOUS, ACTIVE], ids=["curious", "active"])
def test_changed_messages_are_refused_or_harmless(policy):
    """Cut, padded, or with a byte changed: an error of ours, never another's."""
    made, found = everything(policy)
    for name, step in steps(made).items():
        if name not in found:
            continue
        state, message = found[name]
        for changed in (message[:-1], message + b"\0", message[:20], b""):
            with pytest.raises(ProtocolError):
                step(state, changed)
        for place in range(0, len(message), 7):
            changed = bytearray(message)
            changed[place] ^= 0x41
            try:
                step(state, bytes(changed))
            except ProtocolError:
                continue
            assert name in ("mask", "reveal") and place > 37


def test_a_round_is_begun_once_and_none_goes_back():
    made = play(4, terms_of(round=5))
    made.advertise(range(4))
    for number in (5, 4, 0):
        with pytest.raises(ProtocolError, match="round after 5"):
            advertise(made.state(0), terms_of(round=number), made.identities[0])
    with pytest.raises(ProtocolError, match="same run"):
        advertise(made.state(0), terms_of(round=6, run="x"), made.identities[0])
    assert advertise(made.state(0), terms_of(round=6), made.identities[0])


# ---------------------------------------------------------------- the state


def test_secrets_are_dropped_as_soon_as_no_step_needs_them():
    _, found = everything(ACTIVE)
    first = found["share"][0]
    seeds = (first.secrets.mask_seed, first.secrets.seal, first.secrets.self_seed)
    kept = {name: state.to_bytes() for name, (state, _) in found.items()}
    assert all(seed.hex().encode() in kept["mask"] for seed in seeds)
    for name in ("confirm", "reveal"):
        assert not any(seed.hex().encode() in kept[name] for seed in seeds[:2])
        assert seeds[2].hex().encode() in kept[name]
    assert not any(seed.hex().encode() in kept["over"] for seed in seeds)
    over = found["over"][0]
    assert over.secrets is over.place is None and not over.held and not over.self_seed


def test_a_state_comes_back_and_shows_no_secret():
    _, found = everything(CURIOUS)
    for state, _ in found.values():
        assert ClientState.from_bytes(state.to_bytes()) == state
        shown = repr(state) + str(state)
        secrets = [state.self_seed, *(h.self_share for h in state.held.values())]
        secrets += [h.mask_share for h in state.held.values()]
        if state.secrets:
            secrets += [state.secrets.seal, state.secrets.mask_seed]
        for secret in filter(None, secrets):
            assert repr(secret) not in shown and secret.hex() not in shown


@pytest.mark.parametrize("change", [b"", b"{}", b"[1", b'{"phase": "self_seed"}'])
def test_a_damaged_state_is_refused_and_not_quoted(change):
    with pytest.raises(ProtocolError) as caught:
        ClientState.from_bytes(change)
    assert str(caught.value) == "Expected a client's state, got another."
    assert caught.value.__cause__ is None


def test_refusals_hold_no_secret():
    made, found = everything(CURIOUS)
    state = found["reveal"][0]
    secrets = [h.self_share for h in state.held.values()] + [state.self_seed]
    for step in steps(made).values():
        with pytest.raises((ProtocolError, ConfigError)) as caught:
            step(state, b"x" * 100)
        for secret in secrets:
            assert secret.hex() not in str(caught.value)


def test_shares_of_a_threshold_open_the_self_mask_and_fewer_do_not():
    made, _ = masked_play(COUNT, terms_of())
    owner = made.state(1).place.member
    threshold = made.state(0).shape.threshold
    holders = sorted(n for n in range(COUNT) if n != 1)
    near = [m for m in range(COUNT) if m != owner]
    found = {
        near.index(made.state(n).place.member) + 1: made.state(n).held[owner].self_share
        for n in holders
    }
    assert combine(found, threshold) == made.state(1).self_seed
    few = dict(list(found.items())[: threshold - 1])
    assert combine(few, threshold) != made.state(1).self_seed


def test_seeds_are_drawn_anew_for_every_round_and_client(monkeypatch):
    drawn = []
    real = secagg.keys.draw_seed
    monkeypatch.setattr(
        secagg.keys, "draw_seed", lambda: drawn.append(real()) or drawn[-1]
    )
    made = play(3, terms_of())
    whole_round(made, {})
    following = play(3, terms_of(round=1))
    following.identities, following.states = made.identities, made.states
    whole_round(following, {})
    assert len(drawn) == len(set(drawn)) == 12
