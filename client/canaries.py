"""Canaries of a deployment: users that an owner plants, to audit the runs that follow.

Client only: it writes rows. Who is in is decided by coins of the operating system, and
stands, with what each canary touched, in a file that stays with the owner; the server
does not see it. On the device a canary's rows look alike (one time, one value), and the
app asks for neither. Designs are such as need
nobody else's rows. A new one is one function here, one entry in ``DESIGNS``, one test.
One run's audit of them: Steinke, Nasr, Jagielski 2023 (arXiv 2305.08846).
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client.data import read_client_data
from client.identifiers import DIGITS
from client.ledger import inspect_ledger
from client.settings import read_settings, witness_place
from client.store_key import FEEDBACK
from common.catalogue import Catalogue, read_catalogue
from common.durable_files import write_durably
from common.errors import ConfigError, DataFormatError
from common.folders import CATALOGUE, INTERACTIONS, LEDGER
from common.interactions import SCHEMA, read_table

IntArray = npt.NDArray[np.int64]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Place = Annotated[int, Field(ge=0)]

FORMAT: Literal["tutela-canaries-1"] = "tutela-canaries-1"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Canary(_Record):
    """One canary.

    Attributes:
        user: its pseudonym.
        items: what it touched, places in the declared catalogue.
        included: what the coin said.
    """

    user: Annotated[str, Field(pattern=rf"^[0-9a-f]{{{DIGITS}}}$")]
    items: Annotated[tuple[Place, ...], Field(min_length=1)]
    included: bool


class Truth(_Record):
    """Ground truth of one client's canaries, as its file holds it.

    Attributes:
        client: name of the client's folder.
        design: key of ``DESIGNS``.
        catalogue: digest of the declared catalogue, of ``num_items``.
        planted: when, UTC.
        entries: how many the client's ledger had then.
        receipts: hashes of what it was charged since, written at their removal; the
            server got each with an answer, so that the client's answers are found by
            them.
    """

    format: Literal["tutela-canaries-1"] = FORMAT
    client: str
    design: str
    catalogue: Hash
    num_items: Annotated[int, Field(ge=1)]
    planted: str
    entries: Annotated[int, Field(ge=0)]
    canaries: Annotated[tuple[Canary, ...], Field(min_length=2)]
    receipts: tuple[Hash, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of all but the receipts.

        Told at once, it shows later that who was in was decided before the run.
        Pseudonyms are random, so that it gives nothing away.
        """
        tree = self.model_dump(mode="json", exclude={"receipts"})
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    @property
    def num_included(self) -> int:
        """How many are in."""
        return sum(each.included for each in self.canaries)


#: Item counts ``[n]`` of the client's users, canaries, items of each, randomness →
#: items of each canary, int64 ``[items]``.
Design = Callable[[IntArray, int, int, np.random.Generator], list[IntArray]]


def random_users(
    counts: IntArray, count: int, size: int, rng: np.random.Generator
) -> list[IntArray]:
    """Users of any items of the catalogue, each as likely as the others."""
    return [rng.choice(len(counts), size, replace=False) for _ in range(count)]


