"""An audit's page in a real browser: it fits, fetches nothing, and prints."""

import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.audits.report.page import write_page
from simulations.audits.report.printing import find_browser, print_pdf
from tests.simulations.audits import report_parts as parts
from tests.simulations.browser_parts import (
    WIDTHS,
    headless,
    needs_browser,
    show,
)

pytestmark = needs_browser

each_width = pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    with headless(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Names as long as they come."""
    long = (
        parts.leak(
            attack="attribute:age bracket",
            viewpoint="another-client",
            released="answers of all rounds together",
            note="A sentence that a reader must know to read the figure. " * 3,
        ),
        parts.integrity(
            attack="gradient-scaled", aggregator="coordinate-wise trimmed mean"
        ),
        parts.check(
            check="one-person-one-user",
            finding="deviates",
            detail="Changed since: " + ", ".join(["statistics.noise-multiplier"] * 5),
            source="federation/server/interactions.parquet, heldout/",
        ),
    )
    report = parts.report(
        findings=(*parts.FINDINGS, *long),
        run="a-name-that-somebody-made-as-long-as-a-name-may-be-which-is-64-",
        hashes={"federation/clients/0000/interactions.parquet": "ab" * 32},
    )
    path = tmp_path_factory.mktemp("page") / "audit.html"
    write_page(report, path)
    return path


@each_width
def test_no_horizontal_overflow(browser, page, width):
    show(browser, page, width)
    inner, client, needed = browser.execute_script(
        "const root = document.documentElement;"
        "return [window.innerWidth, root.clientWidth, root.scrollWidth]"
    )
    assert inner == width
    assert needed == client


@each_width
def test_wide_tables_scroll_within_the_page(browser, page, width):
    show(browser, page, width)
    regions = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].map(e => {"
        "e.scrollLeft = 1e6; const b = e.getBoundingClientRect();"
        "const cells = [...e.querySelectorAll('td')].map("
        "c => c.getBoundingClientRect().right);"
        "return [b.left, b.right, Math.max(...cells)] })"
    )
    assert len(regions) == 8
    for left, right, end in regions:
        assert left >= 0
        assert right <= width
        assert end <= right + 1


@each_width
def test_figures_are_drawn_within_the_page_and_no_text_is_cut_off(browser, page, width):
    show(browser, page, width)
    boxes, cut = browser.execute_script(
        "const svgs = [...document.querySelectorAll('figure svg')];"
        "return [svgs.map(e => { const b = e.getBoundingClientRect();"
        "return [b.left, b.right, b.height] }), svgs.flatMap(svg => {"
        "const s = svg.getBoundingClientRect();"
        "return [...svg.querySelectorAll('text')].filter(t => {"
        "const b = t.getBoundingClientRect();"
        "return b.left < s.left - 1 || b.right > s.right + 1"
        " || b.top < s.top - 1 || b.bottom > s.bottom + 1"
        "}).map(t => t.textContent) })]"
    )
    assert len(boxes) == 4
    assert all(left >= 0 and right <= width for left, right, _ in boxes)
    assert all(right - left > 300 and height > 150 for left, right, height in boxes)
    assert cut == []


def test_only_the_file_itself_is_loaded_and_no_policy_is_broken(browser, page):
    browser.get_log("performance")
    browser.get_log("browser")
    show(browser, page, 1280)
    log = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    requested = {
        event["params"]["request"]["url"]
        for event in log
        if event["method"] == "Network.requestWillBeSent"
    }
    assert requested == {page.as_uri()}
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_the_first_sheet_of_paper_ends_before_the_details(browser, page):
    """Printed, collapsed parts are open, and the second sheet begins with the words."""
    browser.get(page.as_uri())
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    first, breaks, hidden = browser.execute_script(
        "const words = document.querySelector('#words');"
        "const of = e => getComputedStyle(e);"
        "return [words.getBoundingClientRect().top,"
        "of(words.closest('section')).breakBefore,"
        "[...document.querySelectorAll('details table')].filter("
        "e => e.getBoundingClientRect().height === 0).length]"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert breaks == "page"
    assert hidden == 0
    assert first > 0


def test_it_prints_to_several_sheets_of_a4(page, tmp_path):
    print_pdf(page, tmp_path / "audit.pdf", find_browser())
    content = (tmp_path / "audit.pdf").read_bytes()
    text = content + b"".join(_streams(content))
    sheets = re.findall(rb"/Type\s*/Page\b", text)
    assert 5 <= len(sheets) <= 14
    boxes = set(re.findall(rb"/MediaBox\s*\[([^\]]*)\]", text))
    sizes = {tuple(float(each) for each in box.split()) for box in boxes}
    assert {(round(w), round(h)) for _, _, w, h in sizes} <= {(595, 842), (596, 842)}


def _streams(content: bytes) -> Iterator[bytes]:
    """Compressed parts of a PDF, opened: objects may be in them."""
    for found in re.finditer(rb"stream\r?\n(.*?)endstream", content, re.DOTALL):
        try:
            yield zlib.decompress(found.group(1))
        except zlib.error:
            continue
