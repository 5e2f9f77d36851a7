"""The account of a ledger: composed over lives, by unit, at several δ."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from opacus.accountants import RDPAccountant
from rich.console import Console

from client.chain import Charge, LedgerEntry
from client.ledger import inspect_ledger, open_ledger
from client.settings import ClientSettings
from client.statement import code_sentence, make_statement
from client.statement_view import number, plot_statement, print_statement, sparkline
from common.accounting import epsilon, epsilon_rdp
from common.errors import ConfigError
from common.events import DpEvent
from tests.client.conftest import nonce_of, settings_of

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SETTINGS = ClientSettings.model_validate(settings_of(target_epsilon=8.0))
A, B = DpEvent(1.0, 0.1, 10), DpEvent(2.0, 0.2, 5)


def charge(run: str, number: int, event: DpEvent, purpose: str = "train") -> Charge:
    return Charge(run, f"run {run}", number, nonce_of(number), purpose, event, (event,))


def entries(*charges: Charge | None) -> list[LedgerEntry]:
    return [
        LedgerEntry(n, NOON + timedelta(minutes=n), "", "", each, "" if each else "ok")
        for n, each in enumerate(charges, 1)
    ]


def statement(*charges: Charge | None, settings=SETTINGS, deltas=(1e-6,)):
    return make_statement("ab" * 32, entries(*charges), settings, deltas)


FIVE = tuple(charge("1", n, A) for n in range(1, 6))


def test_it_says_whether_code_was_pinned():
    none = code_sentence(ClientSettings())
    assert "no bundle is pinned" in none
    assert "nothing of this is promised" in none
    pinned = code_sentence(ClientSettings(bundles=("ab" * 32, "cd" * 32)))
    assert "only the 2 pinned bundles" in pinned
    assert statement(*FIVE).sentence.endswith(none)


@pytest.mark.filterwarnings("ignore")
def test_five_rounds_cost_what_they_cost_together() -> None:
    """Five rounds said 2.865 each; together they are 5.881 by Opacus' RDP."""
    accountant = RDPAccountant()
    accountant.history = [(1.0, 0.1, 50)]
    assert accountant.get_epsilon(1e-5) == pytest.approx(5.881, abs=1e-3)
    (column,) = statement(*FIVE).columns
    assert column.spent[0].rdp == pytest.approx(5.881, rel=1e-3)
    assert column.spent[0].pld == pytest.approx(5.148, abs=1e-3)
    assert column.left == pytest.approx(8.0 - 5.148, abs=1e-3)
    assert column.releases == 5


def test_lives_compose_through_a_restart(tmp_path: Path) -> None:
    """Run A for five rounds, run B with other noise for three, a restart between."""
    home, place = tmp_path / "0000", tmp_path / "witness.json"
    home.mkdir()
    for made in (*FIVE, *(charge("2", n, B) for n in (1, 2, 3))):
        with open_ledger(home, place) as ledger:  # each opening is a restart
            ledger.append(made)
    found = make_statement(*inspect_ledger(home, place), SETTINGS, ())
    (spent,) = found.columns[0].spent
    assert spent.pld == epsilon([A] * 5 + [B] * 3, 1e-5)
    assert spent.rdp == epsilon_rdp([A] * 5 + [B] * 3, 1e-5)
    alone = [line.epsilon for line in found.runs]
    assert alone == [epsilon([A] * 5, 1e-5), epsilon([B] * 3, 1e-5)]
    assert max(alone) < spent.pld < sum(alone)
    assert [line.rounds for line in found.runs] == [5, 3]


def test_epsilon_at_several_deltas_in_the_order_asked() -> None:
    (column,) = statement(*FIVE, deltas=(1e-6, 1e-5, 1e-3)).columns
    assert [spent.delta for spent in column.spent] == [1e-5, 1e-6, 1e-3]
    values = {spent.delta: spent.pld for spent in column.spent}
    assert values[1e-3] < values[1e-5] < values[1e-6]


def test_units_are_columns() -> None:
    other = DpEvent(1.0, 0.1, 10, unit="interaction")
    found = statement(*FIVE, charge("2", 1, other))
    assert [column.unit for column in found.columns] == ["user", "interaction"]
    user, interaction = found.columns
    assert user.spent[0].pld == epsilon([A] * 5, 1e-5)
    assert interaction.spent[0].pld == epsilon([other], 1e-5)
    assert (interaction.budget, interaction.left) == (None, None)
    assert [line.unit for line in found.runs] == ["user", "interaction"]


def test_the_path_never_falls_and_ends_at_the_whole() -> None:
    charges = statement(*FIVE, charge("2", 1, B)).charges
    path = [line.epsilon_after for line in charges]
    assert path == sorted(path)
    assert path[-1] == pytest.approx(epsilon([A] * 5 + [B], 1e-5), rel=1e-2)
    assert path[-1] >= epsilon([A] * 5 + [B], 1e-5)
    assert [line.sequence for line in charges] == [1, 2, 3, 4, 5, 6]


