"""A bound on how long a call's request may take to come, whoever the caller is.

Client only. gRPC for Python waits for a request inside one of the few threads that
answer, and has no bound of its own: callers that begin calls and send nothing would
hold all of them. Here each wait is written down, and one that lasts too long is ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import count
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]


class Patience(grpc.ServerInterceptor):
    """Cancels calls whose next message does not come within ``seconds``."""

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._clock, self._number = seconds, clock, count()
        self._waits: dict[int, tuple[float, grpc.ServicerContext]] = {}
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to look for waits that last too long."""
        threading.Thread(target=self._run, name="patience", daemon=True).start()

    def stop(self) -> None:
        """End; waits under way are the server's to end."""
        self._ended.set()

    def cut_off(self) -> None:
        """Cancel every call that has waited too long by now."""
        now = self._clock()
        for since, context in list(self._waits.values()):
            if now - since > self._seconds:
                context.cancel()

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The same handler, with its messages waited for here."""
        found = continuation(handler_call_details)
        if found is None:
            return None
        make = (
            grpc.stream_stream_rpc_method_handler
            if found.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        answer = self._many(found) if found.request_streaming else self._one(found)
        return make(answer, found.request_deserializer, found.response_serializer)

    def _one(self, found: Handler) -> Callable[..., Any]:
        work: Any = found.unary_unary or found.unary_stream

        @wraps(work)  # with its marks, by which a watch of health has its own thread
        def answer(
            requests: Iterator[Any], context: grpc.ServicerContext, *rest: Any
        ) -> Any:
            request = next(self._timed(requests, context), None)
            if request is None:
                context.abort(
                    grpc.StatusCode.UNIMPLEMENTED, "Expected one request, got none."
                )
            return work(request, context, *rest)

        return answer

    def _many(self, found: Handler) -> Callable[..., Any]:
        work: Any = found.stream_unary or found.stream_stream

        @wraps(work)
        def answer(
            requests: Iterator[Any], context: grpc.ServicerContext, *rest: Any
        ) -> Any:
            return work(self._timed(requests, context), context, *rest)

        return answer

    def _timed(
        self, requests: Iterator[Any], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        while True:
            number = next(self._number)
            self._waits[number] = (self._clock(), context)
            try:
                request = next(requests)
            except StopIteration:
                return
            finally:
                del self._waits[number]
            yield request

    def _run(self) -> None:
        while not self._ended.wait(self._seconds / 4):
            self.cut_off()
