"""What soft labels know of users: worked by hand, and in a run that sends some."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from common import wire
from common.config import parse, to_flat
from common.soft_labels import SoftLabels, decode
from simulations.audits.knowledge import judges, label_judge, logit
from simulations.audits.one_run import recorded
from simulations.audits.transcript import exchanges

#: What stands in for a probability of 0.
LEAST = 1e-9


def rows_of(*histories: list[int], size: int = 8) -> sp.csr_matrix:
    found = sp.lil_matrix((len(histories), size), dtype=np.float32)
    for place, items in enumerate(histories):
        found[place, items] = 1.0
    return found.tocsr()


@pytest.fixture
def labels() -> SoftLabels:
    """Whoever likes 0 and 1 likes 2 three times as much as 3; else 6 as much as 7."""
    return SoftLabels(
        rows_of([0, 1], [4, 5]),
        np.int32([[2, 3], [6, 7]]),
        np.int8([[1, 0], [0, 0]]),
        np.float32([math.log(3.0), 1.0]),
        np.float32([0.0, 5.0]),
    )


def expected(*chances: float) -> float:
    """The logit of the geometric mean of a user's items' probabilities."""
    return float(logit(np.array([np.mean(np.log(np.array(chances) + LEAST))]))[0])


@pytest.mark.parametrize(
    ("history", "chances"),
    [
        ([0, 2], (0.0, 0.75)),
        ([1, 3], (0.0, 0.25)),
        ([0, 1, 2, 3], (0.0, 0.0, 0.75, 0.25)),
        ([4, 6], (0.0, 0.5)),
        # One item in common with either proxy user: half of each one's labels.
        ([0, 4, 2, 6], (0.0, 0.0, 0.375, 0.25)),
        ([2, 3], (0.0, 0.0)),
    ],
)
def test_labels_know_users_by_those_who_are_like_them(labels, history, chances):
    (found,) = label_judge(labels)(rows_of(history))
    assert found == pytest.approx(expected(*chances), rel=1e-4)


def test_likeness_counts_by_the_length_of_a_proxy_history(labels):
    """Shared with three of four items, and with one of one: 3/2 to 1."""
    proxy = rows_of([0, 1, 2, 3], [4])
    judge = label_judge(replace(labels, proxy=proxy))
    (found,) = judge(rows_of([0, 1, 2, 4]))
    # Item 2 is a label of the first alone: weight 0.6 of it, at 3 to 1.
    assert found == pytest.approx(expected(0.0, 0.0, 0.6 * 0.75, 0.0), rel=1e-4)


def test_nobody_and_no_items_are_no_error(labels):
    judge = label_judge(labels)
    assert judge(rows_of()).shape == (0,)
    assert np.isfinite(judge(rows_of([]))).all()


def test_a_run_whose_labels_learn_from_clients_is_judged_by_them(rounds, tmp_path):
    """The very labels of the last question, and what a plain loop makes of them."""
    config = parse(to_flat(rounds.config) | {"refresh.every": 1})
    world = replace(rounds, config=config)
    users = world.clients[0].histories[:12]
    with recorded(world, world.clients, 3) as messages:
        found = judges(world, messages, tmp_path)
        asked = [each for each in exchanges(messages) if each.kind == wire.TRAIN]
    labels, first = asked[-1].soft_labels, asked[0].soft_labels
    values = found["another-client", "soft labels"](users)
    assert not np.array_equal(decode(labels).numpy(), decode(first).numpy())
    np.testing.assert_allclose(values, [_plainly(labels, u) for u in users], rtol=1e-4)
    assert values.std() > 0
    # Labels of public data alone tell nothing of clients: nobody attacks them.
    with recorded(rounds, rounds.clients, 3) as messages:
        assert ("another-client", "soft labels") not in judges(
            rounds, messages, tmp_path
        )


def _plainly(labels: SoftLabels, user: sp.csr_matrix) -> float:
    """The same, one proxy user at a time."""
    own, likeness, chance = set(user.indices.tolist()), [], []
    for place, scores in enumerate(decode(labels).numpy().astype(np.float64)):
        history = set(labels.proxy[place].indices.tolist())
        likeness.append(len(own & history) / math.sqrt(max(len(history), 1)))
        each = np.exp(scores - scores.max())
        given = dict(zip(labels.item[place].tolist(), each / each.sum(), strict=True))
        chance.append([given.get(item, 0.0) for item in sorted(own)])
    share = np.array(likeness) / max(sum(likeness), 1e-12)
    return expected(*(share @ np.array(chance)))
