"""The fault suite's script: a client is killed again and again, and must stay honest.

    python -m tests.client.killed_client --trials 50 --timing points --seed 1

Each trial forks a client that answers one message through the real app, and kills it
with SIGKILL: at a named point, or at a random time. In between the ledger is
verified as an auditor would. Stops with an AssertionError at the first of: a release
whose charge is not in the ledger, an entry lost, a chain or a witness that does not
fit, a message trained twice, another answer to the same message.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from flwr.common.serde import message_to_proto

import client.app
import client.budget
import client.dp
import client.ledger
import client.release
import client.train
from client.chain import LedgerEntry
from client.ledger import Ledger, inspect_ledger
from client.settings import read_settings, witness_place
from common import durable_files
from tests.client.conftest import context_of, message_of, rows, write_folder

#: A ledger grows by a charge a trial; a fresh one keeps the script linear.
PER_LEDGER = 250


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def before(owner: object, name: str) -> Callable[[], object]:
    """A patch that kills where ``name`` would be called."""
    return lambda: patch.object(owner, name, lambda *args, **kwargs: kill())


def after(owner: object, name: str) -> Callable[[], object]:
    """A patch that kills where ``name`` returns."""
    original = getattr(owner, name)

    def dies(*args, **kwargs):
        original(*args, **kwargs)
        kill()

    return lambda: patch.object(owner, name, dies)


#: Where a client may die, in the order of a message's way through it.
POINTS: dict[str, Callable[[], object]] = {
    "before the ledger is open": before(client.release, "open_ledger"),
    "before the charge": before(Ledger, "append"),
    "charged, not witnessed": before(client.ledger, "write_witness"),
    "witness half written": before(durable_files, "sync_folder"),
    "after the charge": after(Ledger, "append"),
    "rows read": after(client.app, "read_client_data"),
    "during training": before(client.dp.NoisyOptimizer, "privatise"),
    "trained": after(client.train, "train"),
    "before the reply is kept": before(client.release, "keep_reply"),
    "before the reply": after(client.release, "keep_reply"),
    "after the reply": lambda: patch.object(sys.modules[__name__], "replied", kill),
}


def replied() -> None:
    """Called once the reply is out; a point to die at."""


class Server:
    """What the outside knows: messages sent, replies that came, receipts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.context = folder, context_of(folder)
        self.trained = folder.parent / "trained.txt"
        self.trained.touch()
        self.number, self.receipt = 0, ""
        self.released: dict[int, bytes] = {}
        self.hashes: list[str] = []

    def ask(self, number: int, point: str | None, delay: float | None) -> bytes | None:
        """Send a message to a fresh client; the reply's content, if one came."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            signal.alarm(120)
            self._be_a_client(number, write, point)
        os.close(write)
        if delay is not None:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        with os.fdopen(read, "rb") as pipe:
            content = pipe.read()
        os.waitpid(child, 0)
        size = int.from_bytes(content[:8], "big")
        return content[8:] if content and len(content) == size + 8 else None

    def _be_a_client(self, number: int, write: int, point: str | None) -> None:
        try:
            with (
                noting(self.trained, number),
                POINTS.get(point or "", noting_nothing)(),
            ):
                message = message_of(number, acknowledged=self.receipt)
                reply = client.app.app(message, self.context)
                proto = message_to_proto(reply)
                content = (
                    proto.content.SerializeToString() if reply.has_content() else b""
                )
                out = len(content).to_bytes(8, "big") + content
                while out:
                    out = out[os.write(write, out) :]
                replied()
        finally:
            os._exit(0)

    def audit(self) -> list[LedgerEntry]:
        """Verify as an auditor would, and check what must hold at any time."""
        place = witness_place(self.folder, read_settings(self.folder))
        if not (self.folder / "ledger.sqlite").exists():
            assert not self.released, "a release, and no ledger"
            return []
        try:
            _, entries = inspect_ledger(self.folder, place)
        except Exception:
            # Killed while it began the ledger: the next opening begins again.
            assert not self.hashes, "the ledger was sound and is not any more"
            assert not self.released, "a release from a ledger that is not sound"
            return []
        hashes = [entry.hash for entry in entries]
        assert hashes[: len(self.hashes)] == self.hashes, "an entry was lost"
        assert len(hashes) <= len(self.hashes) + 1, "more than one charge a message"
        charged = [entry.charge.number for entry in entries if entry.charge]
        assert len(set(charged)) == len(charged), "a message was charged twice"
        trained = [int(line) for line in self.trained.read_text().split()]
        assert len(set(trained)) == len(trained), "a message was trained twice"
        assert set(trained) <= set(charged), "training before the charge"
        assert set(self.released) <= set(charged), "a release that was not charged"
        self.hashes = hashes
        return entries

    def accept(self, number: int, content: bytes | None) -> bool:
        """Take a reply in; whether it was a release."""
        if not content:
            return False
        known = self.released.setdefault(number, content)
        assert known == content, "two answers to one message"
        entry = next(e for e in self.audit() if e.charge and e.charge.number == number)
        self.receipt = entry.hash
        return True


@contextmanager
def noting_nothing() -> Iterator[None]:
    yield


@contextmanager
def noting(path: Path, number: int) -> Iterator[None]:
    """Write down each training before it looks at a row."""
    original = client.app.read_client_data

    def notes(folder: Path):
        with path.open("a") as file:
            file.write(f"{number}\n")
        return original(folder)

    with patch.object(client.app, "read_client_data", notes):
        yield


def run(trials: int, timing: str, seed: int, home: Path) -> dict[str, object]:
    """The trials; raises at the first broken promise."""
    rng, names = random.Random(seed), list(POINTS)
    counts: Counter[str] = Counter()
    server, longest = None, 0.0
    for trial in range(trials):
        if trial % PER_LEDGER == 0:
            server = Server(begun(home / f"{trial:06d}" / "0000"))
            start = time.perf_counter()
            server.number = 1
            assert server.accept(1, server.ask(1, None, None)), "an undisturbed reply"
            longest = time.perf_counter() - start
        server.number += 1
        number = server.number
        point = names[trial % len(names)] if timing == "points" else None
        delay = None if point else rng.uniform(0, 1.2 * longest)
        counts[point or "random"] += 1
        came = server.accept(number, server.ask(number, point, delay))
        server.audit()
        again = server.accept(number, server.ask(number, None, None))
        entries = server.audit()
        counts["released at first"] += came
        counts["answered again"] += again
        counts["refused again"] += not again
        assert again or not came, "a reply that came once is given again"
        assert any(e.charge and e.charge.number == number for e in entries), "charged"
    return {"trials": trials, "seed": seed, **counts}


def begun(folder: Path) -> Path:
    """A client's folder, written by a child: polars' threads do not survive a fork."""
    child = os.fork()
    if child == 0:
        write_folder(folder, rows(8))
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return folder


def plant(fault: str) -> contextmanager:
    """A client that breaks its promise, to show that the script would see it."""
    original = Ledger.append

    def forgets(self, charge):
        """A charge in memory alone, as if the disk were not asked."""
        self._connection.execute("BEGIN")
        entry = original(self, charge)
        self._connection.execute("ROLLBACK")
        return entry

    def retrains(self, key):
        self._connection.execute("PRAGMA ignore_check_constraints = 1")
        return

    faults = {
        "": noting_nothing,
        "forgets": lambda: patch.object(Ledger, "append", forgets),
        "retrains": lambda: patch.object(Ledger, "find", lambda *args: None),
    }
    return faults[fault]()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, required=True)
    parser.add_argument("--timing", choices=["points", "random"], required=True)
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**6)
    )
    parser.add_argument("--plant", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp()
    # Durability is at stake here, not ε: counting it would be most of the time.
    counted = patch.object(client.budget, "exceeds", lambda *args: False)
    plan = patch.dict("tests.client.conftest.FLAT", {"training.rounds": 10_000})
    with tempfile.TemporaryDirectory() as home, counted, plan, plant(options.plant):
        print(json.dumps(run(options.trials, options.timing, options.seed, Path(home))))


if __name__ == "__main__":
    main()
