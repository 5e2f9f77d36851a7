"""The gate through which code reaches this client: pinned bundles pass, no others.

Client only. It wraps the one function of Flower's node that brings a message and its
bundle in, and it owns the one store that a bundle is handed out from. Both names are
private to Flower, so the version is pinned and a changed name stops the node.
"""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from flwr.app import Message
from flwr.common.config import get_fab_config, get_metadata_from_config
from flwr.common.constant import SubStatus
from flwr.proto.task_pb2 import Task
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStore
from flwr.supercore.run import Run
from flwr.supernode import start_client_internal as flower
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from client.deploy.pins import UnpinnedBundle, check_bundle
from client.settings import read_settings
from common.errors import ConfigError

FLOWER = "1.42.0"
#: What the wrapped function takes by name, in this version.
PULL = (
    "state",
    "object_store",
    "node_config",
    "receive",
    "get_run",
    "get_fab",
    "pull_object",
    "confirm_message_received",
    "trusted_entities",
)

#: Seconds to wait after a message that could not be read; the next may be the same.
PAUSE = 3.0

_log = logging.getLogger("tutela.client")


def check_flower() -> None:
    """Refuse a Flower whose insides are not the ones that this gate closes.

    Raises:
        ConfigError: naming what is different.
    """
    version = metadata.version("flwr")
    if version != FLOWER:
        raise ConfigError(f"Expected flwr {FLOWER}, found {version}: install that.")
    pull = getattr(flower, "_pull_and_store_message", None)
    start = getattr(flower, "start_client_internal", None)
    inside = getattr(getattr(start, "__code__", None), "co_names", ())
    if (
        pull is None
        or tuple(inspect.signature(pull).parameters) != PULL
        or "_pull_and_store_message" not in inside
        or not hasattr(flower, "_insert_message")
        or not hasattr(InMemoryNodeState, "_on_task_tokens_expired")
    ):
        raise ConfigError(
            "flwr: expected the function through which a node takes bundles; this "
            "installation has another, so no bundle could be checked."
        )


class PinnedState(InMemoryNodeState):
    """Flower's store of a node, which neither takes nor gives an unpinned bundle.

    ``get_fab`` is the only place that an app's process gets its code from.
    """

    def __init__(self, object_store: ObjectStore, folder: Path) -> None:
        super().__init__(object_store)
        self._folder = folder

    def store_fab(self, fab: Fab) -> str:
        """Keep a bundle.

        Raises:
            UnpinnedBundle: if it is not pinned.
        """
        self._check(fab)
        return super().store_fab(fab)

    def get_fab(self, fab_hash: str) -> Fab | None:
        """A bundle that is pinned at this moment, else ``None``."""
        fab = super().get_fab(fab_hash)
        if fab is None:
            return None
        try:
            self._check(fab, fab_hash)
        except (UnpinnedBundle, ConfigError, OSError) as refusal:
            refused(refusal)
            return None
        return fab

    def get_message_processing_duration(self, message_id: str) -> float:
        """Nothing: Flower would tell the server how long this client computed."""
        return 0.0

    def finish_task(self, task_id: int, sub_status: str, details: str) -> bool:
        """End a task; one that failed before it took its message is answered too.

        Flower answers only messages that an app took, and its loop then waits for
        ever for the others' replies.
        """
        finished = super().finish_task(task_id, sub_status, details)
        if finished and sub_status != SubStatus.COMPLETED:
            self._on_task_tokens_expired(list(self.get_tasks(task_ids=[task_id])))
        return finished

    def _on_task_tokens_expired(self, tasks: list[Task]) -> None:
        """Answer for an app that went silent, whether it took its message or not."""
        runs = {task.run_id for task in tasks}
        with self.lock_msg_store:
            for entry in self.msg_store.values():
                told = entry.message.metadata
                if told.run_id in runs and not told.reply_to_message_id:
                    entry.is_retrieved = True
        super()._on_task_tokens_expired(tasks)

    def _check(self, fab: Fab, *named: str) -> str:
        return admit(self._folder, fab, *named)


