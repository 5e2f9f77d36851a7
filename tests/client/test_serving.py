"""Each call's values, against the student's own arithmetic; and bad requests."""

import logging
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from client.data import read_client_data
from client.feedback import read_feedback
from client.identifiers import folder_key, pseudonym
from client.personal import Personal, personal_scores
from client.personal_file import student_digest, write_personal
from client.proto import recommender_pb2 as pb
from client.serving.listen import listening
from client.serving.ranking import best
from client.store_key import FEEDBACK, PERSONAL
from client.taste import directions
from common.folders import RESULTS, STUDENT
from common.recommend import recommend, similar
from common.student import load_student
from tests.client.conftest import NUM_ITEMS
from tests.client.serving_parts import (
    asking,
    calling,
    put_student,
    refusal,
    served_folder,
    serving,
    shelf_catalogue,
    telling,
)

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return served_folder(tmp_path_factory.mktemp("serving") / "0000")


@pytest.fixture(scope="module")
def service(home: Path):
    with serving(home) as found:
        yield found


@pytest.fixture
def stub(service):
    with calling(service.address) as found:
        yield found


def numbers(reply) -> list[int]:
    return [int(each.item[1:]) for each in reply.items]


def test_a_history_gets_what_the_student_ranks(home: Path, stub) -> None:
    history = [1, 4, 7]
    expected = recommend(load_student(home / STUDENT), history, 5)
    reply = stub.Recommend(asking("i1", "i4", "i7", "i4", k=5))
    assert numbers(reply) == expected.item[0].tolist()
    found = [each.score for each in reply.items]
    np.testing.assert_allclose(found, expected.score[0], atol=1e-6)
    assert reply.items[0].title == f"Title {expected.item[0, 0]}"
    assert reply.model_version == student_digest(home / STUDENT)
    assert not reply.personal


def test_without_a_word_ten_unseen_items_are_listed(stub) -> None:
    assert len(numbers(stub.Recommend(asking("i1")))) == 10
    left = numbers(stub.Recommend(asking("i1", "i2", "i3", k=200)))
    assert set(left) == set(range(NUM_ITEMS)) - {1, 2, 3}


def test_seen_items_are_listed_when_asked_for(stub) -> None:
    assert len(numbers(stub.Recommend(asking("i1", include_seen=True, k=200)))) == 12


def test_an_empty_history_gets_the_bias_alone(home: Path, stub) -> None:
    bias = load_student(home / STUDENT).decoder.bias.detach().numpy()
    reply = stub.Recommend(asking(k=3))
    assert numbers(reply) == np.argsort(-bias)[:3].tolist()


@pytest.mark.parametrize("k", [1, 2, 3, 4, 9])
def test_ties_go_to_the_lower_id(k: int) -> None:
    scores = np.float32([1, 3, 3, 2, 3])
    out = np.array([False, True, False, False, False])
    found = best(scores, out, k)
    assert found.item.tolist() == [2, 4, 3, 0][:k]
    assert found.score.tolist() == [3.0, 3.0, 2.0, 1.0][:k]


def test_filters_leave_only_what_was_asked_for(stub) -> None:
    reply = stub.Recommend(
        asking("i1", categories=["even"], exclude_items=["i2", "i4"], k=12)
    )
    assert set(numbers(reply)) == {0, 6, 8, 10}
    both = stub.Recommend(asking("i1", categories=["even", "odd"], k=12))
    assert len(numbers(both)) == 11
    none = stub.Recommend(
        asking(categories=["odd"], exclude_items=[f"i{n}" for n in range(1, 12, 2)])
    )
    assert numbers(none) == []


