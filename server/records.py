"""What the server writes while it runs: one JSON line an event, kept students.

Server only. Nothing here comes from a client's data but through released updates.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.folders import METRICS, ROUNDS
from common.structured_logs import fields, in_one_line, logger_of
from common.student import StateDict, StudentSpec, save_student

_log = logger_of("server")

#: Characters of a reason: it may be a client's own text, and people read it.
MOST_REASON = 200


@dataclass
class RoundRecord:
    """The facts of one round.

    Attributes:
        epsilon: spent by a client after this round, at the run's δ.
        validation: NDCG@100 of the released student on public validation users.
        client_metrics: means over the clients' users from noised sums, with the
            deviation of their noise; ``None`` where none were asked for or came.
        teacher_gain: NDCG@100 that the teacher gained on public validation users by
            learning from the released student; ``None`` where it did not.
    """

    round: int
    epsilon: float
    bytes_down_per_client: int = 0
    bytes_up_per_client: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    validation: float | None = None
    client_metrics: dict[str, float] | None = None
    teacher_gain: float | None = None
    survivors: int = 0
    num_clients: int = 0

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to those of this name."""
        begun = time.perf_counter()
        yield
        taken = time.perf_counter() - begun
        self.seconds[name] = self.seconds.get(name, 0.0) + taken


class Recorder:
    """Appends to ``metrics.jsonl``; each line is whole on disk before the next.

    A round, or the clients' statistics of a kind, has one line, though a run that was
    interrupted may come to it again.
    """

    def __init__(self, out: Path, *, resumed: bool = False) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out = out
        self._told: set[tuple[str, int | str]] = set()
        if resumed and (out / METRICS).is_file():
            self._take_up(out / METRICS)
        else:
            (out / METRICS).write_text("")

    def resume(self, number: int, stage: str, note: str) -> None:
        """The run goes on after this stage of this round."""
        facts = {"event": "resume", "round": number, "stage": stage, "note": note}
        self._write(facts)

    def phase(self, number: int, name: str) -> None:
        """A phase of a round begins."""
        self._write({"event": "phase", "round": number, "phase": name})

    def refusal(self, number: int, reason: str) -> None:
        """A client did not contribute to a round.

        Args:
            reason: whoever wrote it, it is kept short, in one line, and unable to
                steer the terminal that shows it.
        """
        plain = in_one_line(reason)[:MOST_REASON]
        self._write({"event": "refusal", "round": number, "reason": plain})

    def round(self, record: RoundRecord) -> None:
        """A round ended."""
        if not self._is_new("round", record.round):
            return
        facts = asdict(record)
        if record.epsilon == float("inf"):
            facts["epsilon"] = None
        self._write({"event": "round", **facts})

    def secure_sum(self, number: int, facts: Mapping[str, Any]) -> None:
        """A round's secure sum was unmasked.

        Args:
            facts: see ``secure_rounds.SumRecord``.
        """
        if self._is_new("sum", number):
            self._write({"event": "sum", "round": number, **facts})

    def discarded(self, number: int, facts: Mapping[str, Any]) -> None:
        """A round's sum was not unmasked: the student stays as it was.

        Args:
            facts: see ``secure_rounds.SumRecord``, with the reason.
        """
        if self._is_new("discarded", number):
            self._write({"event": "discarded", "round": number, **facts})

    def statistics(self, question: str, facts: Mapping[str, Any]) -> None:
        """The clients gave their statistics.

        Args:
            question: ``pairs`` or ``sketch``.
            facts: ``survivors``, ``num_clients``, ``bytes_down_per_client`` and
                ``bytes_up_per_client`` of this exchange.
        """
        if self._is_new("statistics", question):
            self._write({"event": "statistics", **facts, "question": question})

    def delivery(self, num_taken: int, num_clients: int) -> None:
        """The final student was sent to the clients."""
        facts = {"survivors": num_taken, "num_clients": num_clients}
        self._write({"event": "delivery", **facts})

    def keep(self, number: int, spec: StudentSpec, state: StateDict) -> None:
        """Keep the student of a round."""
        folder = self.out / ROUNDS
        folder.mkdir(exist_ok=True)
        save_student(folder / f"{number:05d}.safetensors", spec, state)

    def _is_new(self, event: str, which: int | str) -> bool:
        new = (event, which) not in self._told
        self._told.add((event, which))
        return new

    def _take_up(self, path: Path) -> None:
        """Read what was told; a line that a crash cut off goes."""
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        os.truncate(path, len(whole))
        for line in map(json.loads, whole.splitlines()):
            if line["event"] in ("round", "statistics", "sum", "discarded"):
                which = line.get("question", line.get("round"))
                self._told.add((line["event"], which))

    def _write(self, line: dict[str, Any]) -> None:
        stamped = {"time": round(time.time(), 3), **line}
        with (self.out / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(stamped) + "\n")
        facts = {k: v for k, v in line.items() if not isinstance(v, dict | list)}
        _log.info(facts.pop("event"), extra=fields(**facts))