def admit(folder: Path, fab: Fab, *named: str) -> str:
    """The bundle's hash; the settings are read afresh.

    Raises:
        UnpinnedBundle: if it is not what it is called, or not pinned.
        ConfigError: if the settings cannot be read.
    """
    allowed = read_settings(folder).bundles
    return check_bundle(bytes(fab.content), (fab.hash_str, *named), allowed)


def refused(refusal: Exception) -> None:
    """Say in the log what was refused; the text holds hashes alone."""
    named = isinstance(refusal, UnpinnedBundle)
    text = str(refusal) if named else "The client's settings cannot be read."
    _log.error("UnpinnedBundle: refused, none of its code ran. %s", text)


def guarded(folder: Path, poll: float) -> Callable[..., int | None]:
    """Flower's function that takes a message in, closed to unpinned bundles.

    A refused message is answered by Flower's own error for a bundle that could not be
    verified (code 7), and the node goes on. So is one whose run cannot be taken in at
    all; one to which no answer can be made is dropped: a server must not end its
    clients' nodes.

    Args:
        folder: the client's.
        poll: seconds between looks for a message; Flower's own loop waits three.
    """
    pull: Callable[..., int | None] = flower._pull_and_store_message

    def pull_pinned(**given: Any) -> int | None:
        while (found := _pull_once(pull, folder, given)) is None:
            time.sleep(poll)
        return found

    return pull_pinned


def _pull_once(
    pull: Callable[..., int | None], folder: Path, given: Mapping[str, Any]
) -> int | None:
    state = given["state"]
    refusals: list[Message] = []
    runs: list[Run] = []

    def receive() -> Any:
        found = given["receive"]()
        if found is not None:
            # Now, since the app's own answer would fail on the same: the loop that
            # sends answers would wait for it for ever.
            refusals.append(Message(flower.FAB_VERIFICATION_ERROR, reply_to=found[0]))
            known = state.get_run(found[0].metadata.run_id)
            if known is not None:
                _check_known(state, folder, known)
        return found

    def get_run(run_id: int) -> Run:
        run: Run = given["get_run"](run_id)
        _check_kind(run)
        runs.append(run)
        return run

    def get_fab(fab_hash: str, run_id: int) -> Fab:
        fab: Fab = given["get_fab"](fab_hash, run_id)
        admit(folder, fab, fab_hash)
        for run in runs:
            _check_name(run, fab)
        return fab

    checked = {"receive": receive, "get_run": get_run, "get_fab": get_fab}
    try:
        return pull(**{**given, **checked})
    except Exception as error:
        if not refusals:
            _log.error("A message could not be read: %s.", type(error).__name__)
            time.sleep(PAUSE)
            return None
        if isinstance(error, UnpinnedBundle | ConfigError | OSError):
            refused(error)
        else:
            _log.error("A run could not be taken in: %s.", type(error).__name__)
    return _answer(refusals[-1], state, given["object_store"])


def _check_kind(run: Run) -> None:
    """Flower's nodes also run agents, from the same bundle by another door."""
    if run.primary_task_type == TaskType.AGENT_APP:
        raise UnpinnedBundle("A run asks for an agent, which no bundle here is.")


def _check_name(run: Run, fab: Fab) -> None:
    """Flower makes a path of the run's own names, which the server chooses.

    ``../`` in one of them would load code from elsewhere on the device.
    """
    named = get_metadata_from_config(get_fab_config(bytes(fab.content)))
    if named != (run.fab_id, run.fab_version):
        raise UnpinnedBundle("A run calls a pinned bundle by another app's name.")


def _check_known(state: PinnedState, folder: Path, run: Run) -> None:
    """A run taken in before goes on only while its bundle is still pinned."""
    _check_kind(run)
    fab = InMemoryNodeState.get_fab(state, run.fab_hash)
    if fab is None:
        raise UnpinnedBundle("A run's bundle is not in the node's store.")
    admit(folder, fab, run.fab_hash)


def _answer(refusal: Message, state: PinnedState, store: ObjectStore) -> int | None:
    try:
        flower._insert_message(refusal, state, store)
    except Exception as error:
        _log.error("A message could not be answered: %s.", type(error).__name__)
        return None
    return int(refusal.metadata.run_id)
