"""The report: one file, everything said, nothing fetched, nothing injected."""

import doctest
import html
import re

import pytest

import simulations.report
from simulations.personal_record import PersonalGains
from simulations.report import (
    client_metrics,
    format_bytes,
    format_seconds,
    render_report,
    write_report,
)
from simulations.results import Results, Verdict
from tests.simulations.browser_parts import Page

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'"


def page_of(results: Results) -> Page:
    return Page(render_report(results))


def test_doctests():
    assert doctest.testmod(simulations.report).failed == 0


def test_nothing_comes_from_elsewhere(example_results):
    source = render_report(example_results)
    page = Page(source)
    links = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key in {"src", "href", "xlink:href", "srcset", "action", "data"}
    ]

    assert links
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", source)
    assert {"script", "link", "iframe", "object"}.isdisjoint(t for t, _ in page.tags)


def test_content_security_policy_denies_by_default(example_results):
    policies = [
        attributes["content"]
        for tag, attributes in page_of(example_results).tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]

    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "script" not in policies[0]


def test_order_of_the_page(example_results):
    text = page_of(example_results).text
    parts = [
        example_results.verdict.text,
        example_results.promise.sentence,
        "What is not promised:",
        "How well the models rank",
        "What training gained round by round",
        "All 40 rounds",
        "Peak memory",
        "tutela simulate movies.toml --out runs/movies",
        "privacy.target-epsilon",
        "2.13.0",
    ]

    positions = [text.index(part) for part in parts]
    assert positions == sorted(positions)


def test_every_number_of_every_model_is_there(example_results):
    text = page_of(example_results).text

    for metrics in example_results.models.values():
        for found in metrics.values():
            assert f"{found.value:.3f}{found.low:.3f}–{found.high:.3f}" in text


def test_stamps_in_the_table(example_results):
    source = render_report(example_results)

    assert source.count('<span class="stamp">NOT PRIVATE</span>') == 2
    assert "Student, no noise<span" in source
    assert "Student, federated<span" not in source


def test_what_is_not_promised(example_results, unprotected_results):
    assert "protect nobody" in page_of(example_results).text
    assert (
        "held-out users, where shown, are computed without noise"
        in page_of(example_results).text
    )
    assert "neither clipped nor noised" in page_of(unprotected_results).text


def test_unprotected_run_has_a_banner(example_results, unprotected_results):
    banner = '<p class="banner unsafe">NOT PRIVATE</p>'

    assert banner in render_report(unprotected_results)
    assert banner not in render_report(example_results)


def test_interrupted_run_has_a_banner(example_results):
    stopped = example_results.model_copy(update={"status": "interrupted"})

    assert "Interrupted: this run stopped after 40 rounds" in page_of(stopped).text
    assert "Interrupted" not in page_of(example_results).text


def test_costs(example_results):
    text = page_of(example_results).text

    assert "Received by a client 70.9 MB Sent by a client 70.0 MB" in re.sub(
        r"(?<=[a-z])(?=\d)|(?<=MB)(?=S)", " ", text
    )
    assert "train 16 s, aggregate 0.80 s, evaluate 7.20 s." in text


def test_randomness_is_said(example_results):
    assert "Seed 7:" in page_of(example_results).text
    unseeded = example_results.model_copy(update={"seed": None})
    assert "Randomness came from the operating system" in page_of(unseeded).text


def test_hostile_texts_stay_texts(example_results):
    hostile = Results.model_validate(
        example_results.model_dump()
        | {
            "name": HOSTILE,
            "engine": HOSTILE,
            "command": HOSTILE,
            "config": {HOSTILE: HOSTILE},
            "suppressed": HOSTILE,
            "versions": {HOSTILE: HOSTILE},
            "transfer": HOSTILE,
            "personal": PersonalGains(suppressed=HOSTILE),
            "primary_metric": HOSTILE,
            "models": {"teacher": {HOSTILE: {"value": 0.1, "low": 0.1, "high": 0.1}}},
            "verdict": Verdict(
                beats_transferred=None, beats_popularity=None, text=HOSTILE
            ),
            "promise": example_results.promise.model_copy(update={"sentence": HOSTILE}),
        }
    )
    page = page_of(hostile)

    assert {"script", "img"}.isdisjoint(tag for tag, _ in page.tags)
    assert not any(key.startswith("on") for _, each in page.tags for key in each)
    assert page.text.count(HOSTILE) >= 12


SUPPRESSED = "Figures over held-out users are suppressed: fewer than 10 users."


def test_suppression_is_said_where_the_figures_would_stand(example_results):
    bare = {"models": {}, "verdict": None, "suppressed": SUPPRESSED}
    text = page_of(example_results.model_copy(update=bare)).text

    assert SUPPRESSED in text
    assert "How well the models rank" not in text
    assert "This run reached no verdict." in text
    assert "suppressed" not in page_of(example_results).text


def measured(results: Results) -> Results:
    """Metrics on clients' users in every tenth round."""
    found = {"ndcg@10": 0.1234, "recall@20": -0.0567}
    found |= {"users": 612.5, "noise_deviation": 0.0089}
    rounds = tuple(
        each.model_copy(update={"client_metrics": None if each.round % 10 else found})
        for each in results.rounds
    )
    return results.model_copy(update={"rounds": rounds})


def test_metrics_of_clients_stand_in_their_rounds(example_results):
    source = render_report(measured(example_results))

    for name in ("ndcg@10", "recall@20", "users", "noise_deviation"):
        assert f'<th scope="col">{name}</th>' in source
    for value in ("0.1234", "-0.0567", "612.5000", "0.0089"):
        assert source.count(f"<td>{value}</td>") == 4
    assert source.count("<td>–</td>") - render_report(example_results).count(
        "<td>–</td>"
    ) == (36 * 4)
    assert "the last column is the deviation of that noise" in Page(source).text


