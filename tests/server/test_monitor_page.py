"""The operator's page as text: escaped, self-contained, the same facts as JSON."""

import hashlib
import json
import logging
import re

import pytest
from typer.testing import CliRunner

from common.errors import ConfigError
from server.__main__ import app
from server.monitor import page
from server.monitor.charts import HEIGHT, MOST_BARS, WIDTH, epsilon_path, survivors
from server.monitor.events import RoundFacts
from server.monitor.page import (
    MOST_SHOWN,
    Drawing,
    render_page,
    status,
    status_json,
)
from server.monitor.runs import Runs

START = 1_790_000_000.0
HOSTILE = "<script>alert('x')</script>&\"'"


@pytest.fixture(autouse=True)
def restored():
    """The handlers and the level of our loggers as they were."""
    logger = logging.getLogger("tutela")
    handlers, level, upwards = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, upwards
    logger.setLevel(level)


def rounds(number, **changes):
    facts = {"epsilon": 0.5, "survivors": 4, "num_clients": 4, "validation": None}
    facts |= {"bytes_down": 9, "bytes_up": 9, "seconds": {"train": 1.0}} | changes
    return tuple(
        RoundFacts(**facts | {"number": n, "epsilon": facts["epsilon"] and n * 0.5})
        for n in range(1, number + 1)
    )


def write(folder, *, name="movies", events=(), mode="local"):
    folder.mkdir(parents=True)
    config = f"[run]\nname = {json.dumps(name)}\n[training]\nrounds = 3\n"
    config += f'[privacy]\nmode = "{mode}"\ntarget-epsilon = 8.0\n'
    (folder / "config.toml").write_text(config)
    lines = [json.dumps({"time": START + n, **each}) for n, each in enumerate(events)]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))


EVENTS = (
    {"event": "phase", "round": 1, "phase": "train"},
    {"event": "refusal", "round": 1, "reason": HOSTILE},
    {"event": "round", "round": 1, "epsilon": 1.25, "survivors": 3, "num_clients": 4},
    {"event": HOSTILE, "round": 1},
)


def test_everything_is_escaped(tmp_path):
    write(tmp_path / "a&<b>", name=HOSTILE, events=EVENTS)

    page = render_page(Runs(tmp_path).now(), START + 5)

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;" in page
    assert "a&amp;&lt;b&gt;" in page
    assert page.count("<script>") == 1


def test_a_clients_words_are_not_repeated(tmp_path):
    write(tmp_path / "a", events=EVENTS)
    runs = Runs(tmp_path).now()

    for text in (render_page(runs, START), status_json(runs, START).decode()):
        assert "alert" not in text
    assert "Round 1: refused, another reason" in render_page(runs, START)


def test_the_policy_names_the_very_style_and_script(tmp_path):
    import base64

    write(tmp_path / "a")
    page = render_page(Runs(tmp_path).now(), START)

    for tag in ("style", "script"):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page
    assert "unsafe" not in page.split("<style>")[0]
    assert not re.findall(r"(?:src|href)=\"(?!data:,|#)", page)


def test_status_is_json_for_programs_and_holds_the_page(tmp_path):
    write(tmp_path / "a", events=EVENTS)

    found = json.loads(status_json(Runs(tmp_path).now(), START + 5))

    (run,) = found["runs"]
    assert found["schema"] == 1
    assert (run["status"], run["rounds_done"], run["rounds_planned"]) == (
        "running",
        1,
        3,
    )
    assert run["last_round"]["epsilon"] == 1.25
    assert run["refusals"] == {"other": 1}
    assert "ε spent by a client" in found["main"]


def test_no_promise_is_null_in_json_and_said_on_the_page(tmp_path):
    event = {"event": "round", "round": 1, "epsilon": None, "num_clients": 1}
    write(tmp_path / "a", events=[event], mode="off")
    runs = Runs(tmp_path).now()

    (run,) = status(runs, START)["runs"]
    assert run["last_round"]["epsilon"] is None
    assert "NOT PRIVATE" in render_page(runs, START)
    assert "no promise" in render_page(runs, START)


