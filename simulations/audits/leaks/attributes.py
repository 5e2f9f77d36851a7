"""Gender, age and the like, told from personal parameters and from recommendations.

Simulations only: attributes are the data set's. Whoever knows some users' attributes
learns to tell the others', by a logistic regression that is judged on users it did not
see (five folds). Beside it stands what the bare history gives away: personal
parameters are made of it, and can hold no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from client.identifiers import folder_key, pseudonym
from client.personal import Personal, personal_scores, personalise
from client.randomness import stream
from client.taste import directions
from common.errors import ConfigError, DataFormatError
from common.folders import ID_KEY
from common.interactions import FloatArray
from common.metrics import top_k
from common.student import Student, build
from simulations.audits.bounds import clopper_pearson
from simulations.audits.findings import Finding, LeakRecord
from simulations.audits.leaks.measures import unknown
from simulations.audits.settings import AuditSettings, Tell
from simulations.audits.world import ClientRows, World
from simulations.collecting import FEDERATION
from simulations.groups import UNKNOWN, Labels, labels_of
from simulations.partition import CLIENTS
from simulations.shareable import without_folders

Float = npt.NDArray[np.float64]

#: A list of recommendations as it is looked at.
TOP = 100
FOLDS = 5
#: What is tried for the inverse of the ridge, inside of each fold.
_STRENGTHS = (0.001, 0.01, 0.1, 1.0)
_SEED = 0
MAJORITY = "the most frequent group, for everybody"

#: Name → viewpoint: what is looked at of each user.
SEEN = {
    "bare history": "device-thief",
    "personal vector": "device-thief",
    f"top {TOP} of the student": "device-caller",
    f"top {TOP} with personal parameters": "device-caller",
}


def audit_attributes(
    world: World, settings: AuditSettings, tell: Tell
) -> list[Finding]:
    """Every attribute that the private data set has of its users."""
    name = without_folders(world.config.data.private)
    try:
        labels, clients = _labels(world, settings.leak_profiles)
    except (ConfigError, DataFormatError, OSError):
        detail = f"{name} could not be read again, and it alone has attributes."
        return [unknown("attributes", detail)]
    labels = {attribute: of for attribute, of in labels.items() if _fit(of).any()}
    if not labels:
        detail = f"{name} has no attribute of its users, or too few users of any group."
        return [unknown("attributes", detail)]
    tell("leaks: personal parameters")
    seen = _seen(world, clients, settings.seed)
    found: list[Finding] = []
    for attribute, label in labels.items():
        tell(f"leaks: {attribute}")
        found += judge(attribute, label, seen, settings.confidence)
    return found


def _labels(
    world: World, most: int
) -> tuple[dict[str, Labels], tuple[ClientRows, ...]]:
    """Attributes of the users of the first clients, and these clients' rows."""
    from simulations.datasets import load

    dataset = load(world.config.data.private)
    clients, left = [], most
    for client in world.clients:
        if left:
            kept = client.where(range(min(left, len(client.users))))
            clients.append(kept)
            left -= len(kept.users)
    outside = dataset.interactions["user"].unique().to_list()
    users = [name for each in clients for name in _outside_ids(world, each, outside)]
    return labels_of(dataset.users, users), tuple(clients)


def _outside_ids(world: World, client: ClientRows, outside: Sequence[str]) -> list[str]:
    """Who a client's pseudonyms are; nobody where its key is gone."""
    folder = world.run / FEDERATION / CLIENTS / client.name
    if not (folder / ID_KEY).is_file():
        return [""] * len(client.users)
    key = folder_key(folder)
    names = {pseudonym(user, key): user for user in outside}
    return [names.get(user, "") for user in client.users]


def _fit(labels: Labels) -> npt.NDArray[np.bool_]:
    """Users of groups large enough for every fold; none if there is no other group."""
    names, counts = np.unique(labels, return_counts=True)
    kept = (counts >= 2 * FOLDS) & (names != UNKNOWN)
    found = np.isin(labels, names[kept])
    return found if kept.sum() > 1 else np.zeros_like(found)


def _seen(
    world: World, clients: Sequence[ClientRows], seed: int | None
) -> dict[str, sp.csr_matrix]:
    """All that is looked at, users in order of the clients."""
    student = build(world.spec, world.final).eval()
    axes = directions(student, world.catalogue)
    parts: dict[str, list[sp.csr_matrix]] = {name: [] for name in SEEN}
    for client in clients:
        rows = client.histories
        draw = stream(seed, client.name, "leaks")
        own = personalise(student, axes, rows, client.users, draw)
        alone = _without_personal(own)
        seen = (
            rows,
            sp.csr_matrix(personal_vectors(own)),
            _listed(alone, student, axes, rows),
            _listed(own, student, axes, rows),
        )
        for name, each in zip(SEEN, seen, strict=True):
            parts[name].append(each)
    return {name: sp.vstack(each, format="csr") for name, each in parts.items()}


