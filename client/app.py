"""The client's Flower app: wiring only.

Settings → message → charge → rows → training → update, behind the exit door.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.data import ClientData, read_client_data
from client.ledger import charge
from client.randomness import stream
from client.release import exit_door
from client.settings import ClientSettings, locate, read_settings
from client.train import Streams, mechanism_of
from client.train import train as train_student
from common import wire
from common.accounting import noise_multiplier, planned_event
from common.config import RunConfig, parse
from common.errors import ProtocolError
from common.soft_labels import SoftLabels, check
from common.student import Student, build, shapes, spec_of

app = ClientApp()


@app.train(mods=[exit_door])
def train(message: Message, context: Context) -> Message:
    """Train one round and reply with the update.

    The charge comes before the first look at a private row.
    """
    config = parse(context.run_config)
    folder = locate(context)
    settings = read_settings(folder)
    header = wire.unpack_header(message.content)
    noise = noise_multiplier(config.privacy, config.total_steps)
    event = planned_event(config.privacy, noise, config.training.local_steps)
    planned = planned_event(config.privacy, noise, config.total_steps)
    charge(context, header.number, event, planned, settings)
    data = read_client_data(folder)
    student = _student(message, config, data, header)
    update = train_student(
        student,
        data.histories,
        _labels(message, data),
        config,
        mechanism_of(config, noise),
        _streams(settings, folder, header),
    )
    content = RecordDict({wire.UPDATE: wire.pack_state(update)})
    return Message(content, reply_to=message)


@app.evaluate(mods=[exit_door])
def evaluate(message: Message, context: Context) -> Message:
    """Refuse: metrics on private rows are releases, and none is promised yet."""
    raise ProtocolError("Expected a training message.")


@app.query(mods=[exit_door])
def query(message: Message, context: Context) -> Message:
    """Refuse: there is nothing to ask a client."""
    raise ProtocolError("Expected a training message.")


def _student(
    message: Message, config: RunConfig, data: ClientData, header: wire.RoundHeader
) -> Student:
    if header.catalogue != data.catalogue.digest:
        raise ProtocolError(
            "Expected the catalogue declared to this client, got another's digest."
        )
    spec = spec_of(config.student, data.catalogue.num_items)
    state = wire.unpack_state(message.content, wire.STUDENT, shapes(spec))
    return build(spec, state).to(config.run.device)


def _labels(message: Message, data: ClientData) -> SoftLabels | None:
    labels = wire.unpack_soft_labels(message.content)
    if labels is not None:
        check(labels, data.catalogue.num_items)
    return labels


def _streams(
    settings: ClientSettings, folder: Path, header: wire.RoundHeader
) -> Streams:
    """One stream a purpose; a seeded one differs by client and round."""
    place = (folder.name, str(header.number))
    return Streams(
        sampling=stream(settings.seed, *place, "sampling"),
        masking=stream(settings.seed, *place, "masking"),
        noise=stream(settings.seed, *place, "noise"),
    )
