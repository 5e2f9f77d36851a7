"""What clients have to agree on before one masks with another."""

import pytest

from common.config import defaults, parse
from common.secure_round import secure_round


def terms_of(**changes):
    keys = {
        "privacy.mode": "distributed",
        "privacy.declared-users": 1,
        "privacy.noise-multiplier": 1.0,
        "secagg.clients": 10,
        "secagg.parameters": 100,
        "secagg.bits": 24,
    }
    return secure_round(parse(defaults() | keys | changes), 100, "7", 1).terms


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("privacy.noise-multiplier", 0.5),
        ("privacy.max-grad-norm", 0.2),
        ("privacy.sample-rate", 0.25),
        ("secagg.granularity", 0.5),
        ("secagg.beta", 0.5),
        ("secagg.parameters", 101),
        ("training.rounds", 2),
    ],
)
def test_clients_told_of_other_noise_are_in_no_round_together(key, value):
    # Length, ring and threshold are the same; the noise of the others is not.
    one, other = terms_of(), terms_of(**{key: value})
    assert (one.length, one.bits, one.least) == (other.length, other.bits, other.least)
    assert one.digest != other.digest
    assert one.digest == terms_of().digest


def test_a_cohort_is_no_larger_than_the_noise_is_planned_for():
    assert terms_of().most == 10


def test_what_says_nothing_of_noise_may_differ():
    assert terms_of(**{"evaluation.resamples": 3}).digest == terms_of().digest
