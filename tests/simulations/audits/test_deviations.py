"""Assumptions of the promise against a run's own files: sound ones, and tampered."""

import json
import shutil
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import tomlkit

from client.chain import Charge
from client.ledger import open_ledger
from common.accounting import epsilon
from common.events import DpEvent
from simulations.audits.deviations import CHECKS, deviations
from simulations.audits.evidence import Evidence, gather
from simulations.audits.records import refuted
from simulations.audits.row_checks import ROW_CHECKS
from simulations.audits.spending import (
    VERIFIED,
    most_spent,
    read_ledgers,
    spent_by_clients,
)
from simulations.audits.world import read_world

DELTA = 1e-5
#: What a seeded run says of itself, and what no file says.
DEVIATE = {"noise-source"}
UNKNOWN = {"pinned-code", "tuning"}


@pytest.fixture(scope="session")
def sound(sums_run) -> Evidence:
    return gather(read_world(sums_run))


@pytest.fixture
def copied(sums_run, tmp_path) -> Path:
    """The run's folder, to be tampered with."""
    return Path(shutil.copytree(sums_run, tmp_path / "run"))


def found(run: Path) -> dict:
    return {each.check: each for each in deviations(gather(read_world(run)))}


def folder(run: Path, client: str = "0000") -> Path:
    return run / "federation" / "clients" / client


def charge(run: Path, event: DpEvent, name: str, client: str = "0000") -> None:
    """One more charge in a client's ledger, as the client itself would write it."""
    place = run / "federation" / "witnesses" / f"{client}.json"
    later = datetime(2100, 1, 1, tzinfo=UTC)
    with open_ledger(folder(run, client), place, lambda: later) as ledger:
        charged = Charge(name, "other", 9, "0" * 32, "train", event, (event,))
        ledger.append(charged)


def test_every_check_has_the_name_it_is_listed_under(sound):
    assert [each.check for each in deviations(sound)] == list(CHECKS)
    for each in deviations(sound):
        assert each.assumption.endswith(".") and each.detail.endswith(".")
        assert each.source


def test_an_honest_run_deviates_only_where_it_says_so_itself(sound):
    said = {each.check: each for each in deviations(sound)}
    names = {
        finding: {name for name, each in said.items() if each.finding == finding}
        for finding in ("deviates", "unknown")
    }
    assert names == {"deviates": DEVIATE, "unknown": UNKNOWN}
    assert not any(refuted(each) for each in said.values())


def test_charges_are_what_was_planned_and_cost_what_was_promised(sound):
    (each,) = [e for e in deviations(sound) if e.check == "charges"]
    assert each.expected == each.measured == pytest.approx(3.0, rel=1e-3)


def test_spent_is_the_most_of_any_client_and_adds_up_over_runs(copied):
    more = DpEvent(2.0, 1.0, 1)
    charge(copied, more, "77")
    world = read_world(copied)
    ledgers = read_ledgers(world)
    seen = gather(world)

    clients = spent_by_clients(ledgers, seen.run, [DELTA])
    (most,) = most_spent(clients, world.events, [DELTA])

    assert [each.runs for each in clients] == [2, 1]
    assert most.epsilon_run == most.epsilon_planned == pytest.approx(3.0, rel=1e-3)
    assert most.epsilon_all == pytest.approx(epsilon([*world.events, more], DELTA))
    assert most.epsilon_all > most.epsilon_run
    assert clients[1].spent[0].epsilon_all == clients[1].spent[0].epsilon_run


def test_another_run_in_a_ledger_is_found(copied):
    charge(copied, DpEvent(2.0, 1.0, 1), "77")
    each = found(copied)["other-runs"]
    assert each.finding == "deviates" and not refuted(each)
    assert each.measured > each.expected
    assert "costs more than this run's promise" in each.detail


def test_a_charge_beyond_the_plan_refutes_the_promise(copied):
    run = gather(read_world(copied)).run
    charge(copied, DpEvent(1.0, 1.0, 1), run)
    said = found(copied)
    assert refuted(said["charges"])
    assert said["charges"].measured > said["charges"].expected
    assert said["other-runs"].finding == "holds"
    assert said["budgets"].finding == "deviates"


def test_fewer_charges_than_planned_refute_nothing(copied):
    bare = replace(gather(read_world(copied)), ledgers=())
    first, second = gather(read_world(copied)).ledgers
    short = replace(first, charges=first.charges[:1])
    seen = replace(bare, ledgers=(short, second))
    each = CHECKS["charges"](seen)
    assert each.finding == "deviates" and not refuted(each)
    assert "none of them spent more" in each.detail


