"""The benchmark of secure aggregation: true figures, an exact sum, its table."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from simulations.benchmarks import BENCHMARKS, secagg
from simulations.benchmarks.secagg import Size, measure, tables


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            secagg, "QUICK", (Size(40, 3000, 12, True), Size(20, 10, 0, False))
        )
        return measure(Path(), quick=True)


def test_it_is_one_of_the_benchmarks():
    assert BENCHMARKS["secagg"] == "secagg"


def test_figures_are_of_the_round_that_was_asked_for(found):
    sparse, small = found["rows"]
    assert (sparse["clients"], sparse["length"], sparse["degree"]) == (40, 3000, 12)
    assert (small["clients"], small["degree"]) == (20, 19)
    # Four of forty dropped out: 36 own masks, and 12 less a few pair masks each.
    assert 36 + 4 * 8 < sparse["streams"] <= 36 + 4 * 12
    assert small["streams"] == 18 + 2 * 18
    for row in found["rows"]:
        assert row["exact"] is True
        assert row["mask_ms"] > 0 and row["share_ms"] > 0 and row["unmask_s"] > 0
        assert 1 < row["masking"] < row["masking_and_sharing"]
    # 12 parcels of 112 bytes, advert, reveal: little beside 7.5 kB, much beside 40 B.
    assert 1 < sparse["bytes"] < 1.5 < small["bytes"]


def test_the_aims_are_those_of_the_first_row(found):
    assert found["aims"] == {"masking": 3.0, "unmasking": 5.0, "bytes": 1.15}
    first = found["rows"][0]
    met = all(first[name] <= aim for name, aim in found["aims"].items())
    assert found["met"] == met


def test_the_table_fits_eighty_columns_and_says_whether_the_aims_are_met(found):
    console = Console(width=80, record=True, file=StringIO())
    for table in tables(found):
        console.print(table)
    text = console.export_text()
    assert "40 × 3,000" in text and "12, 9 open" in text
    assert ("missed" in text) != found["met"]


def test_the_full_benchmark_is_the_size_that_is_claimed():
    assert secagg.SIZES[0] == Size(100, 1_000_000, 20, True)
    assert secagg.SIZES[1] == Size(1000, 100_000, 0, False)
