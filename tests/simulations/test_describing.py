"""Facts of a table: what may be passed on shows no single user."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from common.interactions import SCHEMA
from common.repairs import ReadReport
from simulations.describing import MIN_USERS, describe_table, report_text

DAY = 86_400
Row = tuple[str, str, float, int]


def table(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def crowd(num_users: int) -> list[Row]:
    """Users 0, 1, …: four items each, values 1 to 5, first of January 2001 and on."""
    return [
        (f"u{user}", f"i{item}", 1.0 + user % 5, 978_307_200 + user * DAY)
        for user in range(num_users)
        for item in range(4)
    ]


def test_without_a_floor_extremes_are_exact():
    rows = [
        ("a", "x", 1.0, 978_307_200),
        ("a", "y", 2.0, 978_307_200),
        ("a", "z", 5.0, 978_393_600),
        ("b", "x", 3.0, 1_009_843_200),
    ]
    assert describe_table(table(rows), min_users=1) == {
        "interactions": 4,
        "users": 2,
        "items": 3,
        "density": pytest.approx(4 / 6),
        "interactions_per_user": "min 1, 25 % 1, median 3, 75 % 3, max 3",
        "interactions_per_item": "min 1, 25 % 1, median 1, 75 % 2, max 2",
        "share_of_top_tenth_of_items": 0.5,
        "items_of_too_few_users": 0,
        "values": "1.0 … 5.0",
        "times": "2001-01-01 … 2002-01-01",
    }


def test_ten_users_are_the_floor_unless_a_caller_says_otherwise():
    assert MIN_USERS == 10
    assert describe_table(table(crowd(10)))["users"] == 10
    few = "suppressed: fewer than 10 users"
    assert describe_table(table(crowd(9))) == {"interactions": few, "users": few}


@pytest.mark.parametrize("min_users", [4, 10, 100])
def test_a_table_of_fewer_users_shows_no_figure(min_users):
    facts = describe_table(table(crowd(3)), min_users)
    few = f"suppressed: fewer than {min_users} users"
    assert facts == {"interactions": few, "users": few}


def test_an_empty_table_has_nothing_to_hide():
    assert describe_table(table([])) == {"interactions": 0}


def test_the_ends_are_those_of_the_tenth_user_from_either_end():
    """Users 0 … 39: the tenth least is user 9, the tenth most is user 30."""
    rows = [
        (f"u{user}", f"i{item}", float(user), 978_307_200 + user * DAY)
        for user in range(40)
        for item in range(user + 1)
    ]
    facts = describe_table(table(rows))
    assert facts["values"] == "9.0 … 30.0"
    assert facts["times"] == "2001-01-10 … 2001-01-31"
    spread = "10th least 10, 25 % 11, median 21, 75 % 30, 10th most 31"
    assert facts["interactions_per_user"] == spread


@pytest.mark.parametrize(
    "extreme",
    [
        ("u7", "i0", 999.0, 978_307_200),
        ("u7", "i0", -999.0, 978_307_200),
        ("u7", "i0", 3.0, 4_000_000_000),
        ("u7", "i0", 3.0, 1),
    ],
)
def test_no_figure_changes_because_of_one_users_extreme_row(extreme):
    rows = crowd(40)
    place = next(i for i, row in enumerate(rows) if row[:2] == extreme[:2])
    changed = [*rows[:place], extreme, *rows[place + 1 :]]
    assert describe_table(table(changed), 1) != describe_table(table(rows), 1)
    before, after = describe_table(table(rows)), describe_table(table(changed))
    # The 10th user from an end may become the 11th: a day, or nothing.
    assert {k: v for k, v in after.items() if k != "times"} == {
        k: v for k, v in before.items() if k != "times"
    }
    assert before["times"] == "2001-01-10 … 2001-01-31"
    assert after["times"] in (
        "2001-01-10 … 2001-01-31",
        "2001-01-10 … 2001-02-01",
        "2001-01-09 … 2001-01-31",
    )


def test_one_user_with_very_many_rows_moves_no_count_of_rows():
    heavy = [("heavy", f"i{item}", 3.0, 978_307_200) for item in range(4, 900)]
    before, after = (
        describe_table(table(rows)) for rows in (crowd(40), crowd(40) + heavy)
    )
    for name in ("interactions_per_user", "interactions_per_item", "values"):
        assert after[name] == before[name]
    assert after["items_of_too_few_users"] == 896


def test_items_of_too_few_users_are_counted_and_not_spread_out():
    rows = [*crowd(12), ("u0", "rare", 3.0, 978_307_200)]
    facts = describe_table(table(rows))
    spread = "min 12, 25 % 12, median 12, 75 % 12, max 12"
    assert facts["interactions_per_item"] == spread
    assert facts["items_of_too_few_users"] == 1
    alone = [(f"u{user}", f"i{user}", 1.0, 0) for user in range(12)]
    assert describe_table(table(alone))["interactions_per_item"] == "suppressed"


def test_no_user_or_item_is_named():
    told = str(describe_table(table(crowd(40)), 1))
    assert "'u1" not in told
    assert "i3" not in told


@pytest.mark.parametrize("num_users", [10, 12, 18])
def test_in_a_small_table_the_ends_would_be_each_others_extremes(num_users):
    """Of exactly ten users the tenth least is the greatest: one user's own value."""
    rows = [(f"u{user}", "i", float(user), 978_307_200) for user in range(num_users)]
    facts = describe_table(table(rows))
    for name in ("values", "times", "interactions_per_user"):
        assert facts[name] == "suppressed"
    rows.append(("u18", "i", 18.0, 978_307_200))
    if num_users == 18:
        assert describe_table(table(rows))["values"] == "9.0 … 9.0"


def test_rows_dropped_are_counted_unless_they_are_few():
    report = ReadReport(Path("/home/me/a.csv"), "csv", 60, 40, {"value": 20}, ("CRLF",))
    assert report_text(report) == (
        "a.csv (csv): kept 40 of 60 rows\n  dropped 20 for value\n  CRLF"
    )
    few = replace(report, rows=69, repaired={"value": 20, "user": 9})
    told = report_text(few)
    assert told == (
        "a.csv (csv): kept 40 rows\n  dropped for value: 20\n"
        "  dropped for user: suppressed: fewer than 10 rows\n  CRLF"
    )
    assert "dropped 9 for user" in report_text(few, 1)
