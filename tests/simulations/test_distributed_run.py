"""Whole runs of mode distributed: what is decoded, who drops out, what it costs."""

import numpy as np
import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

import client.train
from client.__main__ import app as verbs
from common.errors import RoundFailed
from common.integer_noise import sum_event
from common.plan import noise_multiplier
from common.secagg.masks import Masker
from common.secure_round import secure_round, update_of
from common.student import spec_of
from server.secure_rounds import MOST_DISCARDED
from tests.simulations.secure_world import (
    CLIENTS,
    World,
    config_of,
    copied,
    dealt,
)

RUN = "77"


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return dealt(config_of(), tmp_path_factory.mktemp("federation"))


@pytest.fixture
def world(federation, tmp_path):
    def of(**overrides) -> World:
        silent = overrides.pop("silent", None)
        made = World(config_of(**overrides), copied(federation, tmp_path / "world"))
        made.silent = silent or made.silent
        return made

    return of


@pytest.fixture
def cheap(monkeypatch):
    """Training that costs nothing: an update of the client's rows alone."""

    def train(student, histories, labels, config, mechanism, streams):
        assert labels is None, "soft labels stay on the server"
        assert mechanism.noise_multiplier == 0, "noise is added to the sum alone"
        draw = torch.Generator().manual_seed(int(histories.indices.sum()))
        return {
            name: torch.randn(value.shape, generator=draw) * 0.1
            for name, value in student.state_dict().items()
        }

    monkeypatch.setattr(client.train, "train", train)


def absent(**by_step):
    """Clients that are silent at a step of the first round."""
    return lambda node, kind, number: (
        number == 1 and node in by_step.get(kind.partition(".")[2], ())
    )


def plain_sum(made: World, number: int) -> np.ndarray:
    """The survivors' own vectors, added in the open."""
    found = made.sums[number]
    vectors = [made.vectors[number, f"{node - 100:04d}"] for node in found.survivors]
    ring = secure_round(made.config, len(vectors[0]), RUN, number).terms.ring
    return ring.encode(np.sum(vectors, axis=0))


def test_the_server_learns_the_plain_sum_and_the_student_moves_by_it(world) -> None:
    """With real training: what is decoded is what the survivors put in."""
    made = world(**{"run.keep-every": 1}).run()
    assert [len(made.sums[n].survivors) for n in (1, 2)] == [CLIENTS, CLIENTS]
    for number in (1, 2):
        np.testing.assert_array_equal(made.sums[number].values, plain_sum(made, number))
    before, after = made.student("student_transferred"), made.student("student")
    assert any(not np.array_equal(before[name], after[name]) for name in after)
    (first, second) = made.lines("sum")
    assert first["steps"] == {
        step: [CLIENTS, CLIENTS] for step in ("adverts", "shares", "masked", "reveal")
    }
    assert (first["least"], second["wrong_shares"]) == (9, 0)
    assert made.lines("discarded") == made.lines("refusal") == []
    rounds = made.lines("round")
    assert [line["survivors"] for line in rounds] == [CLIENTS, CLIENTS]
    assert {"adverts", "masked", "unmask"} <= rounds[0]["seconds"].keys()
    assert rounds[0]["bytes_up_per_client"] > first["bits"] * 270 / 8


def test_masks_change_nothing_in_what_is_decoded(
    world, cheap, monkeypatch, tmp_path
) -> None:
    made = world(**{"training.rounds": 1}).run()
    with monkeypatch.context() as patch:
        patch.setattr(Masker, "add", lambda self, key, subtract=False: None)
        root = copied(made.root, tmp_path / "bare")
        for folder in (root / "clients").iterdir():
            for path in [*folder.glob("ledger*"), *folder.glob("reply*")]:
                path.unlink()
        bare = World(made.config, root)
        bare.run()
    np.testing.assert_array_equal(made.sums[1].values, bare.sums[1].values)
    for name, values in made.student().items():
        np.testing.assert_array_equal(values, bare.student()[name])


def test_an_update_is_what_the_decoded_mean_says(world, cheap) -> None:
    """FedAvg of rate 1 moves the student by decoded sum over the expected sample."""
    from common.fixed_point import decode

    settings = {
        "training.rounds": 1,
        "aggregation.name": "fedavg",
        "aggregation.learning-rate": 1.0,
        "aggregation.average-from": 0.0,
    }
    made = world(**settings).run()
    spec = spec_of(made.config.student, 30)
    found = secure_round(made.config, 270, RUN, 1)
    signed = found.terms.ring.decode(made.sums[1].values)
    mean = decode(signed, found.plan.grid, found.seed) / (0.5 * CLIENTS)
    before, after = made.student("student_transferred"), made.student()
    for name, change in update_of(mean, spec).items():
        np.testing.assert_array_equal(after[name], before[name] + change.numpy())


def test_a_client_that_falls_silent_at_any_step_costs_itself_alone(
    world, cheap
) -> None:
    made = world(
        **{
            "training.rounds": 1,
            "silent": absent(adverts={0}, shares={1}, masked={2}, reveal={3}),
        }
    ).run()
    assert sorted(made.sums[1].survivors) == list(range(103, 112))
    np.testing.assert_array_equal(made.sums[1].values, plain_sum(made, 1))
    (line,) = made.lines("sum")
    assert line["steps"] == {
        "adverts": [12, 11],
        "shares": [11, 10],
        "masked": [10, 9],
        "reveal": [9, 8],
    }
    charged = {name for name, charges in made.charges().items() if charges}
    assert charged == {f"{n:04d}" for n in range(3, 12)}


