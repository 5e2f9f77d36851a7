"""A folder worth serving, a service on it, and callers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import polars as pl
import torch

from client.proto import recommender_pb2 as pb
from client.proto.recommender_pb2_grpc import RecommenderStub
from client.serving.limits import Limits
from client.serving.listen import Listening, listening
from client.serving.server import Serving, open_serving
from common.catalogue import SCHEMA, Catalogue, write_catalogue
from common.folders import CATALOGUE, STUDENT
from common.student import StudentSpec, random_state, save_student
from tests.client.conftest import NUM_ITEMS, SPEC, rows, write_folder

LOOPBACK = "127.0.0.1:0"


def shelf_catalogue() -> Catalogue:
    """The catalogue of the other tests, in two categories, one title missing none."""
    columns = {
        "item": [f"i{n}" for n in range(NUM_ITEMS)],
        "title": [f"Title {n}" for n in range(NUM_ITEMS)],
        "year": [2000] * NUM_ITEMS,
        "categories": [["even"] if n % 2 == 0 else ["odd"] for n in range(NUM_ITEMS)],
    }
    return Catalogue(pl.DataFrame(columns, schema=SCHEMA))


def put_student(folder: Path, seed: int, spec: StudentSpec = SPEC) -> None:
    """As the Flower app delivers one: written beside, renamed into place."""
    state = random_state(spec, torch.Generator().manual_seed(seed))
    state["decoder.bias"] = torch.linspace(0.0, 0.01, spec.num_items)
    save_student(folder / STUDENT, spec, state)


def served_folder(folder: Path, num_users: int = 4, **settings) -> Path:
    home = write_folder(folder, rows(num_users), **settings)
    write_catalogue(shelf_catalogue(), home / CATALOGUE)
    put_student(home, 1)
    return home


@contextmanager
def serving(
    folder: Path,
    place: Listening | None = None,
    limits: Limits | None = None,
    engine: str = "torch",
    pause: float = 0.02,
) -> Iterator[Serving]:
    limits = limits or Limits(rate=0)
    found = open_serving(folder, place or listening(folder, LOOPBACK), limits, engine)
    found.watch._pause = pause
    found.start()
    try:
        yield found
    finally:
        found.stop(1.0)


@contextmanager
def calling(address: str) -> Iterator[RecommenderStub]:
    with grpc.insecure_channel(address) as channel:
        yield RecommenderStub(channel)


def asking(*items: str, **fields) -> pb.RecommendRequest:
    return pb.RecommendRequest(history=pb.History(items=items), **fields)


def telling(user: str, *items: str) -> pb.FeedbackRequest:
    return pb.FeedbackRequest(
        user=user, interactions=[pb.Interaction(item=item) for item in items]
    )


def refusal(call, request, **options) -> grpc.RpcError:
    """The error of a call that must fail."""
    try:
        call(request, timeout=10, **options)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call was answered")


@dataclass
class Slow:
    """An engine that holds its calls until it is told."""

    engine: object
    began: threading.Semaphore
    go_on: threading.Event
    calls: int = 0
    name = "slow"

    def score(self, items):
        self.calls += 1
        self.began.release()
        assert self.go_on.wait(20)
        return self.engine.score(items)


def slow(found: Serving) -> Slow:
    """Put such an engine into a service."""
    model = found.current.model
    engine = Slow(model.engine, threading.Semaphore(0), threading.Event())
    found.current.model = replace(model, engine=engine)
    return engine
