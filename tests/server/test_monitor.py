"""Runs as facts and metrics: whatever their files hold, nothing breaks or leaks."""

import json
import math
import os

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from common.errors import ConfigError
from common.exposition import Facts
from server.monitor.events import read_events, rounds_of
from server.monitor.metrics import metrics_of
from server.monitor.reasons import BEGINNINGS, MEANING, reason_of
from server.monitor.runs import JOURNAL, MOST_RUNS, Runs, find_runs, read_run

MARKER = "titanic-7351"
START = 1_790_000_000.0
CONFIG = """
[run]
name = "movies"
round-timeout = 100.0
[training]
rounds = 4
[privacy]
mode = "local"
target-epsilon = 8.0
delta = 1e-5
"""


def event(after, name, **facts):
    return {"time": START + after, "event": name, **facts}


def ended(number, after, *, survivors=3, epsilon=1.5, **facts):
    return event(
        after,
        "round",
        round=number,
        epsilon=epsilon,
        bytes_down_per_client=1000,
        bytes_up_per_client=10,
        seconds={"train": 2.0, "aggregate": 0.5},
        validation=0.2,
        survivors=survivors,
        num_clients=3,
        **facts,
    )


EVENTS = [
    event(0, "phase", round=1, phase="statistics"),
    event(1, "statistics", kind="statistics", bytes_down_per_client=7, survivors=3),
    event(2, "phase", round=1, phase="train"),
    ended(1, 5),
    event(6, "phase", round=2, phase="train"),
    event(7, "refusal", round=2, reason="The client failed; its operator's log …"),
    event(8, "refusal", round=2, reason=f"KeyError: {MARKER}"),
    ended(2, 9, survivors=1, epsilon=2.5),
    event(10, "phase", round=3, phase="train"),
]


def write_run(folder, events=EVENTS, config=CONFIG):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(each) + "\n" for each in events)
    (folder / "metrics.jsonl").write_text(text)
    (folder / "config.toml").write_text(config)
    return folder