def test_an_edited_ledger_is_named_and_nothing_is_counted_from_it(copied):
    with sqlite3.connect(folder(copied) / "ledger.sqlite") as connection:
        connection.execute("DROP TRIGGER entries_stay")
        connection.execute(
            "UPDATE entries SET body = replace(body, '\"seeded\":true', "
            "'\"seeded\":false')"
        )
    connection.close()
    said = found(copied)
    assert said["ledgers"].finding == "deviates" and "edited" in said["ledgers"].detail
    ledgers = read_ledgers(read_world(copied))
    assert [each.state for each in ledgers] == ["edited", VERIFIED]
    spent = spent_by_clients(ledgers, None, [DELTA])
    assert spent[0].spent == () and spent[0].ledger == "edited"


@pytest.mark.parametrize("client", ["0000", "0001"])
def test_a_lost_ledger_is_found(copied, client):
    (folder(copied, client) / "ledger.sqlite").unlink()
    each = found(copied)["ledgers"]
    assert each.finding == "deviates" and "missing" in each.detail


def test_without_any_ledger_nothing_is_known_to_be_spent(copied):
    shutil.rmtree(copied / "federation" / "witnesses")
    for client in ("0000", "0001"):
        (folder(copied, client) / "ledger.sqlite").unlink()
    said = found(copied)
    assert "no ledger" in said["ledgers"].detail
    assert said["charges"].finding == said["other-runs"].finding == "unknown"
    world = read_world(copied)
    spent = spent_by_clients(read_ledgers(world), None, [DELTA])
    assert most_spent(spent, world.events, [DELTA]) == ()


def test_unreadable_settings_hide_no_ledger_fault(copied):
    (folder(copied) / "settings.toml").write_text("[")
    said = found(copied)
    assert "settings cannot be read" in said["ledgers"].detail


def test_results_that_promise_more_than_was_kept_are_refuted(copied):
    path = copied / "results.json"
    tree = json.loads(path.read_text())
    tree["promise"]["epsilon"] = 0.5
    path.write_text(json.dumps(tree))
    each = found(copied)["stated-promise"]
    assert refuted(each)
    assert (each.measured, each.expected) == (0.5, pytest.approx(3.0, rel=1e-3))


def test_results_that_promise_less_deviate_only(copied):
    path = copied / "results.json"
    tree = json.loads(path.read_text())
    tree["promise"]["epsilon"] = 5.0
    path.write_text(json.dumps(tree))
    each = found(copied)["stated-promise"]
    assert each.finding == "deviates" and not refuted(each)


def test_a_configuration_changed_since_is_named(copied):
    path = copied / "config.toml"
    tree = tomlkit.parse(path.read_text())
    tree["student"]["logit-scale"] = 3.0
    tree["run"]["device"] = "cuda"  # says how to run, not what is released
    path.write_text(tomlkit.dumps(tree))
    each = found(copied)["configuration"]
    assert each.finding == "deviates" and each.measured == 1
    assert "student.logit-scale" in each.detail


def test_a_configuration_that_promises_less_noise_than_was_charged_is_refuted(copied):
    path = copied / "config.toml"
    tree = tomlkit.parse(path.read_text())
    tree["privacy"]["target-epsilon"] = 1.0
    path.write_text(tomlkit.dumps(tree))
    said = found(copied)
    assert refuted(said["charges"])
    assert said["stated-promise"].finding == "deviates"


def test_refusals_and_missing_answers_are_counted_without_their_text(copied):
    lines = [
        {"time": 1.0, "event": "refusal", "round": 1, "reason": "SECRET of a client"},
        {"time": 2.0, "event": "round", "survivors": 1, "num_clients": 2},
        {"time": 3.0, "event": "resume", "round": 1, "stage": "train", "note": ""},
    ]
    with (copied / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines) + "{broken\n[]\n")
    said = found(copied)
    assert said["answers"].finding == "deviates" and said["answers"].measured == 2
    assert "1 refusals or errors and 1 missing" in said["answers"].detail
    assert "2 lines of the log cannot be read" in said["answers"].detail
    assert said["completion"].finding == "deviates"
    assert said["completion"].measured == 1
    assert not any("SECRET" in each.model_dump_json() for each in said.values())


def test_what_is_missing_is_unknown(copied):
    for name in ("results.json", "metrics.jsonl"):
        (copied / name).unlink()
    shutil.rmtree(copied / "checkpoint")
    said = found(copied)
    names = ("stated-promise", "versions", "answers", "configuration", "completion")
    assert {said[name].finding for name in names} == {"unknown"}
    # The run's id is gone with the journal; the ledgers know of one run alone.
    assert said["charges"].finding == "holds"


