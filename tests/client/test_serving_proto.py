"""The committed code is what the interface's file says."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = "client/proto/recommender.proto"


def test_the_generated_code_is_up_to_date(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    done = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, FILE],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    made = sorted((tmp_path / "client/proto").iterdir())
    assert len(made) == 3
    for path in made:
        committed = ROOT / "client/proto" / path.name
        assert committed.read_bytes() == path.read_bytes(), "run `make proto`"
