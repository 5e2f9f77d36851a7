"""``tutela deploy init``: a whole folder or none, and secrets where they belong."""

import base64
import json
import socket
import stat
import tomllib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner

from client.data import read_client_data
from client.settings import read_settings, witness_place
from common.config import defaults, parse
from common.errors import ConfigError
from common.folders import INTERACTIONS, SERVER_KEY
from common.roster import read_roster
from common.signature import public_key
from server.deploy.services import UNITS
from server.settings import read_public_data
from simulations.deploy_commands import deploy_app
from simulations.deployment.bundle import read_bundle
from simulations.deployment.initialise import Wishes, initialise
from simulations.deployment.layout import Layout, read_deployment
from simulations.deployment.parts import close_folders

SET = "synthetic:num_users=120,num_items=40,interactions_per_user=8"
CONFIG = f"""
[run]
name = "lab"
[data]
public = "{SET}"
private = "{SET}"
[partition]
num-clients = 7
public-users = 20
validation-users = 5
heldout-users = 20
[privacy]
target-epsilon = 3.0
"""


def init(*arguments):
    return CliRunner().invoke(deploy_app, ["init", *map(str, arguments)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A deployment with data, and what the command printed."""
    folder = tmp_path_factory.mktemp("init")
    config = folder / "run.toml"
    config.write_text(CONFIG)
    names = ["--san", "DNS:fleet.example.org,IP:192.0.2.7"]
    done = init("--clients", 3, "--config", config, *names, folder / "lab")
    assert done.exit_code == 0, done.output
    return Layout(folder / "lab"), done.output


@pytest.fixture
def layout(made):
    return made[0]


def clients(layout):
    return [layout.client(each.name) for each in read_deployment(layout.root).clients]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def files(layout):
    return [path for path in layout.root.rglob("*") if path.is_file()]


def secrets(layout):
    """Every secret as bytes, by its file: whole, raw, in hexadecimal and base64."""
    found = {}
    raw = [layout.executor_secret, layout.state / SERVER_KEY]
    pem = [layout.ca_key, layout.server_key]
    for place in clients(layout):
        raw.append(place.folder / "id.key")
        pem += [place.node_key, place.identity_key]
    for path in raw:
        found[path] = [path.read_bytes()]
    for path in pem:
        content = path.read_bytes()
        body = b"".join(content.splitlines()[1:-1])
        if path.name == "node.key":
            key = serialization.load_ssh_private_key(content, None)
        else:
            key = serialization.load_pem_private_key(content, None)
        if path.name == "identity.key":
            scalar = key.private_bytes_raw()
        else:
            size = (key.curve.key_size + 7) // 8
            scalar = key.private_numbers().private_value.to_bytes(size, "big")
        found[path] = [content, body, scalar]
    return {
        path: [*forms, forms[-1].hex().encode(), base64.b64encode(forms[-1])]
        for path, forms in found.items()
    }


def test_secrets_are_in_their_files_alone_and_theirs_are_0600(made):
    layout, output = made
    hidden = secrets(layout)
    assert len(hidden) == 4 + 3 * 3
    contents = {path: path.read_bytes() for path in files(layout)}
    for place, forms in hidden.items():
        assert mode(place) == 0o600
        for form in forms:
            holders = {path for path, content in contents.items() if form in content}
            assert holders <= {place}
            assert form not in output.encode()
    for path, content in contents.items():
        if b"PRIVATE KEY" in content and path.suffix != ".fab":
            assert path in hidden


def test_folders_are_the_owners_and_so_is_all_that_is_a_clients(layout):
    folders = [layout.root, *(p for p in layout.root.rglob("*") if p.is_dir())]
    assert {mode(path) for path in folders} == {0o700}
    open_files = {"ca.crt", "node.pub", "identity.pub", "roster.json"}
    for place in clients(layout):
        for path in place.folder.rglob("*"):
            if path.is_file():
                assert mode(path) == (0o644 if path.name in open_files else 0o600)


def test_ports_are_free_and_all_different(layout):
    deployment = read_deployment(layout.root)
    ports = [deployment.superlink.port, deployment.superlink.monitor_port]
    ports += [p for c in deployment.clients for p in (c.node_port, c.monitor_port)]
    assert len(set(ports)) == 8
    for port in ports:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", port))


def test_public_facts_say_what_was_asked(layout):
    deployment = read_deployment(layout.root)
    assert deployment.name == "lab"
    assert deployment.superlink.host == "127.0.0.1"
    assert deployment.superlink.public == "fleet.example.org:443"
    assert [each.name for each in deployment.clients] == ["0000", "0001", "0002"]


def test_the_certificate_is_for_every_name_under_the_authority(layout):
    certificate = x509.load_pem_x509_certificate(layout.server_certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(layout.ca_certificate.read_bytes())
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(name.value) for name in names.value] == [
        "fleet.example.org",
        "192.0.2.7",
        "localhost",
        "127.0.0.1",
    ]
    pem = layout.ca_certificate.read_bytes()
    assert layout.server_ca_certificate.read_bytes() == pem
    assert {place.ca_certificate.read_bytes() for place in clients(layout)} == {pem}


def test_clients_consent_to_this_server_and_this_code_alone(layout):
    server = public_key((layout.state / SERVER_KEY).read_bytes())
    _, bundle = read_bundle(layout.bundle.parent)
    for place in clients(layout):
        settings = read_settings(place.folder)
        assert settings.servers == (server,)
        assert settings.runs == ()
        assert settings.bundles == (bundle,)
        assert settings.budget["user"].target_epsilon == 3.0
        assert settings.allow_non_private is False
        assert settings.seed is None
        witness = witness_place(place.folder, settings).resolve()
        assert witness.parent == layout.witnesses.resolve()


def test_the_roster_lists_the_identities_that_sign(layout):
    for place in clients(layout):
        roster = read_roster(place.roster, place.ca_certificate)
        assert (roster.deployment, roster.version) == ("lab", 1)
        assert set(roster.clients) == {"0000", "0001", "0002"}
        secret = place.identity_key.read_bytes()
        key = serialization.load_pem_private_key(secret, password=None)
        own = key.public_key()
        assert roster.clients[place.name] == own.public_bytes_raw().hex()


def test_data_are_dealt_to_as_many_clients_as_asked(layout):
    public = read_public_data(layout.data)
    users = []
    for place in clients(layout):
        data = read_client_data(place.folder)
        assert data.catalogue.digest == public.catalogue.digest
        users.append(data.histories.shape[0])
    assert sum(users) == 120 - 20 - 20
    assert sorted(path.name for path in layout.clients.iterdir()) == [
        "0000",
        "0001",
        "0002",
    ]
    run = tomllib.loads(layout.run_config.read_text())
    assert run["partition"]["num-clients"] == 3
    assert (layout.root / "heldout" / INTERACTIONS).is_file()
    assert not (layout.root / ".dealing").exists()


def test_flowers_configuration_names_the_superlink(layout):
    tree = tomllib.loads(layout.flwr_config.read_text())["superlink"]
    deployment = read_deployment(layout.root)
    assert tree["default"] == "lab"
    assert tree["lab"]["address"] == deployment.superlink.address
    assert Path(tree["lab"]["root-certificates"]).read_bytes().startswith(b"-----BEGIN")


def test_services_are_written_for_every_part(layout):
    names = {
        path.relative_to(layout.services).as_posix()
        for path in files(layout)
        if path.is_relative_to(layout.services)
    }
    assert names == {
        "compose.yaml",
        "nginx.conf",
        "operator/config.toml",
        *(f"systemd/{unit}" for unit in UNITS),
        *(f"node-{n:04d}.env" for n in range(3)),
    }
    port = read_deployment(layout.root).superlink.port
    proxy = (layout.services / "nginx.conf").read_text()
    assert f"server 127.0.0.1:{port};" in proxy
    assert "listen *:443 ssl;" in proxy


def test_the_summary_says_what_comes_next(made):
    layout, output = made
    assert "fleet.example.org:443" in output
    assert f"Next: tutela deploy up {layout.root}" in output
    assert "hand them out" in output


def test_without_data_owners_are_told_to_import(tmp_path):
    done = init("--clients", 1, "--name", "empty", tmp_path / "lab")
    assert done.exit_code == 0, done.output
    assert "tutela import" in done.output
    layout = Layout(tmp_path / "lab")
    deployment = read_deployment(layout.root)
    assert (deployment.name, deployment.num_clients) == ("empty", 1)
    assert deployment.superlink.public == deployment.superlink.address
    (place,) = clients(layout)
    assert not (place.folder / INTERACTIONS).exists()
    assert read_settings(place.folder).budget["user"].target_epsilon == 8.0
    assert not layout.run_config.exists()


def test_two_deployments_share_no_secret(tmp_path):
    forms = []
    for name in ("a", "b"):
        assert init("--clients", 1, tmp_path / name).exit_code == 0
        layout = Layout(tmp_path / name)
        keys = [layout.ca_key, layout.executor_secret, layout.state / SERVER_KEY]
        forms += [path.read_bytes() for path in keys]
    assert len(set(forms)) == 6


WISHES = Wishes("lab", 2, parse(defaults()))


def test_a_folder_that_holds_anything_is_left_as_it_is(tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(ConfigError, match="new or empty folder"):
        initialise(tmp_path, WISHES)
    with pytest.raises(ConfigError, match="new or empty folder"):
        initialise(tmp_path / "note", WISHES)
    assert [path.name for path in tmp_path.iterdir()] == ["note"]
    assert (tmp_path / "note").read_text() == "mine"


def test_what_a_link_leads_to_keeps_its_mode(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "page").write_text("public")
    (outside / "page").chmod(0o644)
    initialise(tmp_path / "lab", WISHES)
    layout = Layout(tmp_path / "lab")
    place = layout.client("0000")
    (place.folder / "page").symlink_to(outside / "page")
    (place.folder / "folder").symlink_to(outside)
    (place.folder / "gone").symlink_to(tmp_path / "nowhere")
    (place.folder / "rows").write_text("mine")
    close_folders(layout)
    assert (mode(outside), mode(outside / "page")) == (0o755, 0o644)
    assert mode(place.folder / "rows") == 0o600


def test_a_deployment_is_not_made_over(tmp_path):
    initialise(tmp_path, WISHES)
    before = Layout(tmp_path).ca_key.read_bytes()
    with pytest.raises(ConfigError, match="never written over"):
        initialise(tmp_path, WISHES)
    assert Layout(tmp_path).ca_key.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clients", 0], "--clients: expected 1 to 9999, got 0"),
        (["--clients", -3], "--clients"),
        (["--clients", 10_000], "--clients"),
        (["--clients", 1, "--days", 0], "--days: expected 1 to 3650, got 0"),
        (["--clients", 1, "--name", "a b"], "--name"),
        (["--clients", 1, "--name", "a;\nlisten 1"], "--name"),
        (["--clients", 1, "--name", "lab\n"], "--name"),
        (["--clients", 1, "--san", "fleet.example.org"], "--san: expected DNS"),
        (["--clients", 1, "--san", "DNS:*"], "--san"),
        (["--clients", 1, "--san", "IP:1.2.3"], "--san: expected an IP address"),
    ],
)
def test_bad_wishes_are_named_and_leave_nothing(tmp_path, arguments, message):
    done = init(*arguments, tmp_path / "lab")
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert not (tmp_path / "lab").exists()


def test_what_fails_half_way_leaves_nothing(tmp_path):
    flat = defaults() | {"data.public": SET, "data.private": SET}
    flat |= {"partition.heldout-users": 1000}
    with pytest.raises(ConfigError, match="heldout-users"):
        initialise(tmp_path / "lab", Wishes("lab", 2, parse(flat), dealt=True))
    assert list((tmp_path / "lab").iterdir()) == []
    assert initialise(tmp_path / "lab", WISHES).deployment.num_clients == 2


def test_a_damaged_description_is_named(tmp_path):
    with pytest.raises(ConfigError, match="tutela deploy init"):
        read_deployment(tmp_path)
    path = Layout(tmp_path).deployment
    path.write_text("schema = ")
    with pytest.raises(ConfigError, match="expected TOML"):
        read_deployment(tmp_path)
    initialise(tmp_path / "lab", WISHES)
    good = Layout(tmp_path / "lab").deployment.read_text()
    for old, new, key in (
        ("schema = 1", "schema = 2", "schema"),
        ('name = "0001"', 'name = "0000"', "names that differ"),
        ("monitor-port", "monitor", "monitor"),
        ('host = "127.0.0.1"', 'host = ""', "superlink.host"),
    ):
        path.write_text(good.replace(old, new))
        with pytest.raises(ConfigError, match=key):
            read_deployment(tmp_path)


def test_the_roster_is_a_file_for_people_too(layout):
    tree = json.loads(clients(layout)[0].roster.read_text())
    assert set(tree) == {"schema", "deployment", "version", "clients", "signature"}
