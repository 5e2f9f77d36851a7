"""Every named configuration parses, names data we read, and fits its own sizes."""

from pathlib import Path

import pytest

from common.config import RunConfig, defaults, parse, read_overrides
from simulations.datasets import load
from simulations.partition import split

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
CONFIGS = sorted((ROOT / "simulations" / "configs").glob("*.toml"))
NAMES = [path.stem for path in CONFIGS]
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="shared data folder not present"
)
#: Small enough to deal out in a test; the rest is slow.
QUICK = ("ml100k", "finance", "retailrocket")


def config(name: str) -> RunConfig:
    return parse(defaults() | read_overrides(CONFIGS[NAMES.index(name)]))


def test_each_field_of_the_survey_has_its_configuration() -> None:
    assert set(NAMES) >= {
        "ml100k",
        "ml-latest",
        "ml1m",
        "lastfm",
        "amazon-video",
        "retailrocket",
        "books",
        "citeulike",
        "msweb",
        "finance",
        "music-from-movies",
        "books-from-retail",
    }


@pytest.mark.parametrize("name", NAMES)
def test_it_parses_under_its_own_name(name: str) -> None:
    assert config(name).run.name == name


@pytest.mark.parametrize("name", ["music-from-movies", "books-from-retail"])
def test_across_domains_the_teacher_labels_nothing(name: str) -> None:
    found = config(name)
    assert found.transfer.method == "across"
    assert found.data.public != found.data.private
    assert found.distillation.weight == 0


def test_finance_says_that_it_is_generated() -> None:
    text = CONFIGS[NAMES.index("finance")].read_text()
    assert text.startswith("# Finance. GENERATED: no public set")


def check_sizes(name: str) -> None:
    """Clients are about as large as declared: far less wastes noise, more clips."""
    found = config(name)
    folders = [
        str(ROOT / text) if "/" in text else text
        for text in (found.data.public, found.data.private)
    ]
    private = load(folders[1])
    public = private if folders[0] == folders[1] else load(folders[0])
    dealt = split(public, private, found)
    users = [table["user"].n_unique() for table in dealt.clients]
    mean = sum(users) / len(users)
    assert 0.8 < mean / found.privacy.declared_users < 1.2


@needs_shared
@pytest.mark.parametrize("name", QUICK)
def test_declared_users_are_those_of_a_client(name: str) -> None:
    check_sizes(name)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NAMES} - {*QUICK, "demo", "devices"}))
def test_declared_users_are_those_of_a_client_elsewhere(name: str) -> None:
    check_sizes(name)
