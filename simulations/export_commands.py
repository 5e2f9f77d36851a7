"""The verb ``tutela export``: a run's student as a file for devices, checked.

In ``simulations`` because a run's folder holds all sides: the student, the promise it
was trained under, and held-out users to say what compression cost. Held-out users
choose nothing: which items stay is decided by the released tables alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ConfigError, DataFormatError
from common.folders import CATALOGUE, INTERACTIONS, RESULTS, STUDENT

if TYPE_CHECKING:
    from common.compact_files import Labels
    from common.compression import Compact
    from common.export import Parity
    from common.interactions import FloatArray
    from simulations.results import Results

Score = Callable[["FloatArray"], "FloatArray"]
#: Made-up histories an export is tried on, and how long a list is compared.
TRIALS, TOP = 64, 10
#: Of scores around one: 32-bit sums in another order, and nothing else.
TOLERANCE = 1e-4
UNKNOWN_PROMISE = (
    f"No {RESULTS} beside the student: nothing is known here of a promise."
)


class Format(StrEnum):
    """What an exported file is."""

    onnx = "onnx"
    int8 = "int8"
    safetensors = "safetensors"
    safetensors_int8 = "safetensors-int8"


@dataclass(frozen=True)
class Exported:
    """What was written, and what was found when it was read back.

    Attributes:
        size, size_before: bytes of the file and of the run's student.
        parity: between the file and the same compact student in torch, 32 bits.
        pruning: between the file and the run's whole student.
        ndcg: of the run's whole student and of the file, over ``num_users`` held-out
            users; None where there are none to show.
    """

    student: Compact
    size: int
    size_before: int
    parity: Parity
    pruning: Parity
    ndcg: tuple[float, float] | None
    num_users: int
    promise: str
    promised: bool


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    format: Annotated[Format, typer.Option()] = Format.onnx,
    dims: Annotated[
        int | None, typer.Option(help="Keep so many dimensions; all by default.")
    ] = None,
    items: Annotated[
        int | None, typer.Option(help="Keep so many items; all by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the file.")] = False,
) -> None:
    """Write a run's student as ONNX or safetensors, pruned and in 8 bits if asked."""
    from rich.console import Console

    found = export_run(run, out, format, dims=dims, items=items, overwrite=overwrite)
    console = Console(soft_wrap=True)
    for line in lines_of(found, out.name, format):
        console.print(line, markup=False, highlight=False)
    style = None if found.promised else "bold red"
    console.print(found.promise, markup=False, highlight=False, style=style)


def export_run(
    run: Path,
    out: Path,
    format: Format,
    *,
    dims: int | None = None,
    items: int | None = None,
    overwrite: bool = False,
) -> Exported:
    """Compress, write, read back and compare; the file stands only if it fits.

    Raises:
        ConfigError: if ``out`` is there already or is the run's own student, a number
            is out of range, or the extra ``export`` is missing.
        DataFormatError: if the run has no student, or the file written does not score
            as the student does.
    """
    from common.catalogue import read_catalogue
    from common.compact_files import Labels
    from common.compression import CompactStudent, whole
    from common.durable_files import write_durably
    from common.export import compare, trial_histories
    from common.student import load_student

    _make_room(run, out, overwrite=overwrite)
    loaded = load_student(run / STUDENT)
    catalogue = read_catalogue(run / CATALOGUE)
    if catalogue.num_items != loaded.spec.num_items:
        raise DataFormatError(
            f"{run}: expected a student over the {catalogue.num_items} items of its "
            f"catalogue, got {loaded.spec.num_items}."
        )
    results = _results(run)
    promise = results.promise.sentence if results else UNKNOWN_PROMISE
    before = whole(loaded.spec, loaded.state_dict())
    student = compress(before, dims, items)
    with TemporaryDirectory() as folder:
        trial = Path(folder, "student")
        score = _write(trial, student, Labels(catalogue.digest, promise), format)
        content = trial.read_bytes()
    histories = trial_histories(catalogue.num_items, TRIALS, seed=0).toarray()
    found, expected = score(histories), CompactStudent(student).score(histories)
    parity = compare(expected, found, TOP)
    _check(parity, expected, format)
    ranked = _rank(run, results, CompactStudent(before).score, score)
    write_durably(out, content, mode=0o644)
    return Exported(
        student=student,
        size=len(content),
        size_before=(run / STUDENT).stat().st_size,
        parity=parity,
        pruning=compare(CompactStudent(before).score(histories), found, TOP),
        ndcg=ranked[0],
        num_users=ranked[1],
        promise=promise,
        promised=results is not None and results.promise.epsilon is not None,
    )


