"""``personalise`` as a device's owner types it."""

import re
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from client.data import read_client_data
from client.personal_commands import personalise
from client.personal_file import PERSONAL, read_personal, student_digest
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


def tutela(*arguments: object, typed: str = "") -> str:
    app = typer.Typer()
    app.command()(personalise)
    done = CliRunner().invoke(app, [str(each) for each in arguments], input=typed)
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
    assert "sealed" in tutela(folder, "--key", key)
    digest = student_digest(folder / STUDENT)
    with pytest.raises(ConfigError, match="a key file"):
        read_personal(folder / PERSONAL, digest, None)
    assert read_personal(folder / PERSONAL, digest, key_from_file(key)).users


def test_a_passphrase_is_asked_for_and_not_shown(folder: Path) -> None:
    text = tutela(folder, "--passphrase", typed="open sesame\nopen sesame\n")
    assert "sesame" not in text
    read_personal(
        folder / PERSONAL,
        student_digest(folder / STUDENT),
        key_from_passphrase("open sesame"),
    )


def test_a_key_and_a_passphrase_are_too_much(folder: Path, key: Path) -> None:
    with pytest.raises(ConfigError, match="got both"):
        tutela(folder, "--passphrase", "--key", key)


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
