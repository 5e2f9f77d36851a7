"""The load's own arithmetic: what it calls, and what it counts."""

import asyncio
from pathlib import Path

import pytest

from client.feedback import read_feedback
from client.proto import recommender_pb2 as pb
from client.serving import load as loads
from client.serving.limits import Limits
from client.serving.load import KINDS, Load, measure, requests_of
from common.errors import ConfigError
from tests.client.serving_parts import served_folder, serving

ITEMS = tuple(f"i{n}" for n in range(12))


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    monkeypatch.setattr(loads, "HISTORY", 4)
    monkeypatch.setattr(loads, "WARM_UP", 0.1)


def passed(address: str, kind: str, callers: int = 2) -> loads.Measured:
    return asyncio.run(measure(Load(address, kind, callers, 0.3, ITEMS, 4)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_answered_and_counted(tmp_path: Path, kind) -> None:
    home = served_folder(tmp_path / "0000")
    with serving(home) as found:
        measured = passed(found.address, kind)
    assert measured.errors == {}
    assert measured.calls > 10
    assert 0 < measured.p50 <= measured.p99 <= measured.most < 5000
    assert measured.rate == pytest.approx(measured.calls / 0.3, rel=0.7)
    stored = read_feedback(home, None).height
    assert (stored >= measured.calls) if kind == "feedback" else (stored == 0)


def test_calls_that_fail_are_errors(tmp_path: Path) -> None:
    home = served_folder(tmp_path / "0000")
    with serving(home, limits=Limits(rate=0.001)) as found:
        measured = passed(found.address, "history")
    assert set(measured.errors) == {"RESOURCE_EXHAUSTED"}
    assert measured.errors["RESOURCE_EXHAUSTED"] >= measured.calls - 10


def test_requests_are_made_up_of_the_catalogue() -> None:
    requests = requests_of(Load("", "reasons", 1, 1.0, ITEMS, 4))
    name, request = requests(7)
    assert name == "Recommend" and request.num_reasons == 3
    assert set(request.history.items) <= set(ITEMS) and len(request.history.items) == 4
    users = requests_of(Load("", "user", 1, 1.0, ITEMS, 4))
    assert users(6) == ("Recommend", pb.RecommendRequest(user="u2"))
    with pytest.raises(ConfigError, match="feedback"):
        requests_of(Load("", "other", 1, 1.0, ITEMS, 4))
