"""The server's verbs."""

import stat

import pytest
import typer
from typer.testing import CliRunner

from common.errors import ConfigError
from common.folders import SERVER_KEY
from common.signature import public_key
from server.commands import server_key


def printed(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(server_key)
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output.strip()


def test_the_public_key_is_printed_and_its_secret_kept(tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    first = printed("--state", str(state))
    secret = (state / SERVER_KEY).read_bytes()
    assert first == public_key(secret)
    assert secret.hex() not in first
    assert stat.S_IMODE((state / SERVER_KEY).stat().st_mode) == 0o600
    assert printed("--state", str(state)) == first


def test_it_is_the_key_of_the_servers_own_state_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELA_STATE", str(tmp_path))
    assert printed() == public_key((tmp_path / SERVER_KEY).read_bytes())


def test_no_key_is_made_in_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="--state"):
        server_key(tmp_path / "misspelt")
    assert not (tmp_path / "misspelt").exists()
