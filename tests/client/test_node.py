"""A node runs only pinned bundles: Flower's own function, with the gate in it."""

import inspect
import logging
import subprocess
import sys
import time

import flwr.supernode.start_client_internal as flower
import httpx
import pytest
from flwr.common.constant import ErrorCode
from flwr.supercore import heartbeat
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supernode import fleet_http_connection
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from typer.testing import CliRunner

from client.__main__ import app
from client.deploy import guard
from client.deploy.guard import check_flower
from client.deploy.node import (
    _unpacked,
    name_refusals,
    read_certificates,
    read_key,
    set_heartbeat,
)
from client.deploy.pins import hash_of, pin
from common.errors import ConfigError
from tests.client.node_world import World, build


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "0000"
    place.mkdir()
    return place


@pytest.fixture
def world(folder):
    return World(folder)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "ran"


class TestTheGate:
    def test_a_pinned_bundle_is_taken_as_it_came(self, world, marker):
        bundle = build(marker)
        pin(world.folder, bundle)
        assert world.send(bundle) is None
        assert world.tasks == 1
        assert world.state.get_fab(hash_of(bundle)).content == bundle
        series = world.state.get_run(1).series_id
        context = world.state.get_run_series_context(series)
        assert context.node_config == {"folder": str(world.folder)}

    def test_a_foreign_bundle_is_refused_and_named(self, world, marker, caplog):
        pinned = build(marker, "pinned")
        pin(world.folder, pinned)
        foreign = build(marker, "foreign")
        with caplog.at_level(logging.ERROR, "tutela.client"):
            reply = world.send(foreign)
        assert world.is_refused(reply)
        assert "UnpinnedBundle" in caplog.text
        assert hash_of(foreign) in caplog.text
        assert hash_of(pinned) in caplog.text
        assert not marker.exists()

    @pytest.mark.parametrize("lie", [{}, {"named": None}])
    def test_one_byte_is_enough_whatever_the_server_calls_it(self, world, marker, lie):
        bundle = build(marker)
        pin(world.folder, bundle)
        changed = bytearray(bundle)
        changed[len(changed) // 2] ^= 1
        lies = {"named": hash_of(bundle)} if lie else {}
        assert world.is_refused(world.send(bytes(changed), **lies))

    def test_nothing_of_a_refused_bundle_is_unpacked(self, world, marker, monkeypatch):
        opened = []
        monkeypatch.setattr(
            flower, "get_fused_config_from_fab", lambda *given: opened.append(given)
        )
        assert world.is_refused(world.send(build(marker)))
        assert opened == []

    def test_the_run_s_name_of_the_bundle_has_to_be_true_too(self, world, marker):
        bundle = build(marker)
        pin(world.folder, bundle)
        assert world.is_refused(world.send(bundle, run_named="0" * 64))

    @pytest.mark.parametrize(
        "lie",
        [{"version": "1.0.0.{}/../../../elsewhere"}, {"app": "somebody/else"}],
    )
    def test_a_pinned_bundle_is_found_under_its_own_name_only(self, world, marker, lie):
        bundle = build(marker)
        pin(world.folder, bundle)
        digits = hash_of(bundle)[:8]
        lies = {key: value.format(digits) for key, value in lie.items()}
        assert world.is_refused(world.send(bundle, **lies))

    def test_an_older_bundle_is_refused_once_it_is_not_pinned_any_more(
        self, world, marker
    ):
        old, new = build(marker, "old"), build(marker, "new")
        pin(world.folder, old)
        assert world.send(old, run=1) is None
        pin(world.folder, new, only=True)
        assert world.send(old, run=2).error.code == ErrorCode.INVALID_FAB
        assert world.send(new, run=3) is None
        assert world.state.get_run(2) is None

    def test_a_run_that_goes_on_stops_when_its_pin_is_taken_back(self, world, marker):
        old, new = build(marker, "old"), build(marker, "new")
        pin(world.folder, old)
        assert world.send(old, run=1) is None
        pin(world.folder, new, only=True)
        assert world.send(old, run=1).error.code == ErrorCode.INVALID_FAB
        assert world.asked == [hash_of(old)]  # it had come before
        assert world.tasks == 1
        # The message let in before the pin was taken back gets no code either.
        assert world.state.get_fab(hash_of(old)) is None

    def test_damaged_settings_let_nothing_in(self, world, marker, caplog):
        bundle = build(marker)
        pin(world.folder, bundle)
        (world.folder / "settings.toml").write_text("bundles = [")
        assert world.is_refused(world.send(bundle))
        assert "cannot be read" in caplog.text

    def test_an_agent_is_another_door_and_closed(self, world, marker):
        bundle = build(marker)
        pin(world.folder, bundle)
        assert world.is_refused(world.send(bundle, kind=TaskType.AGENT_APP))

    def test_a_run_that_cannot_be_taken_in_does_not_end_the_node(self, world, marker):
        bundle = build(marker)
        pin(world.folder, bundle)
        assert world.is_refused(world.send(bundle, config={"no.such": 1}))
        assert world.send(bundle, run=2) is None

    @pytest.mark.parametrize("pinned", [True, False])
    def test_a_message_that_cannot_be_answered_is_dropped(
        self, world, marker, monkeypatch, caplog, pinned
    ):
        """The app's answer would fail on the same, and the node wait for ever."""
        bundle = build(marker)
        if pinned:
            pin(world.folder, bundle)
        monkeypatch.setattr(guard, "PAUSE", 0.0)
        odd = [lambda message: message.metadata.__dict__.update(_message_type="a b")]
        reply = world.send(bundle, changes=odd)
        assert reply is None if pinned else world.is_refused(reply)
        assert "A message could not be read: ValueError." in caplog.text
        assert "a b" not in caplog.text
        assert odd == []
        assert world.tasks == (1 if pinned else 0), "for the one that came next"

    def test_what_cannot_be_read_at_all_is_waited_out(
        self, world, marker, monkeypatch, caplog
    ):
        paused, bundle = [], build(marker)
        pin(world.folder, bundle)
        monkeypatch.setattr(guard.time, "sleep", paused.append)
        failures = [ValueError("SECRET"), KeyError("SECRET"), OSError("SECRET")]
        assert world.send(bundle, failures=failures) is None
        assert world.tasks == 1
        assert paused.count(guard.PAUSE) == 3
        assert "A message could not be read: KeyError." in caplog.text
        assert "SECRET" not in caplog.text

    def test_an_answer_that_cannot_be_kept_does_not_end_the_node(
        self, world, marker, monkeypatch, caplog
    ):
        kept = flower._insert_message
        fails = [MemoryError("SECRET")]

        def insert(*given):
            if fails:
                raise fails.pop()
            return kept(*given)

        monkeypatch.setattr(flower, "_insert_message", insert)
        assert world.is_refused(world.send(build(marker)))
        assert "could not be answered: MemoryError." in caplog.text

    def test_the_store_takes_no_unpinned_bundle_by_any_way(self, world, marker):
        bundle = build(marker)
        with pytest.raises(guard.UnpinnedBundle):
            world.state.store_fab(Fab(hash_of(bundle), bundle, {}))

    def test_the_server_is_not_told_how_long_the_client_computed(self, world):
        world.state.record_message_processing_start("m")
        time.sleep(0.02)
        world.state.record_message_processing_end("m")
        assert world.state.get_message_processing_duration("m") == 0.0


class TestFlowersNames:
    def test_they_are_the_ones_that_the_gate_closes(self):
        check_flower()
        source = inspect.getsource(flower._pull_and_store_message)
        # Every bundle comes by get_fab, and is looked into only afterwards.
        assert source.count("get_fab(") == 1
        assert source.index("fab = get_fab(") < source.index(
            "get_fused_config_from_fab("
        )
        assert source.count("store_fab(") == 1

    def test_an_app_s_process_gets_its_code_from_the_store_alone(self):
        from flwr.supernode.servicer.runtime import runtime_handlers

        source = inspect.getsource(runtime_handlers)
        assert source.count("state.get_fab(") == 1
        assert "fab_store" not in source

    @pytest.mark.parametrize("name", ["_pull_and_store_message", "_insert_message"])
    def test_a_missing_name_stops_the_node(self, monkeypatch, name):
        monkeypatch.delattr(flower, name)
        with pytest.raises(ConfigError, match="no bundle could be checked"):
            check_flower()

    def test_other_parameters_stop_the_node(self, monkeypatch):
        monkeypatch.setattr(flower, "_pull_and_store_message", lambda state, fabs: None)
        with pytest.raises(ConfigError, match="no bundle could be checked"):
            check_flower()

    def test_another_version_stops_the_node(self, monkeypatch):
        monkeypatch.setattr(guard.metadata, "version", lambda name: "1.43.0")
        with pytest.raises(ConfigError, match=r"1\.42\.0, found 1\.43\.0"):
            check_flower()


class TestWhatANodeIsStartedWith:
    @pytest.mark.parametrize("door", ["client.__main__", "simulations.__main__"])
    def test_flower_is_not_imported_before_its_switches_are_set(self, door):
        program = (
            f"import sys, {door}, client.deploy.node; print('flwr' in sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "False\n", done.stderr

    def test_no_option_turns_anything_off(self):
        text = CliRunner().invoke(app, ["node", "--help"]).output
        for word in ("insecure", "isolation", "allow", "trusted", "node-config"):
            assert f"--{word}" not in text

    def test_a_key_that_others_may_read_is_refused(self, tmp_path):
        key = tmp_path / "node.key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", key],
            check=True,
        )
        assert read_key(key).curve.name == "secp384r1"
        key.chmod(0o640)
        with pytest.raises(ConfigError, match="chmod 600"):
            read_key(key)

    @pytest.mark.parametrize("content", [None, b"no key"])
    def test_a_missing_or_other_key_is_named(self, tmp_path, content):
        key = tmp_path / "node.key"
        if content is not None:
            key.write_bytes(content)
            key.chmod(0o600)
        with pytest.raises(ConfigError, match="--key"):
            read_key(key)

    def test_without_certificates_there_is_no_node(self, tmp_path):
        with pytest.raises(ConfigError, match="--root-certificates"):
            read_certificates(tmp_path / "ca.crt")

    def test_nothing_unpacked_before_is_left(self, folder):
        before = folder / ".flower" / "apps" / "somebody.foreign.1.0.0.00000000"
        before.mkdir(parents=True)
        with _unpacked(folder) as home:
            assert list(home.iterdir()) == []
        assert not home.exists()

    def test_a_second_node_leaves_the_first_one_s_code_alone(self, folder):
        with _unpacked(folder) as home:
            (home / "apps").mkdir()
            with pytest.raises(ConfigError, match="another node runs"):  # noqa: SIM117
                with _unpacked(folder):
                    pass
            assert (home / "apps").is_dir()
        with _unpacked(folder):
            pass

    def test_a_node_that_was_killed_holds_no_lock(self, folder):
        program = (
            "import os, signal, sys; from pathlib import Path\n"
            "from client.deploy.node import _unpacked\n"
            "with _unpacked(Path(sys.argv[1])) as home:\n"
            "    (home / 'left').mkdir()\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        subprocess.run([sys.executable, "-c", program, str(folder)], timeout=60)
        assert (folder / ".flower" / "left").is_dir()
        with _unpacked(folder) as home:
            assert list(home.iterdir()) == []

    def test_a_link_in_its_place_is_refused(self, folder, tmp_path):
        (folder / ".flower").symlink_to(tmp_path)
        with pytest.raises(ConfigError, match="link"), _unpacked(folder):
            pass

    def test_it_is_heard_as_often_as_flower_is_told(self, monkeypatch):
        sent = []
        monkeypatch.setattr(heartbeat, "HEARTBEAT_DEFAULT_INTERVAL", 30)
        monkeypatch.setattr(fleet_http_connection, "HEARTBEAT_DEFAULT_INTERVAL", 30)
        set_heartbeat(5.01)  # Flower sends it after a share of what is beyond 5
        sender = heartbeat.HeartbeatSender(lambda: sent.append(1) or True)
        sender.start()
        try:
            deadline = time.monotonic() + 10
            while len(sent) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            sender.stop()
        assert len(sent) >= 3
        assert fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL == 5.01

    @pytest.mark.parametrize(("status", "said"), [(401, True), (412, False)])
    def test_why_no_call_is_taken_is_in_the_log(
        self, monkeypatch, caplog, status, said
    ):
        answer = lambda *given: httpx.Response(status)  # noqa: E731
        monkeypatch.setattr(NodeAuthHttpInterceptor, "intercept", answer)
        name_refusals()
        found = NodeAuthHttpInterceptor.intercept(None, None, None)
        assert found.status_code == status
        assert ("clock is wrong" in caplog.text) == said
