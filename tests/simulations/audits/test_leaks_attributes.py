"""Attributes are told where they show, not where they do not, and never guessed at."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from common.config import parse, to_flat
from common.errors import ConfigError
from simulations.audits.leaks import attributes
from simulations.audits.leaks.attributes import audit_attributes, judge
from simulations.audits.settings import AuditSettings

HISTORY, VECTOR = "bare history", "personal vector"
SETTINGS = AuditSettings(leak_profiles=120, seed=3)


def silent(text: str) -> None:
    del text


def by(found, released, measure):
    (record,) = [
        each for each in found if (each.released, each.measure) == (released, measure)
    ]
    return record


@pytest.fixture
def planted():
    """Two groups, of which one feature tells and thirty do not."""
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(200) < 0.7, "a", "b")
    tells = rng.normal(size=(200, 30))
    tells[:, 0] += 8 * (labels == "a")
    noise = rng.normal(size=(200, 30))
    return labels, {HISTORY: sp.csr_matrix(tells), VECTOR: sp.csr_matrix(noise)}


def test_what_shows_is_found_and_what_does_not_is_not(planted):
    labels, seen = planted
    found = judge("gender", labels, seen, 0.95)
    assert by(found, HISTORY, "AUC").achieved > 0.95
    assert by(found, HISTORY, "accuracy").low > by(found, HISTORY, "accuracy").baseline
    chance = by(found, VECTOR, "AUC")
    assert chance.achieved == pytest.approx(0.5, abs=0.12)
    assert by(found, VECTOR, "accuracy").baseline == (labels == "a").mean()
    assert not any(each.promised or each.exceeds for each in found)
    assert "The bare history gives" in chance.note


def test_unknown_and_tiny_groups_are_left_out(planted):
    labels, seen = planted
    labels = labels.copy().astype("<U10")
    labels[:20], labels[20:24] = "unknown", "tiny"
    found = judge("gender", labels, seen, 0.95)
    assert {each.num_targets for each in found} == {176}
    assert "tiny" not in found[0].note


@pytest.mark.slow
def test_a_runs_own_users(sums):
    found = audit_attributes(sums, SETTINGS, silent)
    assert {each.attack for each in found} == {"attribute:cluster"}
    history = by(found, HISTORY, "AUC")
    assert history.low > 0.6
    assert {each.viewpoint for each in found} == {"device-thief", "device-caller"}
    assert history.num_targets > 80


def test_a_set_without_attributes_is_said_to_have_none(sums, monkeypatch):
    from simulations import datasets

    bare = replace(datasets.load(sums.config.data.private), users=None)
    monkeypatch.setattr(datasets, "load", lambda name: bare)
    (found,) = audit_attributes(sums, SETTINGS, silent)
    assert (found.kind, found.finding, found.refutes) == ("check", "unknown", False)
    assert "has no attribute" in found.detail


def test_a_set_that_is_gone_is_said_to_be_gone(sums):
    flat = to_flat(sums.config) | {"data.private": "/nowhere/at-all"}
    moved = replace(sums, config=parse(flat))
    (found,) = audit_attributes(moved, SETTINGS, silent)
    assert found.finding == "unknown"
    assert "at-all could not be read again" in found.detail
    assert "/" not in found.detail


def test_users_are_found_by_the_clients_own_key(sums):
    labels, clients = attributes._labels(sums, 10_000)
    assert len(labels["cluster"]) == sum(len(each.users) for each in clients)
    assert "unknown" not in labels["cluster"]


def test_a_client_without_its_key_has_nobody_known(sums, tmp_path):
    away = replace(sums, run=tmp_path)
    labels, _ = attributes._labels(away, 10)
    assert set(labels["cluster"]) == {"unknown"}


def test_reading_the_set_again_may_fail(sums, monkeypatch):
    from simulations import datasets

    def fail(name):
        raise ConfigError("no network")

    monkeypatch.setattr(datasets, "load", fail)
    (found,) = audit_attributes(sums, SETTINGS, silent)
    assert "could not be read again" in found.detail
