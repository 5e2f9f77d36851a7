"""What comes later: a new certificate, a client more, a client less."""

import shutil
import stat

import pytest
from cryptography import x509
from typer.testing import CliRunner

from client.settings import read_settings
from common.config import defaults, parse
from common.errors import ConfigError, DataFormatError
from common.folders import CATALOGUE, SERVER_KEY
from common.roster import read_roster
from common.signature import public_key
from simulations.deploy_commands import deploy_app
from simulations.deployment.bundle import read_bundle
from simulations.deployment.changes import (
    add_client,
    remove_client,
    renew_certificate,
)
from simulations.deployment.initialise import Wishes, initialise
from simulations.deployment.layout import Layout, read_deployment


@pytest.fixture
def layout(tmp_path):
    names = ("DNS:fleet.example.org",)
    initialise(tmp_path / "lab", Wishes("lab", 2, parse(defaults()), names=names))
    return Layout(tmp_path / "lab")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names_of(layout):
    pem = layout.server_certificate.read_bytes()
    certificate = x509.load_pem_x509_certificate(pem)
    kind = x509.SubjectAlternativeName
    found = certificate.extensions.get_extension_for_class(kind).value
    return certificate, [str(name.value) for name in found]


def test_a_new_certificate_keeps_its_names_and_takes_more(layout):
    key = layout.server_key.read_bytes()
    expires = renew_certificate(layout.root, names=("IP:192.0.2.7",), days=10)
    certificate, names = names_of(layout)
    assert names == ["fleet.example.org", "localhost", "127.0.0.1", "192.0.2.7"]
    assert f"{certificate.not_valid_after_utc:%Y-%m-%d}" == expires
    authority = x509.load_pem_x509_certificate(layout.ca_certificate.read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert layout.server_key.read_bytes() != key
    assert mode(layout.server_key) == 0o600


def test_a_further_client_is_like_the_others(layout):
    shutil.copy(layout.deployment, layout.data / CATALOGUE)
    edited = layout.services / "compose.yaml"
    edited.write_text("mine")
    place = add_client(layout.root)
    assert place.name == "0002"
    deployment = read_deployment(layout.root)
    assert [each.name for each in deployment.clients] == ["0000", "0001", "0002"]
    assert (place.folder / CATALOGUE).read_bytes() == (
        layout.data / CATALOGUE
    ).read_bytes()
    settings = read_settings(place.folder)
    secret = (layout.state / SERVER_KEY).read_bytes()
    assert settings.servers == (public_key(secret),)
    assert settings.bundles == (read_bundle(layout.bundle.parent)[1],)
    assert mode(place.node_key) == mode(place.identity_key) == 0o600
    assert mode(place.folder) == mode(place.keys) == 0o700
    assert (layout.services / "node-0002.env").is_file()
    assert edited.read_text() == "mine"


def test_every_roster_knows_the_further_client(layout):
    add_client(layout.root)
    for name in ("0000", "0001", "0002"):
        place = layout.client(name)
        roster = read_roster(place.roster, place.ca_certificate, at_least=2)
        assert set(roster.clients) == {"0000", "0001", "0002"}
        own = place.identity_public_key.read_text().strip()
        assert roster.clients[name] == own


def test_clients_that_were_handed_out_stay_on_the_roster(layout):
    shutil.rmtree(layout.client("0000").folder)
    add_client(layout.root)
    roster = read_roster(layout.roster, layout.ca_certificate)
    assert (roster.version, set(roster.clients)) == (2, {"0000", "0001", "0002"})
    assert not layout.client("0000").folder.exists()


def test_a_removed_client_is_off_the_roster_and_its_number_is_gone(layout):
    remove_client(layout.root, "0001")
    deployment = read_deployment(layout.root)
    assert [each.name for each in deployment.clients] == ["0000"]
    roster = read_roster(layout.roster, layout.ca_certificate, at_least=2)
    assert set(roster.clients) == {"0000"}
    assert layout.client("0001").folder.is_dir()
    assert add_client(layout.root).name == "0002"
    assert set(read_roster(layout.roster, layout.ca_certificate).clients) == {
        "0000",
        "0002",
    }


def test_who_is_not_there_or_is_the_last_is_not_removed(layout):
    with pytest.raises(ConfigError, match="one of the clients 0000, 0001, got '7'"):
        remove_client(layout.root, "7")
    remove_client(layout.root, "0000")
    with pytest.raises(ConfigError, match="last client"):
        remove_client(layout.root, "0001")


def test_without_the_authority_nothing_changes(layout):
    layout.ca_key.unlink()
    before = {p: p.read_bytes() for p in layout.root.rglob("*") if p.is_file()}
    for change in (
        lambda: renew_certificate(layout.root, names=(), days=10),
        lambda: add_client(layout.root),
        lambda: remove_client(layout.root, "0000"),
    ):
        with pytest.raises(ConfigError, match="authority's key"):
            change()
    assert {p: p.read_bytes() for p in layout.root.rglob("*") if p.is_file()} == before


def test_another_authoritys_key_is_not_taken(layout, tmp_path):
    initialise(tmp_path / "other", Wishes("lab", 1, parse(defaults())))
    shutil.copy(Layout(tmp_path / "other").ca_key, layout.ca_key)
    with pytest.raises(DataFormatError, match=r"ca\.key"):
        add_client(layout.root)
    assert not layout.client("0002").folder.exists()


def test_the_verbs_say_what_is_left_to_do(layout):
    said = {}
    for words in (["renew"], ["add-client"], ["remove-client", "0001"]):
        verb, *more = words
        done = CliRunner().invoke(deploy_app, [verb, str(layout.root), *more])
        assert done.exit_code == 0, done.output
        said[verb] = done.output
    assert "restart SuperLink and proxy" in said["renew"]
    assert "Client 0002" in said["add-client"]
    assert "Unregister its node" in said["remove-client"]
