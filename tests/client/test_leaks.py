"""What is planted on a client is in no byte that leaves it, whatever goes wrong."""

import errno
import getpass
import logging
import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import tomli_w
import torch
from filelock import FileLock
from flwr.app import (
    Array,
    ArrayRecord,
    Context,
    Error,
    Message,
)

import client.app as wiring
from client.release import CLOSED, FAILED, MISFIT, REFUSED
from common import errors, wire
from common.soft_labels import encode
from common.student import random_state
from tests.client.conftest import (
    NUM_ITEMS,
    SPEC,
    asking,
    context_of,
    message_of,
    nonce_of,
    rows,
    sent,
    settings_of,
    write_folder,
)
from tests.client.test_leak_search import (
    MARK,
    PLANTED,
    TIME,
    VALUE,
    Forms,
    byte_forms,
    found,
    text_forms,
)

OWN_WORD = "own-word-Vp3Lw"
TEXTS = {REFUSED, CLOSED, MISFIT, FAILED}
MODES = ("local", "off")
KINDS = (
    *("train", "train with labels", "train.statistics", "train.sketch"),
    *("evaluate", "query.student"),
)
ASKED_FOR = {
    "client-metrics.every": 1,
    "statistics.share": 0.5,
    "statistics.noise-multiplier": 2.0,
}


def identities(folder: Path) -> Forms:
    """A client's pseudonyms and the key they come from."""
    users = pl.read_parquet(folder / "interactions.parquet")["user"].unique().sort()
    forms = {f"user {n}": text_forms(u) for n, u in enumerate(users)}
    forms |= {
        f"user {n} raw": byte_forms(bytes.fromhex(u)) for n, u in enumerate(users)
    }
    return forms | {"key": byte_forms((folder / "id.key").read_bytes())}


def places(folder: Path) -> Forms:
    """The folder's path, and the machine's own names where they are no plain words."""
    public = "".join(TEXTS) + sent(message_of()).decode("latin-1")
    names = {str(folder), str(folder.parent.parent), tempfile.gettempdir()}
    names |= {getpass.getuser(), socket.gethostname()}
    kept = sorted(name for name in names if len(name) >= 4 and name not in public)
    return {name: text_forms(name) for name in kept}


# ------------------------------------------------------------- a client, a message


def planted(num_users: int) -> pl.DataFrame:
    return rows(num_users).with_columns(
        user=MARK + pl.col("user"),
        value=pl.lit(VALUE, pl.Float32),
        timestamp=pl.lit(TIME, pl.Int64),
    )


def willing(mode: str) -> dict:
    return {"metrics_epsilon": 1e6, "allow-non-private": mode == "off"}


def context_in(folder: Path, mode: str) -> Context:
    return context_of(folder, **ASKED_FOR | {"privacy.mode": mode})


def asked(kind: str, number: int = 2, **values) -> Message:
    if kind in (wire.STATISTICS, wire.SKETCH):
        # Of the first round alone, whenever it is asked for.
        return asking(kind, **{"nonce": nonce_of(number)} | values)
    message = message_of(number, kind=kind.partition(" ")[0], **values)
    if kind == "train with labels":
        proxy = sp.csr_matrix(np.eye(4, NUM_ITEMS, dtype=np.float32))
        labels = wire.pack_soft_labels(encode(proxy.toarray(), proxy, 5))
        message.content[wire.SOFT_LABELS] = labels
    return message


@dataclass
class Scene:
    """A client that took part in round 1 and is asked again; a fault changes it."""

    folder: Path
    mode: str
    kind: str
    patch: pytest.MonkeyPatch
    context: Context = field(init=False)
    message: Message = field(init=False)
    held: object = None

    def __post_init__(self) -> None:
        self.context = context_in(self.folder, self.mode)
        self.message = asked(self.kind)

    def ask(self, number: int = 2, **values) -> None:
        self.message = asked(self.kind, number, **values)

    def settle(self, **changes) -> None:
        values = settings_of(**willing(self.mode) | changes)
        values["witness"] = f"../witness/{self.folder.name}.json"
        (self.folder / "settings.toml").write_text(tomli_w.dumps(values))

    def move(self, folder: Path) -> None:
        """The node says all that the settings of the folder would."""
        self.context.node_config |= {
            "folder": str(folder),
            "runs": "*",
            "budget.user.target-epsilon": 1e6,
            "budget.user.metrics-epsilon": 1e6,
            "allow-non-private": True,
        }

    @property
    def witness(self) -> Path:
        return self.folder.parent / "witness" / f"{self.folder.name}.json"


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> dict[str, tuple[Path, Forms]]:
    """By mode, a client after its first round, and who its users are."""
    found = {}
    for mode in MODES:
        home = tmp_path_factory.mktemp("begun") / MARK
        folder = write_folder(home / f"{MARK}-0000", planted(8), **willing(mode))
        for kind in ("train", "evaluate"):
            reply = wiring.app(asked(kind, 1), context_in(folder, mode))
            assert reply.has_content()
        found[mode] = home, identities(folder)
    return found


