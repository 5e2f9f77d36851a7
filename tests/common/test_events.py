"""Events: what a run plans, merging, and records as dp-accounting has them."""

import json
from dataclasses import replace

import dp_accounting
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.events import (
    DpEvent,
    event_record,
    merged,
    planned_events,
    read_event,
    releases,
)
from tests.common.test_accounting import EVENTS, config


def own_fields(event):
    """What dp-accounting itself would write, without where its classes live."""
    fields = event._asdict()
    del fields["module_name"]
    return {
        name: own_fields(value) if hasattr(value, "_asdict") else value
        for name, value in fields.items()
    }


@given(st.lists(EVENTS, max_size=6))
def test_merging_keeps_every_step_of_every_mechanism(events):
    def steps(found):
        kinds = {replace(event, steps=0) for event in found}
        return {
            k: sum(e.steps for e in found if replace(e, steps=0) == k) for k in kinds
        }

    kinds = [replace(event, steps=0) for event in merged(events)]
    assert steps(merged(events)) == steps(events)
    assert kinds == list(dict.fromkeys(replace(event, steps=0) for event in events))


def test_merging_never_mixes_units_or_mechanisms():
    one = DpEvent(1.0, 0.5, 1)
    others = [
        replace(one, unit="interaction"),
        replace(one, sample_rate=0.25),
        replace(one, noise_multiplier=2.0),
    ]
    assert merged([one, *others]) == (one, *others)


def test_planned_events_hold_public_constants():
    found = planned_events(config(7, sample_rate=0.25, delta=1e-6), 1.5)
    assert found == (DpEvent(1.5, 0.25, 7, "gaussian", "user", "add-or-remove-one"),)


@pytest.mark.parametrize(
    ("rounds", "every", "releases_of_metrics"),
    [(7, 2, 3), (7, 7, 1), (7, 1, 7), (7, 8, 0), (7, 0, 0)],
)
def test_planned_events_count_the_metrics(rounds, every, releases_of_metrics):
    asked = config(rounds, local_steps=3, metrics_every=every)
    training, *metrics = planned_events(asked, 1.5)
    assert training == DpEvent(1.5, 0.5, 3 * rounds)
    expected = [DpEvent(6.0, 1.0, releases_of_metrics)] if releases_of_metrics else []
    assert metrics == expected


@pytest.mark.parametrize("every", [0, 1, 2, 3, 9])
def test_the_plan_is_the_sum_of_what_the_rounds_release(every):
    asked = config(7, local_steps=3, metrics_every=every)
    done = [event for n in range(1, 8) for event in releases(asked, 1.5, n).values()]
    assert set(merged(done)) == set(planned_events(asked, 1.5))


def test_a_round_releases_metrics_only_when_it_is_their_turn():
    asked = config(local_steps=2, metrics_every=3)
    train = DpEvent(1.5, 0.5, 2)
    assert releases(asked, 1.5, 2) == {"train": train}
    assert releases(asked, 1.5, 3) == {"train": train, "evaluate": DpEvent(6.0, 1.0, 1)}


def test_mode_off_releases_metrics_without_noise():
    found = releases(config(metrics_every=1, mode="off"), 0.0, 1)
    assert found["evaluate"].noise_multiplier == 0.0


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_a_record_is_dp_accountings_own(rate):
    step = dp_accounting.GaussianDpEvent(1.5)
    if rate < 1:
        step = dp_accounting.PoissonSampledDpEvent(rate, step)
    theirs = dp_accounting.SelfComposedDpEvent(step, 7).to_named_tuple()
    assert event_record(DpEvent(1.5, rate, 7)) == own_fields(theirs)


@given(
    st.builds(
        DpEvent,
        st.floats(0, 1e6),
        st.floats(0, 1, exclude_min=True),
        st.integers(0, 10**9),
        unit=st.sampled_from(["user", "interaction"]),
    )
)
def test_a_recorded_event_is_read_back_bit_for_bit(event):
    stored = json.loads(json.dumps(event_record(event)))
    assert read_event(stored, event.unit, event.relation) == event


@pytest.mark.parametrize(
    "change",
    [
        {"class_name": "ComposedDpEvent"},
        {"count": 1.5},
        {"more": 1},
        {"event": {"class_name": "LaplaceDpEvent", "noise_multiplier": 1.0}},
        {"event": {"class_name": "GaussianDpEvent"}},
        {"event": None},
    ],
)
def test_a_record_of_another_form_is_refused(change):
    record = event_record(DpEvent(1.5, 1.0, 7)) | change
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_event(record, "user", "add-or-remove-one")