def test_another_version_is_named(copied):
    path = copied / "results.json"
    tree = json.loads(path.read_text())
    tree["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(tree))
    each = found(copied)["versions"]
    assert each.finding == "deviates" and "torch" in each.detail


def test_seeded_noise_that_the_promise_hides_is_refuted(copied):
    path = copied / "config.toml"
    tree = tomlkit.parse(path.read_text())
    tree["run"]["seed"] = -1
    path.write_text(tomlkit.dumps(tree))
    each = found(copied)["noise-source"]
    assert refuted(each) and each.measured == 2


def test_clients_with_fewer_users_than_declared_are_counted(sound):
    one, other = sound.world.clients
    world = replace(sound.world, clients=(one, other.where(range(len(one.users) - 1))))
    each = ROW_CHECKS["declared-users"](replace(sound, world=world))
    assert each.finding == "deviates" and each.measured == 1
    assert not refuted(each) and "1 of 2 clients" in each.detail


@pytest.mark.slow  # a run of its own
def test_mode_off_deviates_and_refutes_nothing(open_run):
    said = found(open_run)
    assert said["mode"].finding == "deviates"
    assert said["charges"].finding == "holds" and said["charges"].measured is None
    assert not any(refuted(each) for each in said.values())


def same(seen: Evidence, count: int, least: int) -> Evidence:
    """Evidence in which the second client's first users have the first one's rows."""
    one, other = seen.world.clients
    rows = other.histories.tolil()
    rows[:count] = one.histories[:count]
    config = seen.world.config
    few = config.evaluation.model_copy(update={"min_group_users": least})
    world = replace(
        seen.world,
        clients=(one, replace(other, histories=rows.tocsr())),
        config=config.model_copy(update={"evaluation": few}),
    )
    return replace(seen, world=world)


def test_rows_of_one_person_at_two_clients_are_counted(sound):
    each = ROW_CHECKS["one-person-one-user"](same(sound, 12, least=10))
    assert each.finding == "deviates" and each.measured == 12
    assert "several clients: 12;" in each.detail


def test_counts_of_too_few_people_are_suppressed(sound):
    each = ROW_CHECKS["one-person-one-user"](same(sound, 3, least=10))
    assert each.finding == "deviates" and each.measured is None
    assert "several clients: fewer than 10;" in each.detail


def test_short_histories_are_alike_by_chance(sound):
    one, other = sound.world.clients
    short = one.histories.multiply(np.arange(one.histories.shape[1]) < 3).tocsr()
    short.eliminate_zeros()
    clients = (replace(one, histories=short), replace(other, histories=short[:0]))
    seen = replace(sound, world=replace(sound.world, clients=clients))
    assert ROW_CHECKS["one-person-one-user"](seen).finding == "holds"


def test_a_private_user_among_the_public_ones_is_found(sound):
    one, other = sound.world.clients
    both = np.tile(sound.world.outsiders[:1].toarray(), (len(other.users), 1))
    clients = (one, replace(other, histories=type(one.histories)(both)))
    seen = replace(sound, world=replace(sound.world, clients=clients))
    each = ROW_CHECKS["teacher"](seen)
    assert each.finding == "deviates" and not refuted(each)


def test_a_teacher_from_elsewhere_is_unknown(sound):
    config = sound.world.config
    teacher = config.teacher.model_copy(update={"checkpoint": "teacher.safetensors"})
    world = replace(sound.world, config=config.model_copy(update={"teacher": teacher}))
    each = ROW_CHECKS["teacher"](replace(sound, world=world))
    assert each.finding == "unknown" and "made elsewhere" in each.detail


@pytest.mark.slow  # a run of its own
def test_rounds_charged_one_by_one_are_what_was_planned_together(rounds_run):
    said = found(rounds_run)
    assert said["charges"].finding == "holds"
    assert said["charges"].measured == pytest.approx(3.0, rel=1e-3)
    assert said["answers"].finding == said["configuration"].finding == "holds"


def test_charges_in_another_unit_never_add_up(copied):
    charge(copied, DpEvent(0.5, 1.0, 1, unit="interaction"), "77")
    world = read_world(copied)
    (most,) = most_spent(
        spent_by_clients(read_ledgers(world), None, [DELTA]), world.events, [DELTA]
    )
    assert most.epsilon_all == pytest.approx(3.0, rel=1e-3)
