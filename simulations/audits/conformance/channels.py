"""Does anything leave that nobody counts? Every record, key, text and length.

Simulations only. The list of what may leave is the audit's own, not the exit door's.
Errors are provoked: each is one of the fixed texts, and whether one comes must not
depend on a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import polars as pl

from common import wire
from common.folders import INTERACTIONS
from common.student import StateDict
from simulations.audits.conformance.asking import (
    Answer,
    Client,
    Records,
    without_log,
)
from simulations.audits.conformance.bench import NAMES, RECORDS, Bench
from simulations.audits.conformance.observed import Observed, exactly

ASSUMPTION = (
    "Nothing of a client's data leaves but the noised sums of the promise: no further "
    "record, key, number or text, and no error that depends on a row."
)
#: The texts an error may have, each padded to one length.
TEXTS = (
    "The client refused: its own settings do not allow this round.",
    "The client refused: its ledger must be seen to by its operator.",
    "The client refused: the message does not fit the protocol.",
    "The client failed; its operator's log says where.",
)
LENGTH = 64
HEADER = ("protocol", "run", "number", "nonce", "receipt")
USERS = 6


def check_channels(bench: Bench) -> list[Observed]:
    """Things that leave beside what may, errors of other texts, answers that tell."""
    return [_records(bench), _errors(bench), _alike(bench)]


def _records(bench: Bench) -> Observed:
    client, found = bench.client(bench.real[:USERS]), list[str]()
    for kind in bench.kinds:
        found += beyond(client, kind, bench.ask(client, kind))
    told = f": {', '.join(sorted(set(found)))}" if found else ""
    return _observed(
        "things in answers that are not on the list of what may leave",
        len(found),
        f"{len(found)} records, keys or values are beyond the list{told}.",
    )


def beyond(client: Client, kind: str, answer: Answer) -> list[str]:
    """What of an answer is not on the list, by name."""
    content, record = answer.content, RECORDS[kind]
    found = [f"record {name}" for name in content if name not in (wire.ROUND, record)]
    found += [
        f"{record}/{key}" for key in set(content.get(record, ())) - {*NAMES[kind]}
    ]
    for key, array in content.array_records.get(record, {}).items():
        values = array.numpy()
        if values.dtype != np.float32 or not np.isfinite(values).all():
            found.append(f"values of {record}/{key}")
    header = dict(content.config_records.get(wire.ROUND, {}))
    found += [f"{wire.ROUND}/{key}" for key in set(header) - {*HEADER}]
    if not re.fullmatch("[0-9a-f]{64}", str(header.get("receipt"))):
        found.append(f"value of {wire.ROUND}/receipt")
    return [*found, *_names(client, answer)]


def _names(client: Client, answer: Answer) -> Iterator[str]:
    """A user's pseudonym or the folder's name in the bytes that leave."""
    hidden = [f"{user:032x}".encode() for user in range(USERS)]
    for each in (*hidden, str(client.folder).encode()):
        if each in answer.raw:
            yield "a name of the client's"


def _errors(bench: Bench) -> Observed:
    """Refusals and failures of every sort."""
    wrong = [
        answer
        for answer in _provoked(bench)
        if answer.error is None
        or answer.error not in {text.ljust(LENGTH) for text in TEXTS}
        or answer.code != 0
        or len(answer.content)
    ]
    return _observed(
        "error replies that are not one of the fixed texts",
        len(wrong),
        f"{len(wrong)} of the provoked errors say something else, or are answers.",
    )


def _provoked(bench: Bench) -> Iterator[Answer]:
    kind, rows = bench.kinds[0], bench.real[:USERS]
    question = bench.question(kind)
    with without_log():
        damaged = bench.client(rows)
        (damaged.folder / INTERACTIONS).write_bytes(b"no table")
        yield bench.ask(damaged, kind)
        unknown = bench.client(rows)
        table = bench.table(rows).with_columns(item=pl.lit("a marked item"))
        table.write_parquet(unknown.folder / INTERACTIONS)
        yield bench.ask(unknown, kind)
        willing = bench.client(rows)
        yield bench.ask(willing, kind, {})
        yield bench.ask(willing, "train.nothing", question)
        yield bench.ask(replace(willing, catalogue="0" * 64), kind)
        stranger = replace(willing, config=willing.config | {"run.name": "another"})
        yield bench.ask(stranger, kind)
        if bench.is_private:
            yield bench.ask(bench.client(rows, budget=1e-3), kind)


def _alike(bench: Bench) -> Observed:
    """Whether a crafted message is answered or not must not depend on a row."""
    rows = bench.real[:USERS]
    heavy = [*rows, list(range(bench.world.num_items))]
    told = 0
    with without_log():
        for kind, question in _crafted(bench):
            kinds = {
                bench.ask(bench.client(each), kind, question).error
                for each in ([], rows, heavy)
            }
            told += len(kinds) - 1
    return _observed(
        "crafted messages that are answered or not depending on a row",
        told,
        f"{told} crafted messages tell by their error who is at the client.",
    )


def _crafted(bench: Bench) -> Iterator[tuple[str, Records]]:
    for kind in bench.kinds:
        if kind in (wire.TRAIN, wire.EVALUATE):
            for student in _students(bench.world.start):
                yield kind, bench.question(kind, student=student)


def _students(start: StateDict) -> Iterator[StateDict]:
    """Students on which a long history might overflow, and a short one not."""
    for factor in (1e6, 1e10, 1e19, 1e30):
        yield {
            name: (value * factor).clamp(-3e38, 3e38) for name, value in start.items()
        }


def _observed(measure: str, measured: int, detail: str) -> Observed:
    return Observed(
        check="channels",
        assumption=ASSUMPTION,
        measure=measure,
        expected=0,
        measured=measured,
        bounds=exactly(0),
        detail=detail,
        chance=False,
    )
