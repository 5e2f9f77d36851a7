"""A server that sends a node what it likes, and bundles that tell when they run."""

import copy

from flwr.app import Message, RecordDict
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import ErrorCode
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
)
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client.deploy.guard import PinnedState, guarded
from client.deploy.pins import hash_of

PROJECT = """
[project]
name = "foreign"
version = "1.0.0"
[tool.flwr.app]
publisher = "somebody"
[tool.flwr.app.components]
serverapp = "server:app"
clientapp = "client_app:app"
[tool.flwr.app.config]
"""
#: A client app that says on disk that it was imported, and answers anything.
CLIENT = """
from pathlib import Path
Path({marker!r}).write_text({text!r})
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()
@app.train()
def train(message, context):
    return Message(RecordDict(), reply_to=message)
"""


def build(marker, text="ran"):
    files = {
        "pyproject.toml": PROJECT.encode(),
        "client_app.py": CLIENT.format(marker=str(marker), text=text).encode(),
        "server.py": b"app = None\n",
    }
    return build_fab_from_files(files)[0]


class World:
    """A server that sends what it likes, and the node's own state."""

    def __init__(self, folder):
        self.folder = folder
        self.objects = ObjectStoreFactory().store()
        self.state = PinnedState(self.objects, folder)
        self.state.set_node_id(7)
        TaskIdentity.node_id, TaskIdentity.task_id = 7, 1
        self.asked = []
        self.pull = guarded(folder, poll=0.01)

    def send(self, bundle, run=1, kind=TaskType.SERVER_APP, **lies):
        """One message of a run with this bundle; the node's reply to it, if any.

        ``failures`` are raised before it comes, ``changes`` are made to copies of it.
        """
        TaskIdentity.run_id = run
        message = Message(RecordDict(), 7, "train")
        message.metadata.__dict__["_message_id"] = message.object_id
        named = lies.get("named", hash_of(bundle))
        facts = Run.create_empty(run)
        facts.fab_id = lies.get("app", "somebody/foreign")
        facts.fab_version = lies.get("version", "1.0.0")
        facts.fab_hash = lies.get("run_named", named)
        facts.primary_task_type = kind
        facts.override_config = lies.get("config", {})

        def get_fab(name, number):
            self.asked.append(name)
            return Fab(named, bundle, {})

        tree = get_object_tree(message)
        objects = get_all_nested_objects(message)
        failures, changes = lies.get("failures", []), lies.get("changes", [])

        def receive():
            if failures:
                raise failures.pop()
            came = copy.deepcopy(message)
            if changes:
                changes.pop()(came)
            return came, tree

        self.pull(
            state=self.state,
            object_store=self.objects,
            node_config={"folder": str(self.folder)},
            receive=receive,
            get_run=lambda number: facts,
            get_fab=get_fab,
            pull_object=lambda number, name: objects[name].deflate(),
            confirm_message_received=lambda number, name: None,
            trusted_entities=None,
        )
        replies = self.state.get_messages_legacy(is_reply=True)
        return replies[0] if replies else None

    @property
    def tasks(self):
        return len(self.state.get_tasks())

    def is_refused(self, reply):
        """Flower's error for an unverified bundle, and nothing of it kept."""
        return (
            reply is not None
            and reply.error.code == ErrorCode.INVALID_FAB
            and not self.state.fab_store
            and not self.state.run_store
            and self.tasks == 0
        )
