"""Gains of personal parameters as a figure: who gains, who loses, by how much.

In ``simulations`` with the other figures of a report, drawn the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from simulations.personal_record import PersonalGains

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

CAPTION = (
    "What personal parameters change for each user, on items held on the device for "
    "this measure, the outermost bars with all beyond; on the device, never released."
)
WIDEST = 0.1


def plot_personal(gains: PersonalGains | None) -> str:
    """A histogram of per-user gains, losses in another colour; "" without figures."""
    # The page's figures know this one: imported here, the circle stays open.
    from simulations.plots import BLUE, INK, ORANGE, _svg

    if gains is None or not gains.counts:
        return ""
    edges, counts = np.asarray(gains.edges), np.asarray(gains.counts)
    if len(counts) > 2:
        # The outermost bins reach to the ends of what is possible: drawn no wider.
        edges[0] = max(edges[0], edges[1] - WIDEST)
        edges[-1] = min(edges[-1], edges[-2] + WIDEST)
    # Merged bins are wide: area, not height, is their share of the users.
    height = counts / counts.sum() / np.diff(edges) * 0.05

    def draw(canvas: Canvas) -> None:
        axes = canvas.subplots()
        colour = np.where(edges[1:] <= 0, ORANGE, np.where(edges[:-1] >= 0, BLUE, INK))
        axes.bar(
            edges[:-1], height, width=np.diff(edges), align="edge",
            color=colour, edgecolor="white", linewidth=0.5,
        )  # fmt: skip
        axes.axvline(0.0, color=INK, linewidth=0.8)
        axes.axvline(gains.gain, color=INK, linestyle="--", label="mean")
        axes.set_xlabel("gain in NDCG@100 of one user")
        axes.set_ylabel("share of users per 0.05")
        axes.legend()

    return _svg("personal", gains.sentence, 2.6, draw)
