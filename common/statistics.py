"""Statistics of which items go together: what is asked for, and what comes back.

In ``common`` because both ends must agree on it. A client adds noise to them
(``client/statistics.py``), the server makes a teacher of them
(``server/refinement.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, RecordDict
from flwr.common import Array

from common.errors import ProtocolError
from common.wire import DIRECTIONS, ITEMS, PAIRS, SKETCH_SUM, unpack_state

FloatArray = npt.NDArray[np.float32]
Chosen = npt.NDArray[np.bool_]

#: Directions of a sketch at most, and how large a number in one may be.
MOST_DIRECTIONS, LARGEST = 256, 1e6


@dataclass(frozen=True)
class Pairs:
    """Noised sums over users, of the m chosen items.

    Attributes:
        counts: float32 ``[m]``.
        pairs: above the diagonal, row by row, float32 ``[m (m − 1) / 2]``.
    """

    counts: FloatArray
    pairs: FloatArray


def pair_shapes(num_chosen: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of :class:`Pairs`."""
    return {"counts": (num_chosen,), "pairs": (num_chosen * (num_chosen - 1) // 2,)}


def sketch_shapes(num_chosen: int, num_directions: int) -> dict[str, tuple[int, ...]]:
    """Shape of a sketch."""
    return {"sketch": (num_chosen, num_directions)}


def pack_items(chosen: Chosen) -> ArrayRecord:
    """Which items count, bool ``[n]``."""
    return ArrayRecord({"chosen": Array(chosen.astype(np.float32))})


def unpack_items(content: RecordDict, num_items: int | None = None) -> Chosen:
    """Which items count.

    Args:
        num_items: how many items there must be; ``None`` for any number.

    Raises:
        ProtocolError: if that is missing, of another shape, no yes or no, or there
            are fewer than two.
    """
    record = content.array_records.get(ITEMS)
    if num_items is None and record is not None and "chosen" in record:
        num_items = int(np.prod(record["chosen"].shape))
    found = unpack_state(content, ITEMS, {"chosen": (num_items or 0,)})["chosen"]
    chosen = found.numpy() == 1
    if chosen.sum() < 2 or not (chosen | (found.numpy() == 0)).all():
        raise ProtocolError("Expected ones for at least two chosen items, else zeros.")
    return np.asarray(chosen)


def pack_directions(directions: FloatArray) -> ArrayRecord:
    """Directions of a sketch, float32 ``[m, q]``."""
    return ArrayRecord({"directions": Array(directions)})


def unpack_directions(content: RecordDict, num_chosen: int) -> FloatArray:
    """The directions of a message.

    Raises:
        ProtocolError: if they are missing, of another shape, too many or too large.
    """
    record = content.array_records.get(DIRECTIONS)
    shape = (
        () if record is None else tuple(getattr(record.get("directions"), "shape", ()))
    )
    if len(shape) != 2 or not 1 <= shape[1] <= MOST_DIRECTIONS:
        raise ProtocolError(f"Expected 1 to {MOST_DIRECTIONS} directions of a sketch.")
    shapes = {"directions": (num_chosen, int(shape[1]))}
    found: FloatArray = unpack_state(content, DIRECTIONS, shapes)["directions"].numpy()
    if np.abs(found).max() > LARGEST:
        raise ProtocolError(f"Expected directions of numbers up to {LARGEST:g}.")
    return found


def pack_pairs(found: Pairs) -> ArrayRecord:
    """Counts and pairs of a reply."""
    return ArrayRecord({"counts": Array(found.counts), "pairs": Array(found.pairs)})


def unpack_pairs(content: RecordDict, num_chosen: int) -> Pairs:
    """Counts and pairs of a reply.

    Raises:
        ProtocolError: if they are missing, of another shape or not finite.
    """
    found = unpack_state(content, PAIRS, pair_shapes(num_chosen))
    return Pairs(found["counts"].numpy(), found["pairs"].numpy())


def pack_sketch(sketch: FloatArray) -> ArrayRecord:
    """A sketch, float32 ``[m, q]``."""
    return ArrayRecord({"sketch": Array(sketch)})


def unpack_sketch(
    content: RecordDict, num_chosen: int, num_directions: int
) -> FloatArray:
    """The sketch of a reply.

    Raises:
        ProtocolError: if it is missing, of another shape or not finite.
    """
    shapes = sketch_shapes(num_chosen, num_directions)
    found: FloatArray = unpack_state(content, SKETCH_SUM, shapes)["sketch"].numpy()
    return found
