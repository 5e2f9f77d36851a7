"""What a message holds: record names, and how records become our types.

In ``common`` because both ends must agree on it. Arrays travel in Flower's
``ArrayRecord``s under their own names, so a state dict is never renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.common import Array
from torch import Tensor

from common.errors import ProtocolError
from common.soft_labels import SoftLabels
from common.student import StateDict

#: Raised when the meaning of a record changes; both ends refuse another version.
PROTOCOL_VERSION = 1

STUDENT = "student"
SOFT_LABELS = "soft_labels"
UPDATE = "update"
ROUND = "round"


@dataclass(frozen=True)
class RoundHeader:
    """Public facts of a round, sent with it and echoed by the reply.

    Attributes:
        run: the run's id, as text (Flower's ids exceed int64).
        number: the round, from 1.
        catalogue: digest of the declared catalogue.
    """

    run: str
    number: int
    catalogue: str


def pack_header(header: RoundHeader) -> ConfigRecord:
    """The header as a record."""
    return ConfigRecord(
        {
            "protocol": PROTOCOL_VERSION,
            "run": header.run,
            "round": header.number,
            "catalogue": header.catalogue,
        }
    )


def unpack_header(content: RecordDict) -> RoundHeader:
    """The header of a message.

    Raises:
        ProtocolError: if it is missing, incomplete or of another version.
    """
    record = content.config_records.get(ROUND)
    if record is None:
        raise ProtocolError(f"Expected a record {ROUND!r} in the message.")
    version = record.get("protocol")
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"Expected protocol version {PROTOCOL_VERSION}, got {version!r}; "
            "update the older side."
        )
    run, number = record.get("run"), record.get("round")
    catalogue = record.get("catalogue")
    if not (
        isinstance(run, str) and isinstance(number, int) and isinstance(catalogue, str)
    ):
        raise ProtocolError("Expected run, round and catalogue in the round header.")
    return RoundHeader(run, number, catalogue)


def pack_state(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Tensors under their own names."""
    return ArrayRecord(
        {name: Array(tensor.detach().cpu().numpy()) for name, tensor in state.items()}
    )


def unpack_state(
    content: RecordDict, record: str, shapes: Mapping[str, tuple[int, ...]]
) -> StateDict:
    """The tensors of ``record``: exactly these names and shapes, float32, finite.

    Raises:
        ProtocolError: naming the record and the tensor that does not fit.
    """
    arrays = content.array_records.get(record)
    if arrays is None:
        raise ProtocolError(f"Expected an array record {record!r} in the message.")
    if set(arrays) != set(shapes):
        raise ProtocolError(
            f"Expected tensors {sorted(shapes)} in {record!r}, got {len(arrays)} "
            "of other names."
        )
    return {name: _tensor(arrays[name], record, name, shapes[name]) for name in shapes}


def _tensor(array: Array, record: str, name: str, expected: tuple[int, ...]) -> Tensor:
    values = _decoded(array)
    if values.shape != expected or values.dtype != np.float32:
        raise ProtocolError(
            f"{record}/{name}: expected float32 {expected}, "
            f"got {values.dtype} {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ProtocolError(f"{record}/{name}: expected finite values, got others.")
    # Memory of torch's own alignment: the last bits of a product depend on it.
    return torch.tensor(values)


def _decoded(array: Array) -> npt.NDArray[Any]:
    """The array's values, whatever bytes the other side calls an array."""
    try:
        return array.numpy()
    except Exception as error:
        raise ProtocolError("Expected readable arrays, got others.") from error


def pack_soft_labels(labels: SoftLabels) -> ArrayRecord:
    """Soft labels as arrays: histories in CSR form, codes as int8."""
    parts = {
        "indptr": labels.proxy.indptr.astype(np.int64),
        "indices": labels.proxy.indices.astype(np.int32),
        "shape": np.asarray(labels.proxy.shape, dtype=np.int64),
        "item": labels.item,
        "logit": labels.logit,
        "scale": labels.scale,
        "centre": labels.centre,
    }
    return ArrayRecord({name: Array(values) for name, values in parts.items()})


def unpack_soft_labels(content: RecordDict) -> SoftLabels | None:
    """The soft labels of a message, or ``None`` where it has none.

    Raises:
        ProtocolError: if arrays are missing or do not form a sparse matrix.
    """
    arrays = content.array_records.get(SOFT_LABELS)
    if arrays is None:
        return None
    try:
        parts = {name: _decoded(array) for name, array in arrays.items()}
        ones = np.ones(len(parts["indices"]), dtype=np.float32)
        rows, columns = (int(size) for size in parts["shape"])
        proxy = sp.csr_matrix(
            (ones, parts["indices"], parts["indptr"]), shape=(rows, columns)
        )
        proxy.check_format(full_check=True)
        return SoftLabels(
            proxy, parts["item"], parts["logit"], parts["scale"], parts["centre"]
        )
    except (KeyError, ValueError) as error:
        raise ProtocolError("Expected whole soft labels in the message.") from error


def num_bytes(content: RecordDict) -> int:
    """Payload bytes of a message's records, without Flower's framing."""
    arrays = sum(record.count_bytes() for record in content.array_records.values())
    configs = sum(record.count_bytes() for record in content.config_records.values())
    return arrays + configs
