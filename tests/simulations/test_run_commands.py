"""The verbs describe and benchmark: what they print and write, and what they refuse."""

import json
import sys
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
import typer
from rich.table import Table
from typer.testing import CliRunner

from common.catalogue import SCHEMA, Catalogue, write_catalogue
from common.errors import ConfigError, DataFormatError
from simulations.benchmarks import BENCHMARKS
from simulations.results import write_results
from simulations.run_commands import benchmark, describe

app = typer.Typer()
app.command()(describe)
app.command()(benchmark)

NAMES = [
    "user profile",
    "item features",
    "similarity",
    "algorithm",
    "evaluation and optimisation",
]


def invoke(*arguments: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))


@pytest.fixture
def run(tmp_path: Path, example_results) -> Path:
    """A run's folder with what describe reads of it."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text('[teacher]\nname = "transformer"\n')
    rows = [(str(i), f"title {i}", 1990, ["drama"]) for i in range(7)]
    catalogue = Catalogue(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    write_catalogue(catalogue, folder / "catalogue.parquet")
    write_results(example_results, folder / "results.json")
    return folder


# -------------------------------------------------------------------- describe


def test_a_run_is_shown_as_five_parts_in_order(run: Path) -> None:
    done = invoke("describe", str(run))
    assert done.exit_code == 0, done.output
    places = [done.output.index(f"{n}. {name}") for n, name in enumerate(NAMES, 1)]
    assert places == sorted(places)
    shown = " ".join(done.output.split())
    assert "the teacher (transformer)" in shown
    assert "in common/features.py, common/fusion.py, server/features.py" in shown
    assert "ndcg@10, student private" in shown
    assert "-differentially private per user" in shown


def test_json_is_the_same_parts(run: Path, example_results) -> None:
    done = invoke("describe", str(run), "--json")
    parts = json.loads(done.output)
    assert [part["name"] for part in parts] == NAMES
    for part in parts:
        assert set(part) == {"name", "does", "where", "settings", "facts"}
    assert parts[1]["facts"]["items"] == "7"
    assert parts[2]["settings"]["teacher.name"] == "transformer"
    assert parts[3]["facts"]["promise"] == example_results.promise.sentence


def test_a_run_that_has_not_ended_is_shown_without_figures(run: Path) -> None:
    (run / "results.json").unlink()
    parts = json.loads(invoke("describe", str(run), "--json").output)
    assert [part["name"] for part in parts] == NAMES
    assert parts[3]["facts"] == parts[4]["facts"] == {}


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_folder_without_a_run_is_named(tmp_path: Path, form) -> None:
    found = invoke("describe", str(tmp_path / "nowhere"), *form).exception
    assert isinstance(found, ConfigError)
    assert "nowhere" in str(found)
    assert "config.toml" in str(found)


def test_a_run_without_a_catalogue_is_refused(run: Path) -> None:
    (run / "catalogue.parquet").unlink()
    found = invoke("describe", str(run)).exception
    assert isinstance(found, (ConfigError, DataFormatError, OSError))
    assert "catalogue.parquet" in str(found)


# ------------------------------------------------------------------- benchmark


def tables(found: dict) -> list[Table]:
    table = Table("case", title="one benchmark of ours")
    table.add_row(found["case"])
    return [table]


@pytest.fixture
def fake(monkeypatch) -> ModuleType:
    """A benchmark that says what it was asked."""
    module = ModuleType("simulations.benchmarks.fake")
    module.TITLE = "a fake, naïve"
    module.measure = lambda data, *, quick: {"case": str(data), "asked": quick}
    module.tables = tables
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(BENCHMARKS, "pretended", "fake")
    return module


@pytest.mark.parametrize("quick", [False, True])
def test_figures_are_printed_and_written(fake, tmp_path: Path, quick) -> None:
    out, more = tmp_path / "deep" / "figures", ["--quick"] if quick else []
    where = ["--data", str(tmp_path), "--out", str(out)]
    done = invoke("benchmark", "pretended", *where, *more)
    assert done.exit_code == 0, done.output
    assert "one benchmark of ours" in done.output
    path = out / ("pretended-quick.json" if quick else "pretended.json")
    assert path.name in "".join(done.output.split())
    assert list(out.iterdir()) == [path]
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "title": "a fake, naïve",
        "quick": quick,
        "case": str(tmp_path),
        "asked": quick,
    }


def test_an_unknown_benchmark_is_told_the_known_ones(tmp_path: Path) -> None:
    where = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    found = invoke("benchmark", "sppeed", *where).exception
    assert isinstance(found, ConfigError)
    assert "'sppeed'" in str(found)
    for name in BENCHMARKS:
        assert name in str(found)
    assert not (tmp_path / "out").exists()


def test_a_missing_data_folder_is_named(fake, tmp_path: Path) -> None:
    where = ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "out")]
    found = invoke("benchmark", "pretended", *where).exception
    assert isinstance(found, ConfigError)
    assert "--data" in str(found)
    assert str(tmp_path / "none") in str(found)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_every_benchmark_has_its_three_parts(name: str) -> None:
    from importlib import import_module

    module = import_module(f"simulations.benchmarks.{BENCHMARKS[name]}")
    assert module.TITLE
    assert callable(module.measure)
    assert callable(module.tables)
