"""Data quality: what is wrong is counted, and never on fewer than ten users."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from common.interactions import SCHEMA
from common.repairs import ReadReport
from simulations.__main__ import app
from simulations.datasets import Dataset, load
from simulations.datasets.dataset import declare
from simulations.quality import assess, cold, described, divergence, drift, impossible

NOW = 1_700_000_000
Row = tuple[str, str, float, int]


def rows(num_users: int, *more: Row) -> pl.DataFrame:
    """Each user touched x and y, rated 3, in September 2001."""
    plain = [(f"u{n}", i, 3.0, 10**9) for n in range(num_users) for i in "xy"]
    return pl.DataFrame([*plain, *more], schema=SCHEMA, orient="row")


def dataset(table: pl.DataFrame, **changes) -> Dataset:
    catalogue = declare(["x", "y", "z"], title=["X", "Y", "X"], year=[1999, 0, 0])
    plain = Dataset("set", table, catalogue, None, "made", (), (1.0, 5.0))
    return replace(plain, **changes)


def spoilt(num_users: int) -> Dataset:
    wrong = [(f"w{n}", "x", 9.0, 0) for n in range(num_users)]
    future = [(f"w{n}", "y", 3.0, NOW + 1) for n in range(num_users)]
    early = [(f"w{n}", "z", 0.0, 1995) for n in range(num_users)]
    return dataset(rows(20, *wrong, *future, *early))


def test_impossible_values_are_counted_by_kind() -> None:
    assert impossible(spoilt(10), now=NOW, min_users=10) == {
        "values outside the scale": 10,
        "times missing (zero)": 10,
        "times before 1973": 10,
        "times in the future": 10,
        "rows without a rating": 10,
    }


def test_damage_of_few_users_is_said_and_not_counted() -> None:
    found = impossible(spoilt(9), now=NOW, min_users=10)
    assert set(found.values()) == {"suppressed: fewer than 10 users"}
    assert impossible(spoilt(9), now=NOW, min_users=1)["times in the future"] == 9
    assert set(impossible(spoilt(0), now=NOW, min_users=10).values()) == {0}


def test_counts_have_no_scale_but_cannot_be_negative() -> None:
    table = rows(20, *((f"w{n}", "x", -1.0, 10**9) for n in range(12)))
    found = impossible(dataset(table, scale=None), now=NOW, min_users=10)
    assert found["values outside the scale"] == 12
    assert "rows without a rating" not in found


@pytest.mark.parametrize(
    ("age", "fact"),
    [("0", "impossible"), ("239", "impossible"), ("", "unknown"), ("x", "unknown")],
)
def test_ages_that_cannot_be_and_ages_unknown(age: str, fact: str) -> None:
    ages = [age] * 11 + ["1", "100", "30"] * 4
    users = pl.DataFrame({"user": [f"u{n}" for n in range(23)], "age": ages})
    found = impossible(dataset(rows(23), users=users), now=NOW, min_users=10)
    assert found.pop(f"ages {fact}") == 11
    assert {v for k, v in found.items() if k.startswith("ages")} == {0}


def test_cold_items_and_users_of_one_item() -> None:
    more = [(f"one{n}", "x", 3.0, 10**9) for n in range(10)]
    catalogue = dataset(rows(1)).catalogue
    assert cold(rows(20, *more), catalogue, 10) == {
        "items never touched": 1,
        "items touched by one user": 0,
        "users of one item": 10,
    }
    alone = rows(20, ("u3", "z", 3.0, 10**9))
    found = cold(alone, catalogue, 10)
    assert found["items never touched"] == 0
    assert found["items touched by one user"] == "suppressed: fewer than 10 users"


def test_the_catalogues_gaps() -> None:
    assert described(dataset(rows(1)).catalogue) == {
        "titles missing": 0,
        "titles listed twice": 1,
        "years missing": 2,
        "categories missing": 3,
        "texts missing": 3,
    }


def test_what_readers_repaired_is_summed_and_their_notes_kept() -> None:
    reports = (
        ReadReport(Path("a.csv"), "csv", 9, 6, {"duplicates": 4, "value": 12}),
        ReadReport(Path("b.csv"), "csv", 9, 5, {"duplicates": 7}, ("CRLF",)),
    )
    found = assess(dataset(rows(20), reports=reports), now=NOW)
    assert found["repaired on reading"] == {
        "duplicates": 11,
        "value": 12,
        "b.csv, note 1": "CRLF",
    }


def test_repairs_of_few_rows_are_of_few_users_and_not_counted() -> None:
    reports = (ReadReport(Path("a.csv"), "csv", 40, 30, {"value": 9, "item": 10}),)
    data = dataset(rows(20), reports=reports)
    found = assess(data, now=NOW)["repaired on reading"]
    assert found == {
        "duplicates": 0,
        "value": "suppressed: fewer than 10 users",
        "item": 10,
    }
    assert assess(data, now=NOW, min_users=1)["repaired on reading"]["value"] == 9


def test_a_set_of_few_users_shows_nothing() -> None:
    few = "suppressed: fewer than 10 users"
    assert assess(dataset(rows(9)), now=NOW) == {"size": {"users": few}}
    assert drift(dataset(rows(20), name="p"), dataset(rows(9))) == {"drift": few}


def test_drift_matches_items_by_title_and_measures_what_is_missing() -> None:
    """The public saw X alone; half of the private rows are on Y."""
    public = dataset(rows(20).filter(pl.col("item") == "x"), name="public")
    found = drift(public, dataset(rows(20)))
    assert found["public rows on declared items"] == 1.0
    assert found["private rows on items the public never saw"] == 0.5
    # P = (½, ½), Q = (1, 0): (½·log2(2/3) + ½·log2 2 + log2(4/3)) / 2.
    expected = (0.5 * np.log2(2 / 3) + 0.5 + np.log2(4 / 3)) / 2
    assert found["divergence of popularity (bits)"] == pytest.approx(expected)
    assert found["distance of times"] == 0.0


@pytest.mark.parametrize(("few", "shown"), [(9, False), (10, True)])
def test_drift_of_few_users_is_said_and_not_counted(few: int, shown: bool) -> None:
    """So many public users have a row on an undeclared item, private ones on z."""
    strange = [(f"u{n}", "other", 3.0, 10**9) for n in range(few)]
    public = replace(
        dataset(rows(20, *strange), name="public"),
        catalogue=declare(["x", "y", "other"], title=["X", "Y", "Other"]),
    )
    private = dataset(rows(20, *((f"u{n}", "z", 3.0, 10**9) for n in range(few))))
    private = replace(
        private, catalogue=declare(["x", "y", "z"], title=["X", "Y", "Z"])
    )
    found = drift(public, private)
    names = [
        "public rows on declared items",
        "private rows on items the public never saw",
    ]
    expected = [40 / (40 + few), few / (40 + few)]
    if shown:
        assert [found[name] for name in names] == pytest.approx(expected)
    else:
        assert {found[name] for name in names} == {"suppressed: fewer than 10 users"}
    bare = drift(public, private, 1)
    assert [bare[name] for name in names] == pytest.approx(expected)


def test_drift_in_time_is_the_largest_gap_of_the_two_distributions() -> None:
    later = rows(20).with_columns(timestamp=pl.col("timestamp") + 100)
    mixed = pl.concat([rows(20).head(20), later.tail(20)])
    found = drift(dataset(mixed, name="public"), dataset(rows(20)))
    assert found["distance of times"] == pytest.approx(0.5)


def test_times_that_are_places_in_a_sequence_are_no_times() -> None:
    places = rows(20).with_columns(timestamp=pl.lit(7, dtype=pl.Int64))
    assert "distance of times" not in drift(dataset(places), dataset(rows(20)))


def test_divergence_is_symmetric_and_bounded() -> None:
    a, b = np.array([3.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0])
    assert divergence(a, b) == divergence(b, a)
    assert 0.0 < divergence(a, b) < 1.0
    assert divergence(a, 5 * a) == 0.0
    assert divergence(a, np.zeros(3)) == 1.0


def test_the_verb_prints_a_table_and_json() -> None:
    name = "synthetic:num_users=40,num_items=30,interactions_per_user=8"
    run = CliRunner()
    shown = run.invoke(app, ["data", "quality", name, "--public", name])
    assert shown.exit_code == 0, shown.output
    assert "impossible values" in shown.output
    told = run.invoke(app, ["data", "quality", name, "--json"])
    assert '"items never touched": ' in told.output


def test_a_generated_market_has_no_impossible_value() -> None:
    data = load("finance:num_investors=60,num_instruments=40,num_sectors=3")
    found = assess(data, now=NOW)
    assert set(found["impossible values"].values()) == {0}
