"""Personal parameters of a device's users: fitted without noise, they never leave.

Client only. Around the released student stand two things made of the client's own
rows: where it holds many users, a model of all of them (``organisation``), and for
each user a taste (``taste``). How much of either counts is chosen on the users' own
left-out items (``choosing``), none unless it gains more than its standard error.
Personal layers: Arivazhagan et al. 2019 (arXiv 1912.00818); mixing a local and a
global model: Deng et al. 2020 (arXiv 2003.13461).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from client.choosing import (
    FOLDS,
    LEAST_USERS,
    IntArray,
    Judged,
    Values,
    choose,
    crossed,
    deal_folds,
    item_values,
    leave_out,
    pooled_choice,
)
from client.organisation import Organisation, fit_organisation
from client.randomness import RandomStream
from client.taste import fit_taste
from common.interactions import FloatArray
from common.recommend import score_histories
from common.student import Student

#: Ridge of the organisation's model, and its share in a mixture: what is tried.
RIDGES = (1.0, 3.0, 10.0)
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
#: How much of a taste counts: what is tried.
ALPHAS = (0.25, 0.5, 1.0)
#: Users held dense at once, and users who judge the organisation's model.
BATCH = 128
JUDGES = 512


@dataclass(frozen=True)
class Personal:
    """What a device knows of its users beside the released student.

    Attributes:
        users: pseudonyms, in the order of the rows of what follows.
        organisation: the model of all of the client's users, if it is of use.
        share: of the organisation's model for a user not in ``users``, in [0, 1].
        user_share: of the organisation's model by user, float32 ``[U]``.
        alpha: how much of the taste counts by user, float32 ``[U]`` in [0, 1].
        taste: float32 ``[U, q]``, weights over ``taste.directions``.
        before, after: NDCG@100 on left-out items by user, float32 ``[U]``, of the
            student alone and of what was chosen on other left-out items; NaN for a
            user with nothing to leave out.
    """

    users: tuple[str, ...]
    organisation: Organisation | None
    share: float
    user_share: FloatArray
    alpha: FloatArray
    taste: FloatArray
    before: FloatArray
    after: FloatArray


@dataclass(frozen=True)
class _Base:
    """Where a candidate starts: a share of the organisation's model."""

    organisation: Organisation | None
    share: float

    def score(self, student: Student, rows: sp.csr_matrix) -> FloatArray:
        """Standardised scores of histories, ``[B, num_items]``."""
        scores = standardise(score_histories(student, rows)(0, rows.shape[0]))
        if self.organisation is None or not self.share:
            return scores
        theirs = standardise(self.organisation.score(rows))
        return standardise((1.0 - self.share) * scores + self.share * theirs)


def standardise(scores: FloatArray) -> FloatArray:
    """Each row with mean 0 and deviation 1, so that models can be mixed; float32."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    found: FloatArray = centred / np.maximum(
        centred.std(axis=1, keepdims=True), np.float32(1e-12)
    )
    return found


def personal_scores(
    personal: Personal,
    student: Student,
    axes: FloatArray,
    histories: sp.csr_matrix,
    user: IntArray,
) -> FloatArray:
    """Scores for histories of known users, float32 ``[B, num_items]``.

    Args:
        axes: of ``taste.directions``.
        histories: multi-hot CSR ``[B, num_items]``; a user's own history may have
            grown since.
        user: int64 ``[B]``, rows of ``personal.users``; −1 for somebody else, who
            gets the organisation's share and no taste.
    """
    known = user >= 0
    share = np.where(known, personal.user_share[user], personal.share)
    scores = np.empty(histories.shape, dtype=np.float32)
    for value in np.unique(share):
        base = _Base(personal.organisation, float(value))
        mine = share == value
        scores[mine] = base.score(student, histories[mine])
    weight = np.where(known, personal.alpha[user], 0.0)[:, None]
    scores += (weight * personal.taste[user]).astype(np.float32) @ axes.T
    return scores


def personalise(
    student: Student,
    axes: FloatArray,
    rows: sp.csr_matrix,
    users: tuple[str, ...],
    stream: RandomStream,
) -> Personal:
    """Fit and choose a client's personal parameters, from its own rows alone.

    Args:
        student: the released one, on the CPU.
        axes: of ``taste.directions``.
        rows: multi-hot CSR float32 ``[U, num_items]``.
        users: pseudonyms of the rows, ``U``.
        stream: who is left out when; anything but noise.
    """
    fold = deal_folds(rows, stream)
    ridge, share = _choose_organisation(student, rows, fold, stream)
    judged = _judge_tastes(student, axes, rows, fold, ridge, share)
    default, choice = choose(judged)
    before, after = crossed(judged)
    if not _is_sure(after - before):
        default, choice, after = 0, np.zeros_like(choice), before
    shares, alphas = _candidates(share)
    of_user, strength = np.take(shares, choice), np.take(alphas, choice)
    model = fit_organisation(rows, ridge) if share and of_user.any() else None
    return Personal(
        users=users,
        organisation=model,
        share=float(shares[default]),
        user_share=of_user.astype(np.float32),
        alpha=strength.astype(np.float32),
        taste=_tastes(student, axes, rows, model, of_user, strength),
        before=before.astype(np.float32),
        after=after.astype(np.float32),
    )


def _candidates(share: float) -> tuple[Values, Values]:
    """Share and alpha of each candidate; the released student alone is number 0."""
    bases = (0.0, share) if share else (0.0,)
    pairs = [(base, alpha) for base in bases for alpha in (0.0, *ALPHAS)]
    shares, alphas = np.asarray(pairs).T
    return shares, alphas


def _choose_organisation(
    student: Student, rows: sp.csr_matrix, fold: IntArray, stream: RandomStream
) -> tuple[float, float]:
    """Ridge and share of the organisation's model; share 0 where it is of no use."""
    if rows.shape[0] < LEAST_USERS:
        return RIDGES[0], 0.0
    judges = np.sort(np.argsort(stream.uniform(rows.shape[0]))[:JUDGES])
    pairs = [(RIDGES[0], 0.0), *((r, s) for r in RIDGES for s in SHARES)]
    parts = []
    for number in range(FOLDS):
        shown, hidden = leave_out(rows, fold, number)
        models = {ridge: fit_organisation(shown, ridge) for ridge in RIDGES}
        for part in _batches(judges):
            bases = [_Base(models[r], s) for r, s in pairs]
            scores = (base.score(student, shown[part]) for base in bases)
            parts.append(_judge(scores, shown[part], hidden[part], part, number))
    return pairs[pooled_choice(_joined(parts, rows.shape[0]))]


