"""The client's own word: its folder, its budget, its consent."""

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from pydantic import ValidationError

from client.settings import (
    Budget,
    ClientSettings,
    locate,
    read_settings,
    witness_place,
)
from common.accounting import LEAST_NOISE
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
    assert settings.budget == {"user": Budget()}
    user = settings.budget["user"]
    assert (user.target_epsilon, user.delta, user.metrics_epsilon) == (8.0, 1e-5, 0.0)
    assert (settings.runs, settings.servers) == ((), ()), "nobody is consented to"
    assert settings.allow_non_private is False
    assert settings.least_noise_multiplier == LEAST_NOISE
    assert settings.seed is None, "noise is the operating system's by default"


WHOLE = """
runs = ["movies", "books"]
servers = ["ab"]
least-noise-multiplier = 0.5
allow-non-private = true
witness = "elsewhere.json"
seed = 3
store-key = "env:STORE_KEY"

[budget.user]
target-epsilon = 2.5
delta = 1e-7
metrics-epsilon = 0.5

[budget.interaction]
target-epsilon = 1
"""


def test_settings_are_read_by_their_dashed_names(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(WHOLE)
    settings = read_settings(tmp_path)
    assert (settings.runs, settings.servers) == (("movies", "books"), ("ab",))
    assert (settings.least_noise_multiplier, settings.seed) == (0.5, 3)
    assert settings.allow_non_private is True
    assert settings.store_key == "env:STORE_KEY"
    assert settings.budget["user"].target_epsilon == 2.5
    assert settings.budget["user"].metrics_epsilon == 0.5
    interaction = settings.budget["interaction"]
    assert (interaction.target_epsilon, interaction.delta) == (1.0, 1e-5)
    assert witness_place(tmp_path, settings) == tmp_path / "elsewhere.json"


def test_the_nodes_configuration_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(WHOLE)
    node = {
        "folder": str(tmp_path),
        "partition-id": 3,
        "runs": "news, songs",
        "budget.user.target-epsilon": 1.5,
        "budget.interaction.delta": 1e-6,
    }
    settings = read_settings(tmp_path, node)
    assert settings.runs == ("news", "songs")
    assert settings.budget["user"].target_epsilon == 1.5
    assert settings.budget["user"].delta == 1e-7, "the file's word stands beside it"
    assert settings.budget["interaction"].delta == 1e-6
    assert settings.servers == ("ab",)


def test_a_node_does_not_say_where_the_stores_key_is(tmp_path: Path) -> None:
    """Serving and training open one store: they must find one key."""
    with pytest.raises(ConfigError, match="store-key"):
        read_settings(tmp_path, {"store-key": "env:KEY"})


def test_a_budget_of_one_unit_is_none_of_another(tmp_path: Path) -> None:
    node = {"budget.interaction.target-epsilon": 3.0}
    assert set(read_settings(tmp_path, node).budget) == {"interaction"}


def test_without_a_word_the_witness_is_outside_the_folder(tmp_path: Path) -> None:
    first, second = (tmp_path / name for name in ("a", "b"))
    places = [witness_place(each, ClientSettings()) for each in (first, second)]
    assert places[0] != places[1]
    assert all(tmp_path not in place.parents for place in places)
    assert witness_place(first / ".." / "a", ClientSettings()) == places[0]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[budget.user]\ntarget-epsilon = 0", "budget.user.target-epsilon"),
        ("[budget.user]\ntarget-epsilon = -1.0", "budget.user.target-epsilon"),
        ("[budget.user]\ntarget-epsilon = nan", "budget.user.target-epsilon"),
        ("[budget.user]\ntarget-epsilon = inf", "budget.user.target-epsilon"),
        ("[budget.user]\ndelta = 0.0", "budget.user.delta"),
        ("[budget.user]\ndelta = 1.0", "budget.user.delta"),
        ("[budget.user]\nmetrics-epsilon = -0.1", "budget.user.metrics-epsilon"),
        ("[budget.household]\ndelta = 1e-5", "budget.household"),
        ("budget = 3", "budget"),
        ("seed = -1", "seed"),
        ("allow-non-private = 1", "allow-non-private"),
        ("least-noise-multiplier = 0", "least-noise-multiplier"),
        ("max-epsilon = 3.0", "max-epsilon"),
        ("allow_non_private = true", "allow_non_private"),
        ('store-key = "vault"', "store-key"),
        ('store-key = "file:"', "store-key"),
        ('store-key = "env:not a name"', "store-key"),
    ],
)
def test_an_impossible_or_unknown_setting_is_named(tmp_path, text, key) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(ConfigError, match=key):
        read_settings(tmp_path)


@pytest.mark.parametrize("content", [b"runs = = 1", b"\xff\xfe", b"[budget"])
def test_damaged_settings_are_refused_not_ignored(tmp_path: Path, content) -> None:
    (tmp_path / "settings.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="expected TOML"):
        read_settings(tmp_path)


def test_a_node_cannot_turn_a_word_into_a_table(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("budget = 3\n")
    with pytest.raises(ConfigError, match="budget"):
        read_settings(tmp_path, {"budget.user.delta": 1e-6})


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError):
        ClientSettings().allow_non_private = True
