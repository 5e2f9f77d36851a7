"""What a run releases, and the noise that pays for it."""

from dataclasses import replace

import pytest

from common.accounting import calibrate, epsilon
from common.config import RunConfig, defaults, parse, to_flat
from common.errors import ConfigError
from common.events import DpEvent, merged
from common.integer_noise import sum_event
from common.plan import (
    noise_multiplier,
    planned_events,
    planned_releases,
    releases,
    statistics_noise,
)
from common.wire import TRAIN

DELTA = 1e-5


def config(
    rounds=10, local_steps=1, metrics_every=0, share=0.0, sketch=0.4, **privacy
) -> RunConfig:
    keys = {f"privacy.{name.replace('_', '-')}": v for name, v in privacy.items()}
    return parse(
        defaults()
        | keys
        | {
            "training.rounds": rounds,
            "training.local-steps": local_steps,
            "client-metrics.every": metrics_every,
            "client-metrics.noise-multiplier": 6.0,
            "statistics.share": share,
            "statistics.sketch-share": sketch,
        }
    )


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


def test_noise_is_none_given_or_calibrated():
    assert noise_multiplier(config(mode="off", noise_multiplier=2.0)) == 0.0
    assert noise_multiplier(config(noise_multiplier=2.5)) == 2.5
    asked = config(target_epsilon=2.0, sample_rate=1.0)
    assert noise_multiplier(asked) == calibrate(2.0, DELTA, 1.0, 10)


def test_calibrated_noise_pays_for_the_metrics_as_well():
    asked = config(metrics_every=5, target_epsilon=2.0, sample_rate=1.0)
    total = epsilon(planned_events(asked, noise_multiplier(asked)), DELTA)
    assert 1.99 <= total <= 2.0


def test_statistics_belong_to_the_first_round_alone():
    asked = config(3, share=0.5, target_epsilon=2.0)
    whole = calibrate(1.0, DELTA, 1.0, 1)
    noise = statistics_noise(asked)
    assert noise.pairs == pytest.approx(whole / 0.6**0.5)
    assert noise.sketch == pytest.approx(whole / 0.4**0.5)
    both = {
        "train.statistics": DpEvent(noise.pairs, 1.0, 1),
        "train.sketch": DpEvent(noise.sketch, 1.0, 1),
    }
    train = DpEvent(1.5, 0.5, 1)
    assert releases(asked, 1.5, 1) == both | {"train": train}
    assert releases(asked, 1.5, 2) == {"train": train}
    assert planned_releases(asked, 1.5) == both | {"train": DpEvent(1.5, 0.5, 3)}


def test_both_statistics_cost_what_one_of_the_whole_noise_would():
    asked = config(0, share=1.0, target_epsilon=2.0)
    whole = DpEvent(calibrate(2.0, DELTA, 1.0, 1), 1.0, 1)
    both = epsilon(planned_events(asked, 0.0), DELTA)
    assert both == pytest.approx(epsilon([whole], DELTA), abs=1e-3)


def test_without_a_sketch_all_goes_to_the_pairs():
    asked = config(3, share=0.5, target_epsilon=2.0, sketch=0.0)
    noise = statistics_noise(asked)
    assert (noise.pairs, noise.sketch) == (calibrate(1.0, DELTA, 1.0, 1), 0.0)
    assert "train.sketch" not in releases(asked, 1.5, 1)


def test_the_statistic_and_training_share_the_target():
    asked = config(share=0.5, target_epsilon=2.0, sample_rate=1.0, metrics_every=5)
    total = epsilon(planned_events(asked, noise_multiplier(asked)), DELTA)
    assert 1.99 <= total <= 2.0


def test_a_run_of_the_statistic_alone_trains_nothing():
    asked = config(0, share=1.0, target_epsilon=2.0)
    assert noise_multiplier(asked) == 0.0
    events = planned_events(asked, 0.0)
    assert [event.steps for event in events] == [1, 1]
    assert 1.99 <= epsilon(events, DELTA) <= 2.0005


def test_mode_off_takes_the_statistic_without_noise():
    asked = config(share=0.5, mode="off")
    assert releases(asked, 0.0, 1)["train.statistics"].noise_multiplier == 0.0


@pytest.mark.parametrize(
    ("rounds", "share", "text"),
    [(0, 0.0, "training.rounds: expected"), (5, 1.0, "statistics.share: expected")],
)
def test_a_run_that_learns_nothing_is_refused(rounds, share, text):
    with pytest.raises(ConfigError, match=text):
        config(rounds, share=share)


@pytest.mark.parametrize("target", [0.25, 0.75])
def test_statistics_never_cost_more_than_their_target(target):
    """A client whose budget is the target would refuse a digit more."""
    asked = config(0, share=1.0, target_epsilon=target)
    assert epsilon(planned_events(asked, 0.0), DELTA) <= target


def test_what_events_cost_does_not_depend_on_their_order():
    events = [DpEvent(1.5, 1.0, 1), DpEvent(2.0, 0.5, 3), DpEvent(1.2, 1.0, 1)]
    assert epsilon(events, DELTA) == epsilon(events[::-1], DELTA)


def summed(rounds=10, **privacy):
    base = {"mode": "distributed", "declared_users": 1, "sample_rate": 0.1}
    return config(rounds, local_steps=5, **(base | privacy))


def test_a_round_in_mode_distributed_releases_one_sum_whatever_its_steps():
    found = planned_releases(summed(7), 1.5)
    assert list(found) == [TRAIN]
    assert found[TRAIN] == replace(sum_event(summed(), 1.5), steps=7)
    assert releases(summed(7), 1.5, 7) == {TRAIN: sum_event(summed(), 1.5)}
    assert not releases(summed(7), 1.5, 8)


@pytest.mark.parametrize("target", [1.0, 8.0])
def test_a_sums_noise_is_calibrated_to_the_target(target):
    asked = summed(target_epsilon=target)
    noise = noise_multiplier(asked)
    assert 0.98 * target < epsilon(planned_events(asked, noise), DELTA) <= target
    assert noise_multiplier(summed(noise_multiplier=2.5)) == 2.5


def test_a_finer_grid_takes_no_more_noise():
    coarse = parse(to_flat(summed()) | {"secagg.parameters": 1})
    assert noise_multiplier(summed()) < noise_multiplier(coarse)
