"""The model of the moment, replaced by a newer one between two calls.

Client only. The Flower app delivers a student by renaming it into place; a look at
the files' marks twice a second finds it. The new one is loaded beside the old one,
which answers until the new one is whole, and goes on answering where it is not.
"""

from __future__ import annotations

import logging
import threading
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
        self._load, self._reload_rows = load, reload_rows
        self._seen = seen
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
        """Take what is new, once; what cannot be taken is logged and left."""
        before, self._seen = self._seen, marks_of(self._folder)
        if self._seen.rows != before.rows:
            self._try(self._reload_rows, "rows taken anew", "the old rows")
        if self._seen.model != before.model:
            self._try(self._swap, "model swapped", "the old model")

    def _run(self) -> None:
        while not self._ended.wait(self._pause):
            self.look()

    def _swap(self) -> None:
        self._current.model = self._load()

    def _try(self, work: Callable[[], None], done: str, kept: str) -> None:
        try:
            work()
        except (TutelaError, OSError) as error:
            log.error("%s stays: %s", kept, error)
        except Exception as error:  # a file can be broken in ways nobody thought of
            log.error("%s stays: %s", kept, type(error).__name__)
        else:
            log.info("%s: %s", done, self._current.model.version[:12])


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
