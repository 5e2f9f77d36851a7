"""A generated market: investors who buy instruments whose prices move.

Simulations only. No public set of holdings and trades can be had, so this one is
generated and says so; it shows that the pipeline runs, never how well it recommends
real investments. Prices follow geometric Brownian motion (Black & Scholes 1973) with
a factor a sector; an investor buys by size, sector taste, nearness of an
instrument's volatility to the risk they bear, and how it rose of late.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from common.catalogue import OPTIONAL, SCHEMA, Catalogue
from common.errors import ConfigError
from common.interactions import SCHEMA as ROWS
from common.repairs import ReadReport

SOURCE = (
    "Generated: no public data set of holdings and trades can be had. Investors, "
    "instruments, prices and trades are invented."
)
SECTORS = (
    "Energy",
    "Health",
    "Software",
    "Banking",
    "Utilities",
    "Retail",
    "Materials",
    "Transport",
    "Media",
    "Property",
    "Insurance",
    "Semiconductors",
)
WORDS = (
    "Alder",
    "Beacon",
    "Cobalt",
    "Delta",
    "Ember",
    "Fjord",
    "Granite",
    "Harbour",
    "Iris",
    "Juniper",
    "Kestrel",
    "Lumen",
    "Meridian",
    "Northern",
    "Orchard",
    "Pioneer",
    "Quarry",
    "River",
    "Summit",
    "Tidal",
    "Union",
    "Vector",
    "Willow",
    "Zenith",
)
#: Upper ends of the bands of annual volatility, and of wealth in thousands.
VOLATILITY_BANDS = ((0.15, "low"), (0.3, "medium"), (np.inf, "high"))
WEALTH_BANDS = ((20.0, "small"), (100.0, "medium"), (np.inf, "large"))
RISKS = ("cautious", "careful", "balanced", "bold", "daring")
YEAR = 252
#: 2020-01-01, a Wednesday, 09:00 UTC.
START = 1_577_869_200
DAY = 86_400

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Market:
    """What was generated.

    Attributes:
        interactions: columns of ``interactions.SCHEMA``: each instrument an investor
            bought, value the money paid in all, timestamp the first purchase.
        investors: ``user``, ``age`` in years, ``risk``, ``wealth``: strings.
        trades: ``user, item, side, day, shares, price, timestamp``, in time order;
            ``side`` is ``buy`` or ``sell``, ``shares`` are positive.
        holdings: ``user, item, shares, worth`` at the last day's prices.
        prices: ``[num_days, num_instruments]``, all 100 on the first day.
        report: how many purchases became how many rows.
    """

    interactions: pl.DataFrame
    catalogue: Catalogue
    investors: pl.DataFrame
    trades: pl.DataFrame
    holdings: pl.DataFrame
    prices: FloatArray
    report: ReadReport


@dataclass(frozen=True)
class _Instruments:
    """``sector`` int ``[n]``; ``volatility`` a year and ``size`` (log) ``[n]``."""

    sector: IntArray
    volatility: FloatArray
    size: FloatArray


@dataclass(frozen=True)
class _Investors:
    """``age`` years, ``risk`` 0–4, ``wealth`` thousands ``[m]``; taste ``[m, S]``."""

    age: IntArray
    risk: IntArray
    wealth: FloatArray
    taste: FloatArray


def generate(
    *,
    num_investors: int = 1200,
    num_instruments: int = 400,
    num_sectors: int = 10,
    num_days: int = 500,
    seed: int = 0,
) -> Market:
    """A market, the same for a seed.

    Args:
        num_investors: at least 1.
        num_instruments: at least ``num_sectors``.
        num_sectors: 1 to 12.
        num_days: trading days, at least 30.
        seed: at least 0.

    Raises:
        ConfigError: naming what was expected.
    """
    sizes = (num_investors, num_instruments, num_sectors, num_days, seed)
    if (
        not all(isinstance(size, int) for size in sizes)
        or min(num_investors, num_sectors) < 1
        or num_sectors > min(len(SECTORS), num_instruments)
        or num_days < 30
        or seed < 0
    ):
        raise ConfigError(
            "finance: expected integers with num_investors ≥ 1, num_sectors in "
            f"1…{len(SECTORS)} and at most num_instruments, num_days ≥ 30, seed ≥ 0; "
            f"got {sizes}."
        )
    rng = np.random.default_rng(seed)
    instruments = _draw_instruments(num_instruments, num_sectors, rng)
    investors = _draw_investors(num_investors, num_sectors, rng)
    prices = draw_prices(
        instruments.sector, instruments.volatility, num_days=num_days, rng=rng
    )
    trades = _draw_trades(investors, instruments, prices, rng)
    interactions = _interactions(trades)
    buys = trades.filter(pl.col("side") == "buy").height
    merged = {"duplicates": buys - interactions.height}
    return Market(
        interactions,
        _catalogue(instruments),
        _people(investors),
        trades,
        _holdings(trades, prices[-1]),
        prices,
        ReadReport(
            Path("finance"), "generated", buys, interactions.height, merged, (SOURCE,)
        ),
    )


def _draw_instruments(n: int, sectors: int, rng: np.random.Generator) -> _Instruments:
    sector = rng.permutation(np.arange(n) % sectors)
    level = rng.uniform(0.1, 0.45, size=sectors)
    volatility = np.clip(level[sector] * rng.lognormal(0.0, 0.35, size=n), 0.04, 1.0)
    return _Instruments(sector, volatility, -np.log1p(rng.permutation(n)) * 0.8)


def _draw_investors(m: int, sectors: int, rng: np.random.Generator) -> _Investors:
    age = np.clip(rng.normal(48, 15, size=m).round(), 18, 90).astype(np.int64)
    bold = rng.normal(2.0, 1.1, size=m) - (age - 48) / 25
    wealth = rng.lognormal(3.0 + (age - 18) / 60, 1.0, size=m)
    taste = np.log(rng.dirichlet(np.full(sectors, 0.5), size=m) + 1e-3)
    return _Investors(age, np.clip(bold.round(), 0, 4).astype(np.int64), wealth, taste)


def draw_prices(
    sector: IntArray,
    volatility: FloatArray,
    *,
    num_days: int,
    rng: np.random.Generator,
    shared: float = 0.5,
) -> FloatArray:
    """Geometric Brownian motion from 100, daily, with a common shock a sector.

    ``d log S = (μ − σ²/2) dt + σ (√shared dF + √(1−shared) dW)``, with F the sector's
    own motion and μ = 0.02 + 0.2 σ a year.

    Args:
        sector: int64 ``[n]``.
        volatility: σ a year, float64 ``[n]``.
        num_days: at least 1; 252 make a year.
        rng: what draws.
        shared: share of an instrument's variance that is its sector's, in [0, 1].

    Returns:
        Prices float64 ``[num_days, n]``.
    """
    step = 1.0 / YEAR
    factors = rng.normal(size=(num_days - 1, int(sector.max()) + 1))[:, sector]
    own = rng.normal(size=(num_days - 1, len(sector)))
    shock = np.sqrt(shared) * factors + np.sqrt(1.0 - shared) * own
    drift = 0.02 + 0.2 * volatility - volatility**2 / 2
    moves = drift * step + volatility * np.sqrt(step) * shock
    path = np.vstack([np.zeros(len(sector)), np.cumsum(moves, axis=0)])
    prices: FloatArray = 100.0 * np.exp(path)
    return prices


def _draw_trades(
    people: _Investors,
    instruments: _Instruments,
    prices: FloatArray,
    rng: np.random.Generator,
) -> pl.DataFrame:
    """Purchases, and for half of them a sale of as many shares some days later."""
    rate = 8.0 + 6.0 * np.log1p(people.wealth / 20.0)
    buyer = np.repeat(np.arange(len(rate)), rng.poisson(rate) + 2)
    last = len(prices) - 1
    day = np.sort(rng.integers(0, last + 1, size=len(buyer)))
    buyer = rng.permutation(buyer)
    item = _choose(people, instruments, prices, buyer, day, rng)
    amount = people.wealth[buyer] * 1000 * rng.uniform(0.01, 0.1, size=len(buyer))
    shares = np.maximum(1, np.floor(amount / prices[day, item])).astype(np.int64)
    sold = day + 1 + rng.geometric(1 / 90, size=len(day))
    sells = (rng.random(len(day)) < 0.5) & (sold <= last)
    hour = rng.integers(0, 8 * 3600, size=2 * len(day))
    buys = _trades("buy", buyer, item, day, shares, prices, hour[: len(day)])
    sales = _trades(
        "sell",
        buyer[sells],
        item[sells],
        sold[sells],
        shares[sells],
        prices,
        hour[len(day) :][sells],
    )
    return pl.concat([buys, sales]).sort("timestamp", maintain_order=True)


def _choose(
    people: _Investors,
    instruments: _Instruments,
    prices: FloatArray,
    buyer: IntArray,
    day: IntArray,
    rng: np.random.Generator,
) -> IntArray:
    """One instrument a purchase, by a multinomial logit (Gumbel's trick)."""
    before = np.maximum(np.arange(len(prices)) - 20, 0)
    rise = np.log(prices / prices[before])
    wanted = 0.08 * (1.0 + people.risk)
    chosen = np.empty(len(buyer), dtype=np.int64)
    for start in range(0, len(buyer), 2048):
        who, when = buyer[start : start + 2048], day[start : start + 2048]
        gap = (instruments.volatility[None, :] - wanted[who, None]) / 0.1
        score = instruments.size + people.taste[who][:, instruments.sector]
        score = score - gap**2 / 2 + 3.0 * rise[when]
        chosen[start : start + 2048] = np.argmax(
            score + rng.gumbel(size=score.shape), axis=1
        )
    return chosen


def _trades(
    side: str,
    user: IntArray,
    item: IntArray,
    day: IntArray,
    shares: IntArray,
    prices: FloatArray,
    second: IntArray,
) -> pl.DataFrame:
    # Trading days are Monday to Friday; day 0 is a Wednesday.
    calendar = (day + 2) // 5 * 7 + (day + 2) % 5 - 2
    return pl.DataFrame(
        {
            "user": (user + 1).astype(str).tolist(),
            "item": (item + 1).astype(str).tolist(),
            "side": [side] * len(user),
            "day": day,
            "shares": shares,
            "price": prices[day, item],
            "timestamp": START + calendar * DAY + second,
        },
        schema_overrides={"user": pl.String, "item": pl.String, "side": pl.String},
    )


def _interactions(trades: pl.DataFrame) -> pl.DataFrame:
    """Each pair once: the money paid for it, and when it was first bought."""
    money = (pl.col("shares") * pl.col("price")).sum().cast(pl.Float32)
    bought = trades.filter(pl.col("side") == "buy")
    rows = bought.group_by("user", "item", maintain_order=True).agg(
        money.alias("value"), pl.col("timestamp").min()
    )
    return rows.match_to_schema(ROWS)


def _holdings(trades: pl.DataFrame, last: FloatArray) -> pl.DataFrame:
    signed = pl.when(pl.col("side") == "buy").then(1).otherwise(-1) * pl.col("shares")
    held = trades.group_by("user", "item", maintain_order=True).agg(
        signed.sum().alias("shares")
    )
    held = held.filter(pl.col("shares") > 0)
    price = last[held["item"].cast(pl.Int64).to_numpy() - 1]
    return held.with_columns(worth=pl.col("shares") * pl.Series(price))


def _catalogue(instruments: _Instruments) -> Catalogue:
    titles, seen = [], dict.fromkeys(range(len(SECTORS)), 0)
    for sector in instruments.sector.tolist():
        turn, word = divmod(seen[sector], len(WORDS))
        number = f" {turn + 1}" if turn else ""
        titles.append(f"{WORDS[word]} {SECTORS[sector]}{number}")
        seen[sector] += 1
    columns = {
        "item": [str(i + 1) for i in range(len(titles))],
        "title": titles,
        "year": [0] * len(titles),
        "categories": [
            [SECTORS[sector], f"volatility: {_band(sigma, VOLATILITY_BANDS)}"]
            for sector, sigma in zip(
                instruments.sector, instruments.volatility, strict=True
            )
        ],
        "text": [""] * len(titles),
        "numbers": [[float(sigma)] for sigma in instruments.volatility],
    }
    return Catalogue(pl.DataFrame(columns, schema={**SCHEMA, **OPTIONAL}))


def _band(value: float, bands: tuple[tuple[float, str], ...]) -> str:
    return next(name for end, name in bands if value <= end)


def _people(people: _Investors) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": [str(i + 1) for i in range(len(people.age))],
            "age": people.age.astype(str).tolist(),
            "risk": [RISKS[risk] for risk in people.risk],
            "wealth": [_band(float(sum_), WEALTH_BANDS) for sum_ in people.wealth],
        }
    )
