"""Private state at rest: sealed where a key is given, else plain and its owner's alone.

Client only. ChaCha20-Poly1305 (RFC 8439) under a random nonce, and what the file is
bound into its authentication, so that one kind of file cannot stand for another. The
key is 32 bytes, or a passphrase stretched by scrypt (RFC 7914). A log's records are
sealed one by one (:class:`Sealer`), each bound to its log and its place in it.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from common.durable_files import (
    SECRET_BYTES,
    check_owners_alone,
    write_durably,
)
from common.errors import ConfigError, DataFormatError
from common.versions import check_format

FORMAT = b"tutela-vault-1\n"
_PLAIN, _KEY, _PASSPHRASE = b"\x00", b"\x01", b"\x02"
_SALT, _NONCE, _TAG, _DIGEST = 16, 12, 16, 32
#: scrypt's cost: 64 MB and some tenths of a second a guess.
_COST, _BLOCK = 2**16, 8


@dataclass(frozen=True)
class Key:
    """What a vault is sealed with.

    Attributes:
        secret: 32 random bytes, or a passphrase's UTF-8.
        stretched: whether it is a passphrase.
    """

    secret: bytes = field(repr=False)
    stretched: bool


def key_from_file(path: Path) -> Key:
    """A key of 32 bytes.

    Raises:
        ConfigError: if there is none, others may read it, or its length is another.
    """
    if not path.is_file():
        raise ConfigError(
            f"Expected a key of {SECRET_BYTES} bytes at {path}, found no file; "
            "`head -c 32 /dev/urandom` makes one."
        )
    check_owners_alone(path)
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise ConfigError(
            f"{path}: expected a key of {SECRET_BYTES} bytes, got {len(secret)}."
        )
    return Key(secret, stretched=False)


def key_from_passphrase(passphrase: str) -> Key:
    """A passphrase, stretched under a salt of its own for each file.

    Raises:
        ConfigError: if it is empty.
    """
    if not passphrase:
        raise ConfigError("Expected a passphrase, got an empty one.")
    return Key(passphrase.encode(), stretched=True)


def write_vault(path: Path, content: bytes, label: str, key: Key | None) -> None:
    """Write the whole file or keep the old one, readable to its owner alone.

    Args:
        label: what it is; to be named again when reading.
        key: ``None`` leaves the content plain.
    """
    write_durably(path, seal(content, label, key), mode=0o600)


def read_vault(path: Path, label: str, key: Key | None) -> bytes:
    """What :func:`write_vault` wrote.

    Raises:
        ConfigError: if there is no file.
        ConfigError, DataFormatError: as :func:`unseal`.
    """
    if not path.is_file():
        raise ConfigError(f"Expected {path.name} at {path}, found no file.")
    return unseal(path.read_bytes(), label, key)


def seal(content: bytes, label: str, key: Key | None) -> bytes:
    """The bytes of a vault: format, kind, salt if any, nonce, ciphertext."""
    if key is None:
        return FORMAT + _PLAIN + content
    salt = secrets.token_bytes(_SALT) if key.stretched else b""
    nonce = secrets.token_bytes(_NONCE)
    head = FORMAT + _kind(key) + salt
    cipher = ChaCha20Poly1305(_cipher_key(key, salt))
    return head + nonce + cipher.encrypt(nonce, content, head + label.encode())


def unseal(sealed: bytes, label: str, key: Key | None) -> bytes:
    """What :func:`seal` was given.

    Raises:
        ConfigError: if a key is needed and none given, another kind is needed, or one
            is given and the content is plain: somebody may have put it there.
        DataFormatError: if this is no vault, the key is another, or a bit differs.
    """
    if not sealed.startswith(FORMAT) or len(sealed) == len(FORMAT):
        check_format("The vault", _named(sealed), (_named(FORMAT),))
        raise DataFormatError("Expected a whole vault, got its first line alone.")
    kind = sealed[len(FORMAT) : len(FORMAT) + 1]
    rest = sealed[len(FORMAT) + 1 :]
    _check_key(kind, key)
    if key is None:
        return rest
    salt_length = _SALT if key.stretched else 0
    salt, rest = rest[:salt_length], rest[salt_length:]
    try:
        if len(rest) < _NONCE + _TAG:
            raise InvalidTag
        cipher = ChaCha20Poly1305(_cipher_key(key, salt))
        head = FORMAT + kind + salt
        return cipher.decrypt(rest[:_NONCE], rest[_NONCE:], head + label.encode())
    except InvalidTag:
        raise DataFormatError(
            "Expected the key that this file was sealed with, and the file as it was "
            "written; one of them is not. With the right key, write it anew."
        ) from None


#: What a log begins with: this, its kind, a salt (unused without a passphrase), its id.
LOG_FORMAT = b"tutela-log-1\n"
LOG_HEAD = len(LOG_FORMAT) + 1 + 2 * _SALT


@dataclass(frozen=True)
class Sealer:
    """Seals the records of one log, each bound to the log and to its index.

    Without a key a record is plain behind a digest over the same: damage and records
    out of place are found, forgery is not.

    Attributes:
        bound: what each record is bound to beside its index.
        cipher: ``None`` leaves records plain.
    """

    bound: bytes = field(repr=False)
    cipher: ChaCha20Poly1305 | None = field(repr=False)

    def seal(self, content: bytes, index: int) -> bytes:
        """A record's bytes."""
        if self.cipher is None:
            return self._digest(content, index) + content
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self.cipher.encrypt(nonce, content, self._place(index))

    def unseal(self, record: bytes, index: int) -> bytes:
        """What :meth:`seal` was given.

        Raises:
            DataFormatError: if a bit differs, or the record stood elsewhere.
        """
        try:
            if self.cipher is not None and len(record) >= _NONCE + _TAG:
                nonce, rest = record[:_NONCE], record[_NONCE:]
                return self.cipher.decrypt(nonce, rest, self._place(index))
            digest, content = record[:_DIGEST], record[_DIGEST:]
            if self.cipher is None and digest == self._digest(content, index):
                return content
        except InvalidTag:
            pass
        raise DataFormatError(
            f"Expected record {index} as it was written, under the key it was sealed "
            "with; one of them is not."
        )

    def _place(self, index: int) -> bytes:
        return self.bound + index.to_bytes(8, "big")

    def _digest(self, content: bytes, index: int) -> bytes:
        return hashlib.sha256(self._place(index) + content).digest()


