"""Repairs as typed on a command line."""

import pytest

from common.errors import ConfigError
from common.repairs import Repairs, parse_repairs


@pytest.mark.parametrize("bad_rows", ["error", "drop"])
@pytest.mark.parametrize("duplicates", ["error", "keep_first", "keep_last"])
def test_every_choice_is_taken(bad_rows, duplicates):
    assert parse_repairs(bad_rows, duplicates) == Repairs(bad_rows, duplicates)


@pytest.mark.parametrize(
    ("bad_rows", "duplicates", "message"),
    [
        ("keep", "error", "--bad-rows: expected error or drop, got 'keep'."),
        (
            "error",
            "drop",
            "--duplicates: expected error, keep_first or keep_last, got 'drop'.",
        ),
    ],
)
def test_another_choice_names_its_option(bad_rows, duplicates, message):
    with pytest.raises(ConfigError) as caught:
        parse_repairs(bad_rows, duplicates)
    assert str(caught.value) == message
