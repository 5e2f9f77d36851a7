"""Mode ``distributed`` on one-user devices, beside DP-SGD in one trusted hand.

Simulations only. Public MovieLens-100K, private MovieLens-1M, 600 held-out users; each
of the 5,440 private users is a device of its own, and a tenth of them is silent each
round. *Central* is one clip over the union of users and one Gaussian noise, as whoever
is trusted with all rows would add it; *ten clients* is mode ``local``, with ten noises.
What is done for a cohort at once, ``simulations/device_sums.py`` says.

The central row has the settings that it was first measured with. Those of the devices,
``BY_TARGET``, were chosen on another split of the users (``partition.seed = 101``), by
its held-out users: nobody could do that on private rows without paying for it.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from rich.table import Table

from client.randomness import RandomStream, seeded_stream
from client.train import split as mask
from common.config import FlatConfig, RunConfig, defaults, parse, read_overrides
from common.fixed_point import Float
from common.integer_noise import rotation_seed, sum_plan
from common.intervals import Estimate
from common.plan import noise_multiplier
from common.promise import promise_of
from common.recommend import score_histories
from common.secure_round import num_parameters, update_of
from common.student import StateDict, Student, build, shapes
from server.aggregation import AGGREGATORS, running_average
from server.round_checkpoint import Progress
from server.settings import read_public_data
from server.teaching import open_school
from simulations.benchmarks.utility import CONFIGS, QUICK, SGD
from simulations.collecting import PRIMARY
from simulations.device_sums import Cohort, clipped_sum, decoded_sum
from simulations.evaluation import HeldOut, private_rows, rank, read_heldout, summarise
from simulations.experiment import prepare
from simulations.partition import SERVER

TITLE = "one-user devices under secure aggregation, beside one trusted hand"
TARGETS = (8.0, 3.0, 1.0)
#: NDCG@100 that mode distributed may lose against the central row.
AIM = 0.01
#: Silent in each round, at random: phones without power or network.
SILENT = 0.1
#: Clients of mode local, each with its own whole noise.
LOCAL = 10
METRICS = ("ndcg@10", "recall@20", PRIMARY)
#: Every device sends a vector in every round anyway, and trains, so that neither bytes
#: nor time tell who is sampled: all of them may as well be.
DEVICES: FlatConfig = {
    "privacy.mode": "distributed",
    "privacy.declared-users": 1,
    "privacy.sample-rate": 1.0,
    "secagg.threshold": 0.88,
    "secagg.corrupt": 0.02,
    "secagg.dropped": SILENT,
}
#: The whole local update is clipped once: of several short steps, each with other items
#: masked, more of it is what other users' have too. The clip is as large beside them as
#: beside one step of rate 1.
SEVERAL: FlatConfig = {
    "training.local-steps": 4,
    "training.learning-rate": 0.01,
    "privacy.max-grad-norm": 0.001,
    "training.rounds": 60,
}
#: More noise wants a smaller student, and at last an optimiser that does not raise
#: what is noise alone to the size of the rest.
BY_TARGET: dict[float, FlatConfig] = {
    8.0: {"student.dim": 48} | SEVERAL,
    3.0: {"student.dim": 32} | SEVERAL,
    1.0: {
        "aggregation.name": "fedavg",
        "aggregation.learning-rate": 2.0,
        "training.rounds": 30,
    },
}
#: Another expected cohort, for comparison: a tenth of the devices.
RARELY: FlatConfig = {"privacy.sample-rate": 0.1}
SHORT: FlatConfig = QUICK | {
    "statistics.share": 0.0,
    "training.rounds": 10,
    "aggregation.learning-rate": 0.03,
}

#: From the clipped sum of a round's sample, and the round's number, to the mean update.
Release = Callable[[Float, int, int], Float]


@dataclass(frozen=True)
class World:
    """What the rows of a table have in common.

    Attributes:
        rows: private users, CSR ``[users, n]``.
        starts: by width, the student as it is transferred.
    """

    rows: sp.csr_matrix
    heldout: HeldOut
    starts: dict[int, Student]

    @property
    def num_devices(self) -> int:
        """One a private user."""
        return int(self.rows.shape[0])


@dataclass(frozen=True)
class Case:
    """A row of the table: how a round's sum is released.

    Attributes:
        silent: share of the users whose updates and noise are missing in a round.
    """

    name: str
    config: RunConfig
    noise: float
    silent: float
    release: Release


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """Train and rank every case.

    Args:
        data: folder of the data sets.
        quick: synthetic data, fewer rounds, and ε = 8 alone.
    """
    targets = TARGETS[:1] if quick else TARGETS
    base = _base(data, quick=quick)
    chosen = {t: {} if quick else BY_TARGET[t] for t in targets}
    dims = {int((base | more)["student.dim"]) for more in ({}, *chosen.values())}
    world = open_world(parse(base), sorted(dims))
    rows, promises = [_public_row(world, parse(base).student.dim)], []
    for target, more in chosen.items():
        aimed = base | {"privacy.target-epsilon": target}
        cases = [
            device_case(world, aimed | DEVICES | more),
            central_case(world, aimed, 1),
            central_case(world, aimed, LOCAL),
        ]
        if target == targets[0]:
            cases.append(device_case(world, aimed | DEVICES | more | RARELY))
        promises.append(_promise(cases[0]))
        rows += [run_case(world, case) for case in cases]
    return _summary(world, rows, promises[0], targets)


def _base(data: Path, *, quick: bool) -> FlatConfig:
    found = defaults() | read_overrides(CONFIGS / "ml1m.toml") | SGD
    found |= {
        "data.public": str(data / "ml-100k"),
        "data.private": str(data / "ml-1m"),
    }
    return found | (SHORT if quick else {})


def open_world(config: RunConfig, dims: Sequence[int]) -> World:
    """Deal the users out, teach the teacher, transfer a student of each width."""
    with tempfile.TemporaryDirectory() as folder:
        federation = Path(folder)
        prepare(config, federation)
        public = read_public_data(federation / SERVER)
        school = open_school(config, public)
        teacher, starts = school.teacher(), {}
        for dim in dims:
            spec = replace(school.spec, dim=dim)
            state = replace(school, spec=spec).start(teacher, public.known)
            starts[dim] = build(spec, state).eval()
        rows = private_rows(federation, public.catalogue)
        return World(rows, read_heldout(federation), starts)


def device_case(world: World, flat: FlatConfig) -> Case:
    """Mode ``distributed``, a device a user."""
    spec = world.starts[int(flat["student.dim"])].spec
    settings = flat | {
        "secagg.clients": world.num_devices,
        "secagg.parameters": num_parameters(shapes(spec).values()),
    }
    config = parse(settings)
    multiplier = noise_multiplier(config)
    plan = sum_plan(config, multiplier, config.secagg.parameters)
    stream = _stream(config, "devices")
    finished = world.num_devices - round(SILENT * world.num_devices)

    def release(total: Float, sampled: int, number: int) -> Float:
        seed = rotation_seed("1", number)
        return decoded_sum(total, Cohort(finished, sampled), plan, seed, stream)

    rate = config.privacy.sample_rate
    name = f"{_at(config)}, distributed, one device a user, rate {rate:g}"
    return Case(name, config, multiplier, SILENT, release)


def central_case(world: World, flat: FlatConfig, clients: int) -> Case:
    """Gaussian noise on the sum over all users, once or once a client.

    Args:
        clients: 1: whoever adds the noise is trusted with every row; more: mode
            ``local``, whose clients' mean has so many noises in it.
    """
    config = parse(flat)
    multiplier = noise_multiplier(config)
    deviation = multiplier * config.privacy.max_grad_norm * math.sqrt(clients)
    expected = config.privacy.sample_rate * world.num_devices
    stream = _stream(config, f"{clients} clients")

    def release(total: Float, sampled: int, number: int) -> Float:
        drawn: Float = stream.normal(total.shape).numpy()
        return (total + deviation * drawn) / expected

    whose = "central" if clients == 1 else f"local, {clients} clients"
    return Case(f"{_at(config)}, {whose}", config, multiplier, 0.0, release)


def run_case(world: World, case: Case) -> dict[str, Any]:
    """All rounds of a case, its student ranked."""
    begun = time.process_time()
    student = train(world, case)
    seconds = time.process_time() - begun
    epsilon = promise_of(case.config, case.noise, seeded=True).epsilon
    row = _row(world, case.name, student)
    return row | {"epsilon": epsilon, "noise": case.noise, "cpu_seconds": seconds}


def train(world: World, case: Case) -> Student:
    """The student after the last round, averaged as a run averages it."""
    config = case.config
    start = world.starts[config.student.dim]
    progress = Progress(dict(start.state_dict()))
    stream = _stream(config, "who")
    for number in range(1, config.training.rounds + 1):
        rows = world.rows[_sample(world, case, stream)]
        masked = [
            mask(rows, config.training.target_fraction, stream)
            for _ in range(config.training.local_steps)
        ]
        rate, clip = config.training.learning_rate, config.privacy.max_grad_norm
        total = clipped_sum(start.spec, progress.student, masked, rate, clip)
        mean = case.release(total, rows.shape[0], number)
        progress = _moved(progress, update_of(mean, start.spec), config, number)
    return build(start.spec, progress.released).eval()


def _sample(world: World, case: Case, stream: RandomStream) -> sp.csr_matrix:
    """Who is heard and, by its own coin, in the sample: bool ``[users]``."""
    order = np.argsort(stream.uniform(world.num_devices))
    heard = np.ones(world.num_devices, dtype=bool)
    heard[order[: round(case.silent * world.num_devices)]] = False
    coins = stream.uniform(world.num_devices) < case.config.privacy.sample_rate
    return heard & coins


def _moved(
    progress: Progress, mean: StateDict, config: RunConfig, number: int
) -> Progress:
    """One step of the server, as ``server/strategy.py`` makes it."""
    settings = config.aggregation
    student, optimiser = AGGREGATORS[settings.name](
        progress.student, mean, progress.optimiser, settings
    )
    if number <= settings.average_from * config.training.rounds:
        return replace(progress, student=student, optimiser=optimiser)
    count = progress.num_averaged + 1
    average = running_average(progress.average or student, student, count)
    return Progress(student, optimiser, average, count)


def _stream(config: RunConfig, purpose: str) -> RandomStream:
    target = f"{config.privacy.target_epsilon:g}"
    return seeded_stream(config.run.seed, "benchmark", target, purpose)


def _at(config: RunConfig) -> str:
    return f"ε = {config.privacy.target_epsilon:g}"


def _promise(case: Case) -> str:
    return promise_of(case.config, case.noise, seeded=True).sentence


def _public_row(world: World, dim: int) -> dict[str, Any]:
    return _row(world, "public: student, transferred", world.starts[dim])


def _row(world: World, name: str, student: Student) -> dict[str, Any]:
    scorer = score_histories(student, world.heldout.shown)
    settings = parse(defaults()).evaluation
    found = summarise(rank(scorer, world.heldout, settings), world.heldout, settings)
    values = {each: _interval(found[each]) for each in METRICS}
    return {"case": name, "epsilon": None, **values}


def _interval(found: Estimate) -> list[float]:
    return [found.value, found.low, found.high]


def _summary(
    world: World, rows: list[dict[str, Any]], promise: str, targets: tuple[float, ...]
) -> dict[str, Any]:
    values = {row["case"]: row[PRIMARY][0] for row in rows}
    by_target = {}
    for target in targets:
        mine = {k: v for k, v in values.items() if k.startswith(f"ε = {target:g},")}
        devices, central, local, *_ = mine.values()
        by_target[f"{target:g}"] = {
            "distributed": devices,
            "central": central,
            "local": local,
            "lost_to_central": central - devices,
            "gained_on_local": devices - local,
        }
    lost = [each["lost_to_central"] for each in by_target.values()]
    return {
        "devices": world.num_devices,
        "silent": SILENT,
        "metric": PRIMARY,
        "targets": by_target,
        "aim": AIM,
        "aim_met": max(lost) <= AIM,
        "promise": promise,
        "rows": rows,
    }


def tables(found: dict[str, Any]) -> list[Table]:
    """One row a case, with 95 % intervals over held-out users; then the differences."""
    table = Table(title=f"{found['devices']} {TITLE}", caption=found["promise"])
    for column in ("case", *METRICS, "noise multiplier", "ε", "CPU s"):
        table.add_column(column)
    for row in found["rows"]:
        cells = [f"{row[m][0]:.4f} [{row[m][1]:.3f}, {row[m][2]:.3f}]" for m in METRICS]
        paid = ["–", "–", "–"]
        if row["epsilon"] is not None:
            paid = [
                f"{row['noise']:.3f}",
                f"{row['epsilon']:.3f}",
                f"{row['cpu_seconds']:.0f}",
            ]
        table.add_row(row["case"], *cells, *paid)
    return [table, _differences(found)]


def _differences(found: dict[str, Any]) -> Table:
    met = "met" if found["aim_met"] else "NOT met"
    table = Table(
        title=f"{found['metric']} of mode distributed",
        caption=f"aim: within {found['aim']} of the central row, {met}",
    )
    for column in ("ε", "distributed", "central", "lost", "local", "gained"):
        table.add_column(column)
    for target, row in found["targets"].items():
        table.add_row(
            target,
            f"{row['distributed']:.4f}",
            f"{row['central']:.4f}",
            f"{row['lost_to_central']:+.4f}",
            f"{row['local']:.4f}",
            f"{row['gained_on_local']:+.4f}",
        )
    return table
