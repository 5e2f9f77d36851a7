"""Results of versions 1, 2 and 3, written by hand as their writers wrote them."""

import copy
import json

import pytest

from common.errors import ConfigError
from simulations.report import render_report
from simulations.results import SCHEMA_VERSION, read_results
from simulations.results_migrations import NO_TEACHER, STEPS, from_1, from_2, migrated


def metrics(value):
    found = {"value": value, "low": value - 0.01, "high": value + 0.01}
    return dict.fromkeys(("ndcg@10", "recall@20", "mrr", "coverage@10"), found)


#: What version 1 wrote, every field of it.
VERSION_1 = {
    "schema_version": 1,
    "name": "demo",
    "status": "complete",
    "engine": "inprocess",
    "seed": 7,
    "command": "tutela simulate --config demo.toml --out runs/demo",
    "primary_metric": "ndcg@10",
    "models": {
        "popularity": metrics(0.11),
        "teacher": metrics(0.05),
        "student_transferred": metrics(0.19),
        "student_private": metrics(0.21),
    },
    "model_notes": {
        "popularity": {"private": True, "stamp": ""},
        "teacher": {"private": True, "stamp": ""},
        "student_transferred": {"private": True, "stamp": ""},
        "student_private": {"private": True, "stamp": ""},
    },
    "promise": {
        "epsilon": 7.9,
        "delta": 1e-05,
        "unit": "user",
        "relation": "add-or-remove-one",
        "mode": "local",
        "trust": "nobody else is trusted",
        "accountant": "PLD",
        "sampling": "Poisson",
        "released": "student updates",
        "seeded": True,
        "sentence": "Each client's releases in this run are together private.",
    },
    "verdict": {
        "beats_transferred": True,
        "beats_popularity": True,
        "text": "Federated training improves NDCG@10.",
    },
    "rounds": [
        {
            "round": 1,
            "epsilon": 7.9,
            "bytes_down_per_client": 1000,
            "bytes_up_per_client": 900,
            "seconds": {"train": 0.4, "aggregate": 0.1},
            "validation": 0.2,
            "heldout": 0.21,
            "survivors": 4,
            "num_clients": 4,
        }
    ],
    "interpolation_weight": 0.8,
    "interpolation_curve": [{"weight": 0.0, "validation": 0.19}],
    "federation": {
        "num_clients": 4,
        "declared_users_per_client": 200,
        "public_users": 24,
        "heldout_users": 120,
        "num_items": 1682,
    },
    "peak_memory_bytes": 900000000,
    "seconds_total": 63.4,
    "config": {"run.name": "demo", "privacy.mode": "local", "training.rounds": 1},
    "versions": {"python": "3.11.7", "tutela": "0.1.0"},
}

#: What version 2 added: metrics released by clients, and figures left out.
VERSION_2 = copy.deepcopy(VERSION_1) | {"schema_version": 2, "suppressed": ""}
VERSION_2["rounds"][0]["client_metrics"] = {"ndcg@10": 0.18, "users": 611.5}

#: What version 3 added: groups, personal gains, transfer, a teacher that learns.
VERSION_3 = copy.deepcopy(VERSION_2) | {
    "schema_version": 3,
    "groups": [],
    "personal": None,
    "transfer": "transfer helped: it did.",
}
VERSION_3["rounds"][0]["teacher_gain"] = 0.01

VERSIONS = {1: VERSION_1, 2: VERSION_2, 3: VERSION_3}
each_version = pytest.mark.parametrize("version", VERSIONS)


def read(tree, folder):
    path = folder / "results.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    return read_results(path)


def test_every_earlier_version_has_a_step_and_a_fixture():
    assert list(STEPS) == list(VERSIONS) == list(range(1, SCHEMA_VERSION))


@each_version
def test_an_earlier_version_is_read_whole(tmp_path, version):
    old = VERSIONS[version]

    found = read(old, tmp_path).model_dump(mode="json")

    assert found["schema_version"] == SCHEMA_VERSION
    kept = set(old) - {"schema_version", "models", "model_notes", "rounds", "transfer"}
    assert {name: found[name] for name in kept} == {name: old[name] for name in kept}
    (round_,) = found["rounds"]
    assert {name: round_[name] for name in old["rounds"][0]} == old["rounds"][0]
    for name, each in found["models"].items():
        assert each == old["models"][name]


@each_version
def test_what_was_not_measured_is_empty(tmp_path, version):
    found = read(VERSIONS[version], tmp_path)

    assert found.statistics == ()
    assert found.groups == ()
    assert found.personal is None
    gain = 0.01 if version == 3 else None
    assert found.rounds[0].teacher_gain == gain
    if version == 1:
        assert found.rounds[0].client_metrics is None


@pytest.mark.parametrize("version", [1, 2])
def test_a_teacher_ranked_by_its_transpose_is_left_out_and_said(tmp_path, version):
    found = read(VERSIONS[version], tmp_path)

    assert "teacher" not in found.models
    assert "teacher" not in found.model_notes
    assert found.transfer == NO_TEACHER
    assert "ranked it by the transpose" in render_report(found)


def test_a_teacher_of_version_3_stays(tmp_path):
    found = read(VERSION_3, tmp_path)

    assert found.models["teacher"]["ndcg@10"].value == 0.05
    assert found.transfer == "transfer helped: it did."


def test_without_a_teacher_nothing_is_said_of_one():
    tree = VERSION_2 | {"models": {}}

    assert from_2(tree)["transfer"] == ""


@each_version
def test_a_report_is_drawn_from_an_earlier_version(tmp_path, version):
    page = render_report(read(VERSIONS[version], tmp_path))

    assert "Federated training improves NDCG@10." in page


@each_version
def test_a_step_changes_nothing_of_what_it_is_given(version):
    old = copy.deepcopy(VERSIONS[version])
    STEPS[version](old)

    assert old == VERSIONS[version]


def test_steps_follow_one_another():
    assert migrated(VERSION_1) == STEPS[3](from_2(from_1(VERSION_1)))


@pytest.mark.parametrize("version", [0, 5, True, "1", None])
def test_an_unknown_version_is_left_as_it_is_and_refused(tmp_path, version):
    tree = VERSION_1 | {"schema_version": version}

    assert migrated(tree) == tree
    with pytest.raises(ConfigError, match=f"schema_version {SCHEMA_VERSION}, got"):
        read(tree, tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [({"rounds": [1]}, "rounds"), ({"rounds": 1}, "rounds"), ({"models": 3}, "models")],
)
def test_a_damaged_earlier_file_is_named_and_not_guessed(tmp_path, change, fault):
    with pytest.raises(ConfigError, match=f"damaged results: .*{fault}"):
        read(VERSION_1 | change, tmp_path)
