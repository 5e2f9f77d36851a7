"""The parts of a deployment's folder, each written by one function.

Simulations only: together they hold every party's keys. No function prints or returns
a secret; private halves go into files of mode 0600 and nowhere else.
"""

from __future__ import annotations

import ipaddress
import shutil
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import tomli_w
from cryptography.x509 import GeneralName, IPAddress

from client.deploy.keys import make_identity_key, make_node_key
from client.deploy.pins import pin
from common.config import RunConfig, to_flat, unflatten
from common.durable_files import read_or_create_secret, write_durably
from common.folders import AUTHORITY, ROSTER, SERVER_KEY
from common.roster import Roster, sign_roster
from common.signature import public_key
from server.deploy.certificates import Issued
from server.deploy.services import (
    HTTPS,
    LABORATORY,
    NodeFacts,
    Services,
    flower_config,
    render_services,
)
from simulations.deployment.allowances import deviations, write_allowance
from simulations.deployment.layout import (
    CONNECTION,
    LOOPBACK,
    ClientPlace,
    Deployment,
    Layout,
)

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

#: Where data lie until they are in their places.
_DEALING = ".dealing"


def free_ports(count: int) -> tuple[int, ...]:
    """Ports of loopback that nobody listens on, all different."""
    with ExitStack() as stack:
        # All are held at once: the system would give a port that was let go again.
        bound = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in bound:
            each.bind((LOOPBACK, 0))
        return tuple(each.getsockname()[1] for each in bound)


def public_address(name: GeneralName) -> str:
    """``host:port`` at which devices call a server of this name."""
    version_6 = isinstance(name, IPAddress) and isinstance(
        name.value, ipaddress.IPv6Address
    )
    return f"[{name.value}]:{HTTPS}" if version_6 else f"{name.value}:{HTTPS}"


def deal_data(
    layout: Layout, places: Sequence[ClientPlace], config: RunConfig, *, dealt: bool
) -> tuple[str, ...]:
    """Fill the server's and the clients' folders as ``tutela partition`` does.

    Args:
        config: its data sets, dealt to as many clients as there are ``places``; its
            ``privacy.target-epsilon`` is the budget in every client's settings.
        dealt: false leaves the folders without rows.

    Returns:
        What the operator should know.
    """
    layout.witnesses.mkdir()
    if not dealt:
        layout.data.mkdir(parents=True)
        for place in places:
            place.folder.mkdir(parents=True)
            write_allowance(place, config)
        return (
            *deviations(places[0]),
            "No data was dealt: copy the public data into server/data, its "
            "catalogue.parquet into each client's folder, and let every owner run "
            "`tutela import`.",
        )
    flat = to_flat(config) | {"partition.num-clients": len(places)}
    text = tomli_w.dumps(unflatten(flat))
    write_durably(layout.run_config, text.encode(), mode=0o644)
    notes = _deal(layout, flat)
    for place in places:
        write_allowance(place, config)  # what a simulation allows goes
    return (*notes, *deviations(places[0]))


def _deal(layout: Layout, flat: dict[str, bool | int | float | str]) -> tuple[str, ...]:
    # Only here: polars and the data sets' readers take their time.
    from common.config import parse
    from simulations.experiment import prepare
    from simulations.partition import CLIENTS, HELDOUT, SERVER

    staging = layout.root / _DEALING
    notes = prepare(parse(flat), staging).notes
    layout.server.mkdir()
    (staging / SERVER).rename(layout.data)
    (staging / CLIENTS).rename(layout.clients)
    (staging / HELDOUT).rename(layout.root / HELDOUT)
    shutil.rmtree(staging)
    return notes


def write_authority(layout: Layout, authority: Issued) -> None:
    """The certificate authority: its key is needed again only to issue or sign."""
    write_durably(layout.ca_certificate, authority.certificate_pem, mode=0o644)
    write_durably(layout.ca_key, authority.key_pem)


