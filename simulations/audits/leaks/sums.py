"""Evidence in noised sums of items and of pairs of them.

Simulations only. What is left of a sum when everybody else's rows are taken off is one
user's contribution and noise. It is linear in the user's items (counts) and quadratic
(pairs, and pairs along the server's directions), scaled to norm 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from client.randomness import seeded_stream
from client.statistics import pair_sums, sketch_sum
from common import wire
from common.plan import statistics_noise
from common.statistics import pair_shapes
from simulations.audits.leaks.sight import Sight
from simulations.audits.transcript import Exchange
from simulations.audits.world import World

Float = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

#: Noise that is taken for there where none was added: exact numbers decide all.
_NONE = 1e-2


@dataclass(frozen=True)
class PairEvidence:
    """Counts and pairs beyond those of the known rows.

    Attributes:
        chosen: items that count, bool ``[n]``, m of them.
        counts: ``[m]``.
        pairs: symmetric with an empty diagonal, float32 ``[m, m]``.
        share: of the squared norm that is in the counts.
        deviation: of the noise.
        own: the user's places among the chosen items, if its pairs are to be added.
    """

    chosen: Bool
    counts: Float
    pairs: npt.NDArray[np.float32]
    share: float
    deviation: float
    own: IntArray | None = None

    def beside(self, items: Bool) -> PairEvidence:
        """With one user's own contribution, bool ``[n]``."""
        own = np.flatnonzero(items[self.chosen])
        counts = self.counts.copy()
        counts[own] += np.sqrt(self.share / max(len(own), 1))
        return replace(self, counts=counts, own=own)

    def score(self, belief: Float, length: int) -> Float:
        """See ``inference.Evidence``."""
        inside = belief[self.chosen]
        size = max(float(inside.sum()), 1.0)
        weight = np.sqrt((1 - self.share) / max(size * (size - 1) / 2, 0.5))
        found = self.counts * np.sqrt(self.share / size)
        both = self.pairs @ inside.astype(np.float32)
        found += weight * (both + self._own(inside))
        return _spread(self.chosen, found / self.deviation**2)

    def bare(self) -> Float:
        """Where nothing is noised and nobody else is in it: what is simply there."""
        return _spread(self.chosen, self.counts)

    def _own(self, inside: Float) -> Float:
        """The added user's pairs with what is believed."""
        found = np.zeros(len(inside))
        if self.own is not None and len(self.own) > 1:
            size = len(self.own)
            value = np.sqrt((1 - self.share) / (size * (size - 1) / 2))
            found[self.own] = value * (inside[self.own].sum() - inside[self.own])
        return found


@dataclass(frozen=True)
class SketchEvidence:
    """Pairs along directions, beyond those of the known rows.

    Attributes:
        chosen: bool ``[n]``, m of them.
        basis: the directions, ``[m, q]``.
        sketch: ``[m, q]``.
        deviation: of the noise.
    """

    chosen: Bool
    basis: Float
    sketch: Float
    deviation: float

    def beside(self, items: Bool) -> SketchEvidence:
        """With one user's own contribution, bool ``[n]``."""
        inside = items[self.chosen].astype(np.float64)
        added = self._added(inside)
        norm = max(float(np.linalg.norm(added)), 1e-12)
        return replace(self, sketch=self.sketch + added / norm)

    def score(self, belief: Float, length: int) -> Float:
        """See ``inference.Evidence``."""
        inside = belief[self.chosen]
        along = inside @ self.basis - inside[:, None] * self.basis
        # An item is there or not: its square is itself, that of its chance is not.
        norm = max(float(np.sqrt((inside[:, None] * along**2).sum())), 1e-12)
        both = (self.sketch * self.basis).sum(axis=1)
        found = self.sketch @ (inside @ self.basis)
        found += self.basis @ (inside @ self.sketch) - 2 * inside * both
        return _spread(self.chosen, found / norm / self.deviation**2)

    def bare(self) -> Float:
        """Where nothing is noised and nobody else is in it: what is simply there."""
        return _spread(self.chosen, np.linalg.norm(self.sketch, axis=1))

    def _added(self, inside: Float) -> Float:
        along = inside @ self.basis - inside[:, None] * self.basis
        return np.asarray(inside[:, None] * along)


def _spread(chosen: Bool, values: Float) -> Float:
    """Values of the chosen items, and 0 for the rest, ``[n]``."""
    found = np.zeros(len(chosen))
    found[chosen] = values
    return found


def pair_evidence(
    world: World, exchange: Exchange, sight: Sight, known: sp.csr_matrix
) -> PairEvidence:
    """What a visible sum of counts and pairs holds beyond known rows."""
    chosen = exchange.sent[f"{wire.ITEMS}/chosen"] == 1
    size, share = int(chosen.sum()), world.config.statistics.counts_share
    exact = pair_sums(known, chosen, share, 0.0, seeded_stream(0))
    counts, above = (
        sight.total(exchange, f"{wire.PAIRS}/{name}") - expected
        for name, expected in zip(
            pair_shapes(size), (exact.counts, exact.pairs), strict=True
        )
    )
    pairs = np.zeros((size, size), dtype=np.float32)
    pairs[np.triu_indices(size, 1)] = above
    pairs += pairs.T
    noise = statistics_noise(world.config).pairs * np.sqrt(sight.noises)
    return PairEvidence(chosen, counts, pairs, share, _blur(noise, counts, known))


def sketch_evidence(
    world: World, exchange: Exchange, sight: Sight, known: sp.csr_matrix
) -> SketchEvidence:
    """What a visible sketch holds beyond known rows."""
    chosen = exchange.sent[f"{wire.ITEMS}/chosen"] == 1
    basis = exchange.sent[f"{wire.DIRECTIONS}/directions"]
    sketch = sight.total(exchange, f"{wire.SKETCH_SUM}/sketch")
    sketch -= sketch_sum(known, chosen, basis, 0.0, seeded_stream(0))
    noise = statistics_noise(world.config).sketch * np.sqrt(sight.noises)
    blur = _blur(noise, sketch, known)
    return SketchEvidence(chosen, basis.astype(np.float64), sketch, blur)


def _blur(noise: float, beyond: Float, known: sp.csr_matrix) -> float:
    """Deviation of what hides a user: noise; or where there is none, other users."""
    others = 0.0 if noise or known.shape[0] else float(beyond.std())
    return max(float(noise), others, _NONE)
