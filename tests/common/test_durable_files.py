"""Durable files: the old bytes or the new, nobody else's eyes, no half a secret."""

import os
import stat
from pathlib import Path

import pytest

from common import durable_files
from common.durable_files import (
    SECRET_BYTES,
    check_owners_alone,
    read_or_create_secret,
    write_durably,
)
from common.errors import ConfigError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def generous():
    """A umask that would let everybody read."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_file_is_replaced_whole_and_is_its_owners_alone(tmp_path, generous):
    path = tmp_path / "file"
    path.write_bytes(b"a longer old text")
    path.chmod(0o644)
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made_for_the_owner_alone(tmp_path, generous):
    path = tmp_path / "state" / "file"
    write_durably(path, b"")
    assert path.read_bytes() == b""
    assert mode(path.parent) == 0o700


@pytest.mark.parametrize("call", ["fsync", "fdopen"])
def test_a_failure_before_the_rename_leaves_the_old_bytes(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_durably(path, b"old")

    def fail(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(durable_files.os, call, fail)
        with pytest.raises(OSError, match="disk full"):
            write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    write_durably(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path], "the next write takes the rubbish away"


def test_what_a_crash_left_beside_it_does_not_decide_who_may_read(tmp_path):
    path = tmp_path / "file"
    left = tmp_path / ".file.new"
    left.write_bytes(b"half")
    left.chmod(0o644)
    write_durably(path, b"new")
    assert mode(path) == 0o600


def test_a_failure_after_the_rename_leaves_the_new_bytes(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_durably(path, b"old")

    def fail(folder):
        raise OSError("folder gone")

    monkeypatch.setattr(durable_files, "sync_folder", fail)
    with pytest.raises(OSError, match="folder gone"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"new"


def test_the_bytes_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    """Otherwise a crash would leave a name with nothing behind it."""
    told = []
    fsync, rename = os.fsync, Path.replace

    def note_sync(descriptor):
        told.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def note_rename(self, target):
        told.append("rename")
        return rename(self, target)

    monkeypatch.setattr(durable_files.os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    write_durably(tmp_path / "file", b"new")
    assert told == ["file", "rename", "folder"]


def test_a_secret_is_drawn_once_and_kept(tmp_path, generous):
    path = tmp_path / "state" / "key"
    first = read_or_create_secret(path)
    assert len(first) == SECRET_BYTES == 32
    assert read_or_create_secret(path) == first == path.read_bytes()
    assert mode(path) == 0o600
    assert read_or_create_secret(tmp_path / "other") != first


@pytest.mark.parametrize("bit", [0o040, 0o020, 0o010, 0o004, 0o002, 0o001])
def test_a_secret_that_others_may_touch_is_refused(tmp_path, bit):
    path = tmp_path / "server.key"
    secret = read_or_create_secret(path)
    path.chmod(0o600 | bit)
    with pytest.raises(ConfigError, match=r"^server\.key: .*chmod 600"):
        read_or_create_secret(path)
    path.chmod(0o400)
    assert read_or_create_secret(path) == secret


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_what_its_owner_alone_may_touch_passes(tmp_path, mode):
    path = tmp_path / "private.key"
    path.write_bytes(b"PEM")
    path.chmod(mode)
    check_owners_alone(path)
    path.chmod(mode | 0o004)
    with pytest.raises(ConfigError, match=r"^private\.key: .*chmod 600") as caught:
        check_owners_alone(path)
    assert str(tmp_path) not in str(caught.value), "a log may quote it"


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_of_another_length_is_refused_and_left_alone(tmp_path, length):
    path = tmp_path / "server.key"
    write_durably(path, b"s" * length)
    with pytest.raises(ConfigError, match=r"^server\.key: expected 32 bytes") as caught:
        read_or_create_secret(path)
    assert "sss" not in str(caught.value)
    assert path.read_bytes() == b"s" * length
