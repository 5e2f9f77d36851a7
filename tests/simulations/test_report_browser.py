"""The report in a real browser: it fits, draws, and fetches nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.report import write_report
from simulations.results import Results
from tests.simulations.browser_parts import (
    WIDTHS,
    headless,
    needs_browser,
    show,
)

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    with headless(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(detailed_results: Results, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    write_report(detailed_results, path)
    return path


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
def test_no_horizontal_overflow(browser, page, width):
    show(browser, page, width)

    inner, client, needed = browser.execute_script(
        "const root = document.documentElement;"
        "return [window.innerWidth, root.clientWidth, root.scrollWidth]"
    )

    assert inner == width
    assert needed == client


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
def test_wide_tables_scroll_and_keep_half_the_width_for_figures(browser, page, width):
    show(browser, page, width)

    regions = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].map(e => {"
        "e.scrollLeft = 1e6; const b = e.getBoundingClientRect();"
        "const last = e.querySelector('thead th:last-child').getBoundingClientRect();"
        "const first = e.querySelector('tbody :first-child').firstElementChild"
        ".getBoundingClientRect();"
        "return [b.left, b.right, last.right, first.width] })"
    )

    assert len(regions) == 4
    for left, right, end, first in regions:
        assert left >= 0
        assert right <= width
        assert end <= right + 1
        assert first <= width / 2


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
def test_figures_are_drawn_within_the_page(browser, page, width):
    show(browser, page, width)

    boxes = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].map(e => {"
        "const b = e.getBoundingClientRect(); return [b.left, b.right, b.height] })"
    )

    assert len(boxes) == 5
    assert all(left >= 0 and right <= width for left, right, _ in boxes)
    assert all(right - left > 300 and height > 150 for left, right, height in boxes)


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())
def test_no_text_of_a_figure_is_cut_off(browser, page, width):
    show(browser, page, width)

    cut = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')].flatMap(svg => {"
        "const s = svg.getBoundingClientRect();"
        "return [...svg.querySelectorAll('text')].filter(t => {"
        "const b = t.getBoundingClientRect();"
        "return b.left < s.left - 1 || b.right > s.right + 1"
        " || b.top < s.top - 1 || b.bottom > s.bottom + 1"
        "}).map(t => t.textContent) })"
    )

    assert cut == []


def test_only_the_file_itself_is_loaded(browser, page):
    browser.get_log("performance")
    show(browser, page, 1280)

    resources = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    requested = requested_urls(browser)

    assert resources == []
    assert requested == {page.as_uri()}


def test_nothing_is_reported_by_the_content_security_policy(browser, page):
    show(browser, page, 1280)

    assert [entry["message"] for entry in browser.get_log("browser")] == []


def requested_urls(browser) -> set[str]:
    """Addresses in the network log since it was last read."""
    log = browser.get_log("performance")
    events = [json.loads(entry["message"])["message"] for entry in log]
    return {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
