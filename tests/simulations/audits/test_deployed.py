"""Audits of what a deployment left: its own answers, and canaries that owners planted.

Runs are in process, over folders as a deployment has them: the server's holds no
client's rows, and the truth lies with the owners.
"""

import json
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from client.app import app as client_app
from client.canaries import plant, read_truth, remove, write_truth
from common.config import defaults, parse, to_flat
from common.errors import ConfigError, DataFormatError
from common.folders import CONFIG
from server.app import app as server_app
from server.kept_answers import ANSWERS, read_receipts
from simulations.__main__ import app
from simulations.audits.artefacts import read_artefacts
from simulations.audits.audit import AUDIT, run_audit
from simulations.audits.records import read_report
from simulations.audits.roc import area_under_curve
from simulations.audits.scores import server_scores
from simulations.audits.settings import QUICK
from simulations.engine import FIRST_CLIENT_NODE, Job, run_in_process
from simulations.experiment import prepare
from simulations.partition import CLIENTS, SERVER
from tests.simulations.audits.conftest import ROUNDS, SMALL, SUMS

COUNT = 120
OFF = {"privacy.mode": "off", "run.keep-answers": True}


@dataclass(frozen=True)
class Deployment:
    """Where things are after a run: the server's folder, owners' folders and truths."""

    run: Path
    clients: tuple[Path, ...]
    truths: tuple[Path, ...]


def deployed(home: Path, design: str = "dirac", **overrides) -> Deployment:
    """A run with canaries at both clients; those of the second are out again."""
    config = parse(defaults() | SMALL | overrides)
    prepare(config, home)
    clients = tuple(sorted((home / CLIENTS).iterdir()))
    truths = tuple(home / f"truth-{client.name}.json" for client in clients)
    for folder, truth in zip(clients, truths, strict=True):
        plant(folder, truth, count=COUNT, design=design)
    job = Job(
        run_id=secrets.randbits(62),
        config=to_flat(config),
        num_clients=len(clients),
        clients=home / CLIENTS,
        public=home / SERVER,
        out=home / "run",
    )
    run_in_process(server_app, client_app, job)
    remove(clients[1], truths[1])
    return Deployment(job.out, clients, truths)


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Deployment:
    """NOT PRIVATE: sums without noise."""
    return deployed(tmp_path_factory.mktemp("bare"), **(SUMS | OFF))


@pytest.fixture(scope="module")
def private(tmp_path_factory) -> Deployment:
    """Sums, rounds and metrics in mode local, under noise that is given."""
    kept = {"run.keep-answers": True, "statistics.share": 0.5}
    kept |= {"privacy.noise-multiplier": 3.0, "statistics.noise-multiplier": 3.0}
    measured = {"client-metrics.every": 3, "client-metrics.noise-multiplier": 20.0}
    folder = tmp_path_factory.mktemp("private")
    return deployed(folder, "rare-item", **(ROUNDS | kept | measured))


def canaries_of(report) -> dict:
    return {each.viewpoint: each for each in report.findings if each.kind == "canaries"}


def test_bare_answers_tell_who_was_in(bare):
    report = run_audit(bare.run, QUICK, truths=bare.truths, rows=bare.clients)
    found = canaries_of(report)
    assert set(found) == {"server-local", "public"}
    server = found["server-local"]
    assert (server.design, server.num_canaries) == ("dirac", 2 * COUNT)
    truths = [read_truth(path) for path in bare.truths]
    assert server.num_included == sum(each.num_included for each in truths)
    assert server.auc > 0.95 and server.epsilon_lower_joint > 2
    assert server.epsilon_claimed is None and not report.exceeds
    assert "of 2 of 2 clients all other rows" in report.viewpoints["server-local"]
    assert report.hashes["truth of 0000"] == truths[0].digest
    assert read_report(bare.run / AUDIT / "audit.json") == report


