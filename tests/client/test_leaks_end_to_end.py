"""Sizes and constants tell nothing of rows; nor does what a server sees and keeps."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common.serde import message_to_proto
from safetensors.numpy import load_file

import client.app as wiring
import simulations.engine as engine
from client.importing import write_rows
from client.ledger import inspect_ledger
from client.release import CLOSED, FAILED, MISFIT, REFUSED
from client.settings import read_settings, witness_place
from common import wire
from common.config import to_flat
from common.student import build, shapes
from server.app import app as server
from simulations.experiment import prepare
from tests.client.conftest import SPEC, rows, spent, write_folder
from tests.client.test_leaks import (
    FAULTS,
    KINDS,
    MARK,
    MODES,
    PLANTED,
    TIME,
    VALUE,
    Scene,
    asked,
    context_in,
    found,
    identities,
    places,
    planted,
    sent,
    text_forms,
    willing,
)
from tests.simulations.test_engines import tiny

# ------------------------------------------------------------ one user more or less


def looks(reply: Message) -> dict[str, object]:
    """All of a reply but the values that noise or chance make: what must not vary."""
    content = reply.content
    header = dict(content[wire.ROUND])
    return {
        "header": header | {"receipt": len(str(header.get("receipt")))},
        "records": {name: type(record) for name, record in content.items()},
        "arrays": {
            (record, name): (a.dtype, tuple(a.shape), a.stype, len(a.data))
            for record, arrays in content.array_records.items()
            for name, a in arrays.items()
        },
        "metrics": {name: dict(m) for name, m in content.metric_records.items()},
        "bytes": len(message_to_proto(reply).content.SerializeToString()),
        "all bytes": len(sent(reply)),
    }


def client(place: Path, table: pl.DataFrame, mode: str) -> Path:
    """Always of one name, since a seeded stream is the name's."""
    return write_folder(place / "0000", table, **willing(mode))


def charges(folder: Path) -> list[object]:
    place = witness_place(folder, read_settings(folder))
    return [entry.charge for entry in inspect_ledger(folder, place)[1]]


@pytest.mark.parametrize("num_users", [0, 7])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_one_user_more_changes_no_public_constant(
    tmp_path, caplog, mode: str, kind: str, num_users: int
) -> None:
    seen = []
    for n in (num_users, num_users + 1):
        folder = client(tmp_path / str(n), planted(n), mode)
        caplog.clear()
        reply = wiring.app(asked(kind, 1), context_in(folder, mode))
        assert reply.has_content()
        seen.append((looks(reply), charges(folder), caplog.text))
    assert seen[0] == seen[1]
    assert len(seen[0][1]) == (kind != "query.student")


def test_refusals_have_one_length_whichever_text_they_bear(
    tmp_path, monkeypatch
) -> None:
    replies = {}
    for name in ("no consent", "receipt unknown", "other digest", "rows missing"):
        folder = client(tmp_path / name, rows(8), "local")
        here = Scene(folder, "local", "train", monkeypatch)
        FAULTS[name][1](here)
        reply = wiring.app(here.message, here.context)
        replies[reply.error.reason] = len(sent(reply))
    assert set(replies) == {REFUSED, CLOSED, MISFIT, FAILED}
    assert len(set(replies.values())) == 1


# ------------------------------------------------------------- a server that probes


def probing() -> dict[str, torch.Tensor]:
    """Finite, and yet ∞ − ∞ in the scores of whoever holds both i0 and i1."""
    state = {name: torch.zeros(shape) for name, shape in shapes(SPEC).items()}
    state["encoder.weight"][0, 0] = state["encoder.weight"][1, 1] = 1e20
    state["decoder.weight"][:, 0], state["decoder.weight"][:, 1] = 1e30, -1e30
    return state


def holding(*items: int, users: int) -> pl.DataFrame:
    pairs = [(f"u{user}", f"i{item}") for user in range(users) for item in items]
    frame = pl.DataFrame(pairs, ["user", "item"], orient="row")
    return frame.with_columns(value=pl.lit(VALUE, pl.Float32), timestamp=pl.lit(TIME))


def test_the_probing_student_tells_histories_apart() -> None:
    """Or else the tests below would say nothing."""
    history = torch.zeros(3, SPEC.num_items)
    history[0, :2] = history[1, 0] = history[2, 5] = 1.0
    scores = build(SPEC, probing())(history)
    assert all(value.isfinite().all() for value in probing().values())
    assert scores[0].isnan().all() and scores[1].isposinf().all()
    assert (scores[2] == 0).all()


