"""Charged before training, never refunded."""

from dataclasses import replace

import pytest

from client.app import app
from client.ledger import charge, spent
from client.settings import ClientSettings
from common.accounting import DpEvent
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
