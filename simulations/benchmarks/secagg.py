"""What secure aggregation costs: a client's masking, the server's unmasking, bytes.

Simulations only: it plays both sides in one process. Every figure is processor time of
this process, and what it is held against is measured between its own repetitions, so
that other work on the machine touches both alike. Vectors and drop-outs are made up:
what is added, and to what, costs the same whatever the numbers are.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from rich.table import Table

from client.secagg import Step, advertise, confirm, mask, reveal, share
from client.secagg_state import ClientState
from common.secagg.bounds import choose_shape
from common.secagg.ring import UintArray
from common.secagg.terms import Policy, Terms
from server.secagg import SecureSum

TITLE = "Secure aggregation: time of masking and unmasking, bytes of a client"
#: Elements have so many bits; one in so many clients drops out after sharing.
BITS, ONE_IN = 20, 10
#: Clients whose masking is timed, and different vectors that the plain sum runs over.
TIMED, VECTORS = 10, 10
#: The aims: times of the key streams alone, of the plain sum and streams, of the
#: packed vector.
MASKING, UNMASKING, BYTES = 3.0, 5.0, 1.15


@dataclass(frozen=True)
class Size:
    """A cohort to measure; ``degree`` 0: as the policy chooses."""

    clients: int
    length: int
    degree: int
    active: bool

    @property
    def terms(self) -> Terms:
        """A twentieth of the clients may be corrupt, a tenth silent."""
        policy = Policy(
            active=self.active,
            corrupt=0.05,
            dropped=1 / ONE_IN,
            degree=self.degree,
        )
        least = self.clients * 8 // 10
        return Terms("benchmark", 0, self.length, BITS, least, policy)


SIZES = (Size(100, 1_000_000, 20, True), Size(1000, 100_000, 0, False))
QUICK = (Size(100, 50_000, 20, True),)


def measure(data: Path, *, quick: bool) -> dict[str, Any]:
    """A round of each size.

    Args:
        data: not read: everything is made up.
    """
    rows = [_measure(size) for size in (QUICK if quick else SIZES)]
    aims = {"masking": MASKING, "unmasking": UNMASKING, "bytes": BYTES}
    met = all(rows[0][name] <= aim for name, aim in aims.items())
    return {
        "bits": BITS,
        "drop_outs": 1 / ONE_IN,
        "aims": aims,
        "rows": rows,
        "met": met and all(row["exact"] for row in rows),
    }


def tables(found: dict[str, Any]) -> list[Table]:
    """A row a size: times, ratios and bytes."""
    aims = found["aims"]
    table = Table(
        *("clients × length", "neighbours", "client ms", "server s", "ratios", "GB"),
        title=f"{found['bits']} bits an element, {found['drop_outs']:.0%} drop out; "
        "processor time",
        caption="Ratios: masking to its key streams alone, unmasking to the plain sum "
        "and its key streams, bytes up to the packed vector. Aims in the first row: "
        f"{aims['masking']:g}, {aims['unmasking']:g}, {aims['bytes']:g}: "
        f"{'met' if found['met'] else 'missed'}.",
    )
    for row in found["rows"]:
        table.add_row(
            f"{row['clients']:,} × {row['length']:,}",
            f"{row['degree']}, {row['threshold']} open",
            f"{row['share_ms']:.1f} + {row['mask_ms']:.1f}",
            f"{row['unmask_s']:.2f}",
            f"{row['masking']:.2f}, {row['unmasking']:.2f}, {row['bytes']:.3f}",
            f"{row['peak_gb']:.2f}",
        )
    return [table]


class Round:
    """Both sides of one round, step by step; what each client sent is counted."""

    def __init__(self, size: Size) -> None:
        self.terms = size.terms
        self.identities = [Ed25519PrivateKey.generate() for _ in range(size.clients)]
        self.roster = frozenset(
            each.public_key().public_bytes_raw() for each in self.identities
        )
        self.server = SecureSum(self.terms, self.roster)
        self.states: dict[int, ClientState] = {}
        self.sent = [0] * size.clients

    def advertise(self) -> None:
        """Every client's keys."""
        for node, identity in enumerate(self.identities):
            step = advertise(None, self.terms, identity)
            self.server.add_advert(node, self._take(node, step))

    def share(self) -> list[float]:
        """Every client's shares; the processor seconds of each."""
        taken = []
        for node, message in self.server.to_share().items():
            start = time.process_time()
            step = share(self.states[node], message, self.roster)
            taken.append(time.process_time() - start)
            self.server.add_shares(node, self._take(node, step))
        return taken

    def drop_outs(self) -> set[int]:
        """Nodes evenly round the circle: what a random tenth is like on average."""
        self._graph = self.states[0].graph
        self._member = {
            node: state.whereabouts().member for node, state in self.states.items()
        }
        gone = set(self._graph.circle[::ONE_IN])
        return {node for node, member in self._member.items() if member in gone}

    def members(self, nodes: list[int]) -> set[int]:
        """Their numbers in the cohort."""
        return {self._member[node] for node in nodes}

    def neighbours(self, alive: list[int]) -> list[tuple[int, ...]]:
        """Those of each client that is not alive."""
        gone = self._member.keys() - alive
        return [self._graph.neighbours(self._member[node]) for node in gone]

    def mask(self, vectors: list[UintArray], alive: list[int]) -> None:
        """Mask the vectors of those that are alive."""
        messages = self.server.to_mask()
        self.timed = [(self.states[node], messages[node]) for node in alive[:TIMED]]
        for node in alive:
            vector = vectors[node % len(vectors)]
            step = mask(self.states[node], messages[node], vector)
            self.server.add_masked(node, self._take(node, step))

    def reveal(self) -> None:
        """Confirmations and shares of the rest."""
        for node, message in self.server.to_confirm().items():
            step = confirm(self.states[node], message, self.identities[node])
            self.server.add_confirmation(node, self._take(node, step))
        for node, message in self.server.to_reveal().items():
            step = reveal(self.states[node], message)
            self.server.add_reveal(node, self._take(node, step))

    def _take(self, node: int, step: Step) -> bytes:
        self.states[node] = step.state
        self.sent[node] += len(step.reply)
        return step.reply


