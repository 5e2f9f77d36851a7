"""The integrity audit on small runs: lies do what they say, and are measured right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from common.errors import ConfigError
from simulations.__main__ import app
from simulations.audits.audit import ATTACKS, AUDIT, AUDIT_REPORT, run_audit
from simulations.audits.integrity import grid
from simulations.audits.integrity.dealing import dealt, under
from simulations.audits.integrity.grid import GRIDS, Grid, audit_integrity
from simulations.audits.integrity.lies import LIES
from simulations.audits.integrity.malicious import Plot, federate
from simulations.audits.integrity.measuring import measure, target_ranks
from simulations.audits.integrity.scenes import (
    choose_targets,
    false_users,
    make_scene,
)
from simulations.audits.records import read_report
from simulations.audits.settings import FULL, QUICK
from simulations.audits.world import write_clients
from simulations.evaluation import HeldOut

NOBODY = Plot()
NOW = replace(QUICK, attacks=("integrity",), seed=4, workers=0)


def told(text: str) -> None:
    """Hears nothing."""


@pytest.fixture
def small(monkeypatch) -> None:
    """A grid of a few cells: six clients, one of which lies."""
    few = Grid(((6, 1),), ("push-scaled",), ("shilling",))
    monkeypatch.setattr(grid, "GRIDS", {"quick": few})
    monkeypatch.setattr(grid, "AGGREGATORS", ("none", "norm-bound"))


def six(world, folder: Path):
    return dealt(world, 6, {}, folder, np.random.default_rng(0))


def by_user(clients):
    return {
        user: tuple(row.indices)
        for client in clients
        for user, row in zip(client.users, client.histories, strict=True)
    }


# ------------------------------------------------------------ dealing
def test_dealing_anew_keeps_everybody_and_the_noise(sums, tmp_path):
    new = six(sums, tmp_path)
    assert len(new.clients) == 6
    assert by_user(new.clients) == by_user(sums.clients)
    sizes = [len(client.users) for client in new.clients]
    assert max(sizes) - min(sizes) <= 1
    assert new.config.privacy.declared_users == 15  # 2 · 45 / 6
    assert new.config.partition.num_clients == 6
    for key in ("privacy.noise-multiplier", "statistics.noise-multiplier"):
        assert new.flat[key] == sums.flat[key]


def test_a_run_of_enough_clients_keeps_its_own(sums, tmp_path):
    new = dealt(sums, 2, {}, tmp_path, np.random.default_rng(0))
    assert new.clients == sums.clients
    assert new.config.privacy.declared_users == 45


# ------------------------------------------------------------ runs
def run(world, folder, plot=NOBODY, kept=None, seed=1):
    write_clients(world, world.clients, folder, seed)
    return federate(world, plot, folder, {} if kept is None else kept, seed)


def test_who_does_not_lie_changes_nothing_and_who_is_kept_neither(sums, tmp_path):
    new, kept = six(sums, tmp_path / "world"), {}
    liar = Plot(("0001",), LIES["scaled"])
    first = run(new, tmp_path / "a", kept=kept)
    assert sorted(kept) == [f"{k:04d}" for k in range(6)]
    second = run(new, tmp_path / "b", kept=kept)
    other = run(new, tmp_path / "c", liar, kept)
    one, same, another = (
        load_file(each / "teacher_refined.safetensors")
        for each in (first, second, other)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], another[name]) for name in one)


@pytest.mark.parametrize(
    "kind", ["sums", pytest.param("rounds", marks=pytest.mark.slow)]
)
def test_a_scaled_push_raises_its_targets(kind, request, tmp_path):
    world = six(request.getfixturevalue(kind), tmp_path / "world")
    world = under(world, {"safeguard.enabled": False})
    scene = make_scene(world, world.config.privacy.mode, (6, 1), tmp_path / "s", 3)
    plot = Plot(
        scene.liars, LIES["push-scaled"], scene.raised, np.asarray(scene.popularity)
    )
    bare = run(scene.world, tmp_path / "bare")
    lied = run(scene.world, tmp_path / "lied", plot)
    before, after = (
        measure(each, scene.heldout, scene.raised) for each in (bare, lied)
    )
    assert after.rank < before.rank
    assert after.exposure > before.exposure


def test_clients_that_fail_are_no_comparison(sums, tmp_path):
    new = six(sums, tmp_path / "world")
    write_clients(new, new.clients, tmp_path / "a", 1)
    (tmp_path / "a/clients/0003/settings.toml").write_text("runs = []\n")
    with pytest.raises(ConfigError, match="every client to answer"):
        federate(new, Plot(), tmp_path / "a", {}, 1)


# ------------------------------------------------------------ parts
def test_targets_of_push_are_little_known_and_those_of_nuke_are_known():
    counts = np.arange(100)[::-1]
    raised, lowered = choose_targets(counts, np.random.default_rng(0))
    assert len(set(raised)) == len(set(lowered)) == 5
    assert counts[raised].max() < 50 and (counts[raised] > 0).all()
    assert counts[lowered].min() >= 90


def test_false_users_are_as_many_as_declared_and_all_claim_the_targets(sums, tmp_path):
    scene = make_scene(sums, "local", (6, 1), tmp_path, 3)
    client = next(c for c in scene.world.clients if c.name == scene.liars[0])
    false = false_users(scene, client, scene.raised)
    assert len(false.users) == scene.world.config.privacy.declared_users
    assert not set(false.users) & set(client.users)
    rows = false.histories.toarray()
    assert (rows[:, scene.raised] == 1).all()
    assert (rows.sum(axis=1) == 5 + 30).all()


def test_ranks_leave_out_what_was_seen_and_ties_go_to_the_lower_id():
    shown = sp.csr_matrix(np.float32([[1, 0, 0, 0], [0, 0, 0, 1]]))
    heldout = HeldOut(None, shown, shown, shown, ("a", "b"), None)
    scores = np.float32([[9, 1, 2, 2], [5, 4, 4, 9]])
    found = target_ranks(scores, heldout, np.array([0, 2, 3]))
    # User a: 2, 3, 1; user b: 0, 1, 2. Targets of a but 0, of b but 3.
    assert found.tolist() == [1, 2, 1, 3]


# ------------------------------------------------------------ the audit
def test_every_cell_is_recorded_and_what_cannot_be_is_said(small, sums):
    heard = []
    found = audit_integrity(sums, NOW, Path("unused"), heard.append)
    made = [each for each in found if each.possible]
    assert [(each.aggregator, each.attack) for each in made] == [
        ("none", "push-scaled"),
        ("none", "shilling"),
        ("norm-bound", "push-scaled"),
    ]
    assert {(e.mode, e.malicious, e.num_clients) for e in made} == {("local", 1, 6)}
    assert all("anew from 2 to 6" in each.note for each in made)
    assert len(heard) == 2
    (not_so,) = [each for each in found if not each.possible]
    assert (not_so.mode, not_so.aggregator) == ("distributed", "norm-bound")
    assert "only the sum" in not_so.note and not_so.rank_after is None


def test_the_audit_reports_it_and_the_verb_shows_it(small, sums_run):
    done = CliRunner().invoke(
        app,
        [
            "audit",
            str(sums_run),
            "--attack",
            "integrity",
            "--seed",
            "1",
            "--workers",
            "0",
        ],
    )
    assert done.exit_code == 0, done.output
    assert "Malicious clients" in done.output and "shilling" in done.output
    report = read_report(sums_run / AUDIT / AUDIT_REPORT)
    kinds = [each.kind for each in report.findings]
    assert kinds.count("integrity") == 4
    assert not report.exceeds


def test_settings_name_a_grid(sums_run):
    assert ATTACKS["integrity"] is audit_integrity
    assert {QUICK.integrity, FULL.integrity} == set(GRIDS)
    with pytest.raises(ConfigError, match="quick"):
        run_audit(sums_run, replace(NOW, integrity="all"))
