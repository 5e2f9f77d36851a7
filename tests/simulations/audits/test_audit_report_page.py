"""An audit's page: all that the JSON says, nothing fetched, nothing injected."""

import doctest
import re
from collections.abc import Callable

import pytest

import simulations.audits.report.page as module
from simulations.audits.records import AuditReport
from simulations.audits.report.figures import figures, strongest_by_object
from simulations.audits.report.page import MOST_CLIENTS, render_page, write_page
from tests.simulations.audits import report_parts as parts
from tests.simulations.browser_parts import Page

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'"


@pytest.fixture(scope="module")
def source() -> str:
    """The whole page of an audit that found something of every kind."""
    return render_page(parts.report())


@pytest.fixture(scope="module")
def page(source) -> Page:
    return Page(source)


@pytest.fixture
def page_of(monkeypatch) -> Callable[[AuditReport], Page]:
    """A page's text and tags without its figures, which take most of the time."""
    monkeypatch.setattr(module, "figures", lambda report: {})
    return lambda report: Page(render_page(report))


def test_doctests():
    assert doctest.testmod(module).failed == 0


def test_nothing_comes_from_elsewhere(source, page):
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


def test_content_security_policy_denies_by_default(page):
    policies = [
        attributes["content"]
        for _, attributes in page.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "script" not in policies[0]


def test_links_lead_somewhere_and_ids_are_unique(page):
    tags = page.tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    wanted = [a["href"][1:] for tag, a in tags if tag == "a"]
    wanted += [a["aria-labelledby"] for _, a in tags if "aria-labelledby" in a]
    assert len(ids) == len(set(ids))
    assert set(wanted) <= set(ids)


def test_the_first_page_says_what_matters_first(page):
    text = page.text
    order = [
        "Privacy audit of demo",
        "First sentence. Second sentence. A low bound proves nothing.",
        "Promised at most3.000",
        "Proved at least1.83",
        "What was tested",
        "Canaries: up to 1000 invented users.",
        "What this cannot say",
        "How to read the figures",
        "What is promised",
        parts.PROMISE.sentence,
        "Who attacks",
        "What was spent",
        "Lower bounds, by canaries",
        "Membership of real users",
        "Who is worst off",
        "What else can be inferred",
        "Malicious clients",
        "Assumptions, and deviations from them",
        "A fourth limit.",
        "How to repeat it",
        "tutela audit demo",
        "ab" * 32,
        "safeguard.enabled",
    ]
    places = [text.find(each) for each in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)


def test_every_finding_is_on_the_page(page):
    text = page.text
    assert "447 of 500" in text and "489 of 1000 in" in text
    assert "2.5 %2.0 % to 3.0 %" in text and "11.4 %" in text
    assert "attribute:gender" in text and "0.710" in text and "not promised" in text
    assert "1200 → 37" in text and "Not possible under this trust model." in text
    assert "1.198 [1.17, 1.22], expected 1.2" in text
    assert "taste: most niche quarter" in text
    assert "Suppressed by cluster, too few users: rare, odd." in text


def test_the_most_of_any_client_is_shown_and_never_the_mean(page):
    text = page.text
    mean = (2.9999 + 1.5) / 2
    assert "6.000 in all its runs" in text
    assert f"{mean:.3f}" not in text and f"{mean:.2f}" not in text


def test_checks_that_deviate_come_first_and_say_if_they_refute(page_of):
    found = (
        parts.check(check="a-holds"),
        parts.check(check="b-unknown", finding="unknown"),
        parts.check(check="c-deviates", finding="deviates", refutes=False),
        parts.check(check="d-refutes", finding="deviates"),
    )
    text = page_of(parts.report(findings=found)).text
    names = ("d-refutes", "c-deviates", "b-unknown", "a-holds")
    places = [text.find(each) for each in names]
    assert -1 not in places and places == sorted(places)
    assert text.count("refutes the promise") == 1


@pytest.mark.filterwarnings("ignore:constrained_layout")  # no label is so long
def test_texts_from_outside_are_escaped():
    hostile = parts.report(
        run=HOSTILE,
        command=HOSTILE,
        verdict=HOSTILE,
        limits=(HOSTILE,),
        tested=(HOSTILE,),
        viewpoints={HOSTILE: HOSTILE},
        hashes={HOSTILE: HOSTILE},
        config={HOSTILE: HOSTILE},
        clients=(parts.client(HOSTILE, 1.0),),
        findings=(
            parts.canary(design=HOSTILE),
            parts.member(released=HOSTILE),
            parts.leak(note=HOSTILE, attack=HOSTILE),
            parts.integrity(note=HOSTILE),
            parts.check(detail=HOSTILE, source=HOSTILE),
            parts.worst_off(released=HOSTILE),
        ),
    )
    source = render_page(hostile)
    assert "<script" not in source and "<img" not in source
    assert "&lt;script&gt;" in source


def test_nothing_promised_is_stamped(page_of):
    nothing = parts.PROMISE.model_copy(update={"epsilon": None})
    claims = tuple(
        each.model_copy(update={"epsilon_user": None, "epsilon_interaction": None})
        for each in parts.report().claims
    )
    text = page_of(parts.report(promise=nothing, claims=claims)).text
    assert "NOT PRIVATE" in text and "Promised at most∞" in text
    assert "NOT PRIVATE" not in page_of(parts.report()).text


def test_an_audit_that_attacked_nothing_has_a_page(page_of):
    bare = parts.report(
        findings=(),
        strongest=None,
        spent=(),
        clients=(),
        tested=(),
        limits=(),
        command="",
    )
    text = page_of(bare).text
    assert "Nothing was attacked." in text
    assert "No client's ledger could be verified" in text
    assert "Membership of real users" not in text
    assert figures(bare) == {}


def test_clients_without_a_sound_ledger_come_first_and_the_rest_by_what_they_spent(
    page_of,
):
    many = tuple(parts.client(f"c{i:03d}", 1.0 + i / 1000) for i in range(100))
    lost = parts.client("lost", None, ledger="rolled back", spent=())
    bare = parts.client("bare", None)
    text = page_of(parts.report(clients=(*many, bare, lost))).text
    assert f"By client ({MOST_CLIENTS} of 102, those who spent most)" in text
    assert text.find("lostrolled back") < text.find("bareverified")
    assert text.find("bareverified") < text.find("c099verified")
    assert "c098verified" in text and "c000verified" not in text


def test_the_same_report_gives_the_same_bytes(source, tmp_path):
    write_page(parts.report(), tmp_path / "audit.html")
    assert (tmp_path / "audit.html").read_text() == source


def test_every_figure_has_a_title_and_no_prologue(source):
    for name in ("bounds", "roc", "leaks", "deciles"):
        assert f'<title id="audit-{name}-title">' in source
    assert source.count('<svg viewBox="') == 4
    assert "<?xml" not in source and "mathdefault" not in source


def test_the_strongest_attack_of_each_object_is_drawn():
    weak = parts.member(attack="rmia", quoted=(parts.point(0.01, 0.011, 0.114),))
    found = strongest_by_object(parts.report(findings=(weak, *parts.FINDINGS)))
    assert [(each.released, each.attack) for each in found] == [
        ("final student", "lira-offline"),
        ("answers", "threshold"),
    ]


def test_nothing_recognised_at_all_can_be_drawn():
    nobody = tuple(parts.point(f, 0.0, 0.2) for f in (1e-3, 1e-2))
    found = (parts.member(curve=nobody, quoted=nobody),)
    assert "roc" in figures(parts.report(findings=found))
