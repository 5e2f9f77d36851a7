"""Figures: deterministic, self-contained, labelled, and absent without data."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from simulations.plots import (
    PLOTS,
    all_plots,
    plot_gains,
    plot_interpolation,
    plot_models,
    plot_rounds,
    plot_traffic,
)
from simulations.results import RoundRecord, write_results

EVERY = [draw for draw, _ in PLOTS.values()]


def texts(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in ElementTree.fromstring(svg).iter("text")]


def test_all_plots_in_order(detailed_results):
    plots = all_plots(detailed_results)

    assert [plot.name for plot in plots] == [
        "models",
        "rounds",
        "traffic",
        "interpolation",
        "personal",
    ]
    assert all(plot.caption.endswith(".") for plot in plots)


@pytest.mark.parametrize("draw", EVERY)
def test_same_results_same_bytes(detailed_results, draw):
    assert draw(detailed_results) == draw(detailed_results)


def test_bytes_do_not_depend_on_the_process_or_the_users_style(
    example_results, tmp_path
):
    write_results(example_results, tmp_path / "r.json")
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nfont.size: 30\n")
    code = (
        "import sys, pathlib; from simulations.results import read_results\n"
        "from simulations.plots import plot_rounds\n"
        "r = read_results(pathlib.Path(sys.argv[1]) / 'r.json')\n"
        "sys.stdout.buffer.write(plot_rounds(r).encode())"
    )
    environment = os.environ | {
        "MATPLOTLIBRC": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    elsewhere = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment,
        capture_output=True,
        check=True,
    )

    assert elsewhere.stdout.decode() == plot_rounds(example_results)


@pytest.mark.parametrize("draw", EVERY)
def test_nothing_is_fetched_and_every_reference_is_inside(detailed_results, draw):
    svg = draw(detailed_results)
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    references = re.findall(r'href="#([^"]+)"', svg) + re.findall(r"url\(#([^)]+)", svg)

    assert "http" not in svg
    assert not re.search(r"<(script|style|image|metadata|!DOCTYPE|\?xml)", svg)
    assert len(re.findall("href=", svg)) == len(re.findall('href="#', svg))
    assert references
    assert set(references) <= ids


def test_ids_of_different_figures_differ(detailed_results):
    page = "".join(plot.svg for plot in all_plots(detailed_results))
    ids = re.findall(r'\bid="([^"]+)"', page)

    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("draw", EVERY)
def test_figure_is_an_image_with_a_title(detailed_results, draw):
    root = ElementTree.fromstring(draw(detailed_results))

    assert root.get("role") == "img"
    title = root[0]
    assert title.tag == "title"
    assert title.get("id") == root.get("aria-labelledby")
    assert "NDCG@10" in title.text


@pytest.mark.parametrize(
    ("draw", "labels"),
    [
        (plot_models, ["NDCG@10 (mean over held-out users)", "Teacher, public"]),
        (plot_rounds, ["round", "ε spent", "NDCG@10", "held out"]),
        (plot_traffic, ["traffic of one client, both ways (MB)", "NDCG@10"]),
        (
            plot_interpolation,
            ["weight of the trained student (0: transferred, 1: trained)", "chosen"],
        ),
        (plot_gains, ["gain in NDCG@100 of one user", "share of users per 0.05"]),
    ],
)
def test_axes_are_labelled_in_text(detailed_results, draw, labels):
    assert set(labels) <= set(texts(draw(detailed_results)))


def test_stamps_are_in_the_figure(example_results, unprotected_results):
    assert texts(plot_models(example_results)).count("NOT PRIVATE") == 2
    assert texts(plot_models(unprotected_results)).count("NOT PRIVATE") == 4
    assert "NOT PRIVATE" in texts(plot_rounds(unprotected_results))
    assert "NOT PRIVATE" not in texts(plot_rounds(example_results))


def test_title_says_the_total_traffic(example_results):
    assert "140.8 MB a client in all" in plot_traffic(example_results)


def test_figures_without_data_are_left_out(example_results):
    bare = example_results.model_copy(
        update={"models": {}, "rounds": (), "interpolation_curve": ()}
    )

    assert all_plots(bare) == []


def test_personal_gains_are_drawn_where_they_were_measured(detailed_results):
    why = {"suppressed": "Gains of personal parameters are suppressed.", "counts": ()}
    hidden = detailed_results.personal.model_copy(update=why)

    assert "by +0.0123 [+0.0071, +0.0176]" in plot_gains(detailed_results)
    for personal in (None, hidden):
        bare = detailed_results.model_copy(update={"personal": personal})
        assert plot_gains(bare) == ""


def test_statistics_alone_have_no_figure_of_rounds_or_of_weights(statistics_results):
    assert [plot.name for plot in all_plots(statistics_results)] == ["models"]


def test_rounds_without_measurements_are_no_figure(example_results):
    rounds = tuple(
        each.model_copy(update={"validation": None, "heldout": None})
        for each in example_results.rounds
    )

    assert plot_rounds(example_results.model_copy(update={"rounds": rounds})) == ""


def test_a_single_round_and_gaps_can_be_drawn(example_results):
    first, second = example_results.rounds[:2]
    gap: RoundRecord = second.model_copy(update={"validation": None})

    for rounds in ((first,), (first, gap)):
        results = example_results.model_copy(update={"rounds": rounds})
        assert plot_rounds(results).endswith("</svg>\n")


def test_hostile_metric_is_text(example_results):
    name = "<script>$x^2$"
    interval = example_results.models["teacher"]["mrr"]
    results = example_results.model_copy(
        update={"primary_metric": name, "models": {"teacher": {name: interval}}}
    )

    assert "<script" not in plot_models(results)
    assert f"{name} (mean over held-out users)" in texts(plot_models(results))


def test_matplotlib_is_loaded_only_to_draw():
    code = "import sys, simulations.plots; sys.exit('matplotlib' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
