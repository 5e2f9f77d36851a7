"""What personal parameters are worth to each user: ground truth of a simulation.

Simulations only: it looks into every client at once. In each client a fifth of each
user's items is held for the final measure and is used for nothing else on the device:
not to fit, not to tune. (The released student trained on all of a client's rows, under
its promise, so what advantage there is from held items is the released student's.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from client.choosing import LEAST_ITEMS, Values, deal_folds, item_values, leave_out
from client.data import read_client_data
from client.personal import Personal, personal_scores, personalise
from client.randomness import seeded_stream
from client.taste import directions
from common.interactions import FloatArray
from common.intervals import bootstrap_interval
from common.recommend import score_histories
from common.student import Student, load_student
from simulations.evaluation import BOOTSTRAP_SEED
from simulations.personal_record import PersonalGains

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
EDGES = np.round(np.arange(-1.0, 1.0001, 0.05), 2)
BATCH = 256


@dataclass(frozen=True)
class Measured:
    """One client's users; NaN for a user with nothing held.

    Attributes:
        released, personal: NDCG@100 on held items, ``[U]``.
        error: standard error of the difference over the user's held items, ``[U]``;
            NaN for a user with too few.
        held: number of held items, ``[U]``.
        alpha: weight of the taste, ``[U]``.
        organisation: whether the client's own model counts.
    """

    released: Values
    personal: Values
    error: Values
    held: npt.NDArray[np.int64]
    alpha: FloatArray
    organisation: bool


def personal_gains(
    clients: Path, student: Path, *, min_users: int, seed: int = 0
) -> PersonalGains:
    """Personalise every client beside a released student, and measure each user.

    Args:
        clients: the folder of the clients' folders.
        student: a saved student over their catalogue.
        min_users: figures over fewer users are left out or merged.
        seed: who is held out, and who is left out to choose; it protects nothing.
    """
    folders = sorted(path for path in clients.iterdir() if path.is_dir())
    model = load_student(student)
    return summarise_gains(
        [measure_client(folder, model, seed) for folder in folders], min_users
    )


def measure_client(folder: Path, student: Student, seed: int) -> Measured:
    """Personalise one client on four fifths of each user's items, rank for the rest."""
    data = read_client_data(folder)
    rows, axes = data.histories, directions(student, data.catalogue)
    fold = deal_folds(rows, seeded_stream(seed, folder.name, "held"))
    shown, held = leave_out(rows, fold, 0)
    found = personalise(
        student,
        axes,
        shown,
        tuple(map(str, range(rows.shape[0]))),
        seeded_stream(seed, folder.name, "personalise"),
    )
    released, personal = _values(student, axes, found, shown, held)
    count = np.diff(held.indptr).astype(np.int64)
    return Measured(
        released=_means(released, held),
        personal=_means(personal, held),
        error=_errors(personal - released, held),
        held=count,
        alpha=found.alpha,
        organisation=found.organisation is not None,
    )


def _values(
    student: Student,
    axes: FloatArray,
    found: Personal,
    shown: sp.csr_matrix,
    held: sp.csr_matrix,
) -> tuple[Values, Values]:
    """Each held item's share of its user's NDCG@100, without and with."""
    released, personal = [], []
    for part in _batches(shown.shape[0]):
        seen, hidden = shown[part], held[part]
        alone = score_histories(student, seen)(0, seen.shape[0])
        released.append(item_values(alone, seen, hidden))
        scores = personal_scores(found, student, axes, seen, part)
        personal.append(item_values(scores, seen, hidden))
    return np.concatenate(released), np.concatenate(personal)


def _batches(num_users: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, num_users, BATCH):
        yield np.arange(start, min(start + BATCH, num_users))


