"""The client's verb that changes the key of its store.

Client only: it opens what the device wrote of its users.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from common.errors import ConfigError, DataFormatError

if TYPE_CHECKING:
    from client.vault import Key

Content = TypeVar("Content")


def reseal(
    folder: Annotated[Path, typer.Argument(help="A client's folder.")],
    old_key: Annotated[
        str,
        typer.Option(
            help="Where the key was until now: file:PATH, env:NAME, keyring, or "
            "nothing where the store was plain."
        ),
    ] = "",
) -> None:
    """Write feedback and personal parameters anew under the settings' store-key."""
    from client.settings import STORE_KEY, read_settings
    from client.store_key import store_key

    if not re.fullmatch(STORE_KEY, old_key):
        raise ConfigError(
            "--old-key: expected file:PATH, env:NAME, keyring or nothing, got another."
        )
    old = store_key(folder, old_key)
    new = store_key(folder, read_settings(folder).store_key, fresh=True)
    done = _resealed(folder, old, new)
    how = "in plain" if new is None else "sealed"
    typer.echo(f"{', '.join(done) or 'Nothing'} written anew, {how}.")


def _resealed(folder: Path, old: Key | None, new: Key | None) -> list[str]:
    """Each file whole under the new key or whole under the old one.

    A call that was interrupted is simply made again.
    """
    from client.feedback import LABEL as FEEDBACK_LABEL
    from client.personal_file import LABEL as PERSONAL_LABEL
    from client.sealed_log import read_log, rewrite_log
    from client.store_key import FEEDBACK, PERSONAL
    from client.vault import read_vault, write_vault

    done = []
    if (folder / FEEDBACK).exists():
        path, label = folder / FEEDBACK, FEEDBACK_LABEL
        records = _opened(lambda key: read_log(path, label, key).records, old, new)
        rewrite_log(path, label, records, new)
        done.append(FEEDBACK)
    if (folder / PERSONAL).exists():
        vault, name = folder / PERSONAL, PERSONAL_LABEL
        content = _opened(lambda key: read_vault(vault, name, key), old, new)
        write_vault(vault, content, name, new)
        done.append(PERSONAL)
    return done


def _opened(
    read: Callable[[Key | None], Content], old: Key | None, new: Key | None
) -> Content:
    """What opens with the new key already, else what opens with the old one."""
    try:
        return read(new)
    except (ConfigError, DataFormatError):
        return read(old)
