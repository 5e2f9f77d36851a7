"""The gRPC service: each call is let in or refused, answered, and never leaks an error.

Client only. Deadline and rate come before any work; whatever goes wrong inside, the
caller gets a fixed text and the log the place, for an exception's own text may hold
what somebody watched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import grpc

from client.proto import recommender_pb2 as pb
from client.proto.recommender_pb2_grpc import RecommenderServicer
from client.serving import answers
from client.serving.answers import Refused, Served
from client.serving.limits import TokenBucket
from client.serving.swap import Current

log = logging.getLogger("tutela.serving")

NAME = pb.DESCRIPTOR.services_by_name["Recommender"].full_name
Reply = TypeVar("Reply")


class Service(RecommenderServicer):
    """Answers from the model of the moment; a call keeps the one it began with."""

    def __init__(self, served: Served, current: Current) -> None:
        self._served, self._current = served, current
        self._bucket = TokenBucket(served.limits.rate)

    def Recommend(  # noqa: N802 - gRPC's name
        self, request: pb.RecommendRequest, context: grpc.ServicerContext
    ) -> pb.RecommendReply:
        """See ``answers.recommend``."""
        model = self._current.model
        return self._answer(
            context, lambda: answers.recommend(self._served, model, request)
        )

    def Similar(  # noqa: N802 - gRPC's name
        self, request: pb.SimilarRequest, context: grpc.ServicerContext
    ) -> pb.SimilarReply:
        """See ``answers.similar``."""
        model = self._current.model
        return self._answer(
            context, lambda: answers.similar(self._served, model, request)
        )

    def Feedback(  # noqa: N802 - gRPC's name
        self, request: pb.FeedbackRequest, context: grpc.ServicerContext
    ) -> pb.FeedbackReply:
        """See ``answers.keep_feedback``."""
        return self._answer(
            context, lambda: answers.keep_feedback(self._served, request)
        )

    def Describe(  # noqa: N802 - gRPC's name
        self, request: pb.DescribeRequest, context: grpc.ServicerContext
    ) -> pb.DescribeReply:
        """See ``answers.describe``."""
        model = self._current.model
        return self._answer(context, lambda: answers.describe(self._served, model))

    def _answer(
        self, context: grpc.ServicerContext, work: Callable[[], Reply]
    ) -> Reply:
        refusal = self._let_in(context)
        if refusal is None:
            try:
                return work()
            except Refused as error:
                refusal = error
            except Exception as error:  # whatever it is, its text stays here
                log.error("a call failed: %s", _place(error))
                refusal = Refused(grpc.StatusCode.INTERNAL, "The recommender failed.")
        context.abort(refusal.code, str(refusal))
        raise refusal  # not reached: abort raises

    def _let_in(self, context: grpc.ServicerContext) -> Refused | None:
        """A call may have waited past its deadline, or its caller be gone."""
        left = context.time_remaining()
        if not context.is_active() or (left is not None and left <= 0):
            return Refused(
                grpc.StatusCode.DEADLINE_EXCEEDED, "The deadline passed in the queue."
            )
        if not self._bucket.take():
            rate = self._served.limits.rate
            return Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"Expected at most {rate:g} calls a second; wait and call again.",
            )
        return None


def _place(error: BaseException) -> str:
    """Kind and line of an exception, and nothing of its text."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    where = "" if last is None else f"{last.tb_frame.f_code.co_name}:{last.tb_lineno}"
    return f"{type(error).__name__} in {where}"
