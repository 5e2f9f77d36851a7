"""The metrics' channel: what a canary adds to three noised sums, against the noise."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from client.evaluate import HELD, metric_sums, user_values
from client.randomness import seeded_stream
from client.train import split
from common import wire
from common.config import parse, to_flat
from common.student import build
from simulations.audits.scores import CHANNELS, Targets, metric_values
from simulations.audits.transcript import Exchange

NOISE = 1e-4
EVERY = {"client-metrics.every": 2, "client-metrics.noise-multiplier": NOISE}
CHANNEL = CHANNELS[wire.EVALUATE]


@pytest.fixture
def world(rounds):
    config = parse(to_flat(rounds.config) | EVERY)
    return replace(rounds, config=config)


def answered(world, rows, noise=NOISE, draws=1):
    """A round's question and the client's answer, as the client itself makes it."""
    student = build(world.spec, world.final).eval()
    masking, own = seeded_stream(draws, "masking"), seeded_stream(draws, "noise")
    sums = metric_sums(student, rows, noise, masking, own)
    sent = {f"{wire.STUDENT}/{n}": v.numpy() for n, v in world.final.items()}
    return Exchange(wire.EVALUATE, 2, sent, {"0000": {f"{wire.METRICS}/sums": sums}})


def looked_for(world, row, known):
    nobody = sp.csr_matrix(row.shape, dtype=np.float32)
    return Targets(np.zeros(row.shape[0], dtype=np.int64), row, nobody, (known,))


def score(world, exchange, row, known):
    (found,) = CHANNEL(world, exchange, "0000", looked_for(world, row, known))
    return found


def test_alone_at_a_client_a_canary_is_seen_if_and_only_if_it_is_there(world):
    nobody = sp.csr_matrix((0, world.num_items), dtype=np.float32)
    for place in range(8):
        row = world.clients[0].histories[place]
        inside = answered(world, row, draws=place)
        outside = answered(world, nobody, draws=place)
        there = inside.answers["0000"][f"{wire.METRICS}/sums"][-1]
        # Where none of its items were held it adds nothing, and nobody can see it.
        if there > 0.5:
            assert score(world, inside, row, nobody) > 0
        assert score(world, outside, row, nobody) < 0


def test_it_is_the_likelihoods_exponent(world):
    """With and without: apart by what it added times what it adds, over variance."""
    known, row = world.clients[0].histories[:20], world.clients[1].histories[0]
    both = sp.vstack([known, row], format="csr")
    with_it, without = answered(world, both), answered(world, known)
    apart = score(world, with_it, row, known) - score(world, without, row, known)
    name = f"{wire.METRICS}/sums"
    added = with_it.answers["0000"][name] - without.answers["0000"][name]
    expected = metric_values(build(world.spec, world.final), row)[0]
    variance = (NOISE * wire.METRIC_NORM) ** 2
    assert apart == pytest.approx(float(expected @ added) / variance, rel=1e-3)
    assert apart > 0


def test_the_louder_the_noise_the_less_it_says(world):
    known, row = world.clients[0].histories[:20], world.clients[1].histories[0]
    exchange = answered(world, known)
    flat = to_flat(world.config) | {"client-metrics.noise-multiplier": 10 * NOISE}
    louder = replace(world, config=parse(flat))
    quiet, loud = (score(w, exchange, row, known) for w in (world, louder))
    assert loud == pytest.approx(quiet / 100)


def test_nobody_adds_more_than_the_norm_that_noise_is_made_for(world):
    values = metric_values(build(world.spec, world.final), world.clients[0].histories)
    norms = np.linalg.norm(values, axis=1)
    assert 0 < norms.max() <= wire.METRIC_NORM
    assert ((values >= 0) & (values <= 1)).all()


def test_what_an_attacker_expects_is_what_clients_add(world):
    """Over many draws of a client's, the mean of what its users add."""
    rows = world.clients[0].histories
    student = build(world.spec, world.final).eval()
    drawn = [
        user_values(student, *split(rows, HELD, seeded_stream(draw, "client")))
        for draw in range(40)
    ]
    expected = metric_values(student, rows).mean(axis=0)
    np.testing.assert_allclose(expected, np.mean(drawn, axis=(0, 1)), atol=0.06)


def test_who_has_no_items_adds_nothing(world):
    nothing = sp.csr_matrix((1, world.num_items), dtype=np.float32)
    assert metric_values(build(world.spec, world.final), nothing).tolist() == [
        [0.0] * 3
    ]


def test_without_noise_there_is_a_scale_still(unprotected):
    flat = to_flat(unprotected.config) | EVERY
    world = replace(unprotected, config=parse(flat))
    known, row = world.clients[0].histories[:20], world.clients[1].histories[0]
    found = score(world, answered(world, known, noise=0.0), row, known)
    assert np.isfinite(found) and abs(found) < 100
