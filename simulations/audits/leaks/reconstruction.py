"""A user's whole history from what a server sees of one round or one run.

Simulations only. What the server sees is an argument (``sight.py``): each client's
answer, or a sum of them. The attacker knows how many items the user has, and nothing
else of the user; of others nothing, or all. Gradients give rows away exactly (Zhu et
al. 2019, arXiv 1906.08935); here no search is needed, output biases and input rows
name the items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from common.config import FlatConfig
from simulations.audits.findings import LeakRecord
from simulations.audits.leaks.answers import Read, beside, read_answers
from simulations.audits.leaks.inference import infer
from simulations.audits.leaks.knowledge import Asked, ask, popularity, some_users
from simulations.audits.leaks.measures import Subject
from simulations.audits.leaks.prior import public_odds
from simulations.audits.leaks.sight import Sight, each_answer, one_sum
from simulations.audits.leaks.staging import devices, staged
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.world import World

Float = npt.NDArray[np.float64]

PUBLIC = "popularity in public data"
#: Nobody is protected, everybody takes part: the updates of one round, or the sums.
_OFF: FlatConfig = {
    "privacy.mode": "off",
    "privacy.sample-rate": 1.0,
    "client-metrics.every": 0,
    "refresh.every": 0,
}
UPDATES: FlatConfig = _OFF | {"training.rounds": 1, "statistics.share": 0.0}
SUMS: FlatConfig = _OFF | {"training.rounds": 0}


@dataclass(frozen=True)
class Case:
    """One thing to reconstruct from.

    Attributes:
        viewpoint: key of ``VIEWPOINTS``.
        released: what the server sees.
        note: trust model and knowledge, in words.
        promised: whether anything was promised.
        scores: of every item for every user, ``[users, n]``.
        asked: the users.
    """

    viewpoint: str
    released: str
    note: str
    promised: bool
    scores: Float
    asked: Asked


def reconstruct(
    world: World,
    messages: Path,
    sights: Sequence[Sight],
    asked: Asked,
    *,
    knows_others: bool,
    most_rounds: int,
) -> Float:
    """Score every item for every user by what a server sees, ``[users, n]``.

    Args:
        messages: a recording of a run of ``world``.
        sights: what the server sees; each user is looked for where it is.
        asked: users, of whom nothing is known.
        knows_others: whether all rows but the user's are known.
        most_rounds: of updates, how many are read.
    """
    prior, scores = public_odds(world), np.zeros(asked.rows.shape)
    names = np.asarray([each.name for each in world.clients])[asked.client]
    nobody = sp.csr_matrix((0, world.num_items), dtype=np.float32)
    for sight in sights:
        inside = sight.rows(world.clients)
        users = np.flatnonzero(np.isin(names, sight.clients)).tolist()
        others = knows_others and inside.shape[0] > 1
        known = inside if others else nobody
        read = read_answers(world, messages, sight, known, most_rounds)
        if inside.shape[0] == 1 and world.config.privacy.mode == "off":
            scores[users] = _bare(read)
            continue
        for user in users:
            scores[user] = _guess(read, asked, user, prior, knows_others=others)
    return scores


def _bare(read: list[Read]) -> Float:
    """Exact numbers of one user alone: any that is not zero names an item."""
    parts = [each.bare() for each in read]
    shares = [each / max(float(each.max()), 1e-30) for each in parts]
    return np.asarray(np.sum(shares, axis=0))


def _guess(
    read: list[Read], asked: Asked, user: int, prior: Float, *, knows_others: bool
) -> Float:
    items = asked.rows[user].toarray()[0].astype(bool)
    evidence = beside(read, items) if knows_others else list(read)
    return infer(evidence, prior, np.zeros_like(items), int(items.sum())).total


def audit_reconstruction(
    world: World, messages: Path, settings: AuditSettings, tell: Tell
) -> list[LeakRecord]:
    """Every trust model that this run has, and the non-private ones beside it.

    Args:
        messages: a recording of the run's configuration over the run's own rows.
    """
    public = popularity(world)
    return [
        _record(case, public, settings.confidence)
        for case in _cases(world, messages, settings, tell)
    ]


def _cases(
    world: World, messages: Path, settings: AuditSettings, tell: Tell
) -> Iterator[Case]:
    rng = np.random.default_rng(settings.seed)
    few = some_users(world, settings.leak_users // 2, rng, share=0.0)
    if not few.rows.shape[0]:
        return
    mode, rounds = world.config.privacy.mode, settings.leak_rounds
    tell("leaks: histories from the run's own answers")
    scores = reconstruct(
        world,
        messages,
        each_answer(world.clients),
        few,
        knows_others=True,
        most_rounds=rounds,
    )
    yield Case(
        "server-local",
        _of_clients(world),
        _said(mode, "everybody else's rows"),
        mode != "off",
        scores,
        few,
    )
    yield from _of_devices(world, settings, tell, rng)
    yield from _without_noise(world, settings, tell, few)


def _of_devices(
    world: World, settings: AuditSettings, tell: Tell, rng: np.random.Generator
) -> Iterator[Case]:
    """Clients of one user each: in the run's mode, and in mode off."""
    clients = devices(world, settings.leak_devices, rng)
    mode = world.config.privacy.mode
    kinds: list[tuple[str, FlatConfig, str]] = []
    if mode != "off":
        rounds = min(world.config.training.rounds, settings.leak_rounds)
        kinds.append(("all answers", {"training.rounds": rounds}, mode))
    kinds += [(what, overrides, "off") for what, overrides in _bare_runs(world)]
    for what, overrides, trust in kinds:
        tell(f"leaks: histories from clients of one user, mode {trust}")
        with staged(world, clients, overrides, settings.seed) as (varied, messages):
            yield from _seen_of_devices(varied, messages, settings, what, trust)


