"""Item features: columns from the declared catalogue alone."""

import numpy as np
import polars as pl

from common.catalogue import SCHEMA, Catalogue
from common.features import PERIODS, item_features


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
