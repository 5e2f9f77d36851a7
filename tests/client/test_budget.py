"""Consent, floor and lifetime budgets, before a private row is looked at."""

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from client.budget import check_charge, check_consent, exceeds, spent
from client.chain import Charge, LedgerEntry
from client.settings import ClientSettings
from common.accounting import epsilon
from common.errors import BudgetExhausted, NoConsent
from common.events import DpEvent
from tests.client.conftest import nonce_of, settings_of

EVENT = DpEvent(2.0, 0.5, 2)
PLAN = DpEvent(2.0, 0.5, 10)
DELTA = 1e-5


def settings(**changes) -> ClientSettings:
    return ClientSettings.model_validate(settings_of(**changes))


RICH = settings()


def charge(number: int = 1, event=EVENT, plan=(PLAN,), **changes) -> Charge:
    made = Charge("7", "movies", number, nonce_of(number), "train", event, plan)
    return replace(made, **changes)


def entries(*charges: Charge) -> list[LedgerEntry]:
    now = datetime(2026, 5, 1, tzinfo=UTC)
    return [LedgerEntry(n, now, "", "", each) for n, each in enumerate(charges, 1)]


def refused(made: Charge, before=(), by=RICH, match: str = "") -> None:
    with pytest.raises(BudgetExhausted, match=match):
        check_charge(made, entries(*before), by)


def test_rounds_of_a_run_add_up_to_its_plan() -> None:
    rounds = [charge(number) for number in range(1, 6)]
    for number in range(5):
        check_charge(rounds[number], entries(*rounds[:number]), RICH)
    assert spent(entries(*rounds), "user") == (PLAN,)
    refused(charge(6), rounds, match="declared")


def test_a_round_is_charged_once_for_each_purpose_whatever_its_nonce() -> None:
    before = [charge(1), charge(2)]
    for number in (1, 2):
        again = charge(number, nonce=nonce_of(77))
        refused(again, before, match="this round before")
    check_charge(charge(3, nonce=nonce_of(77)), entries(*before), RICH)
    check_charge(charge(1, run="8", nonce=nonce_of(77)), entries(*before), RICH)
    metrics = DpEvent(3.0, 1.0, 1)
    allowed, plan = settings(metrics_epsilon=1e6), (PLAN, metrics)
    trained = charge(1, plan=plan)
    measured = charge(1, metrics, plan, purpose="evaluate", nonce=nonce_of(77))
    check_charge(measured, entries(trained), allowed)
    refused(measured, [trained, measured], allowed, match="this round before")


@pytest.mark.parametrize("noise", [2.0, 4.0])
def test_a_run_that_cannot_be_finished_is_refused_at_its_first_round(noise) -> None:
    """A round that fits alone is refused if the run it starts does not."""
    event, plan = DpEvent(noise, 0.5, 1), DpEvent(noise, 0.5, 10)
    one, whole = epsilon([event], DELTA), epsilon([plan], DELTA)
    assert one < whole
    made = charge(event=event, plan=(plan,))
    check_charge(made, [], settings(target_epsilon=whole))
    for less in (one, whole * 0.999):
        refused(made, by=settings(target_epsilon=less), match="run would exceed")


def test_what_earlier_runs_spent_counts_for_ever() -> None:
    """A run that fits a fresh budget is refused on top of another's."""
    alone = epsilon([PLAN], DELTA)
    both = epsilon([PLAN, PLAN], DELTA)
    before = [charge(run="6", event=PLAN)]
    check_charge(charge(), [], settings(target_epsilon=alone))
    refused(charge(), before, by=settings(target_epsilon=alone), match="run would")
    refused(charge(), before, by=settings(target_epsilon=both * 0.999))
    check_charge(charge(), entries(*before), settings(target_epsilon=both))