def compress(student: Compact, dims: int | None, items: int | None) -> Compact:
    """Items first: the dimensions are then the best for the items that stay."""
    from common.compression import item_energy, prune_dimensions, prune_rows

    if items is not None:
        student = prune_rows(student, items, item_energy(student))
    return student if dims is None else prune_dimensions(student, dims)


def lines_of(found: Exported, name: str, format: Format) -> list[str]:
    """What is said of an export, a line a fact."""
    spec, parity, pruning = found.student.spec, found.parity, found.pruning
    lines = [
        f"{name}: {format.value}, {spec.dim} dimensions, {spec.num_items} of "
        f"{found.student.catalogue_size} items, {found.size:,} bytes "
        f"({found.size / found.size_before:.0%} of {STUDENT}).",
        f"Read back on {TRIALS} made-up histories, an empty and a full one among "
        f"them: scores differ from torch by at most {parity.largest_difference:.1e}; "
        f"{parity.overlap:.1%} of the top {TOP} are the same, and "
        f"{pruning.overlap:.1%} are those of the run's whole student.",
    ]
    if found.ndcg is not None:
        before, after = found.ndcg
        lines.append(
            f"NDCG@{TOP} over {found.num_users} held-out users: {before:.4f} before, "
            f"{after:.4f} after."
        )
    return lines


def _make_room(run: Path, out: Path, *, overwrite: bool) -> None:
    if out.is_dir():
        raise ConfigError(f"--out: expected a file's name, got the folder {out}.")
    if out.resolve() == (run / STUDENT).resolve():
        raise ConfigError(f"--out: {out} is the run's own student; name another file.")
    if out.exists() and not overwrite:
        raise ConfigError(f"--out: {out} exists; name another file or --overwrite.")
    if not out.parent.is_dir():
        raise ConfigError(f"--out: expected a folder at {out.parent}, found none.")


def _results(run: Path) -> Results | None:
    from simulations.results import read_results

    return read_results(run / RESULTS) if (run / RESULTS).is_file() else None


def _write(path: Path, student: Compact, labels: Labels, format: Format) -> Score:
    """Write the file, and score by what it says when read again."""
    from common.compact_files import Precision, load_compact, save_compact
    from common.compression import CompactStudent
    from common.export import load_onnx, save_onnx

    eight = format in (Format.int8, Format.safetensors_int8)
    precision: Precision = "int8" if eight else "float32"
    if format in (Format.onnx, Format.int8):
        save_onnx(path, student, labels, precision)
        return load_onnx(path, labels.catalogue_digest).score
    save_compact(path, student, labels, precision)
    return CompactStudent(load_compact(path, labels.catalogue_digest)).score


def _check(parity: Parity, expected: FloatArray, format: Format) -> None:
    """Refuse a 32-bit file that scores otherwise; eight bits are only reported."""
    import numpy as np

    largest = float(np.abs(expected[np.isfinite(expected)]).max(initial=1.0))
    exact = format in (Format.onnx, Format.safetensors)
    if exact and parity.largest_difference > TOLERANCE * largest:
        raise DataFormatError(
            f"Expected scores within {TOLERANCE * largest:.1e} of torch's from the "
            f"file written, got {parity.largest_difference:.1e} apart; nothing kept."
        )


def _rank(
    run: Path, results: Results | None, before: Score, after: Score
) -> tuple[tuple[float, float] | None, int]:
    """NDCG of both over the run's held-out users, where the run shows such figures."""
    import numpy as np

    from common.catalogue import read_catalogue
    from common.export import batch_scorer
    from common.interactions import encode_held, read_table
    from common.metrics import evaluate_ranking
    from simulations.collecting import FEDERATION
    from simulations.partition import HELDOUT

    path = run / FEDERATION / HELDOUT / INTERACTIONS
    if results is None or results.suppressed or not path.is_file():
        return None, 0
    items = read_catalogue(run / CATALOGUE).items
    shown, held = encode_held(read_table(path), items)
    metric = f"ndcg@{TOP}"

    def mean(score: Score) -> float:
        scorer = batch_scorer(score, shown)
        values = evaluate_ranking(
            scorer, shown, held, batch_size=256, metrics=(metric,)
        )
        return float(np.nanmean(values[metric]))

    return (mean(before), mean(after)), int(shown.shape[0])
