"""The bundle: what Flower ships holds what a node needs, and works alone."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from common.config import defaults, flatten

ROOT = Path(__file__).parents[1]
ROOMS = ("common", "server", "client")

#: Run in the unpacked bundle: imports both apps, sends the client one real round.
ROUND_TRIP = '''
import sys
from pathlib import Path

here = Path.cwd()
# An editable install puts the checkout on the path: take it off again.
elsewhere = [
    path for path in sys.path
    if not (Path(path, "simulations").is_dir() and Path(path, "tests").is_dir())
]
sys.path[:] = [str(here), *elsewhere]

import polars as pl
import torch
from flwr.app import Context, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.supercore.task_identity import TaskIdentity

import client.app
import common.wire as wire
import server.app
from common import catalogue as cat
from common.config import defaults
from common.interactions import SCHEMA
from common.signature import signed
from common.student import StudentSpec, random_state

for module in (client.app, server.app, wire):
    if here not in Path(module.__file__).parents:
        raise SystemExit(f"{module.__name__} is not the bundle's")

folder = here / "rows"
folder.mkdir()
items = pl.DataFrame(
    [(str(i), f"title {i}", 1990 + i, ["drama"]) for i in range(5)],
    schema=cat.SCHEMA,
    orient="row",
)
declared = cat.Catalogue(items)
cat.write_catalogue(declared, folder / "catalogue.parquet")
rows = [(f"{u:032x}", str((u + i) % 5), 1.0, 0) for u in range(6) for i in range(3)]
pl.DataFrame(rows, schema=SCHEMA, orient="row").write_parquet(
    folder / "interactions.parquet"
)
(folder / "settings.toml").write_text(
    """runs = ["tutela"]
witness = "../witness/rows.json"

[budget.user]
target-epsilon = 1e6
"""
)

config = defaults() | {
    "student.dim": 2, "training.rounds": 1,
    "privacy.noise-multiplier": 5.0, "privacy.declared-users": 6,
}
spec = StudentSpec(
    5, 2, config["student.logit-scale"], config["student.history-exponent"]
)
state = random_state(spec, torch.Generator().manual_seed(0))
content = RecordDict({
    wire.STUDENT: wire.pack_state(state),
})
header = signed(
    wire.RoundHeader("1", config["run.name"], 1, "0f" * 16, declared.digest),
    wire.TRAIN, content, config, bytes(range(32)),
)
content[wire.ROUND] = wire.pack_header(header)
TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
message = Message(content, 100, "train")
message.metadata.__dict__["_message_id"] = "first"
message = message_from_proto(message_to_proto(message))
context = Context(1, 100, {"folder": str(folder)}, RecordDict(), config)
reply = client.app.app(message, context)
if reply.has_error():
    raise SystemExit(reply.error.reason)
shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
update = wire.unpack_state(reply.content, wire.UPDATE, shapes)
if not all(tensor.abs().sum() > 0 for tensor in update.values()):
    raise SystemExit("an update without noise")
answered = wire.unpack_reply_header(reply.content)
if (answered.run, answered.number, answered.nonce) != ("1", 1, "0f" * 16):
    raise SystemExit("a reply to another question")
if answered.receipt == wire.NO_RECEIPT:
    raise SystemExit("an update that nobody was charged for")
if not (here / "witness" / "rows.json").is_file():
    raise SystemExit("a ledger that nobody witnessed")
print(sorted(reply.content), "simulations" in sys.modules)
'''


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The file ``flwr build`` makes from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("bundle")
    copy = folder / "tutela"
    copy.mkdir()
    for room in (*ROOMS, "simulations", "docs", "tests"):
        shutil.copytree(
            ROOT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "LICENSE", "README.md", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    done = subprocess.run(
        [Path(sys.executable).with_name("flwr"), "build", "--app", "."],
        cwd=copy,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = copy.glob("*.fab")
    return built


def environment(folder):
    return {
        **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
        "HOME": str(folder),
        "FLWR_HOME": str(folder / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "OMP_NUM_THREADS": "2",
    }


def test_it_holds_the_three_rooms_and_nothing_else(bundle):
    names = {n for n in zipfile.ZipFile(bundle).namelist() if not n.startswith(".info")}
    sources = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    assert names - {"LICENSE"} == sources | {"pyproject.toml"}


def test_its_files_are_the_checkouts(bundle):
    with zipfile.ZipFile(bundle) as unpacked:
        for room in ROOMS:
            name = f"{room}/__init__.py"
            assert unpacked.read(name) == (ROOT / name).read_bytes()


def test_its_defaults_are_the_checkouts(bundle):
    with zipfile.ZipFile(bundle) as packed:
        shipped = tomllib.loads(packed.read("pyproject.toml").decode())
    assert flatten(shipped["tool"]["flwr"]["app"]["config"]) == defaults()


def test_it_answers_a_round_on_its_own(bundle, tmp_path):
    app = tmp_path / "app"
    with zipfile.ZipFile(bundle) as packed:
        packed.extractall(app)
    done = subprocess.run(
        [sys.executable, "-P", "-c", ROUND_TRIP],
        cwd=app,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "['round', 'update'] False"
