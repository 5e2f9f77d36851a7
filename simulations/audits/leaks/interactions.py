"""Which items somebody touched, told from what a run released.

Simulations only. The attacker knows a random half of each user's items. From the
server's seat it also knows everybody else's rows, the worst that the promise covers,
and adds what the answers say to what the run's final student expects of such a half;
from students it takes what they expect. The same attack on users who are in no run
says how much of it is taste in general, and nothing that they gave away.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.student import StateDict
from simulations.audits.findings import LeakRecord
from simulations.audits.knowledge import some
from simulations.audits.leaks.answers import Read, beside, read_answers
from simulations.audits.leaks.inference import Inferred, infer
from simulations.audits.leaks.knowledge import (
    Asked,
    log_chances,
    outsiders,
    popularity,
    some_users,
)
from simulations.audits.leaks.measures import Subject
from simulations.audits.leaks.prior import learned_odds
from simulations.audits.leaks.sight import each_answer
from simulations.audits.settings import AuditSettings
from simulations.audits.transcript import students
from simulations.audits.world import World

Float = npt.NDArray[np.float64]
#: Viewpoint, and what it sees.
Object = tuple[str, str]

ANSWERS, ALONE = "answers and final student", "answers alone"
PUBLIC = "popularity in public data"
OTHERS = "the same attack on held-out users, who are in no run"
_HALF = "Knows a random half of each user's items, and how many there are"
_WHOLE = f"{_HALF}, and everybody else's rows."


def audit_interactions(
    world: World, messages: Path, settings: AuditSettings
) -> list[LeakRecord]:
    """Attack the answers, the students of the rounds, and the final student.

    Args:
        messages: a recording of the run's configuration over the run's own rows.
    """
    rng = np.random.default_rng(settings.seed)
    inside = some_users(world, settings.leak_users, rng)
    outside = outsiders(world, settings.leak_users, rng)
    if not inside.rows.shape[0]:
        return []
    sent = students(messages)
    # Of this very run: that of the audited one would be a release more.
    found = _of_answers(world, messages, sent[-1], inside, outside, settings)
    found |= _of_students(world, sent, inside, outside)
    return [
        record
        for seen, scores in found.items()
        for record in _records(
            world, seen, inside, outside, scores, settings.confidence
        )
    ]


def _of_answers(
    world: World,
    messages: Path,
    final: StateDict,
    inside: Asked,
    outside: Asked,
    settings: AuditSettings,
) -> dict[Object, tuple[Float, Float]]:
    """Answers with what the same run's final student expects, and by themselves."""
    members, others = (
        infer_from_answers(
            world,
            messages,
            asked,
            learned_odds(world, final, asked, outside),
            settings.leak_rounds,
        )
        for asked in (inside, outside)
    )
    return {
        ("server-local", ANSWERS): (_totals(members), _totals(others)),
        ("server-local", ALONE): (_alone(members), _alone(others)),
    }


def infer_from_answers(
    world: World, messages: Path, asked: Asked, prior: Float, most_rounds: int
) -> list[Inferred]:
    """What each client's answers say of its users.

    Args:
        prior: log-odds before looking at them, ``[users, n]``.
    """
    found: dict[int, Inferred] = {}
    sights = each_answer(world.clients)
    for place in np.unique(asked.client).tolist():
        known = world.clients[place].histories
        read = read_answers(world, messages, sights[place], known, most_rounds)
        for user in np.flatnonzero(asked.client == place).tolist():
            found[user] = _one(read, asked, user, prior[user])
    return [found[user] for user in range(asked.rows.shape[0])]


def _one(read: list[Read], asked: Asked, user: int, prior: Float) -> Inferred:
    """One user's: whoever is inside is not among the rows that are known."""
    items = asked.rows[user].toarray()[0].astype(bool)
    # Nobody's contribution is in what is left where the user is in no answer.
    evidence = beside(read, items if asked.is_inside else np.zeros_like(items))
    known = asked.question.known[user]
    # With half of the items known the belief about the rest hardly matters.
    return infer(evidence, prior, known, int(items.sum()), improved=1)


def _totals(found: list[Inferred]) -> Float:
    return np.asarray([each.total for each in found])


def _alone(found: list[Inferred]) -> Float:
    return np.asarray([each.evidence for each in found])


def _of_students(
    world: World, sent: list[StateDict], inside: Asked, outside: Asked
) -> dict[Object, tuple[Float, Float]]:
    """The final student of the run itself; and those of the rounds, where there are."""
    released: dict[Object, list[StateDict]] = {}
    if world.config.training.rounds:
        # All start from one student, which tells nothing.
        released["another-client", "students"] = some(sent[1:])
    released["public", "final student"] = [world.final]
    return {
        seen: (
            _expected(world, states, inside.shown),
            _expected(world, states, outside.shown),
        )
        for seen, states in released.items()
    }


def _expected(world: World, states: list[StateDict], rows: sp.csr_matrix) -> Float:
    parts = [log_chances(world.spec, state, rows) for state in states]
    return np.asarray(np.mean(parts, axis=0))


def _records(
    world: World,
    seen: Object,
    inside: Asked,
    outside: Asked,
    scores: tuple[Float, Float],
    confidence: float,
) -> list[LeakRecord]:
    """AUC and precision against popularity, and AUC against users in no run."""
    question = inside.question
    before = log_chances(world.spec, world.start, inside.shown)
    public = np.broadcast_to(popularity(world), before.shape)
    expected = float(np.nanmean(question.auc(before)))
    given = _WHOLE if seen[0] == "server-local" else f"{_HALF}."
    note = f"{given} The student of public data alone has AUC {expected:.3f}."
    private = world.config.privacy.mode != "off"
    subject = Subject("interactions", *seen, promised=private, note=note)
    auc, base = question.auc(scores[0]), float(np.nanmean(question.auc(public)))
    found = [subject.record("AUC", auc, base, PUBLIC, confidence)]
    if outside.question.hidden.any():
        of_others = float(np.nanmean(outside.question.auc(scores[1])))
        found.append(subject.record("AUC", auc, of_others, OTHERS, confidence))
    precision = question.precision(scores[0])
    base = float(np.nanmean(question.precision(public)))
    return [*found, subject.record("precision", precision, base, PUBLIC, confidence)]
