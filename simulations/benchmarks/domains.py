"""What transfer gives between domains, also where it gives nothing or harms.

Simulations only: held-out users, private popularity and a teacher of the target
domain are ground truth nobody else has. Each pair starts a student for the target
domain from a teacher that saw the source alone; no row of the target is used.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp
from rich.table import Table
from scipy.linalg import solve_triangular

from common.config import defaults, parse
from common.fusion import weigh
from common.interactions import encode_held, encode_table
from common.intervals import bootstrap_interval
from common.metrics import Scorer, evaluate_ranking
from common.recommend import constant_scores, score_histories
from common.sections import Features, Transfer
from common.student import StateDict, StudentSpec, build, random_state
from server.content import ContentTeacher, content_factor
from server.features import build_features
from server.negative_transfer import check_transfer
from server.shared_space import common_features
from server.transfer import from_svd, start_across
from simulations.datasets import Dataset, load
from simulations.partition import fold, translate

TITLE = "Transfer across domains"
METRIC = "ndcg@100"
BATCH = 256
SEED = 1
#: λ of the source's teacher: the default of ``teacher.l2``.
SOURCE_RIDGE = 300.0

#: What the transferred start is compared with. Popularity is that of the source's
#: rows on equal titles and of what the public validation users show.
BASELINES = ("random", "public popularity", "content")
#: What saw the target's private rows, and stands for what could be had without privacy.
CEILINGS = ("own popularity", "own teacher")

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """A source and a target domain.

    Attributes:
        name: what the table says.
        source: folder of the public data.
        target: folder of the private data.
        by_title: whether equal titles are the same item, so that the teacher is
            fitted in the target's catalogue; else features alone link them.
        quick: whether the quick benchmark has it too.
    """

    name: str
    source: str
    target: str
    by_title: bool
    quick: bool = False


PAIRS = (
    Pair("movies → music", "ml-100k", "hetrec2011-lastfm-2k", False, True),
    Pair("e-commerce → books", "retailrocket", "book-crossing", False),
    Pair("video shop → books", "amazon-instant-video", "book-crossing", False),
    Pair("movies → books", "ml-100k", "book-crossing", False),
    Pair("movies 1998 → movies 2000", "ml-100k", "ml-1m", True),
    Pair("movies 2000 → movies 1996–2018", "ml-1m", "ml-latest-small", True, True),
)


@dataclass(frozen=True)
class Sizes:
    """How many target users are for what, and the student's width.

    Attributes:
        heldout: to compare on, at most a fifth of all.
        validation: public, to judge by, at most a fifth of all.
        others: whose rows teach popularity and the own teacher, at most.
        dim: of the student.
        ridges: λ of the own teacher, chosen among on validation users.
    """

    heldout: int
    validation: int
    others: int
    dim: int
    ridges: tuple[float, ...]


FULL = Sizes(600, 200, 10_000, 64, (30.0, 100.0, 300.0))
QUICK = Sizes(100, 60, 400, 32, (100.0,))


@dataclass(frozen=True)
class Tables:
    """A linear teacher: scores are ``history @ inputs @ outputs.T``."""

    inputs: Matrix
    outputs: Matrix

    def tables(self, rank: int | None = None) -> tuple[Matrix, Matrix]:
        """Input and output vectors, ``[n, D]`` both, whatever the rank asked for."""
        return self.inputs, self.outputs


@dataclass(frozen=True)
class Target:
    """The target domain's users dealt out; CSR ``[users, n]`` all."""

    rows: sp.csr_matrix
    validation: tuple[sp.csr_matrix, sp.csr_matrix]
    heldout: tuple[sp.csr_matrix, sp.csr_matrix]


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """Compare starts on every pair whose folders are there.

    Args:
        data: folder of data sets.
        quick: two pairs, fewer users, a narrower student.

    Returns:
        ``pairs``: a record each; ``missing``: pairs whose folders were not found.
    """
    found, missing = [], []
    for pair in PAIRS:
        if quick and not pair.quick:
            continue
        folders = (data / pair.source, data / pair.target)
        if not all(folder.is_dir() for folder in folders):
            missing.append(pair.name)
            continue
        source, target = (load(str(folder)) for folder in folders)
        found.append(compare(pair, source, target, QUICK if quick else FULL))
    return {"metric": METRIC, "pairs": found, "missing": missing}


