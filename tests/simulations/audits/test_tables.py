"""Findings in a terminal of 80 columns: nothing cut off, what refutes is marked."""

from io import StringIO

import pytest
from rich.console import Console

from simulations.audits.findings import Finding
from simulations.audits.tables import MOST_ROWS, tables
from tests.simulations.audits import report_parts as parts

WIDTH = 80


def text_of(*findings: Finding, **changes) -> str:
    file = StringIO()
    console = Console(file=file, width=WIDTH, color_system=None)
    for table in tables(parts.report(findings=findings, **changes)):
        console.print(table)
    return file.getvalue()


def rows_of(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_a_table_for_every_kind_in_order():
    text = text_of(*parts.FINDINGS)
    titles = (
        "ε, the most of any client",
        "Canaries",
        "Membership of users",
        "Who is worst off",
        "Other leaks",
        "Malicious clients",
        "Assumptions",
    )
    places = [text.find(each) for each in titles]
    assert -1 not in places and places == sorted(places)


def test_nothing_is_wider_than_the_terminal_or_cut_off():
    long = (
        parts.member(released="refined teacher", viewpoint="another-client"),
        parts.leak(attack="attribute:age bracket", released="answers of all rounds"),
        parts.integrity(aggregator="coordinate-wise median", attack="gradient-scaled"),
        parts.check(check="one-person-one-user", finding="deviates", detail="x " * 200),
    )
    text = text_of(*parts.FINDINGS, *long)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= WIDTH
    assert "…" not in text


def test_figures_stay_on_one_line():
    text = text_of(
        parts.canary(design="interaction", viewpoint="another-client"),
        parts.member(released="refined teacher", viewpoint="server-local"),
    )
    (row,) = rows_of(text, "interaction ")
    assert row.split() == [
        "interaction", "another-client", "447/500", "1.83", "3.00", "2.03", "2.61",
    ]  # fmt: skip
    (row,) = rows_of(text, "refined teacher")
    assert row.split()[2:] == [
        "server-local", "lira-offline", "0.594", "2.5", "[2.0,", "3.0]", "11.4",
    ]  # fmt: skip


def test_only_the_strongest_attack_of_an_object_is_shown():
    weak = parts.member(attack="rmia", quoted=(parts.point(0.01, 0.011, 0.114),))
    text = text_of(weak, parts.member())
    assert "lira-offline" in text and "rmia" not in text
    assert "strongest of 2 attacks" in " ".join(text.split())


def test_spent_is_rounded_up():
    assert "3.000" in rows_of(text_of(), "1e-05")[0]
    assert "6.000" in rows_of(text_of(), "1e-05")[0]


@pytest.mark.parametrize(
    ("finding", "word"),
    [
        (parts.canary(exceeds=True), "rare-item"),
        (parts.member(exceeds=True), "final student"),
        (parts.leak(exceeds=True), "attribute:"),
        (parts.check(finding="deviates"), "deviates"),
    ],
)
def test_what_refutes_is_marked(finding, word):
    assert "!" in rows_of(text_of(finding), word)[0]


@pytest.mark.parametrize(
    "finding",
    [
        parts.canary(),
        parts.member(),
        parts.leak(),
        parts.integrity(),
        parts.worst_off(),
        parts.check(finding="deviates", refutes=False),
        parts.check(finding="unknown"),
    ],
)
def test_nothing_else_is(finding):
    assert "!" not in text_of(finding)


def test_checks_that_hold_are_counted_only():
    found = (parts.check(check="a"), parts.check(check="bb", finding="unknown"))
    text = text_of(*found)
    assert "1 of 2 checks hold." in text
    assert rows_of(text, "not seen") and not rows_of(text, "holds")


def test_many_leaks_are_cut_and_said_to_be():
    many = [parts.leak(attack=f"attack-{i}") for i in range(MOST_ROWS + 3)]
    text = text_of(*many)
    assert f"attack-{MOST_ROWS - 1}" in text and f"attack-{MOST_ROWS}" not in text
    assert "3 more are in the page." in " ".join(text.split())


def test_what_was_not_measured_is_a_dash():
    bare = parts.integrity(rank_before=None, quality_after=None)
    (row,) = rows_of(text_of(bare), "push")
    assert row.split()[-3:] == ["–", "0.00→0.12", "–"]
    unresolved = (parts.point(0.01, 0.0, 0.1, resolved=False),)
    (row,) = rows_of(text_of(parts.member(quoted=unresolved)), "final student")
    assert "too few" in row


def test_without_findings_there_is_no_table():
    assert tables(parts.report(findings=(), spent=())) == []
