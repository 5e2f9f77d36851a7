"""Personal parameters on the device's disk: safetensors inside a vault.

Client only. Tied to the student they were fitted beside: a newer student moves the
scores that a taste was an offset of, and may have another shape.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from client.organisation import Organisation
from client.personal import Personal
from client.vault import Key, read_vault, write_vault
from common.errors import ConfigError, DataFormatError
from common.interactions import FloatArray, sound_csr

LABEL = "tutela-personal-1"

_BY_USER = ("user_share", "alpha", "taste", "before", "after")

#: Kinds of number of an organisation's ``left`` (data, indices, indptr), ``right``
#: and ``diagonal``.
_KINDS = tuple(map(np.dtype, ("f4", "i4", "i8", "f4", "f4")))


class OtherStudent(ConfigError):
    """Personal parameters of another student than the one they are asked for."""


def student_digest(path: Path) -> str:
    """SHA-256 of a student's file, what personal parameters are tied to."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_personal(
    path: Path, personal: Personal, student: str, key: Key | None
) -> None:
    """Store them, sealed where a key is given.

    Args:
        student: of :func:`student_digest`.
    """
    tensors = {name: getattr(personal, name) for name in _BY_USER}
    facts = {"student": student, "share": personal.share, "users": personal.users}
    tensors["facts"] = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
    if personal.organisation is not None:
        tensors |= _organisation_tensors(personal.organisation)
    whole = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    write_vault(path, save(whole), LABEL, key)


def read_personal(
    path: Path, student: str, key: Key | None, shape: tuple[int, int] | None = None
) -> Personal:
    """What :func:`write_personal` stored, every tensor checked before it is used.

    Args:
        student: of :func:`student_digest`.
        shape: of the axes in use (``taste.directions``): items and directions.
            ``None`` checks the tensors against each other alone.

    Raises:
        ConfigError: if there is none.
        OtherStudent: if it belongs to another one.
        DataFormatError: if it is damaged or the key is another.
    """
    content = read_vault(path, LABEL, key)
    try:
        tensors = load(content)
        facts = json.loads(tensors["facts"].tobytes())
        found = Personal(
            users=_users(facts["users"]),
            organisation=_organisation(tensors),
            share=_share(facts["share"]),
            **{name: tensors[name] for name in _BY_USER},
        )
        theirs = facts["student"]
        sound = _is_sound(found, shape) and isinstance(theirs, str)
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise DataFormatError(f"{path.name}: expected personal parameters.")
    if theirs != student:
        raise OtherStudent(
            f"{path.name} belongs to another student; run `personalise` again."
        )
    return found


def _organisation_tensors(model: Organisation) -> dict[str, FloatArray]:
    return {
        "left.data": model.left.data,
        "left.indices": model.left.indices.astype(np.int32),
        "left.indptr": model.left.indptr.astype(np.int64),
        "right": model.right,
        "diagonal": model.diagonal,
    }


def _organisation(tensors: dict[str, FloatArray]) -> Organisation | None:
    if set(tensors) == {*_BY_USER, "facts"}:
        return None
    right, diagonal = tensors["right"], tensors["diagonal"]
    parts = tuple(tensors[f"left.{name}"] for name in ("data", "indices", "indptr"))
    kinds = tuple(part.dtype for part in (*parts, right, diagonal))
    if kinds != _KINDS or diagonal.ndim != 1 or right.shape[1:] != diagonal.shape:
        raise ValueError("Expected another shape or kind of numbers.")
    left = sound_csr(*parts, shape=(len(diagonal), right.shape[0]))
    return Organisation(left, right, diagonal)


def _users(names: object) -> tuple[str, ...]:
    """Pseudonyms, each once."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("Expected a list of strings.")
    if len(set(names)) < len(names):
        raise ValueError("Expected each user once.")
    return tuple(names)


def _share(value: object) -> float:
    if not isinstance(value, float) or not 0 <= value <= 1:
        raise ValueError("Expected a share in [0, 1].")
    return value


def _is_sound(found: Personal, shape: tuple[int, int] | None) -> bool:
    """Whether lengths, kinds and values are such as were written."""
    shares, gains = (found.user_share, found.alpha), (found.before, found.after)
    lengths = all(each.shape == (len(found.users),) for each in (*shares, *gains))
    lengths &= found.taste.ndim == 2 and len(found.taste) == len(found.users)
    kinds = all(each.dtype == np.float32 for each in (*shares, *gains, found.taste))
    if not lengths or not kinds:
        return False
    values = all(((each >= 0) & (each <= 1)).all() for each in shares)
    values &= bool(np.isfinite(found.taste).all())
    # Who has nothing to leave out has no such figure.
    values &= not any(np.isinf(each).any() for each in gains)
    model = found.organisation
    if model is not None:
        parts = (model.left.data, model.right, model.diagonal)
        values &= all(np.isfinite(part).all() for part in parts)
    return values and (shape is None or _fits(found, shape))


def _fits(found: Personal, shape: tuple[int, int]) -> bool:
    num_items, num_directions = shape
    model = found.organisation
    items = model is None or len(model.diagonal) == num_items
    return items and found.taste.shape[1] == num_directions
