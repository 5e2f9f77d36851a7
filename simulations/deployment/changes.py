"""What a deployment goes through later: a new certificate, a client more or less.

Simulations only, as ``initialise``. All need the authority's key: where it was taken
to a safer place, it is brought back for the moment.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from cryptography import x509

from common.config import defaults, parse, read_overrides
from common.durable_files import read_or_create_secret
from common.errors import ConfigError
from common.folders import CATALOGUE, SERVER_KEY
from common.roster import read_roster
from common.signature import public_key
from server.deploy.certificates import (
    Issued,
    issue_server_certificate,
    parse_names,
    read_authority,
)
from simulations.deployment.allowances import check_allowance, write_allowance
from simulations.deployment.bundle import read_bundle
from simulations.deployment.layout import (
    MOST_CLIENTS,
    ClientPlace,
    ClientPorts,
    Deployment,
    Layout,
    client_name,
    read_deployment,
    write_deployment,
)
from simulations.deployment.parts import (
    close_folders,
    free_ports,
    make_client_keys,
    write_certificate,
    write_consent,
    write_roster,
    write_services,
)


def renew_certificate(folder: Path, *, names: tuple[str, ...], days: int) -> str:
    """A new server certificate and key, for the names that it had and further ones.

    Returns:
        Its last day, ISO 8601, UTC.

    Raises:
        ConfigError: if the authority's key is not here, or names or days are refused.
    """
    layout = Layout(folder.resolve())
    read_deployment(layout.root)
    authority = _authority(layout)
    old = x509.load_pem_x509_certificate(layout.server_certificate.read_bytes())
    known = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    every = tuple(dict.fromkeys([*known, *(parse_names(names) if names else ())]))
    issued = issue_server_certificate(authority, every, days=days)
    write_certificate(layout, authority, issued)
    return f"{issued.certificate.not_valid_after_utc:%Y-%m-%d}"


def add_client(folder: Path) -> ClientPlace:
    """A further client's folder, without rows; every roster here is signed anew.

    Returns:
        The new client's place.

    Raises:
        ConfigError: if the authority's key is not here, there are too many, or the
            run in ``config.toml`` is none that clients of a deployment may be set up
            for.
    """
    layout = Layout(folder.resolve())
    deployment, authority = read_deployment(layout.root), _authority(layout)
    place = _next_place(layout, deployment)
    bundle, _ = read_bundle(layout.bundle.parent)
    _fill(layout, place)
    identity = make_client_keys(place, deployment.name)
    write_consent(
        place, public_key(read_or_create_secret(layout.state / SERVER_KEY)), bundle
    )
    clients = (*deployment.clients, _with_ports(place.name, deployment))
    _change(
        layout,
        authority,
        deployment.model_copy(update={"clients": clients}),
        {place.name: identity},
    )
    close_folders(layout)
    return place


def remove_client(folder: Path, name: str) -> None:
    """Strike a client off the deployment and off every roster; its folder stays.

    Its node must be unregistered at the SuperLink as well: that shuts Flower's door.

    Raises:
        ConfigError: if there is no such client, it is the last one, or the authority's
            key is not here.
    """
    layout = Layout(folder.resolve())
    deployment, authority = read_deployment(layout.root), _authority(layout)
    left = tuple(each for each in deployment.clients if each.name != name)
    if len(left) == deployment.num_clients:
        known = ", ".join(each.name for each in deployment.clients)
        raise ConfigError(f"Expected one of the clients {known}, got {name!r}.")
    if not left:
        raise ConfigError(f"{name} is the last client: end the deployment instead.")
    _change(layout, authority, deployment.model_copy(update={"clients": left}), {})


def _change(
    layout: Layout, authority: Issued, deployment: Deployment, new: dict[str, str]
) -> None:
    """The next version of the roster, then the public facts."""
    roster = read_roster(layout.roster, layout.ca_certificate)
    known = {**roster.clients, **new}
    clients = {each.name: known[each.name] for each in deployment.clients}
    newer = replace(roster, version=roster.version + 1, clients=clients)
    write_roster(layout, authority, newer)
    write_services(layout, deployment, anew=False)
    write_deployment(layout, deployment)


def _authority(layout: Layout) -> Issued:
    if not layout.ca_key.is_file():
        raise ConfigError(
            f"Expected the authority's key at {layout.ca_key}, found none; bring it "
            "back from where it is kept."
        )
    pem = layout.ca_certificate.read_bytes()
    return read_authority(pem, layout.ca_key.read_bytes())


def _next_place(layout: Layout, deployment: Deployment) -> ClientPlace:
    """The first number after all others that no folder has: none is given twice."""
    last = max(int(each.name) for each in deployment.clients)
    for index in range(last + 1, MOST_CLIENTS + 1):
        place = layout.client(client_name(index))
        if not place.folder.exists():
            return place
    raise ConfigError(f"Expected at most {MOST_CLIENTS} clients.")


def _fill(layout: Layout, place: ClientPlace) -> None:
    """Settings as for the others, and the declared catalogue where it is known."""
    flat = defaults()
    if layout.run_config.is_file():
        flat |= read_overrides(layout.run_config)
    config = parse(flat)
    check_allowance(config)
    write_allowance(place, config)
    if (layout.data / CATALOGUE).is_file():
        shutil.copyfile(layout.data / CATALOGUE, place.folder / CATALOGUE)


def _with_ports(name: str, deployment: Deployment) -> ClientPorts:
    """Free ports that no other part of the deployment has either."""
    taken = {deployment.superlink.port, deployment.superlink.monitor_port}
    taken |= {p for c in deployment.clients for p in (c.node_port, c.monitor_port)}
    free = [port for port in free_ports(2 + len(taken)) if port not in taken]
    return ClientPorts(name=name, node_port=free[0], monitor_port=free[1])
