"""One experiment: config → federation folders → runs → ranked models → results.

Simulations only. Three arms share the same folders: the private run, the same
without privacy, and a student from scratch under the same ε.
"""

from __future__ import annotations

import json
import resource
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from common.config import FlatConfig, RunConfig, parse, to_flat, unflatten
from common.folders import (
    CATALOGUE,
    CONFIG,
    METRICS,
    REPORT,
    RESULTS,
    ROUNDS,
    STUDENT,
    STUDENT_TRANSFERRED,
    SUMMARY,
    TEACHER,
)
from common.intervals import Estimate, bootstrap_interval
from common.metrics import PerUser, Scorer
from common.plan import noise_multiplier, statistics_noise
from common.promise import promise_of
from simulations.datasets import load
from simulations.engine import Job, run_in_process
from simulations.evaluation import (
    BOOTSTRAP_SEED,
    HeldOut,
    private_popularity,
    public_popularity,
    rank,
    read_heldout,
    student_scorer,
    summarise,
    teacher_scorer,
)
from simulations.partition import (
    CLIENTS,
    SERVER,
    Split,
    copy_clients,
    split,
    write_federation,
)
from simulations.progress import Listener, follow, reporter
from simulations.report import write_report
from simulations.results import (
    CurvePoint,
    Federation,
    ModelName,
    Results,
    RoundRecord,
    Verdict,
    model_note,
    record_estimates,
    record_promise,
    write_results,
)
from simulations.shareable import shareable_config

PRIMARY = "ndcg@100"
FEDERATION, BASELINES = "federation", "baselines"
PACKAGES = ("tutela", "flwr", "torch", "opacus", "dp-accounting", "numpy")


@dataclass(frozen=True)
class Arm:
    """A training run of the experiment.

    Attributes:
        name: key of the model it yields.
        overrides: what differs from the run's config.
        out: where its server writes.
    """

    name: ModelName
    overrides: FlatConfig
    out: Path


@dataclass(frozen=True)
class Ranked:
    """A model's values per held-out user, and their summary."""

    values: PerUser
    estimates: dict[str, Estimate]


def arms_of(config: RunConfig, out: Path) -> list[Arm]:
    """The arms this configuration asks for, the private one first."""
    arms = [Arm("student_private", {}, out)]
    if not config.evaluation.baselines:
        return arms
    scratch: FlatConfig = {
        "transfer.method": "random",
        "distillation.weight": 0.0,
        "safeguard.enabled": False,
    }
    if config.privacy.mode != "off":
        off: FlatConfig = {"privacy.mode": "off", "safeguard.enabled": False}
        arms.append(Arm("student_nonprivate", off, out / BASELINES / "nonprivate"))
    return [*arms, Arm("student_scratch", scratch, out / BASELINES / "scratch")]


def run_experiment(
    config: RunConfig,
    out: Path,
    *,
    engine: str = "inprocess",
    as_json: bool = False,
    command: str = "",
) -> Results:
    """Run everything and write the run's folder; Ctrl-C leaves a usable one.

    Args:
        config: validated; its noise is calibrated here, once for all arms.
        out: the run's folder, empty or new.
        engine: a key of ``ENGINES``.
        as_json: lines of JSON instead of bars.
        command: what was typed, for the report.
    """
    start = time.perf_counter()
    flat = to_flat(config)
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG).write_text(tomli_w.dumps(unflatten(flat)))
    dealt = prepare(config, out / FEDERATION)
    shutil.copy(out / FEDERATION / SERVER / CATALOGUE, out / CATALOGUE)
    noise = noise_multiplier(config)
    arms = arms_of(config, out)
    status = "complete"
    with reporter(
        [arm.name for arm in arms], config.training.rounds, as_json=as_json
    ) as listener:
        try:
            for arm in arms:
                _run_arm(arm, flat | arm.overrides, noise, out, engine, listener)
        except KeyboardInterrupt:
            status = "interrupted"
    results = collect(
        config,
        out,
        arms,
        dealt,
        noise=noise,
        status=status,
        engine=engine,
        seconds=time.perf_counter() - start,
        command=command,
    )
    write_results(results, out / RESULTS)
    write_report(results, out / REPORT)
    return results


