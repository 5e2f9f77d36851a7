"""The exit door: the outermost mod, through which all that leaves a client passes.

Client only. It lets out what the allow-list names and nothing else, and replaces
every exception by a fixed text: Flower sends ``str(exception)`` to the server, and
a ``KeyError`` naming an item would be a leak. The local log gets the exception's
type, no message and no values.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Context, Error, Message, RecordDict
from polars.exceptions import PanicException

from common.errors import BudgetExhausted, ProtocolError
from common.wire import (
    ROUND,
    STUDENT,
    UPDATE,
    pack_header,
    pack_state,
    unpack_header,
    unpack_state,
)

#: Which records may leave, by message type. Deny by default.
ALLOWED: dict[str, frozenset[str]] = {"train": frozenset({UPDATE, ROUND})}

#: The only error texts that leave a client. None depends on private rows: a refusal
#: depends on public constants and the client's settings alone.
REFUSED = "The client refused: its own settings do not allow this round."
MISFIT = "The client refused: the message does not fit the protocol."
FAILED = "The client failed; its operator's log says where."

_log = logging.getLogger("tutela.client")


def exit_door(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Run the client's app; let out an allowed reply or a fixed error."""
    try:
        return Message(_allowed(message, call_next(message, context)), reply_to=message)
    except BudgetExhausted:
        return _error(message, REFUSED)
    except ProtocolError:
        return _error(message, MISFIT)
    # A panic inside polars is no Exception, and its text may quote a row.
    except (Exception, PanicException) as error:
        _log.error("A round failed with %s.", type(error).__name__)
        return _error(message, FAILED)


def _error(message: Message, reason: str) -> Message:
    return Message(Error(code=0, reason=reason), reply_to=message)


def _allowed(message: Message, reply: Message) -> RecordDict:
    """A fresh record dict with only what the allow-list names, rebuilt value by value.

    The update must have the names and shapes of the student that came, so that no
    further array can ride along.
    """
    allowed = ALLOWED.get(message.metadata.message_type, frozenset())
    content = RecordDict()
    if UPDATE in allowed:
        came = message.content.array_records[STUDENT]
        shapes = {name: tuple(array.shape) for name, array in came.items()}
        content[UPDATE] = pack_state(unpack_state(reply.content, UPDATE, shapes))
    if ROUND in allowed:
        content[ROUND] = pack_header(unpack_header(message.content))
    return content