def test_coins_that_fell_otherwise_are_not_told(bare, tmp_path):
    """No truth decides what is guessed: with other coins, guesses are no better."""
    paths = []
    for path in bare.truths:
        truth = read_truth(path)
        others = [
            each.model_copy(update={"included": bool(secrets.randbits(1))})
            for each in truth.canaries
        ]
        changed = truth.model_copy(update={"canaries": tuple(others)})
        paths.append(tmp_path / path.name)
        write_truth(paths[-1], changed)
    found = canaries_of(run_audit(bare.run, QUICK, truths=paths))["server-local"]
    assert abs(found.auc - 0.5) < 0.2
    assert found.epsilon_lower_joint < 0.5


def test_answers_are_found_by_receipts_and_else_by_looks(bare, tmp_path):
    nodes = [str(FIRST_CLIENT_NODE + place) for place in (0, 1)]
    assert set(read_receipts(bare.run / ANSWERS)) == set(nodes)
    # The second truth holds receipts, the first client's ledger does.
    by_receipts = read_artefacts(bare.run, bare.truths, bare.clients[:1])
    assert [client.name for client in by_receipts.placed.clients] == nodes
    assert [len(owner.receipts) > 0 for owner in by_receipts.owners] == [True, True]
    by_looks = read_artefacts(bare.run, bare.truths[:1])
    assert not by_looks.owners[0].receipts
    assert [client.name for client in by_looks.placed.clients] == nodes[:1]
    report = run_audit(bare.run, QUICK, truths=bare.truths[:1])
    assert any("by looks" in text for text in report.limits)
    assert any("1 of these clients" in text for text in report.limits)


def test_answers_of_another_run_are_refused(bare, private):
    with pytest.raises(ConfigError, match="did it take part in this run"):
        run_audit(private.run, QUICK, truths=bare.truths[1:])


def test_in_mode_local_no_more_is_found_than_is_promised(private):
    report = run_audit(private.run, QUICK, truths=private.truths, rows=private.clients)
    assert 1 < report.claims[0].epsilon_user < 10
    found = canaries_of(report)
    assert set(found) == {"server-local", "another-client", "public"}
    for each in found.values():
        assert each.design == "rare-item"
        assert each.epsilon_claimed == report.claims[0].epsilon_user
        assert each.epsilon_lower_joint <= each.epsilon_claimed
    assert not report.exceeds
    text = " ".join(report.limits)
    assert "Nothing ran again" in text and "not tried" in text
    checks = {each.check: each for each in report.findings if each.kind == "check"}
    assert checks["kept-answers"].finding == "holds"
    # Pairs, sketch, three rounds, metrics once.
    assert checks["kept-answers"].measured == checks["kept-answers"].expected == 6
    assert checks["mode"].finding == "holds"


