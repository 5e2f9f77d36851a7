"""The process that a bundle's code runs in: forked for each message, imports done.

Client only, and run as a file, never imported: it must not load this package's
``client`` and ``common``, because the bundle brings its own. It imports the heavy
libraries once and forks a child for every task, so that a message costs no imports
and still has a process of its own. Task tokens come by its standard input; Flower's
own executor puts them on a command line that other users can read.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys

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
    from flwr.supernode.runtime.run_clientapp import run_clientapp

    run_clientapp(
        runtime_api_address=address,
        token=token,
        insecure=True,  # the node's own loopback, with a token for this task alone
        parent_pid=node,
        runtime_dependency_install=False,
    )


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
