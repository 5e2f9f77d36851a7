"""What a message asks for, in public numbers: the charge it would make.

Client only. It reads the message, the run's configuration and the client's settings,
and never a private row: a refusal can depend on none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flwr.app import Context, Message

from client.budget import check_consent, exceeds
from client.chain import Charge
from client.settings import ClientSettings, locate, read_settings
from client.store_key import FEEDBACK, check_store
from client.trust import check_trust
from common import wire
from common.catalogue import Catalogue, read_catalogue
from common.config import RunConfig, parse, to_flat
from common.errors import BudgetExhausted, ConfigError, ProtocolError
from common.folders import CATALOGUE, INTERACTIONS
from common.interactions import FloatArray
from common.plan import (
    noise_multiplier,
    planned_events,
    planned_releases,
    releases,
)
from common.signature import check_signature
from common.soft_labels import SoftLabels, check
from common.statistics import Chosen, unpack_directions, unpack_items
from common.student import Student, build, is_bounded, shapes, spec_of

#: What costs nothing: no private row is read for an answer.
FREE = (wire.DELIVER, wire.SHARES, wire.CONFIRM, wire.REVEAL)
#: What a secure sum is charged as, once a round: with the masked vector.
PURPOSES = {wire.ADVERTS: wire.TRAIN, wire.MASKED: wire.TRAIN}


@dataclass(frozen=True)
class Request:
    """A message whose sender the client consented to.

    Attributes:
        charge: what an answer costs; ``None`` where nothing private leaves.
        announced: what the answer to a later step of this round will cost: refused
            now if it would be refused then, and not charged.
        check: refuses what could not be answered, before it is charged; a message that
            was charged is answered from what was kept, and not checked again.
    """

    folder: Path
    settings: ClientSettings
    header: wire.RoundHeader
    kind: str
    config: RunConfig
    charge: Charge | None
    announced: Charge | None = None
    check: Callable[[], None] = lambda: None


def read_request(message: Message, context: Context) -> Request:
    """Read a message as far as its public facts.

    Raises:
        NoConsent: if the client's owner named neither the run nor its server, or the
            run trusts others more than the owner does.
        ProtocolError: if the message does not fit the protocol or its signature.
        ConfigError: if settings or configuration are damaged, rows or the store's key
            are missing, or this machine has not the device that the run asks for.
    """
    folder = locate(context)
    settings = read_settings(folder, context.node_config)
    config = _config(context)
    header = wire.unpack_header(message.content)
    kind = message.metadata.message_type
    if header.server:
        check_signature(header, kind, message.content, to_flat(config))
    if header.name != config.run.name:
        raise ProtocolError("Expected the run's own name in the header.")
    check_consent(settings, header.name, header.server)
    _check_sum(kind, config)
    if kind != wire.DELIVER:
        check_trust(settings, config)
    _check_content(message, config, folder)
    if kind in FREE:
        return Request(folder, settings, header, kind, config, None)
    _check_machine(config, folder, settings)
    charge = _affordable(header, PURPOSES.get(kind, kind), config, settings)
    if kind == wire.ADVERTS:
        return Request(folder, settings, header, kind, config, None, charge)
    check = _step_check(message, context, config, folder)
    return Request(folder, settings, header, kind, config, charge, check=check)


def _check_sum(kind: str, config: RunConfig) -> None:
    """What is to be summed in secret is never answered by itself."""
    summed = config.privacy.mode == "distributed"
    if summed and kind == wire.TRAIN:
        raise ProtocolError(
            "Expected the messages of a secure sum in mode distributed, got one that "
            "asks for this client's own update."
        )
    if kind in wire.SECURE and not summed:
        raise ProtocolError(
            "Expected the messages of a secure sum in mode distributed alone."
        )


def _config(context: Context) -> RunConfig:
    try:
        return parse(context.run_config)
    except ConfigError as error:
        raise ProtocolError(f"The run's configuration does not fit: {error}") from None


def _check_machine(config: RunConfig, folder: Path, settings: ClientSettings) -> None:
    """What would fail every round is not paid for: missing files, key or device.

    An empty table of rows is a file like any other; no row is looked at.
    """
    if not any((folder / each).is_file() for each in (INTERACTIONS, FEEDBACK)):
        raise ConfigError("Expected interactions in the client's folder, found none.")
    check_store(folder, settings.store_key)
    kind, _, index = config.run.device.partition(":")
    if kind == "cpu":
        return
    # Only now: a simulation of thousands of clients asks the driver for nothing.
    import torch

    if not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count():
        raise ConfigError("run.device: expected a device that this machine has.")


def _affordable(
    header: wire.RoundHeader, kind: str, config: RunConfig, settings: ClientSettings
) -> Charge:
    """The charge, unless the run aims at what no noise reaches: a refusal as well."""
    try:
        _check_target(config, settings)
        return _charge(header, kind, config, seeded=settings.seed is not None)
    except ConfigError as error:
        raise BudgetExhausted(f"The run cannot be charged: {error}") from None


def _check_target(config: RunConfig, settings: ClientSettings) -> None:
    """Calibrating for far more than any budget takes minutes: not for the asking."""
    privacy = config.privacy
    most = max((each.target_epsilon for each in settings.budget.values()), default=0.0)
    statistics = config.statistics
    asked = privacy.noise_multiplier == 0 and config.training.rounds > 0
    asked |= statistics.noise_multiplier == 0 and statistics.share > 0
    if not asked or privacy.mode == "off":
        return
    if privacy.target_epsilon > most:
        raise BudgetExhausted("The run aims at more than the client's budget.")
    beside = planned_releases(config, 0.0)
    beside.pop(wire.TRAIN, None)
    least = settings.least_noise_multiplier
    if any(event.noise_multiplier < least for event in beside.values()):
        raise BudgetExhausted("The run asks for less noise than this client has.")
    if exceeds(tuple(beside.values()), privacy.target_epsilon, privacy.delta):
        raise BudgetExhausted("The run's sums alone go beyond what it aims at.")


def student_of(message: Message, config: RunConfig, catalogue: Catalogue) -> Student:
    """The student that came, for the catalogue declared to this client.

    Raises:
        ProtocolError: if it is made for another catalogue, of another shape, not
            finite, or so large that it could overflow on some history.
    """
    _check_catalogue(message, catalogue)
    spec = spec_of(config.student, catalogue.num_items)
    state = wire.unpack_state(message.content, wire.STUDENT, shapes(spec))
    if not is_bounded(spec, state):
        raise ProtocolError(
            "Expected a student that cannot overflow, got large values."
        )
    return build(spec, state)


def labels_of(
    message: Message, config: RunConfig, catalogue: Catalogue
) -> SoftLabels | None:
    """The soft labels that came, if any.

    Raises:
        ProtocolError: if they do not fit the catalogue, or are more than announced.
    """
    labels = wire.unpack_soft_labels(message.content)
    if labels is not None:
        check(labels, catalogue.num_items)
        if len(labels.item) > config.distillation.most_labels:
            raise ProtocolError("Expected at most as many labels as announced.")
    return labels


def chosen_of(message: Message, config: RunConfig, catalogue: Catalogue) -> Chosen:
    """The items that count in a statistic, bool ``[n]``.

    Raises:
        ProtocolError: if they are of another catalogue, or more than announced.
    """
    _check_catalogue(message, catalogue)
    chosen = unpack_items(message.content, catalogue.num_items)
    if int(chosen.sum()) > config.statistics.most_items:
        raise ProtocolError("Expected at most statistics.most-items chosen items.")
    return chosen


def directions_of(message: Message, chosen: Chosen) -> FloatArray:
    """The directions of a sketch over the chosen items, float32 ``[m, q]``.

    Raises:
        ProtocolError: if they do not fit the items, are too many or too large.
    """
    return unpack_directions(message.content, int(chosen.sum()))


def _check_catalogue(message: Message, catalogue: Catalogue) -> None:
    if wire.unpack_header(message.content).catalogue != catalogue.digest:
        raise ProtocolError(
            "Expected the catalogue declared to this client, got another's digest."
        )


def _check_content(message: Message, config: RunConfig, folder: Path) -> None:
    """A message that could not be answered must not cost a charge."""
    catalogue = read_catalogue(folder / CATALOGUE)
    kind = message.metadata.message_type
    if kind in wire.SECURE and kind != wire.MASKED:
        _check_catalogue(message, catalogue)
        return
    if kind in (wire.STATISTICS, wire.SKETCH):
        chosen = chosen_of(message, config, catalogue)
        if kind == wire.SKETCH:
            directions_of(message, chosen)
        return
    student_of(message, config, catalogue)
    labels_of(message, config, catalogue)


def _step_check(
    message: Message, context: Context, config: RunConfig, folder: Path
) -> Callable[[], None]:
    """Whether this client is where a masked vector is called for."""
    if message.metadata.message_type != wire.MASKED:
        return lambda: None
    from client.secure_round import check_maskable

    items = read_catalogue(folder / CATALOGUE).num_items
    return partial(check_maskable, message, context, config, items)


def _charge(
    header: wire.RoundHeader, kind: str, config: RunConfig, *, seeded: bool
) -> Charge:
    noise = noise_multiplier(config)
    event = releases(config, noise, header.number).get(kind)
    if event is None:
        raise ProtocolError(
            "Expected a message that the run's own configuration announces."
        )
    return Charge(
        header.run,
        header.name,
        header.number,
        header.nonce,
        kind,
        event,
        planned_events(config, noise),
        seeded,
    )
