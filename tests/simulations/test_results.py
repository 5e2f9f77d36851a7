"""results.json: round trip, refusals, atomic writes, documentation."""

import json
import math
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from common import durable_files
from common.errors import ConfigError
from common.intervals import Estimate
from common.promise import Promise
from simulations import results as module
from simulations.results import (
    Interval,
    ModelNote,
    Results,
    model_note,
    read_results,
    record_estimates,
    record_promise,
    results_schema,
    write_results,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "results.md"


def write_changed(results: Results, path: Path, **changes) -> None:
    tree = results.model_dump(mode="json") | changes
    path.write_text(json.dumps(tree), encoding="utf-8")


def test_round_trip(example_results, unprotected_results, tmp_path):
    for results in (example_results, unprotected_results):
        write_results(results, tmp_path / "results.json")

        assert read_results(tmp_path / "results.json") == results


def test_file_is_readable_json_with_its_version(example_results, tmp_path):
    write_results(example_results, tmp_path / "results.json")

    text = (tmp_path / "results.json").read_text(encoding="utf-8")

    assert json.loads(text)["schema_version"] == 4
    assert "ε = 7.998" in text
    assert json.loads(text)["config"]["safeguard.enabled"] is True


def test_version_3_is_read_and_knows_no_statistics(statistics_results, tmp_path):
    tree = statistics_results.model_dump(mode="json")
    del tree["statistics"], tree["refinement"]
    (tmp_path / "r.json").write_text(json.dumps(tree | {"schema_version": 3}))
    found = read_results(tmp_path / "r.json")
    assert found == statistics_results.model_copy(update={"statistics": ()})


@pytest.mark.parametrize("version", [5, 0, "3", "4", None, True])
def test_another_version_is_refused(example_results, tmp_path, version):
    write_changed(example_results, tmp_path / "r.json", schema_version=version)

    with pytest.raises(ConfigError, match=r"expected results of schema_version 4, got"):
        read_results(tmp_path / "r.json")


@pytest.mark.parametrize(
    "text", ["", "{", "\x00", '{"schema_version": 1', "[" * 100_000]
)
def test_damaged_json_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match="the file is damaged"):
        read_results(tmp_path / "r.json")


@pytest.mark.parametrize("tree", ["[]", "1", "null", "{}"])
def test_json_of_something_else_is_refused(tmp_path, tree):
    (tmp_path / "r.json").write_text(tree, encoding="utf-8")

    with pytest.raises(ConfigError, match="schema_version 4, got None"):
        read_results(tmp_path / "r.json")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"Expected results at .*none\.json"):
        read_results(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "done"}, "status"),
        ({"surprise": 1}, "surprise"),
        ({"seconds_total": math.nan}, "seconds_total"),
        ({"models": {"oracle": {}}}, "oracle"),
        ({"model_notes": {}}, "note on each model"),
    ],
)
def test_damaged_fields_are_named(example_results, tmp_path, change, message):
    write_changed(example_results, tmp_path / "r.json", **change)

    with pytest.raises(ConfigError, match=message):
        read_results(tmp_path / "r.json")


def test_failed_write_leaves_the_old_file_and_no_rubbish(
    example_results, tmp_path, monkeypatch
):
    path = tmp_path / "results.json"
    path.write_text("old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(durable_files.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_results(example_results, path)

    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_metrics_of_clients_and_suppression_round_trip(example_results, tmp_path):
    found = {"ndcg@10": -0.1, "users": 611.5, "noise_deviation": 0.01}
    first, *others = example_results.rounds
    measured = first.model_copy(update={"client_metrics": found})
    results = example_results.model_copy(
        update={"rounds": (measured, *others), "suppressed": "too few"}
    )
    write_results(results, tmp_path / "r.json")

    again = read_results(tmp_path / "r.json")

    assert again == results
    assert again.rounds[0].client_metrics == found
    assert again.rounds[1].client_metrics is None
    assert again.suppressed == "too few"


def test_groups_personal_gains_and_transfer_round_trip(detailed_results, tmp_path):
    write_results(detailed_results, tmp_path / "r.json")

    again = read_results(tmp_path / "r.json")

    assert again == detailed_results
    assert again.groups[0].suppressed == ("50 and over", "unknown")
    assert again.personal.quantiles[0] == (0.05, -0.021)
    assert again.rounds[9].teacher_gain == 0.0123


def test_metrics_that_are_no_numbers_are_refused(example_results):
    round_ = example_results.rounds[0].model_dump()
    bad = {"client_metrics": {"ndcg@10": math.nan}}

    with pytest.raises(ValidationError, match="client_metrics"):
        module.RoundRecord.model_validate(round_ | bad)


def test_results_are_frozen(example_results):
    with pytest.raises(ValidationError, match="frozen"):
        example_results.status = "interrupted"


def test_stamp_and_privacy_agree():
    assert model_note(private=False).stamp == "NOT PRIVATE"
    assert model_note(private=True).stamp == ""
    with pytest.raises(ValidationError, match="iff not private"):
        ModelNote(private=False, stamp="")


def test_without_promise_the_student_must_be_stamped(unprotected_results):
    notes = unprotected_results.model_notes | {
        "student_private": model_note(private=True)
    }

    with pytest.raises(ValidationError, match="NOT PRIVATE"):
        Results.model_validate(
            unprotected_results.model_dump() | {"model_notes": notes}
        )


def test_interval_ends_are_ordered():
    with pytest.raises(ValidationError, match="low ≤ high"):
        Interval(value=0.5, low=0.6, high=0.4)


def test_estimates_become_intervals():
    recorded = record_estimates({"mrr": Estimate(0.2, 0.1, 0.3)})

    assert recorded == {"mrr": Interval(value=0.2, low=0.1, high=0.3)}


@pytest.mark.parametrize(("epsilon", "stored"), [(2.5, 2.5), (math.inf, None)])
def test_promise_is_recorded_whole(epsilon, stored):
    promise = Promise(
        epsilon=epsilon,
        delta=1e-5,
        unit="user",
        relation="add-or-remove-one",
        mode="local",
        trust="nobody",
        released="updates",
        accountant="PLD",
        sampling="Poisson",
        seeded=False,
    )

    recorded = record_promise(promise)

    assert recorded.epsilon == stored
    assert recorded.sentence == promise.sentence
    assert recorded.relation == "add-or-remove-one"


def test_every_field_is_documented():
    text = DOCUMENT.read_text(encoding="utf-8")
    records = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseModel)
    ]
    fields = {name for record in records for name in record.model_fields}

    assert len(fields) > 50
    assert [name for name in sorted(fields) if f"`{name}`" not in text] == []


def test_every_model_is_documented():
    text = DOCUMENT.read_text(encoding="utf-8")
    names = module.ModelName.__args__

    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_schema_names_the_version_and_refuses_more():
    schema = results_schema()

    assert schema["properties"]["schema_version"]["const"] == 4
    assert schema["additionalProperties"] is False
