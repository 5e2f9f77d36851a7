"""A client's round of a secure sum, through the exit door."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

import client.app as wiring
import client.secure_round as module
from client.release import FAILED, MISFIT, REFUSED
from client.secure_lineage import LINEAGE, MOST_RUNS, check_last, remember
from client.secure_round import kept_state
from common import wire
from common.errors import ProtocolError
from tests.client.conftest import message_of, nonce_of, rows, spent, write_folder
from tests.client.secure_parts import (
    ANSWERS,
    Cohort,
    other_student,
    reason,
    secure_context,
    step_message,
)

STEPS = [kind for kind in ANSWERS if kind != wire.CONFIRM]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "0000", rows(1))


@pytest.fixture
def cohort(folder) -> Cohort:
    return Cohort(secure_context(folder))


@pytest.fixture
def vectors(monkeypatch) -> list[np.ndarray]:
    """What clients put into sums, as the sums' owner never sees it."""
    found, made = [], module.contribution

    def contribution(*arguments):
        found.append(made(*arguments))
        return found[-1]

    monkeypatch.setattr(module, "contribution", contribution)
    return found


def updates_of(monkeypatch) -> list:
    found, made = [], module.contribution

    def contribution(update, *others):
        found.append(update)
        return made(update, *others)

    monkeypatch.setattr(module, "contribution", contribution)
    return found


def test_a_round_gives_the_sum_and_is_charged_once(cohort, folder, vectors) -> None:
    found = cohort.whole()
    np.testing.assert_array_equal(found, vectors[0])
    ((number, event),) = spent(folder)
    assert (number, event.mechanism, event.unit) == (1, "skellam", "user")
    receipts = {
        kind: wire.unpack_reply_header(reply.content).receipt
        for kind, reply in cohort.replies.items()
    }
    paid = [kind for kind, receipt in receipts.items() if receipt != wire.NO_RECEIPT]
    assert paid == [wire.MASKED]


@pytest.mark.parametrize("kind", STEPS)
def test_an_answer_is_one_record_of_bytes(cohort, kind) -> None:
    cohort.whole()
    content = cohort.replies[kind].content
    assert set(content) == {wire.ROUND, ANSWERS[kind]}
    (array,) = content[ANSWERS[kind]].values()
    assert array.dtype == "uint8"


def test_the_charge_comes_before_the_rows_are_read(cohort, folder, monkeypatch) -> None:
    told = cohort.until(wire.MASKED)
    seen = []

    def reads(place):
        seen.append(spent(place))
        raise MemoryError

    monkeypatch.setattr("client.app.read_client_data", reads)
    message = step_message(wire.MASKED, told=told)
    assert reason(message, cohort.context) == FAILED
    ((entry,),) = seen
    assert entry[0] == 1


@pytest.mark.parametrize("kind", [wire.ADVERTS, wire.SHARES, wire.REVEAL])
def test_nothing_else_is_charged_or_reads_a_row(
    cohort, folder, monkeypatch, kind
) -> None:
    told = cohort.until(kind)
    before = spent(folder)
    monkeypatch.setattr("client.app.read_client_data", None)
    cohort.ask(kind, told)
    assert spent(folder) == before


# ------------------------------------------------------------------ the update


def test_the_update_is_that_of_plain_local_steps(cohort, monkeypatch) -> None:
    """No noise on the way, nothing clipped but the whole."""
    import client.train

    seen, made = [], client.train.train

    def train(student, histories, labels, config, mechanism, streams):
        seen.append((histories.shape[0], labels, mechanism))
        return made(student, histories, labels, config, mechanism, streams)

    monkeypatch.setattr(client.train, "train", train)
    cohort.whole()
    ((users, labels, mechanism),) = seen
    assert (users, labels, mechanism.sample_rate) == (1, None, 1.0)
    assert (mechanism.noise_multiplier, mechanism.max_grad_norm) == (0.0, math.inf)


def test_a_client_trains_whatever_its_coin_says(folder, monkeypatch) -> None:
    import client.train

    updates, trained = updates_of(monkeypatch), []
    made = client.train.train
    monkeypatch.setattr(
        client.train, "train", lambda *args: trained.append(1) or made(*args)
    )
    context = secure_context(folder, **{"training.rounds": 12})
    for number in range(1, 13):
        Cohort(context, number).whole()
    assert len(trained) == 12
    inside = [update is not None for update in updates]
    assert 2 <= sum(inside) <= 10, "a coin of rate a half"


