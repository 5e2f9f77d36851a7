"""What a misbehaving node sends in place of an update.

Simulations only. Each lie begins from a reply of the right form, zeros under the
header of the open question, and is wrong in one way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from common import wire

Arrays = dict[str, Array]
Content = Callable[[Message], RecordDict]
#: Bytes of an array of the large lies; each has chunks of its own.
MEGABYTE = 1 << 20
#: Seconds that a late reply takes: more than a round should wait in a test.
LATE = 26.0


def _whole(content: bytes) -> bytes | None:
    return content


def _nothing(content: bytes) -> bytes | None:
    return None


def _noise(content: bytes) -> bytes | None:
    return os.urandom(len(content))


@dataclass(frozen=True)
class Lie:
    """One misbehaviour.

    Attributes:
        content: what the reply holds, for a message.
        delay: seconds before it is sent; infinite for never.
        on_the_way: what is sent of each part of it.
    """

    content: Content
    delay: float = 0.0
    on_the_way: Callable[[bytes], bytes | None] = _whole

    def reply(self, message: Message) -> Message | None:
        """The reply, when it is time."""
        if self.delay == float("inf"):
            return None
        time.sleep(self.delay)
        return Message(self.content(message), reply_to=message)


def _header(message: Message, **changed: int) -> ConfigRecord:
    came = wire.unpack_header(message.content)
    record = wire.pack_header(wire.ReplyHeader(came.run, came.number, came.nonce))
    return ConfigRecord({**record, **changed})


def _zeros(message: Message) -> Arrays:
    student = message.content.array_records[wire.STUDENT]
    return {
        name: Array(np.zeros(tuple(array.shape), np.float32))
        for name, array in student.items()
    }


def _reply(message: Message, arrays: Arrays) -> RecordDict:
    return RecordDict({wire.ROUND: _header(message), wire.UPDATE: ArrayRecord(arrays)})


def zeros(message: Message) -> RecordDict:
    """What is not wrong."""
    return _reply(message, _zeros(message) if _has_student(message) else {})


def _has_student(message: Message) -> bool:
    return wire.STUDENT in message.content.array_records


def _with_first(change: Callable[[Array], Array]) -> Content:
    def content(message: Message) -> RecordDict:
        arrays = _zeros(message)
        name = min(arrays)
        return _reply(message, arrays | {name: change(arrays[name])})

    return content


def _filled(value: float) -> Callable[[Array], Array]:
    return lambda array: Array(np.full(tuple(array.shape), value, np.float32))


def _garbage(array: Array) -> Array:
    return Array(array.dtype, array.shape, array.stype, os.urandom(len(array.data)))


def _pickled(array: Array) -> Array:
    return Array(array.dtype, array.shape, "pickle", os.urandom(len(array.data)))


def _old_version(message: Message) -> RecordDict:
    header = _header(message, protocol=wire.PROTOCOL_VERSION - 1)
    return RecordDict({wire.ROUND: header, wire.UPDATE: ArrayRecord(_zeros(message))})


def _another_round(message: Message) -> RecordDict:
    number = wire.unpack_header(message.content).number
    header = _header(message, number=number - 1)
    return RecordDict({wire.ROUND: header, wire.UPDATE: ArrayRecord(_zeros(message))})


def _nothing_at_all(message: Message) -> RecordDict:
    return RecordDict({})


def _large(megabytes: int) -> Content:
    def content(message: Message) -> RecordDict:
        bits = np.frombuffer(os.urandom(megabytes * MEGABYTE), np.uint8)
        return _reply(message, {"large": Array(bits)})

    return content


_HONEST = Lie(zeros)
LIES = {
    "zeros": _HONEST,
    "garbage": Lie(_with_first(_garbage)),
    "pickle": Lie(_with_first(_pickled)),
    "empty": Lie(_nothing_at_all),
    "old-version": Lie(_old_version),
    "another-round": Lie(_another_round),
    "wrong-shape": Lie(_with_first(lambda a: Array(np.zeros(3, np.float32)))),
    "nan": Lie(_with_first(_filled(float("nan")))),
    "infinite": Lie(_with_first(_filled(float("inf")))),
    "large": Lie(_large(64)),
    "gigabyte": Lie(_large(1024)),
    "half-sent": replace(_HONEST, on_the_way=_nothing),
    "scrambled": replace(_HONEST, on_the_way=_noise),
    "late": replace(_HONEST, delay=LATE),
    "hang": replace(_HONEST, delay=float("inf")),
}
