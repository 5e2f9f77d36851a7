"""Who attacks, and what they see and know: every result of an audit names one.

Simulations only. A threat model is data, not code: what an attacker sees is computed
in ``scores.py`` from the messages of a run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Viewpoint:
    """A threat model.

    Attributes:
        name: key of ``VIEWPOINTS``.
        sees: what of a run is before the attacker's eyes.
        knows: what else the attack was given: as much as the promise lets a worst
            attacker know, hence no device of a real person's.
    """

    name: str
    sees: str
    knows: str

    @property
    def sentence(self) -> str:
        """The whole threat model."""
        return f"{self.name}: sees {self.sees}; knows {self.knows}."


#: Differential privacy promises against somebody who knows every other row.
_WORST = (
    "the code, the run's public configuration, the rows of everybody else at the "
    "client, and of each target the rows that it would have"
)
_SHADOWS = (
    "the code, the configuration, and models of the same kind with and without it"
)

VIEWPOINTS: dict[str, Viewpoint] = {
    "server-local": Viewpoint(
        "server-local",
        "each client's own answers, as the server does in mode local (and off)",
        _WORST,
    ),
    "another-client": Viewpoint(
        "another-client",
        "what the server sends to every client: the student of each round, soft "
        "labels, the final student",
        _WORST,
    ),
    "public": Viewpoint("public", "the final student alone", _WORST),
    "server-distributed": Viewpoint(
        "server-distributed",
        "the sum of all clients' answers alone, as under secure aggregation, and whose "
        "are in it",
        _WORST,
    ),
    "device-caller": Viewpoint(
        "device-caller",
        "answers of the recommender on a device to calls of its own",
        "the catalogue, the released student, how a stored user is named, and the "
        "token where one is asked for",
    ),
    "device-thief": Viewpoint(
        "device-thief",
        "what a device stores of its users: their rows and personal parameters",
        "the catalogue, the released student, the keys of the store where it is "
        "sealed, and attributes of other users to learn from",
    ),
}


def servers_seat(mode: str) -> str:
    """The server's viewpoint, by ``privacy.mode``."""
    return "server-distributed" if mode == "distributed" else "server-local"


#: The same eyes, without everybody else's rows: what membership inference is given.
SHADOW_KNOWLEDGE = _SHADOWS
