"""A newer student is taken between two calls; a broken one changes nothing."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client.importing import write_rows
from client.personal_file import student_digest
from client.proto import recommender_pb2 as pb
from client.serving import server
from client.serving.limits import Limits
from client.serving.listen import listening
from client.serving.model import Model
from client.serving.server import open_serving
from common.catalogue import Catalogue, write_catalogue
from common.errors import DataFormatError
from common.folders import CATALOGUE, STUDENT
from common.recommend import recommend
from common.student import StudentSpec, load_student, save_student
from tests.client.conftest import SPEC, rows
from tests.client.serving_parts import (
    asking,
    calling,
    put_student,
    served_folder,
    serving,
    shelf_catalogue,
    telling,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return served_folder(tmp_path / "0000")


def until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


class Caller(threading.Thread):
    """Calls without a pause, and keeps what it was answered."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address, self.ended = address, threading.Event()
        self.answers: list[tuple[str, tuple[str, ...], float]] = []
        self.errors: list[Exception] = []

    def run(self) -> None:
        with calling(self.address) as stub:
            while not self.ended.is_set():
                try:
                    reply = stub.Recommend(asking("i1", "i4", k=3), timeout=10)
                except Exception as error:
                    self.errors.append(error)
                    continue
                items = tuple(each.item for each in reply.items)
                self.answers.append((reply.model_version, items, reply.items[0].score))


def expected(home: Path) -> tuple[str, tuple[str, ...], float]:
    found = recommend(load_student(home / STUDENT), [1, 4], 3)
    items = tuple(f"i{n}" for n in found.item[0])
    return student_digest(home / STUDENT), items, float(found.score[0, 0])


def test_students_change_under_load_without_a_dropped_call(home: Path) -> None:
    with serving(home) as found:
        callers = [Caller(found.address) for _ in range(3)]
        for caller in callers:
            caller.start()
        right = {}
        try:
            for seed in (1, 2, 3, 4):
                if seed > 1:
                    put_student(home, seed)
                answer = expected(home)
                right[answer[0]] = answer
                until(lambda v=answer[0]: found.current.model.version == v)
                seen = [len(caller.answers) for caller in callers]
                until(
                    lambda s=seen: all(
                        len(c.answers) > n + 3 for c, n in zip(callers, s, strict=True)
                    )
                )
        finally:
            for caller in callers:
                caller.ended.set()
                caller.join(20)
    assert not any(caller.errors for caller in callers)
    assert len(right) == 4
    for caller in callers:
        versions = [version for version, _, _ in caller.answers]
        assert set(versions) == set(right)
        assert list(dict.fromkeys(versions)) == list(right), "never back again"
        for version, items, score in caller.answers:
            assert items == right[version][1], "whole: never a mixture of two"
            assert score == pytest.approx(right[version][2], abs=1e-6)


def not_finite(home: Path) -> None:
    student = load_student(home / STUDENT)
    student.decoder.weight.data[0, 0] = np.nan
    save_student(home / STUDENT, student.spec, student.state_dict())


def other_catalogue(home: Path) -> None:
    put_student(home, 2, StudentSpec(SPEC.num_items + 1, 3, 20.0, 0.8))


