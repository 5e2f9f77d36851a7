"""Dealing users out."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from common.config import RunConfig, defaults, parse
from common.errors import ConfigError
from common.interactions import SCHEMA
from simulations.datasets import load
from simulations.partition import fold, split, translate, write_federation

SET = "synthetic:num_users=120,num_items=40,interactions_per_user=10"


def config(**overrides) -> RunConfig:
    flat = defaults() | {
        "data.public": SET,
        "data.private": SET,
        "partition.num-clients": 3,
        "partition.public-users": 20,
        "partition.validation-users": 5,
        "partition.heldout-users": 30,
    }
    return parse(flat | overrides)


@pytest.mark.parametrize("scheme", ["iid", "attribute", "dirichlet"])
def test_every_user_is_dealt_to_exactly_one_place(scheme: str) -> None:
    data = load(SET)
    dealt = split(
        data,
        data,
        config(**{"partition.scheme": scheme, "partition.attribute": "cluster"}),
    )
    places = [dealt.public, dealt.validation, dealt.heldout, *dealt.clients]
    users = [set(place["user"].to_list()) for place in places]
    assert [len(u) for u in users[:3]] == [15, 5, 30]
    assert all(users)
    assert sum(map(len, users)) == 120 == len(set().union(*users))
    assert sum(place.height for place in places) == data.interactions.height


def test_attribute_keeps_equal_values_together() -> None:
    data = load(SET)
    settings = {"partition.scheme": "attribute", "partition.attribute": "cluster"}
    dealt = split(data, data, config(**settings))
    cluster = dict(data.users.iter_rows())
    owners = [{cluster[u] for u in part["user"].to_list()} for part in dealt.clients]
    assert sum(map(len, owners)) == len(set().union(*owners)) == 4


def test_a_skewed_dirichlet_is_less_even_than_a_flat_one() -> None:
    data = load(SET)

    def spread(concentration: float) -> float:
        settings = {
            "partition.scheme": "dirichlet",
            "partition.concentration": concentration,
        }
        dealt = split(data, data, config(**settings))
        return float(np.std([part["user"].n_unique() for part in dealt.clients]))

    assert spread(0.05) > spread(1000.0)


def test_the_same_seed_deals_alike_and_another_does_not() -> None:
    data = load(SET)
    first, again = split(data, data, config()), split(data, data, config())
    assert first.heldout.equals(again.heldout)
    other = split(data, data, config(**{"partition.seed": 9}))
    assert not first.heldout.equals(other.heldout)


def test_fold_shows_four_fifths_and_always_holds_one() -> None:
    counts = {"a": 10, "b": 2, "c": 1}
    users = [user for user, n in counts.items() for _ in range(n)]
    table = pl.DataFrame(
        {
            "user": users,
            "item": [str(i) for i in range(13)],
            "value": [1.0] * 13,
            "timestamp": [0] * 13,
        },
        schema=SCHEMA,
    )
    held = (
        fold(table, 0.8, np.random.default_rng(0))
        .group_by("user")
        .agg(pl.col("held").sum())
    )
    assert dict(held.iter_rows()) == {"a": 2, "b": 1, "c": 0}


def test_public_rows_are_translated_by_exact_title_and_the_rest_counted() -> None:
    ours = load("synthetic:num_users=10,num_items=30,interactions_per_user=5,seed=1")
    theirs = load("synthetic:num_users=10,num_items=60,interactions_per_user=9,seed=1")
    table, notes = translate(theirs, ours.catalogue)
    titles = dict(theirs.catalogue.table.select("item", "title").iter_rows())
    known = set(ours.catalogue.table["title"].to_list())
    expected = [titles[item] in known for item in theirs.interactions["item"]]
    assert table.height == sum(expected)
    assert f"{len(expected) - sum(expected)} of {len(expected)} public rows" in notes[0]


def test_private_rows_change_no_public_byte(tmp_path: Path) -> None:
    """Mistake 6: one private user more, with an item nobody else touched."""
    data = load(SET)
    dealt = split(data, data, config())
    extra = pl.DataFrame(
        {"user": ["new"], "item": ["40"], "value": [5.0], "timestamp": [1]},
        schema=SCHEMA,
    )
    more = dealt.__class__(
        dealt.catalogue,
        dealt.public,
        dealt.validation,
        dealt.heldout,
        (pl.concat([dealt.clients[0], extra]), *dealt.clients[1:]),
    )
    write_federation(dealt, tmp_path / "a", config())
    write_federation(more, tmp_path / "b", config())
    for path in (tmp_path / "a" / "server").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "server" / path.name).read_bytes()
    for name in ("catalogue.parquet", "settings.toml"):
        ours = tmp_path / "a" / "clients" / "0000" / name
        assert (
            ours.read_bytes()
            == (tmp_path / "b" / "clients" / "0000" / name).read_bytes()
        )


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"partition.heldout-users": 120}, "partition.heldout-users"),
        ({"partition.public-users": 100}, "partition.public-users"),
        ({"partition.num-clients": 90}, "partition.num-clients"),
        (
            {"partition.scheme": "attribute", "partition.attribute": "nope"},
            "partition.attribute",
        ),
    ],
)
def test_an_impossible_partition_names_its_key(overrides, key: str) -> None:
    data = load(SET)
    with pytest.raises(ConfigError, match=key):
        split(data, data, config(**overrides))
