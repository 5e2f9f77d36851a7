"""What starts a deployment by itself: systemd units, compose file, reverse proxy.

Server only: the operator renders them once; the unit of a client's node goes to the
device with the client's folder. Only the Fleet API passes the proxy: in Flower 1.42
the Control API, behind the same port, takes code from whoever reaches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import tomli_w
from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"

#: What a node asks of the Fleet API in Flower 1.42, each at ``POST /v1/fleet/<call>``.
#: Not among them: ``register-node`` and ``unregister-node``, by which nodes let
#: themselves in where node authentication is off. Here the operator does that.
FLEET_CALLS = (
    "activate-node",
    "confirm-message-received",
    "deactivate-node",
    "get-fab",
    "get-run",
    "pull-messages",
    "pull-object",
    "push-messages",
    "push-object",
    "send-node-heartbeat",
)
UNITS = (
    "tutela-superlink.service",
    "tutela-superexec.service",
    "tutela-proxy.service",
    "tutela-monitor.service",
    "tutela-node@.service",
    "tutela-monitor@.service",
)
PROXY, COMPOSE = "nginx.conf", "compose.yaml"
#: The port of HTTPS, which networks let through; and one for laboratories.
HTTPS, LABORATORY = 443, 8443


@dataclass(frozen=True)
class NodeFacts:
    """One client's, for its unit's environment."""

    client: str
    node_port: int
    monitor_port: int


@dataclass(frozen=True)
class Services:
    """What the files are made of.

    Attributes:
        name: the deployment's.
        connection: what Flower's configuration calls the SuperLink.
        host, port: where the SuperLink listens, on its own machine.
        monitor_port: the server's metrics, on loopback.
        public: ``host:port`` that devices call.
        listen: the proxy's port, on every address unless ``listen_on`` names one.
        upstream_name: the certificate's name by which the proxy knows the SuperLink.
        nodes: the clients.
        root: where the deployment lies on the machines that run it.
        programs: the folder of ``flower-superlink`` and ``tutela``.
        nginx: the proxy's program.
        nginx_tag: of the image with it.
    """

    name: str
    connection: str
    host: str
    port: int
    monitor_port: int
    public: str
    listen: int
    upstream_name: str
    nodes: tuple[NodeFacts, ...]
    root: str = "/srv/tutela"
    programs: str = "/opt/tutela/bin"
    nginx: str = "/usr/sbin/nginx"
    nginx_tag: str = "1.28.0-alpine"
    listen_on: str = "*"


def render_services(services: Services) -> dict[str, str]:
    """Every file of ``services/``, by its path in that folder; none holds a secret."""
    facts = {
        **asdict(services),
        "capabilities": "",
        "fleet_calls": FLEET_CALLS,
        "flower": version("flwr"),
        "project": "".join(c if c.isalnum() else "-" for c in services.name.lower()),
        "upstream": f"{services.host}:{services.port}",
        "version": version("tutela"),
    }
    files = {PROXY: _render(f"{PROXY}.j2", facts)}
    files[COMPOSE] = _render(f"{COMPOSE}.j2", facts)
    for unit in UNITS:
        own = facts | _capabilities(unit, services.listen)
        files[f"systemd/{unit}"] = _render(f"{unit}.j2", own)
    for node in services.nodes:
        files[f"node-{node.client}.env"] = _render("node.env.j2", facts | asdict(node))
    files["operator/config.toml"] = flower_config(
        services.connection,
        f"{services.host}:{services.port}",
        "/deployment/server/certificates/ca.crt",  # where compose.yaml mounts it
    )
    return files


def flower_config(connection: str, address: str, root_certificates: str) -> str:
    """Flower's ``config.toml``: how the operator's commands reach the SuperLink.

    Args:
        root_certificates: an absolute path, as Flower demands.
    """
    reach = {"address": address, "root-certificates": root_certificates}
    return tomli_w.dumps({"superlink": {"default": connection, connection: reach}})


def _capabilities(unit: str, listen: int) -> dict[str, str]:
    """Only the proxy has any, and only where its port asks for it."""
    low = unit == "tutela-proxy.service" and listen < 1024
    return {"capabilities": "CAP_NET_BIND_SERVICE" if low else ""}


def _render(name: str, facts: Mapping[str, object]) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - not HTML; names are checked where they enter
    )
    return environment.get_template(name).render(facts)
