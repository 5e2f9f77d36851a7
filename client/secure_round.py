"""A round of mode ``distributed`` at a client: its steps, and what it keeps between.

Client only: the update is made here, and leaves masked. Between a round's messages the
protocol's state is in Flower's state of the run: a client that restarts has lost the
round, which no other device can tell from one that was switched off. Nothing of that
state is in any answer; the exit door builds those of one row of bytes each.

The whole local update is the clipped unit. Where the run declares one user a client,
a folder with more of them adds noise alone: removing one of two users would else turn
the update around, which is twice what a user is accounted for. So the promise holds
per user whatever folders hold, and nobody can tell, since noise alone is what clients
outside the sample send too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from flwr.app import ConfigRecord, Context, Message

from client import secagg
from client.data import ClientData
from client.known_roster import newest_roster
from client.randomness import RandomStream
from client.secagg_state import ClientState
from client.secure_lineage import check_last, remember
from client.settings import locate
from common import wire
from common.config import RunConfig
from common.durable_files import check_owners_alone
from common.errors import ConfigError, ProtocolError
from common.fixed_point import Float
from common.folders import AUTHORITY, IDENTITY_KEY, ROSTER
from common.integer_noise import contribution, in_sample
from common.secure_round import (
    SecureRound,
    num_parameters,
    secure_round,
    vector_of,
)
from common.student import Student, shapes, spec_of

#: In Flower's state of the run.
_KEPT, _STATE, _IDENTITY = "secagg", "state", "identity"

_log = logging.getLogger("tutela.client")

Draw = Callable[[str], RandomStream]


def kept_state(context: Context) -> ClientState | None:
    """What the last message of this run left.

    Raises:
        ProtocolError: if it is damaged.
    """
    data = _kept_bytes(context)
    return ClientState.from_bytes(data) if data else None


def begin(
    message: Message, context: Context, config: RunConfig, folder: Path, items: int
) -> bytes:
    """Advertise fresh keys for a round.

    Args:
        items: of the catalogue.

    Raises:
        ProtocolError: for a round that began before.
        ConfigError: if the identity's key, or a roster that is asked for, is missing.
    """
    found = _round(message, config, items)
    if config.secagg.roster:
        _roster(folder)
    identity = _identity(context, config, folder)
    before = kept_state(context)
    if before is not None and before.terms.run != found.terms.run:
        raise ProtocolError("Expected a round of the run that this client is in.")
    return _kept(context, secagg.advertise(before, found.terms, identity))


def share(message: Message, context: Context, config: RunConfig, folder: Path) -> bytes:
    """Share this round's secrets with the neighbours that the cohort gives.

    Raises:
        ProtocolError: see :func:`secagg.share`.
        ConfigError, DataFormatError: of the roster, where one is asked for.
    """
    state, told = _expected(message, context)
    roster = _roster(folder) if config.secagg.roster else None
    return _kept(context, secagg.share(state, told, roster))


def mask(
    message: Message,
    context: Context,
    config: RunConfig,
    data: ClientData,
    student: Student,
    draw: Draw,
) -> bytes:
    """Train, clip, encode, add a share of the noise, and mask.

    Args:
        draw: a stream of randomness by its purpose.

    Raises:
        ProtocolError: see :func:`secagg.mask`.
    """
    state, told = _expected(message, context)
    found = _round(message, config, data.catalogue.num_items)
    update: Float | None = _local_update(config, data, student, draw)
    # After training: a coin that spared the work would be told by the clock.
    if not in_sample(found.plan, draw("coin")) or not _fits(config, data):
        update = None
    vector = contribution(
        update, found.terms.length, found.plan, found.seed, draw("sum noise")
    )
    return _kept(context, secagg.mask(state, told, found.terms.ring.encode(vector)))


def confirm(
    message: Message, context: Context, config: RunConfig, folder: Path
) -> bytes:
    """Sign the list of survivors.

    Raises:
        ProtocolError: see :func:`secagg.confirm`.
    """
    state, told = _expected(message, context)
    identity = _identity(context, config, folder)
    return _kept(context, secagg.confirm(state, told, identity))


def reveal(message: Message, context: Context) -> bytes:
    """Tell one share of each neighbour.

    Raises:
        ProtocolError: see :func:`secagg.reveal`.
    """
    state, told = _expected(message, context)
    return _kept(context, secagg.reveal(state, told))


def check_maskable(
    message: Message, context: Context, config: RunConfig, items: int
) -> None:
    """Refuse, before it costs anything, a message that :func:`mask` could not answer.

    Args:
        items: of the catalogue.

    Raises:
        ProtocolError: for another round, or where the steps before it were not taken.
    """
    state, told = _expected(message, context)
    if state.terms != _round(message, config, items).terms:
        raise ProtocolError("Expected the terms of the run's own configuration.")
    secagg.accept_deliveries(state, told)


def _local_update(
    config: RunConfig, data: ClientData, student: Student, draw: Draw
) -> Float:
    """What the local steps change, as they come: neither clipped nor noised here.

    All rows are in every step. What the steps divide by is the declared, public size.
    """
    from client.dp import Mechanism
    from client.train import Streams, train

    plain = Mechanism(0.0, math.inf, 1.0, config.privacy.declared_users)
    streams = Streams(draw("sampling"), draw("masking"), draw("noise"))
    update = train(student, data.histories, None, config, plain, streams)
    return vector_of(update, student.spec)


def _fits(config: RunConfig, data: ClientData) -> bool:
    """Whether the folder keeps to the unit that is promised; only its log says so."""
    if config.privacy.declared_users > 1 or data.histories.shape[0] <= 1:
        return True
    _log.warning(
        "This client has several users where the run declares one a client "
        "(privacy.declared-users); it adds noise alone."
    )
    return False


def _round(message: Message, config: RunConfig, items: int) -> SecureRound:
    header = wire.unpack_header(message.content)
    dim = num_parameters(shapes(spec_of(config.student, items)).values())
    return secure_round(config, dim, header.run, header.number)


def _expected(message: Message, context: Context) -> tuple[ClientState, bytes]:
    """The state that this message goes on from, and what it tells."""
    header, data = wire.unpack_header(message.content), _kept_bytes(context)
    if not data:
        raise ProtocolError("Expected a round that this client began, got another.")
    state = ClientState.from_bytes(data)
    check_last(locate(context), state.terms.run, data)
    if (state.terms.run, state.terms.round) != (header.run, header.number):
        raise ProtocolError(
            f"Expected round {state.terms.round}, which this client is in, got round "
            f"{header.number} or another run."
        )
    return state, wire.unpack_bytes(message.content, wire.TOLD)


def _kept(context: Context, step: secagg.Step) -> bytes:
    """The reply, once the state that it leaves is kept."""
    data = step.state.to_bytes()
    remember(locate(context), step.state.terms.run, data)
    _record(context)[_STATE] = data
    return step.reply


def _kept_bytes(context: Context) -> bytes:
    data = _record(context).get(_STATE)
    return data if isinstance(data, bytes) else b""


def _record(context: Context) -> ConfigRecord:
    if _KEPT not in context.state.config_records:
        context.state[_KEPT] = ConfigRecord()
    return context.state.config_records[_KEPT]


def _roster(folder: Path) -> frozenset[bytes]:
    return newest_roster(folder / ROSTER, folder / AUTHORITY).identities


def _identity(context: Context, config: RunConfig, folder: Path) -> Ed25519PrivateKey:
    """The key in the folder; without one, and without a roster, one for this run."""
    path = folder / IDENTITY_KEY
    if path.is_file():
        check_owners_alone(path)
        try:
            key = load_pem_private_key(path.read_bytes(), None)
        except (ValueError, TypeError):
            key = None
        if isinstance(key, Ed25519PrivateKey):
            return key
        raise ConfigError(f"{path.name}: expected an Ed25519 private key in PEM.")
    if config.secagg.roster:
        raise ConfigError(
            f"secagg.roster: expected {IDENTITY_KEY} in the client's folder, found "
            "none; `tutela deploy init` makes one."
        )
    record = _record(context)
    found = record.get(_IDENTITY)
    if not isinstance(found, bytes):
        found = Ed25519PrivateKey.generate().private_bytes_raw()
        record[_IDENTITY] = found
    return Ed25519PrivateKey.from_private_bytes(found)
