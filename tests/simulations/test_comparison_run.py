"""Runs that also rank other recommenders, and both students together, end to end."""

import sys
from pathlib import Path

import numpy as np
import pytest

from common.config import RunConfig, defaults, parse
from common.errors import ConfigError
from common.folders import REPORT, RESULTS
from common.fusion import DECISIONS, borda
from simulations.collecting import decided
from simulations.experiment import run_experiment
from simulations.results import Results, read_results
from simulations.table import MODEL_LABELS, plain_text

SET = "synthetic:num_users=160,num_items=60,interactions_per_user=10"
OTHERS = ["puresvd_nonprivate", "item_knn_nonprivate", "ials_nonprivate", "fedmf"]


def config(**overrides) -> RunConfig:
    small = {
        "data.public": SET,
        "data.private": SET,
        "partition.num-clients": 2,
        "partition.public-users": 30,
        "partition.validation-users": 8,
        "partition.heldout-users": 40,
        "student.dim": 4,
        "training.rounds": 1,
        "privacy.noise-multiplier": 1.0,
        "privacy.declared-users": 41,
        "evaluation.baselines": False,
        "evaluation.resamples": 20,
        "evaluation.comparison": True,
        "evaluation.decision": "borda",
    }
    return parse(defaults() | small | overrides)


@pytest.fixture(scope="module", params=["local", "off"])
def run(request, tmp_path_factory) -> tuple[str, Path, Results]:
    pytest.importorskip("implicit")
    out = tmp_path_factory.mktemp(request.param) / "run"
    return (
        request.param,
        out,
        run_experiment(config(**{"privacy.mode": request.param}), out),
    )


def test_every_other_recommender_is_ranked_and_stamped(run) -> None:
    mode, out, results = run
    assert read_results(out / RESULTS) == results
    assert set(OTHERS) <= set(results.models)
    stamped = [name for name in OTHERS if results.model_notes[name].stamp]
    assert stamped == (OTHERS if mode == "off" else OTHERS[:3])
    values = [results.models[name]["ndcg@100"].value for name in OTHERS]
    assert len(set(values)) == 4
    assert all(0 < value < 1 for value in values)


def test_table_and_report_show_them(run) -> None:
    _, out, results = run
    page = (out / REPORT).read_text()
    text = plain_text(results)
    for name in (*OTHERS, "ensemble"):
        assert MODEL_LABELS[name] in text
        assert MODEL_LABELS[name] in page
        assert f"{results.models[name]['ndcg@10'].value:.3f}" in text


def test_both_students_together_are_as_private_as_the_trained_one(run) -> None:
    mode, _, results = run
    assert results.model_notes["ensemble"].private == (mode == "local")
    assert results.model_notes["ensemble"] == results.model_notes["student_private"]
    assert {"ndcg@10", "coverage@10"} <= set(results.models["ensemble"])


def test_rankings_are_combined_batch_by_batch() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 6, 9)).astype(np.float32)
    both = decided([lambda a, b: scores[0, a:b], lambda a, b: scores[1, a:b]], "borda")
    whole = borda([scores[0], scores[1]])
    np.testing.assert_array_equal(np.vstack([both(0, 4), both(4, 6)]), whole)


def test_the_setting_knows_every_way_to_decide() -> None:
    for how in DECISIONS:
        assert config(**{"evaluation.decision": how}).evaluation.decision == how
    with pytest.raises(ConfigError, match=r"evaluation\.decision"):
        config(**{"evaluation.decision": "dice"})


def test_a_missing_package_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    with pytest.raises(ConfigError, match=r"tutela\[benchmark\]"):
        run_experiment(config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
