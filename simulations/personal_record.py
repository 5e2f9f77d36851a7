"""What results say of personal parameters: gains over users as a distribution.

In ``simulations`` because only an experiment may look into every client at once; a
module of its own because the schema of results holds it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

STAMP: Literal["on the device, never released"] = "on the device, never released"

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class PersonalGains(BaseModel):
    """Per-user NDCG@100 with personal parameters minus the released student's.

    Attributes:
        stamp: personal models hold private rows as they are; no promise covers them,
            and none is needed where nothing leaves.
        users: with items held for this measure; 0 where figures are suppressed.
        organisations: clients whose own model of all of their users counts.
        released, personal: mean NDCG@100.
        gain, low, high: mean gain and its 95 % interval over users.
        better, equal, worse: shares of users.
        judged: users with items enough for a noise of their own.
        surely_better, surely_worse: shares of the judged whose gain exceeds their own
            noise, 95 % of Student's t over their held items; ``by_chance`` is the
            share each would have if nothing made a difference.
        alpha: mean weight of the taste.
        quantiles: pairs (level, gain); levels with too few users beyond are left out.
        edges, counts: a histogram, ``len(edges) == len(counts) + 1``; bins with too
            few users are merged with their neighbours.
        suppressed: why there are no figures, or "".
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    stamp: Literal["on the device, never released"] = STAMP
    metric: str = "ndcg@100"
    users: Count = 0
    clients: Count = 0
    organisations: Count = 0
    released: float = 0.0
    personal: float = 0.0
    gain: float = 0.0
    low: float = 0.0
    high: float = 0.0
    better: Share = 0.0
    equal: Share = 0.0
    worse: Share = 0.0
    judged: Count = 0
    surely_better: Share = 0.0
    surely_worse: Share = 0.0
    by_chance: Share = 0.025
    alpha: float = 0.0
    quantiles: tuple[tuple[float, float], ...] = ()
    edges: tuple[float, ...] = ()
    counts: tuple[Count, ...] = ()
    suppressed: str = ""

    @property
    def sentence(self) -> str:
        """The figures in words, with what they are."""
        if self.suppressed:
            return self.suppressed
        return (
            f"Personal parameters ({self.stamp}) move NDCG@100 of {self.users} users "
            f"from {self.released:.4f} to {self.personal:.4f}, by {self.gain:+.4f} "
            f"[{self.low:+.4f}, {self.high:+.4f}]: better for {self.better:.0%}, equal "
            f"for {self.equal:.0%}, worse for {self.worse:.0%}; worse by more than "
            f"their own noise for {self.surely_worse:.1%} of {self.judged} "
            f"(chance alone: {self.by_chance:.1%})."
        )
