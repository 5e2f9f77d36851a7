"""The comparison benchmark, quick: rows, stamps, promises, the leak."""

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from simulations.benchmarks import comparison


@pytest.fixture(scope="module")
def found():
    pytest.importorskip("implicit")
    return comparison.measure(Path("nowhere"), quick=True)


def test_every_row_is_ranked_and_stamped_by_what_it_learnt_from(found):
    rows = {row["name"]: row for row in found["cross_domain"]["rows"]}

    for name in ("popularity", "puresvd", "item_knn", "ials"):
        assert rows[f"{name}_public"]["stamp"] == ""
        assert rows[f"{name}_private"]["stamp"] == "NOT PRIVATE"
    assert rows["fedmf_nonprivate"]["stamp"] == "NOT PRIVATE"
    assert rows["fedmf_8"]["stamp"] == rows["fedmf_public_start_8"]["stamp"] == ""
    for row in rows.values():
        assert {*comparison.SHOWN, *comparison.BEYOND} <= set(row["metrics"])
        ndcg = row["metrics"]["ndcg@10"]
        assert 0 <= ndcg["low"] <= ndcg["value"] <= ndcg["high"] <= 1


def test_an_epsilon_stands_beside_its_promise(found):
    for row in found["cross_domain"]["rows"]:
        assert (row["epsilon"] is None) == (row["promise"] == "")
    eight = next(r for r in found["cross_domain"]["rows"] if r["name"] == "fedmf_8")
    assert 7.9 < eight["epsilon"] <= 8.0
    assert "per user (add or remove one user's rows" in eight["promise"]
    assert "seeded" in eight["promise"]


def test_draws_that_spare_the_test_item_find_it_and_ours_do_not(found):
    draws = found["loo99"]["draws"]

    assert draws["test_spared"]["100"]["hr@10"]["value"] > 0.95
    assert draws["train_only"]["100"]["hr@10"]["value"] < 0.2


def test_groups_show_what_privacy_costs_each(found):
    (clusters,) = found["cross_domain"]["groups"]

    assert clusters["attribute"] == "cluster"
    for group in clusters["groups"]:
        models = group["models"]
        cost = models["fedmf_nonprivate"]["value"]
        cost -= models["fedmf_public_start_8"]["value"]
        assert group["cost"]["value"] == pytest.approx(cost)


def test_figures_are_json_and_tables_print(found):
    again = json.loads(json.dumps(found, allow_nan=False))
    console = Console(file=StringIO(), width=160)

    for table in comparison.tables(again):
        console.print(table)

    text = console.file.getvalue()
    assert "NOT PRIVATE" in text
    assert "FedMF, public start, ε = 8" in text
    assert "(ε = 7.99" in text or "(ε = 8.000" in text
