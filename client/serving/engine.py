"""What computes a student's scores for one history: ONNX Runtime or torch.

Client only, at one thread a call: calls run side by side. For ONNX Runtime the
student's file is converted once (``convert``), in a process of its own, so that calls
served meanwhile keep their pace; the result is kept beside the folder's student.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from common.errors import ConfigError, DataFormatError
from common.interactions import FloatArray, IntArray
from common.student import Student

#: Converted students, in the client's folder.
CONVERTED = "serving"
#: A conversion takes seconds; beyond this it hangs.
PATIENCE = 300.0
NEEDED = ("onnx", "onnxruntime", "onnxscript")


class Engine(Protocol):
    """Scores of one history."""

    @property
    def name(self) -> str:
        """``onnxruntime`` or ``torch``."""

    def score(self, items: IntArray) -> FloatArray:
        """Logits float32 ``[num_items]``, the caller's to change.

        Args:
            items: distinct dense ids ``[n]``; n may be 0.
        """


class TorchEngine:
    """The student's own arithmetic, over the rows of the history alone."""

    name = "torch"

    def __init__(self, student: Student) -> None:
        spec = student.spec
        self._scale, self._exponent = spec.logit_scale, spec.history_exponent
        self._rows = student.encoder.weight.detach().T.contiguous()
        self._decoder = student.decoder.weight.detach()
        self._bias = student.decoder.bias.detach()

    def score(self, items: IntArray) -> FloatArray:
        """See :class:`Engine`."""
        with torch.inference_mode():
            length = float(max(len(items), 1)) ** self._exponent
            user = self._rows[torch.from_numpy(items)].sum(dim=0) / length * self._scale
            scores: FloatArray = torch.addmv(self._bias, self._decoder, user).numpy()
        return scores


class OnnxEngine:
    """The exported graph in ONNX Runtime."""

    name = "onnxruntime"

    def __init__(self, path: Path, catalogue_digest: str, num_items: int) -> None:
        from common.export import load_onnx

        self._student = load_onnx(path, catalogue_digest)
        self._num_items = num_items

    def score(self, items: IntArray) -> FloatArray:
        """See :class:`Engine`."""
        history = np.zeros((1, self._num_items), dtype=np.float32)
        history[0, items] = 1.0
        scores: FloatArray = self._student.score(history)[0]
        return scores


def choose_engine(asked: str) -> str:
    """``auto`` is ONNX Runtime where it and its converter are installed, else torch.

    Raises:
        ConfigError: if it is none of ours, or not installed.
    """
    if asked not in ("auto", "onnxruntime", "torch"):
        raise ConfigError(
            f"--engine: expected auto, onnxruntime or torch, got {asked!r}."
        )
    missing = [name for name in NEEDED if find_spec(name) is None]
    if asked == "auto":
        return "torch" if missing else "onnxruntime"
    if asked == "onnxruntime" and missing:
        raise ConfigError(
            f"--engine onnxruntime: expected the packages {', '.join(missing)}, found "
            "none; install the extra: pip install 'tutela[export]'."
        )
    return asked


def onnx_engine(
    student: Student, path: Path, kept: Path, version: str, catalogue_digest: str
) -> Engine:
    """An engine for a student, converted unless it was before.

    Args:
        path: the student's file.
        kept: the folder of converted students; others than this one are dropped.
        version: SHA-256 of the file.

    Raises:
        DataFormatError: if the student cannot be converted.
    """
    kept.mkdir(mode=0o700, exist_ok=True)
    found = kept / f"{version}.onnx"
    if not found.is_file():
        _convert(path, found, catalogue_digest)
    engine = OnnxEngine(found, catalogue_digest, student.spec.num_items)
    for old in set(kept.glob("*.onnx")) - {found}:
        old.unlink(missing_ok=True)
    return engine


def _convert(path: Path, out: Path, catalogue_digest: str) -> None:
    # Neither -m's own look into the working directory (-P) nor an empty part of the
    # path, which means the same, may find code there: anybody may have put it.
    command = [sys.executable, "-P", "-m", "client.serving.convert"]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    parts = [str(Path(__file__).parents[2]), *filter(None, inherited)]
    try:
        subprocess.run(  # noqa: S603 - our own module, on paths of our own
            [*command, str(path), str(out), catalogue_digest],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(parts)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        raise DataFormatError(
            f"{path.name}: expected a student that converts to ONNX; --engine torch "
            "does without."
        ) from None
