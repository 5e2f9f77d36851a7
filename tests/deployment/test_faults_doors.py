"""Who is not let in: foreign and expired certificates, strangers, wrong clocks."""

from datetime import UTC, datetime, timedelta

import pytest

from client.deploy.keys import make_node_key
from common.errors import ProtocolError
from server.deploy.certificates import (
    issue_server_certificate,
    make_authority,
    parse_names,
    read_authority,
)
from simulations.deployment.control import connect
from simulations.deployment.laboratory import online_nodes
from simulations.deployment.layout import read_deployment
from simulations.deployment.parts import free_ports
from simulations.deployment.processes import SUPERLINK
from simulations.faults import clock

pytestmark = [pytest.mark.slow, pytest.mark.faults]
NODE = "node-0002"


def replaced(command, **changed):
    """The command, with other values behind these options."""
    command = list(command)
    for option, value in changed.items():
        command[command.index(f"--{option.replace('_', '-')}") + 1] = str(value)
    return command


@pytest.fixture
def stopped(federation):
    """The federation without its third node, which comes back afterwards."""
    federation.stop(NODE)
    with connect(federation.folder) as control:
        federation.wait(lambda: online_nodes(control) == ["0000", "0001"], 20)
    yield federation
    if federation.lives(NODE):
        federation.kill(NODE)
    with connect(federation.folder) as control:
        assert online_nodes(control) == ["0000", "0001"]
    federation.restart(NODE)


def test_a_node_does_not_speak_to_a_server_of_another_authority(stopped, tmp_path):
    foreign = tmp_path / "ca.crt"
    foreign.write_bytes(make_authority("foreign").certificate_pem)
    command = replaced(stopped.command(NODE), root_certificates=foreign)
    with stopped.written(NODE, "CERTIFICATE_VERIFY_FAILED"):
        stopped.start(NODE, command)


def test_a_key_that_nobody_registered_is_refused(stopped, tmp_path):
    key = tmp_path / "node.key"
    make_node_key(key, tmp_path / "node.pub", "stranger")
    with stopped.written(NODE, "Failed"):
        stopped.start(NODE, replaced(stopped.command(NODE), key=key))
    stopped.wait(lambda: not stopped.lives(NODE), 20)


def test_an_expired_certificate_is_refused_by_node_and_operator(stopped, tmp_path):
    layout, address = stopped.layout, read_deployment(stopped.folder).superlink
    authority = read_authority(
        layout.ca_certificate.read_bytes(), layout.ca_key.read_bytes()
    )
    names = parse_names(["IP:127.0.0.1"])
    past = datetime.now(UTC) - timedelta(days=9)
    expired = issue_server_certificate(authority, names, days=2, now=past)
    certificate, key = tmp_path / "server.crt", tmp_path / "server.key"
    certificate.write_bytes(expired.certificate_pem)
    key.write_bytes(expired.key_pem)
    (port,) = free_ports(1)
    link = replaced(
        stopped.command(SUPERLINK),
        port=port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        database=tmp_path / "other.db",
    )
    stopped.start("expired", link)
    node = replaced(stopped.command(NODE), superlink=f"{address.host}:{port}")
    with stopped.written(NODE, "certificate has expired"):
        stopped.start(NODE, node)
    text = layout.deployment.read_text()
    layout.deployment.write_text(
        text.replace(f"\nport = {address.port}", f"\nport = {port}")
    )
    try:
        with (
            connect(stopped.folder) as control,
            pytest.raises(ProtocolError, match="certificate has expired"),
        ):
            control.nodes()
    finally:
        layout.deployment.write_text(text)
        stopped.kill("expired")


class TestAClock:
    def test_a_minute_ahead_is_refused(self, stopped):
        with stopped.written(NODE, "does not accept this node's signature"):
            stopped.start(NODE, clock.command(stopped.command(NODE), 60.0))

    def test_ten_minutes_behind_is_refused(self, stopped):
        with stopped.written(NODE, "does not accept this node's signature"):
            stopped.start(NODE, clock.command(stopped.command(NODE), -600.0))

    def test_four_minutes_behind_takes_part(self, federation):
        federation.stop(NODE)
        federation.restart(NODE, clock.command(federation.command(NODE), -240.0))
        run = federation.submit("behind", training__rounds=1)
        assert federation.end_of(run).status == "completed"
        assert federation.survivors("behind") == {1: (3, 3)}
        federation.stop(NODE)
        federation.restart(NODE)
