"""The key of a client's store, from where its owner keeps it: one setting says where.

Client only. The store is what the device writes of its users beside the imported
rows: their feedback and their personal parameters. ``store-key`` is empty (the store
is plain), ``file:PATH``, ``env:NAME`` or ``keyring``, the platform's own.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import secrets
from pathlib import Path
from typing import Any

from client.vault import (
    LOG_HEAD,
    Key,
    check_log_head,
    key_from_file,
    key_from_passphrase,
)
from common.durable_files import SECRET_BYTES, read_or_create_secret
from common.errors import ConfigError, DataFormatError
from common.folders import ID_KEY

#: What may be sealed, in the client's folder.
FEEDBACK, PERSONAL = "feedback.log", "personal.vault"
#: Under this name the platform's keyring holds the keys of all folders.
SERVICE = "tutela"
#: A passphrase below this is no secret.
LEAST_LETTERS = 16


def store_key(folder: Path, source: str, *, fresh: bool = False) -> Key | None:
    """The key that a store's setting names; ``None`` where it names none.

    Args:
        source: the setting ``store-key``.
        fresh: whether the keyring may get a new one though the store holds something,
            which is then written anew.

    Raises:
        ConfigError: if there is no such key, or it is of no use.
    """
    kind, _, name = source.partition(":")
    if kind == "file":
        return key_from_file(folder / name)
    if kind == "env":
        return key_from_environment(name)
    return _key_from_keyring(folder, fresh=fresh) if kind == "keyring" else None


def check_store(folder: Path, source: str) -> None:
    """Whether this folder's feedback, if it has any, could be opened by its key.

    It looks at the setting, at where the key is, and at the log's head, which is
    written when the log is begun: never at a record, so no row decides.

    Raises:
        ConfigError: if not; a fixed text, since a log may quote it.
    """
    path = folder / FEEDBACK
    if not path.is_file():
        return
    try:
        key = store_key(folder, source)
        with path.open("rb") as file:
            check_log_head(file.read(LOG_HEAD), key)
    except (ConfigError, DataFormatError, OSError):
        raise ConfigError(
            f"store-key: expected the key that {FEEDBACK} is sealed with, found none "
            "that would open it; `serve` on this folder says what is wrong."
        ) from None


def key_from_environment(name: str) -> Key:
    """32 bytes in hexadecimal digits or base64, or else a passphrase.

    Raises:
        ConfigError: if the variable is missing, or short for a passphrase.
    """
    text = os.environ.get(name, "")
    secret = _decode(text)
    if secret is not None:
        return Key(secret, stretched=False)
    if len(text) < LEAST_LETTERS:
        raise ConfigError(
            f"store-key: expected {SECRET_BYTES} bytes in hexadecimal or base64, or a "
            f"passphrase of at least {LEAST_LETTERS} letters, in the environment's "
            f"{name}; got {'none' if not text else 'less'}."
        )
    return key_from_passphrase(text)


def _decode(text: str) -> bytes | None:
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return found if len(found) == SECRET_BYTES else None


def _key_from_keyring(folder: Path, *, fresh: bool) -> Key:
    """The folder's key, drawn and stored when the store holds nothing yet."""
    keyring = _keyring()
    # Of the folder's own id key, so that a folder may move; it tells nothing of it.
    own = read_or_create_secret(folder / ID_KEY)
    name = hmac.new(own, b"tutela-store", "sha256").hexdigest()[:32]
    try:
        text = keyring.get_password(SERVICE, name)
        if text is None:
            if not fresh:
                _check_is_new(folder)
            text = base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
            keyring.set_password(SERVICE, name, text)
    except keyring.errors.KeyringError as error:
        raise ConfigError(
            "store-key: expected a keyring that opens, got "
            f"{type(error).__name__}; unlock it, or use file: or env:."
        ) from None
    secret = _decode(text)
    if secret is None:
        raise ConfigError(
            f"store-key: expected {SECRET_BYTES} bytes in base64 in the keyring's "
            f"entry {SERVICE}/{name}, got others."
        )
    return Key(secret, stretched=False)


def _check_is_new(folder: Path) -> None:
    """Another key would open nothing of what is there."""
    if any((folder / each).exists() for each in (FEEDBACK, PERSONAL)):
        raise ConfigError(
            "store-key: expected this folder's key in the keyring, found none, and "
            "the store holds something already; restore the keyring's entry, or "
            "`reseal` a store that had no key."
        )


def _keyring() -> Any:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise ConfigError(
            "store-key: expected the package keyring, found none; install the extra: "
            "pip install 'tutela[keyring]'."
        ) from None
    return keyring