def test_answers_that_are_missing_are_counted(private, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(private.run, run)
    for path in (run / ANSWERS).glob("000002 2 train*"):
        path.unlink()
    report = run_audit(run, QUICK, truths=private.truths)
    kept = next(e for e in report.findings if getattr(e, "check", "") == "kept-answers")
    assert (kept.finding, kept.measured, kept.expected) == ("deviates", 5, 6)
    assert not kept.refutes
    assert "server-local" in canaries_of(report)


def test_without_truth_it_says_why_nothing_was_attacked(private):
    report = run_audit(private.run, QUICK)
    assert canaries_of(report) == {} and report.strongest is None
    assert report.scope.attacks == () and report.scope.num_canaries == 0
    assert "No ground truth was given" in report.limits[0]
    assert report.hashes["student.safetensors"]
    assert report.claims[0].epsilon_user == pytest.approx(report.promise.epsilon, 0.02)
    assert {each.check for each in report.findings} >= {"answers", "kept-answers"}


def test_without_answers_the_student_alone_is_attacked(bare, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(bare.run, run, ignore=shutil.ignore_patterns(ANSWERS))
    report = run_audit(run, QUICK, truths=bare.truths)
    assert set(canaries_of(report)) == {"public"}
    assert any("kept no answers" in text for text in report.limits)
    kept = next(each for each in report.findings if each.kind == "check"
                and each.check == "kept-answers")  # fmt: skip
    assert kept.finding == "unknown"


def test_what_does_not_fit_is_refused(bare, tmp_path):
    truth = read_truth(bare.truths[0])
    other = tmp_path / "other.json"
    write_truth(other, truth.model_copy(update={"num_items": 61}))
    with pytest.raises(ConfigError, match="catalogue of 60 items"):
        run_audit(bare.run, QUICK, truths=[other])
    with pytest.raises(ConfigError, match="several of one"):
        run_audit(bare.run, QUICK, truths=[bare.truths[0], bare.truths[0]])
    with pytest.raises(ConfigError, match="whose --truth is given"):
        run_audit(bare.run, QUICK, truths=bare.truths[:1], rows=bare.clients)
    with pytest.raises(ConfigError, match="finished run"):
        run_audit(tmp_path, QUICK, truths=bare.truths)
    write_truth(other, truth.model_copy(update={"catalogue": "0" * 64}))
    with pytest.raises(ConfigError, match="another"):
        run_audit(bare.run, QUICK, truths=[other], rows=bare.clients[:1])
    for name in ("student.safetensors", "student_transferred.safetensors"):
        shutil.copy(bare.run / name, tmp_path)
    with pytest.raises(ConfigError, match="journal"):
        run_audit(tmp_path, QUICK)


def test_canaries_of_a_later_run_are_refused(bare, tmp_path):
    truth = read_truth(bare.truths[1])
    late = truth.model_copy(update={"planted": "2999-01-01T00:00:00+00:00"})
    write_truth(tmp_path / "late.json", late)
    with pytest.raises(ConfigError, match="planted before the run began"):
        read_artefacts(bare.run, [tmp_path / "late.json"])


def test_a_damaged_answer_is_named(bare, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(bare.run, run)
    damaged = next((run / ANSWERS).glob(f"*{FIRST_CLIENT_NODE}.safetensors"))
    damaged.write_bytes(b"\0" * 40)
    with pytest.raises(DataFormatError, match="kept answer"):
        run_audit(run, QUICK, truths=bare.truths)


def test_truths_are_used_on_a_simulated_run_too(bare, tmp_path):
    """The folder of a simulation holds its clients; with a truth none runs again."""
    run = tmp_path / "run"
    shutil.copytree(bare.run, run)
    (run / "federation").mkdir()
    found = run_audit(run, QUICK, truths=bare.truths)
    assert set(canaries_of(found)) == {"server-local", "public"}
    assert not (run / CONFIG).exists()


def test_the_scores_of_metrics_are_among_them(private):
    """A round's metrics were kept, and are a channel: nothing is left out."""
    names = {path.stem.split(" ")[2] for path in (private.run / ANSWERS).iterdir()}
    asked = {"train.statistics", "train.sketch", "train", "evaluate"}
    assert names == asked | {"query.student"}


def test_by_receipts_the_guesses_are_better_than_of_another_clients_answers(bare):
    """Looked for in the other's answers, canaries of a client are not there."""
    found = read_artefacts(bare.run, bare.truths, bare.clients[:1])
    crossed = replace(
        found.placed,
        clients=tuple(
            replace(client, name=other.name)
            for client, other in zip(
                found.placed.clients, found.placed.clients[::-1], strict=True
            )
        ),
    )
    right = server_scores(found.placed, found.answers, found.targets)
    wrong = server_scores(crossed, found.answers, found.targets)
    assert area_under_curve(right, found.included) > 0.95
    assert area_under_curve(wrong, found.included) < 0.7
    assert np.isfinite(wrong).all()


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_verbs_from_planting_to_report(bare, tmp_path):
    folder, truth = tmp_path / "0000", tmp_path / "truth.json"
    folder.mkdir()
    for name in ("catalogue.parquet", "interactions.parquet"):
        shutil.copy(bare.clients[1] / name, folder)
    said = invoke("canaries", "plant", folder, "--truth", truth, "--count", 30)
    assert "of 30 canaries are among the rows" in said
    assert read_truth(truth).digest in said
    said = invoke("canaries", "remove", folder, "--truth", truth)
    assert f"{read_truth(truth).num_included} canaries removed" in said
    options = [f"--truth={path}" for path in bare.truths]
    report = json.loads(invoke("audit", bare.run, *options, "--json"))
    found = [each for each in report["findings"] if each["kind"] == "canaries"]
    assert {each["viewpoint"] for each in found} == {"server-local", "public"}
    assert "prove ε" in invoke("audit", bare.run, *options)
