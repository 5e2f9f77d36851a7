"""Seeds from few bits are found by what the server saw; whole ones are not."""

import random

import numpy as np
import pytest

from common.secagg import keys
from common.secagg.frames import HEAD
from common.secagg.messages import Reveal
from simulations.audits.short_seeds import STRETCHES, guessed_seeds, repeated_seeds
from tests.secagg_parts import masked_play, terms_of


def seen(count=3):
    """What the server of a round received: adverts, and seeds that were revealed."""
    made, sent = masked_play(count, terms_of())
    adverts = [made.server._arrived[node] for node in range(count)]
    made.reveal(range(count), sent)
    seeds = [
        Reveal.from_bytes(made.replies[node], made.replies[node][5:HEAD], count).seed
        for node in range(count)
    ]
    return made, adverts, seeds


def test_whole_seeds_are_not_found():
    made, adverts, seeds = seen()
    assert guessed_seeds(adverts, made.terms.digest, bits=8, key_bits=3) == []
    assert repeated_seeds(seeds) == 0


@pytest.mark.parametrize("stretch", STRETCHES)
def test_seeds_from_few_bits_are_found_however_they_were_stretched(
    monkeypatch, stretch
):
    draw = random.Random(1)
    monkeypatch.setattr(
        keys, "draw_seed", lambda: STRETCHES[stretch](draw.randrange(8))
    )
    made, adverts, seeds = seen()
    found = guessed_seeds(adverts, made.terms.digest, bits=4, key_bits=3)
    for of in ("self mask", "pair masks"):
        by = [each.identity for each in found if each.seed_of == of]
        assert set(by) == {advert.identity for advert in adverts}
    assert stretch in {each.stretch for each in found}
    assert len(seeds) == 3


def test_one_clients_short_seed_is_that_clients(monkeypatch):
    real, turns = keys.draw_seed, iter(range(100))
    monkeypatch.setattr(
        keys, "draw_seed", lambda: bytes(16) if next(turns) == 3 else real()
    )
    made, adverts, _ = seen()
    found = guessed_seeds(adverts, made.terms.digest, bits=2, key_bits=1)
    assert {each.identity for each in found} == {adverts[1].identity}
    assert {each.seed_of for each in found} == {"self mask"}


def test_repeated_seeds_are_counted():
    draw = np.random.default_rng(0)
    short = [int(each).to_bytes(16) for each in draw.integers(0, 1 << 10, 200)]
    assert repeated_seeds(short) > 0
    assert repeated_seeds([b"a", b"b", b"a", b"a"]) == 2
