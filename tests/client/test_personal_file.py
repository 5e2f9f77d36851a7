"""Personal parameters on disk: all of them back, sealed, tied to their student."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from client.organisation import fit_organisation
from client.personal import Personal
from client.personal_file import LABEL, read_personal, write_personal
from client.vault import Key, read_vault, write_vault
from common.errors import ConfigError, DataFormatError

KEY = Key(bytes(range(32)), stretched=False)
ROWS = sp.csr_matrix(np.float32([[1, 1, 0, 0], [0, 1, 1, 0]]))


def personal(*, organisation: bool = True) -> Personal:
    row = np.float32([0.25, 1.0])
    return Personal(
        users=("ab", "cd"),
        organisation=fit_organisation(ROWS, 1.0) if organisation else None,
        share=0.4,
        user_share=row,
        alpha=row[::-1].copy(),
        taste=np.arange(6, dtype=np.float32).reshape(2, 3),
        before=np.float32([np.nan, 0.5]),
        after=np.float32([np.nan, 0.6]),
    )


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("organisation", [True, False])
def test_everything_comes_back(tmp_path: Path, key, organisation: bool) -> None:
    wrote = personal(organisation=organisation)
    write_personal(tmp_path / "p", wrote, "student", key)
    found = read_personal(tmp_path / "p", "student", key)
    for field in fields(Personal):
        if field.name != "organisation":
            np.testing.assert_array_equal(
                getattr(found, field.name), getattr(wrote, field.name)
            )
    assert (found.organisation is not None) == organisation
    if organisation:
        np.testing.assert_array_equal(
            found.organisation.score(ROWS), wrote.organisation.score(ROWS)
        )


def test_sealed_it_names_nobody(tmp_path: Path) -> None:
    wrote = personal()
    write_personal(tmp_path / "p", wrote, "student", KEY)
    content = (tmp_path / "p").read_bytes()
    assert b"users" not in content and wrote.taste.tobytes() not in content


def test_another_student_is_refused(tmp_path: Path) -> None:
    write_personal(tmp_path / "p", personal(), "student", None)
    with pytest.raises(ConfigError, match="another student"):
        read_personal(tmp_path / "p", "newer", None)


def test_other_content_is_damaged(tmp_path: Path) -> None:
    write_vault(tmp_path / "p", b"no tensors", LABEL, None)
    with pytest.raises(DataFormatError, match="personal parameters"):
        read_personal(tmp_path / "p", "student", None)


# --------------------------------------------------------------- malformed files
SHAPE = (4, 3)
BY_USER = ("user_share", "alpha", "before", "after")
TENSORS = (*BY_USER, "taste", "left.data", "left.indices", "left.indptr", "right")


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    write_personal(path, personal(), "student", None)
    found = load(read_vault(path, LABEL, None))
    return {name: value.copy() for name, value in found.items()}


def refused(path: Path, tensors: dict[str, np.ndarray]) -> None:
    write_vault(path, save(tensors), LABEL, None)
    with pytest.raises(DataFormatError, match="personal parameters"):
        read_personal(path, "student", None, SHAPE)


def test_tensors_of_this_student_are_taken(tmp_path: Path) -> None:
    write_vault(tmp_path / "p", save(tensors_of(tmp_path / "p")), LABEL, None)
    assert read_personal(tmp_path / "p", "student", None, SHAPE).users == ("ab", "cd")


@pytest.mark.parametrize("wrong", [b'"studenv":"student"', b'"student": 9'])
def test_facts_that_name_no_student_are_refused(tmp_path: Path, wrong: bytes) -> None:
    tensors = tensors_of(tmp_path / "p")
    facts = json.loads(tensors["facts"].tobytes())
    del facts["student"]
    text = json.dumps(facts).encode()[:-1] + b", " + wrong + b"}"
    tensors["facts"] = np.frombuffer(text, dtype=np.uint8)
    refused(tmp_path / "p", tensors)


@pytest.mark.parametrize("shape", [(5, 3), (4, 2)])
def test_parameters_of_other_items_or_directions_are_refused(tmp_path, shape) -> None:
    write_personal(tmp_path / "p", personal(), "student", None)
    with pytest.raises(DataFormatError, match="personal parameters"):
        read_personal(tmp_path / "p", "student", None, shape)


def longer(value: np.ndarray) -> np.ndarray:
    return np.concatenate([value, value[..., -1:]], axis=-1)


def shorter(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value[..., :-1])


def deeper(value: np.ndarray) -> np.ndarray:
    return value[None]


def wider(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float64)


def narrower(value: np.ndarray) -> np.ndarray:
    return value.astype(np.uint8)


@pytest.mark.parametrize("change", [longer, shorter, deeper, wider, narrower])
@pytest.mark.parametrize("name", [*TENSORS, "diagonal"])
def test_another_length_shape_or_kind_is_refused(tmp_path, name, change) -> None:
    tensors = tensors_of(tmp_path / "p")
    tensors[name] = change(tensors[name])
    refused(tmp_path / "p", tensors)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["user_share", "taste", "left.data", "right"])
def test_what_is_not_finite_is_refused(tmp_path, name, value) -> None:
    tensors = tensors_of(tmp_path / "p")
    tensors[name].flat[0] = value
    refused(tmp_path / "p", tensors)


@pytest.mark.parametrize(
    ("name", "value"),
    [("alpha", 1.5), ("user_share", -0.5), ("after", np.inf), ("left.indices", 9)],
)
def test_values_that_cannot_be_are_refused(tmp_path, name, value) -> None:
    tensors = tensors_of(tmp_path / "p")
    tensors[name].flat[0] = value
    refused(tmp_path / "p", tensors)


@pytest.mark.parametrize("name", [*TENSORS, "diagonal", "facts"])
def test_a_tensor_missing_is_refused(tmp_path: Path, name: str) -> None:
    tensors = tensors_of(tmp_path / "p")
    del tensors[name]
    refused(tmp_path / "p", tensors)


@pytest.mark.parametrize(
    "change",
    [
        {"users": "ab"},
        {"users": ["ab", "ab"]},
        {"users": ["ab", 7]},
        {"users": ["ab"]},
        {"share": 10**400},
        {"share": 2.0},
        {"share": None},
    ],
)
def test_facts_that_do_not_fit_are_refused(tmp_path: Path, change: dict) -> None:
    tensors = tensors_of(tmp_path / "p")
    facts = json.loads(tensors["facts"].tobytes()) | change
    tensors["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    refused(tmp_path / "p", tensors)


@pytest.mark.parametrize("last", [0, 1])
def test_row_pointers_that_fall_are_refused(tmp_path: Path, last: int) -> None:
    """Where the last is 0 SciPy finds the matrix sound, and reads outside of it."""
    tensors = tensors_of(tmp_path / "p")
    tensors["left.indptr"][1] = 10**6
    tensors["left.indptr"][-1] = last
    refused(tmp_path / "p", tensors)


def test_no_row_pointers_at_all_are_refused(tmp_path: Path) -> None:
    tensors = tensors_of(tmp_path / "p")
    tensors["left.indptr"] = tensors["left.indptr"][:0]
    refused(tmp_path / "p", tensors)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_no_damage_to_a_tensor_gets_past(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes: an error of ours, or parameters that can be computed with."""
    tensors = tensors_of(tmp_path / "p")
    name = data.draw(st.sampled_from(sorted(tensors)))
    raw = bytearray(tensors[name].tobytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1)):
        raw[place] = data.draw(st.integers(0, 255))
    kind, shape = tensors[name].dtype, tensors[name].shape
    tensors[name] = np.frombuffer(bytes(raw), dtype=kind).reshape(shape)
    write_vault(tmp_path / "p", save(tensors), LABEL, None)
    try:
        found = read_personal(tmp_path / "p", "student", None, SHAPE)
    except (DataFormatError, ConfigError):
        return
    assert found.organisation is not None
    assert found.taste.shape == (len(found.users), SHAPE[1])
    with np.errstate(over="ignore", invalid="ignore"):
        assert found.organisation.score(ROWS).shape == ROWS.shape
