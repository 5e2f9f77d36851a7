"""The student: its formula by hand, its files, and users that stay apart."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from common.errors import DataFormatError
from common.losses import multinomial
from common.student import (
    StudentSpec,
    build,
    interpolate,
    is_bounded,
    load_student,
    normalise_history,
    random_state,
    save_student,
    shapes,
)

SPEC = StudentSpec(num_items=6, dim=3, logit_scale=2.0, history_exponent=0.5)


def state(seed=0):
    return random_state(SPEC, torch.Generator().manual_seed(seed))


def test_scores_by_hand():
    spec = StudentSpec(2, 1, 3.0, 1.0)
    student = build(
        spec,
        {
            "encoder.weight": torch.tensor([[1.0, 5.0]]),
            "decoder.weight": torch.tensor([[2.0], [-1.0]]),
            "decoder.bias": torch.tensor([0.5, 0.25]),
        },
    )
    # u = (1 + 5)/2 · 3 = 9, then 2·9 + ½ and −9 + ¼; nothing seen: the bias alone
    scores = student(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert scores.tolist() == [[18.5, -8.75], [0.5, 0.25]]


@pytest.mark.parametrize(("exponent", "value"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.25)])
def test_histories_are_divided_by_a_power_of_their_length(exponent, value):
    history = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0] * 4])
    scaled = normalise_history(history, exponent)
    assert scaled.tolist() == [[value] * 4, [0.0] * 4]


def test_the_state_dict_has_the_declared_names_and_shapes():
    student = build(SPEC, state())
    found = {name: tuple(t.shape) for name, t in student.state_dict().items()}
    assert found == shapes(SPEC) == {n: tuple(t.shape) for n, t in state().items()}
    assert list(found) == ["encoder.weight", "decoder.weight", "decoder.bias"]


def test_the_item_tables_are_not_tied():
    student = build(SPEC, state())
    assert student.encoder.weight.data_ptr() != student.decoder.weight.data_ptr()


def test_a_user_never_moves_another_users_scores():
    student = build(SPEC, state())
    history = torch.tensor([[1.0, 0, 0, 1, 0, 0], [0, 1.0, 0, 0, 0, 0]])
    before = student(history)[0]
    history[1] = 1.0
    torch.testing.assert_close(student(history)[0], before, rtol=0, atol=0)


def test_a_random_start_follows_its_generator():
    first, again, other = state(1), state(1), state(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.weight"], other["encoder.weight"])
    assert torch.equal(first["decoder.bias"], torch.zeros(6))
    wide = random_state(StudentSpec(400, 100, 1.0, 1.0), torch.Generator())
    assert wide["encoder.weight"].std().item() == pytest.approx(0.01, rel=0.05)


def test_interpolation_ends_at_its_ends():
    a, b = state(1), state(2)
    for weight, expected in ((0.0, a), (1.0, b)):
        mixed = interpolate(a, b, weight)
        assert all(torch.equal(mixed[name], expected[name]) for name in a)
    quarter = interpolate(a, b, 0.25)
    for name in a:
        torch.testing.assert_close(quarter[name], 0.75 * a[name] + 0.25 * b[name])


def test_a_saved_student_comes_back_bit_for_bit(tmp_path):
    spec = StudentSpec(6, 3, 1 / 3, 0.1)
    save_student(tmp_path / "s.safetensors", spec, state())
    student = load_student(tmp_path / "s.safetensors")
    assert student.spec == spec
    assert not student.training
    came = student.state_dict()
    assert all(torch.equal(came[name], tensor) for name, tensor in state().items())


def test_a_file_that_is_no_student_is_refused(tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(DataFormatError, match="found no file"):
        load_student(path)
    path.write_bytes(b"not a student")
    with pytest.raises(DataFormatError, match="expected format tutela-student-1"):
        load_student(path)
    save_file(state(), path)
    with pytest.raises(DataFormatError, match="expected format tutela-student-1"):
        load_student(path)


def state_of(**tensors: float) -> dict[str, torch.Tensor]:
    names = {"encoder": "encoder.weight", "decoder": "decoder.weight"}
    names["bias"] = "decoder.bias"
    sizes = shapes(WIDE)
    return {
        full: torch.full(sizes[full], tensors.get(short, 0.1))
        for short, full in names.items()
    }


WIDE = StudentSpec(1000, 32, 20.0, 0.5)


@pytest.mark.parametrize("name", ["encoder", "decoder", "bias"])
@pytest.mark.parametrize("value", [1e30, -1e30, float("nan"), float("inf")])
def test_a_student_that_could_overflow_is_not_bounded(name: str, value: float):
    assert is_bounded(WIDE, state_of())
    assert not is_bounded(WIDE, state_of(**{name: value}))


@given(
    st.floats(-12, 25), st.floats(-12, 25), st.floats(-12, 25), st.integers(0, 2**32)
)
def test_no_history_makes_a_bounded_student_overflow(encoder, decoder, bias, seed):
    """Forward and backward, with every size of history and of targets."""
    state = state_of(encoder=10**encoder, decoder=10**decoder, bias=10**bias)
    if not is_bounded(WIDE, state):
        return
    generator = torch.Generator().manual_seed(seed)
    signs = {
        n: v * torch.randn(v.shape, generator=generator).sign()
        for n, v in state.items()
    }
    student = build(WIDE, signs)
    history = torch.zeros(3, WIDE.num_items)
    history[0, :1], history[1, :500], history[2] = 1.0, 1.0, 1.0
    losses = multinomial(student(history), history)
    losses.sum().backward()
    for parameter in student.parameters():
        assert bool(torch.isfinite(parameter.grad).all())
        assert bool(torch.isfinite((parameter.grad**2).sum()))
