"""Soft labels: eight bits lose half a step at most; misfits are refused."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import ProtocolError
from common.soft_labels import check, decode, encode

SCORES = np.float32([[0, 3, 1, 3], [2, 2, 2, 2], [-1, 0, 1, 2]])
PROXY = sp.csr_matrix(np.float32([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))
LABELS = encode(SCORES, PROXY, 3)


def test_items_come_best_first_ties_to_the_lower_id():
    assert LABELS.item.tolist() == [[1, 3, 2], [0, 1, 2], [3, 2, 1]]
    assert LABELS.item.dtype == np.int32
    assert LABELS.logit.dtype == np.int8


def test_extremes_use_the_whole_range():
    assert LABELS.logit[0].tolist() == [127, 127, -127]
    assert LABELS.logit[2].tolist() == [127, 0, -127]


def test_a_constant_row_decodes_to_itself():
    assert LABELS.scale[1] == 0
    assert decode(LABELS)[1].tolist() == [2.0, 2.0, 2.0]


def test_k_is_clipped_to_the_catalogue():
    assert encode(SCORES, PROXY, 99).item.shape == (3, 4)


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 9)),
        elements=st.floats(-1e4, 1e4, width=32),
    ),
    st.integers(1, 9),
)
def test_decoding_errs_by_half_a_step_at_most(scores, k):
    labels = encode(scores, sp.csr_matrix(scores.shape), k)
    decoded = decode(labels).numpy()
    top = np.take_along_axis(scores, labels.item.astype(np.int64), axis=1)
    assert np.array_equal(top, -np.sort(-scores, axis=1)[:, :k])
    half_step = (top[:, :1].astype(float) - top[:, -1:]) / 508
    rounding = 4 * np.spacing(np.abs(top).max(axis=1, keepdims=True))
    rounding += 127 * np.spacing(labels.scale)[:, None]
    assert (np.abs(decoded.astype(float) - top) <= half_step + rounding).all()


def test_fitting_labels_pass():
    assert check(LABELS, 4) is None


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"proxy": PROXY[:2]}, r"shape \(3, 4\), got \(2, 4\)"),
        ({"logit": LABELS.logit[:, :2]}, "as many"),
        ({"scale": LABELS.scale[:2]}, "as many"),
        ({"centre": LABELS.centre[:2]}, "as many"),
        ({"item": LABELS.item[0]}, "shape"),
        ({"item": LABELS.item + 1}, r"items in 0\.\.3"),
        ({"item": LABELS.item - 1}, r"items in 0\.\.3"),
        ({"scale": np.float32([1, np.nan, 1])}, "finite"),
        ({"centre": np.float32([1, np.inf, 1])}, "finite"),
    ],
)
def test_misfits_are_refused(change, text):
    with pytest.raises(ProtocolError, match=text):
        check(replace(LABELS, **change), 4)


def test_another_catalogue_is_refused():
    with pytest.raises(ProtocolError, match="shape"):
        check(LABELS, 5)
