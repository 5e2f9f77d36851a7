"""What is printed as it is: untitled items by their ids, brackets as brackets."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from common.catalogue import SCHEMA, Catalogue, write_catalogue
from common.recommend import TopK
from simulations.__main__ import _print_items
from simulations.data_commands import data_app
from simulations.run_commands import describe

MARKUP = "[bold]Alien[/bold] [/]"


def catalogue(titles: list[str | None]) -> Catalogue:
    rows = [(f"id{i}", title, 1990, ["drama"]) for i, title in enumerate(titles)]
    return Catalogue(pl.DataFrame(rows, schema=SCHEMA, orient="row"))


@pytest.mark.parametrize("missing", ["", None])
def test_an_untitled_item_is_listed_by_its_id(capsys, monkeypatch, missing) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    found = TopK(np.array([[1, 0]]), np.float32([[0.5, 0.25]]))
    _print_items(catalogue(["Alien", missing]), found, "Recommended")
    first, second = capsys.readouterr().out.splitlines()[4:6]
    assert "item id1" in first and "0.500" in first
    assert "Alien" in second and "item" not in second


def test_titles_are_no_markup(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    found = TopK(np.array([[0]]), np.float32([[0.5]]))
    _print_items(catalogue([MARKUP]), found, f"Like {MARKUP}")
    assert capsys.readouterr().out.count(MARKUP) == 2


def test_settings_are_no_markup(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(
        f'[run]\nname = "x"\n[teacher]\ncheckpoint = "{MARKUP}"\n'
    )
    write_catalogue(catalogue(["Alien"]), tmp_path / "catalogue.parquet")
    app = typer.Typer()
    app.command()(describe)
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert MARKUP in done.output


@pytest.mark.parametrize("verb", ["describe", "quality"])
def test_names_of_files_are_no_markup(tmp_path: Path, verb: str) -> None:
    folder = tmp_path / "[red]set"
    folder.mkdir()
    rows = [f"{user}\t{item}\t3\t97830720{item}" for user in range(12) for item in "12"]
    (folder / "u.data").write_text("\n".join(rows) + "\n")
    items = [f"{i}|Film|01-Jan-1995||x" + "|0" * 19 for i in "12"]
    (folder / "u.item").write_text("\n".join(items) + "\n")
    user = "\n".join(f"{user}|30|F|other|1" for user in range(12))
    (folder / "u.user").write_text(user + "\n")
    place = folder if verb == "quality" else folder / "[red].data"
    if verb == "describe":
        (folder / "u.data").rename(place)
    more = [] if verb == "quality" else ["--format", "movielens"]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(data_app, [verb, str(place), *more])
    assert done.exit_code == 0, done.output
    assert "[red]" in done.output