def test_a_long_ledger_keeps_every_charge(monkeypatch) -> None:
    monkeypatch.setattr("client.statement.MAX_POINTS", 4)
    charges = statement(*(charge("1", n, A) for n in range(1, 11))).charges
    assert len(charges) == 10
    assert len({line.epsilon_after for line in charges}) == 4
    assert charges[-1].epsilon_after >= epsilon([A] * 10, 1e-5)


def test_a_run_without_noise_is_said_in_so_many_words() -> None:
    found = statement(*FIVE, charge("2", 1, DpEvent(0.0, 0.5, 1)))
    assert found.sentence.startswith("NOT PRIVATE")
    (column,) = found.columns
    assert math.isinf(column.spent[0].pld)
    assert column.left == 0.0
    path = [line.epsilon_after for line in found.charges]
    assert math.isfinite(path[4])
    assert math.isinf(path[5])


def test_seeded_noise_is_said_in_so_many_words() -> None:
    seeded = replace(charge("2", 1, B), seeded=True)
    assert "protect nobody" in statement(*FIVE, seeded).sentence
    assert "protect nobody" not in statement(*FIVE).sentence


def test_an_empty_ledger_has_spent_nothing() -> None:
    found = statement()
    assert found.columns[0].spent[0].pld == 0.0
    assert found.columns[0].left == 8.0
    assert found.runs == found.charges == ()


def text_of(found, *, everything: bool = False) -> str:
    file = StringIO()
    console = Console(file=file, width=80, color_system=None)
    print_statement(found, console, everything=everything)
    return file.getvalue()


def test_no_figure_without_what_it_means() -> None:
    text = " ".join(text_of(statement(*FIVE, None)).split())
    for part in (
        *("5.149", "5.886", "8.000", "2.851", "1e-05", "1e-06", "run 1"),
        *("add or remove one unit's rows", "nobody else is trusted", "PLD", "Poisson"),
        "Note: 2026-05-01 12:06:00 ok",
    ):
        assert part in text
    assert all(
        len(line.rstrip()) <= 80 for line in text_of(statement(*FIVE)).split("\n")
    )


def test_only_the_last_charges_are_shown_unless_all_are_asked_for() -> None:
    many = statement(*(charge("1", n, DpEvent(9.0, 0.1, 1)) for n in range(1, 16)))
    assert "the last 12 of 15" in text_of(many)
    assert text_of(many, everything=True).count("train") == 15


def test_spent_is_never_rounded_down_nor_left_rounded_up() -> None:
    assert number(1.0) == "1.000"
    assert number(1.00001) == "1.001"
    assert number(math.inf) == "∞"
    assert "2.851" in text_of(statement(*FIVE)), "8 − 5.1482… is 2.8517…"


def test_the_small_plot_grows_to_the_budget() -> None:
    found = statement(*FIVE)
    line = sparkline(found.charges, found.columns[0])
    assert line.startswith("▃")
    assert line.split()[0] == "".join(sorted(line.split()[0]))
    assert "full height 8" in line
    assert sparkline((), found.columns[0]) == ""


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_the_plot_is_a_file_of_its_kind(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"epsilon.{ending}"
    plot_statement(statement(*FIVE), path)
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[ending]
    assert path.read_bytes().startswith(start)


def test_a_plot_of_nothing_and_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no charge"):
        plot_statement(statement(), tmp_path / "x.svg")
    with pytest.raises(ConfigError, match=r"\.svg, \.png or \.pdf"):
        plot_statement(statement(*FIVE), tmp_path / "x.txt")


SUM = DpEvent(1.5, 0.1, 4, "skellam", l2_sensitivity=4e3, l1_sensitivity=4e6)


def test_a_column_with_a_secure_sum_is_counted_by_renyi_and_says_so():
    found = statement(charge("a", 1, A), charge("b", 1, SUM, "sum"))
    (column,) = found.columns
    assert column.spent[0].pld == column.spent[0].rdp == epsilon([A, SUM], 1e-5)
    assert [line.epsilon for line in found.runs] == [
        epsilon([A], 1e-5),
        epsilon([SUM], 1e-5),
    ]
    assert found.charges[1].epsilon_after == pytest.approx(epsilon([A, SUM], 1e-5))
    assert "or mode distributed: of its updates only sums are seen" in found.sentence
    assert "Rényi divergences of the integer mechanism" in found.sentence


def test_without_one_nothing_is_said_of_it():
    sentence = statement(charge("a", 1, A)).sentence
    assert "distributed" not in sentence
    assert "Rényi" not in sentence


def test_clients_are_a_column_of_their_own():
    found = statement(charge("a", 1, A), charge("b", 1, replace(SUM, unit="client")))
    assert [column.unit for column in found.columns] == ["user", "client"]
    assert found.columns[1].spent[0].pld == epsilon([SUM], 1e-5)
    assert found.columns[1].budget is None