def test_a_round_is_refused_when_others_spent_the_room_meanwhile() -> None:
    target = epsilon([replace(PLAN, steps=12)], DELTA)
    before = [charge(1), charge(2)]
    check_charge(charge(3), entries(*before), settings(target_epsilon=target))
    meanwhile = [*before, charge(run="8", event=replace(EVENT, steps=7))]
    refused(charge(3), meanwhile, settings(target_epsilon=target), "round would exceed")


def test_every_charge_up_to_the_refusal_keeps_the_budget() -> None:
    """Lives of runs with other noise: whatever is admitted stays within the target."""
    target, made = 3.0, []
    for run in range(20):
        noise = (2.0, 3.0, 9.0)[run % 3]
        each = DpEvent(noise, 0.3, 4)
        wanted = charge(run=str(run), event=each, plan=(each,))
        try:
            check_charge(wanted, entries(*made), settings(target_epsilon=target))
        except BudgetExhausted:
            continue
        made.append(wanted)
        assert epsilon(spent(entries(*made), "user"), DELTA) <= target
    assert 2 < len(made) < 20


def test_the_clients_own_delta_counts() -> None:
    target = epsilon([PLAN], DELTA)
    check_charge(charge(), [], settings(target_epsilon=target))
    refused(charge(), by=settings(target_epsilon=target, delta=1e-9), match="exceed")


def test_units_are_columns_and_never_added() -> None:
    """Interactions spent beyond any budget leave the users' column as it was."""
    interaction = replace(PLAN, unit="interaction")
    other = charge(run="6", event=replace(PLAN, unit="interaction", steps=10**4))
    tight = settings(target_epsilon=epsilon([PLAN], DELTA))
    check_charge(charge(), entries(other), tight)
    assert spent(entries(other, charge(run="5", event=PLAN)), "user") == (PLAN,)
    refused(charge(event=interaction, plan=(interaction,)), match="per interaction")
    budget = {"user": {}, "interaction": {"target-epsilon": 1e6}}
    both = ClientSettings.model_validate({"budget": budget})
    check_charge(charge(event=interaction, plan=(interaction,)), [], both)


def test_a_plan_in_two_units_is_counted_in_each() -> None:
    """The part in another unit does not fill this unit's column."""
    plan = (PLAN, replace(PLAN, unit="interaction", steps=10**4))
    check_charge(charge(plan=plan), [], settings(target_epsilon=epsilon([PLAN], DELTA)))


@pytest.mark.parametrize("changed", [{"sample_rate": 0.6}, {"noise_multiplier": 3.0}])
def test_another_mechanism_within_a_run_is_refused(changed) -> None:
    event, plan = replace(EVENT, **changed), replace(PLAN, **changed)
    refused(charge(2, event, (plan,)), [charge(1)], match="declared")
    refused(charge(2, event), [charge(1)], match="declared")


def test_a_plan_that_grows_within_a_run_is_refused() -> None:
    refused(charge(2, plan=(replace(PLAN, steps=20),)), [charge(1)], match="declared")


def test_a_round_larger_than_the_rest_of_the_plan_is_refused() -> None:
    before = [charge(1, event=replace(EVENT, steps=9))]
    refused(charge(2), before, match="declared")
    check_charge(charge(2, event=replace(EVENT, steps=1)), entries(*before), RICH)


def test_no_noise_needs_consent() -> None:
    bare = replace(EVENT, noise_multiplier=0.0)
    made = charge(event=bare, plan=(replace(PLAN, noise_multiplier=0.0),))
    refused(made, match="without noise")
    check_charge(made, [], settings(**{"allow-non-private": True}))


def test_after_a_run_without_noise_nothing_is_left() -> None:
    bare = charge(run="6", event=replace(EVENT, noise_multiplier=0.0))
    refused(charge(), [bare], by=settings(target_epsilon=1e9), match="exceed")


def test_less_noise_than_the_client_allows_is_refused() -> None:
    strict = settings(**{"least-noise-multiplier": 2.1})
    refused(charge(), by=strict, match="less noise")
    check_charge(charge(), [], settings(**{"least-noise-multiplier": 2.0}))


