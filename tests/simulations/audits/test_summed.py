"""The server's seat in mode distributed: one decoded sum a round, and whose it is."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from client.randomness import seeded_stream
from common import wire
from common.config import parse, to_flat
from common.fixed_point import decode
from common.integer_noise import contribution, rotation_seed
from common.secure_round import update_of, vector_of
from server.kept_answers import ANSWERS, SUM, SURVIVORS, KeptAnswers, read_receipts
from simulations.audits.canaries import DESIGNS, insert, most_canaries
from simulations.audits.one_run import audit_canaries, recorded, viewpoints_of
from simulations.audits.promised import Allowed
from simulations.audits.scores import Targets
from simulations.audits.settings import AuditSettings
from simulations.audits.shadows import shadow
from simulations.audits.summed import gradient_clip, sum_plan_of, summed_scores
from simulations.audits.transcript import exchanges, students
from simulations.engine import FIRST_CLIENT_NODE

SEED = rotation_seed("run", 1)
#: Less than any client would answer with.
LITTLE = {"privacy.noise-multiplier": 0.05}


def varied(world, **overrides):
    """Who is in is certain, all items are targets, and noise is small."""
    more = {
        "privacy.sample-rate": 1.0,
        "privacy.noise-multiplier": 0.3,
        "training.target-fraction": 1 - 1e-9,
    }
    flat = to_flat(world.config) | more | overrides
    return replace(world, config=parse(flat))


def rows_of(world, items):
    """One user of one item each; none where there is no item."""
    found = sp.lil_matrix((len(items), world.num_items), dtype=np.float32)
    for user, item in enumerate(items):
        if item is not None:
            found[user, item] = 1.0
    return found.tocsr()


def update_by_hand(world, item, users=1):
    """A user of one item touches the bias alone: softmax less the item."""
    bias = world.start["decoder.bias"].double().numpy()
    gradient = np.exp(bias - bias.max())
    gradient /= gradient.sum()
    gradient[item] -= 1.0
    state = {name: torch.zeros_like(value) for name, value in world.start.items()}
    step = world.config.training.learning_rate / world.config.privacy.declared_users
    update = -step * users * gradient
    clip = world.config.privacy.max_grad_norm
    update *= min(1.0, clip / np.linalg.norm(update))
    state["decoder.bias"] = torch.from_numpy(update)
    return vector_of(state, world.spec)


def keep_sum(world, folder, updates, survivors):
    """A round's sum of these updates, as a server keeps it; the decoded sum."""
    plan = sum_plan_of(world)
    dim = sum(value.numel() for value in world.start.values())
    total = sum(
        contribution(
            updates.get(place), dim, plan, SEED, seeded_stream(3, "noise", str(place))
        )
        for place in survivors
    )
    summed = decode(total, plan.grid, SEED)
    mean = update_of(summed / plan.expected, world.spec)
    nodes = [FIRST_CLIENT_NODE + place for place in survivors]
    KeptAnswers(folder).summed(1, world.start, mean, nodes)
    return summed


def nobody(world, count):
    return sp.csr_matrix((count, world.num_items), dtype=np.float32)


def test_a_statistic_is_the_likelihood_ratio_of_the_decoded_sum(devices, tmp_path):
    world = varied(devices, **LITTLE)
    items, included = [1, 4, 7, 9, 12, 20], [1, 0, 1, 1, 0, 0]
    known = {6: 2, 7: 25}
    updates = {
        place: update_by_hand(world, item)
        for place, item in enumerate(items)
        if included[place]
    } | {place: update_by_hand(world, item) for place, item in known.items()}
    # Client 8 has two users where one is declared, and so adds noise alone.
    survivors = [*range(5), *range(6, 12)]
    summed = keep_sum(world, tmp_path, updates, survivors)
    there = tuple(
        rows_of(world, [known[place]])
        if place in known
        else rows_of(world, [3, 5] if place == 8 else [])
        for place in range(12)
    )
    targets = Targets(np.arange(6), rows_of(world, items), nobody(world, 6), there)
    found = summed_scores(world, tmp_path / ANSWERS, targets)

    plan = sum_plan_of(world)
    variance = plan.share * len(survivors) / plan.grid.scale**2
    beyond = summed - sum(update_by_hand(world, item) for item in known.values())
    beyond -= sum(update_by_hand(world, item) / 2 for item in items[:5])
    expected = [update_by_hand(world, i) @ beyond / variance for i in items[:5]]
    np.testing.assert_allclose(found[:5], expected, rtol=1e-3, atol=1e-3)
    assert (found[:5] > 0).tolist() == [bool(each) for each in included[:5]]
    # Who is not in the sum is told by nothing.
    assert found[5] == 0
    # In a round, half of the squared distance in deviations lies either way of 0.
    apart = world.config.privacy.max_grad_norm**2 / variance
    assert np.abs(found[:5]).mean() == pytest.approx(apart / 2, rel=0.5)