def half(home: Path) -> None:
    content = (home / STUDENT).read_bytes()
    (home / STUDENT).write_bytes(content[: len(content) // 2])


BREAKS = [
    not_finite,
    other_catalogue,
    half,
    lambda home: (home / STUDENT).write_bytes(b"garbage"),
    lambda home: (home / STUDENT).unlink(),
]


@pytest.mark.parametrize("break_it", BREAKS)
def test_a_broken_student_leaves_the_old_one_and_is_logged(
    home: Path, break_it, caplog
) -> None:
    with serving(home) as found, calling(found.address) as stub:
        before = stub.Recommend(asking("i1", "i4", k=3))
        break_it(home)
        until(lambda: "the old model stays" in caplog.text)
        assert stub.Recommend(asking("i1", "i4", k=3)) == before
        put_student(home, 3)
        version = student_digest(home / STUDENT)
        until(lambda: found.current.model.version == version)
        assert stub.Recommend(asking("i1")).model_version == version
    assert caplog.text.count("the old model stays") == 1, "said once, not each look"


@pytest.mark.parametrize("break_it", BREAKS)
def test_the_log_says_why_and_names_no_path(home: Path, break_it, caplog) -> None:
    with serving(home) as found:
        break_it(home)
        found.watch.look()
        until(lambda: "the old model stays: " in caplog.text)
    assert "/" not in caplog.text.partition("the old model stays: ")[2].split("\n")[0]
    assert str(home) not in caplog.text


def test_an_error_that_quotes_a_path_is_named_by_its_kind(home, caplog) -> None:
    found = open_serving(home, listening(home, "127.0.0.1:0"), Limits(), "torch")
    try:
        for error in (OSError(28, "full", str(home)), DataFormatError(f"{home}: bad")):

            def broken(error: Exception = error) -> Model:
                raise error

            found.watch._load = broken
            put_student(home, 7)
            found.watch.look()
            assert f"the old model stays: {type(error).__name__}" in caplog.text
        assert str(home.name) not in caplog.text
    finally:
        found.stop(0)


def test_what_failed_is_tried_again_after_a_pause(home: Path, caplog) -> None:
    """A disk that was full, a key that was locked: the file itself is sound."""
    now = [0.0]
    found = open_serving(home, listening(home, "127.0.0.1:0"), Limits(), "torch")
    watch, load, tries = found.watch, found.watch._load, []

    def broken() -> Model:
        tries.append(now[0])
        raise OSError(28, "No space left on device")

    try:
        watch._clock, watch._load = lambda: now[0], broken
        put_student(home, 6)
        for now[0] in (0.0, 1.0, 29.0, 30.5, 31.0, 61.0):
            watch.look()
        assert tries == [0.0, 30.5, 61.0]
        assert caplog.text.count("the old model stays") == 1, "said once"
        watch._load, now[0] = load, 100.0
        watch.look()
        assert found.current.model.version == student_digest(home / STUDENT)
        watch._load, now[0] = broken, 1000.0
        watch.look()
        assert len(tries) == 3, "nothing is left to try"
    finally:
        found.stop(0)


@pytest.mark.parametrize("break_it", BREAKS)
def test_a_broken_student_is_not_begun_with(home: Path, break_it) -> None:
    break_it(home)
    with pytest.raises(DataFormatError, match="student"), serving(home):
        pass
    put_student(home, 1)
    with serving(home):
        pass


def test_rows_imported_while_serving_are_taken(home: Path) -> None:
    with serving(home) as found, calling(found.address) as stub:
        stub.Feedback(telling("u9", "i0"))
        table = pl.concat([rows(4), rows(10).filter(pl.col("user") == "u9")])
        write_rows(home, table)
        request = pb.RecommendRequest(user="u9", k=12)

        def listed() -> set[str]:
            return {each.item for each in stub.Recommend(request).items}

        until(lambda: len(listed()) < 11)
        known = {"i0", *table.filter(pl.col("user") == "u9")["item"]}
        assert listed() == {f"i{n}" for n in range(12)} - known


def test_another_catalogue_takes_a_restart(home: Path, caplog) -> None:
    with serving(home) as found, calling(found.address) as stub:
        before = stub.Recommend(asking("i1"))
        turned = Catalogue(shelf_catalogue().table.reverse())
        write_catalogue(turned, home / CATALOGUE)
        until(lambda: "start again" in caplog.text)
        assert stub.Recommend(asking("i1")) == before


def test_files_changed_while_it_loads_are_looked_at_again(home, monkeypatch) -> None:
    """A student delivered between the loading and the first look is no old one."""
    original = server.load_model

    def slowly(folder, *rest):
        found = original(folder, *rest)
        put_student(folder, 5)
        return found

    monkeypatch.setattr(server, "load_model", slowly)
    found = open_serving(home, listening(home, "127.0.0.1:0"), Limits(), "torch")
    try:
        monkeypatch.setattr(server, "load_model", original)
        found.watch.look()
        assert found.current.model.version == student_digest(home / STUDENT)
    finally:
        found.stop(0)
