"""The verb export: files that fit the run, plain refusals, the promise in the file."""

from pathlib import Path

import polars as pl
import pytest
import torch
import typer
from safetensors import safe_open
from typer.testing import CliRunner

from common.catalogue import SCHEMA, Catalogue, write_catalogue
from common.compact_files import load_compact
from common.errors import ConfigError, DataFormatError
from common.export import compare, load_onnx, trial_histories
from common.student import StudentSpec, load_student, random_state, save_student
from simulations.collecting import FEDERATION
from simulations.export_commands import Format, export, export_run, lines_of
from simulations.results import write_results

SPEC = StudentSpec(num_items=40, dim=6, logit_scale=20.0, history_exponent=0.8)


@pytest.fixture
def run(tmp_path: Path, example_results) -> Path:
    """A run's folder with what export reads of it."""
    folder = tmp_path / "run"
    folder.mkdir()
    state = random_state(SPEC, torch.Generator().manual_seed(3))
    save_student(folder / "student.safetensors", SPEC, state)
    rows = [(str(i), f"title {i}", 1990, ["drama"]) for i in range(SPEC.num_items)]
    catalogue = Catalogue(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
    write_catalogue(catalogue, folder / "catalogue.parquet")
    write_results(example_results, folder / "results.json")
    return folder


def heldout_users(run: Path) -> None:
    """Thirty held-out users, each shown four items and asked for one."""
    federation = run / FEDERATION
    (federation / "heldout").mkdir(parents=True)
    rows = [
        (f"u{user}", str((user + 3 * place) % 40), 1.0, 0, place == 4)
        for user in range(30)
        for place in range(5)
    ]
    columns = ("user", "item", "value", "timestamp", "held")
    table = pl.DataFrame(rows, schema=list(columns), orient="row")
    table.with_columns(pl.col("value").cast(pl.Float32)).write_parquet(
        federation / "heldout" / "interactions.parquet"
    )


def test_onnx_scores_as_the_runs_student(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    found = export_run(run, tmp_path / "s.onnx", Format.onnx)
    histories = trial_histories(40, 20, seed=9).toarray()
    expected = load_student(run / "student.safetensors")(torch.from_numpy(histories))
    scores = load_onnx(tmp_path / "s.onnx").score(histories)
    assert compare(expected.detach().numpy(), scores, 10).largest_difference < 1e-4
    assert found.size == (tmp_path / "s.onnx").stat().st_size
    assert found.parity.largest_difference < 1e-4
    assert found.pruning.overlap == 1.0
    assert found.ndcg is None


def test_int8_of_fewer_dimensions_and_items(
    run: Path, tmp_path: Path, example_results
) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    out = tmp_path / "s.onnx"
    found = export_run(run, out, Format.int8, dims=3, items=25)
    metadata = load_onnx(out).metadata
    assert (metadata["dim"], metadata["kept_items"]) == ("3", "25")
    assert metadata["precision"] == "int8"
    assert metadata["promise"] == example_results.promise.sentence
    assert (found.student.spec.dim, found.student.spec.num_items) == (3, 25)
    assert found.parity.overlap > 0.9
    assert found.pruning.overlap < 1.0


def test_safetensors_read_back(run: Path, tmp_path: Path, example_results) -> None:
    out = tmp_path / "s.safetensors"
    found = export_run(run, out, Format.safetensors)
    assert found.parity.largest_difference == 0.0
    assert load_student(out).spec == SPEC
    with safe_open(out, framework="pt") as file:
        assert file.metadata()["promise"] == example_results.promise.sentence
    eight = export_run(
        run, out, Format.safetensors_int8, items=25, dims=6, overwrite=True
    )
    assert load_compact(out).spec.num_items == 25
    assert eight.size < found.size


def test_held_out_users_are_ranked_where_the_run_shows_figures(
    run: Path, tmp_path: Path, example_results
) -> None:
    heldout_users(run)
    out = tmp_path / "s"
    found = export_run(run, out, Format.safetensors)
    before, after = found.ndcg
    assert 0 < before == after <= 1
    assert found.num_users == 30
    assert (
        f"{before:.4f} before, {after:.4f} after"
        in lines_of(found, "s", Format.safetensors)[2]
    )
    hidden = example_results.model_copy(update={"suppressed": "too few users"})
    write_results(hidden, run / "results.json")
    assert export_run(run, out, Format.safetensors, overwrite=True).ndcg is None


def test_a_run_without_privacy_is_stamped(
    run: Path, tmp_path: Path, unprotected_results
) -> None:
    write_results(unprotected_results, run / "results.json")
    found = export_run(run, tmp_path / "s", Format.safetensors)
    assert found.promise.startswith("NOT PRIVATE")
    assert not found.promised
    with safe_open(tmp_path / "s", framework="pt") as file:
        assert file.metadata()["promise"].startswith("NOT PRIVATE")


def test_without_results_nothing_is_promised(run: Path, tmp_path: Path) -> None:
    (run / "results.json").unlink()
    found = export_run(run, tmp_path / "s", Format.safetensors)
    assert found.promise.startswith("No results.json")
    assert not found.promised


def test_an_existing_file_is_kept(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    out.write_text("mine")
    with pytest.raises(ConfigError, match="exists; name another file or --overwrite"):
        export_run(run, out, Format.safetensors)
    assert out.read_text() == "mine"
    export_run(run, out, Format.safetensors, overwrite=True)
    assert load_student(out).spec == SPEC


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("run", "expected a file's name, got the folder"),
        ("run/student.safetensors", "is the run's own student"),
        ("no/such/file", "expected a folder at"),
    ],
)
def test_impossible_places_are_refused(run: Path, tmp_path: Path, name, message):
    before = (run / "student.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=message):
        export_run(run, tmp_path / name, Format.safetensors, overwrite=True)
    assert (run / "student.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"dims": 0}, "dims: expected 1 to 6, got 0"),
        ({"dims": 7}, "dims: expected 1 to 6, got 7"),
        ({"items": 41}, "items: expected 1 to 40, got 41"),
        ({"items": 4, "dims": 5}, "dims: expected 1 to 4, got 5"),
    ],
)
def test_impossible_sizes_are_refused(run: Path, tmp_path: Path, sizes, message):
    with pytest.raises(ConfigError, match=message):
        export_run(run, tmp_path / "s", Format.onnx, **sizes)
    assert not (tmp_path / "s").exists()


def test_a_folder_without_a_student_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "student.safetensors").unlink()
    with pytest.raises(DataFormatError, match="Expected a student at"):
        export_run(run, tmp_path / "s", Format.onnx)