def scraped(runs, now=START + 20):
    """name → {labels' values → value}, through Prometheus' own text format."""
    registry = CollectorRegistry()
    registry.register(Facts(lambda: list(metrics_of(runs, now))))
    text = generate_latest(registry).decode()
    return {
        sample.name + str(tuple(sorted(sample.labels.values()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_run_in_the_middle(tmp_path):
    run = read_run(write_run(tmp_path / "m"))

    assert (run.plan.name, run.plan.rounds, run.num_done) == ("movies", 4, 2)
    assert (run.phase.number, run.phase.word) == (3, "train")
    assert [each.survivors for each in run.rounds] == [3, 1]
    assert run.refusals == {"failed": 1, "other": 1}
    assert (run.bytes_down, run.bytes_up) == (2007, 20)
    assert run.damaged == 0


@pytest.mark.parametrize(
    ("after", "status"), [(11, "running"), (169, "running"), (171, "silent")]
)
def test_silence_is_longer_than_a_round_may_take(tmp_path, after, status):
    run = read_run(write_run(tmp_path / "m"))

    assert run.status(START + after) == status
    assert run.age(START + after) == after - 10


def test_a_clock_behind_the_runs_is_no_negative_age(tmp_path):
    assert read_run(write_run(tmp_path / "m")).age(START) == 0


def test_a_run_without_events_waits(tmp_path):
    run = read_run(write_run(tmp_path / "m", events=[]))

    assert (run.status(START), run.num_done, run.phase) == ("waiting", 0, None)


@pytest.mark.parametrize(
    ("num_done", "status"), [(4, "complete"), (3, "stopped")], ids=["all", "fewer"]
)
def test_a_delivery_ends_a_run(tmp_path, num_done, status):
    rounds = [ended(n, n) for n in range(1, num_done + 1)]
    last = event(20, "delivery", survivors=3, num_clients=3)
    run = read_run(write_run(tmp_path / "m", [*rounds, last]))

    assert run.status(START + 9999) == status


@pytest.mark.parametrize(
    ("stored", "status"), [("complete", "complete"), ("interrupted", "stopped")]
)
def test_results_of_a_simulation_end_a_run(tmp_path, stored, status):
    folder = write_run(tmp_path / "m")
    (folder / "results.json").write_text(json.dumps({"status": stored}))

    assert read_run(folder).status(START) == status


def test_a_resumed_run_is_not_stopped_by_its_old_summary(tmp_path):
    folder = write_run(tmp_path / "m")
    (folder / "server.json").write_text("{}")
    set_time(folder / "metrics.jsonl", START)
    set_time(folder / "server.json", START + 1)
    assert read_run(folder).status(START + 12) == "stopped"

    set_time(folder / "metrics.jsonl", START + 2)
    assert read_run(folder).status(START + 12) == "running"


def set_time(path, seconds):
    os.utime(path, (seconds, seconds))


def test_the_journal_of_a_deployed_run_tells_its_plan_and_end(tmp_path):
    folder = write_run(tmp_path / "m", config="")
    (folder / "checkpoint").mkdir()
    config = {"run.name": "lab", "training.rounds": 9, "privacy.mode": "off"}
    for finished, status in ((False, "running"), (True, "complete")):
        journal = {"format": "tutela-run-1", "config": config, "finished": finished}
        (folder / JOURNAL).write_text(json.dumps(journal))
        run = read_run(folder)
        assert (run.plan.name, run.plan.rounds, run.plan.private) == ("lab", 9, False)
        assert run.status(START + 11) == status


def test_the_journal_is_where_the_server_writes_it():
    from common.folders import CHECKPOINT
    from server.run_journal import NAMES

    assert f"{CHECKPOINT}/{NAMES[0]}" == JOURNAL


def test_a_line_half_written_is_waited_for_and_a_damaged_one_counted():
    whole = json.dumps(ended(1, 1)) + "\n"

    events, damaged = read_events(whole + "{broken\n[1]\n" + '{"event": "ro')

    assert (len(events), damaged) == (1, 2)


@pytest.mark.parametrize(
    "line",
    [
        {"event": MARKER * 9, "time": "soon", "round": -1},
        {"event": "round", "round": 1, "seconds": [1], "epsilon": "much"},
        {"event": "round", "round": 1, "seconds": {MARKER + "!": True, "a": "b"}},
        {"event": ["x"], "phase": {"a": 1}},
        {"event": "round", "round": 10**400, "survivors": 1e999},
        {"event": "phase", "round": True, "phase": "<b>"},
        {"new-event": "of a later version"},
    ],
)
def test_values_of_another_kind_count_as_absent(tmp_path, line):
    run = read_run(write_run(tmp_path / "m", [line]))

    assert run.damaged == 0
    assert MARKER not in str(run.events) + str(scraped([run]))
    assert "<b>" not in str(run.events)


def test_a_round_done_again_after_a_resume_counts_once_as_it_is_now():
    text = "".join(
        json.dumps(each) + "\n"
        for each in (ended(1, 1), ended(2, 2, survivors=1), ended(2, 9, survivors=3))
    )
    rounds = rounds_of(read_events(text)[0])

    assert [(each.number, each.survivors) for each in rounds] == [(1, 3), (2, 3)]


def test_no_promise_is_infinite_and_an_absent_epsilon_is_unknown():
    text = json.dumps(ended(1, 1, epsilon=None)) + '\n{"event": "round", "round": 2}\n'
    first, second = rounds_of(read_events(text)[0])

    assert (first.epsilon, second.epsilon) == (math.inf, None)


def test_metrics_of_a_run(tmp_path):
    found = scraped([read_run(write_run(tmp_path / "m"))])

    expected = {
        "tutela_runs()": 1,
        "tutela_run_status('m', 'running')": 1,
        "tutela_run_status('complete', 'm')": 0,
        "tutela_rounds_done('m',)": 2,
        "tutela_rounds_planned('m',)": 4,
        "tutela_survivors('m',)": 1,
        "tutela_clients('m',)": 3,
        "tutela_epsilon('m',)": 2.5,
        "tutela_target_epsilon('m',)": 8,
        "tutela_last_event_timestamp_seconds('m',)": START + 10,
        "tutela_last_event_age_seconds('m',)": 10,
        "tutela_refusals_total('failed', 'm')": 1,
        "tutela_refusals_total('m', 'other')": 1,
        "tutela_phase_seconds_sum('m', 'train')": 4,
        "tutela_phase_seconds_count('m', 'train')": 2,
        "tutela_client_bytes_total('down', 'm')": 2007,
        "tutela_client_bytes_total('m', 'up')": 20,
        "tutela_resumes_total('m',)": 0,
    }
    assert {name: found[name] for name in expected} == expected


def test_no_text_of_a_client_becomes_a_label(tmp_path):
    events = [event(n, "refusal", round=1, reason=f"{MARKER} {n}") for n in range(40)]
    found = scraped([read_run(write_run(tmp_path / "m", events))])

    refusals = [name for name in found if name.startswith("tutela_refusals")]
    assert refusals == ["tutela_refusals_total('m', 'other')"]
    assert MARKER not in str(found)


def test_reasons_know_every_text_that_a_client_lets_out():
    from client.release import CLOSED, FAILED, MISFIT, REFUSED

    words = [reason_of(text) for text in (REFUSED, CLOSED, MISFIT, FAILED)]

    assert words == ["settings", "ledger", "message", "failed"]
    assert {*words, reason_of(None), reason_of("update/x: expected y")} <= set(MEANING)


def test_reasons_know_flowers_own_texts():
    from flwr.server.superlink.linkstate import utils

    assert reason_of(utils.NODE_UNAVAILABLE_ERROR_REASON) == "unreachable"
    assert reason_of(utils.MESSAGE_UNAVAILABLE_ERROR_REASON) == "no reply"
    assert reason_of(utils.REPLY_MESSAGE_UNAVAILABLE_ERROR_REASON) == "no reply"


def test_reasons_know_what_the_server_itself_says():
    assert reason_of("No reply within 60 seconds.") == "no reply"
    assert reason_of("Unreadable reply (ValueError).") == "misfit"
    text = "Expected a reply of round 3 of this run, got another's."
    assert reason_of(text) == "stale reply"
    assert set(BEGINNINGS.values()) < set(MEANING)


def test_runs_are_found_latest_first_and_not_without_end(tmp_path):
    for place in range(MOST_RUNS + 3):
        folder = write_run(tmp_path / f"r{place:02d}", [])
        for name in ("metrics.jsonl", "config.toml"):
            set_time(folder / name, START + place)
    (tmp_path / "notes").mkdir()

    found = find_runs(tmp_path)

    assert len(found) == MOST_RUNS
    assert [each.name for each in found[:2]] == ["r52", "r51"]
    assert find_runs(tmp_path / "r00") == [tmp_path / "r00"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="Expected a folder of runs at"):
        find_runs(tmp_path / "none")


def test_a_run_is_read_again_only_when_it_changed(tmp_path):
    folder = write_run(tmp_path / "m")
    runs = Runs(tmp_path)
    (first,), (same,) = runs.now(), runs.now()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(ended(3, 12)) + "\n")
    (changed,) = runs.now()

    assert same is first
    assert (first.num_done, changed.num_done) == (2, 3)
