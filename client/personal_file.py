"""Personal parameters on the device's disk: safetensors inside a vault.

Client only. Tied to the student they were fitted beside: a newer student moves the
scores that a taste was an offset of, and may have another shape.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError
from safetensors.numpy import load, save

from client.organisation import Organisation
from client.personal import Personal
from client.vault import Key, read_vault, write_vault
from common.errors import ConfigError, DataFormatError
from common.interactions import FloatArray

PERSONAL = "personal.vault"
LABEL = "tutela-personal-1"

_BY_USER = ("user_share", "alpha", "taste", "before", "after")


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


def read_personal(path: Path, student: str, key: Key | None) -> Personal:
    """What :func:`write_personal` stored.

    Raises:
        ConfigError: if there is none, or it belongs to another student.
        DataFormatError: if it is damaged or the key is another.
    """
    content = read_vault(path, LABEL, key)
    try:
        tensors = load(content)
        facts = json.loads(tensors["facts"].tobytes())
        found = Personal(
            users=tuple(facts["users"]),
            organisation=_organisation(tensors),
            share=float(facts["share"]),
            **{name: tensors[name] for name in _BY_USER},
        )
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise DataFormatError(f"{path.name}: expected personal parameters.") from None
    if facts["student"] != student:
        raise ConfigError(
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
    if "right" not in tensors:
        return None
    right, diagonal = tensors["right"], tensors["diagonal"]
    parts = tuple(tensors[f"left.{name}"] for name in ("data", "indices", "indptr"))
    left = sp.csr_matrix(parts, shape=(len(diagonal), right.shape[0]))
    # An index outside would be read outside.
    left.check_format(full_check=True)
    return Organisation(left, right, diagonal)
