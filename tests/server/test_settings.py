"""The server's public folder: where it is, what it must hold."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from flwr.app import Context, RecordDict

from common.catalogue import SCHEMA as CATALOGUE_SCHEMA
from common.catalogue import Catalogue, write_catalogue
from common.errors import ConfigError, DataFormatError
from common.interactions import SCHEMA
from server.settings import locate, read_public_data, state_folder


def table(*pairs: str) -> pl.DataFrame:
    columns = {
        "user": [pair[0] for pair in pairs],
        "item": [pair[1] for pair in pairs],
        "value": [1.0] * len(pairs),
        "timestamp": [0] * len(pairs),
    }
    return pl.DataFrame(columns, schema=SCHEMA)


@pytest.fixture
def public(tmp_path: Path) -> Path:
    columns = {
        "item": ["a", "b", "c"],
        "title": ["A", "B", "C"],
        "year": [0] * 3,
        "categories": [[] for _ in range(3)],
    }
    catalogue = Catalogue(pl.DataFrame(columns, schema=CATALOGUE_SCHEMA))
    write_catalogue(catalogue, tmp_path / "catalogue.parquet")
    table("ua", "uc", "va").write_parquet(tmp_path / "interactions.parquet")
    held = pl.Series([False, True, False])
    validation = table("wb", "wc", "xa").with_columns(held=held)
    validation.write_parquet(tmp_path / "validation.parquet")
    return tmp_path


def test_the_node_names_its_folders_before_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("TUTELA_PUBLIC", "env-public")
    monkeypatch.setenv("TUTELA_OUT", "env-out")
    folders = locate(
        Context(
            run_id=12,
            node_id=1,
            node_config={"public": "mine"},
            state=RecordDict(),
            run_config={"out": "theirs"},
        )
    )
    assert (folders.public, folders.out) == (Path("mine"), Path("env-out"))


def context(**node_config) -> Context:
    return Context(12, 1, node_config, RecordDict(), {"state": "theirs"})


def test_what_outlives_a_run_has_a_folder_of_its_own(monkeypatch) -> None:
    monkeypatch.setenv("TUTELA_STATE", "env-state")
    assert locate(context(state="mine")).state == Path("mine")
    assert locate(context()).state == state_folder() == Path("env-state")
    monkeypatch.delenv("TUTELA_STATE")
    monkeypatch.delenv("TUTELA_OUT", raising=False)
    folders = locate(context())
    assert folders.state == state_folder()
    assert folders.state.name == "server"
    assert "12" not in folders.state.parts, "the next run finds it again"
    assert folders.out.name == "12"


def named(name: str) -> Context:
    return Context(12, 1, {}, RecordDict(), {"run.name": name})


def test_a_run_has_a_folder_by_its_name_where_runs_are(monkeypatch, tmp_path) -> None:
    """A resumed run is another of Flower's, and finds it."""
    monkeypatch.delenv("TUTELA_OUT", raising=False)
    monkeypatch.setenv("TUTELA_RUNS", str(tmp_path))
    assert locate(named("films 2")).out == tmp_path / "films 2"
    monkeypatch.setenv("TUTELA_OUT", "here")
    assert locate(named("films 2")).out == Path("here"), "named, it goes before"


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "/abs", "a/b", "a\\b"])
def test_a_name_does_not_lead_out_of_the_folder_of_runs(monkeypatch, name) -> None:
    monkeypatch.delenv("TUTELA_OUT", raising=False)
    monkeypatch.setenv("TUTELA_RUNS", "runs")
    with pytest.raises(ConfigError, match=r"run\.name"):
        locate(named(name))


def test_public_data_by_hand(public: Path) -> None:
    data = read_public_data(public)
    np.testing.assert_array_equal(data.teaching.toarray(), [[1, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(data.shown.toarray(), [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(data.held.toarray(), [[0, 0, 1], [0, 0, 0]])
    assert data.known.tolist() == [True, False, True]


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        read_public_data(tmp_path / "nowhere")
    for part in ("tutela partition", "TUTELA_PUBLIC", "nowhere"):
        assert part in str(error.value)


@pytest.mark.parametrize("file", ["interactions", "validation"])
def test_items_outside_the_catalogue_are_refused(public: Path, file: str) -> None:
    path = public / f"{file}.parquet"
    pl.read_parquet(path).with_columns(item=pl.lit("z")).write_parquet(path)
    with pytest.raises(DataFormatError, match="outside"):
        read_public_data(public)
