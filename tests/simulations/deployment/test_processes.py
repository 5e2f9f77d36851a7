"""What `deploy up` starts, and that `deploy down` ends nobody else's process."""

import json
import stat
import subprocess
import sys
import time

import psutil
import pytest
from typer.testing import CliRunner

from common.errors import ConfigError
from simulations.__main__ import app
from simulations.deployment import laboratory
from simulations.deployment.layout import (
    ClientPorts,
    Deployment,
    Layout,
    SuperLink,
    write_deployment,
)
from simulations.deployment.processes import (
    EXECUTOR,
    SUPERLINK,
    commands,
    end,
    environment,
    living,
    read_processes,
    start,
    tail,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
#: Ends on SIGTERM only if it is not told to ignore it, and says when it is ready.
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(60)",
]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, sys, time;"
    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print(p.pid, flush=True); time.sleep(60)",
]


@pytest.fixture
def deployment():
    ports = [
        ClientPorts(name=f"{n:04d}", node_port=40000 + n, monitor_port=41000 + n)
        for n in range(2)
    ]
    link = SuperLink(port=42000, public="127.0.0.1:42000", monitor_port=42001)
    return Deployment(name="lab", superlink=link, clients=tuple(ports))


@pytest.fixture
def layout(tmp_path, deployment):
    found = Layout(tmp_path)
    write_deployment(found, deployment)
    yield found
    end(found, grace=0.1)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


class TestTheCommands:
    def test_tls_authentication_and_isolation_are_part_of_them(
        self, layout, deployment
    ):
        found = commands(layout, deployment)
        assert list(found) == [SUPERLINK, EXECUTOR, "node-0000", "node-0001"]
        link = " ".join(found[SUPERLINK])
        for words in (
            "--host 127.0.0.1 --port 42000",
            f"--ssl-certfile {layout.server_certificate}",
            f"--ssl-keyfile {layout.server_key}",
            "--enable-supernode-auth",
            "--isolation process",
            f"--superexec-auth-secret-file {layout.executor_secret}",
            f"--database {layout.database}",
            "--disable-runtime-dependency-installation",
        ):
            assert words in link
        assert f"--root-certificates {layout.server_ca_certificate}" in " ".join(
            found[EXECUTOR]
        )
        node = " ".join(found["node-0001"])
        place = layout.client("0001")
        assert f"-P -m client node {place.folder}" in node
        assert f"--key {place.node_key}" in node
        assert f"--root-certificates {place.ca_certificate}" in node
        assert not any("insecure" in word for c in found.values() for word in c)

    def test_flower_reports_to_nobody_and_installs_nothing(self, layout):
        found = environment(layout)
        assert found["FLWR_TELEMETRY_ENABLED"] == "0"
        assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
        assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
        assert found["TUTELA_RUNS"] == str(layout.runs)
        assert found["FLWR_HOME"] == str(layout.flwr_home)


class TestOurProcesses:
    def test_one_is_written_down_with_its_start_and_its_log(self, layout):
        started = start(layout, "node-0000", SLEEP)
        (kept,) = read_processes(layout)
        assert kept == started
        assert living(layout)["node-0000"].pid == started.pid
        assert (layout.logs / "node-0000.log").is_file()
        assert stat.S_IMODE(layout.processes.stat().st_mode) == 0o600

    def test_down_ends_them_and_only_says_so_once(self, layout):
        pids = [start(layout, name, SLEEP).pid for name in ("a", "b")]
        assert end(layout) == {"b": True, "a": True}
        assert not any(
            psutil.pid_exists(pid)
            and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            for pid in pids
        )
        assert not layout.processes.exists()
        assert end(layout) == {}

    def test_a_deaf_one_is_killed_after_the_grace(self, layout):
        start(layout, "deaf", DEAF)
        wait_for(lambda: list(tail(layout.logs / "deaf.log", 5)) == ["ready"])
        assert end(layout, grace=0.3) == {"deaf": False}
        assert living(layout) == {}

    def test_what_it_had_started_goes_with_it(self, layout):
        start(layout, "parent", PARENT)
        (pid,) = wait_for(lambda: list(tail(layout.logs / "parent.log", 1)))
        child = psutil.Process(int(pid))
        end(layout)
        wait_for(lambda: not child.is_running())

    def test_a_stranger_with_the_same_id_is_left_alone(self, layout):
        stranger = subprocess.Popen(SLEEP)
        try:
            start(layout, "node-0000", SLEEP)
            tree = json.loads(layout.processes.read_text())
            tree["processes"].append(
                {"name": "superlink", "pid": stranger.pid, "created": 1.0}
            )
            layout.processes.write_text(json.dumps(tree))
            assert list(living(layout)) == ["node-0000"]
            assert end(layout) == {"node-0000": True}
            assert stranger.poll() is None
        finally:
            stranger.kill()
            stranger.wait()

    def test_one_that_ended_is_not_living_and_is_replaced(self, layout):
        start(layout, "a", [sys.executable, "-c", ""])
        wait_for(lambda: living(layout) == {})
        again = start(layout, "a", SLEEP)
        assert read_processes(layout) == [again]

    @pytest.mark.parametrize("text", ["", "[]", '{"processes": [{"pid": "x"}]}'])
    def test_a_damaged_list_is_named(self, layout, text):
        layout.processes.write_text(text)
        with pytest.raises(ConfigError, match=r"processes\.json"):
            read_processes(layout)
        layout.processes.unlink()


