"""Units, compose file and proxy: what they say, and what the proxy really lets by."""

import configparser
import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml

from server.deploy.services import (
    FLEET_CALLS,
    UNITS,
    NodeFacts,
    Services,
    flower_config,
    render_services,
)

PROGRAMS = Path(sys.executable).parent
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
SERVICES = Services(
    name="lab",
    connection="lab",
    host="127.0.0.1",
    port=9092,
    monitor_port=9100,
    public="fleet.example.org:443",
    listen=443,
    upstream_name="localhost",
    nodes=(NodeFacts("0000", 9094, 9101), NodeFacts("0001", 9095, 9102)),
)
SHIELDS = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "UMask": "0077",
}


def unit(name: str, services: Services = SERVICES) -> configparser.RawConfigParser:
    class Lists(dict):
        """systemd gathers a key that is said twice."""

        def __setitem__(self, key, value):
            if key in self and isinstance(value, list):
                value = [*self[key], *value]
            super().__setitem__(key, value)

    parser = configparser.RawConfigParser(
        strict=False, dict_type=Lists, delimiters="=", interpolation=None
    )
    parser.optionxform = str
    text = render_services(services)[f"systemd/{name}"].replace("\\\n", " ")
    parser.read_string(text)
    return parser


def command(name: str, services: Services = SERVICES) -> list[str]:
    return shlex.split(unit(name, services)["Service"]["ExecStart"])


@functools.cache
def options_of(program: str, *words: str) -> set[str]:
    done = subprocess.run(
        [PROGRAMS / program, *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(re.findall(r"--[a-z][a-z-]+", done.stdout))


def test_the_calls_are_those_of_the_installed_flower():
    from flwr.supercore.protobuf import translation

    text = Path(translation.__file__).read_text()
    found = re.findall(r'\("POST", "/v1/fleet/([a-z-]+)"\)', text)
    # Nodes do not let themselves in: the operator registers them.
    assert sorted({*found} - {"register-node", "unregister-node"}) == [*FLEET_CALLS]
    assert len(found) == 12


@pytest.mark.parametrize("name", UNITS)
def test_every_unit_is_shielded_and_not_root(name):
    service = unit(name)["Service"]
    assert {key: service[key] for key in SHIELDS} == SHIELDS
    assert service["User"] in ("tutela-server", "tutela-client")
    assert service["Restart"] in ("always", "on-failure")
    assert unit(name)["Install"]["WantedBy"] == "multi-user.target"
    bind = name == "tutela-proxy.service"
    expected = "CAP_NET_BIND_SERVICE" if bind else ""
    assert service["CapabilityBoundingSet"] == expected


def test_a_high_port_asks_for_no_capability():
    service = unit("tutela-proxy.service", replace(SERVICES, listen=8443))["Service"]
    assert service["CapabilityBoundingSet"] == ""


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("tutela-superlink.service", "flower-superlink"),
        ("tutela-superexec.service", "flower-superexec"),
    ],
)
def test_the_installed_flower_knows_each_option(name, program):
    words = command(name)
    assert words[0] == f"/opt/tutela/bin/{program}"
    used = {word for word in words if word.startswith("--")}
    assert used <= options_of(program)
    assert unit(name)["Service"]["IPAddressDeny"] == "any"
    assert unit(name)["Service"]["IPAddressAllow"] == "localhost"


def test_the_superlink_is_authenticated_encrypted_and_local():
    words = command("tutela-superlink.service")
    assert "--insecure" not in words
    assert {"--enable-supernode-auth", "--disable-runtime-dependency-installation"} <= {
        *words
    }
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--isolation") + 1] == "process"
    for option in ("--ssl-certfile", "--ssl-keyfile", "--ssl-ca-certfile"):
        assert words[words.index(option) + 1].startswith("/srv/tutela/server/")


@pytest.mark.parametrize(
    ("name", "room", "verb", "folder"),
    [
        ("tutela-node@.service", "client", "node", "clients/%i"),
        ("tutela-monitor@.service", "client", "monitor", "clients/%i"),
        ("tutela-monitor.service", "server", "monitor", "server/runs"),
    ],
)
def test_our_own_verbs_know_each_option(name, room, verb, folder):
    words = command(name)
    assert words[:5] == ["/opt/tutela/bin/python", "-I", "-m", room, verb]
    assert words[5] == f"/srv/tutela/{folder}"
    used = {word for word in words[6:] if word.startswith("--")}
    assert used <= options_of("python", "-m", room, verb)