def compare(
    pair: Pair, source: Dataset, target: Dataset, sizes: Sizes
) -> dict[str, Any]:
    """Rank held-out users of the target by each start; JSON-able."""
    began = time.perf_counter()
    dealt = deal(target, sizes)
    config = parse(defaults())
    spec = StudentSpec(target.catalogue.num_items, sizes.dim, 1.0, 1.0)
    start = _by_title if pair.by_title else _by_features
    state, seen, how = start(source, target, spec, config.features, config.transfer)
    public = seen + count(dealt.validation[0])
    own, ridge = _own_teacher(dealt, sizes.ridges)
    content = weigh(build_features(target.catalogue, config.features), {})
    scorers: dict[str, Callable[[sp.csr_matrix], Scorer]] = {
        "random": lambda shown: score_histories(
            build(spec, random_state(spec, _generator())).eval(), shown
        ),
        "public popularity": lambda shown: constant_scores(public),
        "own popularity": lambda shown: constant_scores(count(dealt.rows)),
        "content": lambda shown: _linear(
            Tables(*ContentTeacher(content_factor(content)).tables()), shown
        ),
        "transferred": lambda shown: score_histories(build(spec, state).eval(), shown),
        "own teacher": lambda shown: _linear(own, shown),
    }
    shown, held = dealt.heldout
    values = {name: _ndcg(make(shown), shown, held) for name, make in scorers.items()}
    check = check_transfer(state, spec, *dealt.validation, public, seed=SEED)
    gains = {
        name: asdict(
            bootstrap_interval(values["transferred"] - values[name], seed=SEED)
        )
        for name in BASELINES
    }
    return {
        "name": pair.name,
        "source": pair.source,
        "target": pair.target,
        "how": how,
        "source_users": source.interactions["user"].n_unique(),
        "target_users": dealt.rows.shape[0],
        "heldout_users": shown.shape[0],
        "items": spec.num_items,
        "dim": spec.dim,
        "own_teacher_l2": ridge,
        "ndcg": {name: float(np.nanmean(value)) for name, value in values.items()},
        "gains": gains,
        "verdict": check.sentence if check else "too few validation users to say",
        "negative": bool(check and check.negative),
        "seconds": time.perf_counter() - began,
    }


def deal(target: Dataset, sizes: Sizes) -> Target:
    """Held-out and validation users, a fifth of all at most; the rest are private."""
    rng = np.random.default_rng(SEED)
    users = rng.permutation(target.interactions["user"].unique(maintain_order=True))
    most = len(users) // 5
    cuts = np.cumsum([min(sizes.heldout, most), min(sizes.validation, most)])
    heldout, validation, others = np.split(users, cuts)

    def of(names: npt.NDArray[Any]) -> pl.DataFrame:
        return target.interactions.filter(pl.col("user").is_in(names.tolist()))

    items = target.catalogue.items
    return Target(
        encode_table(of(others[: sizes.others]), items).interactions.matrix(),
        encode_held(fold(of(validation), 0.8, rng), items),
        encode_held(fold(of(heldout), 0.8, rng), items),
    )


def _by_title(
    source: Dataset,
    target: Dataset,
    spec: StudentSpec,
    features: Features,
    settings: Transfer,
) -> tuple[StateDict, Matrix, str]:
    """The teacher in the target's catalogue, unseen items from their content."""
    rows, _ = translate(source, target.catalogue)
    matrix = encode_table(rows, target.catalogue.items).interactions.matrix()
    seen = count(matrix)
    known = seen > 0
    content = weigh(build_features(target.catalogue, features), {})
    taught = ease_tables(matrix, SOURCE_RIDGE)
    share = rows.height / max(source.interactions.height, 1)
    how = (
        f"equal titles ({share:.0%} of the source's rows), "
        f"{int((~known).sum())} of {len(known)} items from content"
    )
    return from_svd(taught, content, known, spec, settings), seen, how


def _by_features(
    source: Dataset,
    target: Dataset,
    spec: StudentSpec,
    features: Features,
    settings: Transfer,
) -> tuple[StateDict, Matrix, str]:
    """Nothing but text, categories and periods in common."""
    ours, theirs, crossed = common_features(
        source.catalogue, target.catalogue, features
    )
    unseen = np.zeros(spec.num_items, dtype=np.float32)
    if not crossed:
        state = random_state(spec, _generator())
        return state, unseen, "nothing: the source's items have no text, no categories"
    matrix = encode_table(
        source.interactions, source.catalogue.items
    ).interactions.matrix()
    taught = ease_tables(matrix, SOURCE_RIDGE)
    known = count(matrix) > 0
    state = start_across(taught, ours, known, theirs, spec, settings)
    return state, unseen, f"features of both: {', '.join(crossed)}"