def _measure(size: Size) -> dict[str, Any]:
    played, shape = Round(size), choose_shape(size.terms.policy, size.clients)
    vectors = _vectors(size)
    played.advertise()
    sharing = played.share()
    gone = played.drop_outs()
    alive = [node for node in range(size.clients) if node not in gone]
    played.mask(vectors, alive)
    played.reveal()
    packed = size.terms.ring.packed_size(size.length)
    return {
        "clients": size.clients,
        "length": size.length,
        "degree": shape.degree,
        "threshold": shape.threshold,
        **_masking(played.timed, vectors[0], shape.degree + 1, sharing),
        **_unmasking(played, vectors, alive),
        "bytes": max(played.sent[node] for node in alive) / packed,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _vectors(size: Size) -> list[UintArray]:
    draw, ring = np.random.default_rng(0), size.terms.ring
    return [
        ring.encode(draw.integers(0, 1 << BITS, size.length)) for _ in range(VECTORS)
    ]


def _masking(
    clients: list[tuple[ClientState, bytes]],
    vector: UintArray,
    streams: int,
    sharing: list[float],
) -> dict[str, float]:
    """Opening shares, masks and packing, against as many bytes of key stream alone.

    And with all that comes before: keys, adverts checked, shares split and sealed.
    """
    both = [
        (
            _seconds(lambda: _draw(vector, streams)),
            _seconds(partial(mask, *each, vector)),
        )
        for each in clients
    ]
    alone, masked = (statistics.median(each) for each in zip(*both, strict=True))
    shared = statistics.median(sharing)
    return {
        "share_ms": 1e3 * shared,
        "mask_ms": 1e3 * masked,
        "masking": masked / alone,
        "masking_and_sharing": (masked + shared) / alone,
    }


def _unmasking(
    played: Round, vectors: list[UintArray], alive: list[int]
) -> dict[str, float | bool]:
    """The whole of the result, against what cannot be saved of it."""
    survivors = played.members(alive)
    streams = len(alive) + sum(
        len(survivors & set(near)) for near in played.neighbours(alive)
    )
    plain = played.terms.ring.zeros(played.terms.length)
    before = _seconds(lambda: _sum(plain, vectors, alive)) + _seconds(
        lambda: _draw(plain, streams)
    )
    start = time.process_time()
    found = played.server.result()
    taken = time.process_time() - start
    exact = np.array_equal(found.values, played.terms.ring.reduce(plain))
    return {
        "unmask_s": taken,
        "unmasking": taken / before,
        "streams": streams,
        "exact": exact,
    }


def _sum(total: UintArray, vectors: list[UintArray], alive: list[int]) -> None:
    for node in alive:
        total += vectors[node % len(vectors)]


def _draw(like: UintArray, streams: int) -> None:
    """So many key streams, each as long as the vector, and nothing done with them."""
    zeros = bytes(like.nbytes)
    drawn = bytearray(like.nbytes)
    for _ in range(streams):
        cipher = Cipher(ChaCha20(os.urandom(32), bytes(16)), mode=None)
        cipher.encryptor().update_into(zeros, drawn)


def _seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
