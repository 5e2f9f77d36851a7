"""Personal parameters on disk: all of them back, sealed, tied to their student."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from client.organisation import fit_organisation
from client.personal import Personal
from client.personal_file import LABEL, read_personal, write_personal
from client.vault import Key, write_vault
from common.errors import ConfigError, DataFormatError

KEY = Key(bytes(range(32)), stretched=False)
ROWS = sp.csr_matrix(np.float32([[1, 1, 0, 0], [0, 1, 1, 0]]))


def personal(*, organisation: bool = True) -> Personal:
    row = np.float32([0.25, 1.0])
    return Personal(
        users=("ab", "cd"),
        organisation=fit_organisation(ROWS, 1.0) if organisation else None,
        share=0.4,
        user_share=row,
        alpha=row[::-1].copy(),
        taste=np.arange(6, dtype=np.float32).reshape(2, 3),
        before=np.float32([np.nan, 0.5]),
        after=np.float32([np.nan, 0.6]),
    )


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("organisation", [True, False])
def test_everything_comes_back(tmp_path: Path, key, organisation: bool) -> None:
    wrote = personal(organisation=organisation)
    write_personal(tmp_path / "p", wrote, "student", key)
    found = read_personal(tmp_path / "p", "student", key)
    for field in fields(Personal):
        if field.name != "organisation":
            np.testing.assert_array_equal(
                getattr(found, field.name), getattr(wrote, field.name)
            )
    assert (found.organisation is not None) == organisation
    if organisation:
        np.testing.assert_array_equal(
            found.organisation.score(ROWS), wrote.organisation.score(ROWS)
        )


def test_sealed_it_names_nobody(tmp_path: Path) -> None:
    wrote = personal()
    write_personal(tmp_path / "p", wrote, "student", KEY)
    content = (tmp_path / "p").read_bytes()
    assert b"users" not in content and wrote.taste.tobytes() not in content


def test_another_student_is_refused(tmp_path: Path) -> None:
    write_personal(tmp_path / "p", personal(), "student", None)
    with pytest.raises(ConfigError, match="another student"):
        read_personal(tmp_path / "p", "newer", None)


def test_other_content_is_damaged(tmp_path: Path) -> None:
    write_vault(tmp_path / "p", b"no tensors", LABEL, None)
    with pytest.raises(DataFormatError, match="personal parameters"):
        read_personal(tmp_path / "p", "student", None)
