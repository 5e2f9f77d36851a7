"""The linear teacher of low rank: EASE's own weights, by hand and after a file."""

import numpy as np
import pytest
import scipy.sparse as sp
from safetensors.numpy import save_file

from common.errors import DataFormatError
from server.teacher.checkpoint import load_teacher, save_teacher
from server.teacher.ease import fit_gram
from server.teacher.factors import Factors, fit_factors

NUM_ITEMS = 9
HISTORY = sp.csr_matrix(np.eye(3, NUM_ITEMS, dtype=np.int32) * 4)


def draw(rank: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Tastes and a diagonal, both any."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(NUM_ITEMS, rank)), rng.uniform(0.5, 3.0, NUM_ITEMS)


def factors(rank: int = 4) -> Factors:
    return fit_factors(*draw(rank))


def off_diagonal(matrix: np.ndarray) -> np.ndarray:
    return matrix[~np.eye(len(matrix), dtype=bool)]


def test_two_items_by_hand() -> None:
    """Gram [[2, 1], [1, 2]], inverse [[2, -1], [-1, 2]] / 3, hence weights of 1 / 2."""
    found = fit_factors(np.ones((2, 1)), np.ones(2))
    weights = found.inputs @ found.outputs.T
    np.testing.assert_allclose(off_diagonal(weights), [0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize("rank", [1, 4, NUM_ITEMS, 2 * NUM_ITEMS])
@pytest.mark.parametrize("seed", [0, 1])
def test_weights_are_those_of_ease_off_the_diagonal(rank, seed) -> None:
    tastes, diagonal = draw(rank, seed)
    found = fit_factors(tastes, diagonal)
    weights = found.inputs @ found.outputs.T
    expected = fit_gram(tastes @ tastes.T + np.diag(diagonal - 1.0), l2=1.0)
    np.testing.assert_allclose(
        off_diagonal(weights), off_diagonal(expected), rtol=1e-4, atol=1e-6
    )


def test_without_tastes_nothing_is_like_anything() -> None:
    found = fit_factors(np.zeros((NUM_ITEMS, 0)), np.ones(NUM_ITEMS))
    assert found.score(HISTORY).shape == (3, NUM_ITEMS)
    assert not found.score(HISTORY).any()


def test_a_score_is_the_sum_of_the_rows_of_what_was_seen() -> None:
    """Whatever the places in time that an ordered history holds."""
    teacher = factors()
    weights = teacher.inputs @ teacher.outputs.T
    history = sp.csr_matrix(np.int32([[0, 3, 0, 1, 0, 0, 0, 0, 2]]))
    np.testing.assert_allclose(
        teacher.score(history)[0], weights[[1, 3, 8]].sum(axis=0), rtol=1e-5
    )
    assert teacher.score(history).dtype == np.float32
    assert teacher.additive


@pytest.mark.parametrize("rank", [1, 2, 3, 4, 7, None])
def test_tables_are_the_best_of_their_rank(rank) -> None:
    """Eckart and Young: what is left out are the smallest singular values."""
    teacher = factors(rank=4)
    weights = (teacher.inputs @ teacher.outputs.T).astype(np.float64)
    inputs, outputs = teacher.tables(rank)
    assert inputs.shape == outputs.shape == (NUM_ITEMS, min(rank or 4, 4))
    assert inputs.dtype == outputs.dtype == np.float32
    left_out = np.linalg.svd(weights)[1][rank or 4 :]
    missing = np.linalg.norm(weights - inputs @ outputs.T)
    assert missing == pytest.approx(np.linalg.norm(left_out), abs=1e-5)


def test_tables_come_heaviest_first_and_balanced() -> None:
    inputs, outputs = factors().tables()
    weight = np.linalg.norm(inputs, axis=0)
    assert (np.diff(weight) <= 0).all()
    np.testing.assert_allclose(weight, np.linalg.norm(outputs, axis=0), rtol=1e-5)
    np.testing.assert_allclose(factors().tables(2)[0], inputs[:, :2], rtol=1e-5)


@pytest.mark.parametrize("digest", ["abc", None])
def test_a_file_holds_the_same_teacher(digest, tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, factors(), "abc")
    again = load_teacher(path, digest)
    assert isinstance(again, Factors)
    for name, tensor in factors().tensors().items():
        np.testing.assert_array_equal(again.tensors()[name], tensor)
    np.testing.assert_array_equal(again.score(HISTORY), factors().score(HISTORY))


def test_a_file_of_another_catalogue_is_refused(tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, factors(), "abc")
    with pytest.raises(DataFormatError, match=r"teacher\.safetensors.*xyz.*abc"):
        load_teacher(path, "xyz")


@pytest.mark.parametrize(
    "shapes",
    [
        {"inputs": (4, 2)},
        {"outputs": (4, 2)},
        {"weights": (4, 4)},
        {"inputs": (4, 2), "outputs": (4, 3)},
        {"inputs": (4, 2), "outputs": (5, 2)},
        {"inputs": (4,), "outputs": (4,)},
        {"inputs": (4, 2, 1), "outputs": (4, 2, 1)},
    ],
)
def test_a_file_of_other_shapes_is_refused(shapes, tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    metadata = {"format": "tutela-teacher-1", "catalogue": "abc", "name": "factors"}
    save_file(tensors, path, metadata)
    with pytest.raises(DataFormatError, match=r"teacher\.safetensors"):
        load_teacher(path, None)


@pytest.mark.parametrize("kept", [0, 7, 60, -1])
def test_a_file_cut_short_is_refused(kept, tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, factors(), "abc")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataFormatError, match=r"teacher\.safetensors"):
        load_teacher(path, "abc")
