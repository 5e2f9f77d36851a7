"""Planted faults are caught, each by the check that is named for it; honesty is not.

The suite fails if one slips through. Confidence is so high, and draws are seeded where
the check allows it, that chance raises no alarm here.
"""

from pathlib import Path

import pytest

from simulations.audits.conformance.checks import (
    CHECKS,
    SUM_CHECKS,
    checks_of,
    observe,
)
from simulations.audits.conformance.observed import judged
from simulations.audits.one_run import audit_canaries
from simulations.audits.records import refuted
from simulations.audits.settings import AuditSettings
from simulations.audits.world import read_world
from tests.simulations.audits import planted
from tests.simulations.audits.conftest import ROUNDS, SUMS, finished
from tests.simulations.audits.planted import CAUGHT, SLOW
from tests.simulations.audits.planted_sums import CAUGHT_SUMS

CONFIDENCE, SEED = 0.9999, 11


@pytest.fixture
def world_of(request):
    """The run of a name, made when it is first asked for."""
    return lambda name: read_world(request.getfixturevalue(f"{name}_run"))


def checked(world, *names):
    return judged(observe(world, SEED, names=names), CONFIDENCE)


FAULTS = [
    pytest.param(
        fault,
        check,
        run,
        id=fault.__name__,
        marks=[pytest.mark.slow] if fault in SLOW else [],
    )
    for fault, (check, run) in (CAUGHT | CAUGHT_SUMS).items()
]


@pytest.mark.parametrize(("fault", "check", "run"), FAULTS)
def test_a_planted_fault_is_caught_by_the_check_that_is_named_for_it(
    world_of, fault, check, run
):
    world = world_of(run)
    with fault():
        found = checked(world, check)
    alarms = [each for each in found if refuted(each)]
    assert alarms, [each.detail for each in found]
    assert {each.check for each in alarms} == {check}


@pytest.mark.parametrize(
    "run",
    [
        "sums",
        "rounds",
        pytest.param("devices", marks=pytest.mark.slow),
        pytest.param("everything", marks=pytest.mark.slow),
    ],
)
def test_an_honest_run_passes_every_check(world_of, run):
    world = world_of(run)
    found = checked(world)
    assert [each.detail for each in found if each.finding != "holds"] == []
    assert {each.check for each in found} == set(checks_of(world)) - (
        {"sampling"} if run == "sums" else set()
    )


def test_every_check_catches_something():
    assert {check for check, _ in CAUGHT.values()} == set(CHECKS)
    assert {check for check, _ in CAUGHT_SUMS.values()} == set(SUM_CHECKS)


def test_a_planted_fault_is_gone_with_its_block(world_of):
    for fault in (planted.noise_halved, planted.budget_reset, planted.errors_speak):
        with fault():
            pass
    assert not any(
        map(refuted, checked(world_of("sums"), "noise", "ledger", "channels"))
    )


def test_no_product_code_knows_of_planted_faults():
    root = Path(__file__).parents[3]
    for package in ("client", "common", "server", "simulations"):
        for path in (root / package).rglob("*.py"):
            assert "planted import" not in path.read_text(encoding="utf-8"), path
            assert "import planted" not in path.read_text(encoding="utf-8"), path


SET = "synthetic:num_users=130,num_items={},interactions_per_user=8"
#: Claims that canaries are enough to refute, where they are false. Of sums: each canary
#: a pair of items that next to nobody shares, all of the budget on pairs; with half of
#: the noise 1,418 of 1,600 guesses are right on average, and 1,360 are enough. Of
#: training: everybody in every step.
FEW_PAIRS = SUMS | {
    "data.public": SET.format(800),
    "data.private": SET.format(800),
    "privacy.target-epsilon": 1.5,
    "privacy.delta": 3e-5,
    "privacy.declared-users": 30_000,
    "statistics.sketch-share": 0.0,
    "statistics.counts-share": 0.01,
}
EVERYBODY = ROUNDS | {
    "data.public": SET.format(400),
    "data.private": SET.format(400),
    "privacy.target-epsilon": 1.0,
    "privacy.sample-rate": 1.0,
    "distillation.weight": 0.0,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "config", "canaries"),
    [(planted.noise_halved, FEW_PAIRS, 32_000), (planted.no_clip, EVERYBODY, 400)],
    ids=["noise_halved", "no_clip"],
)
def test_canaries_refute_a_claim_that_a_fault_makes_false(
    tmp_path, fault, config, canaries
):
    world = read_world(finished(tmp_path / "run", **config))
    settings = AuditSettings(
        attacks=("canaries",), designs=("dirac",), num_canaries=canaries, seed=0
    )

    def proved():
        found = audit_canaries(world, settings, tmp_path, lambda text: None)
        (server,) = [each for each in found if each.viewpoint == "server-local"]
        return server

    with fault():
        faulty = proved()
    assert faulty.exceeds and faulty.epsilon_lower_joint > faulty.epsilon_claimed
    assert not proved().exceeds