class TestTheVerbs:
    def run(self, *arguments):
        return CliRunner().invoke(app, ["deploy", *map(str, arguments)])

    def test_logs_shows_ends_without_colours(self, layout):
        layout.logs.mkdir()
        text = "".join(f"line {n}\n" for n in range(50)) + "\x1b[92mINFO\x1b[0m: x\a\n"
        (layout.logs / "superlink.log").write_text(text)
        (layout.logs / "node-0000.log").write_text("other\n")
        output = self.run("logs", layout.root, "superlink", "-n", "2").output
        assert output == "line 49\nINFO: x\n"
        output = self.run("logs", layout.root).output
        assert "== superlink\n" in output
        assert "other\n" in output

    def test_a_log_that_is_not_there_is_named(self, layout):
        done = self.run("logs", layout.root, "node-0009")
        assert isinstance(done.exception, ConfigError)
        assert "node-0009" in str(done.exception)

    @pytest.mark.parametrize("verb", ["up", "run", "status", "logs", "down", "bundle"])
    def test_each_wants_a_deployment(self, tmp_path, verb):
        done = self.run(verb, tmp_path / "none")
        assert isinstance(done.exception, ConfigError)
        assert "deploy init" in str(done.exception)

    @pytest.mark.parametrize("verb", ["up", "run", "status", "down"])
    def test_no_option_turns_tls_or_authentication_off(self, verb):
        output = self.run(verb, "--help").output
        for word in ("insecure", "no-auth", "allow", "isolation", "unpinned"):
            assert f"--{word}" not in output

    def test_status_says_what_ended_and_that_nobody_answers(self, layout):
        layout.server_certificates.mkdir(parents=True)
        layout.server_ca_certificate.write_text("")
        start(layout, "superlink", [sys.executable, "-c", ""])
        wait_for(lambda: living(layout) == {})
        done = self.run("status", layout.root)
        assert done.exit_code != 0
        assert "ended" in done.output

    def test_a_process_that_ends_at_once_is_named_with_its_log(self, layout):
        start(layout, "superlink", [sys.executable, "-c", "print('no port')"])
        wait_for(lambda: living(layout) == {})
        with pytest.raises(ConfigError, match=r"superlink ended.*\n.*no port"):
            laboratory.check_alive(layout, {"superlink"})
        laboratory.check_alive(layout, {"superexec"})  # the other was not expected


class TestTheMetricsFile:
    def test_whole_lines_are_read_once(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        assert list(laboratory._lines(path, 0)) == []
        path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
        found = list(laboratory._lines(path, 0))
        assert [line for line, _ in found] == [{"a": 1}, {"a": 2}]
        with path.open("a") as file:
            file.write(": 3}\n")
        (last,) = laboratory._lines(path, found[-1][1])
        assert last == ({"a": 3}, path.stat().st_size)

    def test_a_file_that_became_shorter_is_read_from_its_start(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"b": 1}\n')
        assert [line for line, _ in laboratory._lines(path, 500)] == [{"b": 1}]