def test_a_student_of_another_catalogue_is_refused(run: Path, tmp_path: Path) -> None:
    spec = StudentSpec(7, 2, 1.0, 0.0)
    state = random_state(spec, torch.Generator().manual_seed(0))
    save_student(run / "student.safetensors", spec, state)
    with pytest.raises(DataFormatError, match="over the 40 items of its catalogue"):
        export_run(run, tmp_path / "s", Format.onnx)


def test_a_file_that_scores_otherwise_is_not_kept(
    run: Path, tmp_path: Path, monkeypatch
) -> None:
    def damaged(path: Path, digest: str | None = None):
        compact = load_compact(path, digest)
        compact.state["decoder.bias"] += 0.01
        return compact

    monkeypatch.setattr("common.compact_files.load_compact", damaged)
    with pytest.raises(DataFormatError, match="nothing kept"):
        export_run(run, tmp_path / "s", Format.safetensors)
    assert not (tmp_path / "s").exists()


def test_the_command_says_what_it_wrote_and_checked(run: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(export)
    out = tmp_path / "s.bin"
    words = [str(run), "--out", str(out), "--format", "safetensors", "--items", "30"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "s.bin: safetensors, 6 dimensions, 30 of 40 items" in said
    assert f"{out.stat().st_size:,} bytes" in said
    assert "Read back on 64 made-up histories" in said
    assert "-differentially private" in said
    assert str(tmp_path) not in said
