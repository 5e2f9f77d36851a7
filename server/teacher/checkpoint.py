"""A teacher's file: trained once, used again over the same catalogue.

Safetensors with metadata, never pickle: a file from elsewhere can be wrong, but it
cannot run code. On the server, which is where teachers live.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from common.durable_files import write_durably
from common.errors import DataFormatError
from common.versions import check_format
from server.teacher import Teacher
from server.teacher.ease import Ease
from server.teacher.factors import Factors
from server.teacher.scoring import SequentialTeacher, from_tensors

FORMAT = "tutela-teacher-1"

Tensors = dict[str, Tensor]


def _ease(tensors: Tensors, metadata: dict[str, str]) -> Ease:
    del metadata
    weights = tensors["weights"]
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
        raise ValueError
    if "touched" not in tensors:
        return Ease(weights.numpy())
    items = np.flatnonzero(tensors["touched"].numpy()).astype(np.int64)
    if len(items) != len(weights):
        raise ValueError
    return Ease(weights.numpy(), items, len(tensors["touched"]))


def _transformer(tensors: Tensors, metadata: dict[str, str]) -> SequentialTeacher:
    return from_tensors(tensors, int(metadata["heads"]))


def _factors(tensors: Tensors, metadata: dict[str, str]) -> Factors:
    del metadata
    inputs, outputs = tensors["inputs"], tensors["outputs"]
    if inputs.ndim != 2 or inputs.shape != outputs.shape:
        raise ValueError
    return Factors(inputs.numpy(), outputs.numpy())


#: (tensors, metadata) → teacher, by the name in the file.
READERS: dict[str, Callable[[Tensors, dict[str, str]], Teacher]] = {
    "ease": _ease,
    "factors": _factors,
    "transformer": _transformer,
}


def save_teacher(path: Path, teacher: Teacher, catalogue_digest: str) -> None:
    """Write a teacher: the whole new file, or the old one.

    Args:
        path: ends in ``.safetensors`` by custom.
        teacher: one of ours.
        catalogue_digest: of the declared catalogue whose items its rows are.
    """
    name = "factors" if isinstance(teacher, Factors) else "ease"
    metadata = {"format": FORMAT, "catalogue": catalogue_digest, "name": name}
    if isinstance(teacher, SequentialTeacher):
        heads = str(teacher.encoder.shape.heads)
        metadata |= {"name": "transformer", "heads": heads}
    tensors = {
        name: torch.from_numpy(tensor).contiguous()
        for name, tensor in teacher.tensors().items()
    }
    write_durably(path, save(tensors, metadata))


def load_teacher(path: Path, catalogue_digest: str | None) -> Teacher:
    """Read what :func:`save_teacher` wrote.

    Args:
        path: the file.
        catalogue_digest: of the catalogue to score; ``None`` takes any.

    Raises:
        DataFormatError: naming the file, if it is missing, damaged, no teacher, or
            one of another catalogue.
    """
    metadata, tensors = _read(path)
    found = metadata.get("catalogue")
    if catalogue_digest is not None and found != catalogue_digest:
        raise DataFormatError(
            f"{path}: expected a teacher of catalogue {catalogue_digest[:12]}…, got "
            f"one of {str(found)[:12]}…; train it anew on this catalogue."
        )
    try:
        return READERS[metadata["name"]](tensors, metadata)
    except (KeyError, ValueError, RuntimeError, IndexError):
        raise DataFormatError(
            f"{path}: expected the tensors of one of {', '.join(READERS)}, got others."
        ) from None


def _read(path: Path) -> tuple[dict[str, str], Tensors]:
    if not path.is_file():
        raise DataFormatError(f"Expected a teacher at {path}, found no file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError):
        metadata, tensors = {}, {}
    check_format(str(path), metadata.get("format"), (FORMAT,))
    return metadata, tensors
