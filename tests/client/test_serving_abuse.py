"""What callers may not do: hold threads, take memory, fill the store, run code."""

import os
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import polars as pl
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from client.data import read_client_data
from client.importing import write_rows
from client.proto import recommender_pb2 as pb
from client.proto.recommender_pb2_grpc import RecommenderStub
from client.serving import server
from client.serving.engine import _convert
from client.serving.limits import Limits
from client.serving.listen import listening
from client.serving.ranking import Shelf, left_out
from client.store_key import FEEDBACK
from common.errors import DataFormatError
from common.interactions import IdMap
from tests.client.conftest import rows
from tests.client.serving_parts import (
    LOOPBACK,
    asking,
    calling,
    refusal,
    served_folder,
    serving,
    slow,
    telling,
)

CODE = grpc.StatusCode
TOKEN = "a token of some length"
RECOMMEND = "/tutela.recommender.v1.Recommender/Recommend"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return served_folder(tmp_path_factory.mktemp("abuse") / "0000")


@contextmanager
def half_open(address: str, times: int) -> Iterator[list[grpc.Future]]:
    """Calls whose request never comes, for as long as the block lasts."""
    ended = threading.Event()

    def never() -> Iterator[bytes]:
        ended.wait(60)
        yield from ()

    with grpc.insecure_channel(address) as channel:
        begin = channel.stream_unary(RECOMMEND)
        calls = [begin.future(never()) for _ in range(times)]
        try:
            yield calls
        finally:
            ended.set()


# --------------------------------------------------------------- held threads
@pytest.mark.parametrize("times", [4, 70])
def test_callers_without_a_token_are_refused_unread(home, monkeypatch, times) -> None:
    monkeypatch.setenv("TOKEN", TOKEN)
    place = listening(home, LOOPBACK, token="env:TOKEN")
    right = [("authorization", f"Bearer {TOKEN}")]
    with (
        serving(home, place) as found,
        half_open(found.address, times) as calls,
        calling(found.address) as stub,
    ):
        codes = {each.exception(timeout=10).code() for each in calls}
        assert codes <= {CODE.UNAUTHENTICATED, CODE.RESOURCE_EXHAUSTED}
        assert CODE.UNAUTHENTICATED in codes
        begun = time.monotonic()
        assert stub.Recommend(asking("i1"), metadata=right, timeout=10).items
        assert time.monotonic() - begun < 3.0, "it waits for none of them"


