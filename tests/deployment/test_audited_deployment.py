"""Canaries planted on real devices, a run over TLS that keeps its answers, an audit."""

import pytest
from typer.testing import CliRunner

from client.canaries import read_truth
from client.data import read_client_data
from server.kept_answers import ANSWERS, read_receipts
from simulations.__main__ import app
from simulations.audits.audit import AUDIT, AUDIT_REPORT
from simulations.audits.records import read_report
from simulations.faults.federation import make

pytestmark = [pytest.mark.slow, pytest.mark.processes]

PLANTED = ("0000", "0001")
COUNT = 100
AUDITED = {
    "run.name": "audited",
    "run.keep-answers": True,
    "statistics.share": 0.5,
    # Next to none, so that whoever is in is seen; owners agree to it here.
    "statistics.noise-multiplier": 0.3,
    "privacy.noise-multiplier": 4.0,
}


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def audited(home, small):
    """The deployment after a run with canaries at two of three clients."""
    found = make(home / "audited", small | AUDITED)
    for name in PLANTED:
        folder, truth = found.client(name).folder, home / f"{name}.json"
        options = ("--count", COUNT, "--design", "dirac")
        invoke("canaries", "plant", folder, "--truth", truth, *options)
    found.up()
    try:
        submitted = found.submit("audited")
        state = found.end_of(submitted)
        assert state.status == "completed", state.details
    finally:
        found.down()
    return found, submitted.out


def test_answers_of_every_node_are_kept_with_their_receipts(audited):
    _, out = audited
    nodes = read_receipts(out / ANSWERS)
    assert len(nodes) == 3
    # Two sums and two rounds, each paid for by an entry of its own.
    assert {len(receipts) for receipts in nodes.values()} == {4}
    assert len(frozenset().union(*nodes.values())) == 12
    assert not (out / "federation").exists()


def test_the_audit_finds_the_clients_answers_and_who_was_in(audited, home):
    found, out = audited
    truths = [home / f"{name}.json" for name in PLANTED]
    folder = found.client("0001").folder
    with_canaries = len(read_client_data(folder).users)
    assert "canaries removed" in invoke(
        "canaries", "remove", folder, "--truth", truths[1]
    )
    planted = read_truth(truths[1])
    assert len(planted.receipts) == 4
    assert len(read_client_data(folder).users) == with_canaries - planted.num_included
    invoke(
        *("audit", out, "--truth", truths[0], "--truth", truths[1]),
        *("--rows", found.client("0000").folder, "--rows", folder),
    )
    report = read_report(out / AUDIT / AUDIT_REPORT)
    canaries = {e.viewpoint: e for e in report.findings if e.kind == "canaries"}
    assert set(canaries) == {"server-local", "another-client", "public"}
    server = canaries["server-local"]
    assert server.num_canaries == 2 * COUNT
    # μ = 1 / 0.3 and more: guesses are right, and what they prove is within the claim.
    assert server.auc > 0.9
    assert 1 < server.epsilon_lower_joint <= server.epsilon_claimed
    assert not report.exceeds
    checks = {e.check: e for e in report.findings if e.kind == "check"}
    assert checks["kept-answers"].finding == "holds"
    assert checks["answers"].finding == "holds"


def test_no_word_of_the_truth_is_at_the_server(audited, home):
    found, _ = audited
    users = [each.user for each in read_truth(home / "0000.json").canaries]
    for path in found.layout.server.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [user for user in users if user.encode() in content], path
