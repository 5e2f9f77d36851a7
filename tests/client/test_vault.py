"""Private state at rest: sealed, bound to what it is, and never half written."""

import stat
from pathlib import Path

import pytest

from client.vault import (
    FORMAT,
    Key,
    key_from_file,
    key_from_passphrase,
    read_vault,
    seal,
    unseal,
    write_vault,
)
from common.errors import ConfigError, DataFormatError

SECRET = b"taste of user 7: horror"
KEY = Key(bytes(range(32)), stretched=False)
OTHER = Key(bytes(32), stretched=False)


def test_what_is_sealed_comes_back_and_cannot_be_read_on_the_way() -> None:
    sealed = seal(SECRET, "personal", KEY)
    assert unseal(sealed, "personal", KEY) == SECRET
    assert SECRET not in sealed and b"horror" not in sealed


def test_no_two_seals_are_alike() -> None:
    assert seal(SECRET, "personal", KEY) != seal(SECRET, "personal", KEY)


def test_a_passphrase_is_stretched_under_a_salt_of_its_own() -> None:
    key = key_from_passphrase("correct horse")
    sealed = seal(SECRET, "personal", key)
    assert unseal(sealed, "personal", key) == SECRET
    with pytest.raises(DataFormatError, match="key"):
        unseal(sealed, "personal", key_from_passphrase("correct house"))


def test_another_key_or_another_label_opens_nothing() -> None:
    sealed = seal(SECRET, "personal", KEY)
    for label, key in (("personal", OTHER), ("ledger", KEY)):
        with pytest.raises(DataFormatError) as caught:
            unseal(sealed, label, key)
        assert "horror" not in str(caught.value)


def test_every_bit_after_the_kind_counts() -> None:
    sealed = seal(SECRET, "personal", KEY)
    for place in range(len(FORMAT) + 1, len(sealed)):
        damaged = bytearray(sealed)
        damaged[place] ^= 1
        with pytest.raises(DataFormatError):
            unseal(bytes(damaged), "personal", KEY)
    for length in range(len(FORMAT) + 1, len(sealed)):
        with pytest.raises(DataFormatError):
            unseal(sealed[:length], "personal", KEY)


def test_a_plain_file_does_not_pass_for_a_sealed_one() -> None:
    with pytest.raises(ConfigError, match="no key"):
        unseal(seal(SECRET, "personal", None), "personal", KEY)


def test_a_sealed_file_asks_for_its_kind_of_key() -> None:
    sealed = seal(SECRET, "personal", KEY)
    with pytest.raises(ConfigError, match="a key, which"):
        unseal(sealed, "personal", None)
    with pytest.raises(ConfigError, match="a key, which"):
        unseal(sealed, "personal", key_from_passphrase("x"))


def test_other_files_are_no_vaults() -> None:
    for content in (b"", FORMAT, b"PK\x03\x04", FORMAT + b"\x09rest"):
        with pytest.raises(DataFormatError):
            unseal(content, "personal", KEY)


@pytest.mark.parametrize("key", [None, KEY])
def test_the_file_is_its_owners_alone(tmp_path: Path, key: Key | None) -> None:
    path = tmp_path / "state"
    write_vault(path, SECRET, "personal", key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_vault(path, "personal", key) == SECRET
    assert (SECRET in path.read_bytes()) == (key is None)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found no file"):
        read_vault(tmp_path / "state", "personal", None)


def test_a_key_file_holds_32_bytes_and_is_secret(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ConfigError, match="found no file"):
        key_from_file(path)
    path.write_bytes(bytes(32))
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        key_from_file(path)
    path.chmod(0o600)
    assert key_from_file(path) == OTHER
    path.write_bytes(bytes(31))
    with pytest.raises(ConfigError, match="got 31"):
        key_from_file(path)


def test_an_empty_passphrase_is_none() -> None:
    with pytest.raises(ConfigError, match="empty"):
        key_from_passphrase("")


def test_a_key_does_not_show_itself() -> None:
    assert "horse" not in repr(key_from_passphrase("correct horse"))
