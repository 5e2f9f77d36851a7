"""Is everything charged that leaves, once, before, and for good?

Simulations only. A client answers the run's whole plan; its ledger is read as the file
it is, by no code of the client's, and composed by dp-accounting's own accountant. Then
what a client must not do: answer a round twice, begin a run beyond its budget, or take
back a charge because its work failed.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from common import wire
from common.events import DpEvent, merged, read_event
from common.folders import INTERACTIONS, LEDGER
from common.plan import releases
from common.statistics import pack_items
from simulations.audits.conformance.asking import (
    Answer,
    Client,
    Records,
    without_log,
)
from simulations.audits.conformance.bench import UNLIMITED, Bench
from simulations.audits.conformance.clip import steep
from simulations.audits.conformance.observed import Observed, exactly
from simulations.audits.promised import Allowed

ASSUMPTION = (
    "Every answer is charged once, before it is worked out, with the event that "
    "describes it; a charge is never taken back, and a client's budget is for life."
)
#: Rounds of the plan that are asked for, users of the client.
ROUNDS, USERS = 24, 4
#: Accountants' grids differ.
TOLERANCE = 2e-3


def check_ledger(bench: Bench) -> list[Observed]:
    """Charges beside answers, and ε of both beside the promise."""
    asked = list(_asked(bench))
    claimed = Allowed(bench.world.events).epsilon(bench.world.config.privacy.delta)
    budget = claimed * (1 + TOLERANCE) if math.isfinite(claimed) else UNLIMITED
    client = bench.client(bench.real[:USERS], budget=budget)
    answers = _answer_all(bench, client, asked)
    charged = entries(client.folder)
    found = [
        _charges(answers, charged),
        *_epsilons(bench, asked[: len(answers)], charged, claimed),
        _failed(bench),
        _again(bench),
    ]
    if bench.is_private and len(asked) == len(list(_planned(bench))):
        found.append(_second_run(bench, client))
    return found


def _planned(bench: Bench) -> list[tuple[int, str, DpEvent]]:
    """Round, kind and event of every message of the run."""
    config, found = bench.world.config, []
    for number in range(1, max(1, config.training.rounds) + 1):
        for kind, event in releases(config, bench.world.noise, number).items():
            found.append((number, kind, event))
    return found


def _asked(bench: Bench) -> list[tuple[int, str, DpEvent]]:
    return [each for each in _planned(bench) if each[0] <= ROUNDS]


def _answer_all(
    bench: Bench, client: Client, asked: Sequence[tuple[int, str, DpEvent]]
) -> list[Answer]:
    """The answers, until one is an error."""
    found: list[Answer] = []
    for number, kind, _ in asked:
        receipt = found[-1].receipt if found else ""
        with without_log():
            answer = bench.ask(client, kind, number=number, acknowledged=receipt)
        if answer.error is not None:
            break
        found.append(answer)
    return found


def entries(folder: Path) -> list[dict[str, Any]]:
    """The charges of a ledger, as its file holds them."""
    with closing(sqlite3.connect(folder / LEDGER)) as connection:
        rows = connection.execute("SELECT body FROM entries ORDER BY sequence")
        bodies = [json.loads(body) for (body,) in rows.fetchall()]
    return [each for each in bodies if "event" in each]


def _events(charged: Sequence[dict[str, Any]]) -> tuple[DpEvent, ...]:
    return merged(
        [read_event(each["event"], each["unit"], each["relation"]) for each in charged]
    )


def _charges(answers: Sequence[Answer], charged: Sequence[object]) -> Observed:
    return _observed(
        "charges in the ledger after the run's messages",
        len(answers),
        len(charged),
        f"{len(answers)} answers left, {len(charged)} charges are in the ledger.",
    )


def _epsilons(
    bench: Bench,
    asked: Sequence[tuple[int, str, DpEvent]],
    charged: Sequence[dict[str, Any]],
    claimed: float,
) -> list[Observed]:
    """ε of what was charged, of what was answered, and of the promise."""
    privacy = bench.world.config.privacy
    owed = Allowed(merged([event for _, _, event in asked])).epsilon(privacy.delta)
    spent = Allowed(_events(charged)).epsilon(privacy.delta)
    if not math.isfinite(owed):
        return []
    found = [
        _observed(
            "ε of the charges, beside that of the answers",
            owed,
            spent,
            f"Charged is ε = {spent:.4f}; answered was ε = {owed:.4f}.",
            slack=TOLERANCE * (1 + owed),
        )
    ]
    statistics = bench.world.config.statistics
    given = privacy.noise_multiplier or statistics.noise_multiplier
    if not given:
        target = privacy.target_epsilon
        found.append(
            Observed(
                "ledger",
                ASSUMPTION,
                "ε of the whole plan, beside the target that was promised",
                target,
                claimed,
                exactly(0.0, target * (1 + TOLERANCE)),
                f"The plan composes to ε = {claimed:.4f}; promised is {target:g}.",
                chance=False,
                refuting="above",
            )
        )
    return found


def _failed(bench: Bench) -> Observed:
    """A client whose rows cannot be read fails after the charge, which has to stay."""
    client = bench.client(bench.real[:USERS])
    (client.folder / INTERACTIONS).write_bytes(b"no table")
    kind = bench.kinds[0]
    with without_log():
        bench.ask(client, kind)
    charged = len(entries(client.folder))
    return _observed(
        "charges after a client failed at its work",
        1,
        charged,
        f"One message was charged and failed; {charged} charges are left.",
    )


def _again(bench: Bench) -> Observed:
    """The same message again is the same answer; another for the round is refused.

    And so is another question under the same nonce, which is what is charged once.
    """
    client, kind = bench.client(bench.real[:USERS]), bench.kinds[0]
    nonce = bench.nonce()
    with without_log():
        first = bench.ask(client, kind, nonce=nonce)
        same = bench.ask(client, kind, nonce=nonce)
        changed = bench.ask(client, kind, _another(bench, kind), nonce=nonce)
        other = bench.ask(client, kind)
    again = (same, changed)
    fresh = sum(not _alike(first, each) for each in again) + (other.error is None)
    return _observed(
        "further releases for a message sent again and a round asked for twice",
        0,
        fresh,
        f"Of three repeated questions {fresh} got a second release.",
        refuting="above",
    )


def _another(bench: Bench, kind: str) -> Records:
    """A question that fits the message as well."""
    if kind != wire.STATISTICS:
        return bench.question(kind, student=steep(bench.world.start))
    fewer = bench.chosen.copy()
    fewer[np.flatnonzero(fewer)[:1]] = False
    return {wire.ITEMS: pack_items(fewer)}


def _alike(first: Answer, second: Answer) -> bool:
    """Whether two answers hold the same numbers; a refusal holds none."""
    if second.error is not None:
        return True
    names = first.content.array_records
    return all(
        first.content.array_records[name][key].data
        == second.content.array_records[name][key].data
        for name in names
        for key in names[name]
    )


def _second_run(bench: Bench, client: Client) -> Observed:
    """A budget that one run used up refuses the next one."""
    other = Client(client.folder, client.config, client.catalogue, client.run_id + 1)
    with without_log():
        answer = bench.ask(other, bench.kinds[0])
    beyond = int(answer.error is None)
    return _observed(
        "answers to a second run beyond the client's budget",
        0,
        beyond,
        f"The budget holds one run; {beyond} answers of a second one left.",
        refuting="above",
    )


def _observed(
    measure: str,
    expected: float,
    measured: float,
    detail: str,
    *,
    slack: float = 0.0,
    refuting: str = "below",
) -> Observed:
    return Observed(
        check="ledger",
        assumption=ASSUMPTION,
        measure=measure,
        expected=expected,
        measured=measured,
        bounds=exactly(expected - slack, expected + slack),
        detail=detail,
        chance=False,
        refuting="above" if refuting == "above" else "below",
    )