def test_reasons_are_what_history_adds_to_the_score(home: Path, stub) -> None:
    student, history = load_student(home / STUDENT), [1, 4, 7, 9]
    reply = stub.Recommend(asking(*(f"i{n}" for n in history), k=8, num_reasons=3))
    with torch.no_grad():
        for each in reply.items:
            item = int(each.item[1:])
            parts = {}
            for one in history:
                alone = torch.zeros(1, NUM_ITEMS)
                alone[0, one] = len(history) ** -student.spec.history_exponent
                user = student.encoder(alone) * student.spec.logit_scale
                parts[one] = float(user[0] @ student.decoder.weight[item])
            total = sum(parts.values()) + float(student.decoder.bias[item])
            assert total == pytest.approx(each.score, abs=1e-6), "it is additive"
            order = sorted((p for p in parts if parts[p] > 0), key=lambda p: -parts[p])
            told = [int(reason.item[1:]) for reason in each.reasons]
            assert told == order[:3]
            for reason, one in zip(each.reasons, told, strict=True):
                assert reason.contribution == pytest.approx(parts[one], abs=1e-6)
                assert reason.text == f"because of Title {one}" and reason.title
    assert any(each.reasons for each in reply.items)


def test_similar_is_the_cosine_of_output_vectors(home: Path, stub) -> None:
    expected = similar(load_student(home / STUDENT), 5, 4)
    reply = stub.Similar(pb.SimilarRequest(item="i5", k=4))
    assert numbers(reply) == expected.item[0].tolist()
    scores = [each.score for each in reply.items]
    np.testing.assert_allclose(scores, expected.score[0], atol=1e-6)
    request = pb.SimilarRequest(item="i5", categories=["odd"], exclude_items=["i7"])
    assert set(numbers(stub.Similar(request))) == {1, 3, 9, 11}


def test_describe_says_what_answers(home: Path, service, stub) -> None:
    found = stub.Describe(pb.DescribeRequest())
    assert found.model_version == student_digest(home / STUDENT)
    assert (found.num_items, found.dim) == (NUM_ITEMS, 3)
    assert found.catalogue_digest == shelf_catalogue().digest
    assert (found.engine, found.promise, found.personal) == ("torch", "", False)


def test_a_stored_user_is_named_as_the_owner_names_them(home: Path, stub) -> None:
    expected = recommend(load_student(home / STUDENT), [0, 1, 2, 3], 5)
    reply = stub.Recommend(pb.RecommendRequest(user="u0", k=5))
    assert numbers(reply) == expected.item[0].tolist()


BAD = [
    ("Recommend", pb.RecommendRequest(k=3), "neither"),
    ("Recommend", asking("i1", k=201), "k: expected at most 200"),
    ("Recommend", asking("i1", "SECRET"), "history: .* 1 of 2"),
    ("Recommend", asking("i1", exclude_items=["SECRET"]), "exclude_items"),
    ("Recommend", asking("i1", categories=["SECRET"]), "categories"),
    ("Recommend", asking("i1", num_reasons=11), "num_reasons"),
    ("Recommend", pb.RecommendRequest(user=""), "1 to 256 characters"),
    ("Recommend", pb.RecommendRequest(user="SECRET" * 50), "got 300"),
    ("Similar", pb.SimilarRequest(item="SECRET"), "item"),
    ("Similar", pb.SimilarRequest(item="i1", k=201), "k: expected"),
    ("Feedback", pb.FeedbackRequest(user="u0"), "expected 1 to 200, got 0"),
    ("Feedback", telling("u0", *["i1"] * 201), "got 201"),
    ("Feedback", telling("u0", "i5", "SECRET"), "1 of 2 outside"),
    ("Feedback", telling("", "i5"), "characters"),
    *(
        (
            "Feedback",
            pb.FeedbackRequest(user="u0", interactions=[pb.Interaction(**wrong)]),
            "finite values and times",
        )
        for wrong in (
            {"item": "i5", "value": float("nan")},
            {"item": "i5", "value": float("inf")},
            {"item": "i5", "timestamp": -1},
            {"item": "i5", "timestamp": 10**12},
        )
    ),
]


