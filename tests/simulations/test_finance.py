"""The generated market: repeatable, said to be generated, and what it claims."""

import numpy as np
import polars as pl
import pytest

from common.errors import ConfigError
from common.interactions import SCHEMA
from simulations.datasets import load
from simulations.finance import RISKS, draw_prices, generate

SMALL = {"num_investors": 300, "num_instruments": 60, "num_sectors": 4, "num_days": 120}


@pytest.fixture(scope="module")
def market():
    return generate(**SMALL, seed=3)


def test_a_name_loads_it_and_says_it_is_generated() -> None:
    data = load("finance:num_investors=50,num_instruments=30,num_sectors=3,seed=2")
    assert data.name.startswith("finance:")
    assert data.source.startswith("Generated: no public data set")
    assert data.interactions["user"].n_unique() == 50
    assert data.users.columns == ["user", "age", "risk", "wealth"]
    assert "Generated" in str(data.reports[0])


def test_a_seed_repeats_and_another_does_not(market) -> None:
    again, other = generate(**SMALL, seed=3), generate(**SMALL, seed=4)
    assert market.interactions.equals(again.interactions)
    assert market.catalogue.table.equals(again.catalogue.table)
    assert not market.interactions.equals(other.interactions)


def test_rows_are_the_purchases_each_pair_once(market) -> None:
    assert market.interactions.schema == SCHEMA
    assert not market.interactions.select("user", "item").is_duplicated().any()
    buys = market.trades.filter(pl.col("side") == "buy")
    assert market.report.rows == buys.height
    assert market.report.repaired["duplicates"] == (
        buys.height - market.interactions.height
    )
    user, item, value, timestamp = market.interactions.row(0)
    own = buys.filter(pl.col("user") == user, pl.col("item") == item)
    paid = (own["shares"] * own["price"]).sum()
    assert value == pytest.approx(paid, rel=1e-6)
    assert timestamp == own["timestamp"].min()


def test_holdings_are_what_was_bought_and_not_sold(market) -> None:
    signs = {"buy": 1, "sell": -1}
    held: dict[tuple[str, str], int] = {}
    for user, item, side, shares in market.trades.select(
        "user", "item", "side", "shares"
    ).iter_rows():
        held[user, item] = held.get((user, item), 0) + signs[side] * shares
        assert held[user, item] >= 0
    expected = {pair: shares for pair, shares in held.items() if shares}
    found = {(u, i): s for u, i, s, _ in market.holdings.iter_rows()}
    assert found == expected
    user, item, shares, worth = market.holdings.row(0)
    assert worth == pytest.approx(shares * market.prices[-1, int(item) - 1])


def test_trades_fall_on_weekdays_at_the_days_price(market) -> None:
    days = pl.from_epoch(market.trades["timestamp"], time_unit="s").dt.weekday()
    assert days.max() <= 5
    _, item, _, day, _, price, _ = market.trades.row(5)
    assert price == market.prices[day, int(item) - 1]


def test_prices_have_the_volatility_and_the_shared_shock_they_are_drawn_with() -> None:
    sector = np.repeat([0, 1], 20)
    volatility = np.full(40, 0.3)
    prices = draw_prices(
        sector, volatility, num_days=2521, rng=np.random.default_rng(0), shared=0.5
    )
    moves = np.diff(np.log(prices), axis=0)
    assert (prices[0] == 100.0).all()
    np.testing.assert_allclose(moves.std(axis=0) * 252**0.5, 0.3, rtol=0.06)
    within = np.corrcoef(moves[:, :20].T)[np.triu_indices(20, 1)].mean()
    between = np.corrcoef(moves.T)[:20, 20:].mean()
    assert within == pytest.approx(0.5, abs=0.05)
    assert between == pytest.approx(0.0, abs=0.05)


def test_bolder_investors_buy_what_moves_more(market) -> None:
    sigma = {
        item: numbers[0]
        for item, numbers in market.catalogue.table.select("item", "numbers").rows()
    }
    risk = dict(market.investors.select("user", "risk").iter_rows())
    bought: dict[str, list[float]] = {}
    for user, item in market.interactions.select("user", "item").iter_rows():
        bought.setdefault(risk[user], []).append(sigma[item])
    means = [float(np.mean(bought[name])) for name in RISKS]
    assert means == sorted(means)
    assert means[-1] > 1.5 * means[0]


def test_instruments_have_distinct_names_a_sector_and_a_band(market) -> None:
    table = market.catalogue.table
    assert table["title"].n_unique() == table.height
    assert table["categories"].list.len().to_list() == [2] * table.height


@pytest.mark.parametrize(
    "sizes",
    [{"num_sectors": 13}, {"num_days": 10}, {"num_investors": 0}, {"seed": -1}],
)
def test_impossible_sizes_are_refused(sizes) -> None:
    with pytest.raises(ConfigError, match="finance: expected integers"):
        generate(**sizes)


def test_unknown_sizes_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="keys num_investors, num_instruments"):
        load("finance:banks=3")
    with pytest.raises(ConfigError, match="finance: expected integers"):
        load("finance:num_days=99.5")
