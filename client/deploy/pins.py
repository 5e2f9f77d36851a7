"""Which code bundles this client's owner allowed, and what another one would change.

Client only: in Flower the server ships the code that reads the device's rows, so a
promise that trusts nobody holds only where the owner chose that code. Nothing of a
bundle is written to disk or imported here; its files are read in memory, within bounds.
"""

from __future__ import annotations

import codecs
import difflib
import hashlib
import io
import tokenize
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.durable_files import write_durably
from common.errors import ConfigError, DataFormatError, NoConsent
from common.folders import SETTINGS

#: In the client's folder: the bundles pinned so far, by their hash.
BUNDLES = "bundles"
#: Most bytes of a bundle's files together; Flower takes 10 MB of them compressed.
MOST_BYTES = 64 * 2**20
MOST_FILES = 5_000
PROJECT = "pyproject.toml"
#: What Flower packs. A compiled file would run, and no diff of it can be read.
SUFFIXES = frozenset(
    {".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl", "LICENSE"}
)


class UnpinnedBundle(NoConsent):
    """A bundle whose hash the client's settings do not name; none of it ran."""


@dataclass(frozen=True)
class Changes:
    """What a bundle holds against another: names in order, text as a unified diff.

    Attributes:
        against: the other bundle's hash; empty where there is none to compare with.
        project: differences of ``pyproject.toml`` that decide what runs: dependencies,
            components, defaults of a run; one line each, ``key: old -> new``.
    """

    against: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    project: tuple[str, ...]
    diff: tuple[str, ...]


def hash_of(content: bytes) -> str:
    """SHA-256 of a bundle's very bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def check_bundle(
    content: bytes, named: tuple[str, ...], allowed: tuple[str, ...]
) -> str:
    """The bundle's hash, computed here.

    Args:
        content: the bundle as it came.
        named: the hashes that its sender gave it; each must be the true one.
        allowed: the hashes that the client's owner pinned.

    Raises:
        UnpinnedBundle: if any of this does not hold.
    """
    found = hash_of(content)
    for name in named:
        if name != found:
            raise UnpinnedBundle(
                f"A bundle came as {_hexadecimal(name)} and its bytes are {found}."
            )
    if found not in allowed:
        more = f" and {len(allowed) - 1} more" if len(allowed) > 1 else ""
        pinned = f"{allowed[-1]}{more}" if allowed else "none"
        raise UnpinnedBundle(
            f"A bundle's bytes are {found}, the owner pinned {pinned}."
        )
    return found


def _hexadecimal(name: str) -> str:
    """What a stranger calls a hash, fit for a log."""
    short = name[:64]
    return short if short.isalnum() and short.isascii() else "no hash"


def read_bundle(content: bytes) -> dict[str, bytes]:
    """A bundle's files, without Flower's list of their hashes.

    Raises:
        DataFormatError: if it is no bundle, unpacks to too much, or holds what
            nobody could read.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            parts = [part for part in packed.infolist() if not part.is_dir()]
            if len({part.filename for part in parts}) < len(parts):
                raise DataFormatError("A bundle holds two files of one name.")
            size = sum(part.file_size for part in parts)
            if len(parts) > MOST_FILES or size > MOST_BYTES:
                raise DataFormatError(
                    f"Expected a bundle of at most {MOST_FILES} files and "
                    f"{MOST_BYTES} bytes, got {len(parts)} and {size}."
                )
            files = {part.filename: packed.read(part) for part in parts}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError) as error:
        raise DataFormatError(f"Expected a Flower App Bundle: {error}.") from None
    except (NotImplementedError, RuntimeError) as error:  # encrypted, odd methods
        raise DataFormatError(f"Expected a Flower App Bundle: {error}.") from None
    if PROJECT not in files:
        raise DataFormatError(f"Expected a Flower App Bundle with {PROJECT}.")
    files.pop(".info/CONTENT", None)
    for name, text in files.items():
        ending = PurePosixPath(name).suffix or PurePosixPath(name).name
        if ending not in SUFFIXES or (ending == ".py" and not _is_utf8(text)):
            raise DataFormatError(
                f"Expected a bundle of text that can be read before it is pinned, got "
                f"{printable(name)[:200]}."
            )
    return dict(sorted(files.items()))


