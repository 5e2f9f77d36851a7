"""The sequential teacher: its pieces by hand, its habits, what it learns."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from common.config import defaults, parse
from common.errors import ConfigError, DataFormatError
from common.features import Features
from server.teacher import TEACHERS
from server.teacher.fusion_layer import GatedFusion, masked_softmax
from server.teacher.histories import (
    NOTHING,
    draw_unseen,
    epoch_batches,
    left_aligned,
    sequences,
)
from server.teacher.item_losses import CHUNK, calibrated_loss, softmax_loss
from server.teacher.scoring import SequentialTeacher
from server.teacher.sequential import Encoder, ItemTable, Shape, shape_of
from server.teacher.training import Validation, train, validate
from server.teacher.transformer import hold_out

TINY = {
    "transformer.dim": 16,
    "transformer.length": 8,
    "transformer.epochs": 3,
    "transformer.batch-users": 16,
    "transformer.dropout": 0.1,
    "run.seed": 5,
}
CONFIG = parse(defaults() | TINY)
NOBODY = Validation([], [])


def settings(**changes):
    return CONFIG.transformer.model_copy(update=changes)


def cycles(num_users: int = 40, num_items: int = 12, length: int = 7):
    """Histories that always go on to the item after: i, i + 1, … modulo n."""
    starts = np.random.default_rng(0).integers(num_items, size=num_users)
    return [(start + np.arange(length)) % num_items for start in starts]


def ordered(rows, num_items: int) -> sp.csr_matrix:
    places = np.concatenate([np.arange(1, len(row) + 1) for row in rows])
    starts = np.cumsum([0, *map(len, rows)])
    parts = (places.astype(np.int32), np.concatenate(rows), starts)
    return sp.csr_matrix(parts, shape=(len(rows), num_items))


def teacher(num_items: int = 9, length: int = 5) -> SequentialTeacher:
    torch.manual_seed(3)
    encoder = Encoder(Shape(num_items, 8, 2, 2, length)).eval().requires_grad_(False)
    return SequentialTeacher(torch.randn(num_items, 8), encoder)


def same(a: SequentialTeacher, b: SequentialTeacher) -> bool:
    one, two = a.tensors(), b.tensors()
    return one.keys() == two.keys() and all(
        np.array_equal(one[name], two[name]) for name in one
    )


# ------------------------------------------------------------ histories
def test_sequences_follow_time_and_ties_follow_ids() -> None:
    history = sp.csr_matrix(np.asarray([[3, 0, 1, 2], [0, 0, 0, 0], [1, 1, 0, 1]]))
    found = [row.tolist() for row in sequences(history)]
    assert found == [[2, 3, 0], [], [0, 1, 3]]


def test_an_epoch_shows_every_user_once_and_asks_for_what_follows() -> None:
    rows = [np.arange(k) for k in (0, 1, 2, 3, 4)]
    batches = epoch_batches(
        rows, num_items=9, length=10, batch_users=2, draw=np.random.default_rng(0)
    )
    users = sorted(int(user) for batch in batches for user in batch.user)
    assert users == [2, 3, 4]
    assert sum(batch.num_targets for batch in batches) == 1 + 2 + 3
    for batch in batches:
        asked = batch.target != NOTHING
        np.testing.assert_array_equal(batch.target[asked], batch.shown[asked] + 1)
        assert (batch.shown[~asked] == 9).all()


def test_a_long_history_gives_its_latest_window_half_of_the_time() -> None:
    draw = np.random.default_rng(1)
    ends = []
    for _ in range(400):
        (batch,) = epoch_batches(
            [np.arange(20)], num_items=20, length=4, batch_users=1, draw=draw
        )
        assert batch.shown.shape == (1, 4)
        assert (np.diff(batch.shown[0]) == 1).all()
        ends.append(int(batch.target[0, -1]))
    # Half, and one in sixteen of the other half; four standard deviations of leeway.
    assert ends.count(19) / 400 == pytest.approx(0.5 + 0.5 / 16, abs=0.1)
    assert set(ends) == set(range(4, 20))


def test_negatives_are_exactly_the_items_outside_the_taught_history() -> None:
    seen = [np.asarray([4, 0, 3]), np.asarray([], dtype=np.int64)]
    drawn = draw_unseen(seen, 300, 6, np.random.default_rng(0))
    assert drawn.shape == (2, 300)
    assert set(drawn[0]) == {1, 2, 5}
    assert set(drawn[1]) == set(range(6))


def test_left_alignment_by_hand() -> None:
    rows = [np.asarray([1, 2]), np.asarray([3])]
    assert left_aligned(rows, 7).tolist() == [[1, 2], [3, 7]]


# ------------------------------------------------------------ losses
def test_the_softmax_in_pieces_is_cross_entropy_gradients_included() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2 * CHUNK + 5, 6, requires_grad=True)
    items = torch.randn(11, 6, requires_grad=True)
    target = torch.randint(11, (len(hidden),))
    expected = F.cross_entropy(hidden @ items.T, target, reduction="sum")
    wanted = torch.autograd.grad(3 * expected, (hidden, items))
    loss = softmax_loss(hidden, items, target)
    found = torch.autograd.grad(3 * loss, (hidden, items))
    torch.testing.assert_close(loss, expected)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("calibration", "beta"), [(0.0, 1.0), (1.0, 0.5), (0.5, 0.75)])
def test_calibration_weighs_the_positive_by_hand(calibration: float, beta: float):
    """One negative of two possible: α = 1/2, β = t·(α − 1) + 1."""
    loss = calibrated_loss(
        torch.tensor([0.0]),
        torch.tensor([[float(np.log(3.0))]]),
        num_items=3,
        calibration=calibration,
    )
    expected = (beta * np.log(2) + np.log(4)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)


# ------------------------------------------------------------ fusion
def test_the_gate_shares_among_what_is_known() -> None:
    logits = torch.tensor([[0.0, float(np.log(3.0)), 50.0], [1.0, 2.0, 3.0]])
    known = torch.tensor([[True, True, False], [False, False, False]])
    expected = torch.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(masked_softmax(logits, known), expected)


def test_fused_vectors_are_the_mean_of_known_projections_at_first() -> None:
    fusion = GatedFusion([2, 3], 4)
    values = [torch.randn(3, 2), torch.randn(3, 3)]
    known = torch.tensor([[True, True], [True, False], [False, False]])
    one, two = (p(v) for p, v in zip(fusion.projections, values, strict=True))
    expected = torch.stack([(one[0] + two[0]) / 2, one[1], torch.zeros(4)])
    torch.testing.assert_close(fusion(values, known), expected)


def features(known: list[bool]) -> Features:
    values = np.asarray([[1, 0], [1, 0], [0, 2], [np.nan, 0]], np.float32)
    return Features({"genre": values}, {"genre": np.asarray(known)})


def test_an_untaught_item_is_known_by_its_content_alone() -> None:
    taught = torch.tensor([True, False, False, False])
    table = ItemTable(taught, features([True, True, True, False]), 8).eval()
    before = table().detach().clone()
    with torch.no_grad():
        table.ids.weight[1:3] += 1.0
    np.testing.assert_array_equal(table().detach()[:3], before[:3])
    with torch.no_grad():
        table.ids.weight[[0, 3]] += 1.0  # taught, or without any content
    assert (table().detach()[[0, 3]] != before[[0, 3]]).any(dim=1).all()
    table().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in table.parameters())


# ------------------------------------------------------------ encoder and scores
def test_what_comes_later_changes_nothing_before() -> None:
    model = teacher()
    shown = torch.tensor([[1, 2, 3, 4]])
    changed = torch.tensor([[1, 2, 8, 9]])
    a, b = model.encoder(shown, model.items), model.encoder(changed, model.items)
    torch.testing.assert_close(a[:, :2], b[:, :2])
    assert (a[:, 2:] != b[:, 2:]).any()


def test_scores_depend_neither_on_the_batch_nor_on_items_before_the_window() -> None:
    model = teacher(length=5)
    rows = [np.asarray(r, dtype=np.int64) for r in ([1, 2], [], [7, 0, 1, 2, 3, 4])]
    together = model.score_sequences(rows)
    for row, scores in zip(rows, together, strict=True):
        alone = model.score_sequences([row[-5:]])
        np.testing.assert_allclose(alone[0], scores, rtol=1e-4, atol=1e-5)
    assert together.shape == (3, 9)
    assert np.isfinite(together).all()


def test_order_matters_and_a_hole_at_the_end_is_an_unknown_item() -> None:
    model = teacher()
    forth = model.score(ordered([np.asarray([1, 2, 3])], 9))
    back = model.score(ordered([np.asarray([3, 2, 1])], 9))
    assert not np.allclose(forth, back)
    np.testing.assert_array_equal(
        model.score_sequences([np.asarray([1, 2])], missing=1),
        model.score_sequences([np.asarray([1, 2, 9])]),
    )


def test_tables_keep_the_item_space_and_lose_its_lightest_axes_first() -> None:
    model = teacher()
    items = model.items.numpy().astype(np.float64)
    into, out = model.tables()
    np.testing.assert_allclose(into @ out.T, items @ items.T, rtol=1e-4, atol=1e-4)
    few, _ = model.tables(rank=3)
    left, values, right = np.linalg.svd(items @ items.T)
    best = (left[:, :3] * values[:3]) @ right[:3]
    np.testing.assert_allclose(few @ few.T, best, rtol=1e-4, atol=1e-4)


def test_heads_must_share_the_width() -> None:
    with pytest.raises(ConfigError, match=r"transformer\.heads.*16.*3"):
        shape_of(settings(heads=3), 9)


# ------------------------------------------------------------ training
@pytest.mark.parametrize(("negatives", "length"), [(0, 7), (4, 2)])
def test_it_learns_what_comes_next(negatives: int, length: int) -> None:
    chosen = settings(epochs=40, negatives=negatives, learning_rate=0.01)
    rows = cycles(length=length)
    model = train(rows, NOBODY, None, chosen, num_items=12, seed=0)
    scores = model.score_sequences([np.asarray([i]) for i in range(12)])
    np.fill_diagonal(scores, -np.inf)  # seen, and never a negative of its own user
    np.testing.assert_array_equal(scores.argmax(axis=1), (np.arange(12) + 1) % 12)


def test_a_killed_training_goes_on_bit_for_bit(tmp_path) -> None:
    rows, path = cycles(), tmp_path / "training.safetensors"
    whole = train(rows, NOBODY, None, settings(), num_items=12, seed=1)

    def kill(epoch, loss, value, model):
        if epoch == 2:
            raise KeyboardInterrupt

    arguments = {"num_items": 12, "seed": 1, "progress": path}
    with pytest.raises(KeyboardInterrupt):
        train(rows, NOBODY, None, settings(), **arguments, watch=kill)
    epochs = []
    resumed = train(
        *(rows, NOBODY, None, settings()),
        **arguments,
        watch=lambda epoch, *_: epochs.append(epoch),
    )
    assert epochs == [3]
    assert same(resumed, whole)


def test_another_training_or_a_damaged_file_is_not_gone_on_with(tmp_path) -> None:
    path = tmp_path / "training.safetensors"
    arguments = {"num_items": 12, "progress": path}
    train(cycles(), NOBODY, None, settings(epochs=1), **arguments, seed=1)
    with pytest.raises(DataFormatError, match=r"training\.safetensors.*others"):
        train(cycles(), NOBODY, None, settings(epochs=1), **arguments, seed=2)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataFormatError, match=r"training\.safetensors.*whole"):
        train(cycles(), NOBODY, None, settings(epochs=1), **arguments, seed=1)


def test_the_epoch_that_was_best_on_public_users_is_kept() -> None:
    rows = cycles()
    validation = Validation([row[:3] for row in rows], [int(row[3]) for row in rows])
    seen = []
    best = train(
        *(rows, validation, None, settings(epochs=6, learning_rate=0.3)),
        num_items=12,
        seed=2,
        watch=lambda epoch, loss, value, model: seen.append((value, model)),
    )
    values = [value for value, _ in seen]
    latest_best = max(range(6), key=lambda i: (values[i], i))
    assert same(best, seen[latest_best][1])
    assert validate(best, validation) == max(values)


def test_the_latest_items_of_some_users_are_held_out() -> None:
    rows = [np.arange(k) for k in (2, 3, 4, 5, 6)]
    histories, validation = hold_out(rows, seed=0)
    assert len(validation.shown) == 1  # a quarter of the four that are long enough
    (shown,), (held,) = validation.shown, validation.held
    assert held == len(shown)
    assert sorted(map(len, histories)) != sorted(map(len, rows))
    assert sum(map(len, histories)) == sum(map(len, rows)) - 1


def test_by_its_name_from_ordered_histories_and_features() -> None:
    rows = cycles(20)
    genres = np.eye(3, dtype=np.float32)[np.arange(12) % 3]
    known = np.arange(12) != 5
    about = Features({"genre": genres}, {"genre": known})
    model = TEACHERS["transformer"](ordered(rows, 12), about, CONFIG)
    again = TEACHERS["transformer"](ordered(rows, 12), about, CONFIG)
    assert same(model, again)
    assert not model.additive
    assert model.score(ordered(rows[:3], 12)).shape == (3, 12)
