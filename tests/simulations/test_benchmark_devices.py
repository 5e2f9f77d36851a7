"""The benchmark of one-user devices, on generated data."""

from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from client.randomness import seeded_stream
from common.config import parse
from common.integer_noise import sum_plan
from simulations.benchmarks import devices
from simulations.benchmarks.devices import (
    BY_TARGET,
    DEVICES,
    LOCAL,
    TARGETS,
    central_case,
    device_case,
    measure,
    open_world,
    tables,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> dict:
    found = devices._base(tmp_path_factory.mktemp("no data"), quick=True)
    return found | {"privacy.target-epsilon": 8.0}


@pytest.fixture(scope="module")
def world(base: dict):
    return open_world(parse(base), [8, 16])


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    return measure(tmp_path_factory.mktemp("no data"), quick=True)


@pytest.mark.slow
def test_every_case_has_its_figure_and_keeps_to_its_target(found: dict) -> None:
    rows = {row["case"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == 5
    for name, row in rows.items():
        assert all(0 < low <= value <= high for value, low, high in _values(row))
        if name.startswith("public"):
            assert row["epsilon"] is None
        else:
            assert 7.9 < row["epsilon"] <= 8.0
    (row,) = found["targets"].values()
    assert row["lost_to_central"] == row["central"] - row["distributed"]
    assert row["gained_on_local"] == row["distributed"] - row["local"] > 0.05
    assert found["aim_met"] == (row["lost_to_central"] <= found["aim"])
    assert "300 of 340 clients finish a round" in found["promise"]


def _values(row: dict) -> list:
    return [row[metric] for metric in devices.METRICS]


@pytest.mark.slow
def test_the_tables_show_every_figure(found: dict) -> None:
    page = StringIO()
    for table in tables(found):
        Console(file=page, width=240).print(table)
    for row in found["rows"]:
        assert f"{row['ndcg@100'][0]:.4f}" in page.getvalue()
    assert f"{found['targets']['8']['gained_on_local']:+.4f}" in page.getvalue()


@pytest.mark.parametrize("target", TARGETS)
def test_every_setting_is_of_a_valid_run(base: dict, world, target: float) -> None:
    more = {**BY_TARGET[target], "student.dim": 8, "privacy.target-epsilon": target}
    case = device_case(world, base | DEVICES | more)
    assert case.config.privacy.mode == "distributed"
    assert case.config.secagg.clients == world.num_devices == 340


@pytest.mark.slow
def test_ten_clients_add_ten_noises_and_one_hand_one(base: dict, world) -> None:
    total = np.zeros(5_000)
    spread = {}
    for clients in (1, LOCAL):
        case = central_case(world, base, clients)
        privacy = case.config.privacy
        unit = privacy.sample_rate * world.num_devices
        mean = case.release(total, 0, 1)
        expected = case.noise * privacy.max_grad_norm * clients**0.5 / unit
        assert mean.std() == pytest.approx(expected, rel=0.05)
        spread[clients] = mean.std()
    assert spread[LOCAL] > 3 * spread[1]


def test_silent_devices_take_their_updates_and_their_noise_with_them(
    base: dict, world
) -> None:
    case = device_case(world, base | DEVICES)
    heard = devices._sample(world, case, seeded_stream(1, "who"))
    assert heard.sum() == 340 - 34
    plan = sum_plan(case.config, case.noise, case.config.secagg.parameters)
    mean = case.release(np.zeros(case.config.secagg.parameters), 0, 1)
    expected = (plan.share * 306) ** 0.5 / plan.grid.scale / plan.expected
    assert mean.std() == pytest.approx(expected, rel=0.05)
    honest = case.config.secagg.honest
    assert plan.share * honest >= (case.noise * plan.grid.l2) ** 2
    # More finish than the noise was planned for.
    assert honest < 306
