"""Events: merging, and records as dp-accounting has them."""

import json
from dataclasses import replace

import dp_accounting
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.events import DpEvent, event_record, merged, read_event
from tests.common.test_accounting import EVENTS


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


SKELLAM = DpEvent(
    1.5, 0.25, 7, "skellam", l2_sensitivity=4000.5, l1_sensitivity=4_000_000.0
)


def test_a_skellam_record_looks_like_the_others():
    assert event_record(SKELLAM) == {
        "class_name": "SelfComposedDpEvent",
        "count": 7,
        "event": {
            "class_name": "PoissonSampledDpEvent",
            "sampling_probability": 0.25,
            "event": {
                "class_name": "SkellamDpEvent",
                "noise_multiplier": 1.5,
                "l2_sensitivity": 4000.5,
                "l1_sensitivity": 4_000_000.0,
            },
        },
    }


@given(
    st.builds(
        DpEvent,
        st.floats(0, 1e6),
        st.floats(0, 1, exclude_min=True),
        st.integers(0, 10**9),
        st.just("skellam"),
        unit=st.sampled_from(["user", "client"]),
        l2_sensitivity=st.floats(0, 1e9),
        l1_sensitivity=st.floats(0, 1e15),
    )
)
def test_a_recorded_skellam_event_is_read_back_bit_for_bit(event):
    stored = json.loads(json.dumps(event_record(event)))
    assert read_event(stored, event.unit, event.relation) == event


@pytest.mark.parametrize(
    "mechanism",
    [
        {"class_name": "SkellamDpEvent", "noise_multiplier": 1.0},
        {
            "class_name": "GaussianDpEvent",
            "noise_multiplier": 1.0,
            "l2_sensitivity": 2.0,
            "l1_sensitivity": 2.0,
        },
    ],
)
def test_half_a_skellam_record_is_refused(mechanism):
    record = event_record(replace(SKELLAM, sample_rate=1.0)) | {"event": mechanism}
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_event(record, "user", "add-or-remove-one")


def test_other_sensitivities_are_another_mechanism():
    others = [
        replace(SKELLAM, l2_sensitivity=1.0),
        replace(SKELLAM, l1_sensitivity=1.0),
        replace(SKELLAM, mechanism="gaussian"),
    ]
    assert merged([SKELLAM, *others]) == (SKELLAM, *others)
