"""A client's keys: in the form that Flower reads, private, never written over."""

import argparse
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from client.deploy.keys import make_identity_key, make_node_key
from common.errors import ConfigError


@pytest.fixture
def node(tmp_path):
    make_node_key(tmp_path / "keys/node.key", tmp_path / "keys/node.pub", "lab-0000")
    return tmp_path / "keys"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_supernode_reads_the_private_half(node):
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    found = _try_setup_client_authentication(
        argparse.Namespace(
            auth_supernode_private_key=str(node / "node.key"),
            auth_supernode_public_key=None,
        )
    )
    assert found is not None
    private, public = found
    assert isinstance(private.curve, ec.SECP384R1)
    assert private.public_key() == public


def test_the_operators_command_reads_the_public_half(node):
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    from client.deploy.node import read_key

    registered = try_load_public_key(node / "node.pub")
    assert registered == public_key_to_bytes(read_key(node / "node.key").public_key())


def test_openssh_agrees_where_it_is(node):
    try:
        done = subprocess.run(
            ["ssh-keygen", "-y", "-f", node / "node.key"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except FileNotFoundError:
        pytest.skip("needs ssh-keygen")
    kind, key = done.stdout.split()[:2]
    written = (node / "node.pub").read_text().split()
    assert kind == "ecdsa-sha2-nistp384"
    assert written == [kind, key, "lab-0000"]


def test_private_halves_are_the_owners_alone(node):
    make_identity_key(node / "identity.key", node / "identity.pub")
    assert mode(node / "node.key") == mode(node / "identity.key") == 0o600
    assert mode(node / "node.pub") == mode(node / "identity.pub") == 0o644
    assert mode(node) == 0o700


def test_an_identity_signs_what_its_public_half_verifies(tmp_path):
    path = tmp_path / "identity.key"
    public = make_identity_key(path, tmp_path / "identity.pub")
    assert (tmp_path / "identity.pub").read_text() == f"{public}\n"
    key = load_pem_private_key(path.read_bytes(), password=None)
    signature = key.sign(b"words")
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(
        signature, b"words"
    )
    assert public not in path.read_text()


def test_no_two_keys_are_alike(tmp_path):
    publics = {
        make_identity_key(tmp_path / f"{n}.key", tmp_path / f"{n}.pub")
        for n in range(5)
    }
    assert len(publics) == 5


@pytest.mark.parametrize("there", ["a.key", "a.pub"])
@pytest.mark.parametrize("make", [make_identity_key, make_node_key])
def test_a_key_is_never_written_over(tmp_path, there, make):
    (tmp_path / there).write_text("older")
    more = ["name"] if make is make_node_key else []
    with pytest.raises(ConfigError, match=there):
        make(tmp_path / "a.key", tmp_path / "a.pub", *more)
    assert [p.name for p in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "older"
