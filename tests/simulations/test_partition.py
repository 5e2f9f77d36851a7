"""Dealing users out."""

import hmac
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client.settings import ANY, read_settings, witness_place
from common.accounting import LEAST_NOISE
from common.config import RunConfig, defaults, parse
from common.errors import ConfigError
from common.interactions import SCHEMA
from common.plan import planned_events
from simulations.datasets import load
from simulations.partition import (
    copy_clients,
    fold,
    split,
    translate,
    write_federation,
    write_settings,
)

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


DEVICES = {"partition.scheme": "users", "privacy.declared-users": 1}


@pytest.mark.parametrize("num_clients", [3, 70])
def test_a_device_is_one_user_and_who_is_left_over_takes_no_part(
    num_clients: int,
) -> None:
    data = load(SET)
    dealt = split(
        data, data, config(**DEVICES, **{"partition.num-clients": num_clients})
    )
    assert [part["user"].n_unique() for part in dealt.clients] == [1] * num_clients
    devices = {part["user"][0] for part in dealt.clients}
    assert len(devices) == num_clients
    others = pl.concat([dealt.public, dealt.validation.drop("held")])
    assert not devices & {*others["user"], *dealt.heldout["user"]}
    for part in dealt.clients:
        theirs = data.interactions.filter(pl.col("user") == part["user"][0])
        assert part.equals(theirs)


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (
            DEVICES | {"partition.num-clients": 71},
            "partition.num-clients: expected at most 70",
        ),
        (
            DEVICES | {"privacy.declared-users": 2},
            "privacy.declared-users: expected 1 where .* is 'users', got 2",
        ),
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


def settings_of(folder: Path, **overrides):
    folder.mkdir(parents=True, exist_ok=True)
    write_settings(folder, config(**overrides))
    return read_settings(folder)


def test_settings_allow_this_run_and_nothing_else(tmp_path: Path) -> None:
    asked = {"run.name": "movies", "privacy.target-epsilon": 3.0, "privacy.delta": 1e-6}
    found = settings_of(tmp_path / "clients" / "0002", **asked)
    assert found.runs == ("movies",)
    assert found.servers == ()
    assert ANY not in found.runs
    assert not found.allow_non_private
    assert found.seed is None
    assert found.least_noise_multiplier == LEAST_NOISE
    budget = found.budget["user"]
    assert set(found.budget) == {"user"}
    assert (budget.target_epsilon, budget.delta) == (3.0, 1e-6)
    assert budget.metrics_epsilon == 0.0
    place = witness_place(tmp_path / "clients" / "0002", found).resolve()
    assert place == (tmp_path / "witnesses" / "0002.json").resolve()


def test_settings_follow_what_the_run_asks_for(tmp_path: Path) -> None:
    seeded = settings_of(tmp_path / "a", **{"run.seed": 0})
    assert seeded.seed == 0
    assert settings_of(tmp_path / "b", **{"privacy.mode": "off"}).allow_non_private
    measured = settings_of(tmp_path / "c", **{"client-metrics.every": 2})
    assert measured.budget["user"].metrics_epsilon == 8.0
    given = settings_of(tmp_path / "d", **{"privacy.noise-multiplier": 0.1})
    assert given.least_noise_multiplier == 0.1
    assert given.budget["user"].target_epsilon > 1e8
    enough = settings_of(tmp_path / "e", **{"privacy.noise-multiplier": 1.0})
    assert enough.least_noise_multiplier == LEAST_NOISE


SUM = {"privacy.mode": "distributed"}


@pytest.mark.parametrize(
    ("asked", "unit"),
    [
        (SUM | {"privacy.declared-users": 1}, "user"),
        (SUM | {"privacy.declared-users": 2}, "client"),
        ({"privacy.declared-users": 2}, "user"),
    ],
)
def test_the_budget_is_in_the_unit_that_the_run_is_charged_in(
    tmp_path: Path, asked, unit: str
) -> None:
    found = settings_of(tmp_path / "clients" / "0000", **asked)
    (event,) = planned_events(config(**asked), 1.0)
    assert set(found.budget) == {unit} == {event.unit}
    assert found.budget[unit].target_epsilon == 8.0


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    data = load(SET)
    write_federation(split(data, data, config()), tmp_path / "f", config())
    return tmp_path / "f"


def users(client: Path) -> list[str]:
    rows = pl.read_parquet(client / "interactions.parquet")
    assert rows.schema == SCHEMA
    return rows["user"].unique(maintain_order=True).to_list()


def test_clients_hold_keyed_hashes_of_their_users(federation: Path) -> None:
    data = load(SET)
    dealt = split(data, data, config())
    for index, table in enumerate(dealt.clients):
        client = federation / "clients" / f"{index:04d}"
        found = users(client)
        assert len(found) == table["user"].n_unique()
        assert all(re.fullmatch("[0-9a-f]{32}", user) for user in found)
        key = (client / "id.key").read_bytes()
        outside = table["user"].unique(maintain_order=True).to_list()
        digests = [hmac.new(key, u.encode(), "sha256").hexdigest() for u in outside]
        assert found == [digest[:32] for digest in digests]
        rows = pl.read_parquet(client / "interactions.parquet")
        assert rows.drop("user").equals(table.drop("user"))


def test_the_key_is_each_clients_own_and_for_its_owner_alone(federation: Path) -> None:
    keys = list((federation / "clients").glob("*/id.key"))
    assert len({path.read_bytes() for path in keys}) == len(keys) == 3
    for path in keys:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.with_name("interactions.parquet").stat().st_mode & 0o777 == 0o600
    assert not list((federation / "server").glob("*.key"))


def test_public_and_held_out_users_keep_their_ids(federation: Path) -> None:
    known = set(load(SET).interactions["user"].to_list())
    for name in ("server/interactions", "server/validation", "heldout/interactions"):
        rows = pl.read_parquet(federation / f"{name}.parquet")
        assert set(rows["user"].to_list()) < known


def test_copied_clients_are_the_same_rows_in_another_world(
    federation: Path, tmp_path: Path
) -> None:
    source = federation / "clients"
    for name in ("ledger.sqlite", "reply-train.safetensors", "student.safetensors"):
        (source / "0000" / name).write_bytes(b"of the first world")
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    off = config(**{"privacy.mode": "off"})
    copied = copy_clients(source, tmp_path / "other", off)
    assert copied == tmp_path / "other" / "clients"
    assert sorted(path.name for path in copied.iterdir()) == ["0000", "0001", "0002"]
    for client in copied.iterdir():
        assert {path.name for path in client.iterdir()} == {
            "interactions.parquet",
            "catalogue.parquet",
            "settings.toml",
        }
        for name in ("interactions.parquet", "catalogue.parquet"):
            theirs = source / client.name / name
            assert (client / name).read_bytes() == theirs.read_bytes()
        assert read_settings(client).allow_non_private
        place = witness_place(client, read_settings(client)).resolve()
        assert place.parent == (tmp_path / "other" / "witnesses").resolve()
    assert before == {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    assert not read_settings(source / "0000").allow_non_private


def test_a_copy_never_goes_over_another(federation: Path, tmp_path: Path) -> None:
    copy_clients(federation / "clients", tmp_path / "other", config())
    with pytest.raises(FileExistsError):
        copy_clients(federation / "clients", tmp_path / "other", config())
