"""What was asked and answered, kept for an audit where the run's settings say so.

Server only: it writes down what passes it anyway, and nothing that it would not see
without. In mode ``local`` each answer was clipped and noised by its client before it
left; in mode ``off`` it is as bare as it came; in mode ``distributed`` there is a
decoded sum alone, and whose it is. One file a question and one an answer,
under names that a repeated question writes again: a resumed run keeps nothing twice.
Only arrays that were checked are kept, so that no client decides how much disk it
takes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import RecordDict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from common import wire
from common.config import RunConfig
from common.durable_files import write_durably
from common.errors import DataFormatError
from common.statistics import pair_shapes, sketch_shapes
from common.student import StateDict, StudentSpec, shapes

Arrays = dict[str, npt.NDArray[Any]]

#: In a run's folder.
ANSWERS = "answers"
#: In place of a node's id in the name of a question's file.
SENT = "sent"
#: In its place too: a secure sum; and in that file, whose vectors are in it.
SUM, SURVIVORS = "sum", "sum/survivors"
#: Digits of a round's number in a name, so that names sort as rounds do.
_DIGITS = 6
#: The order in which a round asks.
_ORDER = (wire.STATISTICS, wire.SKETCH, wire.TRAIN, wire.EVALUATE, wire.DELIVER)
#: The record that a client answers with; nothing else of a reply is kept.
_ANSWERED = {
    wire.STATISTICS: wire.PAIRS,
    wire.SKETCH: wire.SKETCH_SUM,
    wire.TRAIN: wire.UPDATE,
    wire.EVALUATE: wire.METRICS,
}

_log = logging.getLogger("tutela.server")


class KeptAnswers:
    """The messages of a run's folder; its state is whether there is room for more.

    A disk that is full ends the keeping and not the run, whose rounds are paid for.
    """

    def __init__(self, out: Path) -> None:
        self._folder, self._open = out / ANSWERS, True

    def asked(self, kind: str, number: int, content: RecordDict) -> None:
        """Keep what was sent to every client, once, if it asks for a release."""
        if kind not in _ORDER:
            return
        arrays = arrays_of(content, content.array_records)
        self._write(file_name(number, kind, SENT), save(arrays))

    def answered(self, kind: str, number: int, node: int, content: RecordDict) -> None:
        """Keep an answer whose arrays were checked, if it is a client's own release.

        Args:
            node: the id of the node that was asked.
            content: of its reply; the receipt in it goes into the file's metadata.
        """
        record = _ANSWERED.get(kind)
        if record is None or record not in content.array_records:
            return
        receipt = wire.unpack_reply_header(content).receipt
        arrays = arrays_of(content, (record,))
        file = save(arrays, metadata={"receipt": receipt})
        self._write(file_name(number, kind, str(node)), file)

    def summed(
        self,
        number: int,
        student: StateDict,
        mean: StateDict,
        survivors: Sequence[int],
    ) -> None:
        """Keep a secure sum, as if one client had answered with the mean.

        Args:
            student: that the round started from.
            mean: the decoded sum over the expected size of the sample.
            survivors: ids of the nodes whose vectors are in it.
        """
        asked = RecordDict({wire.STUDENT: wire.pack_state(student)})
        self.asked(wire.TRAIN, number, asked)
        content = RecordDict({wire.UPDATE: wire.pack_state(mean)})
        arrays = arrays_of(content, (wire.UPDATE,))
        arrays[SURVIVORS] = np.array(sorted(survivors), dtype=np.uint64)
        self._write(file_name(number, wire.TRAIN, SUM), save(arrays))

    def _write(self, name: str, content: bytes) -> None:
        if not self._open:
            return
        try:
            write_durably(self._folder / name, content)
        except OSError as error:
            self._open = False
            _log.warning(
                "run.keep-answers: nothing more is kept, since %s could not be "
                "written (%s); the run goes on.",
                name,
                error.strerror,
            )


def file_name(number: int, kind: str, who: str) -> str:
    """The name of a message's file.

    Args:
        number: the round.
        kind: message type, of ``common/wire.py``.
        who: ``SENT`` or whose answer it is; no blanks.

    >>> file_name(3, "train", "sent")
    '000003 2 train sent.safetensors'
    """
    return f"{number:0{_DIGITS}d} {_ORDER.index(kind)} {kind} {who}.safetensors"


def arrays_of(content: RecordDict, records: Iterable[str]) -> Arrays:
    """The arrays of some records, as ``record/name``."""
    return {
        f"{record}/{name}": array.numpy().copy()
        for record in records
        for name, array in content.array_records[record].items()
    }


def read_receipts(folder: Path) -> dict[str, frozenset[str]]:
    """The receipts that came with the kept answers, by node.

    A receipt is the hash of the entry in the client's ledger that paid for the answer:
    who holds that ledger finds its own answers by them.

    Raises:
        DataFormatError: if a file is damaged.
    """
    found: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        node = path.stem.rpartition(" ")[2]
        if node in (SENT, SUM):
            continue
        try:
            with safe_open(path, "numpy") as file:
                receipt = (file.metadata() or {}).get("receipt", wire.NO_RECEIPT)
        except SafetensorError:
            raise DataFormatError(
                f"{path.name}: expected a kept answer, got a damaged file; remove it."
            ) from None
        found.setdefault(node, set()).add(receipt)
    return {node: frozenset(each) for node, each in found.items()}


def most_bytes(config: RunConfig, spec: StudentSpec) -> int:
    """How much disk the answers of one client to a whole run take at most.

    What is sent is kept once, takes about as much as one client, and the soft labels.
    """
    settings, every = config.statistics, config.client_metrics.every
    rounds = config.training.rounds
    numbers = rounds * _numbers(shapes(spec))
    if every:
        numbers += rounds // every * _numbers(wire.METRIC_SHAPES)
    if settings.share:
        chosen = min(spec.num_items, settings.most_items)
        numbers += _numbers(pair_shapes(chosen))
        numbers += _numbers(sketch_shapes(chosen, settings.directions))
    return 4 * numbers


def _numbers(sizes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in sizes.values())
