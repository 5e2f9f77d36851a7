"""Rules of the whole suite.

A test of real data skips where the data folder beside the project is missing; where
it is there, CI must not pass by skipping.
"""

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[1].parent / "shared" / "data"
_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and "shared data" in str(report.longrepr):
        _skipped.append(report.nodeid)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and os.environ.get("CI") and SHARED_DATA.is_dir():
        names = "\n  ".join(_skipped)
        print(f"\nSkipped though the shared data folder is there:\n  {names}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
