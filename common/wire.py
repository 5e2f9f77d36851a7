"""What a message holds: record names, and how records become our types.

In ``common`` because both ends must agree on it. Arrays travel in Flower's
``ArrayRecord``s under their own names, so a state dict is never renamed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.common import Array
from torch import Tensor

from common.errors import ProtocolError
from common.interactions import sound_csr
from common.soft_labels import SoftLabels
from common.student import StateDict

#: Raised when the meaning of a record changes; both ends refuse another version.
PROTOCOL_VERSION = 3

#: Message types: what a client may be asked, as Flower names it.
TRAIN, EVALUATE, DELIVER = "train", "evaluate", "query.student"
STATISTICS, SKETCH = "train.statistics", "train.sketch"
#: And in mode ``distributed``, in place of ``TRAIN``: the steps of one secure sum.
ADVERTS, SHARES, MASKED = "train.adverts", "train.shares", "train.masked"
CONFIRM, REVEAL = "train.confirm", "train.reveal"
SECURE = (ADVERTS, SHARES, MASKED, CONFIRM, REVEAL)

STUDENT = "student"
SOFT_LABELS = "soft_labels"
UPDATE = "update"
METRICS = "metrics"
ITEMS = "items"
DIRECTIONS = "directions"
PAIRS = "pairs"
SKETCH_SUM = "sketch"
ROUND = "round"

#: Messages of ``common/secagg``: what a client is told, and what it answers.
TOLD = "told"
ADVERT, PARCELS, MASKED_VECTOR = "advert", "parcels", "masked"
CONFIRMATION, REVEALED = "confirmation", "revealed"

#: What a client's evaluation sums over its users: metrics, and a one for each user.
METRIC_NAMES = ("ndcg@10", "recall@20")
METRIC_SHAPES = {"sums": (len(METRIC_NAMES) + 1,)}

#: No user adds more than this in L2 norm: every metric at 1, and the one.
METRIC_NORM = math.sqrt(len(METRIC_NAMES) + 1)

#: In place of a receipt where nothing was charged: replies differ in no byte count.
NO_RECEIPT = "0" * 64


@dataclass(frozen=True)
class RoundHeader:
    """Public facts of a round, sent with it.

    Attributes:
        run: the run's id, as text (Flower's ids exceed int64).
        name: the run's name, by which a client may consent.
        number: the round, from 1.
        nonce: 32 hexadecimal digits; a client charges a nonce once.
        catalogue: digest of the declared catalogue.
        acknowledged: the last receipt that the server had of this client, or "".
        server: the server's public key, or "" where it signs nothing.
        signature: of this key over the message (``common/signature.py``).
    """

    run: str
    name: str
    number: int
    nonce: str
    catalogue: str
    acknowledged: str = ""
    server: str = ""
    signature: str = ""


@dataclass(frozen=True)
class ReplyHeader:
    """What a reply belongs to: an echo of the server's own facts, and a receipt.

    Attributes:
        receipt: hash of the ledger entry that paid for the reply, 64 hexadecimal
            digits. It covers a random salt, so that it tells nothing; the server
            sends it back with its next message.
    """

    run: str
    number: int
    nonce: str
    receipt: str = NO_RECEIPT


#: What each text of a header must look like.
_PATTERNS = {
    "run": r"[0-9]{1,20}",
    "name": r".{1,64}",
    "nonce": r"[0-9a-f]{32}",
    "catalogue": r"[0-9a-f]{64}",
    "acknowledged": r"([0-9a-f]{64})?",
    "server": r"([0-9a-f]{64})?",
    "signature": r"([0-9a-f]{128})?",
    "receipt": r"[0-9a-f]{64}",
}

#: What a receipt looks like, for those who keep it.
RECEIPT = re.compile(_PATTERNS["receipt"])


def pack_header(header: RoundHeader | ReplyHeader) -> ConfigRecord:
    """The header as a record; Flower cannot count the bytes of an empty text."""
    facts = {name: value for name, value in asdict(header).items() if value != ""}
    return ConfigRecord({"protocol": PROTOCOL_VERSION, **facts})


def unpack_header(content: RecordDict) -> RoundHeader:
    """The header of a server's message.

    Raises:
        ProtocolError: if it is missing, incomplete or of another version.
    """
    return RoundHeader(**_header(content, RoundHeader))


def unpack_reply_header(content: RecordDict) -> ReplyHeader:
    """The header of a client's reply.

    Raises:
        ProtocolError: if it is missing, incomplete or of another version.
    """
    return ReplyHeader(**_header(content, ReplyHeader))


def _header(
    content: RecordDict, kind: type[RoundHeader | ReplyHeader]
) -> dict[str, Any]:
    record = content.config_records.get(ROUND)
    if record is None:
        raise ProtocolError(f"Expected a record {ROUND!r} in the message.")
    version = record.get("protocol")
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise ProtocolError(_other_version(version))
    names = [each.name for each in fields(kind)]
    values = {name: record.get(name, "") for name in names}
    wrong = [name for name in names if not _fits(name, values[name])]
    if wrong:
        raise ProtocolError(f"Expected other values in the header: {wrong}.")
    return values


def _other_version(found: object) -> str:
    """Which side to update, if what came is a version at all."""
    text = f"Expected protocol version {PROTOCOL_VERSION}, got another"
    if type(found) is not int or not 0 < found < 1_000_000:
        return f"{text} or none; the sender is another program, or damaged."
    older = "sender" if found < PROTOCOL_VERSION else "receiver"
    return f"{text} ({found}); update the {older}, which is older."


def _fits(name: str, value: object) -> bool:
    if name == "number":
        return type(value) is int and 1 <= value < 2**31
    if not isinstance(value, str) or not value.isprintable():
        return False
    return re.fullmatch(_PATTERNS[name], value) is not None


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


def pack_bytes(data: bytes) -> ArrayRecord:
    """A message of ``common/secagg``, uint8 ``[bytes]``."""
    return ArrayRecord({"bytes": Array(np.frombuffer(data, dtype=np.uint8))})


def unpack_bytes(content: RecordDict, record: str) -> bytes:
    """What :func:`pack_bytes` packed; its size is looked at by whoever reads it.

    Raises:
        ProtocolError: if it is missing, or anything else than one row of bytes.
    """
    arrays = content.array_records.get(record)
    if arrays is None or set(arrays) != {"bytes"}:
        raise ProtocolError(f"Expected one array of bytes in a record {record!r}.")
    values = _decoded(arrays["bytes"])
    if values.dtype != np.uint8 or values.ndim != 1:
        raise ProtocolError(
            f"{record}/bytes: expected uint8 in one row, got {values.dtype} "
            f"{values.shape}."
        )
    return values.tobytes()


def pack_sums(sums: npt.NDArray[np.float32]) -> ArrayRecord:
    """Noised metric sums, float32 ``[len(METRIC_NAMES) + 1]``."""
    return ArrayRecord({"sums": Array(sums)})


def unpack_sums(content: RecordDict) -> npt.NDArray[np.float32]:
    """The noised metric sums of a reply.

    Raises:
        ProtocolError: if they are missing, of another shape or not finite.
    """
    sums: npt.NDArray[np.float32] = unpack_state(content, METRICS, METRIC_SHAPES)[
        "sums"
    ].numpy()
    return sums


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


def unpack_arrays(record: ArrayRecord) -> StateDict:
    """Tensors of a record of our own, whatever their names."""
    return {name: torch.tensor(_decoded(array)) for name, array in record.items()}


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
        proxy = sound_csr(
            ones, parts["indices"], parts["indptr"], shape=(rows, columns)
        )
        return SoftLabels(
            proxy, parts["item"], parts["logit"], parts["scale"], parts["centre"]
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ProtocolError("Expected whole soft labels in the message.") from error


def num_bytes(content: RecordDict) -> int:
    """Bytes of a message's arrays, by far most of it, whatever else it holds."""
    return sum(
        len(array.data)
        for record in content.array_records.values()
        for array in record.values()
    )
