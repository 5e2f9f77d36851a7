"""One experiment end to end, in seconds."""

import json
import math
from pathlib import Path

import pytest

from common.config import RunConfig, defaults, parse
from common.folders import METRICS, REPORT, RESULTS, STUDENT
from simulations import experiment
from simulations.experiment import arms_of, run_experiment
from simulations.results import read_results

SET = "synthetic:num_users=200,num_items=60,interactions_per_user=10"


def small(**overrides) -> RunConfig:
    flat = defaults() | {
        "data.public": SET,
        "data.private": SET,
        "run.keep-every": 2,
        "partition.num-clients": 2,
        "partition.public-users": 30,
        "partition.validation-users": 8,
        "partition.heldout-users": 40,
        "student.dim": 8,
        "training.rounds": 4,
        "privacy.declared-users": 65,
        "evaluation.resamples": 50,
    }
    return parse(flat | overrides)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("experiment") / "run"
    run_experiment(small(), out)
    return out


def test_every_named_model_is_ranked_and_stamped(run: Path) -> None:
    results = read_results(run / RESULTS)
    assert set(results.models) == {
        "popularity",
        "popularity_nonprivate",
        "teacher",
        "student_transferred",
        "student_private",
        "student_nonprivate",
        "student_scratch",
    }
    stamped = {name for name, note in results.model_notes.items() if note.stamp}
    assert stamped == {"popularity_nonprivate", "student_nonprivate"}
    for metrics in results.models.values():
        assert set(metrics) >= {"ndcg@10", "ndcg@100", "recall@20", "mrr"}
        for interval in metrics.values():
            assert interval.low <= interval.value <= interval.high


def test_the_promise_is_kept_to_the_target(run: Path) -> None:
    promise = read_results(run / RESULTS).promise
    assert promise.epsilon == pytest.approx(8.0, abs=0.01)
    assert promise.epsilon <= 8.0
    assert (promise.unit, promise.mode, promise.delta) == ("user", "local", 1e-5)
    assert not promise.seeded


def test_rounds_record_cost_and_held_out_value_of_kept_students(run: Path) -> None:
    rounds = read_results(run / RESULTS).rounds
    assert [r.round for r in rounds] == [1, 2, 3, 4]
    epsilons = [r.epsilon for r in rounds]
    assert epsilons == sorted(epsilons)
    assert [r.heldout is None for r in rounds] == [True, False, True, False]
    floats = (2 * 60 * 8 + 60) * 4
    assert all(r.bytes_up_per_client >= floats for r in rounds)
    assert all(set(r.seconds) == {"train", "aggregate", "validate"} for r in rounds)


def test_the_folder_holds_what_the_readme_says(run: Path) -> None:
    for name in (RESULTS, METRICS, STUDENT, REPORT, "config.toml", "catalogue.parquet"):
        assert (run / name).is_file(), name
    events = [json.loads(line)["event"] for line in (run / METRICS).open()]
    assert events.count("round") == 4
    assert "refusal" not in events


def test_mode_off_is_stamped_everywhere(tmp_path: Path) -> None:
    config = small(**{"privacy.mode": "off", "training.rounds": 1})
    results = run_experiment(config, tmp_path / "off")
    assert results.promise.epsilon is None
    assert results.promise.sentence.startswith("NOT PRIVATE")
    assert "private student" not in results.verdict.text
    assert results.model_notes["student_private"].stamp == "NOT PRIVATE"
    assert "student_nonprivate" not in results.models


def test_interruption_leaves_a_usable_folder(tmp_path: Path, monkeypatch) -> None:
    from server.records import Recorder

    kept = Recorder.round

    def interrupt(self, record) -> None:
        kept(self, record)
        if record.round == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "round", interrupt)
    results = run_experiment(small(), tmp_path / "run")
    assert results.status == "interrupted"
    assert len(results.rounds) == 2
    assert "student_private" in results.models
    assert "student_scratch" not in results.models
    assert read_results(tmp_path / "run" / RESULTS) == results
    assert "interrupted" in (tmp_path / "run" / REPORT).read_text().lower()


def test_arms_share_the_epsilon_but_not_the_start() -> None:
    arms = {arm.name: arm.overrides for arm in arms_of(small(), Path("out"))}
    assert arms["student_private"] == {}
    assert arms["student_scratch"]["transfer.method"] == "random"
    assert "privacy.mode" not in arms["student_scratch"]
    assert arms["student_nonprivate"]["privacy.mode"] == "off"


def test_the_verdict_says_plainly_when_privacy_does_not_pay() -> None:
    import numpy as np

    from simulations.experiment import Ranked

    worse = {experiment.PRIMARY: np.full(50, 0.2)}
    better = {experiment.PRIMARY: np.full(50, 0.3)}
    ranked = {
        "student_private": Ranked(worse, {}),
        "student_transferred": Ranked(better, {}),
        "popularity": Ranked(worse, {}),
    }
    verdict = experiment.verdict_of(ranked, 0.25)
    assert not verdict.beats_transferred
    assert not verdict.beats_popularity
    assert "does not beat student transferred by -0.1000" in verdict.text
    assert "The noise cost more" in verdict.text
    assert math.isclose(
        0.25, float(verdict.text.split("It is ")[1].split("%")[0]) / 100
    )
