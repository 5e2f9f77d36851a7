"""One experiment end to end, in seconds."""

import json
import math
from pathlib import Path

import pytest
import torch

from client.ledger import inspect_ledger
from client.settings import ClientSettings, read_settings, witness_place
from common.config import RunConfig, defaults, parse
from common.events import DpEvent, merged
from common.folders import (
    CATALOGUE,
    ID_KEY,
    INTERACTIONS,
    METRICS,
    REPORT,
    RESULTS,
    STUDENT,
)
from common.plan import noise_multiplier, planned_events
from common.student import load_student
from simulations import collecting
from simulations.collecting import suppression
from simulations.experiment import arms_of, run_experiment
from simulations.results import read_results
from simulations.table import plain_text

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
        # More noise than by default: its ε is quicker to compute.
        "privacy.target-epsilon": 2.0,
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
    assert promise.epsilon == pytest.approx(2.0, abs=0.005)
    assert promise.epsilon <= 2.0
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
    phases = {"send", "wait", "aggregate", "validate", "checkpoint"}
    assert all(set(r.seconds) == phases for r in rounds)


def test_the_folder_holds_what_the_readme_says(run: Path) -> None:
    for name in (RESULTS, METRICS, STUDENT, REPORT, "config.toml", "catalogue.parquet"):
        assert (run / name).is_file(), name
    events = [json.loads(line)["event"] for line in (run / METRICS).open()]
    assert events.count("round") == 4
    assert events[-1] == "delivery"
    assert "refusal" not in events


#: Where the clients of each arm live, below the run's folder.
WORLDS = {
    "private": "federation/clients",
    "nonprivate": "baselines/nonprivate/federation/clients",
    "scratch": "baselines/scratch/federation/clients",
}


def charges(client: Path) -> list:
    """Of a client's ledger, which has to be sound and witnessed."""
    place = witness_place(client, read_settings(client))
    assert place.is_file()
    _, entries = inspect_ledger(client, place)
    return [entry.charge for entry in entries]


def test_each_arm_has_clients_and_ledgers_of_its_own(run: Path) -> None:
    runs = set()
    for world in WORLDS.values():
        clients = sorted((run / world).iterdir())
        assert [client.name for client in clients] == ["0000", "0001"]
        for client in clients:
            made = charges(client)
            assert [charge.number for charge in made] == [1, 2, 3, 4]
            assert {charge.purpose for charge in made} == {"train"}
            runs |= {charge.run for charge in made}
    assert len(runs) == len(WORLDS), "no arm spends on another's run"


def test_arms_pay_what_they_release(run: Path) -> None:
    noise = noise_multiplier(small())
    expected = {
        "private": DpEvent(noise, 0.5, 4),
        "scratch": DpEvent(noise, 0.5, 4),
        "nonprivate": DpEvent(0.0, 0.5, 4),
    }
    for name, world in WORLDS.items():
        spent = merged([charge.event for charge in charges(run / world / "0000")])
        assert spent == (expected[name],)


def test_the_rows_are_the_same_in_every_arm(run: Path) -> None:
    first, *others = WORLDS.values()
    for client in ("0000", "0001"):
        for name in (INTERACTIONS, CATALOGUE):
            theirs = {(run / each / client / name).read_bytes() for each in others}
            assert theirs == {(run / first / client / name).read_bytes()}
        assert (run / first / client / ID_KEY).stat().st_mode & 0o077 == 0


def test_only_the_arm_without_noise_allows_it(run: Path) -> None:
    allowed = {}
    for name, world in WORLDS.items():
        settings = [read_settings(client) for client in (run / world).iterdir()]
        (allowed[name],) = {each.allow_non_private for each in settings}
        assert {each.runs for each in settings} == {("tutela",)}
        assert {each.budget["user"].target_epsilon for each in settings} == {2.0}
    assert allowed == {"private": False, "nonprivate": True, "scratch": False}
    assert not ClientSettings().allow_non_private


def test_every_client_got_the_chosen_student(run: Path) -> None:
    for world, server in (("federation", run), *_baselines(run)):
        chosen = load_student(server / STUDENT)
        for client in (run / world / "clients").iterdir():
            got = load_student(client / STUDENT)
            assert got.spec == chosen.spec
            for name, value in chosen.state_dict().items():
                assert torch.equal(got.state_dict()[name], value)


def _baselines(run: Path) -> list[tuple[str, Path]]:
    names = ("nonprivate", "scratch")
    return [(f"baselines/{n}/federation", run / "baselines" / n) for n in names]


