"""The client's verb for personal parameters: fitted, judged and stored on the device.

Client only, and what it prints is for the device's owner: figures over private rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.errors import ConfigError

if TYPE_CHECKING:
    from client.personal import Personal


def personalise(
    folder: Annotated[Path, typer.Argument(help="A client's folder.")],
    student: Annotated[
        Path | None,
        typer.Option(help="The released student; by default the folder's own."),
    ] = None,
) -> None:
    """Fit personal parameters to the folder's own rows; nothing leaves the device."""
    from client.data import read_client_data
    from client.personal import personalise as fit
    from client.personal_file import student_digest, write_personal
    from client.randomness import stream
    from client.settings import read_settings
    from client.store_key import PERSONAL, store_key
    from client.taste import directions
    from common.folders import STUDENT
    from common.student import load_student

    settings = read_settings(folder)
    seal = store_key(folder, settings.store_key)
    path = student or folder / STUDENT
    model = load_student(path)
    data = read_client_data(folder)
    if model.spec.num_items != data.catalogue.num_items:
        raise ConfigError(
            f"Expected a student of the folder's catalogue, {data.catalogue.num_items} "
            f"items, got one of {model.spec.num_items}."
        )
    found = fit(
        model,
        directions(model, data.catalogue),
        data.histories,
        data.users.ids,
        stream(settings.seed, "personalise"),
    )
    write_personal(folder / PERSONAL, found, student_digest(path), seal)
    for line in summary(found):
        typer.echo(line)
    how = "in plain, readable to you alone" if seal is None else "sealed"
    typer.echo(f"Stored in {folder / PERSONAL}, {how}. It never leaves this device.")
    if found.organisation is not None:
        typer.echo(
            "It holds a model of all of this folder's users without noise: show its "
            "lists to these users alone."
        )


def summary(personal: Personal) -> list[str]:
    """What was chosen and what it is worth, line by line."""
    import numpy as np

    judged = ~np.isnan(personal.before)
    lines = [
        f"{len(personal.users)} users, {int(judged.sum())} with items to leave out.",
        f"Taste: alpha {personal.alpha.mean():.2f} on average, above 0 for "
        f"{int((personal.alpha > 0).sum())} users.",
        f"Organisation: share {personal.share:.1f}, another share for "
        f"{int((personal.user_share != np.float32(personal.share)).sum())} users.",
    ]
    if judged.any():
        before, after = personal.before[judged], personal.after[judged]
        lines.append(
            f"NDCG@100 on left-out items: {before.mean():.4f} with the released "
            f"student, {after.mean():.4f} with personal parameters."
        )
    return lines
