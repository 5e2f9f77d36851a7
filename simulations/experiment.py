"""One experiment: config → federation folders → runs → ranked models → results.

Simulations only. Three arms share the same folders: the private run, the same
without privacy, and a student from scratch under the same ε.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import tomli_w

from common.config import (
    FlatConfig,
    RunConfig,
    parse,
    read_overrides,
    to_flat,
    unflatten,
)
from common.durable_files import write_durably
from common.errors import ConfigError
from common.folders import (
    CATALOGUE,
    CONFIG,
    METRICS,
    REPORT,
    RESULTS,
)
from common.plan import noise_multiplier, total_statistics_noise
from server.run_journal import holds_run, is_finished
from simulations.baselines.ials import implicit_als
from simulations.collecting import FEDERATION, Arm, collect
from simulations.datasets import load
from simulations.dropouts import unreliable
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
#: In a run's folder: that it is a simulation's, and how it was started.
SIMULATION, SIMULATION_FORMAT = "simulation.json", "tutela-simulation-1"


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

    Raises:
        ConfigError: if ``evaluation.comparison`` lacks its package.
    """
    if config.evaluation.comparison:
        # Wanted at the end, and better missed at the beginning.
        implicit_als()
    out.mkdir(parents=True, exist_ok=True)
    (out / CONFIG).write_text(tomli_w.dumps(unflatten(to_flat(config))))
    facts = {"format": SIMULATION_FORMAT, "engine": engine, "command": command}
    write_durably(out / SIMULATION, json.dumps(facts).encode(), mode=0o644)
    return _run_arms(config, out, facts, as_json=as_json)


def resume_experiment(out: Path, *, as_json: bool = False) -> Results:
    """Go on with an interrupted experiment: what is finished is not done again.

    Args:
        out: its folder; configuration and engine are the ones that it began with.
        as_json: lines of JSON instead of bars.

    Raises:
        ConfigError: if the folder holds none.
    """
    try:
        facts = json.loads((out / SIMULATION).read_text(encoding="utf-8"))
        found = facts["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"--resume: expected a simulation's folder with {SIMULATION}, got {out}."
        ) from None
    if found != SIMULATION_FORMAT:
        raise ConfigError(
            f"{out / SIMULATION}: expected format {SIMULATION_FORMAT}, got {found!r}; "
            "resume with the version of Tutela that wrote it."
        )
    config = parse(read_overrides(out / CONFIG))
    return _run_arms(config, out, facts, as_json=as_json)


def _run_arms(
    config: RunConfig, out: Path, facts: dict[str, str], *, as_json: bool
) -> Results:
    start = time.perf_counter()
    flat, engine = to_flat(config), facts["engine"]
    dealt = _dealt(config, out)
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
        command=facts["command"],
    )
    write_results(results, out / RESULTS)
    write_report(results, out / REPORT)
    return results


def prepare(config: RunConfig, folder: Path) -> Split:
    """Load the data sets, deal the users out, write the folders."""
    dealt = deal(config)
    write_federation(dealt, folder, config)
    return dealt


def deal(config: RunConfig) -> Split:
    """Load the data sets and deal the users out; the same at every call."""
    private = load(config.data.private)
    same = config.data.public == config.data.private
    public = private if same else load(config.data.public)
    return split(public, private, config)


def _dealt(config: RunConfig, out: Path) -> Split:
    """The federation's folders, written unless they are; the catalogue says so."""
    if (out / CATALOGUE).is_file():
        return deal(config)
    shutil.rmtree(out / FEDERATION, ignore_errors=True)
    dealt = prepare(config, out / FEDERATION)
    content = (out / FEDERATION / SERVER / CATALOGUE).read_bytes()
    write_durably(out / CATALOGUE, content, mode=0o644)
    return dealt


def _run_arm(
    arm: Arm,
    flat: FlatConfig,
    out: Path,
    engine: str,
    listener: Listener,
) -> None:
    config = parse(flat)
    if is_finished(arm.out):
        return
    resumed = holds_run(arm.out)
    clients = out / FEDERATION / CLIENTS
    if arm.out != out:
        clients = _own_clients(arm, clients, config, resumed=resumed)
    job = Job(
        run_id=secrets.randbits(62),
        # Calibrated once, not at each message.
        config=flat
        | {
            # An arm without statistics has their share for its rounds.
            "privacy.noise-multiplier": noise_multiplier(config),
            "statistics.noise-multiplier": total_statistics_noise(config),
            "run.resume": resumed,
        },
        num_clients=config.partition.num_clients,
        clients=clients,
        public=out / FEDERATION / SERVER,
        out=arm.out,
    )
    with follow(arm.out / METRICS, arm.name, listener, resumed=resumed):
        ENGINES[engine](job)


def _own_clients(arm: Arm, clients: Path, config: RunConfig, *, resumed: bool) -> Path:
    """The arm's copies of the client folders: those it began with, or new ones."""
    if resumed:
        return arm.out / FEDERATION / CLIENTS
    # An interrupted start may have left some of them; nobody was asked anything yet.
    shutil.rmtree(arm.out, ignore_errors=True)
    return copy_clients(clients, arm.out / FEDERATION, config)


def _in_process(job: Job) -> None:
    from client.app import app as client
    from server.app import app as server
    from simulations.sum_check import checked_sums

    with checked_sums(job.out):
        run_in_process(server, unreliable(client, job.config), job)


def _on_ray(job: Job) -> None:
    from client.app import app as client
    from server.app import app as server
    from simulations.ray_engine import run_on_ray

    run_on_ray(server, unreliable(client, job.config), job)


ENGINES: dict[str, Callable[[Job], None]] = {"inprocess": _in_process, "ray": _on_ray}
