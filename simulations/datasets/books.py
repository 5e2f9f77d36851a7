"""Books: Book-Crossing's explicit ratings and implicit history.

Ziegler, McNee, Konstan & Lausen 2005. Semicolons became tabs in the item file, also
those of ``&amp;`` and of titles, and some texts were decoded wrongly twice: both are
undone and counted. Simulations only.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from common.catalogue import Catalogue
from common.columns import Columns
from common.readers import ReadResult, read_interactions
from common.repairs import ReadReport, Repairs
from common.text_tables import read_text
from simulations.datasets.archives import under, unpacked
from simulations.datasets.dataset import Dataset, assemble, declare

ARCHIVE = "book_crossing.zip"
RATINGS, HISTORY = "book_ratings.dat", "book_history.dat"
ITEMS, USERS = "items_info.dat", "users_info.dat"
FILES = (RATINGS, HISTORY, ITEMS, USERS)
REPAIRS = Repairs(bad_rows="drop", duplicates="keep_last")
#: The crawl ended in 2004; later years of publication are mistakes.
YEARS = (1000, 2004)
AGES = (5, 100)
#: Books of an author, or of a publisher, that make it a category.
LEAST_BOOKS = {"author": 5, "publisher": 20}


def book_crossing(folder: Path) -> Dataset:
    """The published zip."""
    with unpacked(folder / ARCHIVE, FILES) as files:
        return _read(folder, files, folder / ARCHIVE)


def book_crossing_unpacked(folder: Path) -> Dataset:
    """The same, unpacked by hand."""
    return _read(folder, folder, folder)


def _read(folder: Path, files: Path, shown: Path) -> Dataset:
    catalogue, items = read_books(files / ITEMS)
    users, people = read_readers(files / USERS)
    rows, reports = _rows(files)
    reports = [under(shown, report) for report in (*reports, items, people)]
    return assemble(folder, rows, catalogue, users, reports, (1.0, 10.0))


def _rows(files: Path) -> tuple[pl.DataFrame, list[ReadReport]]:
    """Every book a user touched: value 1–10 where rated, 0 where only touched."""
    rated = _table(files / RATINGS, "rating")
    touched = _table(files / HISTORY, None)
    implicit = touched.frame.with_columns(value=pl.lit(0.0, dtype=pl.Float32))
    stacked = pl.concat([rated.frame, implicit])
    rows = stacked.unique(["user", "item"], keep="first", maintain_order=True)
    merged = ReadReport(
        files / "both",
        "merged",
        stacked.height,
        rows.height,
        {"duplicates": stacked.height - rows.height},
        ("a rated book stands in the history too: the rating is kept",),
    )
    order = pl.col("user").cast(pl.Int64, strict=False)
    return rows.sort(order, "user", maintain_order=True), [
        rated.report,
        touched.report,
        merged,
    ]


def _table(path: Path, value: str | None) -> ReadResult:
    columns = Columns(user="user", item="item", value=value)
    return read_interactions(path, format="tsv", columns=columns, repairs=REPAIRS)


@dataclass(frozen=True)
class _Book:
    """A line of the item file, repaired; ``year`` 0 where unknown."""

    item: str
    title: str
    author: str
    year: int
    publisher: str
    repairs: tuple[str, ...] = field(default=())


def read_books(path: Path) -> tuple[Catalogue, ReadReport]:
    """Titles, years, authors and publishers of the item file, and its repairs.

    Args:
        path: ``items_info.dat``: tabs, a header, mixed encodings.
    """
    text = read_text(path)
    lines = [line for line in text.lines.to_list()[1:] if line.strip()]
    parsed = [_book(line) for line in lines]
    books = {book.item: book for book in parsed if book is not None}
    counts = Counter(kind for book in books.values() for kind in book.repairs)
    dropped = {"fields": sum(book is None for book in parsed)}
    dropped["duplicates"] = len(lines) - dropped["fields"] - len(books)
    report = ReadReport(
        path,
        "books",
        len(lines),
        len(books),
        {kind: n for kind, n in dropped.items() if n},
        (*text.notes, *(f"{kind}: {n} books" for kind, n in sorted(counts.items()))),
    )
    return _catalogue(list(books.values())), report


def _book(line: str) -> _Book | None:
    """The fields of a line, or None where it has no three images behind five fields."""
    whole, entities = re.subn(r"(&#?\w+)\t", r"\1;", line)
    decoded = mend_encoding(whole)
    fields = [html.unescape(part).strip() for part in decoded.split("\t")]
    images = [i for i, part in enumerate(fields) if part.startswith("http")]
    if not images or images[0] < 6:
        return None
    publisher = images[0] - 1
    title = "; ".join(part for part in fields[2 : publisher - 2] if part)
    year = _number(fields[publisher - 1], YEARS)
    found = {
        "entities closed": entities > 0,
        "titles joined again": publisher > 5,
        "decoded again": decoded != whole,
        "impossible years blanked": year == 0,
    }
    repairs = tuple(kind for kind, met in found.items() if met)
    author = fields[publisher - 2]
    return _Book(fields[0], title, author, year, fields[publisher], repairs)


def mend_encoding(text: str) -> str:
    """Undo UTF-8 that was read as Latin-1, once or twice; other texts as they are.

    >>> mend_encoding("ErzÃ?Â¤hlungen"), mend_encoding("ErzÃ¤hlungen")
    ('Erzählungen', 'Erzählungen')
    """
    once = text.replace("Ã?Â", "Ã")

    def again(match: re.Match[str]) -> str:
        try:
            return match.group().encode("latin-1").decode("utf-8")
        except UnicodeDecodeError:
            return match.group()

    return re.sub("[\u00c2-\u00df][\u0080-\u00bf]", again, once)


def _number(text: str, bounds: tuple[int, int]) -> int:
    number = int(text) if text.isdecimal() else 0
    return number if bounds[0] <= number <= bounds[1] else 0


def _catalogue(books: list[_Book]) -> Catalogue:
    common = {
        kind: {
            name
            for name, n in Counter(getattr(book, kind) for book in books).items()
            if n >= least and name
        }
        for kind, least in LEAST_BOOKS.items()
    }
    categories = [
        [f"{k}: {getattr(book, k)}" for k in common if getattr(book, k) in common[k]]
        for book in books
    ]
    return declare(
        [book.item for book in books],
        title=[book.title for book in books],
        year=[book.year for book in books],
        categories=categories,
        text=[f"{book.author}, {book.publisher}" for book in books],
    )


def read_readers(path: Path) -> tuple[pl.DataFrame, ReadReport]:
    """``user, age, country`` of the user file; impossible ages are blanked, counted.

    Towns stay out: few people share one.
    """
    text = read_text(path)
    lines = [line for line in text.lines.to_list()[1:] if line.strip()]
    rows, bad_ages, mended = [], 0, 0
    for line in lines:
        whole = mend_encoding(line)
        mended += whole != line
        user, place, age = (part.strip() for part in whole.split("\t")[:3])
        years = _number(age, AGES)
        bad_ages += bool(age) and not years
        rows.append((user, str(years or ""), place.rpartition(",")[2].strip()))
    counts = {
        f"ages outside {AGES[0]}–{AGES[1]} blanked": bad_ages,
        "decoded again": mended,
    }
    notes = (*text.notes, *(f"{kind}: {n} users" for kind, n in counts.items() if n))
    report = ReadReport(path, "readers", len(lines), len(rows), {}, notes)
    schema = dict.fromkeys(("user", "age", "country"), pl.String())
    return pl.DataFrame(rows, schema=schema, orient="row"), report
