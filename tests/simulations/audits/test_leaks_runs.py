"""Attacks on small runs: all is found where nothing protects, and little elsewhere."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.config import parse, to_flat
from simulations.audits.audit import ATTACKS, run_audit
from simulations.audits.leaks import attack
from simulations.audits.leaks.interactions import OTHERS, audit_interactions
from simulations.audits.leaks.reconstruction import UPDATES, audit_reconstruction
from simulations.audits.leaks.serving import audit_serving
from simulations.audits.leaks.staging import devices, staged
from simulations.audits.one_run import recorded
from simulations.audits.records import read_report
from simulations.audits.settings import AuditSettings
from simulations.audits.viewpoints import VIEWPOINTS

SETTINGS = AuditSettings(
    leak_users=60, leak_devices=6, leak_profiles=60, leak_rounds=3, seed=1
)


def silent(text: str) -> None:
    del text


def interactions(world):
    with recorded(world, world.clients, SETTINGS.seed) as messages:
        return audit_interactions(world, messages, SETTINGS)


def alone(found):
    """Answers by themselves, beside users who are in no run."""
    (record,) = [
        each
        for each in found
        if each.released == "answers alone" and each.baseline_is == OTHERS
    ]
    return record


@pytest.mark.slow
def test_answers_give_items_away_as_far_as_they_are_not_noised(sums, unprotected):
    noised, bare = alone(interactions(sums)), alone(interactions(unprotected))
    assert bare.achieved > 0.95
    assert bare.low > bare.baseline
    assert noised.achieved < bare.achieved - 0.1
    # Mode off promises nothing about anything.
    assert noised.promised and not bare.promised
    # Whoever is in no answer cannot be told from it.
    assert noised.baseline == pytest.approx(0.5, abs=0.12)


def test_every_viewpoint_of_a_run_of_rounds_is_attacked(rounds):
    found = interactions(rounds)
    assert {each.viewpoint for each in found} == {
        "server-local",
        "another-client",
        "public",
    }
    assert {each.measure for each in found} == {"AUC", "precision"}
    assert all(each.num_targets == 60 and each.promised for each in found)


@pytest.mark.slow
def test_histories_per_trust_model(unprotected):
    with recorded(unprotected, unprotected.clients, 1) as messages:
        found = audit_reconstruction(unprotected, messages, SETTINGS, silent)
    exact = [each for each in found if each.released.endswith("of clients of one user")]
    single = [each for each in exact if each.viewpoint == "server-local"]
    assert len(single) == 2
    assert all(each.achieved == 1.0 and each.num_targets == 6 for each in single)
    known = {
        each.released: each.achieved
        for each in found
        if each.viewpoint == "server-distributed" and "everybody else's" in each.note
    }
    assert known["total of the sums of 6 clients of one user"] > 0.9
    assert not any(each.promised for each in found)


@pytest.mark.slow
def test_noise_hides_histories(sums):
    with recorded(sums, sums.clients, 1) as messages:
        found = audit_reconstruction(sums, messages, SETTINGS, silent)
    own = [each for each in found if "Mode local" in each.note]
    users = sum(len(each.users) for each in sums.clients) // len(sums.clients)
    assert {each.released for each in own} == {
        f"all answers of clients of {users} users",
        "all answers of clients of one user",
    }
    assert all(each.promised and each.achieved < 0.8 for each in own)


def test_a_staged_run_leaves_the_run_alone(sums):
    before = digest(sums.run)
    clients = devices(sums, 3, np.random.default_rng(0))
    with staged(sums, clients, UPDATES, 1) as (varied, messages):
        assert varied.config.privacy.mode == "off"
        assert [len(each.users) for each in varied.clients] == [1, 1, 1]
        assert list(messages.iterdir())
    assert digest(sums.run) == before


def test_who_may_call_learns_all_and_others_nothing(sums):
    before = digest(sums.run)
    found = audit_serving(sums, SETTINGS, silent)
    paged = {each.measure: each for each in found if "paged" in each.released}
    assert paged["precision"].achieved == paged["AUC"].achieved == 1.0
    assert all("UNAUTHENTICATED" in each.note for each in found)
    told = {each.released: each for each in found if each.measure == "AUC"}
    # A catalogue of 60 items is tried whole.
    assert told["Feedback, one item a call"].achieved == 1.0
    assert "false rows" in told["Feedback, one item a call"].note
    assert told["Recommend with reasons"].achieved > 0.7
    assert not any(each.promised for each in found)
    assert digest(sums.run) == before


@pytest.mark.slow
def test_the_whole_attack_by_its_name(sums_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(sums_run, run)
    settings = AuditSettings(
        attacks=("leaks",), leak_users=20, leak_devices=3, leak_profiles=60, seed=1
    )
    report = run_audit(run, settings)
    leaks = [each for each in report.findings if each.kind == "leak"]
    kinds = {each.attack for each in leaks}
    assert kinds == {"interactions", "reconstruction", "attribute:cluster"}
    assert {each.viewpoint for each in leaks} <= VIEWPOINTS.keys()
    assert read_report(run / "audit" / "audit.json") == report
    assert "leaks" in ATTACKS


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path).encode() + path.read_bytes())
    return found.hexdigest()


def test_sums_under_their_own_noise_are_said_to_be_unread(rounds):
    flat = to_flat(rounds.config) | {"privacy.mode": "distributed"}
    summed = replace(rounds, config=parse(flat))
    (found,) = attack._of_messages(summed, SETTINGS, silent)
    assert (found.check, found.finding) == ("leaks of items and histories", "unknown")
    assert not found.refutes
