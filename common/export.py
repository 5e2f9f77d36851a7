"""Students as ONNX files for devices, in 32 or 8 bits, and how alike they score.

In ``common`` because whoever holds a released student may export it, and whoever gets
the file may load it. The packages of the extra ``export`` are imported where they are
used: nodes train without them.

In eight bits both tables are int8 with a scale for each output, and their inputs are
quantised as they come (ONNX Runtime's dynamic quantisation). A history's ones and
zeros survive that exactly; a user vector gets one scale. For a batch it would be one
scale for all, and a user's scores would depend on who is beside them: hence
:meth:`OnnxStudent.score` takes eight-bit students one user at a time.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from common.compact_files import (
    READABLE,
    Labels,
    Precision,
    check_labels,
    file_metadata,
)
from common.compression import Compact, CompactStudent
from common.durable_files import write_durably
from common.errors import ConfigError, DataFormatError
from common.interactions import FloatArray
from common.metrics import Scorer

ONNX_FORMAT = "tutela-onnx-1"
HISTORY, SCORES = "history", "scores"


@dataclass(frozen=True)
class OnnxStudent:
    """A student in ONNX Runtime, at one thread.

    Attributes:
        session: an ``onnxruntime.InferenceSession``.
        metadata: what :func:`save_onnx` wrote beside the graph.
    """

    session: Any
    metadata: Mapping[str, str]

    def score(self, history: FloatArray) -> FloatArray:
        """Scores float32 ``[B, num_items]`` of multi-hot histories of that shape.

        Raises:
            DataFormatError: if the histories have another shape.
        """
        num_items = int(self.metadata["num_items"])
        if history.ndim != 2 or history.shape[1] != num_items:
            raise DataFormatError(
                f"Expected histories over {num_items} items, got shape {history.shape}."
            )
        history = np.ascontiguousarray(history, dtype=np.float32)
        if self.metadata["precision"] == "float32" or not len(history):
            return self._run(history)
        return np.concatenate([self._run(row[None]) for row in history])

    def _run(self, history: FloatArray) -> FloatArray:
        scores: FloatArray = self.session.run([SCORES], {HISTORY: history})[0]
        return scores


def batch_scorer(
    score: Callable[[FloatArray], FloatArray], histories: sp.csr_matrix
) -> Scorer:
    """What ranks users by ``OnnxStudent.score`` or ``CompactStudent.score``.

    Args:
        score: float32 ``[B, num_items]`` to the same shape.
        histories: multi-hot float32, CSR ``[users, num_items]``.
    """
    return lambda start, stop: score(histories[start:stop].toarray())


def save_onnx(
    path: Path, student: Compact, labels: Labels, precision: Precision
) -> None:
    """Write ``history`` float32 ``[B, num_items]`` → ``scores``, whole or not at all.

    Raises:
        ConfigError: if the packages of the extra ``export`` are missing.
    """
    onnx = _need("onnx")
    _need("onnxscript")
    model = _graph(student)
    if precision == "int8":
        model = _quantised(model)
    _forget_the_exporter(model)
    onnx.helper.set_model_props(
        model, file_metadata(ONNX_FORMAT, student, labels, precision)
    )
    write_durably(path, model.SerializeToString(deterministic=True), READABLE)


def load_onnx(path: Path, catalogue_digest: str | None = None) -> OnnxStudent:
    """Read what :func:`save_onnx` wrote.

    Args:
        catalogue_digest: the catalogue the file has to speak of; None for any.

    Raises:
        ConfigError: if ONNX Runtime is missing.
        DataFormatError: if the file is missing, is no exported student, or is one
            over another catalogue.
    """
    runtime = _need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not path.is_file():
        raise DataFormatError(f"Expected a student at {path}, found no file.")
    try:
        session = runtime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception:  # its errors share no base, and hold no more than "invalid"
        raise DataFormatError(f"{path}: expected an ONNX file.") from None
    metadata = session.get_modelmeta().custom_metadata_map
    check_labels(path, metadata, (ONNX_FORMAT,), catalogue_digest)
    return OnnxStudent(session, metadata)


@dataclass(frozen=True)
class Parity:
    """How alike two scorings of the same users are.

    Attributes:
        largest_difference: of any two finite scores; infinite where one alone is.
        overlap: share of the top k items in common, mean over users.
        identical: share of users with the same top k in the same order.
    """

    largest_difference: float
    overlap: float
    identical: float


def compare(expected: FloatArray, found: FloatArray, k: int) -> Parity:
    """Parity of scores ``[B, num_items]``; ties go to the lower id."""
    with np.errstate(invalid="ignore"):
        difference = np.where(expected == found, 0.0, np.abs(expected - found))
    ours, theirs = (
        np.argsort(-scores, axis=1, kind="stable")[:, :k]
        for scores in (expected, found)
    )
    common = [len(np.intersect1d(*pair)) for pair in zip(ours, theirs, strict=True)]
    return Parity(
        float(difference.max(initial=0.0)),
        float(np.mean(common)) / min(k, expected.shape[1]),
        float((ours == theirs).all(axis=1).mean()),
    )


def trial_histories(num_items: int, count: int, seed: int) -> sp.csr_matrix:
    """Histories that belong to nobody, to try an export on: CSR ``[count, num_items]``.

    The first is empty, the second full, the others are of random length and items.
    """
    draw = np.random.default_rng(seed)
    rows = np.zeros((count, num_items), dtype=np.float32)
    rows[1:2] = 1.0
    for row in rows[2:]:
        length = draw.integers(1, min(100, num_items) + 1)
        row[draw.choice(num_items, length, replace=False)] = 1.0
    return sp.csr_matrix(rows)


def _graph(student: Compact) -> Any:
    """The student as an ONNX model in memory."""
    example = torch.zeros(2, student.catalogue_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own deprecations
        program = torch.onnx.export(
            CompactStudent(student).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[HISTORY],
            output_names=[SCORES],
            dynamic_shapes={HISTORY: {0: torch.export.Dim("batch")}},
        )
    return program.model_proto if program is not None else None


def _quantised(model: Any) -> Any:
    """Both tables in int8, a scale an output; the rest stays float32.

    Seven of the eight bits are used: x86 processors without VNNI add two products
    of a pair in 16 bits and saturate beyond, and a history's ones are at the very
    top of their range. Ranking was the same to a thousandth of NDCG@10.
    """
    onnx = _need("onnx")
    quantization = _need("onnxruntime.quantization")
    with TemporaryDirectory() as folder:
        path = Path(folder, "int8.onnx")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)  # it advises to fold a graph that is folded
        try:
            quantization.quantize_dynamic(
                model,
                path,
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                reduce_range=True,
                weight_type=quantization.QuantType.QInt8,
            )
        finally:
            logging.disable(before)
        return onnx.load(path)


def _forget_the_exporter(model: Any) -> None:
    """Drop stack traces: they name folders of the machine that exported."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _need(module: str) -> Any:
    """A module of the extra ``export``."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ConfigError(
            f"Expected the package {package} for ONNX, found none; install the extra "
            "export: pip install 'tutela[export]'."
        ) from None
