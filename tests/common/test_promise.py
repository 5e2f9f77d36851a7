"""The promise: whole or not at all, and never better than it is."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.accounting import epsilon
from common.config import defaults, parse
from common.events import DpEvent
from common.plan import planned_events
from common.promise import NOT_PRIVATE, PINNED, UNPINNED, promise_of

CONFIG = parse(
    defaults()
    | {"training.rounds": 5, "training.local-steps": 2, "privacy.delta": 1e-6}
)
PROMISE = promise_of(CONFIG, 4.0, seeded=False)


def test_its_epsilon_is_that_of_the_whole_run():
    assert PROMISE.epsilon == epsilon([DpEvent(4.0, 0.5, 10)], 1e-6)
    assert PROMISE.stamp == ""


@pytest.mark.parametrize(
    "part",
    [
        "δ = 1e-06",
        "per user",
        "add or remove one user's rows",
        "mode local",
        "nobody else is trusted, the server and other clients included",
        "privacy loss distributions (dp-accounting PLD)",
        "Poisson, every user independently with probability 0.5 a step, 10 steps",
        "student updates, and nothing else of its data",
    ],
)
def test_the_sentence_is_whole(part):
    assert part in PROMISE.sentence


def test_the_sentence_states_epsilon_rounded_up():
    up = math.ceil(PROMISE.epsilon * 1000) / 1000
    assert f"ε = {up:.3f}," in PROMISE.sentence


@given(st.floats(0, 1e6))
def test_epsilon_is_never_rounded_down(value):
    sentence = replace(PROMISE, epsilon=value).sentence
    stated = float(sentence.split("ε = ")[1].split(",")[0])
    assert value <= stated <= value + 0.001 + 1e-9


@pytest.mark.parametrize(
    ("value", "stated"),
    [(2.0, "2.000"), (0.1, "0.100"), (2.0001, "2.001"), (2.0000000000005, "2.001")],
)
def test_rounding(value, stated):
    assert f"(ε = {stated}, " in replace(PROMISE, epsilon=value).sentence


@given(st.floats(1e-12, 0.5))
def test_delta_is_stated_exactly(value):
    sentence = replace(PROMISE, delta=value).sentence
    assert float(sentence.split("δ = ")[1].split(")")[0]) == value


def test_metrics_of_clients_are_in_the_promise():
    config = parse(
        defaults()
        | {
            "training.rounds": 5,
            "client-metrics.every": 2,
            "client-metrics.noise-multiplier": 6.0,
        }
    )
    promise = promise_of(config, 4.0, seeded=False)
    both = [DpEvent(4.0, 0.5, 5), DpEvent(6.0, 1.0, 2)]
    assert promise.epsilon == epsilon(both, 1e-5)
    released = (
        "student updates and noised sums of metrics, and nothing else of its data"
    )
    assert f"({released})" in promise.sentence
    assert "a step, 5 steps; none for the 2 sums of metrics." in promise.sentence


def test_off_promises_nothing_and_states_no_epsilon():
    config = parse(defaults() | {"privacy.mode": "off"})
    promise = promise_of(config, 0.0, seeded=False)
    assert promise.epsilon == math.inf
    assert promise.stamp == NOT_PRIVATE
    assert promise.sentence.startswith("NOT PRIVATE: mode off ")
    assert "ε" not in promise.sentence
    assert "noised" not in promise.sentence
    assert "nothing else" not in promise.sentence
    assert promise.trust == "everybody who sees a client's answers is trusted"


def test_off_promises_nothing_whatever_noise_is_named():
    config = parse(defaults() | {"privacy.mode": "off"})
    assert promise_of(config, 4.0, seeded=False).stamp == NOT_PRIVATE


def test_seeded_noise_warns():
    seeded = replace(PROMISE, seeded=True).sentence
    assert seeded.startswith(PROMISE.sentence)
    assert "seeded" in seeded
    assert "protect nobody" in seeded
    assert "seeded" not in PROMISE.sentence


def test_it_says_whether_clients_pinned_the_code():
    assert PROMISE.pinned is None
    pinned = replace(PROMISE, pinned=True).sentence
    assert pinned == f"{PROMISE.sentence} {PINNED}"
    unpinned = replace(PROMISE, pinned=False, seeded=True).sentence
    assert UNPINNED in unpinned
    assert unpinned.endswith("protect nobody.")
    nothing = replace(PROMISE, pinned=False, epsilon=math.inf).sentence
    assert nothing.endswith(UNPINNED)


def test_the_statistic_is_in_the_promise():
    flat = defaults() | {"statistics.share": 0.5, "statistics.noise-multiplier": 1.2}
    flat |= {"statistics.sketch-share": 0.36, "training.rounds": 5}
    promise = promise_of(parse(flat), 4.0, seeded=False)
    events = [DpEvent(1.5, 1.0, 1), DpEvent(2.0, 1.0, 1), DpEvent(4.0, 0.5, 5)]
    assert promise.epsilon == pytest.approx(epsilon(events, 1e-5))
    released = (
        "noised sums of items and of pairs of items, noised sums of such pairs along "
        "directions that the server chose and student updates, and nothing else of "
        "its data"
    )
    assert f"({released})" in promise.sentence
    assert "none for the sums of items and pairs" in promise.sentence


SUMMED = {
    "privacy.mode": "distributed",
    "privacy.sample-rate": 0.1,
    "secagg.clients": 50,
    "secagg.threshold": 0.8,
    "secagg.corrupt": 0.1,
    "training.rounds": 5,
}


def summed(**changes):
    return promise_of(parse(defaults() | SUMMED | changes), 1.5, seeded=False)


@pytest.mark.parametrize(
    "part",
    [
        "All clients' summed releases in this run",
        "each round the noisy sum of the clipped updates of a sample of them, and "
        "nothing else of their data",
        "δ = 1e-05",
        "per client (add or remove one client's rows, all of them)",
        "mode distributed",
        "40 of 50 clients finish a round (one with fewer is discarded, and stays "
        "charged)",
        "at most 5 of those are in league with it (the noise is that of 35 clients)",
        "trust model: honest-but-curious server",
        "accountant: Rényi divergences of the integer mechanism",
        "sampling: Poisson, every client by a secret coin of its own with probability "
        "0.1 a round, 5 rounds",
        "noise is integer (Skellam)",
        "A person with rows at several clients",
    ],
)
def test_the_sentence_of_a_secure_sum_is_whole(part):
    assert part in summed().sentence


@pytest.mark.parametrize("part", ["floating-point", "PLD", "nobody else is trusted"])
def test_what_does_not_hold_of_a_secure_sum_is_not_said(part):
    assert part in PROMISE.sentence
    assert part not in summed().sentence


def test_a_client_with_one_user_is_promised_something_per_user():
    single = summed(**{"privacy.declared-users": 1})
    assert single.unit == "user"
    assert "per user (add or remove one user's rows, the only user" in single.sentence


def test_with_a_roster_the_server_may_lie():
    sentence = summed(**{"secagg.roster": True}).sentence
    assert "the server may lie" in sentence
    assert "honest-but-curious" not in sentence
    assert "roster" in sentence


def test_a_sums_epsilon_is_that_of_its_events():
    config = parse(defaults() | SUMMED)
    assert summed().epsilon == epsilon(planned_events(config, 1.5), 1e-5)
    assert summed().noise == "skellam"