TABLES = {
    "nobody": holding(4, 5, 6, 7, users=8),
    "one of the items": holding(0, 5, 6, 7, users=8),
    "one user": pl.concat(
        [holding(4, 5, 6, 7, users=7), holding(0, 1, 2, 3, users=8).tail(4)]
    ),
    "everybody": holding(0, 1, 2, 3, users=8),
}


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize("mode", MODES)
def test_a_student_that_could_overflow_on_some_histories_learns_nothing_by_it(
    tmp_path, monkeypatch, mode: str, kind: str
) -> None:
    """Refused for its own size, before a row is read and without a charge."""

    def never(place: Path) -> None:
        raise AssertionError("private rows were read")

    monkeypatch.setattr(wiring, "read_client_data", never)
    for who, table in TABLES.items():
        folder = client(tmp_path / who, table, mode)
        message = asked(kind, 1, state=probing())
        reply = wiring.app(message, context_in(folder, mode))
        assert reply.error.reason == MISFIT, who
        assert spent(folder) == []


def values_of(reply: Message) -> np.ndarray:
    (record,) = reply.content.array_records.values()
    return np.concatenate([a.numpy().ravel() for a in record.values()])


@pytest.mark.parametrize("items", [range(8), range(1, 9), range(2, 10)], ids=str)
@pytest.mark.parametrize(
    ("kind", "most"), [("train", 0.1 / 8), ("evaluate", wire.METRIC_NORM)]
)
def test_one_user_moves_a_reply_by_its_bound_at_most(
    tmp_path, kind: str, most: float, items: range
) -> None:
    """Same seed, same noise: what is left is the last user's own contribution."""
    table = holding(*items, users=8)
    values = []
    for users in (7, 8):
        folder = client(tmp_path / str(users), table.head(users * len(items)), "local")
        context = context_in(folder, "local")
        context.run_config["privacy.sample-rate"] = 1.0
        reply = wiring.app(asked(kind, 1), context)
        values.append(values_of(reply).astype(float))
    moved = np.linalg.norm(values[1] - values[0])
    assert most / 3 < moved <= most * (1 + 1e-4)


# ------------------------------------------------------------ a whole federation


#: What makes client 2 refuse: no budget left, or no consent to go without noise.
UNWILLING = {
    "local": ("target-epsilon = 1000000000.0", "target-epsilon = 0.001"),
    "off": ("allow-non-private = true", "allow-non-private = false"),
}


@pytest.fixture(scope="module", params=MODES)
def world(request, tmp_path_factory) -> dict[str, object]:
    """A run where client 1 has a damaged row and client 2 may not take part."""
    home = tmp_path_factory.mktemp("world")
    changes = {"client-metrics.every": 1, "run.keep-every": 1}
    config = tiny(**changes | {"privacy.mode": request.param})
    prepare(config, home / MARK)
    clients = home / MARK / "clients"
    secrets = dict(PLANTED)
    for folder in sorted(clients.iterdir()):
        plant(folder)
        secrets |= {f"{folder.name} {k}": v for k, v in identities(folder).items()}
        secrets |= {str(folder): text_forms(str(folder))}
    settings = clients / "0002" / "settings.toml"
    assert UNWILLING[request.param][0] in settings.read_text()
    settings.write_text(settings.read_text().replace(*UNWILLING[request.param]))
    public, out = home / MARK / "server", home / "out"
    job = engine.Job(17, to_flat(config), 3, clients, public, out)
    return {"job": job, "secrets": secrets, "wire": run(job)}


def plant(folder: Path) -> None:
    """Marked users, values and times; in client 1 an item that nobody declared."""
    path = folder / "interactions.parquet"
    table = pl.read_parquet(path).with_columns(
        user=MARK + pl.col("user"),
        value=pl.lit(VALUE, pl.Float32),
        timestamp=pl.lit(TIME, pl.Int64),
    )
    if folder.name == "0001":
        table = pl.concat([table, table.head(1).with_columns(item=pl.lit(MARK))])
    write_rows(folder, table)


