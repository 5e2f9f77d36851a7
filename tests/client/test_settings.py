"""The client's own word: its folder, its budget, its consent."""

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from pydantic import ValidationError

from client.settings import ClientSettings, locate, read_settings
from common.errors import ConfigError


def context(run_config=None, **node_config) -> Context:
    return Context(
        run_id=1,
        node_id=2,
        node_config=node_config,
        state=RecordDict(),
        run_config=run_config or {},
    )


def test_the_node_names_its_folder_before_the_environment(monkeypatch) -> None:
    monkeypatch.setenv("TUTELA_CLIENTS", "several")
    assert locate(context(folder="mine")) == Path("mine")


def test_several_clients_of_a_machine_are_numbered(monkeypatch) -> None:
    monkeypatch.setenv("TUTELA_CLIENTS", "several")
    assert locate(context(**{"partition-id": 7})) == Path("several/0007")
    assert locate(context()) == Path("several/0000")


def test_without_either_the_users_data_folder_is_meant(monkeypatch) -> None:
    monkeypatch.delenv("TUTELA_CLIENTS", raising=False)
    assert locate(context()).parts[-3:] == ("federation", "clients", "0000")


def test_the_server_cannot_name_the_folder(monkeypatch) -> None:
    monkeypatch.setenv("TUTELA_CLIENTS", "several")
    theirs = context({"folder": "theirs", "client.folder": "theirs"})
    assert locate(theirs) == Path("several/0000")


def test_a_folder_without_settings_is_cautious(tmp_path: Path) -> None:
    settings = read_settings(tmp_path)
    assert settings == ClientSettings()
    assert (settings.max_epsilon, settings.delta) == (8.0, 1e-5)
    assert settings.allow_non_private is False
    assert settings.seed is None, "noise is the operating system's by default"


def test_settings_are_read_by_their_dashed_names(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(
        "max-epsilon = 2.5\ndelta = 1e-7\nallow-non-private = true\nseed = 3\n"
    )
    settings = read_settings(tmp_path)
    assert (settings.max_epsilon, settings.delta) == (2.5, 1e-7)
    assert (settings.allow_non_private, settings.seed) == (True, 3)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("max-epsilon = 0", "max-epsilon"),
        ("max-epsilon = -1.0", "max-epsilon"),
        ("max-epsilon = nan", "max-epsilon"),
        ("delta = 0.0", "delta"),
        ("delta = 1.0", "delta"),
        ("seed = -1", "seed"),
        ("max-epsilom = 3.0", "max-epsilom"),
        ("max_epsilon = 3.0", "max_epsilon"),
    ],
)
def test_an_impossible_or_unknown_setting_is_named(tmp_path, text, key) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(ConfigError, match=key):
        read_settings(tmp_path)


def test_damaged_settings_are_refused_not_ignored(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("max-epsilon = = 1")
    with pytest.raises(ConfigError, match="expected TOML"):
        read_settings(tmp_path)


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError):
        ClientSettings().max_epsilon = 100.0
