"""Clients' and public rows against what the promise assumes of them.

Simulations only: nobody else may compare one client's rows with another's. What comes
out are counts, suppressed where too few users stand behind them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import scipy.sparse as sp

from common.folders import INTERACTIONS
from simulations.audits.evidence import Evidence, check, said
from simulations.audits.findings import CheckRecord
from simulations.collecting import FEDERATION
from simulations.partition import CLIENTS, HELDOUT, SERVER

#: A shorter history may be that of several people by chance.
LEAST_ITEMS = 5

_ROWS = f"{FEDERATION}/{CLIENTS}/*/{INTERACTIONS}"
_PUBLIC = f"{FEDERATION}/{SERVER}/{INTERACTIONS}, {HELDOUT}/{INTERACTIONS}"


def _declared(seen: Evidence) -> CheckRecord:
    declared = seen.world.config.privacy.declared_users
    fewer = sum(len(client.users) < declared for client in seen.world.clients)
    clients = len(seen.world.clients)
    return check(
        "declared-users",
        "Each client has as many users as are declared of it.",
        _ROWS,
        said(holds=not fewer),
        f"{fewer} of {clients} clients have fewer than the {declared} declared. The "
        "promise does not rest on it: denominator and noise follow what is declared. "
        "How much is learnt does."
        if fewer
        else f"All {clients} clients have {declared} or more.",
        numbers=("clients with fewer users", 0, fewer),
    )


def _same_person(seen: Evidence) -> CheckRecord:
    found = [set(_histories(each.histories)) for each in seen.world.clients]
    owners = Counter(history for client in found for history in client)
    shared = sum(count > 1 for count in owners.values())
    inside = sum(
        repeats - 1
        for each in seen.world.clients
        for repeats in Counter(_histories(each.histories)).values()
    )
    return check(
        "one-person-one-user",
        "A person is one user at one client.",
        _ROWS,
        said(holds=not shared and not inside),
        f"Histories of {LEAST_ITEMS} items or more that are the same at several "
        f"clients: {_count(shared, seen)}; more than once at one client: "
        f"{_count(inside, seen)}. For a person who is several users, what each of "
        "them is promised adds up. Other rows of one person cannot be seen.",
        numbers=("same histories", 0, _number(shared + inside, seen)),
    )


def _teacher(seen: Evidence) -> CheckRecord:
    config = seen.world.config
    private = {
        history
        for client in seen.world.clients
        for history in _histories(client.histories)
    }
    public = _histories(seen.world.outsiders)
    both = sum(history in private for history in public)
    foreign = bool(config.teacher.checkpoint)
    detail = (
        "Histories of public or held-out users that are also a client's: "
        f"{_count(both, seen)}."
    )
    if foreign:
        detail += (
            " The teacher comes from a checkpoint made elsewhere, and nothing here "
            "says on whose rows."
        )
    else:
        detail += (
            " The teacher was trained on the public rows; refined, on what clients "
            "released with noise, which costs nothing further."
        )
    return check(
        "teacher",
        "The teacher was trained on public or already released data alone.",
        _PUBLIC,
        "deviates" if both else "unknown" if foreign else "holds",
        detail,
        numbers=("histories that are public and private", 0, _number(both, seen)),
    )


def _histories(rows: sp.csr_matrix) -> list[tuple[int, ...]]:
    """Each user's items, in order; those of too few left out."""
    return list(_long(rows))


def _long(rows: sp.csr_matrix) -> Iterable[tuple[int, ...]]:
    for user in range(rows.shape[0]):
        items = rows.indices[rows.indptr[user] : rows.indptr[user + 1]]
        if len(items) >= LEAST_ITEMS:
            yield tuple(sorted(items.tolist()))


def _count(number: int, seen: Evidence) -> str:
    """In words, or that it is too small to tell."""
    least = seen.world.config.evaluation.min_group_users
    return f"fewer than {least}" if 0 < number < least else str(number)


def _number(number: int, seen: Evidence) -> int | None:
    least = seen.world.config.evaluation.min_group_users
    return None if 0 < number < least else number


#: Name → check of rows.
ROW_CHECKS: dict[str, Callable[[Evidence], CheckRecord]] = {
    "declared-users": _declared,
    "one-person-one-user": _same_person,
    "teacher": _teacher,
}
