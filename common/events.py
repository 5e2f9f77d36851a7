"""What was done, as events: public numbers that an accountant turns into ε later.

In ``common`` because the client charges them, the server announces them and reports
state them. An event's meaning never changes; what it costs may, with a tighter
accountant (``common/accounting.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Unit = Literal["user", "interaction", "client"]
Relation = Literal["add-or-remove-one"]
Mechanism = Literal["gaussian", "skellam"]
CLASS_NAMES: dict[Mechanism, str] = {
    "gaussian": "GaussianDpEvent",
    "skellam": "SkellamDpEvent",
}


@dataclass(frozen=True)
class DpEvent:
    """``steps`` noisy sums over Poisson samples of the units.

    Attributes:
        noise_multiplier: noise deviation over the clipping norm; 0 is no privacy. Of
            Skellam noise: over ``l2_sensitivity``.
        sample_rate: probability that a unit is in a step's sample, in (0, 1].
        steps: how many sums were released, empty samples included.
        l2_sensitivity: of Skellam noise alone: what a unit adds to an integer sum at
            most, in L2.
        l1_sensitivity: likewise in L1.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    mechanism: Mechanism = "gaussian"
    unit: Unit = "user"
    relation: Relation = "add-or-remove-one"
    l2_sensitivity: float = 0.0
    l1_sensitivity: float = 0.0


def merged(events: Sequence[DpEvent]) -> tuple[DpEvent, ...]:
    """Equal mechanisms as one event with their steps added, in order of appearance.

    Composition is the same, its cost and its last digits do not depend on how the
    steps were cut into rounds.
    """
    steps: dict[DpEvent, int] = {}
    for event in events:
        kind = replace(event, steps=0)
        steps[kind] = steps.get(kind, 0) + event.steps
    return tuple(replace(kind, steps=count) for kind, count in steps.items())


def event_record(event: DpEvent) -> dict[str, Any]:
    """The event as ``dp-accounting`` writes it: class names and fields, for JSON.

    It has no event for Skellam noise; ours looks like one of its own.
    """
    mechanism = _mechanism_record(event)
    if event.sample_rate < 1.0:
        mechanism = {
            "class_name": "PoissonSampledDpEvent",
            "sampling_probability": event.sample_rate,
            "event": mechanism,
        }
    return {
        "class_name": "SelfComposedDpEvent",
        "event": mechanism,
        "count": event.steps,
    }


def _mechanism_record(event: DpEvent) -> dict[str, Any]:
    record: dict[str, Any] = {
        "class_name": CLASS_NAMES[event.mechanism],
        "noise_multiplier": event.noise_multiplier,
    }
    if event.mechanism == "skellam":
        record["l2_sensitivity"] = event.l2_sensitivity
        record["l1_sensitivity"] = event.l1_sensitivity
    return record


def read_event(record: Mapping[str, Any], unit: Unit, relation: Relation) -> DpEvent:
    """The event that :func:`event_record` wrote.

    Raises:
        KeyError, TypeError, ValueError: if the record is of another form.
    """
    mechanism, rate = record["event"], 1.0
    if mechanism["class_name"] == "PoissonSampledDpEvent":
        rate, mechanism = float(mechanism["sampling_probability"]), mechanism["event"]
    event = DpEvent(
        float(mechanism["noise_multiplier"]),
        rate,
        int(record["count"]),
        "skellam" if mechanism["class_name"] == CLASS_NAMES["skellam"] else "gaussian",
        unit=unit,
        relation=relation,
        l2_sensitivity=float(mechanism.get("l2_sensitivity", 0.0)),
        l1_sensitivity=float(mechanism.get("l1_sensitivity", 0.0)),
    )
    if event_record(event) != record:
        raise ValueError("Expected a sampled Gaussian or Skellam event.")
    return event
