"""Two catalogues in one space: what they share crosses, what they do not does not."""

import numpy as np
import polars as pl

from common.catalogue import SCHEMA, Catalogue
from common.config import defaults, parse
from server.shared_space import common_features

SETTINGS = parse(defaults()).features
NO_TEXT = SETTINGS.model_copy(update={"text": "none"})


def catalogue(*rows: tuple[str, str, int, list[str]]) -> Catalogue:
    return Catalogue(pl.DataFrame(list(rows), schema=SCHEMA, orient="row"))


FILMS = catalogue(("1", "Jazz", 1995, ["Music"]), ("2", "Alien", 1979, ["Horror"]))
RECORDS = catalogue(("1", "Slayer", 0, ["Horror"]), ("2", "Bach", 0, []))


def test_categories_have_one_vocabulary_and_ids_may_coincide() -> None:
    source, target, crossed = common_features(FILMS, RECORDS, NO_TEXT)
    assert crossed == ("categories",)
    horror, music = source[1].argmax(), source[0].argmax()
    assert target[0, horror] > 0
    assert target[0, music] == 0
    assert horror != music
    assert not target[1].any()


def test_years_cross_where_both_sides_have_them() -> None:
    books = catalogue(("1", "It", 1979, []))
    assert common_features(FILMS, books, NO_TEXT)[2] == ("period",)


def test_text_crosses_and_the_same_words_are_near() -> None:
    records = catalogue(("9", "All that Jazz", 0, []), ("8", "Bach", 0, []))
    source, target, crossed = common_features(FILMS, records, SETTINGS)
    assert crossed == ("text",)
    near = target @ source[0]
    assert near[0] > near[1]


def test_where_nothing_is_shared_there_are_no_columns() -> None:
    nameless = catalogue(("1", "", 0, []), ("2", "", 0, []), ("3", "", 0, []))
    source, target, crossed = common_features(FILMS, nameless, SETTINGS)
    assert (source.shape, target.shape, crossed) == ((2, 0), (3, 0), ())
    assert source.dtype == target.dtype == np.float32
