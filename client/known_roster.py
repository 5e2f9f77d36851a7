"""The roster a client goes by, and the memory that keeps it from going back.

Client only: which version a device has seen is its own knowledge. An older roster is
signed as well as a newer one and may list a client that was struck off since; whoever
hands it out again is refused here. The memory is a file beside the roster that only
this device writes; who can delete it can replace the authority's certificate too.
"""

from __future__ import annotations

import json
from pathlib import Path

from common.durable_files import write_durably
from common.errors import DataFormatError
from common.roster import Roster, read_roster

#: The name of the memory, in the roster's folder.
SEEN = "roster-seen.json"


def newest_roster(path: Path, authority: Path) -> Roster:
    """The roster, if it is no older than the last one that was read here.

    Args:
        path: ``roster.json``.
        authority: the authority's certificate, PEM.

    Raises:
        DataFormatError: if it is older, another deployment's, not the authority's or
            damaged; or if the memory is.
    """
    seen = path.with_name(SEEN)
    deployment, version = _read(seen) if seen.exists() else (None, 1)
    roster = read_roster(path, authority, at_least=version)
    if deployment not in (None, roster.deployment):
        raise DataFormatError(
            f"roster.json: expected the deployment that {SEEN} names, got another; "
            f"delete {SEEN} if this client moved."
        )
    if (deployment, version) != (roster.deployment, roster.version):
        facts = {"deployment": roster.deployment, "version": roster.version}
        write_durably(seen, json.dumps(facts).encode())
    return roster


def _read(seen: Path) -> tuple[str, int]:
    try:
        facts = json.loads(seen.read_bytes())
        deployment, version = facts["deployment"], facts["version"]
    except (ValueError, TypeError, KeyError):
        deployment, version = None, None
    if not isinstance(deployment, str) or type(version) is not int:
        raise DataFormatError(
            f"{SEEN}: expected a deployment and a version, got something else; ask the "
            "operator for the newest roster, then delete this file."
        )
    return deployment, version
