"""Utility against the strongest attack, over ε and trust models: an auditor's picture.

Simulations only. Each case is the demo's federation trained anew under one promise,
ranked on held-out users, and then attacked: by canaries from every viewpoint, and by
membership inference with shadow models. What is drawn is the strongest of each.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.table import Table

from common.config import FlatConfig, defaults, parse, read_overrides
from common.promise import round_up
from simulations.audits.audit import run_audit
from simulations.audits.findings import (
    CanaryRecord,
    Finding,
    MembershipRecord,
    RatePoint,
)
from simulations.audits.settings import AuditSettings
from simulations.collecting import PRIMARY
from simulations.experiment import run_experiment
from simulations.plots import BLUE, ORANGE, RED
from simulations.results import Results

TITLE = "the frontier: utility against the strongest attack"
CONFIGS = Path(__file__).parent.parent / "configs"
TARGETS = (1.0, 3.0, 8.0, math.inf)
#: Trust model → what it changes of the demo. Without noise they are all one.
MODES: dict[str, FlatConfig] = {
    "local, noisy sums": {},
    "local, rounds of DP-SGD": {
        "statistics.share": 0.0,
        "training.rounds": 20,
        "distillation.weight": 0.0,
        "student.dim": 16,
    },
}
OFF = "off, NOT PRIVATE"
COLOURS = dict(zip((*MODES, OFF), (BLUE, ORANGE, RED), strict=True))
#: The false positive rate at which membership is quoted.
RATE = 0.01
SETTINGS = AuditSettings(
    attacks=("canaries", "membership"),
    designs=("random", "dirac"),
    num_canaries=1000,
    num_shadows=8,
)
QUICK: FlatConfig = {
    "data.public": "synthetic:num_users=60,num_items=40,seed=1",
    "data.private": "synthetic:num_users=160,num_items=40,seed=1",
    "partition.public-users": 40,
    "partition.validation-users": 10,
    "partition.heldout-users": 40,
    "partition.num-clients": 2,
    "privacy.declared-users": 80,
    "statistics.rank": 4,
    "statistics.directions": 4,
    "training.rounds": 0,
    "student.dim": 8,
}
QUICK_SETTINGS = AuditSettings(
    attacks=("canaries", "membership"),
    designs=("dirac",),
    num_canaries=60,
    num_shadows=4,
    workers=0,
)


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """Train, rank and attack every case.

    Args:
        data: folder of the data sets.
        quick: synthetic data, ε = 8 and ∞, few canaries.
    """
    private = [t for t in (TARGETS[2:] if quick else TARGETS) if math.isfinite(t)]
    modes = dict(list(MODES.items())[:1]) if quick else MODES
    cases = [(mode, target) for mode in modes for target in private]
    rows = [
        _case(mode, target, modes[mode], data, quick=quick) for mode, target in cases
    ]
    free: FlatConfig = {"privacy.mode": "off"}
    rows.append(_case(OFF, math.inf, free, data, quick=quick))
    return {"metric": PRIMARY, "rate": RATE, "rows": rows}


def _case(
    mode: str, target: float, changes: FlatConfig, data: Path, *, quick: bool
) -> dict[str, Any]:
    flat = defaults() | read_overrides(CONFIGS / "demo.toml")
    flat |= {
        "data.public": str(data / "ml-100k"),
        "data.private": str(data / "ml-100k"),
        "evaluation.baselines": False,
    }
    if math.isfinite(target):
        flat["privacy.target-epsilon"] = target
    flat |= changes | (QUICK if quick else {})
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        results = run_experiment(parse(flat), run, as_json=True)
        report = run_audit(run, QUICK_SETTINGS if quick else SETTINGS)
    row = strongest(report.findings)
    return {
        "mode": mode,
        "target": target if math.isfinite(target) else None,
        "epsilon": report.promise.epsilon,
        "delta": report.promise.delta,
        "promise": report.promise.sentence,
        "utility": _utility(results),
        "exceeds": report.exceeds,
        "seconds": round(results.seconds_total + report.seconds_total, 1),
        **row,
    }


def _utility(results: Results) -> list[float]:
    found = {str(name): each for name, each in results.models.items()}
    value = found["student_private"][PRIMARY]
    return [value.value, value.low, value.high]


def strongest(found: Sequence[Finding]) -> dict[str, Any]:
    """The strongest canaries and the strongest membership attack of an audit.

    Of canaries by the joint bound, of membership by the true positive rate at the
    quoted false positive rate; each named.
    """
    canaries = [each for each in found if isinstance(each, CanaryRecord)]
    members = [each for each in found if isinstance(each, MembershipRecord)]
    proved = max(canaries, key=lambda each: each.epsilon_lower_joint)
    seen = max(members, key=lambda each: _quoted(each).tpr)
    point = _quoted(seen)
    return {
        "epsilon_lower": proved.epsilon_lower_joint,
        "epsilon_gaussian": max(
            (each.epsilon_gaussian or 0.0 for each in canaries), default=0.0
        ),
        "canaries": f"{proved.design}, {proved.viewpoint}",
        "tpr": [point.tpr, point.low, point.high],
        "tpr_allowed": point.allowed,
        "auc": max(each.auc for each in members),
        "membership": f"{seen.attack} on {seen.released}, {seen.viewpoint}",
    }


def _quoted(record: MembershipRecord) -> RatePoint:
    return min(record.quoted, key=lambda each: abs(each.target - RATE))


def tables(found: dict[str, Any]) -> list[Table]:
    """One row a case: what it is worth, what is promised, what attacks achieved."""
    table = Table(
        *("trust model", "ε", "ε proved", "if Gaussian"),
        *(f"TPR at {found['rate']:.0%} FPR", "allowed", found["metric"], "s"),
        title=TITLE,
        caption="ε a user, rounded up; ε proved: 95 % for all canaries of a case "
        "together; if Gaussian: assumes so. The first case in full, the others are in "
        "the JSON: " + found["rows"][0]["promise"],
    )
    for row in found["rows"]:
        epsilon, tpr, value = row["epsilon"], row["tpr"], row["utility"]
        table.add_row(
            row["mode"],
            "∞" if epsilon is None else round_up(epsilon, 2),
            f"{row['epsilon_lower']:.2f}" + (" !" if row["exceeds"] else ""),
            f"{row['epsilon_gaussian']:.2f}",
            f"{tpr[0]:.3f} [{tpr[1]:.3f}, {tpr[2]:.3f}]",
            f"{row['tpr_allowed']:.3f}",
            f"{value[0]:.4f} [{value[1]:.3f}, {value[2]:.3f}]",
            f"{row['seconds']:.0f}",
        )
    return [table]


def figure(found: dict[str, Any]) -> bytes:
    """Utility against the strongest attack as SVG: canaries left, membership right."""
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text, and the same figures give the same bytes.
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "privacy"}
    file = BytesIO()
    panels = (
        ("epsilon_lower", "ε proved by canaries"),
        ("tpr", f"membership: TPR at {found['rate']:.0%} FPR"),
    )
    with matplotlib.rc_context(style):
        canvas = Figure(figsize=(7.2, 3.4), layout="constrained")
        drawn = canvas.subplots(1, 2, sharey=True)
        for axes, (key, label) in zip(drawn, panels, strict=True):
            _panel(axes, found["rows"], key)
            axes.set_xlabel(label)
        drawn[0].set_ylabel(found["metric"].upper())
        drawn[1].axvline(found["rate"], color="#999999", linestyle=":")
        drawn[0].legend(frameon=False, fontsize=8)
        canvas.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _panel(axes: Any, rows: Sequence[dict[str, Any]], key: str) -> None:
    axes.margins(x=0.2)
    for place, mode in enumerate(dict.fromkeys(row["mode"] for row in rows)):
        own = [row for row in rows if row["mode"] == mode]
        attack = [row[key][0] if key == "tpr" else row[key] for row in own]
        value = [row["utility"][0] for row in own]
        below = [row["utility"][0] - row["utility"][1] for row in own]
        above = [row["utility"][2] - row["utility"][0] for row in own]
        colour = COLOURS[mode]
        axes.errorbar(
            *(attack, value), yerr=[below, above], fmt="o-", color=colour, label=mode
        )
        for row, x, y in zip(own, attack, value, strict=True):
            text = "ε = ∞" if row["target"] is None else f"ε = {row['target']:g}"
            # Curves meet at small ε: their labels lie on two sides.
            offset = (-4, -12) if place == 1 else (4, 4)
            side = "right" if place == 1 else "left"
            axes.annotate(
                *(text, (x, y), offset),
                textcoords="offset points",
                color=colour,
                fontsize=8,
                ha=side,
            )
