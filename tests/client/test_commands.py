"""The verbs as an operator types them."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from client.__main__ import app
from client.ledger import open_ledger
from client.settings import read_settings, witness_place
from common.errors import ConfigError, DataFormatError, LedgerError, TutelaError
from tests.client.conftest import rows, write_folder
from tests.client.test_ledger import change, charge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = write_folder(tmp_path / "0000", rows(8), target_epsilon=6.0)
    place = witness_place(home, read_settings(home))
    for number in (1, 2, 3):
        with open_ledger(home, place) as ledger:
            ledger.append(charge(number))
    return home


def tutela(*arguments: object) -> str:
    """What a command prints; its own errors come as they are raised."""
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if isinstance(done.exception, TutelaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_show_says_what_was_spent_and_left(folder: Path) -> None:
    text = tutela("ledger", "show", folder)
    assert re.search(
        r"user\s+1e-05\s+\d+\.\d{3}\s+\d+\.\d{3}\s+6\.000\s+\d+\.\d{3}", text
    )
    assert "movies" in text
    assert "differentially" in text


def test_show_for_machines_holds_the_same(folder: Path) -> None:
    found = json.loads(tutela("ledger", "show", folder, "--json", "--delta", "1e-7"))
    (column,) = found["columns"]
    assert [spent["delta"] for spent in column["spent"]] == [1e-5, 1e-7]
    assert column["spent"][0]["pld"] < column["spent"][0]["rdp"]
    assert column["budget"]["target_epsilon"] == 6.0
    assert column["left"] == pytest.approx(6.0 - column["spent"][0]["pld"])
    assert [line["number"] for line in found["charges"]] == [1, 2, 3]
    assert found["runs"][0]["rounds"] == 3
    assert "differentially private" in found["sentence"]


def test_infinity_is_null_for_machines(folder: Path) -> None:
    place = witness_place(folder, read_settings(folder))
    bare = charge(4).event.__class__(0.0, 0.5, 1)
    with open_ledger(folder, place) as ledger:
        ledger.append(charge(4, event=bare))
    text = tutela("ledger", "show", folder, "--json")
    assert "Infinity" not in text
    assert json.loads(text)["columns"][0]["spent"][0]["pld"] is None


@pytest.mark.parametrize("delta", ["0", "1", "-0.5", "2", "nan"])
def test_an_impossible_delta_is_refused(folder: Path, delta: str) -> None:
    with pytest.raises(ConfigError, match="--delta"):
        tutela("ledger", "show", folder, f"--delta={delta}")


def test_verify_says_sound_or_names_the_fault(folder: Path, tmp_path: Path) -> None:
    assert "Sound: 3 entries" in tutela("ledger", "verify", folder)
    change(folder, "DELETE FROM entries WHERE sequence = 3")
    with pytest.raises(LedgerError, match="rolled back"):
        tutela("ledger", "verify", folder)
    change_body = "UPDATE entries SET body = replace(body, 'movies', 'novels')"
    change_again(folder, change_body)
    with pytest.raises(LedgerError, match=r"edited \(entry 1\)"):
        tutela("ledger", "verify", folder)
    (folder / "ledger.sqlite").unlink()
    with pytest.raises(LedgerError, match="missing"):
        tutela("ledger", "verify", folder)


def change_again(folder: Path, statement: str) -> None:
    import sqlite3

    connection = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
    connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("verb", ["show", "export"])
def test_no_figure_comes_from_a_ledger_that_is_not_sound(folder, verb: str) -> None:
    change(folder, "DELETE FROM entries WHERE sequence = 3")
    with pytest.raises(LedgerError, match="rolled back"):
        tutela("ledger", verb, folder)


def test_an_export_can_be_verified_elsewhere(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "chain.jsonl"
    assert "3 entries written" in tutela("ledger", "export", folder, "--out", out)
    assert out.read_text() == tutela("ledger", "export", folder)
    assert "Sound: 3 entries" in tutela("ledger", "verify", out)
    out.write_text(out.read_text().replace("2.0", "9.0", 1))
    with pytest.raises(LedgerError, match="edited"):
        tutela("ledger", "verify", out)
    out.write_text("something else\n")
    with pytest.raises(DataFormatError, match="exported ledger"):
        tutela("ledger", "verify", out)


def test_plan_goes_by_the_last_training(folder: Path) -> None:
    found = json.loads(
        tutela("ledger", "plan", folder, "--noise-multiplier", 4.0, "--json")
    )
    assert (found["sample_rate"], found["steps"]) == (0.5, 2)
    assert found["rounds"] > 0
    assert found["epsilon_after"] <= found["target"] == 6.0
    text = " ".join(tutela("ledger", "plan", folder, "--rounds", 4).split())
    assert text.startswith("4 more rounds fit, each of 2 steps at noise multiplier")
    assert "δ = 1e-05 per user (add or remove one user's rows" in text


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ([], "either --noise-multiplier or --rounds"),
        (["--rounds", "2", "--noise-multiplier", "2"], "either"),
        (["--rounds", "2", "--unit", "interaction"], "no budget per interaction"),
        (["--rounds", "2", "--unit", "household"], "no budget per household"),
        (["--rounds", "2", "--sample-rate", "1.5"], "--sample-rate"),
        (["--noise-multiplier", "nan"], "expected 0.25 to"),
        (["--noise-multiplier", "1e300"], "expected 0.25 to"),
        (["--rounds", "10", "--steps", "10000000"], "at most 1000000 steps"),
        (["--noise-multiplier", "0.01"], "expected 0.25 to"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(folder, options, match) -> None:
    with pytest.raises(ConfigError, match=match):
        tutela("ledger", "plan", folder, *options)


def test_a_folder_without_a_ledger_says_when_one_begins(tmp_path: Path) -> None:
    home = write_folder(tmp_path / "0000", rows(8))
    for verb in ("show", "verify", "export"):
        with pytest.raises(ConfigError, match="begins with the first"):
            tutela("ledger", verb, home)
        with pytest.raises(ConfigError, match="client's folder"):
            tutela("ledger", verb, tmp_path / "nowhere")


def test_a_runs_name_is_text_and_no_markup(folder: Path) -> None:
    """It is a stranger's, and stays in the ledger for ever."""
    place = witness_place(folder, read_settings(folder))
    with open_ledger(folder, place) as ledger:
        ledger.append(charge(4, name="[/x] evil [red]x", run="9"))
    text = tutela("ledger", "show", folder)
    assert all(part in text for part in ("[/x]", "evil", "[red]x"))


