"""Charged before training, never refunded."""

from dataclasses import replace

import pytest

from client.app import app
from client.ledger import charge, spent
from client.settings import ClientSettings
from common.accounting import LEAST_NOISE, DpEvent, epsilon
from common.errors import BudgetExhausted, ProtocolError
from tests.client.conftest import context_of, message_of, rows, write_folder

EVENT = DpEvent(2.0, 0.5, 2)
PLAN = DpEvent(2.0, 0.5, 10)
RICH = ClientSettings.model_validate({"max-epsilon": 1e6})


def test_charges_add_up_in_order(folder) -> None:
    context = context_of(folder)
    for number in (1, 2, 5):
        charge(context, number, EVENT, PLAN, RICH)
    assert spent(context) == [(1, EVENT), (2, EVENT), (5, EVENT)]


@pytest.mark.parametrize("number", [1, 2])
def test_a_round_is_charged_once(folder, number: int) -> None:
    context = context_of(folder)
    charge(context, 2, EVENT, PLAN, RICH)
    with pytest.raises(ProtocolError):
        charge(context, number, EVENT, PLAN, RICH)


def test_a_run_that_cannot_be_finished_is_refused_at_its_first_round(folder) -> None:
    context = context_of(folder)
    with pytest.raises(BudgetExhausted, match="budget"):
        charge(
            context, 1, EVENT, PLAN, ClientSettings.model_validate({"max-epsilon": 1.0})
        )
    assert spent(context) == []


def test_a_run_keeps_to_its_plan(folder) -> None:
    context = context_of(folder)
    for number in range(1, 6):
        charge(context, number, EVENT, PLAN, RICH)
    with pytest.raises(BudgetExhausted, match="declared"):
        charge(context, 6, EVENT, PLAN, RICH)
    fresh = context_of(folder)
    charge(fresh, 1, EVENT, PLAN, RICH)
    with pytest.raises(BudgetExhausted, match="declared"):
        less = {"noise_multiplier": 0.1}
        charge(fresh, 2, replace(EVENT, **less), replace(PLAN, **less), RICH)


def test_no_noise_needs_consent(folder) -> None:
    event, plan = (
        replace(EVENT, noise_multiplier=0.0),
        replace(PLAN, noise_multiplier=0),
    )
    with pytest.raises(BudgetExhausted, match="without noise"):
        charge(context_of(folder), 1, event, plan, RICH)
    allowed = ClientSettings.model_validate({"allow-non-private": True})
    context = context_of(folder)
    charge(context, 1, event, plan, allowed)
    assert spent(context) == [(1, event)]


def test_a_round_that_fails_stays_charged(tmp_path) -> None:
    folder = write_folder(tmp_path / "0000", rows(8))
    (folder / "interactions.parquet").write_bytes(b"damaged")
    context = context_of(folder)
    assert app(message_of(), context).has_error()
    assert [number for number, _ in spent(context)] == [1]


@pytest.mark.parametrize("noise", [2.0, 4.0])
def test_the_settings_budget_is_compared_with_the_whole_plan(folder, noise) -> None:
    """A round that fits alone is refused if the run it starts does not."""
    event, plan = DpEvent(noise, 0.5, 1), DpEvent(noise, 0.5, 10)
    one, whole = epsilon([event], 1e-5), epsilon([plan], 1e-5)
    assert one < whole
    enough = ClientSettings.model_validate({"max-epsilon": whole})
    charge(context_of(folder), 1, event, plan, enough)
    for less in (one, whole * 0.999):
        tight = ClientSettings.model_validate({"max-epsilon": less})
        with pytest.raises(BudgetExhausted, match="exceed"):
            charge(context_of(folder), 1, event, plan, tight)


def test_the_clients_own_delta_counts(folder) -> None:
    budget = epsilon([PLAN], 1e-5)
    strict = ClientSettings.model_validate({"max-epsilon": budget, "delta": 1e-9})
    with pytest.raises(BudgetExhausted, match="exceed"):
        charge(context_of(folder), 1, EVENT, PLAN, strict)


@pytest.mark.parametrize("changed", [{"sample_rate": 0.6}, {"noise_multiplier": 3.0}])
def test_another_mechanism_within_a_run_is_refused(folder, changed) -> None:
    context = context_of(folder)
    charge(context, 1, EVENT, PLAN, RICH)
    with pytest.raises(BudgetExhausted, match="declared"):
        charge(context, 2, replace(EVENT, **changed), replace(PLAN, **changed), RICH)
    assert spent(context) == [(1, EVENT)], "a refusal charges nothing"


def test_a_round_larger_than_the_rest_of_the_plan_is_refused(folder) -> None:
    context = context_of(folder)
    charge(context, 1, replace(EVENT, steps=9), PLAN, RICH)
    with pytest.raises(BudgetExhausted, match="declared"):
        charge(context, 2, EVENT, PLAN, RICH)
    charge(context, 2, replace(EVENT, steps=1), PLAN, RICH)
    assert sum(event.steps for _, event in spent(context)) == PLAN.steps


def test_the_ledgers_epsilon_is_that_of_the_plan(folder) -> None:
    """Mistake 4: rounds compose to the run's ε, neither reset nor twice."""
    context = context_of(folder)
    for number in range(1, 6):
        charge(context, number, EVENT, PLAN, RICH)
    events = [event for _, event in spent(context)]
    assert epsilon(events, 1e-5) == pytest.approx(epsilon([PLAN], 1e-5), rel=1e-6)


def test_refusals_depend_on_no_private_row(folder) -> None:
    """The texts are the same with and without a folder's rows."""
    texts = []
    for present in (True, False):
        if not present:
            (folder / "interactions.parquet").unlink()
        poor = ClientSettings.model_validate({"max-epsilon": 0.1})
        with pytest.raises(BudgetExhausted) as refusal:
            charge(context_of(folder), 1, EVENT, PLAN, poor)
        texts.append(str(refusal.value))
    assert texts[0] == texts[1]


def test_next_to_no_noise_is_refused_without_counting_it(folder, monkeypatch) -> None:
    """Its ε takes minutes: a server could stop a client by asking for it."""
    counted = []

    def counting(events, delta):
        counted.extend(event.noise_multiplier for event in events)
        return epsilon(events, delta)

    monkeypatch.setattr("client.ledger.epsilon", counting)
    event, plan = (replace(each, noise_multiplier=1e-6) for each in (EVENT, PLAN))
    with pytest.raises(BudgetExhausted, match="exceed"):
        charge(context_of(folder), 1, event, plan, ClientSettings())
    assert counted == [LEAST_NOISE]
