"""The client's Flower app: wiring only, behind the exit door.

The door has charged a message before it gets here. Message → rows → answer. In a
deployment each message has a process of its own: what trains, and Opacus with it, is
imported by the messages that train.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, Message, RecordDict

from client.admission import chosen_of, directions_of, labels_of, student_of
from client.data import read_client_data
from client.randomness import RandomStream, stream
from client.release import DoorApp, exit_door
from client.settings import locate, read_settings
from client.statement import run_sentence
from client.statistics import pair_sums, sketch_sum
from common import wire
from common.catalogue import read_catalogue
from common.config import parse
from common.errors import ProtocolError
from common.folders import CATALOGUE, STUDENT
from common.plan import noise_multiplier, releases, statistics_noise
from common.statistics import pack_pairs, pack_sketch
from common.student import save_student

app = DoorApp()


@app.train(mods=[exit_door])
def train(message: Message, context: Context) -> Message:
    """Train one round and reply with the update."""
    from client.train import Streams, mechanism_of
    from client.train import train as train_student

    config = parse(context.run_config)
    folder = locate(context)
    data = read_client_data(folder)
    student = student_of(message, config, data.catalogue).to(config.run.device)
    draw = _streams(message, context)
    update = train_student(
        student,
        data.histories,
        labels_of(message, config, data.catalogue),
        config,
        mechanism_of(config, noise_multiplier(config)),
        Streams(draw("sampling"), draw("masking"), draw("noise")),
    )
    content = RecordDict({wire.UPDATE: wire.pack_state(update)})
    return Message(content, reply_to=message)


@app.train("adverts", mods=[exit_door])
def adverts(message: Message, context: Context) -> Message:
    """Begin a round of a secure sum: reply with fresh public keys."""
    from client.secure_round import begin

    config, folder = parse(context.run_config), locate(context)
    items = read_catalogue(folder / CATALOGUE).num_items
    reply = begin(message, context, config, folder, items)
    return _step(message, wire.ADVERT, reply)


@app.train("shares", mods=[exit_door])
def shares(message: Message, context: Context) -> Message:
    """Reply with shares of this round's secrets, sealed for the neighbours."""
    from client.secure_round import share

    reply = share(message, context, parse(context.run_config), locate(context))
    return _step(message, wire.PARCELS, reply)


@app.train("masked", mods=[exit_door])
def masked(message: Message, context: Context) -> Message:
    """Train one round and reply with the update, noised and masked."""
    from client.secure_round import mask

    config = parse(context.run_config)
    data = read_client_data(locate(context))
    student = student_of(message, config, data.catalogue).to(config.run.device)
    draw = _streams(message, context)
    reply = mask(message, context, config, data, student, draw)
    return _step(message, wire.MASKED_VECTOR, reply)


@app.train("confirm", mods=[exit_door])
def confirm(message: Message, context: Context) -> Message:
    """Reply with a signature of the list of survivors."""
    from client.secure_round import confirm as confirm_list

    config, folder = parse(context.run_config), locate(context)
    reply = confirm_list(message, context, config, folder)
    return _step(message, wire.CONFIRMATION, reply)


@app.train("reveal", mods=[exit_door])
def reveal(message: Message, context: Context) -> Message:
    """Reply with one share of each neighbour."""
    from client.secure_round import reveal as reveal_shares

    return _step(message, wire.REVEALED, reveal_shares(message, context))


@app.train("statistics", mods=[exit_door])
def statistics(message: Message, context: Context) -> Message:
    """Reply with noised sums of touched items and of pairs of them."""
    config = parse(context.run_config)
    data = read_client_data(locate(context))
    found = pair_sums(
        data.histories,
        chosen_of(message, config, data.catalogue),
        config.statistics.counts_share,
        statistics_noise(config).pairs,
        _streams(message, context)("pairs noise"),
    )
    content = RecordDict({wire.PAIRS: pack_pairs(found)})
    return Message(content, reply_to=message)


@app.train("sketch", mods=[exit_door])
def sketch(message: Message, context: Context) -> Message:
    """Reply with the noised sum of pairs along the server's directions."""
    config = parse(context.run_config)
    data = read_client_data(locate(context))
    chosen = chosen_of(message, config, data.catalogue)
    found = sketch_sum(
        data.histories,
        chosen,
        directions_of(message, chosen),
        statistics_noise(config).sketch,
        _streams(message, context)("sketch noise"),
    )
    content = RecordDict({wire.SKETCH_SUM: pack_sketch(found)})
    return Message(content, reply_to=message)


@app.evaluate(mods=[exit_door])
def evaluate(message: Message, context: Context) -> Message:
    """Reply with noised sums of metrics over this client's users."""
    from client.evaluate import metric_sums

    config = parse(context.run_config)
    data = read_client_data(locate(context))
    number = wire.unpack_header(message.content).number
    event = releases(config, noise_multiplier(config), number)[wire.EVALUATE]
    draw = _streams(message, context)
    sums = metric_sums(
        student_of(message, config, data.catalogue).eval(),
        data.histories,
        event.noise_multiplier,
        draw("metrics masking"),
        draw("metrics noise"),
    )
    content = RecordDict({wire.METRICS: wire.pack_sums(sums)})
    return Message(content, reply_to=message)


@app.query("student", mods=[exit_door])
def deliver(message: Message, context: Context) -> Message:
    """Keep the final student; it costs nothing, so an exhausted client gets it too."""
    config, folder = parse(context.run_config), locate(context)
    student = student_of(message, config, read_catalogue(folder / CATALOGUE))
    settings = read_settings(folder, context.node_config)
    save_student(
        folder / STUDENT,
        student.spec,
        student.state_dict(),
        promise=run_sentence(config, settings),
    )
    return Message(RecordDict(), reply_to=message)


@app.query(mods=[exit_door])
def query(message: Message, context: Context) -> Message:
    """Refuse: there is nothing else to ask a client."""
    raise ProtocolError("Expected a training message.")


def _step(message: Message, record: str, reply: bytes) -> Message:
    return Message(RecordDict({record: wire.pack_bytes(reply)}), reply_to=message)


def _streams(message: Message, context: Context) -> Callable[[str], RandomStream]:
    """One stream a purpose; a seeded one differs by client, run, round and nonce.

    Nonces are the server's, which might send one twice: the same noise over two
    rounds would cancel in their difference.
    """
    folder = locate(context)
    seed = read_settings(folder, context.node_config).seed
    header = wire.unpack_header(message.content)
    labels = (folder.name, header.name, str(header.number), header.nonce)
    return lambda purpose: stream(seed, *labels, purpose)