@pytest.mark.parametrize(
    ("users", "declared", "adds"),
    [(0, 1, True), (1, 1, True), (2, 1, False), (2, 2, True)],
)
def test_several_users_where_one_is_declared_add_noise_alone(
    tmp_path, monkeypatch, caplog, users, declared, adds
) -> None:
    folder = write_folder(
        tmp_path / "0000",
        rows(max(users, 1))[: None if users else 0],
        budget={"user": {"target-epsilon": 1e6}, "client": {"target-epsilon": 1e6}},
    )
    overrides = {"privacy.sample-rate": 1.0, "privacy.declared-users": declared}
    updates = updates_of(monkeypatch)
    Cohort(secure_context(folder, **overrides)).whole()
    assert [update is not None for update in updates] == [adds]
    assert ("several users" in caplog.text) is not adds


def test_a_user_more_or_less_moves_the_sum_by_the_clip_at_most(
    tmp_path, monkeypatch
) -> None:
    """From nobody to one to two users: each step adds or takes one clipped update."""
    sizes = []
    for users in (0, 1, 2):
        folder = write_folder(
            tmp_path / f"{users}", rows(max(users, 1))[: None if users else 0]
        )
        updates = updates_of(monkeypatch)
        context = secure_context(folder, **{"privacy.sample-rate": 1.0})
        Cohort(context).whole()
        sizes.append(0.0 if updates[0] is None else np.abs(updates[0]).sum())
        monkeypatch.undo()
    assert sizes[0] == sizes[2] == 0 < sizes[1]


# ------------------------------------------------------- order, replays, rounds


@pytest.mark.parametrize("kind", [wire.ADVERTS, wire.SHARES, wire.REVEAL])
def test_a_step_is_answered_once(cohort, kind) -> None:
    cohort.whole()
    # The ledger knows the round before the protocol does.
    expected = REFUSED if kind == wire.ADVERTS else MISFIT
    assert reason(cohort.messages[kind], cohort.context) == expected


def test_the_masked_vector_delivered_twice_is_the_same_bytes(
    cohort, folder, vectors
) -> None:
    cohort.whole()
    message = cohort.messages[wire.MASKED]
    again = wiring.app(message, cohort.context)
    assert again.content == cohort.replies[wire.MASKED].content
    other = step_message(wire.MASKED, told=b"other", state=other_student())
    assert wiring.app(other, cohort.context).content == again.content
    # A device that restarts in between has lost the round, and not what it sent.
    cohort.context.state = RecordDict()
    assert wiring.app(message, cohort.context).content == again.content
    assert len(vectors) == len(spent(folder)) == 1


def test_a_round_is_charged_once_whatever_its_nonce(cohort, folder, vectors) -> None:
    cohort.whole()
    told = wire.unpack_bytes(cohort.messages[wire.MASKED].content, wire.TOLD)
    message = step_message(wire.MASKED, told=told, nonce=nonce_of(99))
    assert reason(message, cohort.context) == REFUSED
    # Nor after a restart, which forgets the protocol's state and not the ledger.
    cohort.context.state = RecordDict()
    again = step_message(wire.ADVERTS, nonce=nonce_of(99))
    assert reason(again, cohort.context) == REFUSED
    assert len(vectors) == len(spent(folder)) == 1


@pytest.mark.parametrize("kind", STEPS[1:])
def test_a_step_before_its_turn_is_refused_and_costs_nothing(
    cohort, folder, kind
) -> None:
    cohort.whole()
    told = {
        k: wire.unpack_bytes(cohort.messages[k].content, wire.TOLD) for k in STEPS[1:]
    }
    after = spent(folder)
    fresh = Cohort(cohort.context, 2)
    if kind != wire.SHARES:
        fresh.advertise()
    early = step_message(kind, 2, told[kind])
    assert reason(early, cohort.context) == MISFIT
    assert spent(folder) == after


@pytest.mark.parametrize("kind", STEPS[1:])
@pytest.mark.parametrize("change", ["number", "run"])
def test_a_step_under_another_rounds_header_is_refused(
    cohort, folder, kind, change
) -> None:
    """A charge for one round must not pay for another's vector."""
    told = cohort.until(kind)
    before, state = spent(folder), kept_state(cohort.context)
    values = {"run": "12"} if change == "run" else {}
    number = 2 if change == "number" else 1
    message = step_message(kind, number, told, **values)
    assert reason(message, cohort.context) == MISFIT
    assert spent(folder) == before
    assert kept_state(cohort.context) == state


def test_what_another_round_told_is_refused(cohort, folder) -> None:
    cohort.whole()
    old = wire.unpack_bytes(cohort.messages[wire.MASKED].content, wire.TOLD)
    second = Cohort(cohort.context, 2)
    told = second.until(wire.MASKED)
    before = spent(folder)
    assert reason(step_message(wire.MASKED, 2, old), cohort.context) == MISFIT
    assert reason(step_message(wire.MASKED, 2, told[:-1]), cohort.context) == MISFIT
    assert spent(folder) == before, "nothing that cannot be answered is paid for"
    second.ask(wire.MASKED, told)


