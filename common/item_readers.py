"""Readers of item and user files: titles, years, categories; attributes; tags.

In ``common`` beside the interaction readers, for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import polars as pl

from common.catalogue import SCHEMA
from common.columns import recognise
from common.errors import DataFormatError
from common.text_tables import FieldTable, format_error, read_text, split_fields

#: The nineteen flags of MovieLens-100K's ``u.item``, in order.
GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)


def read_items(path: Path) -> pl.DataFrame:
    """Read an item file, by its name, into ``catalogue.SCHEMA``.

    Raises:
        DataFormatError: if the name is not known or a row has another width.
    """
    return _by_name(ITEM_READERS, path)(path)


def read_users(path: Path) -> pl.DataFrame:
    """Read a user file: ``user`` and its attributes, all strings.

    Raises:
        DataFormatError: as :func:`read_items`.
    """
    return _by_name(USER_READERS, path)(path)


def read_tags(path: Path) -> pl.DataFrame:
    """Read MovieLens' ``tags.csv``: ``user``, ``item``, ``tag``, all strings.

    Tags are rows of users, as private as their ratings: they describe items of the
    catalogue only through :func:`tag_text`, which asks whose may be used.

    Raises:
        DataFormatError: if a column is missing or a row has another width.
    """
    table = _rows(path, ",", quoted=True)
    header = table.header()
    found = recognise(header, ("user", "item"), (), path)
    if header.count("tag") != 1:
        raise format_error(path, "one column named tag.", row=1, unit="line")
    places = found | {"tag": header.index("tag")}
    return table.body().frame.select(
        pl.col(str(place)).str.strip_chars().alias(name)
        for name, place in places.items()
    )


def tag_text(tags: pl.DataFrame, users: Collection[str]) -> dict[str, str]:
    """Outside item id → its tags in lower case, what most users wrote first.

    Args:
        tags: as :func:`read_tags` gives them.
        users: public users; nobody else's tags are looked at.
    """
    counted = (
        tags.filter(pl.col("user").is_in(list(users)), pl.col("tag") != "")
        .with_columns(pl.col("tag").str.to_lowercase())
        .group_by("item", "tag")
        .agg(pl.col("user").n_unique().alias("count"))
        .sort(["count", "tag"], descending=[True, False])
    )
    joined = counted.group_by("item", maintain_order=True).agg(pl.col("tag"))
    return {item: ", ".join(names) for item, names in joined.iter_rows()}


def _by_name(
    readers: dict[str, Callable[[Path], pl.DataFrame]], path: Path
) -> Callable[[Path], pl.DataFrame]:
    for ending, reader in readers.items():
        if path.name.endswith(ending):
            return reader
    raise DataFormatError(f"{path}: expected a name ending in {', '.join(readers)}.")


def _rows(
    path: Path, separator: str, *, quoted: bool = False, least: int = 1
) -> FieldTable:
    """The file's rows, all of one width, at least ``least`` fields wide."""
    table = split_fields(read_text(path), separator, quoted=quoted)
    if table.width < least:
        expected = f"at least {least} fields."
        raise format_error(path, expected, row=table.frame["line"][0], unit="line")
    wrong = table.frame.filter(pl.col("num_fields") != table.width)
    if wrong.height:
        expected = "as many fields as the first row."
        raise format_error(path, expected, row=wrong["line"][0], unit="line")
    return table


def _catalogue(
    frame: pl.DataFrame, item: str, title: pl.Expr, categories: pl.Expr
) -> pl.DataFrame:
    table = frame.select(pl.col(item).alias("item"), title=title, categories=categories)
    year = pl.col("title").str.extract(r"\((\d{4})\)\s*$").cast(pl.Int32, strict=False)
    return table.with_columns(year=year.fill_null(0)).select(SCHEMA.names())


def _split_categories(column: str, separator: str) -> pl.Expr:
    parts = pl.col(column).fill_null("").str.strip_chars().str.split(separator)
    return parts.list.filter(
        (pl.element() != "") & (pl.element() != "(no genres listed)")
    )


def _recbole_items(path: Path) -> pl.DataFrame:
    table = _rows(path, "\t")
    header = [name.partition(":")[0] for name in table.header()]
    found = recognise(header, ("item", "title"), ("categories", "year"), path)
    frame = table.body().frame
    title = pl.col(str(found["title"])).str.strip_chars()
    if "year" in found:
        year = pl.col(str(found["year"])).fill_null("").str.strip_chars()
        dated = pl.concat_str(title, pl.lit(" ("), year, pl.lit(")"))
        title = pl.when(year.str.contains(r"^\d{4}$")).then(dated).otherwise(title)
    categories = (
        _split_categories(str(found["categories"]), " ")
        if "categories" in found
        else pl.lit([], dtype=pl.List(pl.String))
    )
    return _catalogue(frame, str(found["item"]), title, categories)


def _movielens_100k_items(path: Path) -> pl.DataFrame:
    table = _rows(path, "|")
    first = table.width - len(GENRES)
    if first < 2:
        raise DataFormatError(f"{path}, line 1: expected 19 genre flags after a title.")
    flags = [
        pl.when(pl.col(str(first + i)) == "1").then(pl.lit(genre))
        for i, genre in enumerate(GENRES)
        if genre != "unknown"
    ]
    categories = pl.concat_list(flags).list.drop_nulls()
    return _catalogue(table.frame, "0", pl.col("1"), categories)


def _movielens_1m_items(path: Path) -> pl.DataFrame:
    table = _rows(path, "::", least=3)
    return _catalogue(table.frame, "0", pl.col("1"), _split_categories("2", "|"))


def _csv_items(path: Path) -> pl.DataFrame:
    table = _rows(path, ",", quoted=True)
    found = recognise(table.header(), ("item", "title"), ("categories",), path)
    frame = table.body().frame
    categories = (
        _split_categories(str(found["categories"]), "|")
        if "categories" in found
        else pl.lit([], dtype=pl.List(pl.String))
    )
    title = pl.col(str(found["title"])).str.strip_chars()
    return _catalogue(frame, str(found["item"]), title, categories)


ITEM_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    "u.item": _movielens_100k_items,
    ".item": _recbole_items,
    "movies.dat": _movielens_1m_items,
    ".csv": _csv_items,
}


def _named(names: tuple[str, ...], separator: str) -> Callable[[Path], pl.DataFrame]:
    def read(path: Path) -> pl.DataFrame:
        table = _rows(path, separator, least=len(names))
        return table.frame.select(
            pl.col(str(i)).alias(name) for i, name in enumerate(names)
        )

    return read


def _recbole_users(path: Path) -> pl.DataFrame:
    table = _rows(path, "\t")
    header = [name.partition(":")[0] for name in table.header()]
    user = recognise(header, ("user",), (), path)["user"]
    body = table.body().frame
    others = [i for i in range(len(header)) if i != user]
    return body.select(
        pl.col(str(user)).alias("user"),
        *(pl.col(str(i)).alias(header[i]) for i in others),
    )


USER_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    "u.user": _named(("user", "age", "gender", "occupation", "zip_code"), "|"),
    "users.dat": _named(("user", "gender", "age", "occupation", "zip_code"), "::"),
    ".user": _recbole_users,
}
