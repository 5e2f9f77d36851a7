"""What owners allow at first: a stated budget, no seed, and every deviation told."""

import tomllib

import pytest
from typer.testing import CliRunner

from client.settings import read_settings
from common.accounting import epsilon
from common.config import defaults, parse
from common.errors import ConfigError
from common.folders import SETTINGS
from common.plan import noise_multiplier, planned_events
from simulations.deploy_commands import deploy_app
from simulations.deployment.allowances import check_allowance, deviations
from simulations.deployment.changes import add_client
from simulations.deployment.initialise import Wishes, initialise
from simulations.deployment.layout import ClientPlace, Layout

SET = "synthetic:num_users=120,num_items=40,interactions_per_user=8"
SMALL = {
    "data.public": SET,
    "data.private": SET,
    "partition.public-users": 20,
    "partition.validation-users": 5,
    "partition.heldout-users": 20,
    "training.rounds": 1,
    "training.local-steps": 1,
}
#: Thin noise, agreed to: a round of it costs some ε.
THIN = {"privacy.noise-multiplier": 0.2, "privacy.target-epsilon": 400.0}
TOLD = "take noise multipliers from 0.2 on (by default 0.25)"


def config(**overrides):
    return parse(defaults() | SMALL | overrides)


def made(tmp_path, *, dealt, **overrides):
    wishes = Wishes("lab", 2, config(**overrides), dealt=dealt)
    notes = initialise(tmp_path / "lab", wishes).notes
    layout = Layout(tmp_path / "lab")
    return (
        layout,
        [read_settings(layout.client(n).folder) for n in ("0000", "0001")],
        (" ".join(notes)),
    )


def run_config(layout, **overrides):
    """The run that the folder's data were dealt for, another one now."""
    lines = []
    for key, value in (SMALL | overrides).items():
        section, name = key.split(".")
        shown = f'"{value}"' if isinstance(value, str) else value
        lines.append(f"{section}.{name} = {shown}")
    layout.run_config.write_text("\n".join(lines))


@pytest.mark.parametrize("dealt", [False, True])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_seed_is_refused_and_nothing_is_left(tmp_path, dealt, seed):
    with pytest.raises(ConfigError, match=rf"run\.seed: expected -1 .* got {seed}"):
        made(tmp_path, dealt=dealt, **{"run.seed": seed})
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("dealt", [False, True])
def test_the_budget_is_what_the_run_states_whatever_its_noise(tmp_path, dealt):
    noise = {"privacy.noise-multiplier": 2.0, "privacy.target-epsilon": 3.0}
    _, found, notes = made(tmp_path, dealt=dealt, **noise)
    for settings in found:
        assert settings.budget["user"].target_epsilon == 3.0
        assert settings.budget["user"].metrics_epsilon == 0.0
        assert settings.least_noise_multiplier == 0.25
        assert settings.seed is None
    assert "budget is ε = 3 at δ = 1e-05 (by default 8 at 1e-05)" in notes


def test_a_budget_per_client_is_told_as_such(tmp_path):
    summed = {"privacy.mode": "distributed", "privacy.declared-users": 2}
    _, found, notes = made(tmp_path, dealt=False, **summed)
    assert {unit for settings in found for unit in settings.budget} == {"client"}
    told = "budget per client is ε = 8 at δ = 1e-05 (by default 8 at 1e-05 per user)"
    assert told in notes


def test_a_run_that_costs_more_than_the_budget_it_states_is_refused(tmp_path):
    asked = config(**THIN)
    cost = epsilon(planned_events(asked, noise_multiplier(asked)), asked.privacy.delta)
    assert 8 < cost < 400
    with pytest.raises(ConfigError, match=r"target-epsilon: .* at least ε = ") as error:
        made(tmp_path, dealt=False, **THIN | {"privacy.target-epsilon": 8.0})
    assert f"{cost:.1f}"[:-1] in str(error.value)
    assert not (tmp_path / "lab").exists()
    check_allowance(asked)


def test_thin_noise_of_the_statistics_is_counted_too():
    thin = {"statistics.share": 0.5, "statistics.noise-multiplier": 0.3}
    with pytest.raises(ConfigError, match="target-epsilon"):
        check_allowance(config(**thin, **{"privacy.noise-multiplier": 5.0}))


def test_a_calibrated_run_keeps_to_its_budget_by_itself(monkeypatch):
    monkeypatch.setattr("simulations.deployment.allowances.epsilon", None)
    check_allowance(config())
    check_allowance(config(**{"privacy.mode": "off", "privacy.noise-multiplier": 0.1}))


@pytest.mark.parametrize("dealt", [False, True])
def test_every_deviation_is_told(tmp_path, dealt):
    asked = THIN | {"client-metrics.every": 1, "privacy.delta": 1e-4}
    layout, found, notes = made(tmp_path, dealt=dealt, **asked)
    assert TOLD in notes
    assert "budget is ε = 400 at δ = 0.0001" in notes
    assert "ε = 400 may go to metrics" in notes
    assert {each.least_noise_multiplier for each in found} == {0.2}
    run_config(layout, **asked)
    output = CliRunner().invoke(deploy_app, ["add-client", str(layout.root)]).output
    assert "Client 0002" in output
    assert TOLD in output
    assert "ε = 400 may go to metrics" in output


@pytest.mark.parametrize("dealt", [False, True])
def test_what_is_not_private_is_told(tmp_path, dealt):
    _, found, notes = made(tmp_path, dealt=dealt, **{"privacy.mode": "off"})
    assert all(each.allow_non_private for each in found)
    assert "NOT PRIVATE" in notes


def test_as_it_is_by_default_there_is_nothing_to_tell(tmp_path):
    layout, _, _ = made(tmp_path, dealt=False)
    assert deviations(layout.client("0000")) == ()


def test_a_seed_that_somebody_wrote_there_is_told(tmp_path):
    (tmp_path / SETTINGS).write_text("seed = 3")
    (note,) = deviations(ClientPlace(tmp_path))
    assert "noise from seed 3" in note


@pytest.mark.parametrize(
    "changed", [{"run.seed": 7}, {"privacy.noise-multiplier": 0.2}]
)
def test_a_further_client_is_not_set_up_for_less(tmp_path, changed):
    layout, _, _ = made(tmp_path, dealt=False)
    run_config(layout, **changed)
    before = layout.roster.read_bytes()
    with pytest.raises(ConfigError, match=r"run\.seed|target-epsilon"):
        add_client(layout.root)
    assert not layout.client("0002").folder.exists()
    assert layout.roster.read_bytes() == before


def test_a_further_clients_settings_are_its_own(tmp_path):
    layout, _, _ = made(tmp_path, dealt=False)
    place = add_client(layout.root)
    text = tomllib.loads(place.settings.read_text())
    assert text["witness"] == "../../witnesses/0002.json"
    assert "seed" not in text
    assert place.settings.stat().st_mode & 0o777 == 0o600
