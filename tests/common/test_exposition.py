"""Metrics and pages over HTTP: loopback alone, fixed answers, nothing of a failure."""

import http.client
import io
import logging
import threading

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from common.errors import ConfigError
from common.exposition import Page, Site, check_loopback
from common.structured_logs import switch_on

MARKER = "titanic-7351"


@pytest.fixture(autouse=True)
def restored():
    """The handlers and the level of our loggers as they were."""
    logger = logging.getLogger("tutela")
    handlers, level, upwards = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, upwards
    logger.setLevel(level)


def collect():
    return [GaugeMetricFamily("tutela_rounds", "Rounds.", value=3)]


def broken():
    raise KeyError(MARKER)


@pytest.fixture
def serving():
    """Starts a site in a thread; ends all of them."""
    started = []

    def start(*arguments, **keywords) -> Site:
        site = Site(*arguments, **keywords)
        thread = threading.Thread(
            target=site._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        thread.start()
        started.append((site, thread))
        return site

    yield start
    for site, thread in started:
        site._server.shutdown()
        site._server.server_close()
        thread.join(5)


def ask(site, path, method="GET", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=5)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, dict(answer.headers), answer.read().decode()
    connection.close()
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_loopback_is_allowed(host):
    assert check_loopback(host).startswith("127.")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.4", "", "::", "example.org"])
def test_any_other_address_is_refused(host):
    with pytest.raises(ConfigError, match="--host: expected a loopback address"):
        check_loopback(host)
    with pytest.raises(ConfigError):
        Site(collect, host=host)


def test_metrics_are_prometheus_text(serving):
    status, headers, text = ask(serving(collect), "/metrics")

    (family,) = text_string_to_metric_families(text)
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    assert (family.name, family.samples[0].value) == ("tutela_rounds", 3.0)


def test_every_scrape_asks_anew(serving):
    values = iter(range(1, 9))

    def counting():
        return [GaugeMetricFamily("tutela_now", "Now.", value=next(values))]

    site = serving(counting)
    assert "tutela_now 1.0" in ask(site, "/metrics")[2]
    assert "tutela_now 2.0" in ask(site, "/metrics")[2]


def test_a_page_comes_with_headers_that_keep_it_to_itself(serving):
    site = serving(collect, {"/": lambda: Page("text/html; charset=utf-8", b"<p>ok")})

    status, headers, text = ask(site, "/")

    assert (status, text) == (200, "<p>ok")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/nope", "GET", 404), ("/../etc/passwd", "GET", 404), ("/", "POST", 405)],
)
def test_everything_else_is_refused(serving, path, method, status):
    site = serving(collect, {"/": lambda: Page("text/plain", b"ok")})

    assert ask(site, path, method)[0] == status


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.x:1",
        "127.0.0.1:80@evil.example",
        "127.0.0.1@evil.example:80",
        "127.0.0.1/evil.example",
        "127.0.0.1:80:80",
        "127.0.0.1:x",
        "[::1",
        ":80",
    ],
)
def test_a_page_elsewhere_cannot_reach_it_by_a_name_of_its_own(serving, host):
    status, _, text = ask(serving(collect), "/metrics", host=host)

    assert (status, text) == (403, "403 Forbidden\n")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:80", "localhost", "LocalHost:9464"]
)
def test_its_own_names_are_answered_with_a_port_or_without(serving, host):
    assert ask(serving(collect), "/metrics", host=host)[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/"])
def test_a_failure_tells_its_type_to_the_log_and_nothing_to_the_reader(
    serving, path, monkeypatch
):
    monkeypatch.setenv("TUTELA_LOG", "json")
    stream = io.StringIO()
    switch_on(stream)
    status, _, text = ask(serving(broken, {"/": broken}), path)

    assert (status, text) == (500, "500 Internal Server Error\n")
    assert '"exception": "KeyError"' in stream.getvalue()
    assert MARKER not in stream.getvalue() + text
