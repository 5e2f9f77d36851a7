"""The table in a terminal: 80 columns, stamps, promise, verdict."""

import doctest
from io import StringIO

import pytest
from rich.console import Console

import simulations.table
from simulations.results import Verdict
from simulations.table import MODEL_LABELS, plain_text, print_results


def flat(text: str) -> str:
    return " ".join(text.split())


def test_doctests():
    assert doctest.testmod(simulations.table).failed == 0


def test_fits_80_columns(example_results, unprotected_results, detailed_results):
    for results in (example_results, unprotected_results, detailed_results):
        assert max(map(len, plain_text(results).splitlines())) <= 80


def test_every_number_is_whole(example_results):
    text = plain_text(example_results)

    assert "…" not in text
    for model in example_results.models.values():
        for metric in ("ndcg@10", "recall@20", "mrr", "coverage@10"):
            found = model[metric]
            assert f"{found.value:.3f}" in text
            assert f"{found.low:.3f}–{found.high:.3f}" in text


def test_models_come_in_order_and_absent_arms_are_left_out(detailed_results):
    models = dict(reversed(detailed_results.models.items()))
    del models["student_scratch"]
    text = plain_text(detailed_results.model_copy(update={"models": models}))

    shown = [label for label in MODEL_LABELS.values() if label in text]
    assert set(MODEL_LABELS.values()) - set(shown) == {"Student, from scratch"}
    assert [text.index(label) for label in shown] == sorted(map(text.index, shown))


def test_stamp_stands_under_the_stamped_model(example_results):
    lines = plain_text(example_results).splitlines()

    for label, stamped in {
        "Student, no noise": True,
        "Popularity, all rows": True,
        "Student, federated": False,
    }.items():
        row = next(i for i, line in enumerate(lines) if label in line)
        assert ("NOT PRIVATE" in lines[row + 1]) is stamped


def test_promise_and_verdict_are_below_the_table(example_results):
    text = flat(plain_text(example_results))

    promise = text.index(flat(example_results.promise.sentence))
    verdict = text.index(flat(f"Verdict: {example_results.verdict.text}"))
    assert text.index("Student, from scratch") < promise < verdict


def test_interruption_is_said(example_results):
    text = plain_text(example_results.model_copy(update={"status": "interrupted"}))

    assert "INTERRUPTED after 40 rounds." in text
    assert "INTERRUPTED" not in plain_text(example_results)


def test_a_run_of_statistics_alone_is_no_failure(statistics_results):
    text = plain_text(statistics_results)
    stopped = statistics_results.model_copy(update={"status": "interrupted"})

    assert text.count("No training rounds: the statistics alone.") == 1
    assert "INTERRUPTED" not in text
    assert "INTERRUPTED before it was complete." in plain_text(stopped)
    assert "0 rounds" not in text + plain_text(stopped)


def test_a_run_with_rounds_says_nothing_of_having_none(example_results):
    unfinished = example_results.model_copy(
        update={"rounds": (), "status": "interrupted"}
    )

    assert "No training rounds" not in plain_text(example_results)
    assert "No training rounds" not in plain_text(unfinished)


@pytest.mark.parametrize("terminal", [True, False])
def test_colour_only_for_a_terminal(unprotected_results, terminal):
    file = StringIO()

    print_results(
        unprotected_results, Console(file=file, force_terminal=terminal, width=80)
    )

    assert ("\x1b[" in file.getvalue()) is terminal


def test_nothing_in_the_results_is_markup(example_results):
    verdict = Verdict(
        beats_transferred=None, beats_popularity=None, text="[red]plain[/red] [/]"
    )
    hostile = example_results.model_copy(
        update={"verdict": verdict, "name": "[link=x]name[/link]"}
    )

    text = plain_text(hostile)

    assert "[red]plain[/red] [/]" in text
    assert "[link=x]name[/link]" in text


def test_a_run_without_models(example_results):
    empty = example_results.model_copy(
        update={"models": {}, "verdict": None, "rounds": (), "status": "interrupted"}
    )

    assert "INTERRUPTED after 0 rounds." in plain_text(empty)


def test_suppression_is_said_in_place_of_the_figures(example_results):
    why = "Figures over held-out users are suppressed: fewer than 10 users."
    bare = {"models": {}, "verdict": None, "suppressed": why}
    text = flat(plain_text(example_results.model_copy(update=bare)))

    assert text.index(why) < text.index(flat(example_results.promise.sentence))
    assert "95 % intervals" not in text
    assert "Verdict" not in text
    assert "suppressed" not in plain_text(example_results)


def test_a_clients_traffic_is_said(example_results, statistics_results):
    text = flat(plain_text(statistics_results))
    assert "Over the run a client received 301 kB and sent 23.6 MB." in text
    text = flat(plain_text(example_results))
    assert "a client received 70.9 MB and sent 70.0 MB" in text


def test_traffic_of_which_a_part_is_unknown_is_not_said(statistics_results):
    older = statistics_results.model_copy(update={"statistics": ()})
    assert "a client received" not in plain_text(older)
