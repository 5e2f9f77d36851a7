"""What a caller of the recommender on a device learns of a stored user.

Simulations only. The real service answers in this process, behind a token, from a
copy of a client's rows. A list leaves out what was seen, so that who pages through the
catalogue sees the history as what is missing; reasons name it; Feedback says whether
an item was known; and a single list is enough to guess from.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from client.importing import write_rows
from common.folders import CATALOGUE, STUDENT
from common.interactions import SCHEMA, IdMap
from simulations.audits.findings import LeakRecord
from simulations.audits.leaks.knowledge import Asked, ask, popularity
from simulations.audits.leaks.measures import Subject
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.world import World

if TYPE_CHECKING:
    from client.proto.recommender_pb2_grpc import RecommenderStub

Float = npt.NDArray[np.float64]

PUBLIC = "popularity in public data"
#: Users whom a caller asks about, and candidates that are tried one by one.
USERS, TRIED = 24, 60
#: Longest list that is asked for, ids that a request may leave out, reasons.
_LIST, _REASONS, _DEFAULT = 200, 10, 10


@dataclass(frozen=True)
class Caller:
    """Somebody who may call, and counts the calls.

    Attributes:
        stub: the service.
        token: what each call carries.
        items: the public catalogue.
        calls: made so far, a number in a list.
    """

    stub: RecommenderStub
    token: str
    items: IdMap
    calls: list[int]

    def recommend(self, **fields: Any) -> Any:
        """The items of one list."""
        from client.proto import recommender_pb2 as pb

        return self._call(self.stub.Recommend, pb.RecommendRequest(**fields)).items

    def was_known(self, user: str, item: str) -> bool:
        """Whether feedback on an item is told to be known; it is stored otherwise."""
        from client.proto import recommender_pb2 as pb

        told = pb.FeedbackRequest(user=user, interactions=[pb.Interaction(item=item)])
        return bool(self._call(self.stub.Feedback, told).known)

    def _call(self, method: Any, request: Any) -> Any:
        self.calls[0] += 1
        metadata = (("authorization", f"Bearer {self.token}"),)
        return method(request, metadata=metadata, timeout=30)


#: A caller and a user → a score of each item, ``[n]``.
Attack = Callable[[Caller, str, World], Float]


def by_paging(caller: Caller, user: str, world: World) -> Float:
    """Ask for the best, leave these out, ask again: what never comes was seen."""
    seen = np.ones(world.num_items)
    listed: list[str] = []
    while True:
        found = caller.recommend(user=user, k=_LIST, exclude_items=listed)
        if not found:
            return seen
        names = [each.item for each in found]
        seen[caller.items.encode(names)] = 0.0
        listed += names


def by_reasons(caller: Caller, user: str, world: World) -> Float:
    """One long list with reasons: each names items of the history."""
    found = caller.recommend(user=user, k=_LIST, num_reasons=_REASONS)
    scores = np.zeros(world.num_items)
    for each in found:
        scores[caller.items.encode([reason.item for reason in each.reasons])] = 1.0
    return scores


def by_feedback(caller: Caller, user: str, world: World) -> Float:
    """Tell of the most popular items, one by one: those known were touched."""
    public = popularity(world)
    scores: Float = public / (1 + public.max()) - 2.0
    for item in np.argsort(-public, kind="stable")[:TRIED].tolist():
        was_known = caller.was_known(user, caller.items.ids[item])
        scores[item] = 1.0 if was_known else -3.0
    return scores


def by_one_list(caller: Caller, user: str, world: World) -> Float:
    """Ten items, as anybody would ask for; the released student says what they like.

    An item speaks for those that are listed as far as it adds to their scores.
    """
    found = caller.recommend(user=user)
    listed = caller.items.encode([each.item for each in found])
    decoder = world.final["decoder.weight"].numpy().astype(np.float64)
    encoder = world.final["encoder.weight"].numpy().astype(np.float64)
    adds = (decoder[listed] - decoder.mean(axis=0)).sum(axis=0) @ encoder
    adds /= max(float(adds.std()), 1e-12)
    public = np.log(popularity(world) + 0.5)
    scores: Float = adds + public / max(float(public.std()), 1e-12)
    scores[listed] = -np.inf
    return scores


#: How a caller attacks, and whether it leaves traces on the device.
ATTACKS: dict[str, Attack] = {
    "Recommend, paged": by_paging,
    "Recommend with reasons": by_reasons,
    "Recommend, one list of ten": by_one_list,
    "Feedback, one item a call": by_feedback,
}


def audit_serving(
    world: World, settings: AuditSettings, tell: Tell
) -> list[LeakRecord]:
    """Every attack on the first client's service, each from a fresh start."""
    tell("leaks: the recommender on a device")
    rng = np.random.default_rng(settings.seed)
    rows = world.clients[0].histories
    fit = rng.permutation(np.flatnonzero(np.diff(rows.indptr) > 1))[:USERS]
    if not len(fit):
        return []
    asked = ask(rows[np.sort(fit)], np.zeros(len(fit), dtype=np.int64), 0.0, rng)
    return [
        record
        for name, attack in ATTACKS.items()
        for record in _attacked(world, asked, name, attack, settings.confidence)
    ]


