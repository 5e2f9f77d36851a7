"""The model of the moment, replaced by a newer one between two calls.

Client only. The Flower app delivers a student by renaming it into place; a look at
the files' marks twice a second finds it. The new one is loaded beside the old one,
which answers until the new one is whole, and goes on answering where it is not.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from client.serving.model import Model
from client.store_key import PERSONAL
from common.errors import TutelaError
from common.folders import CATALOGUE, INTERACTIONS, STUDENT

log = logging.getLogger("tutela.serving")

#: Seconds between two looks.
PAUSE = 0.5
#: Seconds until what failed is tried again, its file the same: the disk may have been
#: full, or the key locked.
RETRY = 30.0
#: Seconds that ending waits for a look under way.
PATIENCE = 5.0
Mark = tuple[int, int, int] | None


@dataclass(frozen=True)
class Marks:
    """What tells files from newer ones of the same names."""

    rows: tuple[Mark, ...]
    model: tuple[Mark, ...]


@dataclass
class Current:
    """What new calls are answered from; one reference, replaced at once."""

    model: Model


@dataclass
class Task:
    """What is done about newer files.

    Attributes:
        failure: what the last try failed at, empty where it did not.
        since: when that was.
    """

    work: Callable[[], None]
    done: str
    kept: str
    failure: str = ""
    since: float = 0.0


class Watch:
    """Looks after newer files, in a thread of its own."""

    def __init__(
        self,
        folder: Path,
        seen: Marks,
        current: Current,
        load: Callable[[], Model],
        reload_rows: Callable[[], None],
        pause: float = PAUSE,
    ) -> None:
        """Watch a folder's files.

        Args:
            seen: of :func:`marks_of`, before ``current`` was loaded.
            load: the folder's model as it is now.
            reload_rows: of the histories.
        """
        self._folder, self._current, self._pause = folder, current, pause
        self._load, self._seen, self._clock = load, seen, time.monotonic
        self._rows = Task(reload_rows, "rows taken anew", "the old rows")
        self._model = Task(self._swap, "model swapped", "the old model")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End; a model that is being loaded is not waited for longer than so."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(PATIENCE)

    def look(self) -> None:
        """Take what is new; what cannot be taken is logged, and tried after a pause."""
        before, self._seen = self._seen, marks_of(self._folder)
        for task, is_new in (
            (self._rows, self._seen.rows != before.rows),
            (self._model, self._seen.model != before.model),
        ):
            if is_new or (task.failure and self._clock() - task.since >= RETRY):
                self._try(task, is_new)

    def _run(self) -> None:
        while not self._ended.wait(self._pause):
            self.look()

    def _swap(self) -> None:
        self._current.model = self._load()

    def _try(self, task: Task, is_new: bool) -> None:
        before, task.since = task.failure, self._clock()
        try:
            task.work()
        except Exception as error:  # a file can be broken in ways nobody thought of
            task.failure = _told(error)
            if is_new or task.failure != before:
                log.error("%s stays: %s", task.kept, task.failure)
        else:
            task.failure = ""
            log.info("%s: %s", task.done, self._current.model.version[:12])


def _told(error: Exception) -> str:
    """An error for the log, which holds no path: its text only where it is ours."""
    text = str(error)
    if isinstance(error, TutelaError) and os.sep not in text:
        return text
    return type(error).__name__


def marks_of(folder: Path) -> Marks:
    """A folder's files as they are now."""
    return Marks(
        rows=tuple(_mark(folder / name) for name in (INTERACTIONS, CATALOGUE)),
        model=tuple(_mark(folder / name) for name in (STUDENT, PERSONAL)),
    )


def _mark(path: Path) -> Mark:
    """What differs between two files of one name, as far as the disk tells."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
