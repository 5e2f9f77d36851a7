"""Compression: the best of lower rank, items that stay themselves, eight bits."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.compression import (
    BIAS,
    DECODER,
    ENCODER,
    Compact,
    CompactStudent,
    dequantise,
    item_energy,
    prune_dimensions,
    prune_rows,
    quantise,
    whole,
)
from common.errors import ConfigError, DataFormatError
from common.student import StudentSpec, build, random_state

SPEC = StudentSpec(num_items=9, dim=4, logit_scale=3.0, history_exponent=0.7)


def student(seed: int = 0, spec: StudentSpec = SPEC) -> Compact:
    generator = torch.Generator().manual_seed(seed)
    state = random_state(spec, generator)
    state[BIAS] = torch.randn(spec.num_items, generator=generator)
    return whole(spec, state)


def product(compact: Compact) -> torch.Tensor:
    return (compact.state[ENCODER].T @ compact.state[DECODER].T).double()


def histories(num_items: int = 9) -> torch.Tensor:
    draw = torch.Generator().manual_seed(5)
    rows = (torch.rand(8, num_items, generator=draw) < 0.4).float()
    rows[0], rows[1] = 0.0, 1.0
    return rows


def test_a_whole_student_scores_as_the_plain_one() -> None:
    compact = student()
    plain = build(SPEC, compact.state)(histories())
    torch.testing.assert_close(CompactStudent(compact)(histories()), plain)
    assert compact.is_whole
    assert compact.kept.tolist() == list(range(9))


@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_dropped_dimensions_cost_the_smallest_singular_values(keep: int) -> None:
    before = product(student())
    after = product(prune_dimensions(student(), keep))
    values = torch.linalg.svdvals(before)
    lost = torch.linalg.norm(before - after)
    # Eckart and Young: no matrix of this rank is nearer
    assert lost == pytest.approx(float(values[keep:].norm()), abs=1e-7)


def test_two_dimensions_by_hand() -> None:
    # product = 3·e0 e1ᵀ + 4·e1 e0ᵀ: of rank one, the nearest keeps the 4
    spec = StudentSpec(2, 2, 1.0, 0.0)
    state = {
        ENCODER: torch.tensor([[3.0, 0.0], [0.0, 4.0]]),
        DECODER: torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
        BIAS: torch.tensor([0.5, 0.25]),
    }
    after = prune_dimensions(whole(spec, state), 1)
    assert after.spec == replace(spec, dim=1)
    torch.testing.assert_close(
        product(after).float(), torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    )
    assert after.state[BIAS].tolist() == [0.5, 0.25]
    # balanced: the root of the singular value in either table
    assert after.state[ENCODER].abs().max() == pytest.approx(2.0)
    assert after.state[DECODER].abs().max() == pytest.approx(2.0)


def test_all_dimensions_kept_score_alike_even_where_items_are_fewer() -> None:
    small = student(spec=replace(SPEC, num_items=3))
    after = prune_dimensions(small, 3)
    torch.testing.assert_close(
        CompactStudent(after)(histories(3)), CompactStudent(small)(histories(3))
    )


@pytest.mark.parametrize("keep", [0, 5, -1])
def test_impossible_dimensions_are_refused(keep: int) -> None:
    with pytest.raises(ConfigError, match=f"dims: expected 1 to 4, got {keep}"):
        prune_dimensions(student(), keep)


def test_dropped_items_are_never_scored_and_the_others_as_before() -> None:
    importance = torch.tensor([0.0, 9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0])
    after = prune_rows(student(), 4, importance)
    assert after.kept.tolist() == [1, 3, 5, 7]
    assert not after.is_whole
    rows = histories()
    rows[:, [0, 2, 4, 6, 8]] = 0.0
    found = CompactStudent(after)(rows)
    expected = CompactStudent(student())(rows)
    torch.testing.assert_close(found[:, [1, 3, 5, 7]], expected[:, [1, 3, 5, 7]])
    assert (found[:, [0, 2, 4, 6, 8]] == -torch.inf).all()


def test_a_dropped_item_counts_in_the_length_of_a_history() -> None:
    spec = StudentSpec(3, 1, 1.0, 1.0)
    state = {
        ENCODER: torch.tensor([[6.0, 9.0, 1.0]]),
        DECODER: torch.tensor([[1.0], [2.0], [5.0]]),
        BIAS: torch.tensor([0.5, 0.0, 0.0]),
    }
    after = prune_rows(whole(spec, state), 2, torch.tensor([2.0, 3.0, 1.0]))
    # (6 + nothing for the dropped item) / 2 items = 3
    scores = CompactStudent(after)(torch.tensor([[1.0, 0.0, 1.0]]))
    assert scores.tolist() == [[3.5, 6.0, -torch.inf]]


def test_pruning_twice_speaks_of_the_first_catalogue() -> None:
    twice = prune_rows(
        prune_rows(student(), 4, torch.tensor([0.0, 9, 1, 8, 2, 7, 3, 6, 4])),
        2,
        torch.tensor([1.0, 0.0, 0.0, 2.0]),
    )
    assert twice.kept.tolist() == [1, 7]
    assert twice.catalogue_size == 9
    assert CompactStudent(twice)(histories()).shape == (8, 9)


def test_ties_keep_the_lower_id() -> None:
    assert prune_rows(student(), 3, torch.ones(9)).kept.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("keep", "importance", "message"),
    [
        (0, torch.ones(9), "items: expected 1 to 9, got 0"),
        (10, torch.ones(9), "items: expected 1 to 9, got 10"),
        (2, torch.ones(8), "importance: expected 9 finite numbers"),
        (2, torch.full((9,), torch.nan), "importance: expected 9 finite numbers"),
    ],
)
def test_impossible_items_are_refused(keep, importance, message) -> None:
    with pytest.raises(ConfigError, match=message):
        prune_rows(student(), keep, importance)


def test_an_items_energy_is_that_of_its_row_and_column() -> None:
    squares = product(student()).square()
    expected = (squares.sum(dim=0) + squares.sum(dim=1)).sqrt()
    torch.testing.assert_close(item_energy(student()), expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_rotating_the_tables_leaves_the_energy_as_it_is(seed: int) -> None:
    before = student(seed)
    torch.testing.assert_close(
        item_energy(prune_dimensions(before, 4)),
        item_energy(before),
        rtol=1e-4,
        atol=1e-8,
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 1]))
def test_eight_bits_are_within_half_a_scale(seed: int, axis: int) -> None:
    table = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))
    levels, scale = quantise(table, axis)
    assert levels.dtype == torch.int8
    assert scale.shape == ((5, 1) if axis == 0 else (1, 7))
    assert ((dequantise(levels, scale) - table).abs() <= scale * 0.5001).all()
    assert (levels.abs().amax(dim=1 - axis) == 127).all()


def test_a_table_of_zeros_stays_zero() -> None:
    levels, scale = quantise(torch.zeros(2, 3), axis=0)
    assert levels.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert scale.tolist() == [[1.0], [1.0]]


def test_damaged_students_are_refused() -> None:
    state = student().state
    with pytest.raises(DataFormatError, match="Expected tensors"):
        whole(replace(SPEC, dim=3), state)
    with pytest.raises(DataFormatError, match="finite"):
        whole(SPEC, state | {BIAS: torch.full((9,), torch.inf)})
