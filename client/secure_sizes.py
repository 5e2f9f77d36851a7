"""How many bytes a step of a secure sum may send: a part of the exit door.

Client only. Sizes follow from the question and the run's public configuration, like
the shapes of other answers, and never from what the app made: nothing can ride along.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from flwr.app import RecordDict

from common import wire
from common.config import RunConfig
from common.errors import ProtocolError
from common.integer_noise import policy_of
from common.secagg.bounds import choose_shape
from common.secagg.frames import HEAD, SIGNATURE
from common.secagg.messages import SEALED
from common.secagg.shares import SHARE_BYTES
from common.secure_round import num_parameters, secure_round

#: A number of a member, before what is told of it.
_MEMBER = 4


def check_size(kind: str, size: int, asked: RecordDict, config: RunConfig) -> None:
    """Refuse an answer of another size than the question calls for.

    Args:
        kind: of ``wire.SECURE``.
        size: bytes of the answer's one array.
        asked: the question's records, which the app has found in order.

    Raises:
        ProtocolError: if it is another.
    """
    if size - HEAD not in SIZES[kind](asked, config):
        raise ProtocolError("Expected an answer of the size that was asked for.")


def _advert(asked: RecordDict, config: RunConfig) -> range:
    """Four public keys or digests, signed."""
    return _exactly(4 * 32 + SIGNATURE)


def _parcels(asked: RecordDict, config: RunConfig) -> range:
    """Two sealed shares and their digests for each neighbour in this cohort."""
    told = wire.unpack_bytes(asked, wire.TOLD)
    (members,) = struct.unpack_from(">I", told, HEAD)
    degree = choose_shape(policy_of(config), members).degree
    return _exactly(degree * (SEALED + 2 * 32))


def _masked(asked: RecordDict, config: RunConfig) -> range:
    """As many packed integers as the student that came has numbers."""
    arrays = asked.array_records[wire.STUDENT].values()
    dim = num_parameters(tuple(array.shape) for array in arrays)
    header = wire.unpack_header(asked)
    terms = secure_round(config, dim, header.run, header.number).terms
    return _exactly(terms.ring.packed_size(dim))


def _confirmation(asked: RecordDict, config: RunConfig) -> range:
    return _exactly(SIGNATURE)


def _revealed(asked: RecordDict, config: RunConfig) -> range:
    """A seed, and a share of each neighbour that had shared: the server knows who."""
    each = _MEMBER + SHARE_BYTES
    return range(SHARE_BYTES, SHARE_BYTES + config.secagg.clients * each, each)


def _exactly(size: int) -> range:
    return range(size, size + 1)


SIZES: dict[str, Callable[[RecordDict, RunConfig], range]] = {
    wire.ADVERTS: _advert,
    wire.SHARES: _parcels,
    wire.MASKED: _masked,
    wire.CONFIRM: _confirmation,
    wire.REVEAL: _revealed,
}