def test_the_digest_changes_with_facts_and_not_with_time(tmp_path):
    write(tmp_path / "a", events=EVENTS)
    runs = Runs(tmp_path)
    first, later = (status(runs.now(), START + age)["digest"] for age in (5, 50))
    silent = status(runs.now(), START + 5000)
    write(tmp_path / "b")

    assert first == later
    assert silent["digest"] != first
    assert "Stale: no event for longer than a round may take" in silent["main"]
    assert status(runs.now(), START + 5)["digest"] != first


def test_the_page_is_drawn_again_only_when_something_changed(tmp_path, monkeypatch):
    write(tmp_path / "a", events=EVENTS)
    runs, drawing, drawn = Runs(tmp_path), Drawing(), []
    draw = page.render_main
    monkeypatch.setattr(
        page, "render_main", lambda *given: drawn.append(1) or draw(*given)
    )

    texts = [drawing.main(runs.now(), START + age) for age in (5, 6, 5000, 5001)]
    write(tmp_path / "b")
    texts.append(drawing.main(runs.now(), START + 5001))

    assert len(drawn) == 3
    assert texts[0] == texts[1] != texts[2] == texts[3] != texts[4]


def test_many_runs_are_listed_and_the_latest_shown_in_full(tmp_path):
    for place in range(MOST_SHOWN + 2):
        write(tmp_path / f"r{place}", events=EVENTS)

    main = status(Runs(tmp_path).now(), START)["main"]

    assert main.count("<details") == MOST_SHOWN
    assert main.count('<th scope="row"><a href="#run-') == MOST_SHOWN
    assert main.count('<th scope="row">r') == 2
    assert f"In full below: the latest {MOST_SHOWN}." in main


def test_an_empty_folder_says_so(tmp_path):
    assert "No run has begun in this folder" in render_page([], START)


def test_survivors_are_bars_of_whom_was_asked():
    found = survivors(rounds(3)[:2] + rounds(3, survivors=1)[2:], 6)

    assert (found.last, found.most, len(found.bars)) == (6, 4, 3)
    assert [bar.survived for bar in found.bars] == [HEIGHT, HEIGHT, HEIGHT / 4]
    assert [bar.short for bar in found.bars] == [False, False, True]
    assert found.bars[-1].x + found.bars[-1].width < WIDTH / 2 + 1
    assert "missing in 1 of 3 rounds" in found.summary


def test_many_rounds_share_bars_and_the_worst_shows():
    many = list(rounds(1000))
    many[500] = rounds(1000, survivors=0)[500]

    found = survivors(many, None)

    assert len(found.bars) <= MOST_BARS
    assert sum(bar.short for bar in found.bars) == 1


def test_the_path_starts_at_nothing_and_ends_where_the_rounds_do():
    found = epsilon_path(rounds(2), 4, 2.0)

    assert found.points.split()[0] == f"0.0,{HEIGHT}"
    assert found.points.split()[-1] == f"{WIDTH / 2:.1f},{HEIGHT / 2:.1f}"
    assert (found.target, found.most, found.last) == (0.0, 2.0, 4)


def test_without_a_finite_epsilon_there_is_no_path():
    assert epsilon_path(rounds(3, epsilon=None), 3, 8.0) is None
    assert survivors((), 3) is None


def test_a_snapshot_is_written_and_the_command_ends(tmp_path):
    write(tmp_path / "runs" / "a", events=EVENTS)
    out = tmp_path / "page.html"

    done = CliRunner().invoke(
        app, ["monitor", str(tmp_path / "runs"), "--write", str(out)]
    )

    assert (done.exit_code, done.output) == (0, f"1 runs written to {out}\n")
    assert out.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["RUNS", "--host", "0.0.0.0"], "expected a loopback address"),
        (["none"], "Expected a folder of runs at none"),
    ],
)
def test_another_address_or_folder_is_refused(tmp_path, arguments, text):
    given = [str(tmp_path) if each == "RUNS" else each for each in arguments]

    done = CliRunner().invoke(app, ["monitor", *given])

    assert isinstance(done.exception, ConfigError)
    assert text in str(done.exception)