@pytest.mark.parametrize(("name", "request_", "text"), BAD)
def test_a_bad_request_is_named_and_not_repeated(
    home, stub, name, request_, text, caplog
) -> None:
    before = (home / FEEDBACK).read_bytes()
    error = refusal(getattr(stub, name), request_)
    assert error.code() == CODE.INVALID_ARGUMENT
    assert error.details() and "SECRET" not in error.details() + caplog.text
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(error.details())
    assert (home / FEEDBACK).read_bytes() == before, "nothing of it is kept"


def test_a_user_without_rows_is_not_found(stub) -> None:
    error = refusal(stub.Recommend, pb.RecommendRequest(user="u99"))
    assert error.code() == CODE.NOT_FOUND and "u99" not in error.details()


def test_an_error_inside_shows_nothing(service, stub, monkeypatch, caplog) -> None:
    class Broken:
        name = "broken"

        def score(self, items):
            raise KeyError("SECRET")

    model = service.current.model
    monkeypatch.setattr(service.current, "model", replace(model, engine=Broken()))
    with caplog.at_level(logging.DEBUG):
        error = refusal(stub.Recommend, asking("i1"))
    assert (error.code(), error.details()) == (CODE.INTERNAL, "The recommender failed.")
    assert "KeyError in score" in caplog.text and "SECRET" not in caplog.text


def test_feedback_is_on_disk_and_seen_at_once(tmp_path: Path) -> None:
    home = served_folder(tmp_path / "0000")
    with serving(home) as found, calling(found.address) as stub:
        reply = stub.Feedback(telling("u0", "i3", "i5", "i5", "i8"))
        assert (reply.stored, reply.known) == (2, 2)
        kept = read_feedback(home, None)
        user = pseudonym("u0", folder_key(home))
        assert kept["user"].to_list() == [user] * 2, "a pseudonym, not u0"
        assert kept["item"].to_list() == ["i5", "i8"]
        assert kept["value"].to_list() == [1.0, 1.0] and kept["timestamp"].min() > 1e9
        size = (home / FEEDBACK).stat().st_size
        assert stub.Feedback(telling("u0", "i5", "i0")).stored == 0
        assert (home / FEEDBACK).stat().st_size == size
        listed = numbers(stub.Recommend(pb.RecommendRequest(user="u0", k=12)))
        assert set(listed) == {4, 6, 7, 9, 10, 11}
        assert stub.Feedback(telling("new", "i1")).stored == 1
        expected = recommend(load_student(home / STUDENT), [1], 3)
        reply = stub.Recommend(pb.RecommendRequest(user="new", k=3))
        assert numbers(reply) == expected.item[0].tolist()
    data = read_client_data(home)
    assert data.histories[0].indices.tolist() == [0, 1, 2, 3, 5, 8]
    assert data.histories.shape == (5, NUM_ITEMS)
    with serving(home) as found, calling(found.address) as stub:
        again = stub.Recommend(pb.RecommendRequest(user="new", k=3))
        assert numbers(again) == numbers(reply), "after a restart as well"


def test_a_full_disk_is_said_and_nothing_is_pretended(tmp_path, monkeypatch) -> None:
    home = served_folder(tmp_path / "0000")
    with serving(home) as found, calling(found.address) as stub:

        def full(*_) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("client.sealed_log.os.pwrite", full)
            error = refusal(stub.Feedback, telling("u0", "i5"))
        assert error.code() == CODE.INTERNAL
        assert stub.Feedback(telling("u0", "i5")).stored == 1


def personal_home(tmp_path: Path) -> Path:
    """A folder with parameters that matter: a made-up taste for everybody."""
    home = served_folder(tmp_path / "0000", num_users=6)
    data, student = read_client_data(home), load_student(home / STUDENT)
    axes = directions(student, data.catalogue)
    num_users, num_axes = len(data.users), axes.shape[1]
    taste = np.random.default_rng(0).normal(size=(num_users, num_axes))
    nothing, whole = np.zeros(num_users, np.float32), np.ones(num_users, np.float32)
    found = Personal(
        users=data.users.ids,
        organisation=None,
        share=0.0,
        user_share=nothing,
        alpha=whole,
        taste=taste.astype(np.float32),
        before=nothing,
        after=whole,
    )
    write_personal(home / PERSONAL, found, student_digest(home / STUDENT), None)
    return home


