"""The folder of a deployment: where each file lies, and its public facts.

Simulations only: it names the server's and every client's place at once. ``deploy
init`` writes what stands here, every other verb reads it. ``deployment.toml`` holds
no secret, and no path.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.durable_files import write_durably
from common.errors import ConfigError
from common.folders import CONFIG, SETTINGS

#: Clients of one deployment folder: their names have four digits.
MOST_CLIENTS = 9_999
LOOPBACK = "127.0.0.1"
#: What Flower's configuration calls this deployment's SuperLink.
CONNECTION = "lab"

#: A deployment's name stands in certificates, units and images.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Port = Annotated[int, Field(ge=1, le=65_535)]


class _Table(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )


class SuperLink(_Table):
    """The server's end.

    Attributes:
        host: the address that it listens on; all of Flower's APIs are behind it.
        port: its one port.
        public: host and port that devices reach: the reverse proxy's, or the
            SuperLink's own where every device is on this machine.
        monitor_port: the server's ``/metrics``, on loopback.
    """

    host: Annotated[str, Field(min_length=1)] = LOOPBACK
    port: Port
    public: Annotated[str, Field(pattern=r"^[^\s/]+:\d{1,5}$")]
    monitor_port: Port

    @property
    def address(self) -> str:
        """``host:port``, as Flower's options take it."""
        return f"{self.host}:{self.port}"


class ClientPorts(_Table):
    """A client's ports, both on its own machine's loopback.

    Attributes:
        name: its folder's, four digits.
        node_port: the SuperNode's runtime API.
        monitor_port: the client's ``/metrics``.
    """

    name: Annotated[str, Field(pattern=r"^\d{4}$")]
    node_port: Port
    monitor_port: Port


class Deployment(_Table):
    """What ``deployment.toml`` says.

    Attributes:
        format: the file's version, ``schema`` in the file.
        name: the deployment's; its certificates and its roster bear it.
        clients: one a client folder, in the folders' order.
    """

    format: Annotated[Literal[1], Field(alias="schema")] = 1
    name: Annotated[str, Field(pattern=NAME)]
    superlink: SuperLink
    clients: Annotated[tuple[ClientPorts, ...], Field(min_length=1)]

    @property
    def num_clients(self) -> int:
        """How many clients there are."""
        return len(self.clients)

    @model_validator(mode="after")
    def _names_and_ports_are_distinct(self) -> Deployment:
        ports = [self.superlink.port, self.superlink.monitor_port]
        ports += [port for c in self.clients for port in (c.node_port, c.monitor_port)]
        names = [client.name for client in self.clients]
        for key, values in (("ports", ports), ("clients' names", names)):
            if len(set(values)) < len(values):
                raise ValueError(f"expected {key} that differ")
        return self


@dataclass(frozen=True)
class ClientPlace:
    """A client's folder, which goes to its device whole.

    Attributes:
        folder: rows, catalogue, settings: what ``client`` reads.
    """

    folder: Path

    @property
    def name(self) -> str:
        """Its number, four digits."""
        return self.folder.name

    @property
    def settings(self) -> Path:
        """Budget, consent, bundles allowed."""
        return self.folder / SETTINGS

    @property
    def keys(self) -> Path:
        """The folder of its keys, 0700."""
        return self.folder / "keys"

    @property
    def node_key(self) -> Path:
        """P-384 private key that authenticates its SuperNode, 0600."""
        return self.keys / "node.key"

    @property
    def node_public_key(self) -> Path:
        """What ``flwr supernode register`` takes."""
        return self.keys / "node.pub"

    @property
    def identity_key(self) -> Path:
        """Ed25519 private key that other clients know it by, 0600."""
        return self.keys / "identity.key"

    @property
    def identity_public_key(self) -> Path:
        """The roster's entry for it."""
        return self.keys / "identity.pub"

    @property
    def ca_certificate(self) -> Path:
        """The deployment's own certificate authority, as this client trusts it."""
        return self.folder / "ca.crt"

    @property
    def roster(self) -> Path:
        """Every client's identity public key, signed."""
        return self.folder / "roster.json"


