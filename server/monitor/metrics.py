"""Runs as Prometheus metrics: a pure function of their facts and the clock.

Server only. Labels are a run's folder and words of fixed lists; no text of a client
gets into one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.metrics_core import Metric

from server.monitor.events import RoundFacts
from server.monitor.runs import STATUSES, Run


def metrics_of(runs: Sequence[Run], now: float) -> Iterator[Metric]:
    """All families; ``now`` in Unix seconds."""
    yield _gauge("runs", "Runs that are told of.", ((), float(len(runs))))
    yield _by(
        "run_status",
        "1 for the status a run has.",
        ("run", "status"),
        (
            ((run.folder, each), float(run.status(now) == each))
            for run in runs
            for each in STATUSES
        ),
    )
    for name, text, ask in _GAUGES:
        values = ((run.folder, ask(run)) for run in runs)
        told = (((folder,), value) for folder, value in values if value is not None)
        yield _by(name, text, ("run",), told)
    ages = ((run.folder, run.age(now)) for run in runs)
    yield _by(
        "last_event_age_seconds",
        "Since the last event of a run.",
        ("run",),
        (((folder,), age) for folder, age in ages if age is not None),
    )
    yield from _counters(runs)


def _counters(runs: Sequence[Run]) -> Iterator[Metric]:
    refusals = CounterMetricFamily(
        "tutela_refusals", "Contributions that did not come.", labels=("run", "reason")
    )
    damaged = CounterMetricFamily(
        "tutela_damaged_lines", "Lines of metrics.jsonl not read.", labels=("run",)
    )
    resumes = CounterMetricFamily(
        "tutela_resumes", "How often a run was taken up again.", labels=("run",)
    )
    phases = SummaryMetricFamily(
        "tutela_phase_seconds", "Time of a round's phases.", labels=("run", "phase")
    )
    for run in runs:
        damaged.add_metric([run.folder], run.damaged)
        times = sum(each.name == "resume" for each in run.events)
        resumes.add_metric([run.folder], times)
        for reason, times in sorted(run.refusals.items()):
            refusals.add_metric([run.folder, reason], times)
        for phase, (times, seconds) in phase_seconds(run.rounds).items():
            phases.add_metric([run.folder, phase], times, seconds)
    yield from (refusals, damaged, resumes, phases, _bytes(runs))


def _bytes(runs: Sequence[Run]) -> Metric:
    family = CounterMetricFamily(
        "tutela_client_bytes",
        "Payload of statistics and rounds, of one client.",
        labels=("run", "direction"),
    )
    for run in runs:
        family.add_metric([run.folder, "down"], run.bytes_down)
        family.add_metric([run.folder, "up"], run.bytes_up)
    return family


def phase_seconds(rounds: Iterable[RoundFacts]) -> dict[str, tuple[int, float]]:
    """How often each phase was timed, and its seconds, in the order first met."""
    total: dict[str, tuple[int, float]] = {}
    for each in rounds:
        for phase, seconds in each.seconds.items():
            times, before = total.get(phase, (0, 0.0))
            total[phase] = times + 1, before + seconds
    return total


def _epsilon(run: Run) -> float | None:
    return run.rounds[-1].epsilon if run.rounds else None


def _planned(run: Run) -> float | None:
    return None if run.plan.rounds is None else float(run.plan.rounds)


def _survivors(run: Run) -> float | None:
    return float(run.rounds[-1].survivors) if run.rounds else None


def _clients(run: Run) -> float | None:
    return float(run.rounds[-1].num_clients) if run.rounds else None


_GAUGES = (
    ("rounds_done", "Rounds that ended.", lambda run: float(run.num_done)),
    ("rounds_planned", "Rounds that the run was configured for.", _planned),
    ("survivors", "Clients whose update counted in the last round.", _survivors),
    ("clients", "Clients that were asked in the last round.", _clients),
    ("epsilon", "Spent by a client, at the run's delta; Inf: no promise.", _epsilon),
    (
        "target_epsilon",
        "What the run aims at.",
        lambda run: run.plan.target_epsilon if run.plan.private else None,
    ),
    (
        "validation_ndcg",
        "NDCG@100 on public validation users.",
        lambda run: run.rounds[-1].validation if run.rounds else None,
    ),
    (
        "last_event_timestamp_seconds",
        "Time of the last event, Unix.",
        lambda run: run.last,
    ),
)


def _gauge(name: str, text: str, *rows: tuple[tuple[str, ...], float]) -> Metric:
    return _by(name, text, (), rows)


def _by(
    name: str,
    text: str,
    labels: tuple[str, ...],
    rows: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    family = GaugeMetricFamily(f"tutela_{name}", text, labels=labels)
    for values, value in rows:
        family.add_metric(list(values), value)
    return family
