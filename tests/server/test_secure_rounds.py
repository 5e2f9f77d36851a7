"""A round's secure sum on the server, over scripted nodes that know the protocol."""

import gc
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, RecordDict

from client import secagg
from client.dp import Mechanism
from client.randomness import seeded_stream
from client.train import Streams, train
from common import wire
from common.config import defaults, parse, to_flat
from common.errors import RoundFailed
from common.integer_noise import contribution
from common.secure_round import num_parameters, secure_round, update_of, vector_of
from common.signature import check_signature
from common.soft_labels import encode
from common.student import StudentSpec, build, random_state, shapes
from server.messages import Postbox
from server.receipts import Receipts
from server.records import Recorder, RoundRecord
from server.run_journal import Journal, RunFacts
from server.secure_rounds import ANSWERS, MOST_DISCARDED, SecureRounds, distilled
from tests.server.conftest import RUN_ID, FakeGrid, failing, replying

SPEC = StudentSpec(6, 2, 1.0, 0.0)
DIM = num_parameters(shapes(SPEC).values())
START = random_state(SPEC, torch.Generator().manual_seed(0))
FLAT = defaults() | {
    "run.seed": 3,
    "run.poll-interval": 0.01,
    "run.round-timeout": 0.3,
    "privacy.mode": "distributed",
    "privacy.declared-users": 1,
    "privacy.noise-multiplier": 1.0,
    "privacy.max-grad-norm": 1.0,
    "secagg.clients": 6,
    "secagg.threshold": 0.6,
    "secagg.corrupt": 0.0,
    "secagg.parameters": 100,
    "distillation.weight": 0.0,
}


def config_of(**overrides):
    return parse(FLAT | overrides)


class Node:
    """A client without rows: it puts in this update, and a share of the noise."""

    def __init__(self, config, number: int, update: np.ndarray) -> None:
        self.config, self.number, self.update = config, number, update
        self.key, self.state = Ed25519PrivateKey.generate(), None
        self.vector = None

    def __call__(self, message):
        kind = message.metadata.message_type
        header = wire.unpack_header(message.content)
        found = secure_round(self.config, DIM, header.run, header.number)
        told = b""
        if wire.TOLD in message.content:
            told = wire.unpack_bytes(message.content, wire.TOLD)
        if kind == wire.ADVERTS:
            step = secagg.advertise(self.state, found.terms, self.key)
        elif kind == wire.SHARES:
            step = secagg.share(self.state, told, None)
        elif kind == wire.MASKED:
            assert wire.STUDENT in message.content
            stream = seeded_stream(self.number, str(header.number))
            self.vector = contribution(self.update, DIM, found.plan, found.seed, stream)
            ring = found.terms.ring
            step = secagg.mask(self.state, told, ring.encode(self.vector))
        else:
            step = secagg.reveal(self.state, told)
        self.state = step.state
        answer = {ANSWERS[kind]: wire.pack_bytes(step.reply)}
        return replying(answer)(message)


#: Flower's ids are that large.
BIG = 2**64 - 7


def nodes_of(config, count: int = 6) -> dict:
    draw = np.random.default_rng(1)
    return {n: Node(config, n, draw.normal(size=DIM)) for n in range(1, count + 1)}


def rounds_of(tmp_path: Path, grid: FakeGrid, config, journal=None) -> SecureRounds:
    recorder = Recorder(tmp_path / "out")
    journal = journal or Journal(
        tmp_path / "out", RunFacts(str(RUN_ID), to_flat(config)), resumed=False
    )
    postbox = Postbox(
        grid,
        journal,
        config,
        "0" * 64,
        bytes(range(32)),
        Receipts(tmp_path / "state"),
        recorder,
    )
    return SecureRounds(postbox, config, SPEC, recorder)


def lines_of(tmp_path: Path, event: str) -> list[dict]:
    text = (tmp_path / "out" / "metrics.jsonl").read_text()
    return [x for x in map(json.loads, text.splitlines()) if x["event"] == event]


def decoded(config, vectors, number: int = 1) -> dict:
    from common.fixed_point import decode

    found = secure_round(config, DIM, str(RUN_ID), number)
    total = decode(np.sum(vectors, axis=0), found.plan.grid, found.seed)
    return update_of(total / found.plan.expected, SPEC)


def check_equal(found, expected) -> None:
    assert found is not None
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_the_mean_is_the_plain_one_over_the_public_expectation(tmp_path) -> None:
    config = config_of()
    nodes, record = nodes_of(config), RoundRecord(1, 0.5)
    grid = FakeGrid(nodes)
    mean = rounds_of(tmp_path, grid, config).mean(START, None, list(nodes), record)
    check_equal(mean, decoded(config, [node.vector for node in nodes.values()]))
    assert (record.survivors, record.num_clients) == (6, 6)
    headers = grid.headers()
    for message, header in zip(grid.sent, headers, strict=True):
        kind = message.metadata.message_type
        check_signature(header, kind, message.content, to_flat(config))
    assert len({header.nonce for header in headers}) == 1, "seeded, by round"


