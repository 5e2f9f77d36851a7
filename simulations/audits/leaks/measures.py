"""How much an attack found out of each user's items, and the record of it.

Simulations only: it holds scores against ground truth. Figures are means over users,
so that somebody with many items counts no more than another, with an interval by the
bootstrap over users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from common.intervals import bootstrap_interval
from simulations.audits.findings import CheckRecord, LeakRecord
from simulations.audits.roc import area_under_curve

Float = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

#: Of the bootstrap: every attack is resampled on the same users.
_SEED = 0


@dataclass(frozen=True)
class Question:
    """What is to be found out of each user.

    Attributes:
        known: items that the attacker was given, bool ``[users, n]``.
        hidden: items that the user touched beside them, bool ``[users, n]``.
    """

    known: Bool
    hidden: Bool

    def auc(self, scores: Float) -> Float:
        """The chance that a hidden item scores above one never touched, by user.

        NaN for a user with nothing hidden.
        """
        return np.asarray([self._auc(*user) for user in self._each(scores)])

    def precision(self, scores: Float) -> Float:
        """Share of hidden items among as many best, by user; NaN likewise.

        At that length it is the recall too. Of items with equal scores each is as
        likely to be among the best.
        """
        return np.asarray([self._precision(*user) for user in self._each(scores)])

    def _each(self, scores: Float) -> list[tuple[Float, Bool]]:
        unknown = ~self.known
        return [
            (score[open_], hidden[open_])
            for score, hidden, open_ in zip(scores, self.hidden, unknown, strict=True)
        ]

    @staticmethod
    def _auc(scores: Float, hidden: Bool) -> float:
        return area_under_curve(scores, hidden) if hidden.any() else np.nan

    @staticmethod
    def _precision(scores: Float, hidden: Bool) -> float:
        length = int(hidden.sum())
        if not length:
            return np.nan
        threshold = np.partition(scores, len(scores) - length)[len(scores) - length]
        above, level = scores > threshold, scores == threshold
        left = length - int(above.sum())
        share = float(hidden[level].mean()) * left
        return (int(hidden[above].sum()) + share) / length


@dataclass(frozen=True)
class Subject:
    """What a figure is about.

    Attributes:
        attack: ``interactions``, ``attribute:gender``, …
        viewpoint: key of ``VIEWPOINTS``.
        released: what was attacked.
        promised: whether the run's promise covers it.
        note: what the attacker knew, and what else a reader must know.
    """

    attack: str
    viewpoint: str
    released: str
    promised: bool
    note: str

    def record(
        self,
        measure: str,
        values: Float,
        baseline: float,
        baseline_is: str,
        confidence: float,
    ) -> LeakRecord:
        """A record of a mean over users.

        No bound is set beside it: what a promise bounds is how much one's own rows
        change, and these figures count what is told from other knowledge as well.

        Args:
            values: of each user, in [0, 1]; NaN for none.
        """
        found = bootstrap_interval(values, seed=_SEED, confidence=confidence)
        return LeakRecord(
            attack=self.attack,
            viewpoint=self.viewpoint,
            released=self.released,
            measure=measure,
            achieved=within(found.value),
            low=within(found.low),
            high=within(found.high),
            confidence=confidence,
            baseline=within(baseline),
            baseline_is=baseline_is,
            num_targets=int((~np.isnan(values)).sum()),
            promised=self.promised,
            allowed=None,
            exceeds=False,
            note=self.note,
        )


def within(value: float) -> float:
    """A share, whatever rounding made of it."""
    return float(min(1.0, max(0.0, value)))


def unknown(what: str, detail: str) -> CheckRecord:
    """Says that something was not attacked, and why: no figure is no proof."""
    return CheckRecord(
        check=f"leaks of {what}",
        assumption=f"What leaks of {what} was measured.",
        source="rerun",
        finding="unknown",
        measure="",
        expected=None,
        measured=None,
        low=None,
        high=None,
        detail=detail,
        refutes=False,
    )
