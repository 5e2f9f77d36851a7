"""The frontier: the strongest attacks, the picture, and every case for real."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from common.config import defaults, parse, read_overrides
from simulations.audits.findings import CanaryRecord, MembershipRecord, RatePoint
from simulations.benchmarks import BENCHMARKS, privacy
from simulations.benchmarks.privacy import (
    CONFIGS,
    MODES,
    QUICK,
    figure,
    measure,
    strongest,
    tables,
)


def canaries(design: str, joint: float, gaussian: float | None) -> CanaryRecord:
    return CanaryRecord(
        design=design,
        viewpoint="server-local",
        unit="user",
        num_canaries=100,
        num_included=50,
        guessed_in=20,
        guessed_out=20,
        num_right=30,
        delta=1e-5,
        confidence=0.95,
        joint_confidence=0.99,
        epsilon_claimed=8.0,
        epsilon_lower=joint,
        epsilon_lower_joint=joint,
        epsilon_power=2.0,
        epsilon_half_noise=3.0,
        epsilon_ceiling=4.0,
        epsilon_gaussian=gaussian,
        epsilon_estimate=1.0,
        auc=0.9,
        exceeds=False,
    )


def members(attack: str, tpr: dict[float, float]) -> MembershipRecord:
    points = tuple(
        RatePoint(
            target=rate,
            fpr=rate,
            fpr_low=rate / 2,
            fpr_high=min(1.0, 2 * rate),
            tpr=value,
            low=value / 2,
            high=min(1.0, 2 * value),
            allowed=0.5,
            resolved=True,
        )
        for rate, value in tpr.items()
    )
    return MembershipRecord(
        attack=attack,
        viewpoint="public",
        released="final student",
        num_shadows=4,
        num_members=100,
        num_others=100,
        confidence=0.95,
        auc=0.6,
        quoted=points,
        curve=points,
        exceeds=False,
    )


def test_the_strongest_of_each_kind_is_named() -> None:
    found = [
        canaries("random", 1.0, 5.0),
        canaries("dirac", 2.0, None),
        members("rmia", {0.01: 0.05, 0.001: 0.04}),
        members("lira-online", {0.01: 0.08, 0.001: 0.01}),
    ]
    row = strongest(found)
    assert row["epsilon_lower"] == 2.0
    assert row["epsilon_gaussian"] == 5.0
    assert row["canaries"] == "dirac, server-local"
    assert row["tpr"] == [0.08, 0.04, 0.16]
    assert row["membership"] == "lira-online on final student, public"


@pytest.mark.parametrize("changes", [*MODES.values(), QUICK, {"privacy.mode": "off"}])
def test_every_case_is_a_valid_configuration(changes: dict) -> None:
    demo = read_overrides(CONFIGS / "demo.toml")
    parse(defaults() | demo | changes)


def made_up() -> dict:
    row = {
        "delta": 1e-5,
        "promise": "Each client's releases are private.",
        "exceeds": False,
        "seconds": 3.0,
        "epsilon_gaussian": 0.5,
        "tpr": [0.02, 0.01, 0.03],
        "tpr_allowed": 0.3,
        "auc": 0.6,
        "canaries": "dirac, public",
        "membership": "rmia on final student, public",
    }
    return {
        "metric": "ndcg@100",
        "rate": 0.01,
        "rows": [
            row
            | {
                "mode": "local, noisy sums",
                "target": 8.0,
                "epsilon": 7.99991,
                "utility": [0.4, 0.35, 0.45],
                "epsilon_lower": 1.25,
            },
            row
            | {
                "mode": privacy.OFF,
                "target": None,
                "epsilon": None,
                "utility": [0.5, 0.45, 0.55],
                "epsilon_lower": 5.5,
            },
        ],
    }


def test_the_table_rounds_epsilon_up_and_the_figure_names_every_point() -> None:
    console = Console(file=StringIO(), width=200)
    for table in tables(made_up()):
        console.print(table)
    shown = console.file.getvalue()
    assert "8.00" in shown and "∞" in shown and "5.50" in shown
    drawn = figure(made_up()).decode()
    assert "ε = 8" in drawn and "ε = ∞" in drawn and "NOT PRIVATE" in drawn
    assert figure(made_up()) == figure(made_up())


def test_the_benchmark_has_its_word() -> None:
    assert BENCHMARKS["privacy"] == "privacy"


@pytest.mark.slow
def test_without_noise_canaries_prove_more_than_with_it(tmp_path: Path) -> None:
    rows = measure(tmp_path, quick=True)["rows"]
    by_mode = {row["mode"]: row for row in rows}
    private, free = by_mode["local, noisy sums"], by_mode[privacy.OFF]
    assert private["epsilon"] <= 8.0 and free["epsilon"] is None
    assert not private["exceeds"]
    assert private["epsilon_lower"] < private["epsilon"]
    assert free["epsilon_lower"] > 1.0
