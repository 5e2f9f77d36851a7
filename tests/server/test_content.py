"""Likeness by content: cosines by hand, neighbours kept, histories scored."""

import numpy as np
import scipy.sparse as sp

from server.content import ContentTeacher, blend, content_factor, content_similarity


def test_rows_are_centred_to_unit_length_and_nothing_stays_nothing():
    features = np.array([[2, 0], [0, 2], [4, 4], [0, 0]], np.float32)  # mean (2, 2)
    factor = content_factor(features)
    assert factor.dtype == np.float32
    root = np.sqrt(0.5)
    wanted = [[0, -1], [-1, 0], [root, root], [0, 0]]
    np.testing.assert_allclose(factor, wanted, atol=1e-6)
    assert not content_factor(np.ones((3, 2), np.float32)).any()


FACTOR = np.array([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]], np.float32)


def test_the_nearest_are_kept_each_item_for_itself():
    one = content_similarity(FACTOR, 1).toarray()
    # Column j: what speaks for j. Items 0 and 2 are nearest to 1, 1 to 2.
    np.testing.assert_allclose(one[:, 0], [0, 0.6, 0, 0])
    np.testing.assert_allclose(one[:, 1], [0, 0, 0.8, 0])
    np.testing.assert_allclose(one[:, 2], [0, 0.8, 0, 0])
    assert not one[:, 3].any()  # opposed or foreign to all
    assert one.dtype == np.float32


def test_with_room_for_all_it_is_the_positive_cosines():
    cosine = np.maximum(FACTOR @ FACTOR.T, 0)
    np.fill_diagonal(cosine, 0)
    np.testing.assert_allclose(content_similarity(FACTOR, 99).toarray(), cosine)


def test_chunks_join_without_a_seam():
    rng = np.random.default_rng(0)
    factor = content_factor(rng.normal(size=(1100, 5)).astype(np.float32))
    found = content_similarity(factor, 3)
    assert found.shape == (1100, 1100)
    assert not found.diagonal().any()
    last = factor @ factor[-1]
    last[-1] = 0
    np.testing.assert_allclose(
        np.sort(found[:, -1].data), np.sort(last)[-3:], rtol=1e-5
    )


def test_a_teacher_sums_cosines_whatever_the_order_of_time():
    teacher = ContentTeacher(FACTOR)
    history = sp.csr_matrix(np.array([[0, 1, 2, 0], [0, 0, 0, 0]], np.int32))
    scores = teacher.score(history)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [[0.6, 1.8, 1.8, -0.6], [0] * 4], atol=1e-6)
    given, wanted = teacher.tables()
    np.testing.assert_allclose((history > 0) @ given @ wanted.T, scores, atol=1e-6)
    assert teacher.additive
    assert list(teacher.tensors()) == ["factor"]


def test_tables_come_heaviest_first():
    rng = np.random.default_rng(1)
    factor = (rng.normal(size=(9, 4)) * [1, 5, 2, 0.1]).astype(np.float32)
    given, wanted = ContentTeacher(factor).tables()
    np.testing.assert_allclose(
        given @ wanted.T, factor @ factor.T, rtol=1e-3, atol=1e-4
    )
    lengths = np.linalg.norm(given, axis=0)
    assert (np.diff(lengths) < 0).all()
    two, _ = ContentTeacher(factor).tables(2)
    values = np.linalg.svd(factor, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(two, axis=0), values[:2], rtol=1e-5)


def test_content_is_blended_on_the_scale_of_the_weights():
    # The user of item 0 gets weights (0, 4) over the touched items 0 and 1, of
    # deviation 2, and cosines (0, .6), of deviation .3. So does the user of item 1.
    weights = np.zeros((4, 4), np.float32)
    weights[0, 1] = weights[1, 0] = 4
    histories = sp.csr_matrix(np.eye(4, dtype=np.float32)[:2])
    found = blend(weights, FACTOR, histories, share=0.5)
    assert found.dtype == np.float32
    scale = 0.5 * 2 / 0.3
    np.testing.assert_allclose(found[0], [0, 4 + 0.6 * scale, 0, -scale], rtol=1e-5)
    np.testing.assert_array_equal(blend(weights, FACTOR, histories, 0.0), weights)


def test_content_without_a_spread_adds_nothing():
    weights = np.ones((4, 4), np.float32)
    histories = sp.csr_matrix(np.array([[1, 1, 0, 0]], np.float32))  # .6 for both
    np.testing.assert_array_equal(blend(weights, FACTOR, histories), weights)