def run(job: engine.Job) -> list[tuple[int, bytes]]:
    """Every message on the wire, by the node it came from."""
    passed, copy = [], engine._copy

    def tap(message: Message) -> Message:
        data = message_to_proto(message).SerializeToString()
        passed.append((message.metadata.src_node_id, data))
        return copy(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_copy", tap)
        engine.run_in_process(server, wiring.app, job)
    return passed


def test_no_message_of_a_whole_run_holds_a_secret(world) -> None:
    senders = {node for node, _ in world["wire"]}
    assert senders == {1, 100, 101, 102}
    # Two rounds of training and of metrics, and the delivery: there and back.
    assert len(world["wire"]) == 2 * 3 * 5
    for _, data in world["wire"]:
        assert found(data, world["secrets"]) == []


def test_no_file_of_the_server_holds_a_secret(world) -> None:
    out = world["job"].out
    files = [path for path in out.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"metrics.jsonl", "server.json", "student.safetensors"} <= names
    assert {"receipts.json", "server.key", "00002.safetensors"} <= names
    for path in files:
        data = path.read_bytes() + path.name.encode()
        assert found(data, world["secrets"]) == [], path.name


def test_the_run_is_whole_and_says_of_the_others_a_fixed_text_only(world) -> None:
    lines = (world["job"].out / "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    refusals = [each for each in events if each["event"] == "refusal"]
    # In each of two rounds both questions to both clients.
    assert len(refusals) == 2 * 2 * 2
    assert {each["reason"] for each in refusals} == {REFUSED.strip(), FAILED.strip()}
    assert all(set(r) == {"time", "event", "round", "reason"} for r in refusals)
    rounds = [each for each in events if each["event"] == "round"]
    assert [each["survivors"] for each in rounds] == [1, 1]
    assert all(each["client_metrics"] for each in rounds)


@pytest.mark.parametrize("name", ["0000", "0001", "0002"])
def test_every_client_has_the_final_student_however_it_fared(world, name: str) -> None:
    job = world["job"]
    final = load_file(job.out / "student.safetensors")
    kept = load_file(job.clients / name / "student.safetensors")
    assert final.keys() == kept.keys()
    for tensor, values in final.items():
        np.testing.assert_array_equal(kept[tensor], values)


# ------------------------------------------------------- planted faults are caught


def users_of(folder: Path) -> list[str]:
    return pl.read_parquet(folder / "interactions.parquet")["user"].unique().to_list()


def column_of(folder: Path, name: str) -> np.ndarray:
    return pl.read_parquet(folder / "interactions.parquet")[name].to_numpy()


def array(folder: Path, name: str) -> RecordDict:
    return RecordDict({"update": ArrayRecord({"x": Array(column_of(folder, name))})})


def config(value: bytes | str) -> RecordDict:
    return RecordDict({"more": ConfigRecord({"x": value})})


OPEN_DOORS: dict[str, Callable[[Path], Error | RecordDict]] = {
    "the text of an error": lambda folder: Error(0, str(KeyError(f"{MARK} is new"))),
    "a path": lambda folder: Error(0, str(FileNotFoundError(2, "none", str(folder)))),
    "a pseudonym": lambda folder: config(users_of(folder)[0]),
    "the key": lambda folder: config((folder / "id.key").read_bytes()),
    "values": lambda folder: array(folder, "value"),
    "times": lambda folder: array(folder, "timestamp"),
}


def doorless(answer: Callable[[Path], Error | RecordDict], folder: Path) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message, context):
        return Message(answer(folder), reply_to=message)

    return app


@pytest.mark.parametrize("fault", OPEN_DOORS)
def test_an_app_without_the_door_is_caught(tmp_path, fault: str) -> None:
    folder = client(tmp_path, planted(8), "local")
    app = doorless(OPEN_DOORS[fault], folder)
    reply = app(asked("train"), context_in(folder, "local"))
    assert found(sent(reply), PLANTED | identities(folder) | places(folder))


COUNTS: dict[str, Callable[[int], RecordDict]] = {
    "metric": lambda n: RecordDict({"m": MetricRecord({"num-examples": n})}),
    "header": lambda n: RecordDict({wire.ROUND: ConfigRecord({"users": n})}),
    "length": lambda n: RecordDict({"u": ArrayRecord({"x": Array(np.zeros(n))})}),
}


@pytest.mark.parametrize("how", COUNTS)
def test_an_app_that_tells_how_many_users_it_has_is_caught(tmp_path, how: str) -> None:
    def answer(folder: Path) -> RecordDict:
        counted = COUNTS[how](len(users_of(folder)))
        return RecordDict({wire.ROUND: ConfigRecord(), **counted})

    seen = []
    for n in (7, 8):
        folder = client(tmp_path / str(n), planted(n), "local")
        app = doorless(answer, folder)
        seen.append(looks(app(asked("train"), context_in(folder, "local"))))
    assert seen[0] != seen[1]