def new_log_head(key: Key | None) -> bytes:
    """The first ``LOG_HEAD`` bytes of a log with an id of its own."""
    return LOG_FORMAT + _kind(key) + secrets.token_bytes(2 * _SALT)


def sealer(head: bytes, label: str, key: Key | None) -> Sealer:
    """What seals and unseals the records of the log with this head.

    Raises:
        ConfigError, DataFormatError: as :func:`check_log_head`.
    """
    check_log_head(head, key)
    salt = head[-2 * _SALT : -_SALT]
    cipher = None if key is None else ChaCha20Poly1305(_cipher_key(key, salt))
    return Sealer(head + label.encode(), cipher)


def check_log_head(head: bytes, key: Key | None) -> None:
    """Whether a log with this head is sealed with a key of this kind; no key is tried.

    Stretching a passphrase takes tenths of a second, and only a record would tell
    whether the key is the right one.

    Raises:
        ConfigError: if a key is needed and none given, or the other way round.
        DataFormatError: if it is no log's head.
    """
    if not head.startswith(LOG_FORMAT) or len(head) != LOG_HEAD:
        check_format("The log", _named(head), (_named(LOG_FORMAT),))
        raise DataFormatError("Expected a whole log, got less than its head.")
    _check_key(head[len(LOG_FORMAT) : len(LOG_FORMAT) + 1], key)


def _named(content: bytes) -> str:
    """What a file's first line calls it."""
    return content[:40].partition(b"\n")[0].decode("ascii", "replace")


def _kind(key: Key | None) -> bytes:
    if key is None:
        return _PLAIN
    return _PASSPHRASE if key.stretched else _KEY


def _check_key(kind: bytes, key: Key | None) -> None:
    names = {_PLAIN: "no key", _KEY: "a key", _PASSPHRASE: "a passphrase"}
    if kind not in names:
        raise DataFormatError("Expected a vault of a known kind, got another.")
    given = _kind(key)
    if given != kind:
        raise ConfigError(
            f"Expected {names[kind]}, which this file was written with, got "
            f"{names[given]}; `reseal` changes a store's key."
        )


def _cipher_key(key: Key, salt: bytes) -> bytes:
    if not key.stretched:
        return key.secret
    stretch = Scrypt(salt=salt, length=SECRET_BYTES, n=_COST, r=_BLOCK, p=1)
    return stretch.derive(key.secret)
