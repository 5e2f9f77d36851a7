"""``python -m client.serving.convert STUDENT OUT DIGEST``: a student as ONNX.

Client only: called by ``engine``, in a process of its own. Exporting holds Python's
lock for seconds, and takes memory that the service need not keep.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from common.compact_files import Labels
from common.compression import whole
from common.export import save_onnx
from common.student import load_student


def convert(student: Path, out: Path, catalogue_digest: str) -> None:
    """Write ``out``, whole or not at all."""
    found = load_student(student)
    compact = whole(found.spec, found.state_dict())
    save_onnx(out, compact, Labels(catalogue_digest, ""), "float32")


if __name__ == "__main__":
    os.nice(10)  # calls go first
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
