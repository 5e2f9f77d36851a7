"""The results as a table in a terminal: models × metrics, stamps, promise, verdict.

In ``simulations`` because only an experiment sees all arms side by side. The names
and number formats here are those of plots and report too.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import StringIO

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from simulations.results import (
    Interval,
    ModelName,
    Results,
    RoundRecord,
    StatisticsRecord,
)

#: In this order wherever models are listed.
MODEL_LABELS: dict[ModelName, str] = {
    "popularity": "Popularity, public",
    "popularity_nonprivate": "Popularity, all rows",
    "teacher": "Teacher, public",
    "teacher_refined": "Teacher, refined",
    "student_transferred": "Student, transferred",
    "student_private": "Student, federated",
    "student_nonprivate": "Student, no noise",
    "student_scratch": "Student, from scratch",
    "ensemble": "Students, combined",
    "puresvd_nonprivate": "PureSVD, all rows",
    "item_knn_nonprivate": "Item-kNN, all rows",
    "ials_nonprivate": "iALS, all rows",
    "fedmf": "FedMF, same ε",
}
#: The metrics of the terminal; the report shows every metric.
MAIN_METRICS = ("ndcg@10", "recall@20", "mrr", "coverage@10")
INTERVAL_NOTE = "95 % intervals over held-out users; not over repeated training runs."
NO_ROUNDS = "No training rounds: the statistics alone."

#: Questions of the statistics, for people.
QUESTION_LABELS = {
    "pairs": "Items and pairs of items",
    "sketch": "Pairs along directions",
}

_BYTE_UNITS = ("kB", "MB", "GB", "TB")
_METRIC_NAMES = {
    "ndcg": "NDCG",
    "recall": "Recall",
    "hr": "Hit rate",
    "mrr": "MRR",
    "coverage": "Coverage",
    "diversity": "Diversity",
    "novelty": "Novelty, bits",
    "gini": "Gini",
}
_WIDTH = 80


def metric_label(metric: str) -> str:
    """How a metric is written for people.

    >>> metric_label("ndcg@10")
    'NDCG@10'
    """
    family, at, cut = metric.partition("@")
    return _METRIC_NAMES.get(family, family) + at + cut


def present_models(results: Results) -> list[ModelName]:
    """The models that were run, in the order of ``MODEL_LABELS``."""
    return [name for name in MODEL_LABELS if name in results.models]


def present_metrics(results: Results) -> list[str]:
    """Every metric of any model, in the order first met."""
    metrics = [m for name in present_models(results) for m in results.models[name]]
    return list(dict.fromkeys(metrics))


def statistics_alone(results: Results) -> bool:
    """Whether no training round was asked for, which is no fault."""
    return not results.rounds and results.config.get("training.rounds") == 0


@dataclass(frozen=True)
class Traffic:
    """Bytes that one client received and sent over statistics and rounds."""

    received: int
    sent: int

    @property
    def sentence(self) -> str:
        """Both, for people."""
        received, sent = format_bytes(self.received), format_bytes(self.sent)
        return f"Over the run a client received {received} and sent {sent}."


def traffic_of(results: Results) -> Traffic:
    """What the run asked of one client's line."""
    asked: list[RoundRecord | StatisticsRecord] = [*results.statistics, *results.rounds]
    return Traffic(
        sum(each.bytes_down_per_client for each in asked),
        sum(each.bytes_up_per_client for each in asked),
    )


def unmeasured_statistics(results: Results) -> bool:
    """Whether statistics were asked whose traffic the results do not hold."""
    return bool(results.config.get("statistics.share")) and not results.statistics


def format_bytes(count: float) -> str:
    """Decimal units, three significant digits.

    >>> format_bytes(1_771_520), format_bytes(12)
    ('1.77 MB', '12 bytes')
    """
    if count < 1000:
        return f"{count:.0f} bytes"
    unit = -1
    while count >= 999.5 and unit + 1 < len(_BYTE_UNITS):
        count, unit = count / 1000, unit + 1
    digits = 2 if count < 9.995 else 1 if count < 99.95 else 0
    return f"{count:.{digits}f} {_BYTE_UNITS[unit]}"


def format_range(interval: Interval) -> str:
    """The ends of an interval, e.g. ``0.197–0.224``."""
    return f"{interval.low:.3f}–{interval.high:.3f}"


def results_table(results: Results) -> Table:
    """Models × ``MAIN_METRICS``; two lines a cell, stamps under the names."""
    found = present_metrics(results)
    metrics = [metric for metric in MAIN_METRICS if metric in found]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(results.name))
    table.add_column("Model", max_width=26)
    for metric in metrics:
        table.add_column(metric_label(metric), justify="right", no_wrap=True)
    for name in present_models(results):
        cells = [_cell(results.models[name].get(metric)) for metric in metrics]
        table.add_row(_name(results, name), *cells)
    return table


def render_table(results: Results) -> Group:
    """The table with promise and verdict beneath, for any rich console."""
    parts: list[Table | Text] = [Text(results.name + "\n", "bold")]
    if results.models:
        parts = [results_table(results)]
    if results.status == "interrupted":
        parts.append(Text(_interruption(results), "bold yellow"))
    if statistics_alone(results):
        parts.append(Text(NO_ROUNDS + "\n"))
    if results.models:
        parts.append(Text(INTERVAL_NOTE + "\n", "dim"))
    if results.refinement:
        parts.append(Text(results.refinement + "\n", "bold yellow"))
    if results.suppressed:
        parts.append(Text(results.suppressed + "\n", "bold"))
    traffic = traffic_of(results)
    if traffic.received and not unmeasured_statistics(results):
        parts.append(Text(traffic.sentence + "\n", "dim"))
    style = "bold red" if results.promise.epsilon is None else ""
    parts.append(Text(results.promise.sentence, style))
    if results.secure_sums:
        parts.append(Text(f"\n{results.secure_sums}"))
    if results.verdict is not None:
        parts.append(Text(f"\nVerdict: {results.verdict.text}", "bold"))
    return Group(*parts)


def print_results(results: Results, console: Console | None = None) -> None:
    """Print to a terminal with colour, to anything else as plain text."""
    console = console or Console()
    console.print(render_table(results))


def plain_text(results: Results) -> str:
    """The same as plain text, at most 80 columns wide, without trailing blanks."""
    file = StringIO()
    print_results(results, Console(file=file, width=_WIDTH, color_system=None))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _interruption(results: Results) -> str:
    if statistics_alone(results):
        return "INTERRUPTED before it was complete.\n"
    return f"INTERRUPTED after {len(results.rounds)} rounds.\n"


def _name(results: Results, name: ModelName) -> Text:
    label = Text(MODEL_LABELS[name])
    stamp = results.model_notes[name].stamp
    return label.append(f"\n{stamp}", "bold red") if stamp else label


def _cell(interval: Interval | None) -> Text:
    if interval is None:
        return Text("–\n")
    return Text(f"{interval.value:.3f}").append(f"\n{format_range(interval)}", "dim")
