"""Utility under privacy: the cross-domain benchmark at several ε, and ten clients.

Simulations only. Public MovieLens-100K, private MovieLens-1M, 600 held-out users,
through the very apps that a deployment runs: each case is a configuration beside this
package, trained anew, its student ranked on all items.
"""

from __future__ import annotations

import math
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.table import Table

from common.config import FlatConfig, defaults, parse, read_overrides
from simulations.collecting import PRIMARY
from simulations.experiment import run_experiment
from simulations.plots import BLUE, GREEN, INK, ORANGE
from simulations.results import Results

TITLE = "utility under user-level differential privacy, across domains"
CONFIGS = Path(__file__).parent.parent / "configs"
TARGETS = (8.0, 3.0, 1.0)
#: Models that no private row went into.
PUBLIC = ("teacher", "student_transferred")
#: Beside the headline: rounds of DP-SGD in place of the sums.
SGD: FlatConfig = {
    "student.dim": 64,
    "statistics.share": 0.0,
    "training.rounds": 100,
    "distillation.weight": 0.0,
    "privacy.sample-rate": 0.5,
}
FREE: FlatConfig = {"privacy.mode": "off"}
#: Without noise there are more tastes to hold.
WIDE: FlatConfig = {"student.dim": 128}
QUICK: FlatConfig = {
    "data.public": "synthetic:num_users=120,num_items=80,seed=1",
    "data.private": "synthetic:num_users=400,num_items=80,seed=2",
    "partition.public-users": 60,
    "partition.heldout-users": 60,
    "statistics.rank": 8,
    "statistics.directions": 6,
    "student.dim": 16,
}


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """Train and rank every case.

    Args:
        data: folder of the data sets.
        quick: synthetic data in place of the real ones, and ε = 8 alone.
    """
    targets = TARGETS[:1] if quick else TARGETS
    union = {f"{t:g}": _run("ml1m", data, t, quick=quick) for t in targets}
    local = _run("ml1m-local10", data, 8.0, quick=quick)
    free = _run("ml1m", data, 8.0, quick=quick, more=FREE | ({} if quick else WIDE))
    sgd = {} if quick else {"8": _run("ml1m", data, 8.0, quick=quick, more=SGD)}
    first = union["8"]
    found = {
        "cross_domain": {
            "teacher": _value(first, "teacher"),
            "nonprivate": _value(free, "student_private"),
            "union": {t: _value(r, "student_private") for t, r in union.items()},
            "local10": {"8": _value(local, "student_private")},
        },
        "epsilon": {
            "union": {t: r.promise.epsilon for t, r in union.items()},
            "local10": {"8": local.promise.epsilon},
        },
        "sgd": {t: _value(r, "student_private") for t, r in sgd.items()},
        "promise": first.promise.sentence,
        "metric": PRIMARY,
    }
    cases = {f"ε = {t}, one clip": r for t, r in union.items()}
    cases["ε = 8, ten clients"] = local
    found["rows"] = [
        *(_row(name, each, "student_private") for name, each in cases.items()),
        *(
            _row(f"{name}, refined teacher", each, "teacher_refined")
            for name, each in cases.items()
        ),
        *(_row(f"ε = {t}, DP-SGD alone", r, "student_private") for t, r in sgd.items()),
        _row("no noise, NOT PRIVATE", free, "student_private"),
        _row("public: teacher", first, "teacher"),
        _row("public: student, transferred", first, "student_transferred"),
    ]
    return found


def _run(
    name: str,
    data: Path,
    target: float,
    *,
    quick: bool,
    more: FlatConfig | None = None,
) -> Results:
    flat = defaults() | read_overrides(CONFIGS / f"{name}.toml")
    flat |= {
        "data.public": str(data / "ml-100k"),
        "data.private": str(data / "ml-1m"),
        "privacy.target-epsilon": target,
        "evaluation.baselines": False,
    }
    flat |= (QUICK if quick else {}) | (more or {})
    with tempfile.TemporaryDirectory() as folder:
        return run_experiment(parse(flat), Path(folder) / "run", as_json=True)


def _value(results: Results, model: str) -> float:
    found = {str(name): each for name, each in results.models.items()}
    return found[model][PRIMARY].value


def _row(name: str, results: Results, model: str) -> dict[str, Any]:
    found = {str(key): each for key, each in results.models.items()}[model]
    epsilon = results.promise.epsilon
    return {
        "case": name,
        "epsilon": epsilon if model not in PUBLIC and epsilon else None,
        "seconds": round(results.seconds_total, 1),
        **{
            metric: [found[metric].value, found[metric].low, found[metric].high]
            for metric in ("ndcg@10", "recall@20", PRIMARY, "coverage@10")
        },
    }


def tables(found: dict[str, Any]) -> list[Table]:
    """One row a case, with 95 % intervals over held-out users."""
    metrics = ("ndcg@10", "recall@20", PRIMARY, "coverage@10")
    table = Table(title=TITLE, caption=found["promise"])
    table.add_column("case")
    for metric in metrics:
        table.add_column(metric)
    table.add_column("ε")
    table.add_column("s", justify="right")
    for row in found["rows"]:
        cells = [f"{row[m][0]:.4f} [{row[m][1]:.3f}, {row[m][2]:.3f}]" for m in metrics]
        epsilon = row["epsilon"]
        shown = "–" if epsilon is None or math.isinf(epsilon) else f"{epsilon:.3f}"
        table.add_row(row["case"], *cells, shown, f"{row['seconds']:.0f}")
    return [table]


def figure(found: dict[str, Any]) -> bytes:
    """NDCG@100 against ε as SVG, with the public and the noise-free ends."""
    import matplotlib
    from matplotlib.figure import Figure

    values = found["cross_domain"]
    points = sorted((float(t), value) for t, value in values["union"].items())
    # Text stays text, and the same figures give the same bytes.
    style: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "utility"}
    file = BytesIO()
    with matplotlib.rc_context(style):
        canvas = Figure(figsize=(6, 3.4), layout="constrained")
        axes = canvas.subplots()
        axes.plot(*zip(*points, strict=True), "o-", color=BLUE, label="one clip")
        axes.plot(8, values["local10"]["8"], "s", color=ORANGE, label="ten clients")
        for target, value in found["sgd"].items():
            axes.plot(float(target), value, "x", color=INK, label="DP-SGD alone")
        for name, label in (("nonprivate", "no noise"), ("teacher", "public teacher")):
            axes.axhline(values[name], color=GREEN, linestyle=":")
            axes.annotate(label, (1, values[name]), va="bottom", fontsize=8)
        axes.set_xscale("log")
        axes.set_xticks([1, 3, 8], ["1", "3", "8"])
        axes.minorticks_off()
        axes.set_xlabel("ε a user, δ = 1e-5")
        axes.set_ylabel("NDCG@100")
        axes.legend(frameon=False)
        canvas.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
