"""Flower's own Ray engine, driven from Python with our run configuration.

Simulations only. ``flwr run .`` uses the same engine through a SuperLink; here it
runs in this process' own Ray, kept on loopback (Ray would take the host's address).
"""

from __future__ import annotations

import os
from unittest.mock import patch

from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.simulation.run_simulation import _run_simulation
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supercore.telemetry import EventType

from common.config import project_file
from simulations.engine import SERVER_NODE, Job, server_context

#: Nothing phones home, and Ray's workers find the client folders.
ENVIRONMENT = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def run_on_ray(server: ServerApp, client: ClientApp, job: Job) -> None:
    """Run a federation on Flower's Ray engine."""
    run = Run.create_empty(job.run_id)
    run.primary_task_id, run.federation_id = 1, NOOP_FEDERATION_ID
    run.override_config = dict(job.config)
    TaskIdentity.run_id, TaskIdentity.node_id = job.run_id, SERVER_NODE
    TaskIdentity.task_id = 1
    environment = ENVIRONMENT | {"TUTELA_CLIENTS": str(job.clients.resolve())}
    with patch.dict(os.environ, environment):
        _run_simulation(
            num_supernodes=job.num_clients,
            exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
            client_app=client,
            server_app=server,
            server_app_context=server_context(job),
            backend_config={
                "init_args": {
                    "_node_ip_address": "127.0.0.1",
                    "include_dashboard": False,
                    "num_cpus": 2,
                },
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            },
            run=run,
            # Clients get the project file's defaults, overridden by the job's config.
            app_dir=str(project_file().parent),
            is_app=True,
        )