def personal_vectors(personal: Personal) -> FloatArray:
    """What is stored of each user: taste, its weight, and the share; ``[U, q + 2]``."""
    sides = (personal.alpha[:, None], personal.user_share[:, None])
    return np.concatenate([personal.taste, *sides], axis=1)


def _without_personal(personal: Personal) -> Personal:
    nothing = np.zeros_like(personal.alpha)
    return replace(
        personal, organisation=None, share=0.0, user_share=nothing, alpha=nothing
    )


def _listed(
    personal: Personal, student: Student, axes: FloatArray, rows: sp.csr_matrix
) -> sp.csr_matrix:
    """Which items a device would list for each user's history, multi-hot CSR."""
    users = np.arange(rows.shape[0])
    scores = personal_scores(personal, student, axes, rows, users)
    count = min(TOP, rows.shape[1] - int(np.diff(rows.indptr).max(initial=0)))
    found = np.zeros(rows.shape, dtype=np.float32)
    if count > 0:
        best = top_k(scores, rows, count).item
        np.put_along_axis(found, best, 1.0, axis=1)
    return sp.csr_matrix(found)


def judge(
    attribute: str,
    labels: Labels,
    seen: Mapping[str, sp.csr_matrix],
    confidence: float,
) -> list[LeakRecord]:
    """Tell an attribute from each of what is seen: accuracy, and AUC.

    Args:
        labels: of all users; those of no or of a small group are left out.
        seen: keys of ``SEEN``, features ``[users, …]``.
    """
    fit = _fit(labels)
    label = labels[fit]
    chances = {name: _guessed(each[fit], label) for name, each in seen.items()}
    measured = {name: _measured(each, label) for name, each in chances.items()}
    _, counts = np.unique(label, return_counts=True)
    majority = float(counts.max() / counts.sum())
    found = []
    for name, (right, auc) in measured.items():
        accuracy = float(right.mean())
        low, high = clopper_pearson(int(right.sum()), len(right), confidence)
        note = _note(label, measured, name)
        spread = _auc_interval(chances[name], label, confidence)
        rows = (
            ("accuracy", accuracy, low, high, majority, MAJORITY),
            ("AUC", auc, *spread, 0.5, "chance"),
        )
        found += [
            LeakRecord(
                attack=f"attribute:{attribute}",
                viewpoint=SEEN[name],
                released=name,
                measure=measure,
                achieved=achieved,
                low=below,
                high=above,
                confidence=confidence,
                baseline=baseline,
                baseline_is=words,
                num_targets=len(label),
                promised=False,
                allowed=None,
                exceeds=False,
                note=note,
            )
            for measure, achieved, below, above, baseline, words in rows
        ]
    return found


def _note(
    label: Labels,
    measured: Mapping[str, tuple[npt.NDArray[np.bool_], float]],
    name: str,
) -> str:
    groups = ", ".join(np.unique(label).tolist())
    text = f"Groups: {groups}. Knows the attribute of four fifths of the users."
    bare = measured.get("bare history")
    if bare is None or name == "bare history":
        return text
    return (
        f"{text} The bare history gives accuracy {float(bare[0].mean()):.3f} and AUC "
        f"{bare[1]:.3f}."
    )


def _guessed(features: sp.csr_matrix, label: Labels) -> Float:
    """Chances of each group for users that the model did not see, ``[users, groups]``.

    Group order is that of ``np.unique``.
    """
    from sklearn.linear_model import (  # type: ignore[import-untyped]
        LogisticRegression,
    )
    from sklearn.model_selection import (  # type: ignore[import-untyped]
        GridSearchCV,
        StratifiedKFold,
        cross_val_predict,
    )
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    model = make_pipeline(
        StandardScaler(),
        GridSearchCV(
            LogisticRegression(max_iter=200),
            {"C": [each / features.shape[1] for each in _STRENGTHS]},
            scoring="neg_log_loss",
            cv=3,
        ),
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=_SEED)
    found = cross_val_predict(
        model, features.toarray(), label, cv=folds, method="predict_proba"
    )
    return np.asarray(found, dtype=np.float64)


def _measured(chances: Float, label: Labels) -> tuple[npt.NDArray[np.bool_], float]:
    """Which users' group was guessed, and the mean AUC of each group against all."""
    right = np.unique(label)[chances.argmax(axis=1)] == label
    return right, _auc(chances, label)


def _auc(chances: Float, label: Labels) -> float:
    from simulations.audits.roc import area_under_curve

    names = np.unique(label)
    each = [
        area_under_curve(chances[:, place], label == name)
        for place, name in enumerate(names)
    ]
    return float(np.mean(each))


def _auc_interval(
    chances: Float, label: Labels, confidence: float
) -> tuple[float, float]:
    """Bootstrap over users, within each group, so that none dies out."""
    rng = np.random.default_rng(_SEED)
    groups = [np.flatnonzero(label == name) for name in np.unique(label)]
    found = []
    for _ in range(200):
        drawn = np.concatenate([rng.choice(each, len(each)) for each in groups])
        found.append(_auc(chances[drawn], label[drawn]))
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
