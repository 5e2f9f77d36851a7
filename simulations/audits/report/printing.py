"""The page as PDF, printed by a browser that is on this machine.

Simulations only. A browser prints HTML better than any library, and an auditor has
one. It runs headless, with an empty profile, and is told to fetch nothing; the page's
own policy forbids it as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from common.durable_files import write_durably
from common.errors import ConfigError

#: Names that Chromium and its kin go by, in the order they are looked for.
BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
#: Headless, and quiet on the network.
FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-pdf-header-footer",
)
#: Seconds; a page takes about five on an idle machine.
PATIENCE = 180.0


def find_browser() -> str:
    """The path of a browser that can print.

    Raises:
        ConfigError: naming what was looked for.
    """
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    raise ConfigError(
        "--pdf: expected a browser to print with, found none of "
        f"{', '.join(BROWSERS)} on the PATH; install Chromium, or "
        "open audit.html in any browser and print it."
    )


def print_pdf(page: Path, pdf: Path, browser: str) -> None:
    """Print a page: the whole new file or the whole old one.

    Args:
        page: an HTML file that needs nothing else.
        browser: of :func:`find_browser`.

    Raises:
        ConfigError: if the browser fails, or takes too long.
    """
    # A browser's last processes may still write to its profile while that goes.
    with tempfile.TemporaryDirectory(
        prefix="tutela-print-", ignore_cleanup_errors=True
    ) as name:
        place = Path(name)
        made = place / "page.pdf"
        words = [browser, *FLAGS, *_unboxed(), f"--user-data-dir={place / 'profile'}"]
        words += [f"--print-to-pdf={made}", page.resolve().as_uri()]
        try:
            done = subprocess.run(  # noqa: S603 the words are our own
                words, capture_output=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"--pdf: {browser} printed nothing within {PATIENCE:g} seconds; open "
                f"{page.name} in a browser and print it."
            ) from None
        content = made.read_bytes() if made.is_file() else b""
        if done.returncode or not content.startswith(b"%PDF-"):
            last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise ConfigError(
                f"--pdf: {browser} ended with code {done.returncode} and no PDF"
                f"{': ' + last[0][:200] if last else ''}; open {page.name} in a "
                "browser and print it."
            )
    write_durably(pdf, content, mode=0o644)


def _unboxed() -> list[str]:
    """Chromium's sandbox refuses to run for root, as in a container."""
    return ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
