"""The utility benchmark: every case trained and ranked, on generated data."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from common.config import defaults, parse, read_overrides
from simulations.benchmarks import utility
from simulations.benchmarks.utility import CONFIGS, PRIMARY, SGD, measure, tables


@pytest.mark.parametrize("name", ["ml1m", "ml1m-local10"])
@pytest.mark.parametrize("more", [{}, SGD, utility.QUICK, {"privacy.mode": "off"}])
def test_every_case_is_a_valid_configuration(name: str, more: dict) -> None:
    config = parse(defaults() | read_overrides(CONFIGS / f"{name}.toml") | more)
    assert config.partition.num_clients == (10 if name == "ml1m-local10" else 1)


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    return measure(Path(tmp_path_factory.mktemp("no data")), quick=True)


@pytest.mark.slow
def test_every_case_has_its_figure(found: dict) -> None:
    cases = found["cross_domain"]
    assert set(cases) == {"teacher", "nonprivate", "union", "local10"}
    assert set(cases["union"]) == set(cases["local10"]) == {"8"}
    values = [cases["teacher"], cases["nonprivate"]]
    values += [cases["union"]["8"], cases["local10"]["8"]]
    assert all(0 < value < 1 for value in values)
    assert cases["nonprivate"] > cases["local10"]["8"]
    assert (found["metric"], found["sgd"]) == (PRIMARY, {})


@pytest.mark.slow
def test_no_case_spends_more_than_its_target(found: dict) -> None:
    for epsilons in found["epsilon"].values():
        assert set(epsilons) == {"8"}
        assert 7.9 < epsilons["8"] <= 8.0
    assert "ε = 8" in found["promise"] or "ε = 7.99" in found["promise"]


@pytest.mark.slow
def test_rows_carry_intervals_and_an_epsilon_where_it_is_private(found: dict) -> None:
    rows = {row["case"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == 7
    for row in rows.values():
        for metric in ("ndcg@10", "recall@20", PRIMARY, "coverage@10"):
            value, low, high = row[metric]
            assert low <= value <= high
    assert rows["ε = 8, one clip"]["epsilon"] <= 8.0
    for name, row in rows.items():
        public = name.startswith("public")
        assert (row["epsilon"] is None) == (public or "NOT PRIVATE" in name), name
    one = rows["ε = 8, one clip"][PRIMARY][0]
    assert one == found["cross_domain"]["union"]["8"]


@pytest.mark.slow
def test_the_table_shows_every_row(found: dict) -> None:
    (table,) = tables(found)
    assert len(table.rows) == len(found["rows"])
    page = StringIO()
    Console(file=page, width=200).print(table)
    assert f"{found['cross_domain']['union']['8']:.4f}" in page.getvalue()
    assert "NOT PRIVATE" in page.getvalue()
