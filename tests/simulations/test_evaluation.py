"""Held-out users as models meet them: order, facts, and who they are."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from common.catalogue import SCHEMA as CATALOGUE_SCHEMA
from common.catalogue import Catalogue, write_catalogue
from common.config import defaults, parse
from common.folders import CATALOGUE, INTERACTIONS
from common.interactions import SCHEMA
from server.teacher.checkpoint import save_teacher
from server.teacher.ease import Ease
from simulations.evaluation import (
    private_rows,
    public_popularity,
    public_rows,
    rank,
    read_heldout,
    teacher_scorer,
)
from simulations.partition import CLIENTS, HELDOUT, SERVER


def rows(*triples):
    users, items, times = zip(*triples, strict=True)
    columns = {"user": users, "item": items, "value": [1.0] * len(users)}
    return pl.DataFrame(columns | {"timestamp": times}, schema=SCHEMA)


def write(folder, categories):
    """Items w x y z; two public users, two clients of one user, one held out."""
    columns = {
        "item": list("wxyz"),
        "title": list("wxyz"),
        "year": [0] * 4,
        "categories": categories,
    }
    catalogue = Catalogue(pl.DataFrame(columns, schema=CATALOGUE_SCHEMA))
    public = rows(("p", "w", 1), ("p", "x", 2), ("q", "w", 3))
    heldout = rows(("h", "y", 9), ("h", "w", 5), ("h", "z", 7))
    heldout = heldout.with_columns(held=pl.Series([False, False, True]))
    tables = {
        SERVER: public,
        HELDOUT: heldout,
        f"{CLIENTS}/0000": rows(("a", "z", 1)),
        f"{CLIENTS}/0001": rows(("a", "y", 1), ("a", "z", 2)),
    }
    for name, table in tables.items():
        (folder / name).mkdir(parents=True)
        table.write_parquet(folder / name / INTERACTIONS)
    write_catalogue(catalogue, folder / SERVER / CATALOGUE)
    return catalogue


@pytest.fixture
def federation(tmp_path):
    write(tmp_path, [["a"], ["a"], ["b"], ["b"]])
    return tmp_path


def test_held_out_users_keep_order_and_names(federation):
    heldout = read_heldout(federation)

    assert heldout.users == ("h",)
    assert heldout.shown.toarray().tolist() == [[1, 0, 1, 0]]
    assert heldout.held.toarray().tolist() == [[0, 0, 0, 1]]
    assert heldout.ordered.toarray().tolist() == [[1, 0, 2, 0]]


def test_facts_are_public_alone(federation):
    facts = read_heldout(federation).facts

    # Clients touched y and z, and no count knows.
    assert facts.popularity.tolist() == [2, 1, 0, 0]
    assert facts.features.shape[0] == 4


def test_rows_are_users_and_a_user_of_two_clients_is_two(federation):
    catalogue = read_heldout(federation).catalogue

    private = private_rows(federation, catalogue).toarray().tolist()

    assert private == [[0, 0, 0, 1], [0, 0, 1, 1]]
    assert public_rows(federation, catalogue).toarray().tolist() == [
        [1, 1, 0, 0],
        [1, 0, 0, 0],
    ]


def test_a_model_is_ranked_beyond_accuracy_too(federation):
    heldout = read_heldout(federation)
    score = public_popularity(federation, heldout.catalogue)

    values = rank(score, heldout, parse(defaults()).evaluation)

    # Unseen are x and z: of public shares (1 + 1) / 7 and (0 + 1) / 7, and apart.
    assert values["novelty@10"] == pytest.approx((np.log2(7 / 2) + np.log2(7)) / 2)
    assert values["diversity@10"] == pytest.approx(1.0)
    assert values["gini@10"].tolist() == [[1, 3] + [-1] * 2]
    assert values["mrr"].tolist() == [0.5]


def test_without_features_there_is_no_diversity(tmp_path):
    write(tmp_path, [[], [], [], []])
    heldout = read_heldout(tmp_path)
    score = public_popularity(tmp_path, heldout.catalogue)

    assert "diversity@10" not in rank(score, heldout, parse(defaults()).evaluation)


def test_a_saved_teacher_scores_what_is_shown(federation):
    heldout = read_heldout(federation)
    weights = np.arange(16, dtype=np.float32).reshape(4, 4)
    save_teacher(federation / "t.safetensors", Ease(weights), heldout.catalogue.digest)

    score = teacher_scorer(federation / "t.safetensors", heldout.ordered)(0, 1)

    assert score.tolist() == (sp.csr_matrix([[1, 0, 1, 0]]) @ weights).tolist()
