"""The exit door: the outermost mod, through which all that leaves a client passes.

Client only. It charges the ledger before the app sees the message, lets out what the
allow-list names and nothing else, keeps what it lets out, and replaces every
exception by a fixed text: Flower sends ``str(exception)`` to the server, and a
``KeyError`` naming an item would be a leak. The local log gets the exception's type;
of refusals before a row was read the text as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from client.admission import Request, read_request
from client.budget import check_charge
from client.chain import LedgerEntry
from client.faults import LedgerFault
from client.last_reply import keep_reply, kept_reply
from client.ledger import Ledger, open_ledger
from client.secure_sizes import check_size
from client.settings import witness_place
from common import wire
from common.errors import BudgetExhausted, ConfigError, NoConsent, ProtocolError
from common.statistics import (
    pair_shapes,
    sketch_shapes,
    unpack_directions,
    unpack_items,
)
from common.structured_logs import in_one_line, switch_on_if_asked

Shapes = Mapping[str, tuple[int, ...]]

#: The record that may leave, by message type. Deny by default.
ALLOWED: Mapping[str, str | None] = {
    wire.TRAIN: wire.UPDATE,
    wire.STATISTICS: wire.PAIRS,
    wire.SKETCH: wire.SKETCH_SUM,
    wire.EVALUATE: wire.METRICS,
    wire.DELIVER: None,
    wire.ADVERTS: wire.ADVERT,
    wire.SHARES: wire.PARCELS,
    wire.MASKED: wire.MASKED_VECTOR,
    wire.CONFIRM: wire.CONFIRMATION,
    wire.REVEAL: wire.REVEALED,
}

#: The only error texts that leave a client, padded to one length. None depends on
#: private rows: a refusal depends on public constants, settings and ledger alone.
REFUSED, CLOSED, MISFIT, FAILED = (
    text.ljust(64)
    for text in (
        "The client refused: its own settings do not allow this round.",
        "The client refused: its ledger must be seen to by its operator.",
        "The client refused: the message does not fit the protocol.",
        "The client failed; its operator's log says where.",
    )
)

_log = logging.getLogger("tutela.client")


@dataclass(frozen=True)
class Ticket:
    """A message that was let in.

    Attributes:
        entry: the ledger's entry that pays for the answer, if it costs any.
        again: whether it had paid before this message came.
    """

    request: Request
    entry: LedgerEntry | None
    again: bool


def exit_door(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Charge, run the client's app, let out an allowed reply or a fixed error."""
    try:
        with _admitted(message, context) as ticket:
            content = _answer(ticket, message, lambda: call_next(message, context))
        return Message(content, reply_to=message)
    except (BudgetExhausted, NoConsent):
        return _error(message, REFUSED)
    except LedgerFault as fault:
        # One of a fixed list of texts, by construction.
        _log.error("%s", fault)
        return _error(message, CLOSED)
    except ProtocolError:
        return _error(message, MISFIT)
    except (KeyboardInterrupt, SystemExit):
        raise
    # A panic inside polars or another extension is no Exception; it may quote a row.
    except BaseException as error:
        _log.error("A round failed with %s.", type(error).__name__)
        return _error(message, FAILED)


class DoorApp(ClientApp):
    """A client app whose own complaints, of an unknown message type, are fixed too."""

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message."""
        switch_on_if_asked()
        try:
            return super().__call__(message, context)
        except ValueError:
            _log.warning("A message was refused. Expected a known type.")
            return _error(message, MISFIT)


def _error(message: Message, reason: str) -> Message:
    return Message(Error(code=0, reason=reason), reply_to=message)


@contextmanager
def _admitted(message: Message, context: Context) -> Iterator[Ticket]:
    """Consent, ledger, budget and charge; the ledger stays locked for the answer.

    No row was read so far, which is why the text of a refusal may be logged.
    """
    with ExitStack() as stack:
        try:
            if message.metadata.message_type not in ALLOWED:
                raise ProtocolError("Expected a message of a known type.")
            request = read_request(message, context)
            place = witness_place(request.folder, request.settings)
            ledger = stack.enter_context(open_ledger(request.folder, place))
            ledger.acknowledge(request.header.acknowledged)
            ticket = _charged(request, ledger)
        except (BudgetExhausted, NoConsent, ProtocolError, ConfigError) as refusal:
            _log.warning("A message was refused. %s", in_one_line(str(refusal)))
            raise
        yield ticket


def _charged(request: Request, ledger: Ledger) -> Ticket:
    if request.announced is not None:
        check_charge(request.announced, ledger.entries, request.settings)
    if request.charge is None:
        return Ticket(request, None, again=False)
    found = ledger.find(request.charge.key)
    if found is not None:
        return Ticket(request, found, again=True)
    check_charge(request.charge, ledger.entries, request.settings)
    request.check()
    return Ticket(request, ledger.append(request.charge), again=False)


def _answer(
    ticket: Ticket, message: Message, run_app: Callable[[], Message]
) -> RecordDict:
    """The app's answer, or the kept one to a message delivered again."""
    folder, entry = ticket.request.folder, ticket.entry
    if entry is not None and ticket.again:
        return _reply(ticket, kept_reply(folder, entry))
    record = _allowed(ticket.request, message, run_app())
    if entry is not None and record is not None:
        keep_reply(folder, entry, record)
    return _reply(ticket, record)


def _reply(ticket: Ticket, record: ArrayRecord | None) -> RecordDict:
    header = ticket.request.header
    receipt = wire.NO_RECEIPT if ticket.entry is None else ticket.entry.hash
    reply = wire.ReplyHeader(header.run, header.number, header.nonce, receipt)
    content = RecordDict({wire.ROUND: wire.pack_header(reply)})
    name = ALLOWED[ticket.request.kind]
    if name is not None and record is not None:
        content[name] = record
    return content


def _allowed(request: Request, message: Message, reply: Message) -> ArrayRecord | None:
    """The one record that may leave, rebuilt value by value; ``None`` where none may.

    It must have the names and shapes that the message calls for, so that no further
    array can ride along.
    """
    name = ALLOWED[request.kind]
    if name is None:
        return None
    if request.kind in wire.SECURE:
        data = wire.unpack_bytes(reply.content, name)
        check_size(request.kind, len(data), message.content, request.config)
        return wire.pack_bytes(data)
    shapes = SHAPES[name](message.content)
    return wire.pack_state(wire.unpack_state(reply.content, name, shapes))


def _update_shapes(content: RecordDict) -> Shapes:
    came = content.array_records[wire.STUDENT]
    return {each: tuple(array.shape) for each, array in came.items()}


def _metric_shapes(content: RecordDict) -> Shapes:
    return wire.METRIC_SHAPES


def _pair_shapes(content: RecordDict) -> Shapes:
    return pair_shapes(int(unpack_items(content).sum()))


def _sketch_shapes(content: RecordDict) -> Shapes:
    num_chosen = int(unpack_items(content).sum())
    num_directions = unpack_directions(content, num_chosen).shape[1]
    return sketch_shapes(num_chosen, num_directions)


#: Record → the arrays it has to hold, by what the message called for.
SHAPES: Mapping[str, Callable[[RecordDict], Shapes]] = {
    wire.UPDATE: _update_shapes,
    wire.METRICS: _metric_shapes,
    wire.PAIRS: _pair_shapes,
    wire.SKETCH_SUM: _sketch_shapes,
}
