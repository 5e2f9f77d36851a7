"""A deployment's whole life on this machine, by the commands that operators type.

Real processes, TLS, node authentication, pinned bundles: init, up, a node killed in a
round, the server app killed and its run resumed, foreign code refused, the new student
served and asked for recommendations, down.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import psutil
import pytest
from flwr.cli.build import build_fab_from_files

from client.ledger import inspect_ledger
from client.proto.recommender_pb2 import DescribeRequest, History, RecommendRequest
from client.proto.recommender_pb2_grpc import RecommenderStub
from client.settings import read_settings, witness_place
from common.catalogue import read_catalogue
from common.recommend import recommend
from common.student import load_student
from simulations.deployment.control import connect
from simulations.deployment.layout import Layout
from simulations.deployment.processes import SUPERLINK, living

pytestmark = [pytest.mark.slow, pytest.mark.processes]

TUTELA = Path(sys.executable).with_name("tutela")
CLIENTS = ("0000", "0001", "0002")
CONFIG = """
[run]
name = "life"
round-timeout = 25.0
[data]
public = "synthetic:num_users=200,num_items=60,interactions_per_user=10"
private = "synthetic:num_users=200,num_items=60,interactions_per_user=10"
[partition]
public-users = 30
validation-users = 8
heldout-users = 40
[student]
dim = 8
[training]
rounds = 2
[privacy]
declared-users = 45
target-epsilon = 50.0
"""

#: Foreign code: its server app asks every node, and notes how each one answered.
FOREIGN = {
    "pyproject.toml": """
[project]
name = "foreign"
version = "1.0.0"
[tool.flwr.app]
publisher = "somebody"
[tool.flwr.app.components]
serverapp = "server_app:app"
clientapp = "client_app:app"
[tool.flwr.app.config]
""",
    "client_app.py": """
from pathlib import Path
Path({marker!r}).write_text("foreign code ran")
from flwr.clientapp import ClientApp
app = ClientApp()
""",
    "server_app.py": """
import json
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp
app = ServerApp()
@app.main()
def main(grid, context):
    messages = [Message(RecordDict(), n, "train") for n in grid.get_node_ids()]
    replies = grid.send_and_receive(messages, timeout=40)
    codes = [reply.error.code if reply.has_error() else 0 for reply in replies]
    Path({answers!r}).write_text(json.dumps(codes))