def prepare(config: RunConfig, folder: Path) -> Split:
    """Load the data sets, deal the users out, write the folders."""
    private = load(config.data.private)
    same = config.data.public == config.data.private
    public = private if same else load(config.data.public)
    dealt = split(public, private, config)
    write_federation(dealt, folder, config)
    return dealt


def _run_arm(
    arm: Arm,
    flat: FlatConfig,
    noise: float,
    out: Path,
    engine: str,
    listener: Listener,
) -> None:
    config = parse(flat)
    arm.out.mkdir(parents=True, exist_ok=True)
    clients = out / FEDERATION / CLIENTS
    if arm.out != out:
        clients = copy_clients(clients, arm.out / FEDERATION, config)
    job = Job(
        run_id=secrets.randbits(62),
        # Calibrated once, not at each message.
        config=flat
        | {
            "privacy.noise-multiplier": noise,
            "statistics.noise-multiplier": statistics_noise(config),
        },
        num_clients=config.partition.num_clients,
        clients=clients,
        public=out / FEDERATION / SERVER,
        out=arm.out,
    )
    with follow(arm.out / METRICS, arm.name, listener):
        ENGINES[engine](job)


def _in_process(job: Job) -> None:
    from client.app import app as client
    from server.app import app as server

    run_in_process(server, client, job)


def _on_ray(job: Job) -> None:
    from client.app import app as client
    from server.app import app as server
    from simulations.ray_engine import run_on_ray

    run_on_ray(server, client, job)


ENGINES: dict[str, Callable[[Job], None]] = {"inprocess": _in_process, "ray": _on_ray}


def scorers(out: Path, arms: list[Arm], heldout: HeldOut) -> dict[ModelName, Scorer]:
    """Every model that the run left on disk."""
    federation, catalogue = out / FEDERATION, heldout.catalogue
    found: dict[ModelName, Scorer] = {
        "popularity": public_popularity(federation, catalogue),
        "popularity_nonprivate": private_popularity(federation, catalogue),
    }
    if (out / TEACHER).is_file():
        found["teacher"] = teacher_scorer(out / TEACHER, heldout.shown)
    if (out / STUDENT_TRANSFERRED).is_file():
        found["student_transferred"] = student_scorer(
            out / STUDENT_TRANSFERRED, heldout.shown
        )
    for arm in arms:
        if (arm.out / STUDENT).is_file():
            found[arm.name] = student_scorer(arm.out / STUDENT, heldout.shown)
    return found


def collect(
    config: RunConfig,
    out: Path,
    arms: list[Arm],
    dealt: Split,
    *,
    noise: float,
    status: str,
    engine: str,
    seconds: float,
    command: str,
) -> Results:
    """Rank every model and put the run's facts together."""
    heldout = read_heldout(out / FEDERATION)
    settings = config.evaluation
    suppressed = suppression(heldout.num_users, settings.min_group_users)
    ranked = {}
    models = {} if suppressed else scorers(out, arms, heldout)
    for name, scorer in models.items():
        values = rank(scorer, heldout, settings)
        ranked[name] = Ranked(values, summarise(values, heldout, settings))
    seeded = config.run.seed >= 0
    safeguard = _read_safeguard(out)
    return Results.model_validate(
        {
            "name": config.run.name,
            "status": status,
            "engine": engine,
            "seed": config.run.seed if seeded else None,
            "command": command,
            "primary_metric": PRIMARY,
            "models": {n: record_estimates(r.estimates) for n, r in ranked.items()},
            "model_notes": {
                name: model_note(private=_is_private(name, config)) for name in ranked
            },
            "promise": record_promise(promise_of(config, noise, seeded=seeded)),
            "verdict": verdict_of(ranked, safeguard.get("weight")),
            "suppressed": suppressed,
            "rounds": _read_rounds(out, None if suppressed else heldout, config),
            "interpolation_weight": safeguard.get("weight"),
            "interpolation_curve": tuple(
                CurvePoint(weight=weight, validation=value)
                for weight, value in safeguard.get("curve", [])
            ),
            "federation": Federation(
                num_clients=config.partition.num_clients,
                declared_users_per_client=config.privacy.declared_users,
                public_users=dealt.public["user"].n_unique()
                + dealt.validation["user"].n_unique(),
                heldout_users=heldout.num_users,
                num_items=heldout.catalogue.num_items,
            ),
            "peak_memory_bytes": peak_memory_bytes(),
            "seconds_total": seconds,
            "config": shareable_config(to_flat(config)),
            "versions": {"python": sys.version.split()[0]}
            | {package: version(package) for package in PACKAGES},
        }
    )


