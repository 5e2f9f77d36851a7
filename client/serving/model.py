"""The model being served, loaded whole and never changed: a newer one is another.

Client only: it may hold personal parameters. A student is taken only if it is sound
and over the folder's catalogue; personal parameters only if they belong to it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError, safe_open

from client.personal import Personal, personal_scores
from client.personal_file import OtherStudent, read_personal
from client.serving.engine import CONVERTED, Engine, TorchEngine, onnx_engine
from client.serving.recent import Recent
from client.store_key import PERSONAL
from client.taste import directions
from client.vault import Key
from common.catalogue import Catalogue
from common.errors import DataFormatError
from common.folders import RESULTS, STUDENT
from common.interactions import FloatArray, IntArray
from common.student import Student, is_bounded, load_student

log = logging.getLogger("tutela.serving")


@dataclass(frozen=True, eq=False)
class PersonalModel:
    """Personal parameters ready to score.

    Attributes:
        axes: of ``taste.directions``.
        row: pseudonym → row of the parameters.
        recent: scores of users who asked.
    """

    personal: Personal = field(repr=False)
    student: Student = field(repr=False)
    axes: FloatArray = field(repr=False)
    row: dict[str, int] = field(repr=False)
    recent: Recent = field(default_factory=Recent, repr=False)

    def score(self, user: str, items: IntArray) -> FloatArray:
        """Scores float32 ``[num_items]`` for a stored user's history."""
        found = self.recent.get(user, items)
        if found is None:
            found = self._scored(user, items)
            self.recent.put(user, items, found)
        return found

    def _scored(self, user: str, items: IntArray) -> FloatArray:
        ones = np.ones(len(items), dtype=np.float32)
        shape = (1, self.student.spec.num_items)
        history = sp.csr_matrix((ones, items, [0, len(items)]), shape=shape)
        row = np.array([self.row.get(user, -1)])
        scores: FloatArray = personal_scores(
            self.personal, self.student, self.axes, history, row
        )[0]
        return scores


@dataclass(frozen=True, eq=False)
class Model:
    """One student and what was made of it.

    Attributes:
        version: SHA-256 of the student's file.
        rows: float32 ``[num_items, dim]``, what an item of the history adds to the
            user vector before it is divided by the history's length.
        decoder: float32 ``[num_items, dim]``, output vectors.
        unit: the same at length 1.
        promise: the whole sentence, empty where none was found.
    """

    version: str
    engine: Engine = field(repr=False)
    rows: FloatArray = field(repr=False)
    decoder: FloatArray = field(repr=False)
    unit: FloatArray = field(repr=False)
    exponent: float
    promise: str = field(repr=False)
    personal: PersonalModel | None = field(repr=False)

    @property
    def num_items(self) -> int:
        """Of the catalogue."""
        return len(self.decoder)

    def score(self, user: str | None, items: IntArray) -> FloatArray:
        """Scores float32 ``[num_items]``, the caller's to change.

        Args:
            user: a stored user's pseudonym; personal parameters are for them alone.
            items: the history, distinct dense ids ``[n]``.
        """
        if user is not None and self.personal is not None:
            return self.personal.score(user, items)
        return self.engine.score(items)

    def contributions(self, items: IntArray, to: IntArray) -> FloatArray:
        """What each item of a history adds to scores, float32 ``[len(to), n]``.

        The student is additive: a row sums to the score less the item's bias.
        """
        length = np.float32(max(len(items), 1)) ** np.float32(self.exponent)
        found: FloatArray = self.decoder[to] @ (self.rows[items] / length).T
        return found


def load_model(
    folder: Path, catalogue: Catalogue, engine: str, key: Key | None
) -> Model:
    """The folder's student as it is now, and what belongs to it.

    Args:
        engine: of ``engine.choose_engine``.
        key: of the store, where personal parameters are.

    Raises:
        DataFormatError: if the student or the personal parameters are damaged, or the
            student is over another catalogue.
        ConfigError: if the store's key is another.
    """
    content = _read(folder / STUDENT)
    version = sha256(content).hexdigest()
    with TemporaryDirectory() as place:
        # Its very bytes: another may be delivered at any moment.
        path = Path(place, STUDENT)
        path.write_bytes(content)
        student = _student(path, catalogue)
        built = _engine(engine, student, path, folder, version, catalogue)
        promise = _promise(path, folder)
    decoder = student.decoder.weight.detach().numpy()
    length = np.linalg.norm(decoder, axis=1, keepdims=True)
    rows = student.encoder.weight.detach().numpy().T * student.spec.logit_scale
    return Model(
        version=version,
        engine=built,
        rows=np.ascontiguousarray(rows, dtype=np.float32),
        decoder=decoder,
        unit=decoder / np.maximum(length, np.float32(1e-12)),
        exponent=student.spec.history_exponent,
        promise=promise,
        personal=_personal(folder, student, catalogue, version, key),
    )


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise DataFormatError(f"{path.name}: expected a student, found no file.")
    return path.read_bytes()


def _student(path: Path, catalogue: Catalogue) -> Student:
    try:
        student = load_student(path)
        bounded = is_bounded(student.spec, student.state_dict())
    except (KeyError, ValueError, RuntimeError, DataFormatError):
        bounded = False  # its text would name a temporary place
    if not bounded:
        raise DataFormatError(f"{STUDENT}: expected a whole student of finite numbers.")
    if student.spec.num_items != catalogue.num_items:
        raise DataFormatError(
            f"{STUDENT}: expected one over the folder's catalogue, "
            f"{catalogue.num_items} items, got one over {student.spec.num_items}."
        )
    return student


def _engine(
    name: str,
    student: Student,
    path: Path,
    folder: Path,
    version: str,
    catalogue: Catalogue,
) -> Engine:
    if name == "torch":
        return TorchEngine(student)
    return onnx_engine(student, path, folder / CONVERTED, version, catalogue.digest)


def _personal(
    folder: Path, student: Student, catalogue: Catalogue, version: str, key: Key | None
) -> PersonalModel | None:
    path = folder / PERSONAL
    if not path.is_file():
        return None
    axes = directions(student, catalogue)
    try:
        shape = (axes.shape[0], axes.shape[1])
        found = read_personal(path, version, key, shape)
    except OtherStudent:
        log.warning("%s: of another student, left out; run personalise again", PERSONAL)
        return None
    row = {user: place for place, user in enumerate(found.users)}
    return PersonalModel(found, student, axes, row)


def _promise(path: Path, folder: Path) -> str:
    """The sentence in the student's file, else in the run's results, else none."""
    try:
        with safe_open(path, framework="np") as file:
            told = (file.metadata() or {}).get("promise", "")
        if not told and (folder / RESULTS).is_file():
            told = json.loads((folder / RESULTS).read_text())["promise"]["sentence"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return ""
    return str(told)
