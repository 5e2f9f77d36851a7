"""A log of records: durable, each in its place, a torn end dropped, not more."""

import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.sealed_log import NoRoom, SealedLog, read_log, rewrite_log
from client.vault import LOG_HEAD, Key, key_from_passphrase
from common.errors import ConfigError, DataFormatError

KEY = Key(bytes(range(32)), stretched=False)
OTHER = Key(bytes(32), stretched=False)
RECORDS = (b"first", b"", b"third: horror", b"x" * 300)


def written(path: Path, records=RECORDS, key: Key | None = KEY) -> Path:
    log = SealedLog(path, "label", key)
    for record in records:
        log.append(record)
    log.close()
    return path


def ends(path: Path, key: Key | None = KEY) -> list[int]:
    """Where each record ends."""
    content, places = path.read_bytes(), [LOG_HEAD]
    while places[-1] < len(content):
        start = places[-1]
        places.append(start + 8 + int.from_bytes(content[start : start + 4], "big"))
    return places


@pytest.mark.parametrize("key", [None, KEY, key_from_passphrase("correct horse")])
def test_records_come_back_in_order_also_after_reopening(tmp_path, key) -> None:
    path = written(tmp_path / "log", RECORDS[:2], key)
    written(path, RECORDS[2:], key)
    assert read_log(path, "label", key).records == RECORDS
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (b"horror" in path.read_bytes()) == (key is None)


@pytest.mark.parametrize("key", [None, KEY])
def test_every_torn_end_is_dropped_and_written_over(tmp_path: Path, key) -> None:
    path = written(tmp_path / "log", key=key)
    whole, last = path.read_bytes(), ends(path)[-2]
    for length in range(last, len(whole)):
        path.write_bytes(whole[:length])
        assert read_log(path, "label", key).records == RECORDS[:-1]
    written(path, [b"again"], key)
    assert read_log(path, "label", key).records == (*RECORDS[:-1], b"again")


@pytest.mark.parametrize("key", [None, KEY])
def test_every_changed_bit_is_found(tmp_path: Path, key: Key | None) -> None:
    path = written(tmp_path / "log", RECORDS[:3], key)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(bytes(damaged))
        with pytest.raises((DataFormatError, ConfigError)) as caught:
            read_log(path, "label", key)
        assert "horror" not in str(caught.value)


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("order", [(1, 2), (0, 2), (1, 0, 2), (0, 0, 1, 2)])
def test_records_out_of_place_are_found(tmp_path: Path, key, order) -> None:
    path = written(tmp_path / "log", RECORDS[:3], key)
    content, places = path.read_bytes(), ends(path)
    parts = [content[places[i] : places[i + 1]] for i in order]
    path.write_bytes(content[:LOG_HEAD] + b"".join(parts))
    with pytest.raises(DataFormatError):
        read_log(path, "label", key)


def test_a_record_of_another_log_is_found(tmp_path: Path) -> None:
    first, second = written(tmp_path / "a"), written(tmp_path / "b")
    content = first.read_bytes()[:LOG_HEAD] + second.read_bytes()[LOG_HEAD:]
    first.write_bytes(content)
    with pytest.raises(DataFormatError, match="record 0"):
        read_log(first, "label", KEY)


def test_another_key_label_or_none_opens_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "log")
    for label, key in (("label", OTHER), ("other", KEY)):
        with pytest.raises(DataFormatError):
            read_log(path, label, key)
    with pytest.raises(ConfigError, match=r"log: Expected a key.*got no key.*reseal"):
        read_log(path, "label", None)
    plain = written(tmp_path / "plain", key=None)
    with pytest.raises(ConfigError, match="Expected no key"):
        read_log(plain, "label", KEY)


def test_other_files_are_no_logs(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04", b"tutela-log-1\n"):
        (tmp_path / "log").write_bytes(content)
        with pytest.raises(DataFormatError):
            SealedLog(tmp_path / "log", "label", None)


def test_two_processes_cannot_append(tmp_path: Path) -> None:
    log = SealedLog(tmp_path / "log", "label", None)
    with pytest.raises(ConfigError, match="another process"):
        SealedLog(tmp_path / "log", "label", None)
    with pytest.raises(ConfigError, match="another process"):
        rewrite_log(tmp_path / "log", "label", [], None)
    log.close()
    SealedLog(tmp_path / "log", "label", None).close()


def test_a_full_disk_leaves_no_half_record(tmp_path: Path, monkeypatch) -> None:
    log = SealedLog(tmp_path / "log", "label", KEY)
    log.append(b"kept")

    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("client.sealed_log.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            log.append(b"lost")
    log.append(b"next")
    log.close()
    assert read_log(tmp_path / "log", "label", KEY).records == (b"kept", b"next")


def test_too_long_a_record_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("client.sealed_log.MOST_BYTES", 100)
    log = SealedLog(tmp_path / "log", "label", None)
    with pytest.raises(DataFormatError, match="at most 100 bytes"):
        log.append(b"x" * 101)
    log.close()
    assert read_log(tmp_path / "log", "label", None).records == ()


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.binary(max_size=64), max_size=6), st.booleans())
def test_what_is_written_anew_is_the_same(tmp_path: Path, records, sealed) -> None:
    path, key = tmp_path / "log", KEY if sealed else None
    rewrite_log(path, "label", records, key)
    assert read_log(path, "label", key).records == tuple(records)


def test_a_bounded_log_takes_what_fits_and_keeps_what_it_has(tmp_path: Path) -> None:
    path = written(tmp_path / "log", RECORDS[:2])
    size = path.stat().st_size
    log = SealedLog(path, "label", KEY, most_bytes=size + 50)
    log.append(b"small")
    grown = path.stat().st_size
    with pytest.raises(NoRoom, match=f"at most {size + 50} bytes"):
        log.append(b"x" * 40)
    log.close()
    assert size < grown == path.stat().st_size <= size + 50
    assert read_log(path, "label", KEY).records == (*RECORDS[:2], b"small")
    log = SealedLog(path, "label", KEY, most_bytes=10)
    assert len(log.records) == 3, "a smaller bound is no damage"
    with pytest.raises(NoRoom):
        log.append(b"")
    log.close()