def test_metrics_need_a_share_of_their_own() -> None:
    metric = DpEvent(5.0, 1.0, 1)
    plan = (PLAN, replace(metric, steps=3))
    made = [charge(n, metric, plan, purpose="evaluate") for n in (1, 2, 3)]
    refused(made[0], match="no metrics")
    two = epsilon([replace(metric, steps=2)], DELTA)
    share = settings(metrics_epsilon=two)
    check_charge(made[0], [], share)
    check_charge(made[1], entries(made[0]), share)
    refused(made[2], made[:2], by=share, match="share")
    check_charge(charge(2, plan=plan), entries(*made[:2]), share)


def test_training_and_metrics_of_one_mechanism_are_told_apart_by_no_one() -> None:
    """Both unsampled at one noise: the plan allows the steps of the two together."""
    event = DpEvent(5.0, 1.0, 1)
    plan = (replace(event, steps=4), replace(event, steps=2))
    share = settings(metrics_epsilon=1e6)
    made = [charge(n, event, plan) for n in range(1, 5)]
    made += [charge(n, event, plan, purpose="evaluate") for n in (2, 4)]
    for number, each in enumerate(made):
        check_charge(each, entries(*made[:number]), share)
    refused(charge(7, event, plan), made, by=share, match="declared")


def test_metrics_count_in_the_whole_budget_as_well() -> None:
    metric = DpEvent(5.0, 1.0, 1)
    plan = (PLAN, metric)
    target = epsilon([PLAN], DELTA)
    refused(
        charge(plan=plan), by=settings(target_epsilon=target, metrics_epsilon=target)
    )


@pytest.mark.parametrize(
    "event",
    [
        DpEvent(0.25, 0.5, 10**6),
        DpEvent(1.0, 0.5, 10**5),
        DpEvent(0.3, 1.0, 10**5),
        DpEvent(1e-6, 0.5, 10),
    ],
)
def test_a_hopeless_request_is_refused_without_counting_it(monkeypatch, event) -> None:
    """Its loss distribution takes minutes and gigabytes: a server could ask for it."""

    def never(events, delta):
        raise AssertionError("the loss distribution was computed")

    monkeypatch.setattr("client.budget.epsilon", never)
    monkeypatch.setattr("client.budget.epsilon_bound", never)
    start = time.perf_counter()
    assert exceeds([event], 8.0, DELTA)
    assert time.perf_counter() - start < 30, "a bound against minutes, no timing"


@pytest.mark.parametrize("target", [0.1, 1.0, 8.0, 50.0])
def test_the_short_cut_refuses_nothing_that_would_fit(target: float) -> None:
    for noise, rate in ((1.0, 0.01), (4.0, 0.5), (2.0, 1.0), (40.0, 0.001)):
        event = DpEvent(noise, rate, 1)
        steps = 1
        while steps < 4096 and epsilon([replace(event, steps=steps)], DELTA) <= target:
            assert not exceeds([replace(event, steps=steps)], target, DELTA)
            steps *= 4


def test_consent_is_by_name_or_by_key() -> None:
    named = ClientSettings(runs=("movies",), servers=("ab" * 32,))
    check_consent(named, "movies", "")
    check_consent(named, "movies", "cd" * 32)
    check_consent(named, "books", "ab" * 32)
    check_consent(ClientSettings(servers=("AB" * 32,)), "books", "ab" * 32)
    check_consent(ClientSettings(runs=("*",)), "anything", "")
    for name, server in (("books", ""), ("books", "cd" * 32), ("*", ""), ("", "")):
        with pytest.raises(NoConsent):
            check_consent(named, name, server)
    with pytest.raises(NoConsent):
        check_consent(ClientSettings(), "movies", "")
    with pytest.raises(NoConsent):
        check_consent(ClientSettings(servers=("",)), "movies", "")
