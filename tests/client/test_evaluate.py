"""Metrics on private users: clipped, noised sums and nothing else."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.app import app
from client.evaluate import metric_sums, noised, user_values
from client.randomness import secure_stream, seeded_stream
from client.release import MISFIT, REFUSED
from common import wire
from common.events import DpEvent
from common.student import build, random_state
from common.wire import METRIC_NORM
from tests.client.conftest import (
    NUM_ITEMS,
    SPEC,
    context_of,
    message_of,
    rows,
    spent,
    write_folder,
)

STUDENT = build(SPEC, random_state(SPEC, torch.Generator().manual_seed(0))).eval()
EVERY = {"client-metrics.every": 2, "client-metrics.noise-multiplier": 5.0}


def histories(num_users: int, seed: int = 0) -> sp.csr_matrix:
    drawn = np.random.default_rng(seed).random((num_users, NUM_ITEMS)) < 0.5
    return sp.csr_matrix(drawn.astype(np.float32))


def ranks_last(item: int):
    """A student that ranks items by number, the last first."""
    state = {k: torch.zeros_like(v) for k, v in STUDENT.state_dict().items()}
    state["decoder.bias"] = torch.arange(NUM_ITEMS).float()
    assert item == NUM_ITEMS - 1
    return build(SPEC, state).eval()


def test_values_by_hand() -> None:
    """Held items ranked first and eleventh, and a user with nothing to find."""
    eye = np.eye(NUM_ITEMS, dtype=np.float32)
    shown = sp.csr_matrix(np.stack([eye[5], eye[5], eye[5]]))
    held = sp.csr_matrix(np.stack([eye[11], eye[0], 0 * eye[0]]))
    values = user_values(ranks_last(11), shown, held)
    np.testing.assert_allclose(values, [[1, 1, 1], [0, 1, 1], [0, 0, 0]])


@settings(max_examples=50)
@given(
    st.lists(
        st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3), min_size=1, max_size=6
    )
)
def test_one_user_moves_the_sum_by_the_bound_at_most(values) -> None:
    """Mistake 10: whatever a user's row holds, the L2 sensitivity is METRIC_NORM."""
    table = np.asarray(values)
    whole = noised(table, 0.0, secure_stream()).astype(np.float64)
    without = noised(table[1:], 0.0, secure_stream()).astype(np.float64)
    assert np.linalg.norm(whole - without) <= METRIC_NORM * (1 + 1e-5)


def test_noise_is_in_proportion_to_the_bound() -> None:
    zeros = np.zeros((4, 3))
    drawn = np.stack([noised(zeros, 5.0, secure_stream()) for _ in range(3000)])
    assert drawn.std() == pytest.approx(5.0 * METRIC_NORM, rel=0.05)
    assert abs(drawn.mean()) < 0.5


def test_nobody_still_sends_noise() -> None:
    none = sp.csr_matrix((0, NUM_ITEMS), dtype=np.float32)
    sums = metric_sums(STUDENT, none, 5.0, secure_stream(), secure_stream())
    assert sums.shape == (3,)
    assert (sums != 0).all()


def test_a_users_values_do_not_depend_on_the_others() -> None:
    """All scores tie but for rounding, which differs with the shape of a batch."""
    state = {name: torch.ones_like(v) / 3 for name, v in STUDENT.state_dict().items()}
    student = build(SPEC, state).eval()
    rows, held = histories(9), histories(9, seed=1)
    shown = rows - rows.multiply(held)
    shown.eliminate_zeros()
    whole = user_values(student, sp.csr_matrix(shown), held)
    for user in range(9):
        alone = user_values(student, sp.csr_matrix(shown[user]), held[user])
        np.testing.assert_array_equal(whole[user], alone[0])


def test_a_student_made_to_overflow_gives_no_error() -> None:
    """inf − inf for whoever holds items 0 and 1 both: an error would tell who does."""
    state = random_state(SPEC, torch.Generator().manual_seed(0))
    state["encoder.weight"][0, 0] = 3e38
    state["encoder.weight"][1, 1] = 3e38
    state["decoder.weight"][:, 0] = 1e30
    state["decoder.weight"][:, 1] = -1e30
    student = build(SPEC, state).eval()
    both = sp.csr_matrix(np.float32([[1, 1] + [0] * 9 + [1], [1, 0] + [0] * 9 + [1]]))
    with torch.no_grad():
        assert bool(torch.isnan(student(torch.tensor(both.toarray()))[0]).any())
    sums = metric_sums(student, both, 0.0, seeded_stream(2), secure_stream())
    assert np.isfinite(sums).all()


def evaluated(folder, number: int = 2, **config):
    message = message_of(number, kind="evaluate")
    return app(message, context_of(folder, **EVERY | config))


def test_off_by_default_on_both_sides(tmp_path) -> None:
    shut = write_folder(tmp_path / "0000", rows(8))
    assert evaluated(shut).error.reason == REFUSED, "the client allows none"
    willing = write_folder(tmp_path / "0001", rows(8), metrics_epsilon=100.0)
    reply = app(message_of(2, kind="evaluate"), context_of(willing))
    assert reply.error.reason == MISFIT, "the run announced none"
    assert evaluated(willing, 3).error.reason == MISFIT, "not in this round"
    assert spent(shut) == spent(willing) == []


def test_a_release_is_charged_and_holds_three_noised_numbers(tmp_path) -> None:
    folder = write_folder(tmp_path / "0000", rows(8), metrics_epsilon=100.0)
    reply = evaluated(folder)
    assert set(reply.content) == {wire.METRICS, wire.ROUND}
    sums = wire.unpack_sums(reply.content)
    assert sums.shape == (3,)
    assert spent(folder) == [(2, DpEvent(5.0, 1.0, 1))]


def test_sent_again_it_is_the_same_release(tmp_path) -> None:
    folder = write_folder(tmp_path / "0000", rows(8), metrics_epsilon=100.0, seed=None)
    first, again = (wire.unpack_sums(evaluated(folder).content) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = wire.unpack_sums(evaluated(folder, 4).content)
    assert not np.array_equal(first, other)
    assert [number for number, _ in spent(folder)] == [2, 4]


def test_mode_off_has_no_noise_and_needs_both_consents(tmp_path) -> None:
    off = {"privacy.mode": "off"}
    folder = write_folder(tmp_path / "0000", rows(8), metrics_epsilon=100.0)
    assert evaluated(folder, **off).error.reason == REFUSED
    open_hand = {"allow-non-private": True, "metrics_epsilon": 100.0}
    folder = write_folder(tmp_path / "0001", rows(8), **open_hand)
    sums = wire.unpack_sums(evaluated(folder, **off).content)
    assert sums[-1] == round(float(sums[-1])) <= 8, "exact sums, NOT PRIVATE"
    assert spent(folder) == [(2, DpEvent(0.0, 1.0, 1))]
