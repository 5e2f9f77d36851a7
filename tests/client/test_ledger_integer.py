"""Integer noise in a ledger: kept whole, and a version that older readers refuse."""

import sqlite3
from dataclasses import replace
from pathlib import Path

from client.chain import export_text, read_export
from client.ledger import inspect_ledger, open_ledger
from common.events import DpEvent
from tests.client.test_ledger import EVENT, charge, charged

SUM = DpEvent(1.5, 0.1, 1, "skellam", "client", l2_sensitivity=4e3, l1_sensitivity=4e6)


def version_of(home: Path) -> int:
    connection = sqlite3.connect(home / "ledger.sqlite")
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(found)


def test_integer_noise_is_kept_and_makes_the_ledger_the_second_version(
    tmp_path: Path,
) -> None:
    home, place = tmp_path / "home", tmp_path / "witness.json"
    home.mkdir()
    charged(home, place, 1)
    assert version_of(home) == 1
    with open_ledger(home, place) as ledger:
        ledger.append(charge(2, event=SUM, plan=(replace(SUM, steps=20),)))
    assert version_of(home) == 2
    charged(home, place, 3)

    found, kept = inspect_ledger(home, place)

    assert version_of(home) == 2
    assert [entry.charge.event for entry in kept] == [EVENT, SUM, EVENT]
    assert kept[1].charge.plan == (replace(SUM, steps=20),)
    assert '"tutela-ledger-2"' in export_text(found, kept)
    assert '"tutela-ledger-1"' in export_text(found, kept[:1])
    assert read_export(export_text(found, kept)) == (found, kept)
