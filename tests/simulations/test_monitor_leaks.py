"""After a real run: no client's user is on the server's page, nor in any metric."""

import time
from pathlib import Path

import polars as pl
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from client.monitor import metrics_of as client_metrics
from client.monitor import read_facts
from client.settings import read_settings
from common.exposition import Facts
from common.folders import ID_KEY, INTERACTIONS
from server.monitor.metrics import metrics_of
from server.monitor.page import render_page, status_json
from server.monitor.runs import Runs
from simulations.collecting import FEDERATION
from simulations.experiment import run_experiment
from simulations.partition import CLIENTS
from tests.simulations.test_experiment import small

#: The run that all of it looks at takes ten seconds.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    changes = {"training.rounds": 2, "evaluation.baselines": False}
    run_experiment(small(**changes, **{"client-metrics.every": 0}), folder / "lab")
    return folder


def text_of(collect) -> str:
    registry = CollectorRegistry()
    registry.register(Facts(lambda: list(collect())))
    return generate_latest(registry).decode()


def clients(runs: Path) -> list[Path]:
    return sorted((runs / "lab" / FEDERATION / CLIENTS).iterdir())


def told(runs: Path) -> str:
    """All that server and clients show, together."""
    now = time.time()
    found = Runs(runs).now()
    texts = [render_page(found, now), status_json(found, now).decode()]
    texts.append(text_of(lambda: metrics_of(found, now)))
    for folder in clients(runs):
        facts = read_facts(folder, read_settings(folder))
        texts.append(text_of(lambda facts=facts: client_metrics(facts, now)))
    return "\n".join(texts)


def test_a_real_run_is_told_whole(runs):
    found = Runs(runs).now()
    text = text_of(lambda: metrics_of(found, time.time()))

    assert [run.status(time.time()) for run in found] == ["complete"]
    assert 'tutela_rounds_done{run="lab"} 2.0' in text
    assert 'tutela_rounds_planned{run="lab"} 2.0' in text
    assert 'tutela_survivors{run="lab"} 2.0' in text
    assert 'tutela_phase_seconds_count{phase="aggregate",run="lab"} 2.0' in text


def test_no_user_key_or_path_of_a_client_is_shown(runs):
    text = told(runs)

    users = set()
    for folder in clients(runs):
        users |= set(pl.read_parquet(folder / INTERACTIONS)["user"].to_list())
        for path in folder.glob(ID_KEY):
            assert path.read_bytes().hex() not in text
    assert len(users) > 50
    assert [user for user in users if user in text] == []
    assert str(runs) not in text


def test_a_client_agrees_with_the_server_on_what_was_spent(runs):
    """Both count the same charges, each from its own files."""
    (run,) = Runs(runs).now()
    for folder in clients(runs):
        facts = read_facts(folder, read_settings(folder))
        assert facts.fault is None
        assert facts.rounds == run.num_done == 2
        assert facts.accounts[0].spent == pytest.approx(
            run.rounds[-1].epsilon, rel=0.01
        )