def suppression(num_users: int, min_users: int) -> str:
    """Why figures over held-out users are left out, or "" where they are not."""
    if num_users >= min_users:
        return ""
    return (
        f"Figures over held-out users are suppressed: fewer than {min_users} users "
        "stand behind them (evaluation.min-group-users)."
    )


def _is_private(name: str, config: RunConfig) -> bool:
    if name in ("popularity_nonprivate", "student_nonprivate"):
        return False
    trained = name in ("student_private", "student_scratch")
    return not (trained and config.privacy.mode == "off")


def verdict_of(ranked: dict[ModelName, Ranked], weight: float | None) -> Verdict | None:
    """Whether privacy was worth it, with paired 95 % intervals over users."""
    if "student_private" not in ranked:
        return None
    private = ranked["student_private"].values[PRIMARY]
    parts, beats = [], {}
    for name in ("student_transferred", "popularity"):
        gain = bootstrap_interval(
            private - ranked[name].values[PRIMARY], seed=BOOTSTRAP_SEED
        )
        beats[name] = gain.value > 0
        sure = "" if gain.low > 0 or gain.high < 0 else ", within chance"
        word = "beats" if beats[name] else "does not beat"
        parts.append(
            f"{word} {name.replace('_', ' ')} by {gain.value:+.4f} "
            f"[{gain.low:+.4f}, {gain.high:+.4f}]{sure}"
        )
    # "Federated", not "private": in mode off it is not.
    mean = float(np.nanmean(private))
    text = f"In NDCG@100 the federated student ({mean:.4f}) {' and '.join(parts)}."
    if not all(beats.values()):
        text += (
            " The noise cost more than the private rows gave; more users a client, "
            "fewer steps or a larger ε would help."
        )
    if weight is not None:
        text += f" It is {weight:.0%} trained and {1 - weight:.0%} transferred student."
    return Verdict(
        beats_transferred=beats["student_transferred"],
        beats_popularity=beats["popularity"],
        text=text,
    )


def _read_safeguard(out: Path) -> dict[str, Any]:
    if not (out / SUMMARY).is_file():
        return {}
    found: dict[str, Any] = json.loads((out / SUMMARY).read_text())["safeguard"]
    return found


def _read_rounds(
    out: Path, heldout: HeldOut | None, config: RunConfig
) -> tuple[RoundRecord, ...]:
    if not (out / METRICS).is_file():
        return ()
    lines = map(json.loads, (out / METRICS).read_text().splitlines())
    rounds = []
    for line in lines:
        if line.pop("event") != "round":
            continue
        line.pop("time")
        kept = out / ROUNDS / f"{line['round']:05d}.safetensors"
        value = None
        if kept.is_file() and heldout is not None:
            scorer = student_scorer(kept, heldout.shown)
            values = rank(scorer, heldout, config.evaluation)
            value = float(np.nanmean(values[PRIMARY]))
        rounds.append(RoundRecord(heldout=value, **line))
    return tuple(rounds)


def peak_memory_bytes() -> int:
    """Largest resident size of this process or of a finished child."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return max(own, children) * unit