def test_the_nodes_own_configuration_counts_here_too(folder: Path) -> None:
    node = "folder='/data/ours' budget.user.target-epsilon=50.0"
    found = json.loads(
        tutela("ledger", "show", folder, "--json", "--node-config", node)
    )
    assert found["columns"][0]["budget"]["target_epsilon"] == 50.0
    with pytest.raises(ConfigError, match="unknown key"):
        tutela("ledger", "show", folder, "--node-config", "least_noise_multiplier=50")


def test_a_file_that_is_no_export_is_said_to_be_none(folder: Path, tmp_path) -> None:
    with pytest.raises(DataFormatError, match="exported ledger"):
        tutela("ledger", "verify", folder / "ledger.sqlite")
    deep = tmp_path / "deep.jsonl"
    deep.write_text("[" * 100_000)
    with pytest.raises(DataFormatError, match="exported ledger"):
        tutela("ledger", "verify", deep)


def test_nothing_is_accepted_where_nothing_was(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="begins with the first"):
        tutela("ledger", "accept", tmp_path / "empty")
    assert list((tmp_path / "empty").iterdir()) == []


def test_accept_writes_down_what_was_vouched_for(folder: Path) -> None:
    assert "Nothing to accept" in tutela("ledger", "accept", folder)
    witness_place(folder, read_settings(folder)).unlink()
    assert "Entry 4 says so: accepted: unwitnessed" in tutela(
        "ledger", "accept", folder
    )
    assert "accepted: unwitnessed" in tutela("ledger", "show", folder)
    assert "Sound: 4 entries" in tutela("ledger", "verify", folder)


def csv(path: Path, table: pl.DataFrame) -> Path:
    table.write_csv(path)
    return path


def test_import_hashes_ids_and_says_what_came(tmp_path: Path) -> None:
    home = write_folder(tmp_path / "0000", rows(8))
    (home / "interactions.parquet").unlink()
    file = csv(tmp_path / "mine.csv", rows(5))
    text = tutela("import", home, file)
    assert "20 rows of 5 users imported." in text
    stored = pl.read_parquet(home / "interactions.parquet")
    assert stored["item"].to_list() == rows(5)["item"].to_list()
    assert set(stored["user"]).isdisjoint(rows(5)["user"])
    with pytest.raises(ConfigError, match="--overwrite"):
        tutela("import", home, file)
    assert "imported" in tutela("import", home, file, "--overwrite")


def test_import_says_what_is_outside_the_catalogue(tmp_path: Path) -> None:
    home = write_folder(tmp_path / "0000", rows(8))
    strange = rows(5).with_columns(
        item=pl.when(pl.col("user") == "u0").then(pl.lit("i999")).otherwise("item")
    )
    file = csv(tmp_path / "mine.csv", strange)
    before = (home / "interactions.parquet").read_bytes()
    options = ("--overwrite", "--duplicates", "keep_first")
    with pytest.raises(DataFormatError, match="--unknown-items drop"):
        tutela("import", home, file, *options)
    assert (home / "interactions.parquet").read_bytes() == before, "nothing was lost"
    text = tutela("import", home, file, *options, "--unknown-items", "drop")
    assert re.search(r"16 rows of 4 users imported, \d left out", text)
    alone = csv(
        tmp_path / "alone.csv", strange.filter(pl.col("item") == "i999").head(1)
    )
    with pytest.raises(DataFormatError, match="at least one row"):
        tutela("import", home, alone, "--overwrite", "--unknown-items", "drop")
    with pytest.raises(ConfigError, match="--unknown-items"):
        tutela("import", home, file, "--unknown-items", "keep")
    with pytest.raises(ConfigError, match="--bad-rows"):
        tutela("import", home, file, "--bad-rows", "keep")


def test_import_needs_the_declared_catalogue(tmp_path: Path) -> None:
    (tmp_path / "0000").mkdir()
    file = csv(tmp_path / "mine.csv", rows(5))
    with pytest.raises(ConfigError, match=r"catalogue\.parquet"):
        tutela("import", tmp_path / "0000", file)
