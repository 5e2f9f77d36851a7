"""Item features: columns from the declared catalogue alone."""

import numpy as np
import polars as pl
import pytest

from common.catalogue import SCHEMA, Catalogue
from common.errors import DataFormatError
from common.features import PERIODS, Features, categories, item_features, period


def catalogue(rows):
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return Catalogue(table)


def test_categories_then_periods():
    features = item_features(
        catalogue(
            [
                ("a", "A", 1995, ["war", "drama"]),
                ("b", "B", 1994, []),
                ("c", "C", 0, ["drama"]),
            ]
        )
    )
    assert features.dtype == np.float32
    assert features.shape == (3, 2 + len(PERIODS))
    assert features[:, :2].tolist() == [[1, 1], [0, 0], [1, 0]]  # drama, war
    period = features[:, 2:]
    assert period.sum(axis=1).tolist() == [1, 1, 0]  # an unknown year sets none
    assert period[0].argmax() == PERIODS.index(1995)
    assert period[1].argmax() == PERIODS.index(1993)


def test_each_first_year_opens_its_period():
    rows = [(str(year), str(year), year, []) for year in PERIODS]
    assert np.array_equal(item_features(catalogue(rows)), np.eye(len(PERIODS)))


def test_later_years_stay_in_the_last_period():
    features = item_features(catalogue([("a", "A", 2100, [])]))
    assert features[0].argmax() == len(PERIODS) - 1


def test_each_modality_says_whose_it_is():
    rows = [("a", "A", 1995, ["war"]), ("b", "B", 0, []), ("c", "C", 1920, [])]
    values, known = categories(catalogue(rows))
    assert (values.tolist(), known.tolist()) == ([[1], [0], [0]], [True, False, False])
    values, known = period(catalogue(rows))
    assert known.tolist() == [True, False, True]
    assert values.sum(axis=1).tolist() == [1, 0, 1]


def test_no_categories_at_all_are_no_columns():
    values, known = categories(catalogue([("a", "A", 0, [])]))
    assert values.shape == (1, 0)
    assert not known.any()


def features(**changes):
    values = {"text": np.ones((2, 3), np.float32), "year": np.ones((2, 1), np.float32)}
    known = {"text": np.array([True, False]), "year": np.array([True, True])}
    return Features(changes.get("values", values), changes.get("known", known))


def test_modalities_are_selected_in_the_order_asked():
    assert features().num_items == 2
    assert list(features().select(["year", "text"]).values) == ["year", "text"]
    only = features().select(["text"])
    assert list(only.values) == list(only.known) == ["text"]
    with pytest.raises(DataFormatError, match="among text, year; got sound"):
        features().select(["text", "sound"])


def test_what_is_unknown_may_be_anything():
    values = {"text": np.array([[1.0], [np.nan]], np.float32)}
    assert features(values=values, known={"text": np.array([True, False])})


@pytest.mark.parametrize(
    ("values", "known"),
    [
        ({}, {}),
        ({"a": np.ones((2, 1), np.float32)}, {"b": np.ones(2, np.bool_)}),
        ({"a": np.ones((2, 1), np.float64)}, {"a": np.ones(2, np.bool_)}),
        ({"a": np.ones(2, np.float32)}, {"a": np.ones(2, np.bool_)}),
        ({"a": np.ones((2, 1), np.float32)}, {"a": np.ones(3, np.bool_)}),
        ({"a": np.ones((2, 1), np.float32)}, {"a": np.ones(2)}),
        ({"a": np.full((2, 1), np.inf, np.float32)}, {"a": np.ones(2, np.bool_)}),
        (
            {"a": np.ones((2, 1), np.float32), "b": np.ones((3, 1), np.float32)},
            {"a": np.ones(2, np.bool_), "b": np.ones(3, np.bool_)},
        ),
    ],
)
def test_impossible_features_are_refused(values, known):
    with pytest.raises(DataFormatError):
        Features(values, known)