@pytest.mark.parametrize(
    ("step", "gone", "charged"),
    [("adverts", 4, 0), ("shares", 4, 0), ("masked", 4, 8), ("reveal", 7, 12)],
)
def test_with_too_few_the_round_is_discarded_and_the_next_goes_on(
    world, cheap, step, gone, charged
) -> None:
    silent = absent(**{step: set(range(gone))})
    made = world(**{"run.keep-every": 1, "silent": silent}).run()
    (line,) = made.lines("discarded")
    assert (line["round"], line["steps"][step]) == (1, [12, 12 - gone])
    assert line["reason"].startswith("Expected ")
    before = made.student("student_transferred")
    first = made.student("rounds/00001")
    for name, values in before.items():
        np.testing.assert_array_equal(values, first[name])
    rounds = [[c.number for c in charges] for charges in made.charges().values()]
    assert sum(1 in each for each in rounds) == charged
    assert all(2 in each for each in rounds)
    assert list(made.sums) == [2]
    assert [x["survivors"] for x in made.lines("round")] == [0, CLIENTS]


def test_a_run_stops_when_nothing_but_discarded_rounds_come(world, cheap) -> None:
    made = world(
        **{
            "training.rounds": 9,
            "silent": lambda node, kind, number: kind == "train.shares",
        }
    )
    with pytest.raises(RoundFailed, match="in a row"):
        made.run()
    lines = made.lines("discarded")
    assert [line["round"] for line in lines] == list(range(1, MOST_DISCARDED + 2))
    assert all(not charges for charges in made.charges().values())


def test_no_round_begins_with_fewer_than_the_noise_is_planned_for(world) -> None:
    made = world(**{"secagg.clients": 40, "run.start-timeout": 0.05})
    with pytest.raises(RoundFailed, match="at least 30 connected"):
        made.run()
    assert made.asked == []


def test_no_more_take_part_than_the_sum_is_planned_for(world, cheap) -> None:
    made = world(**{"secagg.clients": 10, "secagg.threshold": 0.8}).run()
    asked = [
        {m.metadata.dst_node_id for m in made.asked if m.metadata.group_id == number}
        for number in ("1",)
    ]
    # All are sent the student at the end, which belongs to the last round.
    assert len(asked[0]) == 10
    assert [line["num_clients"] for line in made.lines("round")] == [10, 10]


class Stopped(Exception):
    """The server's process ends here."""


@pytest.mark.parametrize("step", ["train.shares", "train.masked", "train.reveal"])
def test_an_interrupted_round_counts_as_discarded_after_a_resume(
    world, cheap, step
) -> None:
    """What clients kept of it is gone, or answered; they charge it once."""
    made = world(**{"training.rounds": 3, "run.keep-every": 1})

    def stops(node: int, kind: str, number: int) -> bool:
        if number == 2 and kind == step and node == 5:
            raise Stopped
        return False

    made.silent = stops
    with pytest.raises(Stopped):
        made.run()
    made.silent = lambda node, kind, number: False
    made.run(run_id=78, **{"run.resume": True})
    (line,) = made.lines("discarded")
    assert (line["round"], "interrupted" in line["reason"]) == (2, True)
    assert sorted(made.sums) == [1, 3]
    for name, values in made.student("rounds/00001").items():
        np.testing.assert_array_equal(values, made.student("rounds/00002")[name])
    for charges in made.charges().values():
        numbers = [charge.number for charge in charges]
        assert numbers in ([1, 3], [1, 2, 3])
        assert {charge.run for charge in charges} == {RUN}
    assert [x["round"] for x in made.lines("round")] == [1, 2, 3]


def test_the_ledger_holds_the_planned_events_and_says_the_whole_promise(
    world, cheap
) -> None:
    made = world().run()
    event = sum_event(made.config, noise_multiplier(made.config))
    for charges in made.charges().values():
        assert [(c.number, c.purpose, c.event) for c in charges] == [
            (1, "train", event),
            (2, "train", event),
        ]
    done = CliRunner().invoke(verbs, ["ledger", "show", str(made.folders[0])])
    assert done.exit_code == 0, done.output
    shown = " ".join(done.output.split())
    assert "mode distributed: of its updates only sums are seen" in shown
    assert "Rényi divergences of the integer mechanism" in shown
    with safe_open(made.folders[0] / "student.safetensors", "numpy") as file:
        promised = file.metadata()["promise"]
    for part in (
        "Skellam",
        "differentially private per user",
        "provided that 9 of 12 clients finish a round",
        "at most 2 of those are in league with it",
        "honest-but-curious server",
        "secret coin of its own with probability 0.5",
    ):
        assert part in promised, part


def test_soft_labels_stay_on_the_server_and_move_the_student_all_the_same(
    world, cheap
) -> None:
    settings = {"training.rounds": 1, "distillation.top-k": 10}
    plain = world(**settings).run()
    plain.root.rename(plain.root.with_name("plain"))
    plain.root = plain.root.with_name("plain")
    taught = world(**settings | {"distillation.weight": 5.0}).run()
    assert all("soft_labels" not in message.content for message in taught.asked)
    np.testing.assert_array_equal(plain.sums[1].values, taught.sums[1].values)
    assert "distil" in taught.lines("round")[0]["seconds"]
    assert not all(
        np.array_equal(values, taught.student()[name])
        for name, values in plain.student().items()
    )
