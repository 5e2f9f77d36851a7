"""A client's folder, and a message as the server would send it."""

import uuid
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import tomli_w
import torch
from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_to_proto
from flwr.supercore.task_identity import TaskIdentity

from client.importing import write_rows
from client.ledger import inspect_ledger
from client.settings import read_settings, witness_place
from common import wire
from common.catalogue import SCHEMA as CATALOGUE_SCHEMA
from common.catalogue import Catalogue, write_catalogue
from common.config import defaults
from common.events import DpEvent
from common.interactions import SCHEMA
from common.statistics import pack_directions, pack_items
from common.student import StudentSpec, random_state

NUM_ITEMS = 12
SPEC = StudentSpec(NUM_ITEMS, 3, 20.0, 0.8)
FLAT = defaults() | {
    "student.dim": 3,
    "training.rounds": 5,
    "privacy.noise-multiplier": 1.0,
    "privacy.sample-rate": 0.5,
    "privacy.declared-users": 8,
}


def catalogue() -> Catalogue:
    columns = {
        "item": [f"i{n}" for n in range(NUM_ITEMS)],
        "title": [f"Title {n}" for n in range(NUM_ITEMS)],
        "year": [2000] * NUM_ITEMS,
        "categories": [["c"]] * NUM_ITEMS,
    }
    return Catalogue(pl.DataFrame(columns, schema=CATALOGUE_SCHEMA))


def rows(num_users: int) -> pl.DataFrame:
    pairs = [(u, (3 * u + k) % NUM_ITEMS) for u in range(num_users) for k in range(4)]
    return pl.DataFrame(
        {
            "user": [f"u{u}" for u, _ in pairs],
            "item": [f"i{i}" for _, i in pairs],
            "value": [1.0] * len(pairs),
            "timestamp": [0] * len(pairs),
        },
        schema=SCHEMA,
    )


def settings_of(**changes) -> dict:
    """Settings of a willing client; ``target_epsilon=…`` and others of its budget."""
    budget = {"target-epsilon": 1e6}
    for name in ("target-epsilon", "delta", "metrics-epsilon"):
        value = changes.pop(name.replace("-", "_"), None)
        if value is not None:
            budget[name] = value
    anybody = {
        "most-clients": 20_000,
        "roster": False,
        "least-threshold": 0.51,
        "least-corrupt": 0.0,
    }
    values = {
        "runs": ["tutela"],
        "seed": 7,
        "distributed": anybody,
        "budget": {"user": budget},
    } | changes
    return {key: value for key, value in values.items() if value is not None}


def write_folder(folder: Path, table: pl.DataFrame, **settings) -> Path:
    """A client's folder, its witness in a folder beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_catalogue(catalogue(), folder / "catalogue.parquet")
    write_rows(folder, table)
    values = settings_of(**settings) | {"witness": f"../witness/{folder.name}.json"}
    (folder / "settings.toml").write_text(tomli_w.dumps(values))
    return folder


def spent(folder: Path) -> list[tuple[int, DpEvent]]:
    """Pairs (round, event) in the folder's ledger, which has to be sound."""
    place = witness_place(folder, read_settings(folder))
    if not (folder / "ledger.sqlite").exists():
        return []
    _, entries = inspect_ledger(folder, place)
    return [(e.charge.number, e.charge.event) for e in entries if e.charge]


def context_of(folder: Path, **overrides) -> Context:
    return Context(
        run_id=11,
        node_id=100,
        node_config={"folder": str(folder)},
        state=RecordDict(),
        run_config=FLAT | overrides,
    )


def nonce_of(number: int) -> str:
    """The nonce of a test's round, the same each time."""
    return f"{number:032x}"


def message_of(
    number: int = 1,
    *,
    kind: str = "train",
    digest: str | None = None,
    state=None,
    **header_values,
) -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 11, 1, 1
    values = {
        "run": "11",
        "name": "tutela",
        "number": number,
        "nonce": nonce_of(number),
        "catalogue": digest or catalogue().digest,
    }
    header = wire.RoundHeader(**values | header_values)
    state = state or random_state(SPEC, torch.Generator().manual_seed(1))
    content = RecordDict(
        {wire.ROUND: wire.pack_header(header), wire.STUDENT: wire.pack_state(state)}
    )
    message = Message(content, 100, kind)
    message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    return message


def asking(kind: str, chosen=None, directions=None, **header_values) -> Message:
    """A question for statistics; of all items and two directions unless others."""
    message = message_of(1, kind=kind, **header_values)
    del message.content[wire.STUDENT]
    chosen = np.ones(NUM_ITEMS, bool) if chosen is None else np.asarray(chosen)
    message.content[wire.ITEMS] = pack_items(chosen)
    if kind == wire.SKETCH:
        if directions is None:
            directions = np.eye(int(chosen.sum()), 2, dtype=np.float32)
        message.content[wire.DIRECTIONS] = pack_directions(directions)
    return message


def sent(reply: Message) -> bytes:
    """All bytes of a reply, as they leave."""
    return message_to_proto(reply).SerializeToString()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "0000", rows(8))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder for a ledger."""
    (tmp_path / "0000").mkdir()
    return tmp_path / "0000"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the witness of that ledger lies."""
    return tmp_path / "elsewhere" / "witness.json"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch) -> None:
    """Nothing is written into the home of whoever runs the tests."""
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home))