def bytes_reply(data: bytes, name: str):
    return lambda message: replying({name: wire.pack_bytes(data)})(message)


def changed(change):
    """A node whose answers are changed on their way."""

    def made(node):
        def answer(message):
            content = node(message)
            kind = message.metadata.message_type
            data = wire.unpack_bytes(content, ANSWERS[kind])
            content[ANSWERS[kind]] = change(kind, data)
            return content

        return answer

    return made


def at(kind, change):
    return changed(
        lambda step, data: wire.pack_bytes(change(data) if step == kind else data)
    )


def replayed(kind):
    """It answers this step with what it answered in the round before."""
    kept = {}

    def change(step, data):
        old = kept.get(step, data)
        kept[step] = data
        return wire.pack_bytes(old if step == kind else data)

    return changed(change)


BAD = {
    "truncated advert": at(wire.ADVERTS, lambda data: data[:-1]),
    "other advert": at(wire.ADVERTS, lambda data: data[:40] + bytes(189)),
    "oversized shares": at(wire.SHARES, lambda data: data + bytes(1)),
    "no shares": at(wire.SHARES, lambda data: b""),
    "truncated vector": at(wire.MASKED, lambda data: data[:-8]),
    "oversized vector": at(wire.MASKED, lambda data: data + bytes(8)),
    "vector of another kind": at(wire.MASKED, lambda data: b"TSA1\x01" + data[5:]),
    "replayed advert": replayed(wire.ADVERTS),
    "replayed shares": replayed(wire.SHARES),
    "replayed vector": replayed(wire.MASKED),
    "refusing": lambda node: failing("refused"),
    "silent": lambda node: lambda message: None,
    "another round": lambda node: (
        lambda message: replying(
            {n: r for n, r in node(message).items() if n != wire.ROUND}, number=9
        )(message)
    ),
    "floats": changed(
        lambda kind, data: ArrayRecord({"bytes": Array(np.zeros(4, np.float32))})
    ),
    "no record": lambda node: replying({}),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_answer_costs_its_sender_alone(tmp_path, bad) -> None:
    config = config_of()
    nodes = nodes_of(config)
    grid = FakeGrid({**nodes, 6: BAD[bad](nodes[6])})
    rounds = rounds_of(tmp_path, grid, config)
    number = 1
    if bad.startswith("replayed"):
        rounds.mean(START, None, list(nodes), RoundRecord(1, 0.5))
        number = 2
    record = RoundRecord(number, 0.5)
    mean = rounds.mean(START, None, list(nodes), record)
    others = [nodes[n].vector for n in range(1, 6)]
    check_equal(mean, decoded(config, others, number))
    assert record.survivors == 5
    assert len(lines_of(tmp_path, "refusal")) == 1


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data[:60] + bytes(len(data) - 60)]
)
def test_a_bad_reveal_costs_nobodys_contribution(tmp_path, change) -> None:
    config = config_of()
    nodes = nodes_of(config)
    grid = FakeGrid({**nodes, 6: at(wire.REVEAL, change)(nodes[6])})
    mean = rounds_of(tmp_path, grid, config).mean(
        START, None, list(nodes), RoundRecord(1, 0.5)
    )
    check_equal(mean, decoded(config, [node.vector for node in nodes.values()]))


def test_a_message_of_one_node_never_counts_for_another(tmp_path) -> None:
    """A node that sends what another sent a moment ago adds nothing."""
    config = config_of()
    nodes, stolen = nodes_of(config), {}

    def first(message):
        content = nodes[1](message)
        stolen[message.metadata.message_type] = content
        return content

    def thief(message):
        return stolen[message.metadata.message_type]

    grid = FakeGrid({**nodes, 1: first, 6: thief})
    mean = rounds_of(tmp_path, grid, config).mean(
        START, None, list(nodes), RoundRecord(1, 0.5)
    )
    check_equal(mean, decoded(config, [nodes[n].vector for n in range(1, 6)]))


def test_a_discarded_round_says_why_and_the_next_counts_anew(tmp_path) -> None:
    config = config_of()
    nodes = nodes_of(config)
    gone = dict.fromkeys((4, 5, 6), failing("gone"))
    grid = FakeGrid({**nodes, **gone})
    rounds = rounds_of(tmp_path, grid, config)
    number = 0
    for _ in range(2):
        grid.behaviours = {**nodes, **gone}
        for _ in range(MOST_DISCARDED):
            number += 1
            record = RoundRecord(number, 0.5)
            assert rounds.mean(START, None, list(nodes), record) is None
            assert record.survivors == 0
        grid.behaviours, number = nodes, number + 1
        record = RoundRecord(number, 0.5)
        assert rounds.mean(START, None, list(nodes), record) is not None
    lines = lines_of(tmp_path, "discarded")
    assert [line["reason"] for line in lines] == [
        "Expected 4 members or more, got 3."
    ] * (2 * MOST_DISCARDED)
    grid.behaviours = {**nodes, **gone}
    with pytest.raises(RoundFailed, match="6th in a row"):
        for more in range(1, MOST_DISCARDED + 2):
            record = RoundRecord(number + more, 0.5)
            rounds.mean(START, None, list(nodes), record)