def test_an_earlier_round_never_begins_again(folder) -> None:
    context = secure_context(folder, **{"training.rounds": 5})
    Cohort(context, 3).advertise()
    for number in (1, 2, 3):
        assert reason(step_message(wire.ADVERTS, number), context) == MISFIT
    assert reason(step_message(wire.ADVERTS, 6), context) == MISFIT, "no such round"


def test_a_state_that_was_answered_from_is_never_gone_back_to(cohort, folder) -> None:
    """Two messages at once get two processes, each with a copy of the state."""
    told = cohort.until(wire.REVEAL)
    stale = copy.deepcopy(cohort.context)
    message = step_message(wire.REVEAL, told=told)
    assert reason(message, cohort.context) is None
    assert reason(message, stale) == MISFIT
    assert (folder / LINEAGE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", STEPS[1:])
@pytest.mark.parametrize("damage", ["gone", "cut", "another"])
def test_without_its_lineage_no_state_is_answered_from(
    cohort, folder, kind, damage
) -> None:
    told, before = cohort.until(kind), spent(folder)
    path = folder / LINEAGE
    text = path.read_text()
    path.unlink()
    if damage != "gone":
        path.write_text(text[:-9] if damage == "cut" else '["a"]')
    assert reason(step_message(kind, told=told), cohort.context) == MISFIT
    assert spent(folder) == before


def test_runs_beside_each_other_keep_their_own_lineage(folder) -> None:
    for number in range(MOST_RUNS + 2):
        remember(folder, str(number), b"state")
        remember(folder, "again", f"{number}".encode())
    check_last(folder, "again", f"{number}".encode())
    check_last(folder, str(number), b"state")
    with pytest.raises(ProtocolError):
        check_last(folder, str(number), b"other")
    with pytest.raises(ProtocolError):
        check_last(folder, "0", b"state")


def test_a_client_that_restarts_has_lost_the_round(cohort, folder) -> None:
    told = cohort.until(wire.MASKED)
    cohort.context.state = RecordDict()
    message = step_message(wire.MASKED, told=told)
    assert reason(message, cohort.context) == MISFIT
    assert spent(folder) == []


def test_other_terms_than_the_runs_own_are_refused(cohort, folder) -> None:
    told = cohort.until(wire.MASKED)
    cohort.context.run_config = dict(cohort.context.run_config) | {
        "privacy.noise-multiplier": 2.0
    }
    cohort.context.run_config["secagg.bits"] = 24
    message = step_message(wire.MASKED, told=told)
    assert reason(message, cohort.context) == MISFIT
    assert spent(folder) == []


# ---------------------------------------------------------- consent, budget, mode


@pytest.mark.parametrize("kind", STEPS)
def test_no_step_is_answered_without_consent(folder, kind) -> None:
    cohort = Cohort(secure_context(folder))
    told = cohort.until(kind)
    before = spent(folder)
    write_folder(folder, rows(1), runs=["another"])
    message = step_message(kind, told=told)
    assert reason(message, cohort.context) == REFUSED
    assert spent(folder) == before


def test_a_round_that_could_not_be_paid_for_is_refused_at_its_first_step(
    tmp_path,
) -> None:
    """A client that joined and then refused would be a sure drop-out."""
    folder = write_folder(tmp_path / "0000", rows(1), target_epsilon=1e-3)
    context = secure_context(folder)
    assert reason(step_message(wire.ADVERTS), context) == REFUSED
    assert kept_state(context) is None


@pytest.mark.parametrize("mode", ["local", "off"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_the_steps_belong_to_mode_distributed_alone(folder, mode, kind) -> None:
    context = secure_context(folder, **{"privacy.mode": mode})
    assert reason(step_message(kind, told=b"x"), context) == MISFIT


@pytest.mark.parametrize("kind", [wire.TRAIN, wire.EVALUATE, wire.STATISTICS])
def test_mode_distributed_answers_no_question_for_a_clients_own(folder, kind) -> None:
    assert reason(message_of(kind=kind), secure_context(folder)) == MISFIT
    assert spent(folder) == []


@pytest.mark.parametrize("kind", STEPS)
def test_another_catalogue_is_refused(cohort, kind) -> None:
    told = cohort.until(kind)
    message = step_message(kind, told=told, digest="0" * 64)
    assert reason(message, cohort.context) == MISFIT