def test_without_metrics_of_clients_there_is_no_column_for_them(example_results):
    source = render_report(example_results)

    assert "noise_deviation" not in source
    assert "noised sums that the promise covers" not in source


def test_names_of_client_metrics_come_in_the_order_first_met(example_results):
    names = ["ndcg@10", "recall@20", "users", "noise_deviation"]
    assert client_metrics(measured(example_results).rounds) == names
    assert client_metrics(example_results.rounds) == []
    assert client_metrics(()) == []


def test_groups_are_shown_with_every_figure(detailed_results):
    source = render_report(detailed_results)
    text = Page(source).text

    for attribute in detailed_results.groups:
        for group in attribute.groups:
            assert f'<th scope="row">{group.group}</th><td>{group.num_users}</td>' in (
                source
            )
            for found in group.models.values():
                assert f"{found.value:.3f}{found.low:.3f}–{found.high:.3f}" in text
        for gap in attribute.gaps.values():
            assert f"{gap.value:.3f}{gap.best} over {gap.worst}p = 0.031" in text
    assert "NDCG@10 by group, with 95 % intervals" in text
    assert "<td>+0.037<small>+0.029 to +0.045</small></td>" in source
    assert "<td>-0.004<small>-0.012 to +0.003</small></td>" in source


def test_models_are_stamped_in_the_tables_of_groups_too(detailed_results):
    source = render_report(detailed_results)
    groups = source[source.index('id="groups"') : source.index('id="personal"')]

    assert groups.count('<span class="stamp">NOT PRIVATE</span>') == 2 * 5
    assert "PureSVD, all rows<span" in groups
    assert "Teacher, refined<span" not in groups


def test_groups_too_small_are_named(detailed_results):
    text = page_of(detailed_results).text

    assert "Suppressed by age, too few users: 50 and over, unknown." in text
    assert "Suppressed by gender" not in text


def test_personal_gains_are_said_and_drawn(detailed_results):
    source = render_report(detailed_results)

    assert "on the device, never released" in Page(source).text
    assert html.unescape(detailed_results.personal.sentence) in Page(source).text
    assert source.count('<figure id="figure-personal">') == 1


def test_suppressed_personal_gains_are_said_and_not_drawn(detailed_results):
    why = "Gains of personal parameters are suppressed: fewer than 10 users."
    personal = PersonalGains(suppressed=why)
    source = render_report(detailed_results.model_copy(update={"personal": personal}))

    assert f"<p>{why}</p>" in source
    assert "figure-personal" not in source


def test_transfer_is_said_even_where_figures_are_suppressed(detailed_results):
    bare = {"models": {}, "groups": (), "personal": None, "suppressed": SUPPRESSED}
    text = page_of(detailed_results.model_copy(update=bare)).text

    assert f"Before any client took part: {detailed_results.transfer}" in text


def test_parts_that_were_not_measured_have_no_heading(example_results):
    text = page_of(example_results).text

    for heading in ("Who pays", "Personal parameters", "What the teacher brought"):
        assert heading not in text
    assert "Teacher’s gain" not in text


def test_what_the_teacher_learnt_stands_in_its_rounds(detailed_results):
    source = render_report(detailed_results)

    assert source.count('<th scope="col">Teacher’s gain</th>') == 1
    assert source.count("<td>+0.0123</td>") == 4
    assert "from learning of the released student" in source


def test_a_run_of_statistics_alone_is_a_page(statistics_results):
    source = render_report(statistics_results)
    text = Page(source).text

    assert "no training rounds, engine" in text
    assert "<p>No training rounds: the statistics alone.</p>" in source
    assert source.count("<figure") == 1
    assert "Received by a client301 kB" in text
    assert "Sent by a client23.6 MB" in text
    assert "Items and pairs of items (answered by 3 of 4 clients) 13.7 kB" in text
    assert "287 kB received, 273 kB sent." in text
    assert "is not in these figures" not in text
    for wrong in ("0 rounds", "0 bytes", "No round was finished"):
        assert wrong not in text.replace("40 rounds", "")


def test_an_interrupted_run_of_statistics_alone_counts_no_rounds(statistics_results):
    stopped = statistics_results.model_copy(update={"status": "interrupted"})

    assert "this run stopped before it was complete" in page_of(stopped).text


def test_empty_interrupted_run_is_a_page(example_results):
    bare = example_results.model_copy(
        update={
            "status": "interrupted",
            "models": {},
            "verdict": None,
            "rounds": (),
            "interpolation_curve": (),
            "interpolation_weight": None,
            "command": "",
        }
    )
    text = page_of(bare).text

    assert "This run reached no verdict." in text
    assert "No round was finished." in text
    assert html.unescape(example_results.promise.sentence) in text


def test_metrics_a_model_lacks_are_dashes(example_results):
    models = dict(example_results.models)
    models["popularity"] = {"mrr": models["popularity"]["mrr"]}

    source = render_report(example_results.model_copy(update={"models": models}))

    assert source.count("<td>–</td>") == 7


def test_same_results_same_file(example_results, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(example_results, tmp_path / name)

    first = (tmp_path / "a.html").read_bytes()
    assert first == (tmp_path / "b.html").read_bytes()
    assert first.startswith(b"<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (999_600, "1.00 MB"),
        (1_482_000_000, "1.48 GB"),
        (10**15, "1000 TB"),
    ],
)
def test_bytes(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00 s"), (63.4, "63 s"), (119.6, "2 min 0 s"), (3601, "60 min 1 s")],
)
def test_seconds(seconds, text):
    assert format_seconds(seconds) == text
