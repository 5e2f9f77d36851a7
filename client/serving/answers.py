"""What each call is answered: plain functions of the request and what is served.

Client only. A refusal names what was wrong with the request and repeats none of it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np

from client.feedback import FeedbackRow, is_sound
from client.identifiers import pseudonym
from client.proto import recommender_pb2 as pb
from client.sealed_log import NoRoom
from client.serving.histories import Histories
from client.serving.limits import Limits
from client.serving.model import Model
from client.serving.ranking import Mask, Ranked, Shelf, best, left_out, strongest
from common.interactions import IntArray

#: A list's length where none is asked for, the most reasons, the longest user id.
DEFAULT_ITEMS, MOST_REASONS, LONGEST_USER = 10, 10, 256
#: The longest lists in a request: ids, of a history say, and categories.
MOST_IDS, MOST_CATEGORIES = 10_000, 100


class Refused(Exception):
    """A call that gets no answer; the text is for the caller."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, eq=False)
class Served:
    """What calls are answered from, beside the model of the moment.

    Attributes:
        id_key: of ``identifiers.folder_key``.
    """

    shelf: Shelf
    histories: Histories
    limits: Limits
    id_key: bytes = field(repr=False)


def recommend(
    served: Served, model: Model, request: pb.RecommendRequest
) -> pb.RecommendReply:
    """The best items for a history or a stored user.

    Raises:
        Refused: if the request asks for what there is not.
    """
    k = _count(request.k, served.limits)
    if request.num_reasons > MOST_REASONS:
        raise _invalid(f"num_reasons: expected at most {MOST_REASONS}, got more.")
    user, items = _whom(served, request)
    excluded = [_items(served.shelf, request.exclude_items, "exclude_items")]
    if not request.include_seen:
        excluded.append(items)
    out = _left_out(served.shelf, request.categories, excluded)
    found = best(model.score(user, items), out, k)
    reasons = _reasons(served.shelf, model, items, found, request.num_reasons)
    return pb.RecommendReply(
        items=_listed(served.shelf, found, reasons),
        model_version=model.version,
        personal=user is not None and model.personal is not None,
    )


def similar(
    served: Served, model: Model, request: pb.SimilarRequest
) -> pb.SimilarReply:
    """The items whose output vectors have the largest cosine to one's.

    Raises:
        Refused: as :func:`recommend`.
    """
    k = _count(request.k, served.limits)
    itself = _items(served.shelf, [request.item], "item")
    excluded = _items(served.shelf, request.exclude_items, "exclude_items")
    out = _left_out(served.shelf, request.categories, [itself, excluded])
    found = best(model.unit @ model.unit[itself[0]], out, k)
    return pb.SimilarReply(
        items=_listed(served.shelf, found), model_version=model.version
    )


def keep_feedback(served: Served, request: pb.FeedbackRequest) -> pb.FeedbackReply:
    """Keep interactions; they are on disk when this returns.

    Raises:
        Refused: if one of them cannot be kept, or the store is full; none is then.
    """
    most, count = served.limits.most_items, len(request.interactions)
    if not 1 <= count <= most:
        raise _invalid(f"interactions: expected 1 to {most}, got {count}.")
    rows = [_row(each) for each in request.interactions]
    if not all(map(is_sound, rows)):
        raise _invalid("interactions: expected finite values and times from 1970.")
    _items(served.shelf, [row.item for row in rows], "interactions")
    try:
        stored = served.histories.add(_pseudonym(served, request.user), rows)
    except NoRoom as error:
        raise Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from None
    return pb.FeedbackReply(stored=stored, known=count - stored)


def describe(served: Served, model: Model) -> pb.DescribeReply:
    """Which model answers."""
    return pb.DescribeReply(
        model_version=model.version,
        num_items=model.num_items,
        dim=model.decoder.shape[1],
        catalogue_digest=served.shelf.digest,
        engine=model.engine.name,
        promise=model.promise,
        personal=model.personal is not None,
    )


def _invalid(text: str) -> Refused:
    return Refused(grpc.StatusCode.INVALID_ARGUMENT, text)


def _count(asked: int, limits: Limits) -> int:
    if asked > limits.most_items:
        raise _invalid(f"k: expected at most {limits.most_items}, got {asked}.")
    return asked or DEFAULT_ITEMS


def _whom(served: Served, request: pb.RecommendRequest) -> tuple[str | None, IntArray]:
    """A stored user's pseudonym, if one is asked for, and the history."""
    if request.WhichOneof("whom") == "history":
        items = _items(served.shelf, request.history.items, "history")
        return None, np.unique(items)
    if request.WhichOneof("whom") is None:
        raise _invalid("Expected a history or a user, got neither.")
    user = _pseudonym(served, request.user)
    found = served.histories.of(user)
    if found is None:
        raise Refused(
            grpc.StatusCode.NOT_FOUND, "user: expected one with rows here, got another."
        )
    return user, found


def _pseudonym(served: Served, user: str) -> str:
    if not 1 <= len(user) <= LONGEST_USER:
        raise _invalid(
            f"user: expected 1 to {LONGEST_USER} characters, got {len(user)}."
        )
    return pseudonym(user, served.id_key)


def _items(shelf: Shelf, ids: Sequence[str], name: str) -> IntArray:
    """Dense ids of a request's."""
    _check_length(ids, MOST_IDS, name)
    unknown = sum(each not in shelf.items for each in ids)
    if unknown:
        raise _invalid(
            f"{name}: expected ids of the catalogue, got {unknown} of {len(ids)} "
            "outside it."
        )
    return shelf.items.encode(ids)


def _left_out(
    shelf: Shelf, categories: Sequence[str], excluded: Sequence[IntArray]
) -> Mask:
    _check_length(categories, MOST_CATEGORIES, "categories")
    unknown = sum(name not in shelf.categories for name in categories)
    if unknown:
        raise _invalid(
            f"categories: expected those of the catalogue, got {unknown} of "
            f"{len(categories)} that no item has."
        )
    return left_out(shelf, categories, excluded)


def _check_length(said: Sequence[str], most: int, name: str) -> None:
    if len(said) > most:
        raise _invalid(f"{name}: expected at most {most}, got {len(said)}.")


def _row(said: pb.Interaction) -> FeedbackRow:
    value = said.value if said.HasField("value") else 1.0
    return FeedbackRow(said.item, value, said.timestamp or int(time.time()))


def _reasons(
    shelf: Shelf, model: Model, items: IntArray, found: Ranked, count: int
) -> list[list[pb.Reason]]:
    if not count or not len(items):
        return [[] for _ in found.item]
    parts = model.contributions(items, found.item)
    return [
        [_reason(shelf, int(items[p]), float(parts[row, p])) for p in places.tolist()]
        for row, places in enumerate(strongest(parts, count))
    ]


def _reason(shelf: Shelf, item: int, contribution: float) -> pb.Reason:
    title = shelf.titles[item]
    return pb.Reason(
        item=shelf.items.ids[item],
        title=title,
        contribution=contribution,
        text=f"because of {title}",
    )


def _listed(
    shelf: Shelf, found: Ranked, reasons: list[list[pb.Reason]] | None = None
) -> list[pb.ScoredItem]:
    rows = reasons or [[] for _ in found.item]
    triples = zip(found.item.tolist(), found.score.tolist(), rows, strict=True)
    return [
        pb.ScoredItem(
            item=shelf.items.ids[item],
            title=shelf.titles[item],
            score=score,
            reasons=why,
        )
        for item, score, why in triples
    ]
