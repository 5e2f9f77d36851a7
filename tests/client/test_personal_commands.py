"""``personalise`` as a device's owner types it."""

import re
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from client.data import read_client_data
from client.feedback import Feedback, FeedbackRow, encode_feedback, open_feedback
from client.personal_commands import personalise
from client.personal_file import read_personal, student_digest
from client.store_key import PERSONAL
from client.vault import key_from_file, key_from_passphrase
from common.errors import ConfigError, DataFormatError, TutelaError
from common.folders import STUDENT
from common.student import StudentSpec, random_state, save_student
from tests.client.conftest import SPEC, rows, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = write_folder(tmp_path / "0000", rows(8))
    state = random_state(SPEC, torch.Generator().manual_seed(1))
    save_student(home / STUDENT, SPEC, state)
    return home


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_bytes(bytes(range(32)))
    path.chmod(0o600)
    return path


def put_key(folder: Path, source: str) -> None:
    path = folder / "settings.toml"
    path.write_text(f'store-key = "{source}"\n' + path.read_text())


def tutela(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(personalise)
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    if isinstance(done.exception, TutelaError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def test_it_says_what_it_chose_and_stores_it(folder: Path) -> None:
    text = tutela(folder)
    assert "8 users, 8 with items to leave out" in text
    assert re.search(r"alpha \d\.\d\d on average", text)
    assert re.search(r"NDCG@100 on left-out items: 0\.\d{4} with the released", text)
    assert "in plain" in text and "never leaves" in text
    found = read_personal(folder / PERSONAL, student_digest(folder / STUDENT), None)
    assert len(found.users) == read_client_data(folder).histories.shape[0]
    assert all(re.fullmatch("[0-9a-f]{32}", user) for user in found.users)


def test_with_a_key_it_is_sealed(folder: Path, key: Path) -> None:
    put_key(folder, f"file:{key}")
    assert "sealed" in tutela(folder)
    digest = student_digest(folder / STUDENT)
    with pytest.raises(ConfigError, match="Expected a key, which"):
        read_personal(folder / PERSONAL, digest, None)
    assert read_personal(folder / PERSONAL, digest, key_from_file(key)).users


def test_a_passphrase_is_taken_and_not_shown(folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("STORE", "open sesame, please")
    put_key(folder, "env:STORE")
    assert "sesame" not in tutela(folder)
    read_personal(
        folder / PERSONAL,
        student_digest(folder / STUDENT),
        key_from_passphrase("open sesame, please"),
    )


def test_feedback_counts_among_the_rows(folder: Path) -> None:
    log = open_feedback(folder, None)
    log.append(encode_feedback(Feedback("ab" * 16, (FeedbackRow("i1"),))))
    log.close()
    assert "9 users" in tutela(folder)


def test_without_a_student_nothing_is_written(folder: Path) -> None:
    (folder / STUDENT).unlink()
    with pytest.raises(DataFormatError, match="found no file"):
        tutela(folder)
    assert not (folder / PERSONAL).exists()


def test_a_student_of_another_catalogue_is_refused(folder: Path) -> None:
    spec = StudentSpec(SPEC.num_items + 1, 3, 20.0, 0.8)
    state = random_state(spec, torch.Generator().manual_seed(1))
    save_student(folder / "other", spec, state)
    with pytest.raises(ConfigError, match="12 items, got one of 13"):
        tutela(folder, "--student", folder / "other")
