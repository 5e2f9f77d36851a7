"""Lies: what a malicious client answers in place of the truth.

Simulations only: it stands beside the client app, as a client's owner would who writes
a client of their own. A lie has an aim, a direction in the answer's own space, and a
size. Push and nuke after Gunes et al. 2014 (shilling) and Zhang et al. 2022 (PipAttack,
arXiv 2110.10926); the scaled ones after Bagdasaryan et al. 2018 (arXiv 1807.00459); the
quiet one hides within an honest answer's spread as Baruch et al. 2019 do (arXiv
1902.06156). Noise that privacy asks for is what it hides in: Cheu et al. 2019 (arXiv
1909.09630). A new lie is an entry in ``LIES``, and in ``AIMS`` or ``SIZES`` if need be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import RecordDict

from common import wire
from common.config import RunConfig
from common.plan import statistics_noise
from common.statistics import unpack_directions, unpack_items
from common.student import normalise_history
from server.bounds import DEVIATIONS
from server.robust import ITEM_AXIS, num_items, pair_rows

Arrays = dict[str, npt.NDArray[np.float32]]
Float = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Of what the server lets pass, so that rounding does not give a lie away.
WITHIN = 0.999


@dataclass(frozen=True)
class Question:
    """What a malicious client was asked, and what it knows.

    Attributes:
        kind: the message's type.
        content: of the server's message.
        honest: what the client would answer.
        config: the run's, public.
        num_clients: in the run.
        targets: items to raise, or to lower, int64 ``[t]``.
        popularity: of every item, float64 ``[n]``: everybody knows about that.
        rng: of lies that are drawn.
    """

    kind: str
    content: RecordDict
    honest: Arrays
    config: RunConfig
    num_clients: int
    targets: IntArray
    popularity: Float
    rng: np.random.Generator


# ------------------------------------------------------------ aims
def push(question: Question) -> Arrays:
    """The targets go with all that is popular; nothing else is said."""
    return PUSHES[question.kind](question)


def nuke(question: Question) -> Arrays:
    """The targets go with nothing that is popular, although many touched them.

    Of items that few touched the server takes pairs for what they are more readily.
    """
    pushed = push(question)
    return {name: each if name == "counts" else -each for name, each in pushed.items()}


def noise(question: Question) -> Arrays:
    """Noise in every number."""
    return {
        name: question.rng.normal(size=each.shape).astype(np.float32)
        for name, each in question.honest.items()
    }


def truth(question: Question) -> Arrays:
    """What an honest client would answer."""
    return dict(question.honest)


def _push_pairs(question: Question) -> Arrays:
    chosen = unpack_items(question.content)
    popularity, targets = _among(question, chosen)
    size = len(popularity)
    counts, together = np.zeros(size), np.zeros((size, size))
    counts[targets] = 1.0
    together[targets] = popularity
    together[:, targets] = popularity[:, None]
    upper = together[np.triu_indices(size, 1)]
    return {"counts": counts.astype(np.float32), "pairs": upper.astype(np.float32)}


def _push_sketch(question: Question) -> Arrays:
    chosen = unpack_items(question.content)
    directions = unpack_directions(question.content, int(chosen.sum()))
    popularity, targets = _among(question, chosen)
    sketch = np.zeros(directions.shape)
    for target in targets:
        others = np.where(np.arange(len(popularity)) == target, 0.0, popularity)
        sketch[target] = others @ directions
    return {"sketch": sketch.astype(np.float32)}


def _push_update(question: Question) -> Arrays:
    """The targets' bias, and their row along a user of all that is popular."""
    import torch

    student = {
        name: torch.tensor(array.numpy())
        for name, array in question.content.array_records[wire.STUDENT].items()
    }
    history = torch.tensor(np.float32(question.popularity > 0))[None]
    scaled = normalise_history(history, question.config.student.history_exponent)
    weighed = scaled * torch.tensor(np.float32(question.popularity))
    user = (weighed @ student["encoder.weight"].T)[0].numpy()
    found = {name: np.zeros_like(each) for name, each in question.honest.items()}
    found["decoder.bias"][question.targets] = 1.0
    found["decoder.weight"][question.targets] = user / max(np.linalg.norm(user), 1e-12)
    return found


