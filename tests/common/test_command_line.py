"""How a command ends."""

import pytest

from common.command_line import run
from common.errors import LedgerError


def test_an_error_of_ours_is_one_line_and_exit_code_two(capsys):
    def fail():
        raise LedgerError("Expected a ledger, found none.")

    with pytest.raises(SystemExit) as caught:
        run(fail)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: Expected a ledger, found none.\n"


def test_a_fault_of_the_program_is_not_hidden():
    def fail():
        raise KeyError("bug")

    with pytest.raises(KeyError, match="bug"):
        run(fail)


def test_success_says_nothing(capsys):
    run(lambda: 3)
    assert capsys.readouterr() == ("", "")