def write_certificate(layout: Layout, authority: Issued, issued: Issued) -> None:
    """The server's certificate and key; the key first, so that no start finds half."""
    write_durably(layout.server_key, issued.key_pem)
    write_durably(layout.server_certificate, issued.certificate_pem, mode=0o644)
    pem = authority.certificate_pem
    write_durably(layout.server_ca_certificate, pem, mode=0o644)


def write_server(layout: Layout, deployment: Deployment) -> str:
    """The server's secrets and Flower's configuration.

    Returns:
        The public half of the key that signs what the server sends.
    """
    own = layout.database.parent
    for folder in (layout.state, layout.runs, layout.flwr_home, own):
        folder.mkdir()
    read_or_create_secret(layout.executor_secret)
    text = flower_config(
        CONNECTION, deployment.superlink.address, str(layout.server_ca_certificate)
    )
    write_durably(layout.flwr_config, text.encode())
    return public_key(read_or_create_secret(layout.state / SERVER_KEY))


def make_client_keys(place: ClientPlace, deployment: str) -> str:
    """A client's node key and identity.

    Returns:
        The identity's public half.
    """
    comment = f"{deployment}-{place.name}"
    make_node_key(place.node_key, place.node_public_key, comment)
    return make_identity_key(place.identity_key, place.identity_public_key)


def write_roster(layout: Layout, authority: Issued, roster: Roster) -> None:
    """The signed roster: here, for the server, in each client's folder still here.

    With it goes the certificate that it is checked by.
    """
    content, pem = sign_roster(roster, authority.key), authority.certificate_pem
    write_durably(layout.roster, content, mode=0o644)
    write_durably(layout.data / ROSTER, content, mode=0o644)
    write_durably(layout.data / AUTHORITY, pem, mode=0o644)
    for place in map(layout.client, roster.clients):
        if place.folder.is_dir():
            write_durably(place.ca_certificate, pem, mode=0o644)
            write_durably(place.roster, content, mode=0o644)


def write_consent(place: ClientPlace, server: str, bundle: bytes) -> None:
    """Let this server's runs of this very code train here, and nobody else's.

    A run's name alone is no proof of who asks: where there is a key, no name is taken.
    """
    import tomlkit

    tree: TOMLDocument = tomlkit.parse(place.settings.read_text("utf-8"))
    tree["runs"] = []
    tree["servers"] = [server]
    write_durably(place.settings, tomlkit.dumps(tree).encode())
    pin(place.folder, bundle)


def write_services(
    layout: Layout, deployment: Deployment, *, anew: bool = True
) -> None:
    """Units, compose file and proxy, for machines where the parts lie elsewhere.

    Args:
        anew: false leaves files that are there as they are.
    """
    superlink = deployment.superlink
    local = superlink.public == superlink.address
    services = Services(
        name=deployment.name,
        connection=CONNECTION,
        host=superlink.host,
        port=superlink.port,
        monitor_port=superlink.monitor_port,
        public=superlink.public,
        listen=LABORATORY if local else int(superlink.public.rpartition(":")[2]),
        upstream_name="localhost",
        nodes=tuple(
            NodeFacts(client.name, client.node_port, client.monitor_port)
            for client in deployment.clients
        ),
    )
    for name, text in render_services(services).items():
        if anew or not (layout.services / name).exists():
            write_durably(layout.services / name, text.encode(), mode=0o644)


def close_folders(layout: Layout) -> None:
    """Folders to 0700, and whatever is a client's to 0600: rows are secrets too.

    A link is left alone, and so is what it leads to: that may be anybody's.
    """
    for path in [layout.root, *layout.root.rglob("*")]:
        if path.is_symlink():
            continue
        if path.is_dir():
            path.chmod(0o700)
        elif path.is_relative_to(layout.clients) and not _public(path):
            path.chmod(0o600)


def _public(path: Path) -> bool:
    return path.suffix in (".pub", ".crt") or path.name == "roster.json"
