"""A teacher's file: the same teacher again, and nothing else."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors.numpy import save_file

from common.errors import DataFormatError
from server.teacher.checkpoint import load_teacher, save_teacher
from server.teacher.ease import Ease
from server.teacher.scoring import SequentialTeacher
from server.teacher.sequential import Encoder, Shape

HISTORY = sp.csr_matrix(np.asarray([[2, 0, 1, 0], [0, 0, 0, 1]], np.int32))


def ease():
    return Ease(np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32))


def transformer():
    torch.manual_seed(0)
    encoder = Encoder(Shape(4, 6, 2, 3, 5)).eval().requires_grad_(False)
    return SequentialTeacher(torch.randn(4, 6), encoder)


@pytest.mark.parametrize("make", [ease, transformer])
@pytest.mark.parametrize("digest", ["abc", None])
def test_a_teacher_scores_the_same_after_a_file(make, digest, tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, make(), "abc")
    again = load_teacher(path, digest)
    assert type(again) is type(make())
    np.testing.assert_array_equal(again.score(HISTORY), make().score(HISTORY))


def test_a_teacher_of_another_catalogue_is_refused(tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, ease(), "abc")
    with pytest.raises(DataFormatError, match=r"teacher\.safetensors.*xyz.*abc"):
        load_teacher(path, "xyz")


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(DataFormatError, match=r"none\.safetensors"):
        load_teacher(tmp_path / "none.safetensors", None)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_damaged_file_is_named(kept, tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, transformer(), "abc")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataFormatError, match=r"teacher\.safetensors"):
        load_teacher(path, None)


FORMAT = {"format": "tutela-teacher-1", "catalogue": "abc"}


@pytest.mark.parametrize(
    ("metadata", "tensors"),
    [
        ({}, {"weights": np.zeros((2, 2), np.float32)}),
        ({"format": "tutela-student-1"}, {"weights": np.zeros((2, 2), np.float32)}),
        (FORMAT, {"weights": np.zeros((2, 2), np.float32)}),
        (FORMAT | {"name": "oracle"}, {"weights": np.zeros((2, 2), np.float32)}),
        (FORMAT | {"name": "ease"}, {"weights": np.zeros((2, 3), np.float32)}),
        (FORMAT | {"name": "ease"}, {"others": np.zeros((2, 2), np.float32)}),
        (FORMAT | {"name": "transformer"}, {"items": np.zeros((2, 2), np.float32)}),
        (
            FORMAT | {"name": "transformer", "heads": "1"},
            {
                "items": np.zeros((2, 2), np.float32),
                "encoder.positions": np.zeros((2, 3), np.float32),
            },
        ),
        (
            FORMAT | {"name": "transformer", "heads": "1"},
            {
                "items": np.zeros((2, 2), np.float32),
                "encoder.positions": np.zeros(3, np.float32),
                "encoder.blocks.x": np.zeros(3, np.float32),
            },
        ),
    ],
)
def test_a_file_of_something_else_is_refused(metadata, tensors, tmp_path) -> None:
    path = tmp_path / "teacher.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(DataFormatError, match=r"teacher\.safetensors"):
        load_teacher(path, None)
