"""How well a released model knows users: a logit of their own items' probability.

Simulations only. For a recommender the likelihood of a user is that of items of theirs
given the rest; its logit is close to normal, which LiRA asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from scipy.special import log_softmax, logsumexp

from common import wire
from common.folders import TEACHER_REFINED
from common.soft_labels import SoftLabels, decode
from common.student import StateDict, StudentSpec
from server.teacher.checkpoint import load_teacher
from simulations.audits.gradients import log_likelihood
from simulations.audits.transcript import exchanges, students
from simulations.audits.viewpoints import servers_seat
from simulations.audits.world import World

Float = npt.NDArray[np.float64]
#: Users → a statistic each.
Judge = Callable[[sp.csr_matrix], Float]
#: What is attacked: viewpoint, and the object that it sees.
Object = tuple[str, str]

#: Students of a run, evenly over its rounds, that a statistic is a mean of.
STUDENTS = 8
_MASKS, _USERS = 4, 256
#: Above any log-probability that a logit can be taken of.
_CERTAIN = -1e-9


def logit(log_probability: Float) -> Float:
    """``log(p / (1 − p))`` of a log-probability."""
    bounded = np.minimum(log_probability, _CERTAIN)
    found: Float = bounded - np.log(-np.expm1(bounded))
    return found


def some(found: Sequence[StateDict], count: int = STUDENTS) -> list[StateDict]:
    """So many students, evenly over the rounds, the last among them."""
    step = max(1, len(found) // count)
    return list(found[::-1][::step])[::-1]


def judges(world: World, messages: Path, out: Path) -> dict[Object, Judge]:
    """What a run released, each as something that knows users more or less.

    Args:
        messages: the run's recording.
        out: the server's folder.
    """
    config, sent = world.config, students(messages)
    spec, fraction = world.spec, config.training.target_fraction
    found = {("public", "final student"): student_judge(spec, sent[-1:], fraction)}
    if config.training.rounds:
        # All start from one student, which tells nothing.
        rounds = some(sent[1:])
        found["another-client", "students"] = student_judge(spec, rounds, fraction)
    if (out / TEACHER_REFINED).is_file():
        teacher = load_teacher(out / TEACHER_REFINED, None)
        judge = scorer_judge(lambda rows: teacher.score(rows), fraction)
        found[servers_seat(config.privacy.mode), "refined teacher"] = judge
    if config.statistics.share or config.refresh.every:
        asked = [each for each in exchanges(messages) if each.kind == wire.TRAIN]
        labels = asked[-1].soft_labels if asked else None
        if labels is not None:
            found["another-client", "soft labels"] = label_judge(labels)
    return found


def student_judge(
    spec: StudentSpec, states: Sequence[StateDict], fraction: float
) -> Judge:
    """The mean over some students."""

    def judge(rows: sp.csr_matrix) -> Float:
        each = [logit(log_likelihood(spec, state, rows, fraction)) for state in states]
        return np.asarray(np.mean(each, axis=0))

    return judge


def scorer_judge(
    score: Callable[[sp.csr_matrix], npt.NDArray[np.float32]], fraction: float
) -> Judge:
    """Anything that scores all items for a history."""

    def judge(rows: sp.csr_matrix) -> Float:
        rng = np.random.default_rng(0)
        parts = [
            _scored(rows[start : start + _USERS], score, fraction, rng)
            for start in range(0, rows.shape[0], _USERS)
        ]
        return logit(np.concatenate([np.zeros(0), *parts]))

    return judge


def label_judge(labels: SoftLabels) -> Judge:
    """Soft labels of proxy users: a user is known by those of users like it."""
    scores = decode(labels).numpy().astype(np.float64)
    chance = np.exp(scores - logsumexp(scores, axis=1, keepdims=True))
    row = np.repeat(np.arange(len(chance)), chance.shape[1])
    table = sp.csr_matrix(
        (chance.ravel(), (row, labels.item.ravel())), shape=labels.proxy.shape
    )
    length = np.sqrt(np.maximum(np.diff(labels.proxy.indptr), 1))

    def judge(rows: sp.csr_matrix) -> Float:
        near = np.asarray((rows @ labels.proxy.T).todense(), dtype=np.float64) / length
        near /= np.maximum(near.sum(axis=1, keepdims=True), 1e-12)
        expected = near @ table.toarray()
        own = rows.toarray()
        logs = np.log(expected + 1e-9)
        return logit((own * logs).sum(axis=1) / np.maximum(own.sum(axis=1), 1.0))

    return judge


def _scored(
    rows: sp.csr_matrix,
    score: Callable[[sp.csr_matrix], npt.NDArray[np.float32]],
    fraction: float,
    rng: np.random.Generator,
) -> Float:
    total = np.zeros(rows.shape[0])
    for _ in range(_MASKS):
        masked = rng.random(rows.nnz) < fraction
        history, target = rows.copy(), rows.copy()
        history.data, target.data = rows.data * ~masked, rows.data * masked
        history.eliminate_zeros()
        target.eliminate_zeros()
        logs = log_softmax(score(history).astype(np.float64), axis=1)
        each = np.asarray(target.multiply(logs).sum(axis=1)).ravel()
        total += each / np.maximum(np.diff(target.indptr), 1)
    return total / _MASKS
