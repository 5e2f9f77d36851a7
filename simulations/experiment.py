"""One experiment: config → federation folders → runs → ranked models → results.

Simulations only. Three arms share the same folders: the private run, the same
without privacy, and a student from scratch under the same ε.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import tomli_w

from common.config import FlatConfig, RunConfig, parse, to_flat, unflatten
from common.folders import (
    CATALOGUE,
    CONFIG,
    METRICS,
    REPORT,
    RESULTS,
)
from common.plan import noise_multiplier, total_statistics_noise
from simulations.collecting import FEDERATION, Arm, collect
from simulations.datasets import load
from simulations.engine import Job, run_in_process
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
    Results,
    write_results,
)

BASELINES = "baselines"


def arms_of(config: RunConfig, out: Path) -> list[Arm]:
    """The arms this configuration asks for, the private one first."""
    arms = [Arm("student_private", {}, out)]
    if not config.evaluation.baselines:
        return arms
    scratch: FlatConfig = {
        "transfer.method": "random",
        "statistics.share": 0.0,
        "distillation.weight": 0.0,
        "safeguard.enabled": False,
    }
    if config.privacy.mode != "off":
        off: FlatConfig = {"privacy.mode": "off", "safeguard.enabled": False}
        arms.append(Arm("student_nonprivate", off, out / BASELINES / "nonprivate"))
    if config.training.rounds:
        arms.append(Arm("student_scratch", scratch, out / BASELINES / "scratch"))
    return arms


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
                _run_arm(arm, flat | arm.overrides, out, engine, listener)
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
            # An arm without statistics has their share for its rounds.
            "privacy.noise-multiplier": noise_multiplier(config),
            "statistics.noise-multiplier": total_statistics_noise(config),
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
