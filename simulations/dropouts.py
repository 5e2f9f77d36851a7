"""Clients that fall silent: a share of them in each round, from some phase of it on.

Simulations only: it stands between an engine and the client's app, which knows nothing
of it. A phone without power answers nothing more until the next round; the server gets
an error in place of its reply, as Flower gives it for a node that is gone. Who falls
silent, when, is drawn from ``partition.seed``: the same in every engine, and in a run
that is resumed.
"""

from __future__ import annotations

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from client.randomness import seeded_stream
from client.settings import locate
from common import wire
from common.config import FlatConfig, parse

REASON = "The client fell silent (partition.dropout)."


class UnreliableApp(ClientApp):
    """A client's app on a device that drops out now and then.

    Args:
        app: what answers otherwise.
        dropout: probability of falling silent in a round.
        seed: of who does, when.
    """

    def __init__(self, app: ClientApp, dropout: float, seed: int) -> None:
        super().__init__()
        self._app, self._dropout, self._seed = app, dropout, seed

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message, or be silent."""
        number = wire.unpack_header(message.content).number
        phase = silent_from(locate(context).name, number, self._dropout, self._seed)
        if phase is None or not is_missed(message.metadata.message_type, phase):
            return self._app(message, context)
        return Message(Error(ErrorCode.NODE_UNAVAILABLE, REASON), reply_to=message)


def unreliable(app: ClientApp, config: FlatConfig) -> ClientApp:
    """The app as a run has it, dropping out where the configuration says so."""
    settings = parse(config).partition
    if not settings.dropout:
        return app
    return UnreliableApp(app, settings.dropout, settings.seed)


def silent_from(client: str, number: int, dropout: float, seed: int) -> int | None:
    """The phase of a round from which a client is silent; ``None``: of none.

    Args:
        client: its folder's name.
        number: of the round.

    Returns:
        An index into ``common.wire.SECURE``, each as likely as the others.
    """
    stream = seeded_stream(seed, "dropout", client, str(number))
    falls, when = stream.uniform(2)
    return int(when * len(wire.SECURE)) if falls < dropout else None


def is_missed(kind: str, phase: int) -> bool:
    """Whether a client that is silent from this phase on misses such a message.

    What is not a step of a secure sum is one phase by itself. The final student is
    fetched once the device is back.
    """
    if kind in wire.SECURE:
        return wire.SECURE.index(kind) >= phase
    return kind != wire.DELIVER
