"""The operator's site: which address gives what.

Server only; ``common/exposition.py`` knows how to serve and whom to refuse.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client.metrics_core import Metric

from common.exposition import HOST, Page, Site
from server.monitor.metrics import metrics_of
from server.monitor.page import Drawing, render_page, status_json
from server.monitor.runs import Runs


def open_site(runs: Runs, host: str = HOST, port: int = 0) -> Site:
    """``/``, ``/status.json`` and ``/metrics`` of a folder of runs.

    Raises:
        ConfigError: if the address is not a loopback one.
    """

    def collect() -> Iterable[Metric]:
        return list(metrics_of(runs.now(), time.time()))

    drawing = Drawing()

    def page() -> Page:
        found, now = runs.now(), time.time()
        text = render_page(found, now, drawing.main(found, now))
        return Page("text/html; charset=utf-8", text.encode())

    def facts() -> Page:
        found, now = runs.now(), time.time()
        content = status_json(found, now, drawing.main(found, now))
        return Page("application/json", content)

    return Site(collect, {"/": page, "/status.json": facts}, host, port)
