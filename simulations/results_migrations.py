"""Older ``results.json`` as they would be written now: pure functions, one a step.

In ``simulations`` beside the schema that they lead to. Each takes the tree of one
version to the next, changes nothing of what it is given, and adds only what is known:
an absent measurement becomes null or empty, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Tree = dict[str, Any]

#: Said, as what the teacher brought, where versions 1 and 2 had a teacher's figures.
NO_TEACHER = (
    "the teacher's figures are left out, since the version of Tutela that wrote these "
    "results ranked it by the transpose of its weights."
)


def from_1(tree: Mapping[str, Any]) -> Tree:
    """Version 2 knows metrics released by clients, and figures left out."""
    rounds = _each_with(tree.get("rounds"), "client_metrics")
    return {**tree, "schema_version": 2, "rounds": rounds, "suppressed": ""}


def from_2(tree: Mapping[str, Any]) -> Tree:
    """Version 3 knows groups, personal gains, transfer and a teacher that learns."""
    rounds = _each_with(tree.get("rounds"), "teacher_gain")
    new = {"groups": [], "personal": None, "transfer": "", "rounds": rounds}
    return _without_teacher({**tree, **new, "schema_version": 3})


def from_3(tree: Mapping[str, Any]) -> Tree:
    """Version 4 knows the statistics, which version 3 left to ``metrics.jsonl``."""
    return {**tree, "schema_version": 4, "statistics": []}


#: From each earlier version to the one after it.
STEPS: Mapping[int, Callable[[Mapping[str, Any]], Tree]] = {
    1: from_1,
    2: from_2,
    3: from_3,
}


def migrated(tree: Mapping[str, Any]) -> Tree:
    """The tree as the newest version has it; one of an unknown version stays."""
    found = dict(tree)
    while (step := STEPS.get(_version(found))) is not None:
        found = step(found)
    return found


def _version(tree: Mapping[str, Any]) -> int:
    version = tree.get("schema_version")
    # True is an int in Python, and equals 1.
    return version if type(version) is int else 0


def _each_with(rounds: object, field: str) -> object:
    """Rounds with a field that was not measured; what is no list stays as it is."""
    if not isinstance(rounds, list):
        return rounds
    return [
        {**each, field: None} if isinstance(each, Mapping) else each for each in rounds
    ]


def _without_teacher(tree: Tree) -> Tree:
    models, notes = tree.get("models"), tree.get("model_notes")
    if not isinstance(models, Mapping) or "teacher" not in models:
        return tree
    kept = {name: each for name, each in models.items() if name != "teacher"}
    changed = {**tree, "models": kept, "transfer": NO_TEACHER}
    if isinstance(notes, Mapping):
        changed["model_notes"] = {k: v for k, v in notes.items() if k != "teacher"}
    return changed
