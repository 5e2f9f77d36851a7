"""Text files as tables of strings that remember the line each row came from.

In ``common`` because every reader of interactions, items and users stands on it.
Line numbers count from 1 as an editor counts them, also inside quoted fields that
span lines, so that an error can send its reader to the place.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from common.errors import DataFormatError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def format_error(
    path: Path, expected: str, *, row: int | None = None, column: str = "", unit: str
) -> DataFormatError:
    """The one shape of a message about damaged data; it holds no data value.

    Args:
        path: the file.
        expected: what was expected, as a clause with an end.
        row: number from 1 of the line or row.
        column: the column's label.
        unit: what ``row`` counts: ``line`` in text, ``row`` in Parquet.
    """
    place = f"{path}" if row is None else f"{path}, {unit} {row}"
    place += f", column {column}" if column else ""
    return DataFormatError(f"{place}: expected {expected}")


@dataclass(frozen=True)
class TextFile:
    """A text file's lines.

    Attributes:
        path: where it lies.
        lines: strings ``[num_lines]`` without their line ends.
        encoding: ``utf-8`` or ``latin-1``.
        notes: what was found and undone: a byte order mark, CRLF line ends.
    """

    path: Path
    lines: pl.Series
    encoding: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FieldTable:
    """Rows of a text file, split.

    Attributes:
        frame: ``line`` (int64, from 1), ``num_fields`` (int64) and one string
            column ``0 … width-1`` a field, null where a row is short.
        width: number of fields of the first row.
        num_blank: blank lines that were passed over.
    """

    frame: pl.DataFrame
    width: int
    num_blank: int

    def header(self) -> list[str]:
        """Fields of the first row, without blanks around them."""
        names = self.frame.row(0)[2:]
        return [(name or "").strip() for name in names]

    def body(self) -> FieldTable:
        """Without the first row."""
        return FieldTable(self.frame.slice(1), self.width, self.num_blank)


def read_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
        DataFormatError: if it is missing, a folder, unreadable or empty.
    """
    try:
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        kind = "a folder" if path.is_dir() else "no readable file"
        message = f"{path}: expected a data file, found {kind}."
        raise DataFormatError(message) from error
    if not raw or raw.isspace():
        raise DataFormatError(f"{path}: expected data, found an empty file.")
    return raw


def read_text(path: Path) -> TextFile:
    """Decode and split a text file: UTF-8 where it is that, else Latin-1.

    Raises:
        DataFormatError: as ``read_bytes``; or if the file is UTF-16 or binary.
    """
    raw = read_bytes(path)
    _refuse_binary(path, raw)
    notes = []
    if raw.startswith(codecs.BOM_UTF8):
        raw = raw.removeprefix(codecs.BOM_UTF8)
        notes.append("byte order mark stripped")
    try:
        text, encoding = raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        text, encoding = raw.decode("latin-1"), "latin-1"
        notes.append("not UTF-8: read as Latin-1")
    if "\r\n" in text:
        text = text.replace("\r\n", "\n")
        notes.append("CRLF line ends")
    if "\r" in text and "\n" not in text:
        text = text.replace("\r", "\n")
        notes.append("CR line ends")
    lines = pl.Series("text", text.removesuffix("\n").split("\n"), dtype=pl.String)
    return TextFile(path, lines, encoding, tuple(notes))


def _refuse_binary(path: Path, raw: bytes) -> None:
    if raw.startswith(_UTF_16):
        message = f"{path}: expected UTF-8 or Latin-1, found UTF-16; save it as UTF-8."
        raise DataFormatError(message)
    zero = raw.find(b"\0")
    if zero >= 0:
        line = raw.count(b"\n", 0, zero) + 1
        column = str(zero - raw.rfind(b"\n", 0, zero))
        expected = "text, found a zero byte; the file is binary or damaged."
        raise format_error(path, expected, row=line, column=column, unit="line")


def split_fields(text: TextFile, separator: str, *, quoted: bool) -> FieldTable:
    """Split lines into fields; wrong counts are recorded, not judged.

    Args:
        text: the file.
        separator: one or more characters.
        quoted: whether ``"`` quotes fields, as in CSV.

    Raises:
        DataFormatError: if no line holds anything, or quoting is broken.
    """
    rows = text.lines.to_frame().with_row_index("line", offset=1)
    rows = rows.with_columns(pl.col("line").cast(pl.Int64))
    if quoted and text.lines.str.contains('"', literal=True).any():
        return _split_quoted(text, separator)
    filled = rows.filter(pl.col("text").str.strip_chars(" ") != "")
    if not filled.height:
        raise DataFormatError(f"{text.path}: expected data, found blank lines only.")
    count = pl.col("text").str.count_matches(separator, literal=True) + 1
    filled = filled.with_columns(num_fields=count.cast(pl.Int64))
    width = int(filled["num_fields"][0])
    names = [str(i) for i in range(width)]
    parts = pl.col("text").str.split_exact(separator, width - 1)
    fields = filled.select("line", "num_fields", parts.struct.rename_fields(names))
    return FieldTable(fields.unnest("text"), width, rows.height - filled.height)


def _split_quoted(text: TextFile, separator: str) -> FieldTable:
    """By Python's CSV parser, which alone knows where a quoted record began."""
    records = list(_quoted_records(text, separator))
    filled = [(line, fields) for line, fields in records if fields]
    if not filled:
        raise DataFormatError(f"{text.path}: expected data, found blank lines only.")
    width = len(filled[0][1])
    columns: dict[str, pl.Series] = {
        "line": pl.Series([line for line, _ in filled], dtype=pl.Int64),
        "num_fields": pl.Series([len(row) for _, row in filled], dtype=pl.Int64),
    }
    for i in range(width):
        values = [row[i] if i < len(row) else None for _, row in filled]
        columns[str(i)] = pl.Series(values, dtype=pl.String)
    return FieldTable(pl.DataFrame(columns), width, len(records) - len(filled))


def _quoted_records(text: TextFile, separator: str) -> Iterator[tuple[int, list[str]]]:
    ended = (f"{line}\n" for line in text.lines)
    reader = csv.reader(ended, delimiter=separator, strict=True)
    line = 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            expected = "every quote to be closed and followed by a separator."
            raise format_error(text.path, expected, row=line, unit="line") from error
        blank = len(fields) == 1 and not fields[0].strip(" ")
        yield line, [] if blank else fields
        line = reader.line_num + 1
