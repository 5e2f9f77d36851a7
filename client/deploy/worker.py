"""The process that a bundle's code runs in: forked for each message, imports done.

Client only, and run as a file, never imported: it must not load this package's
``client`` and ``common``, because the bundle brings its own. It imports the heavy
libraries once and forks a child for every task, so that a message costs no imports
and still has a process of its own. Task tokens come by its standard input; Flower's
own executor puts them on a command line that other users can read.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

#: Third-party packages that the bundle's client imports. Not polars: it starts
#: threads when it is imported, and a fork takes none of them along.
HEAVY = ("numpy", "scipy.sparse", "pydantic", "torch", "opacus", "dp_accounting")
FLOWER = "flwr.supernode.runtime.run_clientapp"


def main() -> None:
    """Arguments: the node's runtime address, its process id. Input: a token a line."""
    address, node = sys.argv[1], int(sys.argv[2])
    importlib.import_module(FLOWER)
    for name in HEAVY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # Some of them give the root logger a handler, which would say everything twice.
    logging.getLogger("flwr").propagate = False
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children are reaped by themselves
    while token := sys.stdin.buffer.readline().decode("ascii").strip():
        if os.fork() == 0:
            run(address, node, token)
            return


def run(address: str, node: int, token: str) -> None:
    """In the child: one task, then the end of the process."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    reseed()
    from flwr.supernode.runtime import run_clientapp as flower

    silence(flower)
    flower.run_clientapp(
        runtime_api_address=address,
        token=token,
        insecure=True,  # the node's own loopback, with a token for this task alone
        parent_pid=node,
        runtime_dependency_install=False,
    )


def silence(flower: ModuleType) -> None:
    """Keep what fails before the app's own exit door from telling the server why.

    Flower sends an exception's type and text, which name paths on this machine; its
    own error for an app that cannot be loaded (code 1) has one fixed text.
    """
    load = flower.get_load_client_app_fn

    def loader(**given: Any) -> Callable[..., Any]:
        return silenced(silenced(load)(**given))

    flower.__dict__["install_from_fab"] = silenced(install)
    flower.__dict__["get_load_client_app_fn"] = loader


def silenced(step: Callable[..., Any]) -> Callable[..., Any]:
    """The same step; what it raises is named in this machine's log by its type."""
    from flwr.clientapp.client_app import LoadClientAppError
    from flwr.supercore import log

    def quiet(*given: Any, **more: Any) -> Any:
        try:
            return step(*given, **more)
        except Exception as error:
            name = type(error).__name__
        log(logging.ERROR, "A pinned bundle could not be loaded: %s.", name)
        raise LoadClientAppError("A pinned bundle could not be loaded.")

    return quiet


def install(content: bytes, skip_prompt: bool) -> Path:
    """Unpack a bundle: all of it is in its place, or nothing.

    Flower copies file by file and runs what lies in the place next time, so a disk
    that was full for a moment would leave half a program there.
    """
    from flwr.cli.install import install_from_fab
    from flwr.common.config import (
        get_fab_config,
        get_metadata_from_config,
        get_project_dir,
    )

    named = get_metadata_from_config(get_fab_config(content))
    place = get_project_dir(*named, hashlib.sha256(content).hexdigest())
    if place.is_dir():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".new-") as new:
        whole = install_from_fab(content, Path(new), skip_prompt=skip_prompt)
        try:
            whole.rename(place)
        except OSError:
            if not place.is_dir():  # else another task was first
                raise
    return place


def reseed() -> None:
    """No two children draw the same numbers from generators they inherited."""
    import random

    import numpy as np
    import torch

    random.seed()
    np.random.seed()
    torch.seed()


if __name__ == "__main__":
    main()