def test_results_hold_no_folder(tmp_path: Path) -> None:
    rows = tmp_path / "lovelace" / "movies"
    rows.mkdir(parents=True)
    pairs = [(user, (user * 3 + k) % 20 + 1) for user in range(1, 61) for k in range(5)]
    ratings = [f"{user}\t{item}\t4\t900\n" for user, item in pairs]
    (rows / "u.data").write_text("".join(ratings))
    titles = [f"{i}|Title {i} (1995)|||u" + "|0" * 19 + "\n" for i in range(1, 21)]
    (rows / "u.item").write_text("".join(titles))
    where = {"data.public": str(rows), "data.private": str(rows)}
    config = tiny(**where, **{"partition.heldout-users": 15})
    out = tmp_path / "lovelace" / "run"
    results = run_experiment(config, out, command="tutela simulate --out run")
    assert results.config["data.private"] == results.config["data.public"] == "movies"
    assert results.command == "tutela simulate --out run"
    for name in (RESULTS, REPORT):
        text = (out / name).read_text()
        assert str(tmp_path) not in text
        assert "lovelace" not in text


def tiny(**overrides) -> RunConfig:
    """A run of one arm and one round."""
    short = {
        "evaluation.baselines": False,
        "training.rounds": 1,
        "partition.public-users": 12,
        "partition.validation-users": 4,
        "privacy.noise-multiplier": 2.0,
        "run.keep-every": 1,
        "student.dim": 2,
    }
    return small(**short | overrides)


def test_too_few_held_out_users_suppress_every_figure_over_them(tmp_path: Path) -> None:
    config = tiny(**{"partition.heldout-users": 9})
    results = run_experiment(config, tmp_path / "run")
    assert results.models == {}
    assert results.model_notes == {}
    assert results.verdict is None
    assert results.suppressed == (
        "Figures over held-out users are suppressed: fewer than 10 users stand behind "
        "them (evaluation.min-group-users)."
    )
    assert [record.heldout for record in results.rounds] == [None]
    assert results.rounds[0].validation is not None, "public users are no secret"
    assert read_results(tmp_path / "run" / RESULTS) == results
    assert results.suppressed in (tmp_path / "run" / REPORT).read_text()
    assert results.suppressed in " ".join(plain_text(results).split())


def test_enough_held_out_users_are_shown(tmp_path: Path) -> None:
    few = {"partition.heldout-users": 9, "evaluation.min-group-users": 9}
    results = run_experiment(tiny(**few), tmp_path / "run")
    assert results.suppressed == ""
    assert "student_private" in results.models
    assert results.rounds[0].heldout is not None


@pytest.mark.parametrize(("users", "least", "shown"), [(9, 10, False), (10, 10, True)])
def test_the_floor_itself_is_enough(users, least, shown) -> None:
    assert (suppression(users, least) == "") is shown


def test_metrics_of_clients_are_charged_and_recorded(tmp_path: Path) -> None:
    asked = {
        "training.rounds": 2,
        "client-metrics.every": 2,
        "partition.heldout-users": 20,
        "privacy.noise-multiplier": 0.0,
        "privacy.target-epsilon": 4.0,
        "privacy.sample-rate": 1.0,
    }
    config = tiny(**asked)
    results = run_experiment(config, tmp_path / "run")
    first, second = results.rounds
    assert first.client_metrics is None
    assert set(second.client_metrics) == {
        "ndcg@10",
        "recall@20",
        "users",
        "noise_deviation",
    }
    assert [r.survivors for r in results.rounds] == [2, 2]
    plan = planned_events(config, noise_multiplier(config))
    for client in (tmp_path / "run" / WORLDS["private"]).iterdir():
        made = charges(client)
        assert [charge.purpose for charge in made] == ["train", "train", "evaluate"]
        assert merged([charge.event for charge in made]) == plan
    assert 3.99 <= results.promise.epsilon <= 4.0
    assert first.epsilon < second.epsilon <= results.promise.epsilon + 2e-3
    report = (tmp_path / "run" / REPORT).read_text()
    assert "from noised sums that the promise covers" in report


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

    from simulations.collecting import Ranked

    worse = {collecting.PRIMARY: np.full(50, 0.2)}
    better = {collecting.PRIMARY: np.full(50, 0.3)}
    ranked = {
        "student_private": Ranked(worse, {}),
        "student_transferred": Ranked(better, {}),
        "popularity": Ranked(worse, {}),
    }
    verdict = collecting.verdict_of(ranked, 0.25)
    assert not verdict.beats_transferred
    assert not verdict.beats_popularity
    assert "does not beat student transferred by -0.1000" in verdict.text
    assert "The noise cost more" in verdict.text
    assert math.isclose(
        0.25, float(verdict.text.split("It is ")[1].split("%")[0]) / 100
    )
