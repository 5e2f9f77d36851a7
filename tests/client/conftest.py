"""A client's folder, and a message as the server would send it."""

import uuid
from pathlib import Path

import polars as pl
import pytest
import tomli_w
import torch
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from common import wire
from common.catalogue import SCHEMA as CATALOGUE_SCHEMA
from common.catalogue import Catalogue, write_catalogue
from common.config import defaults
from common.interactions import SCHEMA
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


def write_folder(folder: Path, table: pl.DataFrame, **settings) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_catalogue(catalogue(), folder / "catalogue.parquet")
    table.write_parquet(folder / "interactions.parquet")
    values = {"max-epsilon": 1e6, "seed": 7} | settings
    (folder / "settings.toml").write_text(tomli_w.dumps(values))
    return folder


def context_of(folder: Path, **overrides) -> Context:
    return Context(
        run_id=11,
        node_id=100,
        node_config={"folder": str(folder)},
        state=RecordDict(),
        run_config=FLAT | overrides,
    )


def message_of(
    number: int = 1, *, kind: str = "train", digest: str | None = None, state=None
) -> Message:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 11, 1, 1
    header = wire.RoundHeader("11", number, digest or catalogue().digest)
    state = state or random_state(SPEC, torch.Generator().manual_seed(1))
    content = RecordDict(
        {wire.ROUND: wire.pack_header(header), wire.STUDENT: wire.pack_state(state)}
    )
    message = Message(content, 100, kind)
    message.metadata.__dict__["_message_id"] = uuid.uuid4().hex
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "0000", rows(8))
