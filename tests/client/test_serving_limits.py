"""How much is answered: limits, deadlines, the drain; and who is heard."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from client.feedback import read_feedback
from client.proto import recommender_pb2 as pb
from client.proto.recommender_pb2_grpc import RecommenderStub
from client.serving.engine import choose_engine
from client.serving.limits import Limits, TokenBucket
from client.serving.listen import listening
from common.errors import ConfigError
from tests.client.serving_parts import (
    LOOPBACK,
    asking,
    calling,
    refusal,
    served_folder,
    serving,
    slow,
    telling,
)

CODE = grpc.StatusCode
TOKEN = "a token of some length"


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return served_folder(tmp_path_factory.mktemp("limits") / "0000")


# ------------------------------------------------------------------- how much
def test_a_bucket_lets_a_seconds_worth_through_and_then_the_rate() -> None:
    now = [0.0]
    bucket = TokenBucket(20.0, lambda: now[0])
    assert [bucket.take() for _ in range(21)] == [True] * 20 + [False]
    now[0] = 0.1
    assert [bucket.take() for _ in range(3)] == [True, True, False]
    now[0] = 1000.0
    assert sum(bucket.take() for _ in range(100)) == 20, "no more is saved up"


def test_a_low_rate_allows_a_small_burst_and_0_is_no_bound() -> None:
    slowly = TokenBucket(0.5, lambda: 0.0)
    assert sum(slowly.take() for _ in range(50)) == 10
    unbounded = TokenBucket(0.0, lambda: 0.0)
    assert all(unbounded.take() for _ in range(1000))


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"most_items": 0}, "--most-items"),
        ({"most_bytes": 0}, "--most-bytes"),
        ({"concurrency": 0}, "--concurrency"),
        ({"threads": -1}, "--threads"),
        ({"rate": -1.0}, "--rate"),
        ({"rate": float("nan")}, "--rate"),
    ],
)
def test_impossible_limits_are_named(wrong, option) -> None:
    with pytest.raises(ConfigError, match=option):
        Limits(**wrong)


def test_calls_beyond_the_rate_are_refused(home: Path) -> None:
    with (
        serving(home, limits=Limits(rate=0.001)) as found,
        calling(found.address) as stub,
    ):
        for _ in range(10):
            stub.Recommend(asking("i1"))
        for call, request in (
            (stub.Recommend, asking("i1")),
            (stub.Similar, pb.SimilarRequest(item="i1")),
            (stub.Feedback, telling("u0", "i11")),
            (stub.Describe, pb.DescribeRequest()),
        ):
            error = refusal(call, request)
            assert error.code() == CODE.RESOURCE_EXHAUSTED
            assert "calls a second" in error.details()
    assert read_feedback(home, None).height == 0


def test_a_long_message_is_refused_unread(home: Path) -> None:
    with (
        serving(home, limits=Limits(most_bytes=1000)) as found,
        calling(found.address) as stub,
    ):
        stub.Recommend(asking("i1"))
        error = refusal(stub.Recommend, asking(*["i1"] * 1000))
        assert error.code() == CODE.RESOURCE_EXHAUSTED


def test_calls_at_once_are_bounded(home: Path) -> None:
    limits = Limits(rate=0, concurrency=2, threads=1)
    with (
        serving(home, limits=limits) as found,
        calling(found.address) as stub,
        ThreadPoolExecutor(2) as pool,
    ):
        engine = slow(found)
        waiting = [pool.submit(stub.Recommend, asking("i1")) for _ in range(2)]
        assert engine.began.acquire(timeout=10)
        error = _until_refused(stub)
        assert error.code() == CODE.RESOURCE_EXHAUSTED
        engine.go_on.set()
        assert all(each.result(20).items for each in waiting)
        assert stub.Recommend(asking("i1")).items, "and then it answers again"


def _until_refused(stub: RecommenderStub) -> grpc.RpcError:
    """The second of two calls may be on its way still."""
    for _ in range(100):
        try:
            stub.Recommend(asking("i1"), timeout=0.2)
        except grpc.RpcError as error:
            if error.code() != CODE.DEADLINE_EXCEEDED:
                return error
    raise AssertionError("never refused")


# ------------------------------------------------------------------- deadlines
def test_no_work_is_done_for_a_call_past_its_deadline(home: Path) -> None:
    limits = Limits(rate=0, threads=1)
    with (
        serving(home, limits=limits) as found,
        calling(found.address) as stub,
        ThreadPoolExecutor(1) as pool,
    ):
        engine = slow(found)
        first = pool.submit(stub.Recommend, asking("i1"))
        assert engine.began.acquire(timeout=10)
        late = [
            (stub.Recommend, asking("i2")),
            (stub.Feedback, telling("u0", "i10")),
        ]
        for call, request in late:
            with pytest.raises(grpc.RpcError) as caught:
                call(request, timeout=0.1)
            assert caught.value.code() == CODE.DEADLINE_EXCEEDED
        engine.go_on.set()
        assert first.result(20).items
        stub.Describe(pb.DescribeRequest())  # behind them in the queue
        assert engine.calls == 1, "only the first call was worked on"
    assert read_feedback(home, None).height == 0, "and nothing was stored"


# ----------------------------------------------------------------------- drain
def test_ending_finishes_calls_at_work_and_takes_no_new_ones(tmp_path) -> None:
    home = served_folder(tmp_path / "0000")
    place = listening(home, LOOPBACK)
    with serving(home, place) as found, calling(found.address) as stub:
        engine = slow(found)
        with ThreadPoolExecutor(2) as pool:
            at_work = pool.submit(stub.Recommend, asking("i1"))
            assert engine.began.acquire(timeout=10)
            ending = pool.submit(found.stop, 20.0)
            deadline = time.monotonic() + 10
            # A call that meets the very moment of ending may be told otherwise.
            while _refused(found.address) is not CODE.UNAVAILABLE:
                assert time.monotonic() < deadline
            assert not ending.done(), "it waits for the call at work"
            engine.go_on.set()
            assert len(at_work.result(20).items) == 10
            ending.result(20)
    # The folder is free again: nothing holds its feedback.
    with serving(home) as again, calling(again.address) as stub:
        assert stub.Feedback(telling("u0", "i5")).stored == 1


def _refused(address: str) -> grpc.StatusCode | None:
    """The code that a new call ends with, if it is not answered."""
    with calling(address) as stub:
        try:
            stub.Describe(pb.DescribeRequest(), timeout=5)
        except grpc.RpcError as error:
            return error.code()
    return None


def test_grace_is_not_for_ever(home: Path) -> None:
    with serving(home) as found, calling(found.address) as stub:
        engine = slow(found)
        with ThreadPoolExecutor(1) as pool:
            at_work = pool.submit(stub.Recommend, asking("i1"))
            assert engine.began.acquire(timeout=10)
            timer = threading.Timer(3.0, engine.go_on.set)
            timer.start()
            begun = time.monotonic()
            found.server.stop(0.2).wait()
            assert time.monotonic() - begun < 2.5
            with pytest.raises(grpc.RpcError):
                at_work.result(20)
            engine.go_on.set()
            timer.cancel()


# ---------------------------------------------------------------- who is heard
@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:0", "192.0.2.1:50061", "[::]:0", "10.0.0.1:1", "127.0.0.1", "x:1"],
)
def test_other_addresses_need_tls_and_a_token(tmp_path, address, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        listening(tmp_path, address)
    monkeypatch.setenv("TOKEN", TOKEN)
    with pytest.raises(ConfigError, match="--listen"):
        listening(tmp_path, address, token="env:TOKEN")


def test_with_both_they_are_allowed(tmp_path: Path, monkeypatch) -> None:
    certificate, key = self_signed(tmp_path)
    monkeypatch.setenv("TOKEN", TOKEN)
    found = listening(tmp_path, "0.0.0.0:50061", certificate, key, "env:TOKEN")
    assert found.token == TOKEN and found.credentials and TOKEN not in repr(found)
    with pytest.raises(ConfigError, match="--token"):
        listening(tmp_path, "0.0.0.0:50061", certificate, key)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "127.8.8.8:1", "[::1]:50061", "unix:/tmp/x.sock", ""]
)
def test_this_machines_own_addresses_need_nothing(tmp_path, address) -> None:
    assert listening(tmp_path, address).credentials is None


@pytest.mark.parametrize("address", ["127.0.0.1:65536", "127.0.0.1:-1", "unix:", "a"])
def test_what_is_no_address_is_refused(tmp_path, address) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        listening(tmp_path, address)


def test_too_long_a_socket_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 to 107 bytes"):
        listening(tmp_path / ("x" * 100))


def test_tokens_and_keys_are_secret_and_of_some_length(tmp_path, monkeypatch) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        listening(tmp_path, token=f"file:{path}")
    path.chmod(0o600)
    assert listening(tmp_path, token=f"file:{path}").token == TOKEN
    monkeypatch.setenv("TOKEN", "short")
    for wrong in ("env:TOKEN", "env:NONE", "file:none", TOKEN):
        with pytest.raises(ConfigError, match="--token") as caught:
            listening(tmp_path, token=wrong)
        assert TOKEN not in str(caught.value)
    certificate, key = self_signed(tmp_path)
    key.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        listening(tmp_path, LOOPBACK, certificate, key)
    with pytest.raises(ConfigError, match="got one of them"):
        listening(tmp_path, LOOPBACK, certificate)
    with pytest.raises(ConfigError, match="PEM file"):
        listening(tmp_path, LOOPBACK, tmp_path / "none", key)


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    paths = folder / "server.crt", folder / "server.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    paths[1].chmod(0o600)
    return paths


def test_only_the_token_over_tls_is_heard(tmp_path: Path, monkeypatch) -> None:
    home = served_folder(tmp_path / "0000")
    certificate, key = self_signed(tmp_path)
    monkeypatch.setenv("TOKEN", TOKEN)
    place = listening(home, LOOPBACK, certificate, key, "env:TOKEN")
    trust = grpc.ssl_channel_credentials(certificate.read_bytes())
    with (
        serving(home, place) as found,
        grpc.secure_channel(found.address, trust) as channel,
        calling(found.address) as plain,
    ):
        stub = RecommenderStub(channel)
        health = health_pb2_grpc.HealthStub(channel)
        mirror = reflection_pb2_grpc.ServerReflectionStub(channel)
        right = [("authorization", f"Bearer {TOKEN}")]
        assert stub.Recommend(asking("i1"), metadata=right).items
        assert health.Check(health_pb2.HealthCheckRequest(), metadata=right).status == 1
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        assert list(mirror.ServerReflectionInfo(iter([asked]), metadata=right))
        wrong = [
            [],
            [("authorization", f"Bearer {TOKEN}x")],
            [("authorization", TOKEN)],
            [("authorization", "")],
            right * 2,
        ]
        for metadata in wrong:
            for call, request in (
                (stub.Recommend, asking("i1")),
                (stub.Feedback, telling("u0", "i5")),
                (health.Check, health_pb2.HealthCheckRequest()),
            ):
                error = refusal(call, request, metadata=metadata)
                assert error.code() == CODE.UNAUTHENTICATED
                assert TOKEN not in error.details()
            with pytest.raises(grpc.RpcError) as caught:
                list(mirror.ServerReflectionInfo(iter([asked]), metadata=metadata))
            assert caught.value.code() == CODE.UNAUTHENTICATED
        assert refusal(plain.Recommend, asking("i1")).code() == CODE.UNAVAILABLE
    assert read_feedback(home, None).height == 0


def test_a_taken_port_is_said(home: Path, tmp_path: Path) -> None:
    other = served_folder(tmp_path / "0001")
    with serving(home) as found:
        place = listening(other, found.address)
        with pytest.raises(ConfigError, match="that is free"), serving(other, place):
            pass
        with pytest.raises(ConfigError, match="another process"), serving(home):
            pass
    with serving(other):
        pass


def test_a_socket_that_answers_is_not_taken(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/shared.sock"
    first, second = (served_folder(tmp_path / name) for name in ("a", "b"))
    with serving(first, listening(first, address)) as found:
        with (
            pytest.raises(ConfigError, match="got one that answers"),
            serving(second, listening(second, address)),
        ):
            pass
        with calling(found.address) as stub:
            assert stub.Recommend(asking("i1")).items
    with serving(second, listening(second, address)):
        pass


def test_engines_are_named_or_chosen(monkeypatch) -> None:
    with pytest.raises(ConfigError, match="--engine"):
        choose_engine("jax")
    monkeypatch.setattr("client.serving.engine.find_spec", lambda name: None)
    assert choose_engine("auto") == "torch" == choose_engine("torch")
    with pytest.raises(ConfigError, match=r"onnxscript.*tutela\[export\]"):
        choose_engine("onnxruntime")
    monkeypatch.setattr("client.serving.engine.find_spec", lambda name: name)
    assert choose_engine("auto") == "onnxruntime"