@pytest.fixture
def scene(begun, tmp_path, monkeypatch) -> Callable[[str, str], Scene]:
    def of(mode: str, kind: str) -> Scene:
        shutil.copytree(begun[mode][0], tmp_path / MARK)
        return Scene(tmp_path / MARK / f"{MARK}-0000", mode, kind, monkeypatch)

    return of


# ------------------------------------------------------------------ the faults

Fault = Callable[[Scene], object]


def asks(number: int = 2, **values) -> Fault:
    return lambda scene: scene.ask(number, **values)


def settles(**changes) -> Fault:
    return lambda scene: scene.settle(**changes)


def writes(name: str, content: str) -> Fault:
    return lambda scene: (scene.folder / name).write_text(content)


def loses(name: str) -> Fault:
    return lambda scene: (scene.folder / name).unlink()


def edits(*statements: str) -> Fault:
    def edit(scene: Scene) -> None:
        with closing(sqlite3.connect(scene.folder / "ledger.sqlite")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return edit


def table(name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Fault:
    def damage(scene: Scene) -> None:
        path = scene.folder / f"{name}.parquet"
        change(pl.read_parquet(path)).write_parquet(path)

    return damage


def column(**values: str) -> Fault:
    return table("interactions", lambda rows: rows.with_columns(**lits(values)))


def lits(values: dict[str, str]) -> dict[str, pl.Expr]:
    return {name: pl.lit(value) for name, value in values.items()}


def raises(error: BaseException, *targets: str) -> Fault:
    """Calling a target fails, and a cause and a note tell all as well."""

    def fails(*args, **kwargs):
        error.add_note(MARK)
        raise error from KeyError(MARK)

    return lambda scene: [scene.patch.setattr(each, fails) for each in targets]


def cut(scene: Scene) -> None:
    path = scene.folder / "interactions.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def becomes_a_file(scene: Scene) -> None:
    shutil.rmtree(scene.folder)
    scene.folder.write_text(MARK)
    scene.move(scene.folder)


def lock(scene: Scene) -> None:
    scene.held = FileLock(scene.folder / "ledger.sqlite.lock")
    scene.held.acquire()


def poison(scene: Scene) -> None:
    state = random_state(SPEC, torch.Generator().manual_seed(1))
    state["decoder.bias"][0] = torch.nan
    scene.ask(state=state)
    if scene.kind in (wire.STATISTICS, wire.SKETCH):
        chosen = np.full(NUM_ITEMS, np.nan, np.float32)
        scene.message.content[wire.ITEMS] = ArrayRecord({"chosen": Array(chosen)})


def lose_reply(scene: Scene) -> None:
    scene.ask(1)
    if scene.kind in (wire.STATISTICS, wire.SKETCH):
        # The first round's others were answered before.
        wiring.app(scene.message, scene.context)
        scene.ask(1)
    for path in scene.folder.glob("reply-*"):
        path.write_text(MARKS)


IN_THE_APP = [
    *(kind(MARK) for kind in (KeyError, ValueError, RuntimeError, MemoryError)),
    OSError(errno.EIO, MARK, MARK),
    pl.exceptions.PanicException(MARK),
    *(kind(f"{MARK} is at fault") for kind in errors.TutelaError.__subclasses__()),
]
OWN_TEXT = {"ProtocolError": MISFIT, "BudgetExhausted": REFUSED, "NoConsent": REFUSED}
MARKS = f"{MARK} " * 1000
EDIT = f"UPDATE entries SET body = '{MARK}'"
STRICT = {"allow-non-private": False, "least-noise-multiplier": 50.0}
READ_ONLY = OSError(errno.EROFS, MARK, MARK)

#: By name: the text that a question about rows then gets, and how to bring it about.
FAULTS: dict[str, tuple[str | None, Fault]] = {
    "none": (None, lambda scene: None),
    "asked again": (None, asks(1)),
    "asked again, reply lost": (MISFIT, lose_reply),
    "rows damaged": (FAILED, writes("interactions.parquet", MARKS)),
    "rows cut": (FAILED, cut),
    "rows missing": (FAILED, loses("interactions.parquet")),
    "no item column": (
        FAILED,
        table("interactions", lambda t: t.rename({"item": MARK})),
    ),
    "unknown item": (FAILED, column(item=MARK)),
    "raw user": (FAILED, column(user=MARK)),
    "value is text": (FAILED, column(value=MARK)),
    "other catalogue": (
        FAILED,
        table("catalogue", lambda t: t.rename({"title": MARK})),
    ),
    "catalogue missing": (FAILED, loses("catalogue.parquet")),
    "no folder": (FAILED, lambda scene: scene.move(scene.folder / f"{MARK}-gone")),
    "folder is a file": (FAILED, becomes_a_file),
    "settings damaged": (FAILED, writes("settings.toml", f'seed = "{MARK}')),
    "settings wrong": (FAILED, writes("settings.toml", f'seed = "{MARK}"')),
    "settings unknown": (FAILED, writes("settings.toml", f'{OWN_WORD} = "{MARK}"')),
    "no consent": (REFUSED, settles(runs=[])),
    "too little noise": (REFUSED, settles(**STRICT)),
    "budget spent": (REFUSED, settles(target_epsilon=1e-3, metrics_epsilon=1e-3)),
    "no budget per user": (REFUSED, settles(budget={"interaction": {}})),
    "ledger damaged": (CLOSED, writes("ledger.sqlite", MARKS * 5)),
    "ledger cut": (CLOSED, writes("ledger.sqlite", MARK)),
    "ledger missing": (CLOSED, loses("ledger.sqlite")),
    "ledger edited": (CLOSED, edits("DROP TRIGGER entries_stay", EDIT)),
    "ledger rolled back": (
        CLOSED,
        edits("DROP TRIGGER entries_remain", "DELETE FROM entries WHERE sequence = 2"),
    ),
    "ledger locked": (CLOSED, lock),
    "ledger unreadable": (
        CLOSED,
        raises(sqlite3.OperationalError(MARK), "client.ledger.sqlite3.connect"),
    ),
    "ledger read-only": (CLOSED, raises(READ_ONLY, "client.ledger.FileLock.acquire")),
    "receipt unknown": (CLOSED, asks(acknowledged="c" * 64)),
    "witness missing": (CLOSED, lambda scene: scene.witness.unlink()),
    "witness damaged": (CLOSED, lambda scene: scene.witness.write_text(MARK)),
    "witness read-only": (CLOSED, raises(READ_ONLY, "client.witness.write_durably")),
    "disk full": (
        CLOSED,
        raises(OSError(errno.ENOSPC, MARK), "client.last_reply.write_durably"),
    ),
    "student or items of NaN": (MISFIT, poison),
    "other digest": (MISFIT, asks(digest="0" * 64)),
    "wrong signature": (MISFIT, asks(server="a" * 64, signature="b" * 128)),
    "other run's name": (MISFIT, asks(name="another")),
} | {
    f"{type(error).__name__} in the app": (
        OWN_TEXT.get(type(error).__name__, FAILED),
        raises(error, "client.app.read_client_data", "client.app.save_student"),
    )
    for error in IN_THE_APP
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_planted_leaves_or_is_logged(
    scene, begun, caplog, capfd, mode: str, kind: str, fault: str
) -> None:
    caplog.set_level(logging.DEBUG, "tutela")
    text, damage = FAULTS[fault]
    here = scene(mode, kind)
    damage(here)
    reply = wiring.app(here.message, here.context)
    secrets = PLANTED | begun[mode][1] | places(here.folder)
    assert found(sent(reply), secrets | {"own word": text_forms(OWN_WORD)}) == []
    logged = "".join([caplog.text, *capfd.readouterr()]).encode()
    assert found(logged, PLANTED | begun[mode][1]) == []
    assert reply.has_content() or reply.error.reason in TEXTS
    limitless = mode == "off" and fault == "budget spent"
    if kind != "query.student" and not limitless:
        assert (reply.error.reason if reply.has_error() else None) == text


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["query", "query.rows", "train.more", "evaluate.rows"])
def test_an_unknown_kind_of_message_gets_nothing(scene, mode: str, kind: str) -> None:
    here = scene(mode, kind)
    try:
        reply = wiring.app(here.message, here.context)
    except ValueError as error:
        # Flower finds no function, and sends its own text, before any of ours runs.
        reply = Message(Error(code=0, reason=str(error)), reply_to=here.message)
    assert reply.has_error()
    assert found(sent(reply), PLANTED | places(here.folder)) == []


def test_the_log_names_an_unknown_setting_and_not_its_value(scene, caplog) -> None:
    here = scene("local", "train")
    FAULTS["settings unknown"][1](here)
    wiring.app(here.message, here.context)
    assert OWN_WORD in caplog.text
    assert MARK not in caplog.text
