"""An append-only file of records: each on disk before it counts, each in its place.

Client only. A record is its length (4 bytes), a checksum of that length, and the
sealed bytes (``vault.Sealer``), which are bound to the log and to the record's index:
none can be left out in the middle, moved or put in from another log. What a crash left
half written at the end never counted and is dropped; anything else is an error. That
whole records are missing at the end cannot be told from a shorter log.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from client.vault import LOG_HEAD, Key, Sealer, new_log_head, sealer
from common.durable_files import write_durably
from common.errors import ConfigError, DataFormatError

#: A record's length and its checksum; and what a record may hold at most.
_PREFIX, MOST_BYTES = 8, 1 << 24


class NoRoom(ConfigError):
    """A bound on what is stored leaves no room for more."""


@dataclass(frozen=True)
class LogContent:
    """A log as it was read.

    Attributes:
        records: what was appended, in order.
        length: bytes of the file that hold them; a torn record may follow.
    """

    records: tuple[bytes, ...]
    length: int


def read_log(path: Path, label: str, key: Key | None) -> LogContent:
    """All whole records of a log.

    Raises:
        ConfigError: if a key is needed and none given, or the other way round.
        DataFormatError: if it is no log, or a record is not as it was written.
    """
    content = path.read_bytes()
    try:
        seal = sealer(content[:LOG_HEAD], label, key)
        whole = list(_records(content, seal))
    except (ConfigError, DataFormatError) as error:
        raise type(error)(f"{path.name}: {error}") from None
    end = whole[-1][1] if whole else LOG_HEAD
    return LogContent(tuple(record for record, _ in whole), end)


def _records(content: bytes, seal: Sealer) -> Iterator[tuple[bytes, int]]:
    """Each whole record, and where it ends."""
    start, index = LOG_HEAD, 0
    while len(content) >= start + _PREFIX:
        length = int.from_bytes(content[start : start + 4], "big")
        if content[start + 4 : start + _PREFIX] != _checksum(length, index):
            raise DataFormatError(
                f"Expected record {index} as it was written, got a damaged length."
            )
        start += _PREFIX
        if len(content) < start + length:
            return
        yield seal.unseal(content[start : start + length], index), start + length
        start, index = start + length, index + 1


def _checksum(length: int, index: int) -> bytes:
    """A damaged length would pass for a torn end, and hide what follows."""
    fields = length.to_bytes(4, "big") + index.to_bytes(8, "big")
    return zlib.crc32(fields).to_bytes(4, "big")


def rewrite_log(
    path: Path, label: str, records: Iterable[bytes], key: Key | None
) -> None:
    """Replace a log by one with these records, under this key, while nobody appends.

    Raises:
        ConfigError: if another process has it open.
    """
    lock = _lock(path)
    try:
        head = new_log_head(key)
        seal = sealer(head, label, key)
        parts = (_record(seal, each, index) for index, each in enumerate(records))
        write_durably(path, head + b"".join(parts))
    finally:
        lock.release()


def _record(seal: Sealer, content: bytes, index: int) -> bytes:
    sealed = seal.seal(content, index)
    if len(sealed) > MOST_BYTES:
        raise DataFormatError(
            f"Expected a record of at most {MOST_BYTES} bytes, got {len(sealed)}."
        )
    return len(sealed).to_bytes(4, "big") + _checksum(len(sealed), index) + sealed


def _lock(path: Path) -> FileLock:
    """The right to append, for one process."""
    lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"{path.name}: another process appends to it; end that one first."
        ) from None
    return lock


class SealedLog:
    """A log open for appending, by one process alone; one thread at a time.

    Attributes:
        records: what it held when it was opened.
    """

    def __init__(
        self, path: Path, label: str, key: Key | None, most_bytes: int | None = None
    ) -> None:
        """Open or begin a log.

        Args:
            most_bytes: beyond which the file may not grow.

        Raises:
            ConfigError: if another process has it open.
            ConfigError, DataFormatError: as :func:`read_log`.
        """
        self._name, self._most_bytes = path.name, most_bytes
        self._lock = _lock(path)
        try:
            if not path.exists():
                write_durably(path, new_log_head(key))
            found = read_log(path, label, key)
            self._file = path.open("r+b", buffering=0)
            self._seal = sealer(self._file.read(LOG_HEAD), label, key)
            self.records, self._count = found.records, len(found.records)
            self._length = found.length
            self._rewind()
        except BaseException:
            self._lock.release()
            raise

    def append(self, content: bytes) -> None:
        """Add a record; when this returns, it is on disk. A failure leaves none.

        Raises:
            DataFormatError: if it is longer than ``MOST_BYTES``.
            NoRoom: if the file would grow beyond its bound.
            OSError: if the disk does not take it.
        """
        record = _record(self._seal, content, self._count)
        self._check_room(len(record))
        if os.fstat(self._file.fileno()).st_size != self._length:
            self._rewind()
        try:
            _write_whole(self._file.fileno(), record, self._length)
            os.fsync(self._file.fileno())
        except OSError:
            self._rewind()
            raise
        self._count, self._length = self._count + 1, self._length + len(record)

    def close(self) -> None:
        """Let others append."""
        self._file.close()
        self._lock.release()

    def _check_room(self, more: int) -> None:
        most = self._most_bytes
        if most is not None and self._length + more > most:
            raise NoRoom(
                f"{self._name}: expected at most {most} bytes, got {self._length} and "
                f"{more} to add."
            )

    def _rewind(self) -> None:
        """Drop what stands behind the last record."""
        self._file.truncate(self._length)
        os.fsync(self._file.fileno())


def _write_whole(file: int, content: bytes, start: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(file, view, start)
        view, start = view[written:], start + written
