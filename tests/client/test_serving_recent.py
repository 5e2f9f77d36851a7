"""Scores that are kept are those of the same model and history, and few."""

from pathlib import Path

import numpy as np
import pytest

from client.personal_file import student_digest, write_personal
from client.proto import recommender_pb2 as pb
from client.serving.recent import Recent
from client.store_key import PERSONAL
from common.folders import STUDENT
from tests.client.serving_parts import calling, put_student, serving, telling
from tests.client.test_serving import personal_home

SCORES = np.arange(10, dtype=np.float32)  # 40 bytes


def history(*items: int) -> np.ndarray:
    return np.array(items, dtype=np.int64)


def test_scores_come_back_for_the_same_history_alone() -> None:
    recent, items = Recent(), history(1, 2)
    assert recent.get("a", items) is None
    recent.put("a", items, SCORES)
    found = recent.get("a", items)
    np.testing.assert_array_equal(found, SCORES)
    found[:] = -np.inf
    np.testing.assert_array_equal(recent.get("a", items), SCORES)
    assert recent.get("a", history(1, 2, 3)) is None
    assert recent.get("b", items) is None


def test_the_least_recently_used_goes_first() -> None:
    recent, items = Recent(most_bytes=80), history(1)
    for user in ("a", "b"):
        recent.put(user, items, SCORES)
    recent.get("a", items)
    recent.put("c", items, SCORES)
    kept = [user for user in "abc" if recent.get(user, items) is not None]
    assert kept == ["a", "c"]
    for _ in range(5):
        recent.put("a", items, SCORES)
    assert recent.get("c", items) is not None, "a user counts once"
    small = Recent(most_bytes=39)
    small.put("a", items, SCORES)
    assert small.get("a", items) is None


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return personal_home(tmp_path)


def test_a_user_who_asks_again_gets_the_same_and_feedback_counts(home) -> None:
    with serving(home) as found, calling(found.address) as stub:
        request = pb.RecommendRequest(user="u2", k=12)
        seen = pb.RecommendRequest(user="u2", k=12, include_seen=True)
        first = stub.Recommend(request)
        assert first.personal and stub.Recommend(request) == first
        assert len(stub.Recommend(seen).items) == 12, "what was left out is back"
        assert all(np.isfinite(each.score) for each in stub.Recommend(seen).items)
        stub.Feedback(telling("u2", first.items[0].item))
        after = stub.Recommend(request)
        assert first.items[0].item not in {each.item for each in after.items}
        old = {each.item: each.score for each in first.items}
        assert any(each.score != old[each.item] for each in after.items)
    with serving(home) as found, calling(found.address) as stub:
        assert stub.Recommend(request) == after, "as it is scored without any kept"


def test_another_model_begins_anew(home: Path) -> None:
    with serving(home) as found, calling(found.address) as stub:
        request = pb.RecommendRequest(user="u2", k=5)
        before = stub.Recommend(request)
        kept = found.current.model.personal.personal
        found.watch.stop()
        put_student(home, 3)
        write_personal(home / PERSONAL, kept, student_digest(home / STUDENT), None)
        found.watch.look()
        after = stub.Recommend(request)
        assert after.personal and after.model_version != before.model_version
        scores = [each.score for each in after.items]
        assert scores != [each.score for each in before.items]
