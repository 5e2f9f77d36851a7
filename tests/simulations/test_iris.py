"""The worked example: fair splits, copied weights, and an ε that is kept."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from simulations.examples import iris

pytest.importorskip("sklearn", reason="needs tutela[examples]")


@pytest.fixture(scope="module")
def flowers() -> iris.Flowers:
    return iris.load_flowers()


def test_measures_are_scaled_by_public_bounds(flowers: iris.Flowers) -> None:
    # The first flower of the file: 5.1, 3.5, 1.4 and 0.2 cm, setosa.
    wanted = [(5.1 - 4) / 4, (3.5 - 2) / 2.5, (1.4 - 1) / 6, 0.2 / 2.5]
    np.testing.assert_allclose(flowers.measures[0], wanted, rtol=1e-6)
    assert flowers.measures.min() >= 0 and flowers.measures.max() <= 1


def test_every_part_has_its_share_of_every_species(flowers: iris.Flowers) -> None:
    split = iris.stratified(flowers, seed=0)
    parts = [split.public, *split.clients, split.test]
    counts = [np.bincount(part.species).tolist() for part in parts]
    assert counts == [[5] * 3, [10] * 3, [10] * 3, [10] * 3, [15] * 3]
    together = np.concatenate([part.measures for part in parts])
    order = np.lexsort(together.T), np.lexsort(flowers.measures.T)
    np.testing.assert_array_equal(together[order[0]], flowers.measures[order[1]])


def test_the_surveys_split_tests_on_a_species_nobody_has(flowers) -> None:
    split = iris.in_file_order(flowers, seed=0)
    assert set(split.test.species.tolist()) == {2}
    seen = np.concatenate([part.species for part in (split.public, *split.clients)])
    assert set(seen.tolist()) == {0, 1}


def test_what_fits_is_copied_and_nothing_else(flowers: iris.Flowers) -> None:
    teacher = iris.fit_teacher(iris.stratified(flowers, 0).public, seed=0)
    tensors = dict(teacher.state_dict())
    state, copied = iris.copy_where_shapes_allow(tensors, seed=0)
    assert copied == ["encoder.weight", "decoder.bias"]
    assert torch.equal(state["encoder.weight"], tensors["0.weight"])
    assert torch.equal(state["decoder.bias"], tensors["4.bias"])


def test_a_client_without_flowers_still_takes_its_step(flowers) -> None:
    split = iris.stratified(flowers, 0)
    teacher = iris.fit_teacher(split.public, seed=0)
    state, _ = iris.copy_where_shapes_allow(dict(teacher.state_dict()), seed=0)
    nobody = split.clients[0].where(np.zeros(0, dtype=np.int64))
    update = iris.train_client(state, nobody, 1.0, "a")
    assert all(value.abs().max() > 0 for value in update.values())


def test_one_flower_moves_a_client_by_its_clip(flowers: iris.Flowers) -> None:
    split = iris.stratified(flowers, 0)
    teacher = iris.fit_teacher(split.public, seed=0)
    state, _ = iris.copy_where_shapes_allow(dict(teacher.state_dict()), seed=0)
    own = split.clients[0]
    less = own.where(np.arange(1, len(own.species)))
    with_it, without = (
        iris.train_client(state, each, 0.0, "a") for each in (own, less)
    )
    moved = sum((with_it[n] - without[n]).double().square().sum() for n in state)
    bound = iris.CLIP * iris.LEARNING_RATE / iris.DECLARED
    assert 0 < float(moved) ** 0.5 <= bound * (1 + 1e-4)


def test_the_promise_is_whole_and_at_interaction_level() -> None:
    found = iris.promise(iris.noise_for(3.0))
    assert found.epsilon <= 3.0 == pytest.approx(found.epsilon, abs=1e-3)
    for part in (
        "per interaction",
        "δ = 0.001",
        "mode local",
        "accountant",
        "30 steps",
    ):
        assert part in found.sentence


def test_the_table_has_a_row_a_model_and_a_column_a_split(monkeypatch) -> None:
    monkeypatch.setattr(iris, "ROUNDS", 2)
    monkeypatch.setattr(iris, "BUDGETS", (8.0,))
    found = iris.measure(seeds=range(1))
    assert set(found) == {"stratified", "the survey's"}
    assert found["stratified"]["teacher, public flowers"][0] > 0.8
    assert found["the survey's"]["teacher, public flowers"] == [0.0]
    assert found["the survey's"]["fedavg, ε = 8"] == [0.0]
    console = Console(width=100, file=io.StringIO())
    console.print(iris.table(found))
    text = console.file.getvalue()
    assert "fedadam, NOT PRIVATE" in text and "0.000 ± 0.000" in text