def test_a_request_that_does_not_come_is_cut_off(home: Path, monkeypatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    with (
        serving(home) as found,
        half_open(found.address, 4) as calls,
        calling(found.address) as stub,
    ):
        assert stub.Recommend(asking("i1"), timeout=10).items
        for each in calls:
            assert each.exception(timeout=10).code() == CODE.CANCELLED


def test_an_idle_reflection_call_is_cut_off(home: Path, monkeypatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    ended = threading.Event()

    def never() -> Iterator[object]:
        ended.wait(60)
        yield from ()

    with (
        serving(home) as found,
        grpc.insecure_channel(found.address) as channel,
        calling(found.address) as stub,
    ):
        mirror = reflection_pb2_grpc.ServerReflectionStub(channel)
        streams = [mirror.ServerReflectionInfo(never()) for _ in range(4)]
        assert stub.Recommend(asking("i1"), timeout=10).items
        for stream in streams:
            with pytest.raises(grpc.RpcError) as caught:
                next(stream)
            assert caught.value.code() == CODE.CANCELLED
        ended.set()


def test_idle_watches_of_health_are_in_nobodys_way(home: Path, monkeypatch) -> None:
    """Not those that sent a request, nor those that did not."""
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    ended = threading.Event()

    def never() -> Iterator[bytes]:
        ended.wait(60)
        yield from ()

    with (
        serving(home) as found,
        grpc.insecure_channel(found.address) as channel,
        calling(found.address) as stub,
    ):
        idle = channel.stream_stream("/grpc.health.v1.Health/Watch")
        calls = [idle(never()) for _ in range(3)]
        watch = health_pb2_grpc.HealthStub(channel).Watch
        watches = []
        for _ in range(70):
            watches.append(watch(health_pb2.HealthCheckRequest()))
            assert next(watches[-1]).status == 1
        assert stub.Recommend(asking("i1"), timeout=10).items
        assert {each.code() for each in calls} == {CODE.CANCELLED}
        ended.set()
        for each in watches:
            each.cancel()


def test_a_slow_answer_is_no_late_request(home: Path, monkeypatch) -> None:
    """Patience is with the request alone."""
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    with serving(home) as found, calling(found.address) as stub:
        engine = slow(found)
        threading.Timer(0.8, engine.go_on.set).start()
        assert stub.Recommend(asking("i1"), timeout=10).items


def test_a_call_without_a_request_is_refused(home: Path) -> None:
    with serving(home) as found, grpc.insecure_channel(found.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(RECOMMEND)(iter(()), timeout=10)
        assert caught.value.code() == CODE.UNIMPLEMENTED


# --------------------------------------------------------------------- memory
def test_a_category_said_often_costs_no_more_than_once() -> None:
    num_items = 10_000
    masks = {name: np.arange(num_items) % 3 == n for n, name in enumerate("abc")}
    ids = tuple(f"i{n:05d}" for n in range(num_items))
    shelf = Shelf(IdMap(ids), [""] * num_items, masks, "")
    tracemalloc.start()
    try:
        out = left_out(shelf, ["a", "b"] * 5_000, [np.array([0, 4])])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 50 * num_items
    assert out.tolist() == [n % 3 == 2 or n in (0, 4) for n in range(num_items)]


MANY = [
    ("Recommend", asking("i1", categories=["even"] * 101), "categories: .* got 101"),
    ("Recommend", asking(*["i1"] * 10_001), "history: .* got 10001"),
    ("Recommend", asking(exclude_items=["i1"] * 10_001), "exclude_items: .* 10001"),
    ("Similar", pb.SimilarRequest(item="i1", categories=["even"] * 101), "categories"),
    (
        "Similar",
        pb.SimilarRequest(item="i1", exclude_items=["i1"] * 10_001),
        "exclude_items",
    ),
]


@pytest.mark.parametrize(("name", "request_", "text"), MANY)
def test_lists_in_a_request_are_bounded(home: Path, name, request_, text) -> None:
    with serving(home) as found, calling(found.address) as stub:
        error = refusal(getattr(stub, name), request_)
        assert error.code() == CODE.INVALID_ARGUMENT
        with pytest.raises(AssertionError, match=text):
            raise AssertionError(error.details())
        assert stub.Recommend(asking(*["i1"] * 10_000, categories=["even"] * 100)).items


# ------------------------------------------------------------------ the store
def test_new_users_are_bounded_and_imported_ones_always_heard(tmp_path) -> None:
    home = served_folder(tmp_path / "0000", num_users=4)
    limits = Limits(rate=0, most_users=2)
    with serving(home, limits=limits) as found, calling(found.address) as stub:
        for user in ("new0", "new1"):
            assert stub.Feedback(telling(user, "i1")).stored == 1
        before = (home / FEEDBACK).read_bytes()
        error = refusal(stub.Feedback, telling("new2", "i1"))
        assert error.code() == CODE.RESOURCE_EXHAUSTED
        assert "new2" not in error.details() and "--most-users" in error.details()
        assert (home / FEEDBACK).read_bytes() == before
        assert stub.Feedback(telling("new1", "i2")).stored == 1, "it is known"
        for user in range(3):
            assert stub.Feedback(telling(f"u{user}", "i11")).stored == 1
    with serving(home, limits=limits) as found, calling(found.address) as stub:
        error = refusal(stub.Feedback, telling("new3", "i1"))
        assert error.code() == CODE.RESOURCE_EXHAUSTED, "after a restart as well"
        # Rows of one of them are imported: there is room for another.
        table = rows(6).with_columns(pl.col("user").replace("u5", "new1"))
        write_rows(home, table)
        found.histories.reload()
        assert stub.Feedback(telling("new3", "i1")).stored == 1
    assert read_client_data(home).histories.shape[0] == 4 + 2 + 2


def test_the_log_of_feedback_is_bounded(tmp_path: Path) -> None:
    home = served_folder(tmp_path / "0000")
    limits = Limits(rate=0, most_stored=600)
    with serving(home, limits=limits) as found, calling(found.address) as stub:
        kept = 0
        for number in range(11):
            try:
                kept += stub.Feedback(telling("new", f"i{number}")).stored
            except grpc.RpcError as error:
                assert error.code() == CODE.RESOURCE_EXHAUSTED
                assert "--most-stored" in error.details()
        size = (home / FEEDBACK).stat().st_size
        assert 2 <= kept < 11 and size <= 600
        assert stub.Feedback(telling("new", "i0")).known == 1, "nothing to write"
        assert len(stub.Recommend(pb.RecommendRequest(user="new")).items) > 0
    # A larger bound goes on where the smaller one stopped.
    with serving(home) as found, calling(found.address) as stub:
        assert stub.Feedback(telling("new", "i11")).stored == 1
    assert read_client_data(home).histories[4].nnz == kept + 1


# ----------------------------------------------------------------------- code
@pytest.mark.parametrize("path", ["", ":", "/a::/b:"])
def test_the_working_directory_is_no_place_for_code(monkeypatch, path) -> None:
    began = []

    def failing(command, **options):
        began.append((command, options["env"]["PYTHONPATH"].split(os.pathsep)))
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setattr("client.serving.engine.subprocess.run", failing)
    with pytest.raises(DataFormatError, match="converts to ONNX"):
        _convert(Path("student"), Path("out"), "digest")
    ((command, parts),) = began
    assert command.index("-P") < command.index("-m")
    assert parts == [str(Path(__file__).parents[2]), *path.replace(":", " ").split()]


@pytest.mark.slow
def test_no_code_of_the_working_directory_is_run(tmp_path, monkeypatch) -> None:
    mark = tmp_path / "ran"
    planted = f"open({str(mark)!r}, 'w').close()\n"
    other = tmp_path / "other"
    (tmp_path / "client" / "serving").mkdir(parents=True)
    other.mkdir()
    for name in ("__init__.py", "serving/__init__.py", "serving/convert.py"):
        (tmp_path / "client" / name).write_text(planted)
    (tmp_path / "sitecustomize.py").write_text(planted)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{other}:")
    with pytest.raises(DataFormatError, match="converts to ONNX"):
        _convert(tmp_path / "none", tmp_path / "out.onnx", "digest")
    assert not mark.exists()


def test_new_limits_are_named() -> None:
    for name in ("most_users", "most_stored"):
        with pytest.raises(Exception, match="--" + name.replace("_", "-")):
            Limits(**{name: -1})


def test_bytes_on_the_wire_are_those_of_a_unary_call(home: Path) -> None:
    """Other languages' generated callers see no difference."""
    with serving(home) as found, grpc.insecure_channel(found.address) as channel:
        call = channel.unary_unary(RECOMMEND)
        reply = pb.RecommendReply.FromString(
            call(asking("i1").SerializeToString(), timeout=10)
        )
        expected = RecommenderStub(channel).Recommend(asking("i1"), timeout=10)
        assert reply == expected
