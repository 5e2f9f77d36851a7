"""``deploy init``: everything that a deployment is made of, in one folder.

Simulations only: it holds every party's keys at once, which is right for a laboratory
and for the moment before the parts are handed out; docs/deploy.md says what goes where
and what is then deleted here.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.config import RunConfig
from common.errors import ConfigError
from common.roster import Roster
from server.deploy.certificates import (
    MOST_DAYS,
    SERVER_DAYS,
    issue_server_certificate,
    make_authority,
    parse_names,
)
from simulations.deployment.allowances import check_allowance
from simulations.deployment.bundle import build_bundle
from simulations.deployment.layout import (
    LOOPBACK,
    MOST_CLIENTS,
    NAME,
    ClientPorts,
    Deployment,
    Layout,
    SuperLink,
    client_name,
    write_deployment,
)
from simulations.deployment.parts import (
    close_folders,
    deal_data,
    free_ports,
    make_client_keys,
    public_address,
    write_authority,
    write_certificate,
    write_consent,
    write_roster,
    write_server,
    write_services,
)

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

#: Names that the parts on the server's own machine know it by.
OWN_NAMES = ("DNS:localhost", f"IP:{LOOPBACK}")


@dataclass(frozen=True)
class Wishes:
    """What the operator asked for.

    Attributes:
        name: the deployment's.
        num_clients: how many client folders.
        config: the run that the clients' budgets are for.
        dealt: whether its data sets are dealt into the folders, or those are empty.
        names: further names of the server, ``DNS:…`` and ``IP:…``; the first is the
            one that devices call.
        days: how long the server's certificate holds.
    """

    name: str
    num_clients: int
    config: RunConfig
    dealt: bool = False
    names: tuple[str, ...] = ()
    days: int = SERVER_DAYS


@dataclass(frozen=True)
class Initialised:
    """What was made, for people: no secret.

    Attributes:
        names: the certificate's.
        expires: the certificate's last day, ISO 8601, UTC.
        bundle: SHA-256 of the code that every client pinned.
        server: the public key that every client consented to.
        notes: what the operator should know.
    """

    deployment: Deployment
    names: tuple[str, ...]
    expires: str
    bundle: str
    server: str
    notes: tuple[str, ...]


def initialise(folder: Path, wishes: Wishes) -> Initialised:
    """Make a deployment's folder; nothing of it is left where that fails.

    Args:
        folder: new, or there and empty; its mode becomes 0700.

    Raises:
        ConfigError: if the folder holds anything, or the wishes are impossible.
    """
    names = check(wishes)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"Expected a new or empty folder, got {folder}, which holds files; keys "
            "are never written over."
        )
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    try:
        return _make(Layout(folder.resolve()), wishes, names)
    except BaseException:
        _clear(folder)
        raise


def check(wishes: Wishes) -> tuple[GeneralName, ...]:
    """The certificate's names, if all that was asked for is possible.

    Raises:
        ConfigError: naming the option, or the key of the run, at fault.
    """
    if not 1 <= wishes.num_clients <= MOST_CLIENTS:
        raise ConfigError(
            f"--clients: expected 1 to {MOST_CLIENTS}, got {wishes.num_clients}."
        )
    if re.fullmatch(NAME, wishes.name) is None:
        raise ConfigError(
            "--name: expected up to 64 letters, digits, dots, dashes and underscores, "
            f"got {wishes.name!r}."
        )
    if not 1 <= wishes.days <= MOST_DAYS:
        raise ConfigError(f"--days: expected 1 to {MOST_DAYS}, got {wishes.days}.")
    check_allowance(wishes.config)
    return parse_names([*wishes.names, *OWN_NAMES])


def _make(
    layout: Layout, wishes: Wishes, names: tuple[GeneralName, ...]
) -> Initialised:
    deployment = _plan(wishes, names)
    write_deployment(layout, deployment)
    places = [layout.client(client.name) for client in deployment.clients]
    notes = deal_data(layout, places, wishes.config, dealt=wishes.dealt)
    authority = make_authority(wishes.name)
    certificate = issue_server_certificate(authority, names, days=wishes.days)
    write_authority(layout, authority)
    write_certificate(layout, authority, certificate)
    server = write_server(layout, deployment)
    bundle, digest = build_bundle(layout.bundle.parent)
    identities = {place.name: make_client_keys(place, wishes.name) for place in places}
    write_roster(layout, authority, Roster(wishes.name, 1, identities))
    for place in places:
        write_consent(place, server, bundle.read_bytes())
    write_services(layout, deployment)
    close_folders(layout)
    return Initialised(
        deployment,
        tuple(str(name.value) for name in names),
        f"{certificate.certificate.not_valid_after_utc:%Y-%m-%d}",
        digest,
        server,
        notes,
    )


def _plan(wishes: Wishes, names: tuple[GeneralName, ...]) -> Deployment:
    """Name and ports; ports are free now, and are looked at again by ``deploy up``."""
    port, monitor, *others = free_ports(2 + 2 * wishes.num_clients)
    superlink = SuperLink(
        port=port,
        public=public_address(names[0]) if wishes.names else f"{LOOPBACK}:{port}",
        monitor_port=monitor,
    )
    pairs = zip(others[::2], others[1::2], strict=True)
    clients = tuple(
        ClientPorts(name=client_name(index), node_port=node, monitor_port=own)
        for index, (node, own) in enumerate(pairs)
    )
    return Deployment(name=wishes.name, superlink=superlink, clients=clients)


def _clear(folder: Path) -> None:
    """The folder was empty: all that is in it is half a deployment."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