def _attacked(
    world: World, asked: Asked, name: str, attack: Attack, confidence: float
) -> list[LeakRecord]:
    with caller_of(world, asked.rows) as (caller, refused):
        users = range(asked.rows.shape[0])
        scores = np.asarray([attack(caller, _name(each), world) for each in users])
    question = asked.question
    public = np.broadcast_to(popularity(world), scores.shape)
    note = _note(caller.calls[0] / len(scores), refused, name)
    subject = Subject("interactions", "device-caller", name, False, note)
    measures = (("precision", question.precision), ("AUC", question.auc))
    return [
        subject.record(
            measure, of(scores), float(np.nanmean(of(public))), PUBLIC, confidence
        )
        for measure, of in measures
    ]


def _note(calls: float, refused: str, name: str) -> str:
    from client.serving.limits import Limits

    limits = Limits()
    plural = "" if round(calls) == 1 else "s"
    text = (
        f"{calls:.0f} call{plural} a user, {calls / limits.rate:.2g} s at the default "
        f"{limits.rate:g} calls a second: limits do not hinder it. Needs to be let in: "
        f"without the token the same call is refused ({refused})."
    )
    if name.startswith("Feedback"):
        text += " Leaves false rows on the device, which training reads."
    return text


@contextmanager
def caller_of(world: World, rows: sp.csr_matrix) -> Iterator[tuple[Caller, str]]:
    """Serve these users' rows, and call; with what a caller without the token hears.

    Users are named 0, 1, …, under a key of their own; nothing of the run is touched.
    """
    import grpc

    from client.proto.recommender_pb2_grpc import RecommenderStub
    from client.serving.limits import Limits
    from client.serving.listen import Listening
    from client.serving.server import open_serving

    token = secrets.token_urlsafe(32)
    with TemporaryDirectory(prefix="tutela-leaks-") as name:
        folder = _device(world, rows, Path(name))
        place = Listening("127.0.0.1:0", token, None)
        serving = open_serving(folder, place, Limits(rate=0), "torch")
        serving.start()
        try:
            with grpc.insecure_channel(serving.address) as channel:
                stub = RecommenderStub(channel)  # type: ignore[no-untyped-call]
                caller = Caller(stub, token, world.catalogue.items, [0])
                yield caller, _refusal(stub)
        finally:
            serving.stop(1.0)


def _refusal(stub: RecommenderStub) -> str:
    """The code that somebody without the token gets, or ``answered``."""
    import grpc

    from client.proto import recommender_pb2 as pb

    try:
        stub.Recommend(pb.RecommendRequest(user=_name(0)), timeout=30)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "answered"


def _name(user: int) -> str:
    return str(user)


def _device(world: World, rows: sp.csr_matrix, folder: Path) -> Path:
    user, item = rows.nonzero()
    columns = {
        "user": [_name(each) for each in user.tolist()],
        "item": [world.catalogue.items.ids[each] for each in item.tolist()],
        "value": np.ones(len(user), dtype=np.float32),
        "timestamp": np.zeros(len(user), dtype=np.int64),
    }
    for source in (CATALOGUE, STUDENT):
        shutil.copy(world.run / source, folder / source)
    write_rows(folder, pl.DataFrame(columns, schema=SCHEMA))
    return folder