def _is_utf8(code: bytes) -> bool:
    """Whether Python reads this file as it is shown (PEP 263).

    A line such as ``# coding: utf-7`` would make code of what looks like a comment.
    Python ends lines at a bare carriage return too; ``tokenize`` does not.
    """
    lines = code.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        named, _ = tokenize.detect_encoding(io.BytesIO(lines).readline)
        code.decode("utf-8")
    except (SyntaxError, UnicodeDecodeError):
        return False
    return codecs.lookup(named).name in ("utf-8", "utf-8-sig")


def compare(
    before: Mapping[str, bytes], after: Mapping[str, bytes], against: str = ""
) -> Changes:
    """What changed between the files of two bundles."""
    both = before.keys() & after.keys()
    changed = sorted(name for name in both if before[name] != after[name])
    added, removed = sorted(after.keys() - before), sorted(before.keys() - after)
    return Changes(
        against=against,
        added=tuple(added),
        removed=tuple(removed),
        changed=tuple(changed),
        project=tuple(_project(before.get(PROJECT, b""), after.get(PROJECT, b""))),
        diff=tuple(
            line
            for name in sorted([*added, *removed, *changed])
            for line in _diff(name, before.get(name), after.get(name))
        ),
    )


def _diff(name: str, before: bytes | None, after: bytes | None) -> Iterator[str]:
    old, new = map(_lines, (before, after))
    was, is_now = ("/dev/null" if part is None else name for part in (before, after))
    for line in difflib.unified_diff(old, new, was, is_now, lineterm=""):
        yield printable(line)


def _lines(part: bytes | None) -> list[str]:
    """All of a file: nothing is cut off, so that no change of line ends is hidden.

    A file that ends with a line's end has an empty line behind it; a carriage return
    stays in its line and is shown.
    """
    if part is None:
        return []
    return part.decode("utf-8", errors="backslashreplace").split("\n")


def printable(line: str) -> str:
    """A stranger's line, unable to steer the terminal that shows it."""
    return "".join(
        c if c.isprintable() or c == "\t" else f"\\x{ord(c):02x}" for c in line
    )


def _project(before: bytes, after: bytes) -> Iterator[str]:
    old, new = _flat(before), _flat(after)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            gone = "nothing"
            yield printable(f"{key}: {old.get(key, gone)} -> {new.get(key, gone)}")


def _flat(content: bytes) -> dict[str, str]:
    try:
        tree = tomllib.loads(content.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {"the whole file": "not TOML"} if content else {}
    return dict(_leaves("", tree))


def _leaves(prefix: str, tree: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _leaves(f"{name}.", value)
        else:
            yield name, repr(value)


def kept_bundle(folder: Path, name: str) -> bytes | None:
    """A bundle pinned before, if the client's folder still holds its true bytes."""
    path = folder / BUNDLES / f"{name}.fab"
    content = path.read_bytes() if path.is_file() else None
    return content if content is not None and hash_of(content) == name else None


def changes_since(folder: Path, pinned: tuple[str, ...], content: bytes) -> Changes:
    """What a bundle changes against the one pinned last, against nothing if none is.

    Raises:
        DataFormatError: if it is no bundle.
    """
    for name in reversed(pinned):
        kept = kept_bundle(folder, name)
        if kept is not None:
            return compare(read_bundle(kept), read_bundle(content), name)
    return compare({}, read_bundle(content))


def pin(folder: Path, content: bytes, *, only: bool = False) -> str:
    """Allow a bundle from now on: name it in the settings, keep it to compare with.

    The settings keep their comments and everything else they say.

    Args:
        folder: the client's.
        content: the bundle.
        only: whether bundles pinned before are forgotten.

    Returns:
        The bundle's hash.

    Raises:
        ConfigError: if the settings cannot be read.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    from client.settings import read_settings

    name = hash_of(content)
    before = () if only else read_settings(folder).bundles
    path = folder / SETTINGS
    text = path.read_text("utf-8") if path.is_file() else ""
    try:
        tree = tomlkit.parse(text)
    except TOMLKitError as error:
        raise ConfigError(f"{SETTINGS}: expected TOML: {error}") from None
    write_durably(folder / BUNDLES / f"{name}.fab", content)
    names = [*(each for each in before if each != name), name]
    tree["bundles"] = names
    mode = path.stat().st_mode & 0o777 if path.is_file() else 0o600
    write_durably(path, tomlkit.dumps(tree).encode(), mode=mode)
    return name
