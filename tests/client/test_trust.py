"""A run cannot choose for an owner whom a device leans on."""

from pathlib import Path

import pytest

from client.release import REFUSED
from client.settings import ClientSettings, Distributed, read_settings
from client.trust import check_trust
from common import wire
from common.config import parse
from common.errors import ConfigError, NoConsent
from tests.client.conftest import FLAT, rows, spent, write_folder
from tests.client.secure_parts import SECURE, reason, secure_context, step_message


def config(**changes):
    return parse(FLAT | SECURE | changes)


ASKED = {
    "secagg.clients": 100,
    "secagg.threshold": 0.8,
    "secagg.corrupt": 0.1,
    "secagg.roster": True,
}
LIMITS = Distributed.model_validate({"most-clients": 100})


def test_without_a_table_the_mode_is_refused_and_others_are_not() -> None:
    with pytest.raises(NoConsent, match=r"\[distributed\]"):
        check_trust(ClientSettings(), config(**ASKED))
    check_trust(ClientSettings(), parse(FLAT))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"secagg.roster": False}, "roster"),
        ({"secagg.clients": 101}, "most-clients"),
        ({"secagg.threshold": 0.66}, "least-threshold"),
        ({"secagg.corrupt": 0.05}, "least-corrupt"),
    ],
)
def test_a_run_that_leans_on_more_is_refused_by_its_key(changes, key) -> None:
    settings = ClientSettings(distributed=LIMITS)
    check_trust(settings, config(**ASKED))
    with pytest.raises(NoConsent, match=rf"distributed\.{key}\.$"):
        check_trust(settings, config(**ASKED | changes))


def test_the_table_is_strict_unless_its_owner_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("[distributed]\nmost-clients = 50\n")
    found = read_settings(tmp_path).distributed
    assert found == Distributed.model_validate({"most-clients": 50})
    assert found.roster and found.least_threshold > 0.66 and found.least_corrupt == 0.1
    (tmp_path / "settings.toml").write_text("[distributed]\nroster = false\n")
    with pytest.raises(ConfigError, match=r"distributed\.most-clients"):
        read_settings(tmp_path)


@pytest.mark.parametrize("kind", wire.SECURE)
def test_no_step_is_answered_and_nothing_charged(tmp_path: Path, kind: str) -> None:
    folder = write_folder(tmp_path / "0000", rows(1), distributed=None)
    message = step_message(kind, told=b"x")
    assert reason(message, secure_context(folder)) == REFUSED
    assert spent(folder) == []
