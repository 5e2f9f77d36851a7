"""Whom this client's owner is ready to trust: a run cannot choose that for them.

Client only. In mode ``distributed`` a device adds a share of the noise alone, and leans
on others for the rest: on so many of them, so many finishing, so few in league with the
server. All of that stands in the run's configuration, which comes from the server. One
that could lower it would have the vector of a device whose owner agreed to mode
``local``: with clients that do not exist, or with keys that it made itself.
"""

from __future__ import annotations

from client.settings import ClientSettings
from common.config import RunConfig
from common.errors import NoConsent


def check_trust(settings: ClientSettings, config: RunConfig) -> None:
    """Whether the owner accepts what this run assumes of others.

    Raises:
        NoConsent: naming the key of the settings that forbids it.
    """
    if config.privacy.mode != "distributed":
        return
    limits, asked = settings.distributed, config.secagg
    if limits is None:
        raise NoConsent(
            "The run trusts other clients (mode distributed), and the settings have no "
            "table [distributed] that allows it."
        )
    wrong = {
        "roster": limits.roster and not asked.roster,
        "most-clients": asked.clients > limits.most_clients,
        "least-threshold": asked.threshold < limits.least_threshold,
        "least-corrupt": asked.corrupt < limits.least_corrupt,
    }
    broken = [key for key, breaks in wrong.items() if breaks]
    if broken:
        raise NoConsent(
            "The run trusts others more than the settings do: distributed."
            f"{', distributed.'.join(broken)}."
        )