def rare_users(
    counts: IntArray, count: int, size: int, rng: np.random.Generator
) -> list[IntArray]:
    """Users of the quarter of items that fewest of the client's users touched."""
    rare = _by_rarity(counts, rng)[: max(size, len(counts) // 4)]
    return [rng.choice(rare, size, replace=False) for _ in range(count)]


def dirac_users(
    counts: IntArray, count: int, size: int, rng: np.random.Generator
) -> list[IntArray]:
    """Users of items that no other canary has while they last, rare ones first."""
    pool = _by_rarity(counts, rng)[: max(size, count * size)]
    queue: list[IntArray] = []
    while len(queue) < count:
        mixed = rng.permutation(pool)
        starts = range(0, len(mixed) - size + 1, size)
        queue += [mixed[start : start + size] for start in starts]
    return queue[:count]


@dataclass(frozen=True)
class _Planned:
    design: Design
    num_items: int


#: Name → design, and how many items its canaries have unless somebody says otherwise.
DESIGNS: dict[str, _Planned] = {
    "random": _Planned(random_users, 20),
    "rare-item": _Planned(rare_users, 5),
    "dirac": _Planned(dirac_users, 2),
}


def plant(
    folder: Path, truth: Path, *, count: int, design: str, num_items: int | None = None
) -> tuple[Truth, int]:
    """Put canaries among a client's users, each by the toss of a coin.

    The truth is on disk before a row is.

    Args:
        folder: the client's.
        truth: a new file, which stays with the owner.
        count: canaries, about half of which are in.
        num_items: of each; by default the design's.

    Returns:
        The truth, and how many users the client had.

    Raises:
        ConfigError: if there is no catalogue, the truth's file is there already, or
            the design is unknown or does not fit the catalogue.
        LedgerFault: if the client's ledger is not as it was left.
    """
    catalogue = _catalogue(folder)
    planned = _planned(design, num_items, catalogue.num_items)
    if count < 2:
        raise ConfigError(f"--count: expected 2 canaries or more, got {count}.")
    if truth.exists():
        raise ConfigError(
            f"--truth: {truth} is there already; it says who was planted before. "
            "Name a new file."
        )
    counts, num_users = _touched(folder, catalogue)
    found = Truth(
        client=folder.resolve().name,
        design=design,
        catalogue=catalogue.digest,
        num_items=catalogue.num_items,
        planted=datetime.now(UTC).isoformat(timespec="seconds"),
        entries=len(_hashes(folder)),
        canaries=_drawn(planned, counts, count),
    )
    write_truth(truth, found)
    rows = [_stored(folder), _rows_of(found, catalogue)]
    _write_rows(folder, pl.concat(rows))
    return found, num_users


def remove(folder: Path, truth: Path) -> int:
    """Take canaries out again, and note in the truth what was charged meanwhile.

    Returns:
        How many were there.

    Raises:
        ConfigError: if the truth is another client's.
        DataFormatError: if its file is damaged.
    """
    found = read_truth(truth)
    if found.client != folder.resolve().name:
        raise ConfigError(
            f"{truth}: expected the canaries of this client, got those of client "
            f"{found.client}."
        )
    charged = receipts_since(folder, found)
    write_truth(truth, found.model_copy(update={"receipts": charged}))
    names = [each.user for each in found.canaries]
    rows = _stored(folder)
    theirs = rows["user"].is_in(names)
    if theirs.any():
        _write_rows(folder, rows.filter(~theirs))
    return rows.filter(theirs)["user"].n_unique()


def receipts_since(folder: Path, truth: Truth) -> tuple[str, ...]:
    """Hashes of the ledger's entries since canaries were planted; kept ones first.

    The canaries of a truth that were removed are in nothing that came later.
    """
    if truth.receipts:
        return truth.receipts
    return tuple(_hashes(folder)[truth.entries :])


def write_truth(path: Path, truth: Truth) -> None:
    """Write a truth, its owner's alone to read."""
    text = json.dumps(truth.model_dump(mode="json"), indent=1)
    write_durably(path, f"{text}\n".encode())


def read_truth(path: Path) -> Truth:
    """Read what :func:`write_truth` wrote.

    Raises:
        ConfigError: if there is no such file.
        DataFormatError: if it is damaged or of another kind; no canary is named.
    """
    try:
        found = Truth.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"Expected canaries' truth at {path}, found none.") from None
    except (ValueError, OSError, ValidationError) as error:
        key = _first_fault(error)
        raise DataFormatError(
            f"{path}: expected the truth that `canaries plant` wrote, in format "
            f"{FORMAT}; {key}."
        ) from None
    if any(max(each.items) >= found.num_items for each in found.canaries):
        raise DataFormatError(
            f"{path}: expected items of a catalogue of {found.num_items}, got others."
        )
    return found


def _first_fault(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "it is no JSON"
    place = ".".join(map(str, error.errors()[0]["loc"]))
    return f"{place} does not fit" if place else "it is no table"


def _planned(design: str, num_items: int | None, size: int) -> _Planned:
    if design not in DESIGNS:
        known = ", ".join(DESIGNS)
        raise ConfigError(f"--design: expected one of {known}, got {design!r}.")
    planned = DESIGNS[design]
    wanted = planned.num_items if num_items is None else num_items
    if not 1 <= wanted <= size:
        raise ConfigError(
            f"--items: expected 1 to {size} (the catalogue's), got {wanted}."
        )
    return _Planned(planned.design, wanted)


def _drawn(planned: _Planned, counts: IntArray, count: int) -> tuple[Canary, ...]:
    rng = np.random.default_rng(secrets.randbits(128))
    items = planned.design(counts, count, planned.num_items, rng)
    coins = secrets.randbits(count)
    return tuple(
        Canary(
            user=secrets.token_hex(DIGITS // 2),
            items=tuple(sorted(each.tolist())),
            included=bool(coins >> place & 1),
        )
        for place, each in enumerate(items)
    )


def _by_rarity(counts: IntArray, rng: np.random.Generator) -> IntArray:
    """Items by how many touched them; chance decides among equals."""
    order: IntArray = np.lexsort((rng.random(len(counts)), counts))
    return order


def _catalogue(folder: Path) -> Catalogue:
    if not (folder / CATALOGUE).is_file():
        raise ConfigError(
            f"Expected a client's folder with the declared {CATALOGUE} at {folder}, "
            "found none."
        )
    return read_catalogue(folder / CATALOGUE)


def _touched(folder: Path, catalogue: Catalogue) -> tuple[IntArray, int]:
    """How many of the client's users touched each item, and how many users."""
    if not any((folder / name).is_file() for name in (INTERACTIONS, FEEDBACK)):
        return np.zeros(catalogue.num_items, dtype=np.int64), 0
    rows = read_client_data(folder).histories
    return np.asarray(rows.sum(axis=0)).ravel().astype(np.int64), rows.shape[0]


def _stored(folder: Path) -> pl.DataFrame:
    path = folder / INTERACTIONS
    return read_table(path) if path.is_file() else pl.DataFrame(schema=SCHEMA)


def _write_rows(folder: Path, table: pl.DataFrame) -> None:
    file = io.BytesIO()
    table.write_parquet(file)
    write_durably(folder / INTERACTIONS, file.getvalue())


def _rows_of(truth: Truth, catalogue: Catalogue) -> pl.DataFrame:
    ids = catalogue.items.ids
    pairs = [
        (each.user, ids[item])
        for each in truth.canaries
        if each.included
        for item in each.items
    ]
    columns: dict[str, Any] = {
        "user": [user for user, _ in pairs],
        "item": [item for _, item in pairs],
        "value": [1.0] * len(pairs),
        "timestamp": [0] * len(pairs),
    }
    return pl.DataFrame(columns, schema=SCHEMA)


def _hashes(folder: Path) -> list[str]:
    """Of the ledger's entries in order; none where no ledger was begun."""
    if not (folder / LEDGER).is_file():
        return []
    _, entries = inspect_ledger(folder, witness_place(folder, read_settings(folder)))
    return [entry.hash for entry in entries]