def test_a_node_finds_its_ports_and_its_server_in_its_environment():
    environment = render_services(SERVICES)["node-0001.env"]
    assert "TUTELA_SUPERLINK=fleet.example.org:443\n" in environment
    assert "TUTELA_NODE_PORT=9095\n" in environment
    assert "TUTELA_MONITOR_PORT=9102\n" in environment
    for name in ("tutela-node@.service", "tutela-monitor@.service"):
        for asked in re.findall(r"\$\{(\w+)\}", " ".join(command(name))):
            assert f"\n{asked}=" in environment


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_finds_no_fault(tmp_path):
    here = replace(
        SERVICES,
        root=str(tmp_path),
        programs=str(PROGRAMS),
        nginx=NGINX or str(PROGRAMS / "python"),
    )
    paths = []
    for name in UNITS:
        path = tmp_path / name.replace("@.", "@0000.")
        path.write_text(render_services(here)[f"systemd/{name}"])
        paths.append(path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if "tutela" in line]
    assert ours == []
    assert done.returncode == 0, done.stderr


def compose() -> dict:
    return yaml.safe_load(render_services(SERVICES)["compose.yaml"])


def test_compose_follows_the_official_schema():
    vendored = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    faults = [f"{list(e.path)}: {e.message}" for e in validator.iter_errors(compose())]
    assert faults == []


def test_compose_publishes_the_proxy_alone_and_runs_nobody_as_root():
    services = compose()["services"]
    assert services["superlink"]["ports"] == ["443:443"]
    assert [name for name, each in services.items() if "ports" in each] == ["superlink"]
    assert "--host=127.0.0.1" in services["superlink"]["command"]
    for name, each in services.items():
        if name != "superlink":
            assert each["network_mode"] == "service:superlink"
        assert each["user"].startswith("${TUTELA_UID:?")
        assert each["cap_drop"] == ["ALL"]
        assert each["read_only"] is True
        assert re.search(r":\d+\.\d+\.\d+", each["image"])


def writable(name: str) -> set[str]:
    """What a service's container may write to, under the deployment's folder."""
    volumes = [each.split(":") for each in compose()["services"][name]["volumes"]]
    return {place for _, place, *how in volumes if how != ["ro"]}


def test_the_superlink_writes_its_queue_and_reads_no_signing_key():
    own = ["/server/superlink", "/server/flwr"]
    service = unit("tutela-superlink.service")["Service"]
    assert service["ReadWritePaths"].split() == [f"/srv/tutela{p}" for p in own]
    hidden = {f"/srv/tutela/server/{name}" for name in ("state", "data", "runs")}
    assert set(service["InaccessiblePaths"].split()) == hidden
    assert writable("superlink") == {f"/deployment{p}" for p in own}
    places = [v.split(":")[1] for v in compose()["services"]["superlink"]["volumes"]]
    assert len(places) == 4
    assert "/deployment/server" not in places
    for name in ("state", "data", "runs"):
        assert not any(place.endswith(f"/{name}") for place in places)


def test_the_superlinks_command_names_nothing_that_it_may_not_reach():
    """Each file is in a folder that it writes, or mounted for it to read."""
    volumes = compose()["services"]["superlink"]["volumes"]
    places = [Path(each.split(":")[1]) for each in volumes]
    for word in compose()["services"]["superlink"]["command"]:
        path = Path(word.partition("=")[2])
        if path.is_absolute():
            assert any(path.is_relative_to(place) for place in places), word


def test_compose_gives_flower_options_that_it_knows():
    services = compose()["services"]
    for name in ("superlink", "superexec"):
        used = {word.partition("=")[0] for word in services[name]["command"]}
        assert used <= options_of(f"flower-{name}")
        assert "--insecure" not in used


def test_compose_and_units_start_flower_alike():
    for name in ("superlink", "superexec"):
        words = command(f"tutela-{name}.service")
        pairs = {
            word: "" if following.startswith("--") else following
            for word, following in zip(words, [*words[1:], "--"], strict=True)
            if word.startswith("--")
        }
        listed = compose()["services"][name]["command"]
        inside = {w.partition("=")[0]: w.partition("=")[2] for w in listed}
        moved = {k: v.replace("/srv/tutela", "/deployment") for k, v in pairs.items()}
        assert inside == moved


def test_flowers_configuration_is_read_by_flower(tmp_path, monkeypatch):
    from flwr.cli.flower_config import read_superlink_connection

    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    ca = str(tmp_path / "ca.crt")
    text = flower_config("lab", "127.0.0.1:9092", ca)
    (tmp_path / "config.toml").write_text(text)
    found = read_superlink_connection("lab")
    assert (found.address, found.root_certificates) == ("127.0.0.1:9092", ca)
    assert found.insecure is False


def test_no_file_says_what_it_must_not():
    for name, text in render_services(SERVICES).items():
        assert "--insecure" not in text, name
        assert "PRIVATE KEY" not in text, name
        assert "{{" not in text, name