def test_a_stored_user_gets_personal_scores_and_nobody_else(tmp_path: Path) -> None:
    home = personal_home(tmp_path)
    with serving(home) as found, calling(found.address) as stub:
        model = found.current.model
        history = sp.csr_matrix(read_client_data(home).histories[2])
        scores = personal_scores(
            model.personal.personal,
            load_student(home / STUDENT),
            model.personal.axes,
            history,
            np.array([2]),
        )[0]
        scores[history.indices] = -np.inf
        reply = stub.Recommend(pb.RecommendRequest(user="u2", k=5))
        assert reply.personal and stub.Describe(pb.DescribeRequest()).personal
        assert numbers(reply) == np.argsort(-scores, kind="stable")[:5].tolist()
        items = [f"i{n}" for n in history.indices]
        other = stub.Recommend(asking(*items, k=5))
        assert not other.personal and numbers(other) != numbers(reply)
        stub.Feedback(telling("new", "i1"))
        assert len(stub.Recommend(pb.RecommendRequest(user="new")).items) == 10


def test_parameters_of_another_student_are_left_out(tmp_path, caplog) -> None:
    home = personal_home(tmp_path)
    put_student(home, 2)
    with serving(home) as found, calling(found.address) as stub:
        assert not stub.Recommend(pb.RecommendRequest(user="u2")).personal
    assert "personalise" in caplog.text


def test_a_promise_beside_the_student_is_told(tmp_path: Path) -> None:
    home = served_folder(tmp_path / "0000")
    (home / RESULTS).write_text('{"promise": {"sentence": "Each client …"}}')
    with serving(home) as found, calling(found.address) as stub:
        assert stub.Describe(pb.DescribeRequest()).promise == "Each client …"


def test_a_new_device_without_rows_may_begin_with_feedback(tmp_path: Path) -> None:
    home = served_folder(tmp_path / "0000")
    (home / "interactions.parquet").unlink()
    with serving(home) as found, calling(found.address) as stub:
        assert stub.Feedback(telling("u0", "i5")).stored == 1
    assert read_client_data(home).histories.toarray().sum() == 1


def test_a_unix_socket_is_its_owners_alone(tmp_path: Path) -> None:
    home = served_folder(tmp_path / "0000")
    place = listening(home)
    with serving(home, place) as found, calling(found.address) as stub:
        assert found.address == f"unix:{home}/serving.sock"
        assert place.socket.stat().st_mode & 0o777 == 0o600
        assert len(stub.Recommend(asking("i1")).items) == 10


def test_health_and_reflection_answer(service) -> None:
    with grpc.insecure_channel(service.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "tutela.recommender.v1.Recommender"):
            request = health_pb2.HealthCheckRequest(service=name)
            assert (
                health.Check(request).status == health_pb2.HealthCheckResponse.SERVING
            )
        unknown = health_pb2.HealthCheckRequest(service="other")
        assert refusal(health.Check, unknown).code() == CODE.NOT_FOUND
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([asked]))
        names = {each.name for each in answer.list_services_response.service}
        assert {"tutela.recommender.v1.Recommender", "grpc.health.v1.Health"} <= names


@pytest.mark.slow
def test_onnx_runtime_scores_alike(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    copy = served_folder(tmp_path / "0000")
    with serving(copy, engine="onnxruntime") as found, calling(found.address) as stub:
        assert stub.Describe(pb.DescribeRequest()).engine == "onnxruntime"
        reply = stub.Recommend(asking("i1", "i4", k=11))
        expected = recommend(load_student(copy / STUDENT), [1, 4], 10)
        assert numbers(reply) == expected.item[0].tolist()
        scores = [each.score for each in reply.items]
        np.testing.assert_allclose(scores, expected.score[0], atol=1e-5)
    (kept,) = (copy / "serving").iterdir()
    assert kept.name == f"{student_digest(copy / STUDENT)}.onnx"
