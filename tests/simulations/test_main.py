"""The tutela command as a newcomer meets it, bad input too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SET = "synthetic:num_users=120,num_items=40,interactions_per_user=8"
SMALL = [
    f"data.public={SET}",
    f"data.private={SET}",
    "partition.num-clients=2",
    "partition.public-users=20",
    "partition.validation-users=5",
    "partition.heldout-users=20",
    "student.dim=4",
    "training.rounds=2",
    "privacy.noise-multiplier=1.0",
    "privacy.declared-users=40",
    "evaluation.baselines=false",
    "evaluation.resamples=20",
]


def tutela(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "simulations", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


def sets(assignments: list[str]) -> list[str]:
    return [part for each in assignments for part in ("--set", each)]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "run"
    done = tutela("simulate", "--out", str(out), *sets(SMALL))
    assert done.returncode == 0, done.stderr
    assert "-differentially" in " ".join(done.stdout.split())
    assert "report.html" in done.stdout
    return out


def test_recommend_leaves_the_history_out(run: Path) -> None:
    done = tutela("recommend", str(run), "--items", "Item 1 (1950)", "3", "-k", "39")
    done_titles = tutela("recommend", str(run), "--items", "1", "-k", "100")
    assert done_titles.returncode == 0, done_titles.stderr
    listed = [line for line in done_titles.stdout.splitlines() if "Item" in line]
    assert len(listed) == 39
    assert not any(" Item 1 (" in line for line in listed)
    assert done.returncode in (0, 2)


def test_similar_and_unknown_titles(run: Path) -> None:
    assert tutela("similar", str(run), "2", "-k", "3").returncode == 0
    done = tutela("similar", str(run), "Item 1")
    assert done.returncode == 2
    assert "Did you mean: Item 1" in done.stderr


def test_an_earlier_run_is_not_lost(run: Path) -> None:
    before = (run / "results.json").read_bytes()
    done = tutela("simulate", "--out", str(run), *sets(SMALL))
    assert done.returncode == 2
    assert "holds an earlier run" in done.stderr
    assert (run / "results.json").read_bytes() == before


def test_a_folder_of_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    done = tutela("simulate", "--out", str(tmp_path), "--overwrite", *sets(SMALL))
    assert done.returncode == 2
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "privacy.mode=secret"], "privacy.mode"),
        (["--set", "privacy.nope=1"], "privacy.nope: unknown key"),
        (["--set", "nonsense"], "section.key=value"),
        (["--config", "missing.toml"], "missing.toml"),
        (["--set", "data.private=/none"], "expected ml-100k, synthetic or a folder"),
    ],
)
def test_bad_settings_are_one_line_that_names_the_key(
    tmp_path: Path, arguments, message
) -> None:
    done = tutela("simulate", "--out", str(tmp_path / "run"), *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_a_line_an_event_and_the_results_last(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    done = tutela("simulate", "--out", out, "--json", "--seed", "3", *sets(SMALL))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["round"] for line in lines if line.get("event") == "round"] == [1, 2]
    assert lines[-1]["schema_version"] == 4
    assert lines[-1]["seed"] == 3
    assert lines[-1]["promise"]["seeded"]
    assert lines[-1]["command"].startswith("tutela simulate --out run --json")
    assert str(tmp_path) not in json.dumps(lines[-1])


@pytest.mark.parametrize(
    "option", [("--bad-rows", "keep"), ("--duplicates", "drop"), ("--min-users", "0")]
)
def test_describe_refuses_other_choices(tmp_path: Path, option) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("user,item,rating\n1,2,5\n")
    done = tutela("data", "describe", str(path), *option)
    assert done.returncode == 2
    assert option[0] in done.stderr
    assert "Traceback" not in done.stderr


def test_describe_says_what_is_wrong_and_counts_repairs(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("user,item,rating\n1,2,5\n1,3,x\n2,2,4\n")
    done = tutela("data", "describe", str(path))
    assert done.returncode == 2
    assert "mine.csv, line 3, column 3 (value)" in done.stderr
    done = tutela("data", "describe", str(path), "--bad-rows", "drop", "--json")
    facts = json.loads(done.stdout)[0]
    few = "suppressed: fewer than 10 users"
    assert (facts["interactions"], facts["users"]) == (few, few)
    assert "items" not in facts
    everything = ["--bad-rows", "drop", "--min-users", "1", "--json"]
    done = tutela("data", "describe", str(path), *everything)
    facts = json.loads(done.stdout)[0]
    assert (facts["interactions"], facts["users"], facts["items"]) == (2, 2, 1)
    assert "dropped 1 for value" in facts["report"]


def test_partition_never_mixes_two_federations(tmp_path: Path) -> None:
    out = tmp_path / "f"
    first = [*SMALL, "partition.num-clients=3"]
    assert tutela("partition", "--out", str(out), *sets(first)).returncode == 0
    done = tutela("partition", "--out", str(out), *sets(SMALL))
    assert done.returncode == 2
    assert "holds an earlier federation" in done.stderr
    assert len(list((out / "clients").iterdir())) == 3
    done = tutela("partition", "--out", str(out), "--overwrite", *sets(SMALL))
    assert done.returncode == 0, done.stderr
    assert len(list((out / "clients").iterdir())) == 2


def test_partition_leaves_a_real_clients_folder_alone(tmp_path: Path) -> None:
    rows = tmp_path / "clients" / "0000" / "interactions.parquet"
    rows.parent.mkdir(parents=True)
    rows.write_bytes(b"mine")
    done = tutela("partition", "--out", str(tmp_path), "--overwrite", *sets(SMALL))
    assert done.returncode == 2
    assert "holds other files" in done.stderr
    assert rows.read_bytes() == b"mine"


def test_partition_writes_what_a_client_reads(tmp_path: Path) -> None:
    done = tutela("partition", "--out", str(tmp_path / "f"), *sets(SMALL))
    assert done.returncode == 0, done.stderr
    client = tmp_path / "f" / "clients" / "0001"
    assert {path.name for path in client.iterdir()} == {
        "interactions.parquet",
        "catalogue.parquet",
        "settings.toml",
        "id.key",
    }
    assert (client / "id.key").stat().st_mode & 0o777 == 0o600
