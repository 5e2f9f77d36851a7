"""Compact students as safetensors, and what every exported file says of itself.

In ``common`` because whoever compresses a released student writes such a file, and
whoever gets it reads it; torch and safetensors are all it takes. A whole student in
32 bits stays readable as a plain one (``common.student.load_student``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from common.compression import (
    BIAS,
    DECODER,
    ENCODER,
    Compact,
    dequantise,
    quantise,
)
from common.durable_files import write_durably
from common.errors import DataFormatError
from common.student import FORMAT as STUDENT_FORMAT
from common.student import StudentSpec, shapes
from common.versions import check_format

Precision = Literal["float32", "int8"]
COMPACT_FORMAT = "tutela-compact-1"
#: An exported file is meant to be handed on.
READABLE = 0o644
#: Each table's axis of items: in a file every item has a scale of its own.
_ITEM_AXIS = {ENCODER: 1, DECODER: 0}
_SCALE, _KEPT = ".scale", "kept"


@dataclass(frozen=True)
class Labels:
    """What a file says of itself beside its shape.

    Attributes:
        catalogue_digest: ``Catalogue.digest`` of the catalogue whose dense ids the
            file speaks; empty where unknown.
        promise: the whole sentence of the run's promise, or that nothing is known.
    """

    catalogue_digest: str
    promise: str


def save_compact(
    path: Path, student: Compact, labels: Labels, precision: Precision
) -> None:
    """Write safetensors; a whole float32 student stays readable as a plain one."""
    plain = student.is_whole and precision == "float32"
    tensors: dict[str, Tensor] = {BIAS: student.state[BIAS]}
    for name, axis in _ITEM_AXIS.items():
        tensors[name] = student.state[name].contiguous()
        if precision == "int8":
            tensors[name], tensors[name + _SCALE] = quantise(tensors[name], axis)
    if not student.is_whole:
        tensors[_KEPT] = student.kept.to(torch.int32)
    form = STUDENT_FORMAT if plain else COMPACT_FORMAT
    content = save(tensors, file_metadata(form, student, labels, precision))
    write_durably(path, content, READABLE)


def load_compact(path: Path, catalogue_digest: str | None = None) -> Compact:
    """Read what :func:`save_compact` or ``common.student.save_student`` wrote.

    Args:
        catalogue_digest: the catalogue the file has to speak of; None for any, and
            required of no file that names none.

    Raises:
        DataFormatError: if the file is missing, is no student, or is one over
            another catalogue.
    """
    if not path.is_file():
        raise DataFormatError(f"Expected a student at {path}, found no file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:
        raise DataFormatError(f"{path}: expected a safetensors file.") from None
    check_labels(path, metadata, (COMPACT_FORMAT, STUDENT_FORMAT), catalogue_digest)
    try:
        return _assemble(metadata, tensors)
    except (KeyError, ValueError, IndexError, RuntimeError):
        raise DataFormatError(f"{path}: expected a student, it is damaged.") from None


def file_metadata(
    form: str, student: Compact, labels: Labels, precision: Precision
) -> dict[str, str]:
    """What stands beside the tensors or the graph, as texts."""
    return {
        "format": form,
        "precision": precision,
        "num_items": str(student.catalogue_size),
        "kept_items": str(student.spec.num_items),
        "dim": str(student.spec.dim),
        "logit_scale": repr(student.spec.logit_scale),
        "history_exponent": repr(student.spec.history_exponent),
        "catalogue_digest": labels.catalogue_digest,
        "promise": labels.promise,
    }


def check_labels(
    path: Path,
    metadata: Mapping[str, str],
    formats: tuple[str, ...],
    catalogue_digest: str | None,
) -> None:
    """Refuse another format, and item ids of another catalogue.

    Raises:
        DataFormatError: saying which of the two.
    """
    check_format(str(path), metadata.get("format"), formats)
    named = metadata.get("catalogue_digest")
    if named and catalogue_digest and named != catalogue_digest:
        raise DataFormatError(
            f"{path}: expected a student over the catalogue {catalogue_digest[:12]}…, "
            f"got one over {named[:12]}…: its item ids mean other items."
        )


def _assemble(metadata: Mapping[str, str], tensors: dict[str, Tensor]) -> Compact:
    state = {
        name: dequantise(tensors[name], tensors[name + _SCALE])
        if name + _SCALE in tensors
        else tensors[name]
        for name in (ENCODER, DECODER, BIAS)
    }
    dim, kept_items = state[ENCODER].shape
    spec = StudentSpec(
        kept_items,
        dim,
        float(metadata["logit_scale"]),
        float(metadata["history_exponent"]),
    )
    kept = tensors.get(_KEPT, torch.arange(kept_items)).long()
    size = int(metadata.get("num_items", kept_items))
    ascending = bool((kept.diff() > 0).all()) and kept[0] >= 0 and kept[-1] < size
    fits = {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes(spec)
    if not (ascending and fits and len(kept) == kept_items):
        raise ValueError
    return Compact(spec, state, kept, size)
