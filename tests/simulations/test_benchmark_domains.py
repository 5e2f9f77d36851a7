"""The benchmark of domains: on generated ones whose truth is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from rich.console import Console

from common.config import defaults, parse
from server.teacher.ease import fit
from simulations.benchmarks.domains import (
    BASELINES,
    CEILINGS,
    Pair,
    Sizes,
    compare,
    deal,
    ease_tables,
    measure,
    tables,
)
from simulations.datasets import load
from simulations.datasets.dataset import declare

SIZES = Sizes(40, 40, 1000, 8, (30.0,))
NAME = "synthetic:num_users=200,num_items=60,interactions_per_user=12,seed={}"


def domains(**columns):
    """Two domains of the same four clusters of taste, items under other titles."""
    source, target = (
        replace(load(NAME.format(seed)), name=f"domain {seed}") for seed in (1, 2)
    )
    table = target.catalogue.table
    plain = {"title": [""] * table.height, "categories": table["categories"].to_list()}
    return source, replace(
        target, catalogue=declare(table["item"].to_list(), **(plain | columns))
    )


@pytest.mark.parametrize("shape", [(30, 9), (9, 30)])
def test_both_forms_rank_unseen_items_as_ease_does(shape: tuple[int, int]) -> None:
    dense = np.random.default_rng(0).random(shape) < 0.3
    dense[:, 4] = False
    rows = sp.csr_matrix(dense.astype(np.float32))
    config = parse(defaults() | {"teacher.l2": 5.0})
    expected = fit(rows, None, config).score(rows)
    taught = ease_tables(rows, 5.0)
    found = rows @ taught.inputs @ taught.outputs.T
    unseen = ~dense
    unseen[:, 4] = False
    np.testing.assert_allclose(found[unseen], expected[unseen], atol=1e-4)
    assert not taught.inputs[4].any()


def test_shared_categories_carry_taste_to_a_domain_of_other_titles() -> None:
    found = compare(Pair("a → b", "a", "b", False), *domains(), SIZES)
    assert found["how"] == "features of both: categories"
    assert found["ndcg"]["transferred"] > 1.3 * found["ndcg"]["random"]
    assert found["gains"]["random"]["low"] > 0
    assert "against popularity" in found["verdict"]


def test_where_nothing_is_shared_it_says_so_and_starts_at_random() -> None:
    source, target = domains(categories=[[]] * 60)
    found = compare(Pair("a → b", "a", "b", False), source, target, SIZES)
    assert found["how"].startswith("nothing: ")
    assert found["gains"]["random"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["negative"]
    assert found["verdict"].startswith("negative transfer, nothing crossed: ")


def test_equal_titles_put_the_teacher_into_the_targets_catalogue() -> None:
    source = replace(load(NAME.format(1)), name="the same, by other people")
    target = load(NAME.format(1))
    found = compare(Pair("a → a", "a", "b", True), source, target, SIZES)
    assert found["how"].startswith("equal titles (100% of the source's rows), 0 of 60")
    assert found["ndcg"]["transferred"] > found["ndcg"]["random"]


def test_nobody_is_dealt_twice_and_a_fifth_is_the_most() -> None:
    dealt = deal(load(NAME.format(1)), replace(SIZES, heldout=500, others=30))
    shown, held = dealt.heldout
    assert (shown.shape[0], dealt.validation[0].shape[0]) == (40, 40)
    assert dealt.rows.shape == (30, 60)
    assert (shown.sum(axis=1) + held.sum(axis=1) == 12).all()
    assert not shown.multiply(held).nnz


def test_pairs_without_data_are_named_and_all_is_printed(tmp_path: Path) -> None:
    found = measure(tmp_path, quick=True)
    assert found["pairs"] == []
    found["pairs"] = [compare(Pair("a → b", "a", "b", False), *domains(), SIZES)]
    console = Console(width=240, record=True)
    for table in tables(found):
        console.print(table)
    text = console.export_text()
    assert "movies → music" in text
    assert "not measured" in text
    for name in (*BASELINES, *CEILINGS):
        assert name in text
