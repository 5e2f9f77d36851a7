"""What ``tutela audit`` writes and prints: schema, page, paper, exit codes."""

import json
import os
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from common.errors import ConfigError
from simulations.__main__ import app
from simulations.audit_commands import PAGE, PAPER, REFUTED
from simulations.audits import audit as module
from simulations.audits.audit import AUDIT, AUDIT_REPORT
from simulations.audits.records import (
    AUDIT_SCHEMA_VERSION,
    audit_schema,
    read_report,
    refuted,
    schema_text,
    write_report,
)
from simulations.audits.report.printing import BROWSERS, find_browser, print_pdf
from tests.simulations.audits import report_parts as parts

PUBLISHED = (
    Path(__file__).parents[3] / f"docs/schemas/audit-{AUDIT_SCHEMA_VERSION}.json"
)


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["audit", *arguments])


@pytest.fixture
def run(tmp_path) -> Path:
    """A folder that was audited before."""
    write_report(parts.report(), tmp_path / AUDIT / AUDIT_REPORT)
    return tmp_path


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """Makes a browser by name, of a shell script."""
    place = tmp_path / "bin"
    place.mkdir()
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setattr(
        "simulations.audits.report.printing.BROWSERS", ("a-browser", "another")
    )

    def make(script: str, name: str = "another") -> None:
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)

    return make


#: Writes a PDF where it is told to; what it was told goes beside itself.
PRINTS = (
    'for word in "$@"; do case "$word" in --print-to-pdf=*) '
    'printf "%%PDF-1.4 made" > "${word#--print-to-pdf=}";; esac; done\n'
    'echo "$@" > "$0.words"'
)


def test_the_published_schema_is_the_one_in_use():
    assert PUBLISHED.read_text(encoding="utf-8") == schema_text(), (
        "run `tutela audit --schema > docs/schemas/audit-1.json`"
    )


def test_the_schema_is_sound_and_refuses_what_is_wrong():
    Draft202012Validator.check_schema(audit_schema())
    validator = Draft202012Validator(json.loads(PUBLISHED.read_text(encoding="utf-8")))
    tree = parts.report().model_dump(mode="json")
    assert validator.is_valid(tree)
    assert not validator.is_valid(tree | {"surprise": 1})
    assert not validator.is_valid(tree | {"schema_version": 2})
    assert not validator.is_valid({k: v for k, v in tree.items() if k != "spent"})


def test_the_command_prints_the_schema_without_a_run():
    done = invoke("--schema")
    assert done.exit_code == 0 and done.stdout == schema_text()


def test_a_page_is_made_again_without_attacking(run, monkeypatch):
    monkeypatch.setattr(module, "run_audit", lambda *a, **k: pytest.fail("attacked"))
    before = (run / AUDIT / AUDIT_REPORT).read_bytes()
    done = invoke(str(run), "--render")
    assert done.exit_code == 0, done.output
    assert "Privacy audit of demo" in (run / AUDIT / PAGE).read_text()
    assert (run / AUDIT / AUDIT_REPORT).read_bytes() == before
    assert "Verdict: First sentence." in done.output and PAGE in done.output
    assert not (run / AUDIT / PAPER).exists()


def test_there_is_nothing_to_make_a_page_of(tmp_path):
    done = invoke(str(tmp_path), "--render")
    assert done.exit_code == 1 and isinstance(done.exception, ConfigError)
    assert "found no file" in str(done.exception)


@pytest.mark.parametrize(("exceeds", "code"), [(True, REFUTED), (False, 0)])
def test_what_refutes_is_an_exit_code(run, exceeds, code):
    write_report(parts.report(exceeds=exceeds), run / AUDIT / AUDIT_REPORT)
    assert invoke(str(run), "--render", "--fail-above", "--json").exit_code == code
    assert invoke(str(run), "--render", "--json").exit_code == 0


@pytest.mark.parametrize(
    ("finding", "found"),
    [
        (parts.canary(exceeds=True), True),
        (parts.member(exceeds=True), True),
        (parts.leak(exceeds=True), True),
        (parts.check(finding="deviates", refutes=True), True),
        (parts.check(finding="deviates", refutes=False), False),
        (parts.check(finding="unknown", refutes=True), False),
        (parts.check(finding="holds", refutes=True), False),
        (parts.canary(), False),
        (parts.integrity(), False),
        (parts.worst_off(), False),
    ],
)
def test_which_findings_refute(finding, found):
    assert refuted(finding) is found


def test_without_a_browser_nothing_is_attacked_first(run, browser, monkeypatch):
    monkeypatch.setattr(module, "run_audit", lambda *a, **k: pytest.fail("attacked"))
    done = invoke(str(run), "--pdf")
    assert isinstance(done.exception, ConfigError)
    assert "none of a-browser, another on the PATH" in str(done.exception)


def test_browsers_are_looked_for_by_name(browser):
    browser("exit 0")
    assert find_browser().endswith("/another")
    browser("exit 0", "a-browser")
    assert find_browser().endswith("/a-browser")
    assert "chromium" in BROWSERS


def test_paper_is_printed_quietly_and_headless(run, browser):
    browser(PRINTS)
    done = invoke(str(run), "--render", "--pdf")
    assert done.exit_code == 0, done.output
    assert (run / AUDIT / PAPER).read_bytes() == b"%PDF-1.4 made"
    words = next(run.rglob("*.words")).read_text().split()
    assert {"--headless=new", "--disable-background-networking"} <= set(words)
    assert words[-1] == (run / AUDIT / PAGE).resolve().as_uri()
    profile = next(w for w in words if w.startswith("--user-data-dir="))
    assert not Path(profile.partition("=")[2]).exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo went wrong >&2; exit 7", "ended with code 7 and no PDF: went wrong"),
        ("exit 0", "ended with code 0 and no PDF; open audit.html"),
        (f"{PRINTS}\nexit 1", "ended with code 1"),
    ],
)
def test_a_browser_that_fails_leaves_the_old_file(run, browser, script, said):
    browser(script)
    (run / AUDIT / PAPER).write_bytes(b"old")
    done = invoke(str(run), "--render", "--pdf")
    assert isinstance(done.exception, ConfigError) and said in str(done.exception)
    assert (run / AUDIT / PAPER).read_bytes() == b"old"


def test_a_browser_that_hangs_is_ended(run, browser, monkeypatch):
    monkeypatch.setattr("simulations.audits.report.printing.PATIENCE", 0.2)
    browser("exec sleep 60")
    with pytest.raises(ConfigError, match=r"printed nothing within 0\.2 seconds"):
        print_pdf(run / AUDIT / PAGE, run / AUDIT / PAPER, find_browser())


def test_a_report_with_everything_is_read_back(run):
    assert read_report(run / AUDIT / AUDIT_REPORT) == parts.report()
