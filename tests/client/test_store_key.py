"""Where the store's key comes from, and how it is changed."""

import base64
import builtins
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from client.feedback import Feedback, FeedbackRow, encode_feedback, open_feedback
from client.feedback import read_feedback as read
from client.store_commands import reseal
from client.store_key import FEEDBACK, PERSONAL, SERVICE, store_key
from client.vault import Key, key_from_passphrase, read_vault, write_vault
from common.errors import ConfigError, DataFormatError, TutelaError

keyring = pytest.importorskip("keyring")

SECRET = bytes(range(32))
KEY = Key(SECRET, stretched=False)


class MemoryKeyring(keyring.backend.KeyringBackend):
    """A keyring that forgets with the test."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


class LockedKeyring(MemoryKeyring):
    def get_password(self, service: str, username: str) -> str | None:
        raise keyring.errors.KeyringLocked("the password of Ann's keyring")


@pytest.fixture
def memory():
    before, found = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(found)
    yield found
    keyring.set_keyring(before)


def said(folder: Path, key: Key | None, item: str = "i1") -> None:
    log = open_feedback(folder, key)
    log.append(encode_feedback(Feedback("ab" * 16, (FeedbackRow(item),))))
    log.close()


def test_no_source_is_no_key(tmp_path: Path) -> None:
    assert store_key(tmp_path, "") is None


def test_a_file_beside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(SECRET)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "0000").mkdir()
    assert store_key(tmp_path / "0000", "file:../key") == KEY
    with pytest.raises(ConfigError, match="found no file"):
        store_key(tmp_path / "0000", "file:none")


@pytest.mark.parametrize("text", [SECRET.hex(), base64.b64encode(SECRET).decode()])
def test_the_environment_holds_32_bytes(tmp_path, monkeypatch, text) -> None:
    monkeypatch.setenv("STORE", text)
    assert store_key(tmp_path, "env:STORE") == KEY


def test_other_text_of_some_length_is_a_passphrase(tmp_path, monkeypatch) -> None:
    text = "correct horse battery staple"
    monkeypatch.setenv("STORE", text)
    assert store_key(tmp_path, "env:STORE") == key_from_passphrase(text)


@pytest.mark.parametrize("text", ["", "short"])
def test_a_missing_or_short_variable_is_refused(tmp_path, monkeypatch, text) -> None:
    monkeypatch.setenv("STORE", text)
    with pytest.raises(ConfigError, match="STORE") as caught:
        store_key(tmp_path, "env:STORE")
    assert "short" not in str(caught.value)


def test_the_keyring_keeps_one_key_for_a_folder(tmp_path: Path, memory) -> None:
    (tmp_path / "a").mkdir()
    first = store_key(tmp_path / "a", "keyring")
    said(tmp_path / "a", first)
    assert store_key(tmp_path / "a", "keyring") == first
    ((service, name),) = memory.held
    assert (
        service == SERVICE and len(base64.b64decode(memory.held[service, name])) == 32
    )
    (tmp_path / "a").rename(tmp_path / "moved")
    assert store_key(tmp_path / "moved", "keyring") == first
    (tmp_path / "b").mkdir()
    assert store_key(tmp_path / "b", "keyring") != first


def test_a_lost_entry_is_not_replaced(tmp_path: Path, memory) -> None:
    said(tmp_path, store_key(tmp_path, "keyring"))
    memory.held.clear()
    with pytest.raises(ConfigError, match="restore the keyring's entry"):
        store_key(tmp_path, "keyring")
    assert not memory.held


def test_a_foreign_entry_is_refused(tmp_path: Path, memory) -> None:
    store_key(tmp_path, "keyring")
    memory.held = dict.fromkeys(memory.held, "pass")
    with pytest.raises(ConfigError, match="32 bytes in base64"):
        store_key(tmp_path, "keyring")


def test_a_locked_keyring_is_said_without_its_text(tmp_path: Path, memory) -> None:
    keyring.set_keyring(LockedKeyring())
    with pytest.raises(ConfigError, match="KeyringLocked") as caught:
        store_key(tmp_path, "keyring")
    assert "Ann" not in str(caught.value)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch) -> None:
    original = builtins.__import__

    def without(name, *rest):
        if name.startswith("keyring"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"tutela\[keyring\]"):
        store_key(tmp_path, "keyring")


# ------------------------------------------------------------------- a new key
def tutela(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(reseal)
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if isinstance(done.exception, TutelaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_a_plain_store_is_sealed_and_opened_again(tmp_path, monkeypatch) -> None:
    said(tmp_path, None)
    write_vault(tmp_path / PERSONAL, b"taste", "tutela-personal-1", None)
    monkeypatch.setenv("STORE", SECRET.hex())
    (tmp_path / "settings.toml").write_text('store-key = "env:STORE"\n')
    assert "feedback.log, personal.vault written anew, sealed" in tutela(tmp_path)
    assert read(tmp_path, KEY)["item"].to_list() == ["i1"]
    assert read_vault(tmp_path / PERSONAL, "tutela-personal-1", KEY) == b"taste"
    (tmp_path / "settings.toml").write_text("")
    assert "in plain" in tutela(tmp_path, "--old-key", "env:STORE")
    assert read(tmp_path, None)["item"].to_list() == ["i1"]


def test_an_interrupted_change_is_made_again(tmp_path, monkeypatch) -> None:
    said(tmp_path, KEY)  # done already
    write_vault(tmp_path / PERSONAL, b"taste", "tutela-personal-1", None)
    monkeypatch.setenv("STORE", SECRET.hex())
    (tmp_path / "settings.toml").write_text('store-key = "env:STORE"\n')
    tutela(tmp_path)
    assert read(tmp_path, KEY)["item"].to_list() == ["i1"]
    assert read_vault(tmp_path / PERSONAL, "tutela-personal-1", KEY) == b"taste"


def test_a_keyring_may_take_over_a_plain_store(tmp_path: Path, memory) -> None:
    said(tmp_path, None)
    (tmp_path / "settings.toml").write_text('store-key = "keyring"\n')
    tutela(tmp_path)
    key = store_key(tmp_path, "keyring")
    assert read(tmp_path, key)["item"].to_list() == ["i1"]


def test_the_wrong_old_key_changes_nothing(tmp_path, monkeypatch) -> None:
    said(tmp_path, KEY)
    before = (tmp_path / FEEDBACK).read_bytes()
    monkeypatch.setenv("STORE", bytes(32).hex())
    with pytest.raises(DataFormatError):
        tutela(tmp_path, "--old-key", "env:STORE")
    with pytest.raises(ConfigError, match="--old-key"):
        tutela(tmp_path, "--old-key", "elsewhere")
    assert (tmp_path / FEEDBACK).read_bytes() == before