def test_the_update_of_a_client_of_several_users_is_clipped_as_a_whole(
    devices, tmp_path
):
    several = {"privacy.declared-users": 3, "training.learning-rate": 0.9}
    world = varied(devices, **several, **LITTLE)
    # A third of 0.9 is long enough for the clip with two users, and with one.
    assert gradient_clip(world.config) == pytest.approx(0.1 / 0.3)
    both = update_by_hand(world, 5, users=2)
    assert np.linalg.norm(both) == pytest.approx(0.1)
    summed = keep_sum(world, tmp_path, {1: both}, list(range(12)))
    there = tuple(rows_of(world, [5, 5] if place == 1 else []) for place in range(12))
    target = Targets(np.array([0]), rows_of(world, [7]), nobody(world, 1), there)
    (found,) = summed_scores(world, tmp_path / ANSWERS, target)
    own = update_by_hand(world, 7)
    plan = sum_plan_of(world)
    variance = plan.share * 12 / plan.grid.scale**2
    assert found == pytest.approx(own @ (summed - both - own / 2) / variance, rel=1e-3)


def test_a_discarded_round_says_nothing(devices, tmp_path):
    world = varied(devices)
    keep_sum(world, tmp_path, {}, list(range(12)))
    # A sum is no client's answer, and was paid for by no one receipt.
    assert read_receipts(tmp_path / ANSWERS) == {}
    (sum_file,) = (tmp_path / ANSWERS).glob("* sum.safetensors")
    sum_file.unlink()
    targets = Targets(
        np.array([0]), rows_of(world, [7]), nobody(world, 1), (nobody(world, 0),) * 12
    )
    assert summed_scores(world, tmp_path / ANSWERS, targets).tolist() == [0.0]


def test_a_run_made_again_leaves_sums_and_nothing_of_a_client(devices):
    with recorded(devices, devices.clients, 4) as messages:
        names = sorted(path.name for path in messages.iterdir())
        said = [each for each in exchanges(messages) if each.kind == wire.TRAIN]
        assert len(students(messages)) == 3
    assert names == [
        "000001 2 train sent.safetensors",
        "000001 2 train sum.safetensors",
        "000002 2 train sent.safetensors",
        "000002 2 train sum.safetensors",
        *(f"000002 4 query.student {n:04d}.safetensors" for n in range(12)),
        "000002 4 query.student sent.safetensors",
    ]
    for each in said:
        assert set(each.answers) == {SUM}
        nodes = each.answers[SUM][SURVIVORS]
        assert nodes.tolist() == [FIRST_CLIENT_NODE + n for n in range(12)]
    # The second student is the first one and the mean: the server's rate is public.
    assert {n: v.shape for n, v in said[0].update(SUM).items()} == {
        n: v.shape for n, v in devices.start.items()
    }


@pytest.mark.parametrize("design", ["random", "rare-item", "dirac"])
def test_a_canary_is_all_that_its_client_has(devices, design):
    rng = np.random.default_rng(0)
    count = most_canaries(devices, 1000)
    canaries = DESIGNS[design](devices, count, rng)
    included = np.arange(12) % 2 == 0
    clients, known = insert(devices, canaries, included)
    assert count == len(canaries) == 12
    assert canaries.unit == "user"
    assert [len(each.users) for each in clients] == included.astype(int).tolist()
    assert all(rows.shape[0] == 0 for rows in known)
    # Clients without a canary keep whom they have.
    few, stay = insert(devices, canaries.first(3), included[:3])
    assert [len(each.users) for each in few] == [1, 0, 1, *[1] * 9]
    assert [rows.shape[0] for rows in stay] == [0] * 3 + [1] * 9


def test_all_dirac_canaries_meet_in_one_sum_and_share_no_item(devices):
    found = DESIGNS["dirac"](devices, 12, np.random.default_rng(0))
    size = found.present[0].nnz
    assert size <= 2
    assert np.asarray(found.present.sum(axis=0)).max() == 1
    several = replace(devices, config=parse(_flat(devices, 4)))
    assert DESIGNS["dirac"](several, 12, np.random.default_rng(0)).unit == "client"


def _flat(world, declared):
    return to_flat(world.config) | {"privacy.declared-users": declared}


@pytest.mark.slow
def test_canaries_of_a_loud_run_are_told_from_its_sums(devices, tmp_path):
    world = varied(devices)
    settings = AuditSettings(designs=("dirac",), num_canaries=50, seed=3)
    found = audit_canaries(world, settings, tmp_path, lambda text: None)
    assert [each.viewpoint for each in found] == [
        "server-distributed",
        "public",
        "another-client",
    ]
    assert set(viewpoints_of(world)) == {each.viewpoint for each in found}
    server = found[0]
    assert (server.num_canaries, server.unit) == (12, "user")
    assert server.auc > 0.9
    claimed = Allowed(world.events).epsilon(world.config.privacy.delta)
    assert server.epsilon_claimed == claimed
    assert math.isfinite(claimed)
    assert not server.exceeds
    lines = (tmp_path / "canaries-dirac.jsonl").read_text().splitlines()
    assert len(lines) == 12


def test_shadow_runs_are_attacked_by_their_sums(devices_run):
    found = shadow(devices_run, np.arange(12) < 6, 2)
    assert set(found.users) == {
        ("server-distributed", "sums"),
        ("public", "final student"),
        ("another-client", "students"),
    }
    assert np.ptp(found.users["server-distributed", "sums"]) > 0