def _means(value: Values, held: sp.csr_matrix) -> Values:
    """Mean over each user's held items, NaN for a user without."""
    count = np.diff(held.indptr)
    user = np.repeat(np.arange(len(count)), count)
    sums = np.bincount(user, value, minlength=len(count))
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def _errors(gain: Values, held: sp.csr_matrix) -> Values:
    """Standard error of each user's mean gain over held items, NaN for too few."""
    count = np.diff(held.indptr)
    variance = np.maximum(_means(gain**2, held) - _means(gain, held) ** 2, 0.0)
    error = np.sqrt(variance / np.maximum(count - 1, 1))
    return np.where(count >= LEAST_ITEMS, error, np.nan)


def summarise_gains(measured: list[Measured], min_users: int) -> PersonalGains:
    """The distribution of gains over the users of all clients."""
    released = np.concatenate([each.released for each in measured])
    personal = np.concatenate([each.personal for each in measured])
    kept = ~np.isnan(released)
    gain = (personal - released)[kept]
    if len(gain) < max(min_users, 1):
        return PersonalGains(
            suppressed="Gains of personal parameters are suppressed: fewer than "
            f"{min_users} users stand behind them (evaluation.min-group-users)."
        )
    error = np.concatenate([each.error for each in measured])[kept]
    held = np.concatenate([each.held for each in measured])[kept]
    judged = ~np.isnan(error)
    interval = bootstrap_interval(gain, seed=BOOTSTRAP_SEED)
    edges, counts = histogram(gain, min_users)
    # Shares come in steps of so many users, and a judgement needs as many judges.
    judged &= judged.sum() >= max(min_users, 1)
    noise = _student_t(held[judged]) * error[judged]
    return PersonalGains(
        users=len(gain),
        clients=len(measured),
        organisations=sum(each.organisation for each in measured),
        released=float(released[kept].mean()),
        personal=float(personal[kept].mean()),
        gain=interval.value,
        low=interval.low,
        high=interval.high,
        better=_share(gain > 0, min_users),
        equal=_share(gain == 0, min_users),
        worse=_share(gain < 0, min_users),
        judged=int(judged.sum()),
        surely_better=_share(gain[judged] > noise, min_users),
        surely_worse=_share(gain[judged] < -noise, min_users),
        alpha=float(np.concatenate([each.alpha for each in measured]).mean()),
        quantiles=quantiles(gain, min_users),
        edges=edges,
        counts=counts,
    )


def quantiles(gain: Values, min_users: int) -> tuple[tuple[float, float], ...]:
    """Pairs (level, gain), where at least ``min_users`` lie beyond the level."""
    return tuple(
        (level, float(np.quantile(gain, level)))
        for level in LEVELS
        if min(level, 1 - level) * len(gain) >= min_users
    )


def histogram(
    gain: Values, min_users: int
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Edges and counts; bins are merged from the left until each has enough users.

    What is left over at the right end goes to the last bin.
    """
    fine, _ = np.histogram(gain, EDGES)
    edges, counts, pending = [float(EDGES[0])], [], 0
    for count, right in zip(fine.tolist(), EDGES[1:].tolist(), strict=True):
        pending += count
        if pending >= max(min_users, 1):
            counts.append(pending)
            edges.append(right)
            pending = 0
    if not counts:
        return (edges[0], float(EDGES[-1])), (pending,)
    counts[-1] += pending
    edges[-1] = float(EDGES[-1]) if pending else edges[-1]
    return tuple(edges), tuple(counts)


def _student_t(held: npt.NDArray[np.int64]) -> Values:
    """Half-width of a 95 % interval in standard errors, for so many held items."""
    from scipy.stats import t

    return np.asarray(t.ppf(0.975, np.maximum(held - 1, 1)), dtype=np.float64)


def _share(found: npt.NDArray[np.bool_], min_users: int) -> float:
    """The share of users, to the next step of ``min_users`` of them."""
    step = max(min_users, 1)
    count = round(int(found.sum()) / step) * step
    return min(1.0, count / len(found)) if len(found) else 0.0
