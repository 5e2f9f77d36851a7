"""Which modalities a catalogue and the settings give."""

import numpy as np
import polars as pl
import pytest

from common.catalogue import OPTIONAL, SCHEMA, Catalogue
from common.errors import DataFormatError
from common.features import PERIODS
from common.sections import Features as Settings
from server.features import build_features

NAN = float("nan")


def settings(**changes):
    plain = {
        "text": "none",
        "images": "",
        "image-backbone": "",
        "vectors": "",
        "fusion": "concatenate",
    }
    return Settings.model_validate(plain | changes)


def catalogue(*rows):
    schema = pl.Schema({**SCHEMA, **OPTIONAL})
    return Catalogue(pl.DataFrame(rows, schema=schema, orient="row"))


DECLARED = catalogue(
    ("a", "Heat (1995)", 1995, ["crime"], "", [10.0, 1.0]),
    ("b", "", 0, [], "", [30.0, NAN]),
    ("c", "", 0, [], "a heist", [NAN, 1.0]),
    ("d", "", 0, [], "", [NAN, NAN]),
)


def test_modalities_are_what_is_declared():
    found = build_features(DECLARED, settings())
    assert list(found.values) == ["categories", "period", "numbers"]
    assert found.values["period"].shape == (4, len(PERIODS))
    assert found.known["categories"].tolist() == [True, False, False, False]
    assert found.known["period"].tolist() == [True, False, False, False]


def test_numbers_are_standardised_and_may_be_missing():
    found = build_features(DECLARED, settings())
    # 10 and 30: mean 20, deviation 10. A constant column tells nothing.
    assert found.values["numbers"].tolist() == [[-1, 0], [1, 0], [0, 0], [0, 0]]
    assert found.known["numbers"].tolist() == [True, True, True, False]


def test_text_is_known_where_there_is_any():
    found = build_features(DECLARED, settings(text="hashed"))
    assert found.values["text"].shape == (4, 512)
    assert found.known["text"].tolist() == [True, False, True, False]


def test_a_bare_catalogue_still_has_its_period():
    found = build_features(catalogue(("a", "A", 0, [], "", [])), settings())
    assert list(found.values) == ["period"]
    assert not found.known["period"].any()


def test_vectors_are_a_modality(tmp_path):
    np.save(tmp_path / "v.npy", np.arange(8.0).reshape(4, 2))
    found = build_features(DECLARED, settings(vectors=str(tmp_path / "v.npy")))
    assert found.values["vectors"].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert found.known["vectors"].all()


def test_an_item_more_leaves_the_vocabulary_of_others_alone():
    """Features come of the declared catalogue; its rows are the only argument."""
    one, two = (build_features(DECLARED, settings(text="hashed")) for _ in range(2))
    for name in one.values:
        assert np.array_equal(one.values[name], two.values[name])


def test_infinite_numbers_are_refused():
    with pytest.raises(DataFormatError, match="expected finite numbers"):
        build_features(catalogue(("a", "A", 0, [], "", [np.inf])), settings())
