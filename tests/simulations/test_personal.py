"""Gains of personal parameters: each user's, as a distribution."""

from pathlib import Path

import numpy as np
import pytest
import torch

from client.choosing import deal_folds, leave_out
from client.data import read_client_data
from client.randomness import seeded_stream
from common.config import defaults, parse
from common.folders import STUDENT
from common.student import StudentSpec, random_state, save_student
from simulations import personal as measured_module
from simulations.experiment import prepare
from simulations.personal import (
    Measured,
    histogram,
    personal_gains,
    quantiles,
    summarise_gains,
)
from simulations.personal_plot import plot_personal
from simulations.personal_record import STAMP, PersonalGains

SET = "synthetic:num_users=90,num_items=60,interactions_per_user=15"


def measured(released, personal, error=0.1, held=10) -> Measured:
    count = len(released)
    return Measured(
        released=np.asarray(released, float),
        personal=np.asarray(personal, float),
        error=np.full(count, error),
        held=np.full(count, held),
        alpha=np.full(count, 0.5, np.float32),
        organisation=True,
    )


@pytest.fixture(scope="module")
def clients(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("federation")
    config = parse(
        defaults()
        | {
            "data.public": SET,
            "data.private": SET,
            "partition.num-clients": 2,
            "partition.public-users": 20,
            "partition.validation-users": 5,
            "partition.heldout-users": 30,
        }
    )
    prepare(config, folder)
    spec = StudentSpec(60, 4, 20.0, 0.8)
    state = random_state(spec, torch.Generator().manual_seed(0))
    save_student(folder / STUDENT, spec, state)
    return folder / "clients"


def test_clustered_users_gain_over_a_student_that_knows_nothing(clients: Path) -> None:
    gains = personal_gains(clients, clients.parent / STUDENT, min_users=5)
    assert gains.stamp == STAMP == "on the device, never released"
    assert (gains.users, gains.clients) == (40, 2)
    assert gains.low > 0 and gains.gain == pytest.approx(
        gains.personal - gains.released
    )
    assert gains.better + gains.equal + gains.worse == pytest.approx(1.0)
    assert sum(gains.counts) == gains.users
    assert gains.sentence.count("%") == 5


def test_held_items_are_never_seen_by_the_device(clients: Path, monkeypatch) -> None:
    folder = sorted(clients.iterdir())[0]
    rows = read_client_data(folder).histories
    fold = deal_folds(rows, seeded_stream(0, folder.name, "held"))
    _, held = leave_out(rows, fold, 0)
    given = []

    def spy(student, axes, shown, users, stream):
        given.append(shown)
        raise InterruptedError

    monkeypatch.setattr(measured_module, "personalise", spy)
    with pytest.raises(InterruptedError):
        personal_gains(clients, clients.parent / STUDENT, min_users=5)
    assert given[0].multiply(held).nnz == 0
    assert (given[0] + held != rows).nnz == 0


def test_shares_and_noise_by_hand() -> None:
    # Gains +.5, 0, −.1, −.5 with an error of .1 each: beyond 2.26 errors are two.
    one = measured([0.2, 0.2, 0.2, 0.6], [0.7, 0.2, 0.1, 0.1])
    found = summarise_gains([one], min_users=1)
    assert (found.better, found.equal, found.worse) == (0.25, 0.25, 0.5)
    assert (found.surely_better, found.surely_worse, found.judged) == (0.25, 0.25, 4)
    assert found.gain == pytest.approx(-0.025)
    assert (found.organisations, found.alpha) == (1, 0.5)


def test_a_user_without_held_items_is_nowhere() -> None:
    one = measured([0.2, np.nan], [0.3, np.nan])
    assert summarise_gains([one], min_users=1).users == 1


def test_a_user_with_few_held_items_has_no_noise_of_their_own() -> None:
    one = measured([0.2, 0.2], [0.3, 0.1], error=np.nan, held=2)
    found = summarise_gains([one], min_users=1)
    assert (found.judged, found.surely_worse) == (0, 0.0)


def test_small_groups_are_suppressed() -> None:
    found = summarise_gains([measured([0.2] * 9, [0.3] * 9)], min_users=10)
    assert found.users == 0 and found.counts == () and found.quantiles == ()
    assert "fewer than 10 users" in found.suppressed == found.sentence
    assert plot_personal(found) == ""


def test_bins_hold_enough_users_each() -> None:
    gain = np.r_[np.full(4, -0.31), np.full(20, 0.01), np.full(7, 0.11), 0.9]
    edges, counts = histogram(gain, 5)
    assert sum(counts) == 32 and min(counts) >= 5
    assert len(edges) == len(counts) + 1 and (edges[0], edges[-1]) == (-1.0, 1.0)
    assert list(edges) == sorted(set(edges))


def test_quantiles_have_enough_users_beyond() -> None:
    found = dict(quantiles(np.arange(104.0), 10))
    assert set(found) == {0.1, 0.25, 0.5, 0.75, 0.9}
    assert found[0.5] == 51.5


def test_the_figure_says_what_it_shows() -> None:
    found = summarise_gains([measured([0.2] * 30, np.linspace(0, 1, 30))], min_users=5)
    svg = plot_personal(found)
    assert svg.startswith("<svg") and "gain in NDCG@100 of one user" in svg
    assert "never released" in svg
    assert plot_personal(found) == svg
    assert plot_personal(None) == ""


def test_the_record_survives_json() -> None:
    found = summarise_gains([measured([0.2] * 30, np.linspace(0, 1, 30))], min_users=5)
    assert PersonalGains.model_validate_json(found.model_dump_json()) == found
