"""One file of facts and tensors, with a digest over all of it.

Server only: the form of what a run resumes from. Safetensors, with the facts as JSON
in its metadata; never pickle. A digest, since a file can be of the right length and
still not be what was written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import save
from safetensors.torch import load

from common.errors import DataFormatError
from common.student import StateDict

FORMAT = "tutela-checkpoint-1"
_FORMATS = re.compile(r"tutela-checkpoint-[0-9]+")

#: What reading a file raises that is not whole.
UNREADABLE = (
    OSError,
    SafetensorError,
    ValueError,
    KeyError,
    AttributeError,
    OverflowError,
    MemoryError,
)


def encode(facts: Mapping[str, Any], groups: Mapping[str, StateDict]) -> bytes:
    """Facts and tensors as one safetensors file with a digest over both."""
    arrays = {
        f"{group}/{name}": array
        for group, state in groups.items()
        for name, array in arrays_of(state).items()
    }
    text = json.dumps(facts)
    metadata = {"format": FORMAT, "facts": text, "digest": _digest(text, arrays)}
    return save(arrays, metadata)


def decode(path: Path) -> tuple[dict[str, Any], dict[str, StateDict]] | None:
    """What :func:`encode` made, ``None`` if the file is not whole.

    Raises:
        DataFormatError: if it is whole and of another format.
    """
    try:
        content = path.read_bytes()
        metadata, tensors = _metadata(content), load(content)
        _check_format(path, metadata)
        text, digest = metadata["facts"], metadata["digest"]
    except UNREADABLE:
        return None
    if _digest(text, arrays_of(tensors)) != digest:
        return None
    facts: dict[str, Any] = json.loads(text)
    # In memory of torch's own, in the order that they had.
    groups = {
        group: {name: tensors[f"{group}/{name}"].clone() for name in names}
        for group, names in facts["names"].items()
    }
    return facts, groups


def read_facts(path: Path) -> dict[str, Any]:
    """A file's facts, from its header alone and unchecked; none if it has none."""
    try:
        with path.open("rb") as file:
            size = file.read(8)
            header = size + file.read(int.from_bytes(size, "little"))
        facts: dict[str, Any] = json.loads(_metadata(header)["facts"])
    except UNREADABLE:
        return {}
    return facts


def arrays_of(state: StateDict) -> dict[str, npt.NDArray[Any]]:
    """A state's tensors as arrays, whole in memory."""
    return {name: np.ascontiguousarray(each.numpy()) for name, each in state.items()}


def _metadata(content: bytes) -> dict[str, str]:
    """A safetensors file begins with eight bytes of length and a JSON header."""
    size = int.from_bytes(content[:8], "little")
    found = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    return {str(key): str(value) for key, value in found.items()}


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    found = metadata["format"]
    if found != FORMAT and _FORMATS.fullmatch(found):
        raise DataFormatError(
            f"{path}: expected format {FORMAT}, got {found!r}; resume with the "
            "version of Tutela that wrote it."
        )


def _digest(text: str, arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    digest = hashlib.sha256(text.encode())
    for name, values in sorted(arrays.items()):
        place = [name, str(values.dtype), list(values.shape)]
        digest.update(json.dumps(place).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