def count(rows: sp.csr_matrix) -> Matrix:
    """Users of each item, float32 ``[n]``."""
    return np.asarray(rows.sum(axis=0), dtype=np.float32).ravel()


def ease_tables(rows: sp.csr_matrix, l2: float) -> Tables:
    """EASE (Steck 2019) as two tables, in the smaller of users and touched items.

    With P = (XᵀX + λI)⁻¹ an item is scored by −P/diag P, the diagonal aside, which
    only concerns items that are seen. Where users are fewer than items, Woodbury's
    λP = I − Xᵀ(XXᵀ + λI)⁻¹X gives it at users² memory instead of items².

    Args:
        rows: multi-hot, CSR ``[users, n]``.
        l2: λ > 0.

    Returns:
        Tables ``[n, min(users, touched items)]``; zero for untouched items.
    """
    touched = np.flatnonzero(np.diff(rows.tocsc().indptr))
    dense = np.asarray(rows[:, touched].todense(), dtype=np.float64)
    users, items = dense.shape
    if items <= users:
        inverse = np.linalg.inv(dense.T @ dense + l2 * np.eye(items))
        left = -inverse / np.diag(inverse)
        np.fill_diagonal(left, 0.0)
        right = np.eye(items)
    else:
        factor = np.linalg.cholesky(dense @ dense.T + l2 * np.eye(users))
        left = solve_triangular(factor, dense, lower=True).T
        right = left / (1.0 - (left**2).sum(axis=1))[:, None]
    whole = np.zeros((2, rows.shape[1], left.shape[1]), dtype=np.float32)
    whole[:, touched] = left, right
    return Tables(whole[0], whole[1])


def _own_teacher(dealt: Target, ridges: tuple[float, ...]) -> tuple[Tables, float]:
    """What the target's own rows would teach without privacy: the ceiling."""
    shown, held = dealt.validation
    tried = {ridge: ease_tables(dealt.rows, ridge) for ridge in ridges}
    value = {
        ridge: float(np.nanmean(_ndcg(_linear(taught, shown), shown, held)))
        for ridge, taught in tried.items()
    }
    best = max(value, key=lambda ridge: value[ridge])
    return tried[best], best


def _linear(taught: Tables, shown: sp.csr_matrix) -> Scorer:
    def score(start: int, stop: int) -> Matrix:
        return np.asarray(
            (shown[start:stop] @ taught.inputs) @ taught.outputs.T, dtype=np.float32
        )

    return score


def _generator() -> Any:
    import torch

    return torch.Generator().manual_seed(SEED)


def _ndcg(
    scorer: Scorer, shown: sp.csr_matrix, held: sp.csr_matrix
) -> npt.NDArray[np.float64]:
    found = evaluate_ranking(scorer, shown, held, batch_size=BATCH, metrics=[METRIC])
    return np.asarray(found[METRIC], dtype=np.float64)


def tables(found: dict[str, Any]) -> list[Table]:
    """NDCG@100 a pair and start, what was gained over each baseline, the verdict."""
    models = (*BASELINES, "transferred", *CEILINGS)
    values = Table(
        "pair",
        *models,
        title=f"{TITLE}: NDCG@100 on held-out target users",
        caption=f"{' and '.join(CEILINGS)} saw the target's rows: NOT PRIVATE",
    )
    gains = Table("pair", *(f"over {name}" for name in BASELINES), "what crossed")
    verdicts = Table("pair", "verdict on public validation users")
    for pair in found["pairs"]:
        values.add_row(pair["name"], *(f"{pair['ndcg'][name]:.4f}" for name in models))
        shown = [
            f"{gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
            for gain in pair["gains"].values()
        ]
        gains.add_row(pair["name"], *shown, pair["how"])
        verdicts.add_row(pair["name"], pair["verdict"])
    for name in found["missing"]:
        verdicts.add_row(name, "not measured: data folder not found")
    return [values, gains, verdicts]
