"""The benchmark of serving: a real service and a real caller, and its table."""

from pathlib import Path

import pytest
from rich.console import Console

from client.data import read_client_data
from simulations.benchmarks import serving
from simulations.benchmarks.serving import make_client, measure, quietest, tables


def one(p99: float, **others) -> dict:
    values = {"callers": 1, "p50": 0.5, "p99": p99, "rate": 2000.4, "errors": {}}
    return values | others


def text(found: dict) -> str:
    console = Console(width=120, record=True, quiet=False)
    for table in tables(found):
        console.print(table)
    return console.export_text()


def test_the_quietest_pass_stands_and_errors_of_all_count() -> None:
    passes = [one(9.0, errors={"INTERNAL": 2}), one(1.25), one(3.0)]
    assert quietest(passes)["p99"] == 1.25
    found = {
        "items": 3416,
        "dim": 64,
        "seconds": 3.0,
        "passes": 3,
        "engines": {"torch": {"history": {"1": passes}, "swaps": one(4.75)}},
    }
    lines = [line.split() for line in text(found).splitlines() if "history" in line]
    shown = [[word for word in line if word != "│"] for line in lines]
    assert shown[0] == ["history", "1", "0.50", "1.25", "2,000", "2"]
    assert shown[1][-5:] == ["1", "0.50", "4.75", "2,000", "0"]


def test_the_client_is_whole(tmp_path: Path) -> None:
    data = read_client_data(make_client(tmp_path / "0000"))
    assert data.histories.shape == (serving.USERS, serving.ITEMS)
    assert (data.histories.sum(axis=1) == serving.HISTORY).all()


@pytest.mark.slow
def test_it_runs_end_to_end(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(serving, "choose_engine", lambda asked: "torch")
    monkeypatch.setattr(serving, "CALLERS", {"history": (2,)})
    monkeypatch.setattr(serving, "OTHERS", ())
    monkeypatch.setattr(serving, "DELIVERY", 1.0)
    found = measure(tmp_path, quick=True)
    (passes,) = found["engines"]["torch"]["history"].values()
    (measured,) = passes
    assert measured["calls"] > 50 and measured["errors"] == {}
    swaps = found["engines"]["torch"]["swaps"]
    assert swaps["delivered"] >= 2 and swaps["errors"] == {} and swaps["calls"] > 50
    assert "students delivered" in text(found)
