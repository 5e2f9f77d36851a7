"""The operator's calls to a deployment's SuperLink: nodes, runs, the bundle.

Simulations only. It speaks Flower's Control API through Flower's own client, over
TLS with the deployment's certificate authority, so that what is submitted is the very
bundle that clients pinned: ``flwr run`` would build another one from a folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config import FlatConfig
from common.errors import ProtocolError
from common.structured_logs import in_one_line
from simulations.deployment.bundle import read_bundle
from simulations.deployment.layout import Layout, read_deployment

if TYPE_CHECKING:
    from flwr.supercore.control import ControlHttpClient

ONLINE = "online"
FINISHED = "finished"


@dataclass(frozen=True)
class NodeState:
    """A node as the SuperLink knows it.

    Attributes:
        name: the client's.
        status: ``registered``, ``online``, ``offline`` or ``unregistered``.
    """

    name: str
    status: str
    public_key: bytes


@dataclass(frozen=True)
class RunState:
    """A run as the SuperLink knows it.

    Attributes:
        status: ``pending``, ``starting``, ``running``, or how it finished:
            ``completed``, ``failed``, ``stopped``.
        details: why it failed, if Flower knows.
    """

    run: int
    status: str
    details: str
    name: str
    bundle: str
    started: str

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ("completed", "failed", "stopped")


class Control:
    """A connection to the Control API."""

    def __init__(self, client: ControlHttpClient) -> None:
        self._client = client

    def nodes(self) -> list[NodeState]:
        """Every node that was ever registered and is not unregistered."""
        from flwr.proto.control_pb2 import ListNodesRequest

        found = _asked(self._client.ListNodes, ListNodesRequest()).nodes_info
        states = [NodeState(n.name, n.status, bytes(n.public_key)) for n in found]
        return [state for state in states if state.status != "unregistered"]

    def register(self, public_key: bytes, name: str) -> None:
        """Let a node in by its public key, as OpenSSH writes it."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        request = RegisterNodeRequest(public_key=public_key, name=name)
        _asked(self._client.RegisterNode, request)

    def runs(self) -> list[RunState]:
        """Every run, the oldest first."""
        from flwr.proto.control_pb2 import ListRunsRequest

        found = _asked(self._client.ListRuns, ListRunsRequest()).run_dict
        states = [_state(run) for run in found.values()]
        return sorted(states, key=lambda state: state.started)

    def run(self, number: int) -> RunState:
        """One run.

        Raises:
            ProtocolError: if the SuperLink does not know it.
        """
        from flwr.proto.control_pb2 import ListRunsRequest

        found = _asked(self._client.ListRuns, ListRunsRequest(run_id=number)).run_dict
        if number not in found:
            raise ProtocolError(f"Expected run {number}, the SuperLink knows none.")
        return _state(found[number])

    def submit(self, bundle: bytes, name: str, overrides: FlatConfig) -> int:
        """Start a run of a bundle, whose SHA-256 is ``name``; its number.

        Raises:
            ProtocolError: if it does not start, or another bundle was taken.
        """
        from flwr.common.serde import fab_to_proto, user_config_to_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.supercore.fab import Fab

        request = StartRunRequest(
            fab=fab_to_proto(Fab(name, bundle, {})),
            override_config=user_config_to_proto(dict(overrides)),
        )
        reply = _asked(self._client.StartRun, request)
        if not reply.HasField("run_id"):
            raise ProtocolError("The SuperLink started no run; its log says why.")
        taken = self.run(reply.run_id).bundle
        if taken != name:
            raise ProtocolError(f"Submitted bundle {name}, the SuperLink took {taken}.")
        return int(reply.run_id)

    def stop(self, number: int) -> bool:
        """Stop a run; whether it was running."""
        from flwr.proto.control_pb2 import StopRunRequest

        return bool(_asked(self._client.StopRun, StopRunRequest(run_id=number)).success)

    def lines(self, number: int) -> Iterator[str]:
        """What the run's server app writes, until it ends."""
        from flwr.proto.control_pb2 import StreamLogsRequest

        request = StreamLogsRequest(run_id=number, after_timestamp=0.0)
        for part in self._client.StreamLogs(request):
            yield part.log_output


@contextlib.contextmanager
def connect(folder: Path) -> Iterator[Control]:
    """A connection to the SuperLink of a deployment's folder."""
    from flwr.cli.cli_client_interceptor import CliClientHttpInterceptor
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    client = ControlHttpClient.from_server_address(
        server_address=read_deployment(folder).superlink.address,
        insecure=False,
        root_certificates=Layout(folder).server_ca_certificate.read_bytes(),
        interceptors=[
            CliClientHttpInterceptor(),
            RuntimeVersionHttpInterceptor(component_name="tutela"),
        ],
    )
    try:
        yield Control(client)
    finally:
        client.close()


def submit_pinned(control: Control, folder: Path, overrides: FlatConfig) -> int:
    """Start a run of the folder's own bundle; the run's number."""
    content, name = read_bundle(Layout(folder).bundle.parent)
    return control.submit(content, name, overrides)


def _asked(call: Any, request: Any) -> Any:
    """A call's reply; what goes wrong on the way is an error of ours."""
    import httpx

    try:
        return call(request)
    except httpx.HTTPStatusError as error:
        text = error.response.text[:300]
        raise ProtocolError(f"The SuperLink refused {call.__name__}: {text}") from None
    except httpx.HTTPError as error:
        raise ProtocolError(
            f"The SuperLink did not answer {call.__name__}: {error}. Is the deployment "
            "up? `tutela deploy status` says."
        ) from None


def _state(run: Any) -> RunState:
    over = run.status.status == FINISHED
    config = run.override_config
    name = config["run.name"].string if "run.name" in config else ""
    return RunState(
        run=int(run.run_id),
        status=run.status.sub_status if over else run.status.status,
        details=in_one_line(run.status.details),
        name=name,
        bundle=run.fab_hash,
        started=run.pending_at,
    )
