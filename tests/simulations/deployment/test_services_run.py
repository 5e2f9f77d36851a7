"""The services as they are written, started: a node reaches its SuperLink by proxy."""

import getpass
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.config import defaults, parse
from common.errors import ProtocolError
from server.deploy.services import NodeFacts, Services, render_services
from simulations.deployment.control import connect
from simulations.deployment.initialise import Wishes, initialise
from simulations.deployment.laboratory import load_public_key
from simulations.deployment.layout import Layout, read_deployment
from simulations.deployment.parts import free_ports

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.processes,
    pytest.mark.skipif(NGINX is None, reason="needs nginx"),
]


@pytest.fixture
def layout(tmp_path):
    """A deployment whose services are for this very folder and loopback."""
    wishes = Wishes("lab", 2, parse(defaults()))
    deployment = initialise(tmp_path / "lab", wishes).deployment
    layout, link = Layout(tmp_path / "lab"), deployment.superlink
    (port,) = free_ports(1)
    services = Services(
        name="lab",
        connection="lab",
        host=link.host,
        port=link.port,
        monitor_port=link.monitor_port,
        public=f"localhost:{port}",
        listen=port,
        upstream_name="localhost",
        nodes=tuple(
            NodeFacts(c.name, c.node_port, c.monitor_port) for c in deployment.clients
        ),
        root=str(layout.root),
        programs=str(Path(sys.executable).parent),
        nginx=str(NGINX),
        listen_on="127.0.0.1",
    )
    for name, text in render_services(services).items():
        (layout.services / name).write_text(text)
    return layout


class Machine:
    """Does with a unit what systemd would, without its shields."""

    def __init__(self, layout, folder):
        self.layout, self.folder, self.running = layout, folder, []

    def start(self, unit, instance="", more=()):
        text = (self.layout.services / "systemd" / unit).read_text()
        text = text.replace("\\\n", " ").replace("%i", instance)
        command = ""
        environment = {"PATH": os.defpath}
        for line in text.splitlines():
            key, _, value = line.partition("=")
            if key == "Environment":
                environment |= dict(w.split("=", 1) for w in shlex.split(value))
            elif key == "EnvironmentFile":
                lines = Path(value).read_text().splitlines()
                pairs = [each for each in lines if not each.startswith("#")]
                environment |= dict(pair.split("=", 1) for pair in pairs)
            elif key == "ExecStart":
                command = value
        environment |= {"HOME": str(self.folder), "FLWR_HOME": str(self.folder)}
        for name, value in environment.items():
            command = command.replace(f"${{{name}}}", value)
        log = (self.folder / f"{unit}{instance}.log").open("wb")
        words = [*shlex.split(command), *more]
        process = subprocess.Popen(
            words, env=environment, stdout=log, stderr=log, cwd=self.layout.root
        )
        self.running.append(process)
        return process

    def logs(self):
        return "\n".join(p.read_text()[-2000:] for p in self.folder.glob("*.log"))

    def stop(self):
        for process in reversed(self.running):
            process.terminate()
        for process in self.running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def machine(layout, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    machine = Machine(layout, home)
    yield machine
    machine.stop()


def wait(machine, question, seconds=60, *, alive=True):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if question():
                return
        except ProtocolError:
            pass
        assert not alive or all(p.poll() is None for p in machine.running)
        time.sleep(0.3)
    raise AssertionError(machine.logs())


def test_a_registered_node_passes_the_proxy_and_nobody_else_does(layout, machine):
    prefix = machine.folder / "nginx"
    prefix.mkdir()
    machine.start("tutela-superlink.service")
    machine.start("tutela-superexec.service")
    with connect(layout.root) as control:
        wait(machine, lambda: control.nodes() == [])
        place = layout.client("0000")
        control.register(load_public_key(place.node_public_key), "0000")
        proxy = ["-p", str(prefix), "-g", f"user {getpass.getuser()};"]
        machine.start("tutela-proxy.service", more=proxy)
        machine.start("tutela-node@.service", "0000")
        wait(machine, lambda: [n.status for n in control.nodes()] == ["online"])
        machine.start("tutela-node@.service", "0001")
        refused = machine.folder / "tutela-node@.service0001.log"
        wait(machine, lambda: "Failed to activate" in refused.read_text(), alive=False)
        assert [n.status for n in control.nodes()] == ["online"]
    # The same call, with the same trust, at the proxy's port.
    environment = (layout.services / "node-0000.env").read_text()
    port = environment.partition("TUTELA_SUPERLINK=localhost:")[2].splitlines()[0]
    text = layout.deployment.read_text()
    own = read_deployment(layout.root).superlink.port
    layout.deployment.write_text(text.replace(f"port = {own}", f"port = {port}"))
    with connect(layout.root) as control, pytest.raises(ProtocolError, match="404"):
        control.nodes()