@dataclass(frozen=True)
class Layout:
    """Every path of a deployment's folder.

    Attributes:
        root: the folder.
    """

    root: Path

    @property
    def deployment(self) -> Path:
        """The public facts, ``deployment.toml``."""
        return self.root / "deployment.toml"

    @property
    def run_config(self) -> Path:
        """The run that the data were dealt for; absent where none was named."""
        return self.root / CONFIG

    @property
    def roster(self) -> Path:
        """The newest roster; clients have copies of it."""
        return self.root / "roster.json"

    @property
    def witnesses(self) -> Path:
        """Beside the clients' folders: how far each one's ledger is."""
        return self.root / "witnesses"

    @property
    def ca_certificate(self) -> Path:
        """Of the private certificate authority."""
        return self.root / "ca/ca.crt"

    @property
    def ca_key(self) -> Path:
        """Its private key, 0600: it signs certificates and the roster, offline."""
        return self.root / "ca/ca.key"

    @property
    def server(self) -> Path:
        """What goes to the server's machine."""
        return self.root / "server"

    @property
    def server_certificates(self) -> Path:
        """The folder of the server's certificate."""
        return self.server / "certificates"

    @property
    def server_certificate(self) -> Path:
        """For every name and address that devices call the server by."""
        return self.server_certificates / "server.crt"

    @property
    def server_key(self) -> Path:
        """The certificate's private key, 0600."""
        return self.server_certificates / "server.key"

    @property
    def server_ca_certificate(self) -> Path:
        """The authority's certificate, as the server hands it to its own parts."""
        return self.server_certificates / "ca.crt"

    @property
    def data(self) -> Path:
        """The server's public data (TUTELA_PUBLIC)."""
        return self.server / "data"

    @property
    def state(self) -> Path:
        """The server's signing key and receipts (TUTELA_STATE)."""
        return self.server / "state"

    @property
    def runs(self) -> Path:
        """Where runs write, each into a folder of its name (TUTELA_RUNS)."""
        return self.server / "runs"

    @property
    def database(self) -> Path:
        """The SuperLink's SQLite file, in the one folder that is the SuperLink's own.

        SQLite writes further files beside it.
        """
        return self.server / "superlink/superlink.db"

    @property
    def executor_secret(self) -> Path:
        """What SuperLink and SuperExec share, 0600."""
        return self.server / "executor.secret"

    @property
    def flwr_home(self) -> Path:
        """FLWR_HOME of the operator's commands."""
        return self.server / "flwr"

    @property
    def flwr_config(self) -> Path:
        """Flower's own configuration: the connection ``lab``."""
        return self.flwr_home / "config.toml"

    @property
    def clients(self) -> Path:
        """The folder of the client folders."""
        return self.root / "clients"

    @property
    def bundle(self) -> Path:
        """The Flower App Bundle that clients pinned."""
        return self.root / "bundle/tutela.fab"

    @property
    def bundle_hash(self) -> Path:
        """Its SHA-256, hexadecimal."""
        return self.root / "bundle/sha256"

    @property
    def services(self) -> Path:
        """What starts it by itself: systemd units, compose file, reverse proxy."""
        return self.root / "services"

    @property
    def logs(self) -> Path:
        """A log a process, written by ``deploy up``."""
        return self.root / "logs"

    @property
    def processes(self) -> Path:
        """The processes that ``deploy up`` started."""
        return self.root / "processes.json"

    def client(self, name: str) -> ClientPlace:
        """The folder of one client, by its four digits."""
        return ClientPlace(self.clients / name)


def client_name(index: int) -> str:
    """The folder's name of the ``index``-th client, from 0."""
    return f"{index:04d}"


def read_deployment(folder: Path) -> Deployment:
    """The public facts of a deployment's folder.

    Raises:
        ConfigError: if there are none, or the file says other things than it may.
    """
    path = Layout(folder).deployment
    try:
        return Deployment.model_validate(tomllib.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        raise ConfigError(
            f"Expected a deployment's folder, found no {path.name} in {folder}; make "
            f"one with `tutela deploy init {folder}`."
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected TOML: {error}") from None
    except ValidationError as error:
        faults = [f"{_place(e['loc'])}{e['msg']}" for e in error.errors()]
        raise ConfigError(f"{path}: {'; '.join(faults)}.") from None


def _place(location: tuple[int | str, ...]) -> str:
    return f"{'.'.join(map(str, location))}: " if location else ""


def write_deployment(layout: Layout, deployment: Deployment) -> None:
    """Write ``deployment.toml``, readable by all."""
    text = tomli_w.dumps(deployment.model_dump(by_alias=True))
    write_durably(layout.deployment, text.encode(), mode=0o644)
