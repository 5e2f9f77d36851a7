"""What the clients answered when asked for their statistics, kept until it is used.

Server only. The second question depends on the answers to the first: a server killed
in between must come to the same second question, even if a client that answered the
first is gone. Sums over clients, which each noised; the files go once a teacher was
made of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from common.durable_files import write_durably
from common.folders import CHECKPOINT
from server.checkpoint_file import decode, encode
from server.refinement import Summed


class Answers:
    """The kept answers of a run's folder, by kind of question."""

    def __init__(self, out: Path) -> None:
        self._folder = out / CHECKPOINT

    def kept(self, kind: str, question: str) -> tuple[Summed, dict[str, Any]] | None:
        """The answer to this very question with its facts, if it is kept whole.

        Args:
            kind: the question's message type.
            question: digest of its content.

        Raises:
            DataFormatError: if it is of another format.
        """
        found = decode(self._path(kind))
        if found is None or found[0]["question"] != question:
            return None
        facts, groups = found
        # In NumPy's memory, as sums are: the last bits of a product depend on it.
        arrays = tuple(each.numpy().copy() for each in groups["arrays"].values())
        return Summed(arrays, facts["num_clients"]), facts["exchange"]

    def keep(
        self, kind: str, question: str, answer: Summed, exchange: dict[str, Any]
    ) -> None:
        """Keep an answer; durable when this returns."""
        arrays = {
            f"{place:02d}": torch.from_numpy(values)
            for place, values in enumerate(answer.arrays)
        }
        facts = {
            "question": question,
            "num_clients": answer.num_clients,
            "exchange": exchange,
            "names": {"arrays": list(arrays)},
        }
        write_durably(self._path(kind), encode(facts, {"arrays": arrays}))

    def forget(self) -> None:
        """Remove them all."""
        for path in self._folder.glob("answer-*"):
            path.unlink()

    def _path(self, kind: str) -> Path:
        return self._folder / f"answer-{kind}.safetensors"