def test_who_is_asked_is_drawn_anew_each_round(tmp_path) -> None:
    config = config_of(**{"secagg.clients": 4, "secagg.threshold": 0.75})
    nodes = {n if n > 1 else BIG: each for n, each in nodes_of(config, 12).items()}
    grid = FakeGrid(nodes)
    rounds = rounds_of(tmp_path, grid, config)
    chosen = []
    for number in range(1, 7):
        rounds.mean(START, None, list(nodes), RoundRecord(number, 0.5))
        chosen.append(
            frozenset(
                message.metadata.dst_node_id
                for message in grid.sent
                if message.metadata.group_id == str(number)
            )
        )
    assert {len(each) for each in chosen} == {4}
    assert all(each <= nodes.keys() for each in chosen)
    assert any(BIG in each for each in chosen)
    assert len(set(chosen)) > 1


def test_a_round_that_an_earlier_process_began_is_discarded(tmp_path) -> None:
    config = config_of()
    nodes = nodes_of(config)
    facts = RunFacts(str(RUN_ID), to_flat(config))
    first = Journal(tmp_path / "out", facts, resumed=False)
    grid = FakeGrid(nodes)
    asked = rounds_of(tmp_path, grid, config, first)
    asked.mean(START, None, list(nodes), RoundRecord(1, 0.5))
    again = Journal(tmp_path / "out", first._facts, resumed=True)
    before = len(grid.sent)
    rounds = rounds_of(tmp_path, grid, config, again)
    assert rounds.mean(START, None, list(nodes), RoundRecord(1, 0.5)) is None
    assert len(grid.sent) == before, "nobody is asked again"
    (line,) = lines_of(tmp_path, "discarded")
    assert "interrupted" in line["reason"]


def labels_of():
    proxy = sp.csr_matrix(np.eye(3, 6, dtype=np.float32))
    return encode(np.random.default_rng(2).normal(size=(3, 6)), proxy, 4)


def test_the_servers_distillation_is_what_clients_would_have_added() -> None:
    """A client without rows and noise moves by distillation alone."""
    config = config_of(**{"distillation.weight": 2.0, "training.local-steps": 3})
    here = distilled(START, labels_of(), config, SPEC)
    streams = Streams(*(seeded_stream(1, each) for each in "abc"))
    there = train(
        build(SPEC, START),
        sp.csr_matrix((0, 6), dtype=np.float32),
        labels_of(),
        config,
        Mechanism(0.0, 1.0, 1.0, 1),
        streams,
    )
    check_equal(here, there)
    assert vector_of(here, SPEC).any()


def test_distillation_is_added_to_the_decoded_mean(tmp_path) -> None:
    config = config_of(**{"distillation.weight": 2.0})
    nodes = nodes_of(config)
    mean = rounds_of(tmp_path, FakeGrid(nodes), config).mean(
        START, labels_of(), list(nodes), RoundRecord(1, 0.5)
    )
    plain = decoded(config, [node.vector for node in nodes.values()])
    public = distilled(START, labels_of(), config, SPEC)
    check_equal(mean, {name: plain[name] + public[name] for name in plain})


def test_replies_are_taken_as_they_come_and_not_kept(tmp_path) -> None:
    """What is in memory at a time is one client's vector, not all of them."""
    config = config_of()
    nodes, alive, refs = nodes_of(config), [], []

    def watched(node):
        def answer(message):
            content: RecordDict = node(message)
            if message.metadata.message_type == wire.MASKED:
                if len(refs) == len(nodes) - 1:
                    gc.collect()
                    alive.extend(ref() for ref in refs if ref() is not None)
                refs.append(weakref.ref(content[wire.MASKED_VECTOR]))
            return content

        return answer

    class OneByOne(FakeGrid):
        """Makes a reply when it is pulled, like the engine in one process."""

        def push_messages(self, messages):
            answering, self._reply = self._reply, lambda message: message
            try:
                return super().push_messages(messages)
            finally:
                self._reply = answering

        def pull_messages(self, message_ids):
            return [self._reply(m) for m in super().pull_messages(message_ids)]

    grid = OneByOne({n: watched(node) for n, node in nodes.items()})
    rounds = rounds_of(tmp_path, grid, config)
    assert rounds.mean(START, None, list(nodes), RoundRecord(1, 0.5)) is not None
    assert len(refs) == len(nodes)
    assert len(alive) <= 1
