"""What was said in a run: the messages that the server sent, and each client's answers.

Simulations only: it stands beside the client app, where the wire would be. Messages go
to disk as they pass, since those of a long run do not fit into memory; in the format of
``server/kept_answers.py``, so that what a deployment kept is read alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common import Array
from safetensors.numpy import load_file, save_file

from common import wire
from common.soft_labels import SoftLabels
from common.student import StateDict
from server.kept_answers import SENT, arrays_of, file_name

Arrays = dict[str, npt.NDArray[Any]]


class Recording(ClientApp):
    """A client app whose messages are kept; it answers as the app itself does.

    Attributes:
        failures: answers that were errors.
    """

    def __init__(self, app: ClientApp, folder: Path) -> None:
        super().__init__()
        self._app, self._folder = app, folder
        self.failures = 0
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, message: Message, context: Context) -> Message:
        """Let the app answer, and keep both.

        Of a secure sum nothing: masked vectors are like chance. What they add up to is
        the server's to keep.
        """
        kind = message.metadata.message_type
        if kind in wire.SECURE:
            masked = self._app(message, context)
            self.failures += masked.has_error()
            return masked
        number = wire.unpack_header(message.content).number
        sent = self._path(number, kind, SENT)
        if not sent.exists():
            _write(sent, message.content)
        reply = self._app(message, context)
        if reply.has_error():
            self.failures += 1
        else:
            client = Path(str(context.node_config["folder"])).name
            _write(self._path(number, kind, client), reply.content)
        return reply

    def _path(self, number: int, kind: str, who: str) -> Path:
        return self._folder / file_name(number, kind, who)


@dataclass(frozen=True)
class Exchange:
    """One question to all clients, and their answers.

    Attributes:
        kind: message type, of ``common/wire.py``.
        number: the round.
        sent: arrays of the question, as ``record/name``.
        answers: by client's name, likewise.
    """

    kind: str
    number: int
    sent: Arrays
    answers: dict[str, Arrays]

    @property
    def student(self) -> StateDict:
        """The student that was sent."""
        return dict(wire.unpack_arrays(_record(self.sent, wire.STUDENT)))

    @property
    def soft_labels(self) -> SoftLabels | None:
        """The soft labels that were sent with it, if any."""
        record = _record(self.sent, wire.SOFT_LABELS)
        content = RecordDict({wire.SOFT_LABELS: record} if record else {})
        return wire.unpack_soft_labels(content)

    def update(self, client: str) -> StateDict:
        """The update that a client answered with."""
        return dict(wire.unpack_arrays(_record(self.answers[client], wire.UPDATE)))


def exchanges(folder: Path) -> Iterator[Exchange]:
    """All that was said, in order; one exchange in memory at a time."""
    for sent in sorted(folder.glob(f"* {SENT}.safetensors")):
        number, _, kind, _ = sent.stem.split(" ")
        prefix = sent.name.removesuffix(f"{SENT}.safetensors")
        answers = {
            path.stem.rpartition(" ")[2]: load_file(path)
            for path in sorted(folder.glob(f"{prefix}*.safetensors"))
            if path != sent
        }
        yield Exchange(kind, int(number), load_file(sent), answers)


def students(folder: Path) -> list[StateDict]:
    """The students that every client was sent, the final one last."""
    wanted = (wire.TRAIN, wire.DELIVER)
    return [each.student for each in exchanges(folder) if each.kind in wanted]


def _write(path: Path, content: RecordDict) -> None:
    save_file(arrays_of(content, content.array_records), path)


def _record(arrays: Arrays, name: str) -> ArrayRecord:
    prefix = f"{name}/"
    return ArrayRecord(
        {
            key.removeprefix(prefix): Array(values)
            for key, values in arrays.items()
            if key.startswith(prefix)
        }
    )