def _judge_tastes(
    student: Student,
    axes: FloatArray,
    rows: sp.csr_matrix,
    fold: IntArray,
    ridge: float,
    share: float,
) -> Judged:
    """Every candidate of :func:`_candidates` on every user's left-out items."""
    parts = []
    for number in range(FOLDS):
        shown, hidden = leave_out(rows, fold, number)
        model = fit_organisation(shown, ridge) if share else None
        bases = [_Base(None, 0.0), *([_Base(model, share)] if share else [])]
        for part in _batches(np.arange(rows.shape[0])):
            scores = _with_tastes(student, axes, shown[part], bases)
            parts.append(_judge(scores, shown[part], hidden[part], part, number))
    return _joined(parts, rows.shape[0])


def _with_tastes(
    student: Student, axes: FloatArray, shown: sp.csr_matrix, bases: list[_Base]
) -> Iterator[FloatArray]:
    for base in bases:
        offset = base.score(student, shown)
        yield offset
        moved = fit_taste(offset, shown, axes) @ axes.T
        for alpha in ALPHAS:
            yield offset + np.float32(alpha) * moved


def _judge(
    scores: Iterator[FloatArray],
    shown: sp.csr_matrix,
    hidden: sp.csr_matrix,
    users: IntArray,
    number: int,
) -> Judged:
    value = np.stack([item_values(each, shown, hidden) for each in scores])
    user = np.repeat(users, np.diff(hidden.indptr))
    return Judged(user, np.full(len(user), number), value, 0)


def _joined(parts: list[Judged], num_users: int) -> Judged:
    return Judged(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.fold for part in parts]),
        np.concatenate([part.value for part in parts], axis=1),
        num_users,
    )


def _is_sure(gain: Values) -> bool:
    """Whether choosing gained more than its standard error over the client's users.

    One user has none: the choice was held to the error over the user's own items.
    """
    gain = gain[~np.isnan(gain)]
    if len(gain) < LEAST_USERS:
        return bool(len(gain)) and gain.mean() > 0
    return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))


def _tastes(
    student: Student,
    axes: FloatArray,
    rows: sp.csr_matrix,
    model: Organisation | None,
    share: Values,
    alpha: Values,
) -> npt.NDArray[np.float32]:
    """The taste of each user for whom it counts, beside the base chosen for them."""
    found = np.zeros((rows.shape[0], axes.shape[1]), dtype=np.float32)
    for value in np.unique(share):
        base = _Base(model, float(value))
        for part in _batches(np.flatnonzero((share == value) & (alpha > 0))):
            own = rows[part]
            found[part] = fit_taste(base.score(student, own), own, axes)
    return found


def _batches(users: IntArray) -> Iterator[IntArray]:
    for start in range(0, len(users), BATCH):
        yield users[start : start + BATCH]