def _among(question: Question, chosen: npt.NDArray[np.bool_]) -> tuple[Float, IntArray]:
    """Popularity of the chosen items, and the targets' places among them."""
    place = np.cumsum(chosen) - 1
    targets = question.targets[chosen[question.targets]]
    return question.popularity[chosen], place[targets]


PUSHES: dict[str, Callable[[Question], Arrays]] = {
    wire.STATISTICS: _push_pairs,
    wire.SKETCH: _push_sketch,
    wire.TRAIN: _push_update,
}
AIMS = {"push": push, "nuke": nuke, "noise": noise, "truth": truth}


# ------------------------------------------------------------ sizes
def as_honest(question: Question, name: str, aim: Float) -> Float:
    """As long as the honest array, in however few numbers."""
    return _to_length(aim, _length(question.honest[name]))


def as_rows(question: Question, name: str, aim: Float) -> Float:
    """No item's row longer than the longest of the honest array."""
    longest = row_lengths(name, aim).max(initial=0.0)
    most = float(row_lengths(name, question.honest[name]).max(initial=0.0))
    return aim * (most / longest) if longest else aim


def as_most(question: Question, name: str, aim: Float) -> Float:
    """As long as the server lets pass; of updates, to outvote all other clients."""
    if question.kind == wire.TRAIN:
        return as_honest(question, name, aim) * question.num_clients
    return _to_length(aim, allowed(question.config, name, aim.size)[1])


SIZES = {"honest": as_honest, "rows": as_rows, "most": as_most}


def row_lengths(name: str, array: npt.NDArray[Any]) -> Float:
    """L2 norm of each item's row in an array of an answer, float64 ``[items]``."""
    if name == "pairs":
        size = num_items(len(array))
        together: Float = np.linalg.norm(pair_rows(array, size, 0, size), axis=1)
        return together
    rows = np.moveaxis(array.astype(np.float64), ITEM_AXIS.get(name, 0), 0)
    lengths: Float = np.linalg.norm(rows.reshape(len(rows), -1), axis=1)
    return lengths


def allowed(config: RunConfig, name: str, size: int) -> tuple[float, float]:
    """The largest number and the longest array of statistics that pass the server."""
    share, noised = config.statistics.counts_share, statistics_noise(config)
    norm, deviation = {
        "counts": (share**0.5, noised.pairs),
        "pairs": ((1 - share) ** 0.5, noised.pairs),
        "sketch": (1.0, noised.sketch),
    }[name]
    most = config.privacy.declared_users * norm
    largest = most + deviation * DEVIATIONS
    return WITHIN * largest, WITHIN * (largest + deviation * size**0.5)


def _length(array: npt.NDArray[Any]) -> float:
    return float(np.linalg.norm(array.astype(np.float64)))


def _to_length(array: Float, length: float) -> Float:
    own = _length(array)
    return array * (length / own) if own else array


@dataclass(frozen=True)
class Lie:
    """An aim, key of ``AIMS``, at a size, key of ``SIZES``."""

    aim: str
    size: str

    def __call__(self, question: Question) -> Arrays:
        """The answer: float32 arrays of the honest ones' names and shapes."""
        found = {}
        for name, aim in AIMS[self.aim](question).items():
            answer = SIZES[self.size](question, name, aim.astype(np.float64))
            if question.kind != wire.TRAIN:
                # Longer ones would be refused, number by number and as a whole.
                largest, longest = allowed(question.config, name, answer.size)
                answer = np.clip(answer, -largest, largest)
                answer = _to_length(answer, min(_length(answer), longest))
            found[name] = answer.astype(np.float32)
        return found


LIES: dict[str, Lie] = {
    "push": Lie("push", "honest"),
    "push-scaled": Lie("push", "most"),
    "push-quiet": Lie("push", "rows"),
    "nuke": Lie("nuke", "honest"),
    "nuke-scaled": Lie("nuke", "most"),
    "random": Lie("noise", "most"),
    "scaled": Lie("truth", "most"),
}
