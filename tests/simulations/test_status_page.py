"""The operator's page in a real browser: it fits, lives, says when it is stale."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.simulations.browser_parts import (
    WIDTHS,
    headless,
    needs_browser,
)

ROOT = Path(__file__).parents[2]
each_width = pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
NAME = "movies <img src=x onerror=\"document.title='x'\"> & a-long-name"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    with headless(tmp_path_factory.mktemp("profile")) as found:
        yield found


def write_run(folder: Path, *, num_done: int, age: float = 0.0) -> None:
    """A run of six rounds that has done some; its last event is ``age`` seconds old."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        f"[run]\nname = {json.dumps(NAME)}\nround-timeout = 60.0\n"
        '[training]\nrounds = 6\n[privacy]\nmode = "local"\ntarget-epsilon = 8.0\n'
        "delta = 1e-5\n"
    )
    for number in range(1, num_done + 1):
        then = time.time() - age - 10 * (num_done - number)
        append(folder, then, "phase", round=number, phase="train")
        if number == 2:
            append(folder, then, "refusal", round=2, reason="<b>anything</b>")
        finish(folder, number, then)


def append(folder: Path, then: float, event: str, **facts) -> None:
    line = json.dumps({"time": then, "event": event, **facts})
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")


def finish(folder: Path, number: int, then: float) -> None:
    append(
        folder,
        then,
        "round",
        round=number,
        epsilon=number * 1.0,
        bytes_down_per_client=1_771_520,
        bytes_up_per_client=1_749_044,
        seconds={"train": 9.1, "aggregate": 0.04, "validate": 0.3},
        validation=0.2,
        survivors=4 - (number == 2),
        num_clients=4,
    )


@pytest.fixture
def runs(tmp_path) -> Path:
    write_run(tmp_path / "runs" / "a", num_done=3)
    write_run(tmp_path / "runs" / ("b" * 70), num_done=2, age=4000)
    return tmp_path / "runs"


@pytest.fixture
def monitor(runs) -> Iterator[tuple[str, subprocess.Popen]]:
    """The monitor as its own process on a free port: address and process."""
    command = [sys.executable, "-m", "server", "monitor", str(runs), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+", line)[0], process
    finally:
        process.kill()
        process.communicate(timeout=10)


def size(browser, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def text(browser) -> str:
    return browser.execute_script("return document.body.innerText")


def wait(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether it comes to hold within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.1)
    return False


@needs_browser
@each_width
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_overflows_and_text_can_be_read(browser, monitor, width, scheme):
    size(browser, width)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(monitor[0])
    browser.execute_script(
        "document.querySelectorAll('details').forEach(d => { d.open = true; })"
    )

    client, needed = browser.execute_script(
        "const r = document.documentElement; return [r.clientWidth, r.scrollWidth]"
    )
    beyond = browser.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e =>"
        "!e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    ink, card = browser.execute_script(
        "const c = e => getComputedStyle(e);"
        "return [c(document.body).color, c(document.querySelector('.run'))"
        ".backgroundColor]"
    )

    assert needed == client
    assert beyond == []
    assert contrast(ink, card) > 7
    assert (luminance(card) > 0.5) == (scheme == "light")


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(…)`` (WCAG 2.2)."""
    parts = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@needs_browser
@each_width
def test_charts_have_room_and_stay_within(browser, monitor, width):
    size(browser, width)
    browser.get(monitor[0])

    boxes = browser.execute_script(
        "return [...document.querySelectorAll('[open] .chart svg')].map(e => {"
        "const b = e.getBoundingClientRect(); return [b.left, b.right, b.height] })"
    )

    assert len(boxes) == 4
    assert all(left >= 0 and right <= width for left, right, _ in boxes)
    assert all(right - left > 250 and tall > 100 for left, right, tall in boxes)


@needs_browser
def test_names_are_text_and_nothing_but_status_json_is_fetched(browser, monitor):
    size(browser, 1280)
    browser.get("about:blank")
    for kind in ("performance", "browser"):
        browser.get_log(kind)
    browser.get(monitor[0])
    assert wait(lambda: "Live, as of" in text(browser), 5)
    time.sleep(2.5)

    log = [
        json.loads(entry["message"])["message"]
        for entry in browser.get_log("performance")
    ]
    asked = {
        each["params"]["request"]["url"]
        for each in log
        if each["method"] == "Network.requestWillBeSent"
    }

    assert asked - {"data:,"} == {f"{monitor[0]}/", f"{monitor[0]}/status.json"}
    assert browser.title == "Tutela runs"
    assert NAME in text(browser)
    assert "anything" not in text(browser)
    assert [entry["message"] for entry in browser.get_log("browser")] == []


@needs_browser
def test_the_page_follows_a_run_and_keeps_what_the_reader_closed(
    browser, monitor, runs
):
    size(browser, 1280)
    browser.get(monitor[0])
    browser.execute_script(
        "document.querySelectorAll('details').forEach(d => {"
        " d.open = !d.innerText.includes('bbb'); }); window.kept = 1;"
    )
    assert "Round 4: train began." not in text(browser)

    append(runs / "a", time.time(), "phase", round=4, phase="train")
    assert wait(lambda: "Round 4: train began." in text(browser), 8)
    finish(runs / "a", 4, time.time())
    assert wait(lambda: "Round 4: ended with 4 of 4 clients." in text(browser), 8)

    opened = browser.execute_script(
        "return [...document.querySelectorAll('details')].map(d => d.open)"
    )
    assert opened == [True, False]
    assert browser.execute_script("return window.kept") == 1
    assert (
        browser.execute_script("return document.querySelector('progress').value") == 4
    )


@pytest.mark.slow
@needs_browser
def test_silence_of_a_run_and_of_the_monitor_are_said(browser, monitor):
    size(browser, 1280)
    address, process = monitor
    browser.get(address)
    assert wait(lambda: "Live, as of" in text(browser), 5)
    assert "Stale: no event for longer than a round may take (60.0 s)" in text(browser)

    process.send_signal(signal.SIGSTOP)
    state = "return document.querySelector('#state').innerText"
    stale = "Stale: the monitor has not answered for"
    assert wait(lambda: stale in browser.execute_script(state), 25)
    assert browser.execute_script("return document.querySelector('#state').className")

    process.send_signal(signal.SIGCONT)
    assert wait(lambda: "Live, as of" in browser.execute_script(state), 15)


@needs_browser
def test_a_snapshot_says_its_age_and_fetches_nothing(browser, runs, tmp_path):
    out = tmp_path / "page.html"
    command = [sys.executable, "-m", "server", "monitor", str(runs)]
    subprocess.run([*command, "--write", str(out)], cwd=ROOT, check=True, timeout=60)
    size(browser, 390)
    browser.get_log("browser")
    browser.get(out.as_uri())

    assert re.search(r"Snapshot of .* UTC, \d+ s old\. It does not", text(browser))
    assert NAME in text(browser)
    assert browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    ) in ([], ["data:,"])
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_the_monitor_ends_quietly_when_told(monitor):
    address, process = monitor
    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
        assert b'tutela_run_status{run="a",status="running"} 1.0' in answer.read()

    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "Traceback" not in process.stderr.read()