def _seen_of_devices(
    world: World, messages: Path, settings: AuditSettings, what: str, mode: str
) -> Iterator[Case]:
    """Each device's answer; and, unprotected, the sum of all of them."""
    asked = _everybody(world)
    count = len(world.clients)
    each, total = each_answer(world.clients), one_sum(world.clients)
    cases = [("server-local", each, False, f"{what} of clients of one user", "nothing")]
    if mode == "off":
        summed = f"total of the {what} of {count} clients of one user"
        cases += [
            ("server-distributed", total, False, summed, "nothing"),
            ("server-distributed", total, True, summed, "everybody else's rows"),
        ]
    for viewpoint, sights, knows_others, released, knows in cases:
        scores = reconstruct(
            world,
            messages,
            sights,
            asked,
            knows_others=knows_others,
            most_rounds=settings.leak_rounds,
        )
        note = _said(mode, knows)
        yield Case(viewpoint, released, note, mode != "off", scores, asked)


def _without_noise(
    world: World, settings: AuditSettings, tell: Tell, asked: Asked
) -> Iterator[Case]:
    """The run's own clients in mode off."""
    for what, overrides in _bare_runs(world):
        tell("leaks: histories from clients of many users, mode off")
        with staged(world, world.clients, overrides, settings.seed) as (off, messages):
            for knows_others in (False, True):
                scores = reconstruct(
                    off,
                    messages,
                    each_answer(off.clients),
                    asked,
                    knows_others=knows_others,
                    most_rounds=settings.leak_rounds,
                )
                yield Case(
                    "server-local",
                    f"{what} of clients of {_size(world)} users",
                    _said(
                        "off", "everybody else's rows" if knows_others else "nothing"
                    ),
                    False,
                    scores,
                    asked,
                )


def _bare_runs(world: World) -> list[tuple[str, FlatConfig]]:
    """What of a run in mode off can be read alone."""
    found = [("updates", UPDATES)]
    if world.config.statistics.share:
        found.append(("sums", SUMS))
    return found


def _everybody(world: World) -> Asked:
    """All users of these clients, and nothing known of them."""
    rows = sp.vstack([each.histories for each in world.clients], format="csr")
    client = np.repeat(
        np.arange(len(world.clients)), [len(each.users) for each in world.clients]
    )
    return ask(rows, client, 0.0, np.random.default_rng(0))


def _size(world: World) -> int:
    sizes = [len(each.users) for each in world.clients]
    return round(sum(sizes) / len(sizes))


def _of_clients(world: World) -> str:
    return f"all answers of clients of {_size(world)} users"


def _said(mode: str, knows: str) -> str:
    return (
        f"Mode {mode}. Knows how many items the user has, and of others {knows}. At "
        "that length precision is recall."
    )


def _record(case: Case, public: Float, confidence: float) -> LeakRecord:
    question = case.asked.question
    everybody = np.broadcast_to(public, case.scores.shape)
    subject = Subject(
        "reconstruction", case.viewpoint, case.released, case.promised, case.note
    )
    return subject.record(
        "precision",
        question.precision(case.scores),
        float(np.nanmean(question.precision(everybody))),
        PUBLIC,
        confidence,
    )