""",
}


class Life:
    """The folder, and the operator's commands on it."""

    def __init__(self, home):
        self.home = home
        self.folder = home / "deployment"
        self.layout = Layout(self.folder)
        self.environment = {
            **os.environ,
            "HOME": str(home),
            "XDG_DATA_HOME": str(home / "data"),
            "OMP_NUM_THREADS": "1",
        }

    def begin(self, verb, *arguments):
        return subprocess.Popen(
            [TUTELA, "deploy", verb, self.folder, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, process, seconds=150, code=0):
        output, _ = process.communicate(timeout=seconds)
        assert process.returncode == code, output + self.logs()
        return output

    def __call__(self, verb, *arguments, code=0):
        return self.finish(self.begin(verb, *arguments), code=code)

    def logs(self):
        return self.finish(self.begin("logs", "-n", "30"))

    def log(self, name):
        return (self.layout.logs / f"{name}.log").read_text()

    def events(self, run, event):
        path = self.layout.runs / run / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def wait_for(self, condition, process=None, seconds=90):
        """Until it holds; a command that ends before that is a failure of its own."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if process is not None and process.poll() is not None:
                pytest.fail(process.communicate()[0] + self.logs())
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)
        return found

    def online(self):
        with connect(self.folder) as control:
            return sorted(n.name for n in control.nodes() if n.status == "online")

    def charges(self, client):
        place = self.layout.client(client).folder
        witness = witness_place(place, read_settings(place))
        entries = inspect_ledger(place, witness)[1]
        return [entry.charge for entry in entries if entry.charge is not None]


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    home = tmp_path_factory.mktemp("life")
    (home / "life.toml").write_text(CONFIG)
    found = Life(home)
    found("init", "--clients", "3", "--config", str(home / "life.toml"))
    yield found
    if found.layout.processes.is_file():
        found("down")


def test_up_starts_everything_with_tls_and_authentication(life):
    output = life("up")
    assert "3 nodes are online." in output
    assert life.online() == list(CLIENTS)
    commands = {n: p.cmdline() for n, p in living(life.layout).items()}
    assert "--enable-supernode-auth" in commands[SUPERLINK]
    assert not any("--insecure" in command for command in commands.values())
    assert "Everything runs already." in life("up")


def test_a_node_killed_in_a_round_does_not_end_the_run(life):
    run = life.begin("run", "--set", "privacy.target-epsilon=8.0", "--name", "first")
    life.wait_for(lambda: "Receiving: train" in life.log("node-0002"), run)
    living(life.layout)["node-0002"].kill()
    output = life.finish(run)
    first, second = life.events("first", "round")
    assert first["survivors"] == 2
    assert second["survivors"] == 2
    assert "owner had pinned by its hash" in output
    sizes = {
        load_student(
            life.layout.client(c).folder / "student.safetensors"
        ).spec.num_items
        for c in CLIENTS[:2]
    }
    assert sizes == {60}
    assert not (life.layout.client("0002").folder / "student.safetensors").exists()


def test_a_node_is_started_again_alone(life):
    others = {n: p.pid for n, p in living(life.layout).items()}
    assert "node-0002 started" in life("up")
    now = {n: p.pid for n, p in living(life.layout).items()}
    assert now.items() > others.items()
    assert life.online() == list(CLIENTS)


def test_a_run_whose_server_app_was_killed_is_resumed(life):
    rounds = ("--set", "privacy.target-epsilon=8.0")
    run = life.begin("run", *rounds, "--name", "second")
    life.wait_for(lambda: life.events("second", "round"), run)
    (app,) = [
        child
        for child in living(life.layout)["superexec"].children(recursive=True)
        if "flwr-serverapp" in " ".join(child.cmdline())
    ]
    app.send_signal(signal.SIGKILL)
    # Flower takes a minute to see it: until then there may be another at work.
    again = life("run", *rounds, "--name", "second", "--resume", code=2)
    assert "named second is not over" in again
    output = life.finish(run, code=1)
    assert "error: The run failed" in output
    assert "earlier run" in life("run", *rounds, "--name", "second", code=2)
    output = life("run", *rounds, "--name", "second", "--resume")
    assert "Complete" in output
    numbers = [line["round"] for line in life.events("second", "round")]
    assert sorted(set(numbers)) == [1, 2]
    assert life.events("second", "round")[-1]["survivors"] == 3
    for client in CLIENTS:
        charged = [(c.name, c.number) for c in life.charges(client)]
        assert len(set(charged)) == len(charged)
        assert (life.layout.client(client).folder / "student.safetensors").is_file()


def test_foreign_code_is_refused_by_every_node(life):
    marker, answers = life.home / "marker", life.home / "answers.json"
    files = {
        name: text.format(marker=str(marker), answers=str(answers)).encode()
        for name, text in FOREIGN.items()
    }
    content, _ = build_fab_from_files(files)
    name = hashlib.sha256(content).hexdigest()
    with connect(life.folder) as control:
        number = control.submit(content, name, {})
        life.wait_for(lambda: control.run(number).over)
    assert json.loads(answers.read_text()) == [7, 7, 7]
    assert not marker.exists()
    for client in CLIENTS:
        log = life.log(f"node-{client}")
        assert "UnpinnedBundle" in log
        assert name in log
        unpacked = life.layout.client(client).folder / ".flower"
        assert not list(unpacked.rglob("client_app.py"))


def test_a_client_serves_what_the_federation_learnt(life):
    folder = life.layout.client("0001").folder
    socket, log = folder / "serving.sock", life.home / "serve.log"
    with log.open("w") as output:
        serving = subprocess.Popen(
            [TUTELA, "serve", folder, "--engine", "torch"],
            env=life.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        life.wait_for(socket.exists)
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            stub = RecommenderStub(channel)
            told = stub.Describe(DescribeRequest(), timeout=30, wait_for_ready=True)
            ids = read_catalogue(folder / "catalogue.parquet").items.ids
            asked = RecommendRequest(history=History(items=ids[:2]), k=5)
            reply = stub.Recommend(asked, timeout=30)
    finally:
        serving.terminate()
        assert serving.wait(30) == 0, log.read_text()
    assert "per user" in told.promise
    assert "1 pinned bundle" in told.promise
    best = recommend(load_student(folder / "student.safetensors"), [0, 1], 5)
    assert [item.item for item in reply.items] == [ids[i] for i in best.item[0]]


def test_status_tells_processes_nodes_and_runs(life):
    output = life("status")
    assert output.count("lives") == 5
    assert output.count("online") == 3
    assert "first" in output
    assert "failed" in output


def test_down_ends_everything_and_nothing_else(life):
    mine = psutil.Process()
    ours = [p.pid for p in living(life.layout).values()]
    life("down")
    assert mine.is_running()
    assert not [pid for pid in ours if psutil.pid_exists(pid)]
    assert "Nothing was running." in life("down")
    everything = [
        " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])
    ]
    assert not [line for line in everything if str(life.folder) in line]
