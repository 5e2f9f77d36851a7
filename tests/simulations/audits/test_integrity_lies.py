"""Lies: where they aim, and that the server lets every one of them pass."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from common import wire
from common.config import defaults, parse
from common.errors import ProtocolError
from common.plan import statistics_noise
from common.statistics import (
    Pairs,
    pack_directions,
    pack_items,
    pack_pairs,
    pack_sketch,
)
from common.student import StudentSpec, random_state, shapes
from server.bounds import bounds_of
from simulations.audits.integrity.lies import (
    LIES,
    Question,
    allowed,
    as_rows,
    row_lengths,
)
from tests.simulations.audits.conftest import SMALL, SUMS

ITEMS, CHOSEN = 8, np.array([True] * 6 + [False, True])
CONFIG = parse(defaults() | SMALL | SUMS)
POPULARITY = np.linspace(0.8, 0.1, ITEMS)
TARGETS = np.array([5, 6])
SPEC = StudentSpec(ITEMS, 3, 1.0, 0.5)
STUDENT = random_state(SPEC, torch.Generator().manual_seed(0))
DIRECTIONS = np.random.default_rng(0).normal(size=(7, 2)).astype(np.float32)


def honest(kind: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    noise = statistics_noise(CONFIG)
    if kind == wire.STATISTICS:
        drawn = {"counts": rng.normal(size=7), "pairs": rng.normal(size=21)}
        return {k: np.float32(v * noise.pairs) for k, v in drawn.items()}
    if kind == wire.SKETCH:
        return {"sketch": np.float32(rng.normal(size=(7, 2)) * noise.sketch)}
    return {k: np.float32(rng.normal(size=s)) for k, s in shapes(SPEC).items()}


def question(kind: str, **changes) -> Question:
    content = RecordDict({wire.ITEMS: pack_items(CHOSEN)})
    content[wire.DIRECTIONS] = pack_directions(DIRECTIONS)
    content[wire.STUDENT] = wire.pack_state(STUDENT)
    made = Question(
        kind,
        content,
        honest(kind),
        CONFIG,
        20,
        TARGETS,
        POPULARITY,
        np.random.default_rng(2),
    )
    return replace(made, **changes)


KINDS = (wire.STATISTICS, wire.SKETCH, wire.TRAIN)
every = pytest.mark.parametrize("name", list(LIES))
each_kind = pytest.mark.parametrize("kind", KINDS)


def passed(kind: str, answer) -> None:
    """What the server does with an answer."""
    bounds = bounds_of(CONFIG)
    if kind == wire.STATISTICS:
        packed = pack_pairs(Pairs(answer["counts"], answer["pairs"]))
        bounds.pairs_of(RecordDict({wire.PAIRS: packed}), 7)
    elif kind == wire.SKETCH:
        packed = pack_sketch(answer["sketch"])
        bounds.sketch_of(RecordDict({wire.SKETCH_SUM: packed}), 7, 2)
    else:
        state = {name: torch.from_numpy(each) for name, each in answer.items()}
        content = RecordDict({wire.UPDATE: wire.pack_state(state)})
        wire.unpack_state(content, wire.UPDATE, shapes(SPEC))


@every
@each_kind
def test_the_server_lets_every_lie_pass(name, kind):
    asked = question(kind)
    answer = LIES[name](asked)
    assert answer.keys() == asked.honest.keys()
    for key, array in answer.items():
        assert array.dtype == np.float32
        assert array.shape == asked.honest[key].shape
    passed(kind, answer)


@pytest.mark.parametrize("kind", KINDS[:2])
def test_what_is_scaled_goes_as_far_as_the_server_allows(kind):
    """One and a half times as much is refused."""
    answer = LIES["scaled"](question(kind))
    with pytest.raises(ProtocolError, match="larger ones"):
        passed(kind, {name: 1.5 * each for name, each in answer.items()})


def test_a_push_speaks_of_its_targets_alone():
    """Of the seven chosen items, place 5 is a target; item 6 was not asked about."""
    answer = LIES["push"](question(wire.STATISTICS))
    assert np.flatnonzero(answer["counts"]).tolist() == [5]
    first, second = np.triu_indices(7, 1)
    assert ((first == 5) | (second == 5))[answer["pairs"] != 0].all()
    with_first = answer["pairs"][(first == 0) & (second == 5)]
    with_last = answer["pairs"][(first == 4) & (second == 5)]
    assert with_first > with_last > 0, "the more popular, the more together"
    sketch = LIES["push"](question(wire.SKETCH))["sketch"]
    assert np.flatnonzero(np.abs(sketch).sum(axis=1)).tolist() == [5]
    others = POPULARITY[CHOSEN] * (np.arange(7) != 5)
    expected = others @ DIRECTIONS
    cosine = sketch[5] @ expected
    cosine /= np.linalg.norm(sketch[5]) * np.linalg.norm(expected)
    assert cosine == pytest.approx(1.0)


def test_a_pushed_update_raises_targets_for_whoever_likes_what_is_popular():
    answer = LIES["push"](question(wire.TRAIN))
    assert not answer["encoder.weight"].any()
    assert np.flatnonzero(answer["decoder.bias"]).tolist() == [5, 6]
    taste = POPULARITY @ STUDENT["encoder.weight"].numpy().T
    assert (answer["decoder.weight"][TARGETS] @ taste > 0).all()


@each_kind
def test_a_nuke_is_a_push_turned_round(kind):
    for pushed, nuked in (("push", "nuke"), ("push-scaled", "nuke-scaled")):
        up, down = LIES[pushed](question(kind)), LIES[nuked](question(kind))
        for name in up:
            sign = 1 if name == "counts" else -1
            np.testing.assert_array_equal(up[name], sign * down[name])


def test_sizes_of_a_pushed_update():
    """As long as the honest one; twenty times that; no row longer than its longest."""
    asked = question(wire.TRAIN)
    for name in ("decoder.weight", "decoder.bias"):
        length = np.linalg.norm(asked.honest[name])
        pushed, scaled, quiet = (
            LIES[lie](asked)[name] for lie in ("push", "push-scaled", "push-quiet")
        )
        assert np.linalg.norm(pushed) == pytest.approx(length)
        assert np.linalg.norm(scaled) == pytest.approx(20 * length)
        longest = row_lengths(name, asked.honest[name]).max()
        assert row_lengths(name, quiet).max() == pytest.approx(longest)


def test_rows_of_pairs_are_those_of_the_symmetric_matrix():
    upper = np.float32([3, 0, 4])  # pairs 01, 02, 12
    np.testing.assert_allclose(row_lengths("pairs", upper), [3, 5, 4])
    aim = np.array([0.0, 10.0, 0.0])
    asked = question(wire.STATISTICS, honest={"pairs": upper})
    np.testing.assert_allclose(as_rows(asked, "pairs", aim), [0.0, 5.0, 0.0])


def test_what_is_allowed_follows_from_public_numbers():
    largest, longest = allowed(CONFIG, "sketch", 100)
    noise = statistics_noise(CONFIG).sketch
    assert largest == pytest.approx(0.999 * (45 + 10 * noise))
    assert longest == pytest.approx(0.999 * (45 + 20 * noise))


def test_lies_that_are_drawn_repeat_with_their_seed():
    first, second = (LIES["random"](question(wire.TRAIN)) for _ in range(2))
    other = question(wire.TRAIN, rng=np.random.default_rng(3))
    for name, each in LIES["random"](other).items():
        np.testing.assert_array_equal(first[name], second[name])
        assert not np.allclose(first[name], each)
