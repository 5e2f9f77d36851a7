"""Compression of a trained student: fewer dimensions, fewer items, eight bits.

In ``common`` because it sees only its arguments: an operator compresses what was
released, a device may compress what it received. All of it is post-processing of a
released student, so it costs no privacy, as long as what chooses the items is public:
the released tables themselves, or public popularity, never private rows.

Dimensions: the product of both item tables is what scores; its truncated SVD is the
best of lower rank in Frobenius norm (Eckart & Young 1936), and costs two thin QR
decompositions, never an items × items matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from common.errors import ConfigError, DataFormatError
from common.interactions import FloatArray
from common.student import StateDict, Student, StudentSpec, build, shapes

ENCODER, DECODER, BIAS = "encoder.weight", "decoder.weight", "decoder.bias"


@dataclass(frozen=True)
class Compact:
    """A student over some items of a catalogue.

    Attributes:
        spec: of the small student; its ``num_items`` counts the kept items.
        state: the small student's tensors.
        kept: dense ids of its items in the catalogue, int64, ascending.
        catalogue_size: items of the whole catalogue.
    """

    spec: StudentSpec
    state: StateDict
    kept: Tensor
    catalogue_size: int

    @property
    def is_whole(self) -> bool:
        """Whether every item of the catalogue is kept."""
        return self.spec.num_items == self.catalogue_size


def whole(spec: StudentSpec, state: Mapping[str, Tensor]) -> Compact:
    """A student before any compression.

    Raises:
        DataFormatError: if a tensor has another shape than ``spec`` says, or holds
            NaN or infinity.
    """
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if found != shapes(spec):
        raise DataFormatError(f"Expected tensors {shapes(spec)}, got {found}.")
    if not all(bool(tensor.isfinite().all()) for tensor in state.values()):
        raise DataFormatError("Expected finite tensors, got NaN or infinity.")
    kept = torch.arange(spec.num_items)
    return Compact(spec, dict(state), kept, spec.num_items)


def prune_dimensions(student: Compact, keep: int) -> Compact:
    """The student of ``keep`` dimensions whose item-item product is the nearest.

    With ``keep`` equal to the student's own dimension its scores stay as they are
    (up to rounding); both tables get columns ordered by singular value.

    Args:
        keep: in 1 … min(dim, number of items).

    Raises:
        ConfigError: if ``keep`` is out of this range.
    """
    most = min(student.spec.dim, student.spec.num_items)
    _check_range("dims", keep, most)
    encoder_basis, encoder_rest = torch.linalg.qr(student.state[ENCODER].double().T)
    decoder_basis, decoder_rest = torch.linalg.qr(student.state[DECODER].double())
    left, values, right = torch.linalg.svd(encoder_rest @ decoder_rest.T)
    root = values[:keep].sqrt()
    encoder = encoder_basis @ left[:, :keep] * root
    decoder = decoder_basis @ right[:keep].T * root
    tables = {ENCODER: encoder.T.float().contiguous(), DECODER: decoder.float()}
    return replace(
        student,
        spec=replace(student.spec, dim=keep),
        state={name: tables.get(name, student.state[name]) for name in student.state},
    )


def item_energy(student: Compact) -> Tensor:
    """What an item adds to the item-item product: float64 ``[num_items]``.

    The root of the summed squares of its row (what it says of others as history) and
    its column (what others say of it as candidate). It depends on the product alone,
    so rotating both tables, as :func:`prune_dimensions` does, leaves it as it is.
    """
    encoder = student.state[ENCODER].double()
    decoder = student.state[DECODER].double()
    rows = (encoder * (decoder.T @ decoder @ encoder)).sum(dim=0)
    columns = (decoder * (decoder @ (encoder @ encoder.T))).sum(dim=1)
    return (rows + columns).clamp(min=0.0).sqrt()


def prune_rows(student: Compact, keep: int, importance: Tensor) -> Compact:
    """The student over its ``keep`` most important items.

    A dropped item is out of the history's tables and out of the candidates: it
    counts in a history's length, since whoever holds the history knows it, and its
    own score is −∞, so it is never recommended.

    Args:
        keep: in 1 … number of items.
        importance: ``[num_items]``, finite and PUBLIC, such as :func:`item_energy`;
            ties go to the lower id.

    Raises:
        ConfigError: if ``keep`` is out of range or ``importance`` has another shape
            or a value that is not finite.
    """
    _check_range("items", keep, student.spec.num_items)
    if importance.shape != student.kept.shape or not importance.isfinite().all():
        raise ConfigError(
            f"importance: expected {student.spec.num_items} finite numbers, one an "
            f"item, got shape {tuple(importance.shape)}."
        )
    order = importance.argsort(descending=True, stable=True)
    chosen = order[:keep].sort().values
    state = {
        ENCODER: student.state[ENCODER][:, chosen].contiguous(),
        DECODER: student.state[DECODER][chosen],
        BIAS: student.state[BIAS][chosen],
    }
    spec = replace(student.spec, num_items=keep)
    return replace(student, spec=spec, state=state, kept=student.kept[chosen])


class CompactStudent(nn.Module):
    """A compact student that speaks of the whole catalogue, as a full one does.

    The history is divided by its length *after* the encoder: the same function, and
    ones and zeros reach the first table, which eight bits hold exactly.
    """

    kept: Tensor
    place: Tensor

    def __init__(self, compact: Compact) -> None:
        super().__init__()
        self.compact = compact
        self.student: Student = build(compact.spec, compact.state)
        place = torch.full((compact.catalogue_size,), compact.spec.num_items)
        place[compact.kept] = torch.arange(compact.spec.num_items)
        self.register_buffer("kept", compact.kept.to(torch.int32))
        self.register_buffer("place", place.to(torch.int32))

    def forward(self, history: Tensor) -> Tensor:
        """Scores of every item of the catalogue.

        Args:
            history: float32 ``[B, catalogue_size]``, multi-hot; empty rows allowed.

        Returns:
            float32 ``[B, catalogue_size]``; −∞ for dropped items.
        """
        spec = self.compact.spec
        length = history.sum(dim=1, keepdim=True).clamp(min=1.0)
        if not self.compact.is_whole:
            history = history.index_select(1, self.kept)
        user: Tensor = self.student.encoder(history)
        user = user * (spec.logit_scale / length**spec.history_exponent)
        scores: Tensor = self.student.decoder(user)
        if self.compact.is_whole:
            return scores
        dropped = torch.full_like(length, -torch.inf)
        return torch.cat([scores, dropped], dim=1).index_select(1, self.place)

    def score(self, history: FloatArray) -> FloatArray:
        """:meth:`forward` on NumPy arrays, without gradients."""
        with torch.no_grad():
            scores: FloatArray = self(torch.from_numpy(history)).numpy()
        return scores


def quantise(table: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Eight bits an entry, symmetric, one scale for each index of ``axis``.

    Args:
        table: float32 matrix, finite.
        axis: 0 for a scale a row, 1 for a scale a column.

    Returns:
        int8 of ``table``'s shape in −127 … 127, and float32 scales ``[k, 1]`` or
        ``[1, k]``: the table is their product, to half a scale an entry.
    """
    largest = table.abs().amax(dim=1 - axis, keepdim=True)
    scale = torch.where(largest > 0, largest / 127, torch.ones_like(largest))
    return (table / scale).round().clamp(-127, 127).to(torch.int8), scale


def dequantise(levels: Tensor, scale: Tensor) -> Tensor:
    """The float32 table that :func:`quantise` stands for."""
    return levels.float() * scale


def _check_range(name: str, keep: int, most: int) -> None:
    if not 1 <= keep <= most:
        raise ConfigError(f"{name}: expected 1 to {most}, got {keep}.")
