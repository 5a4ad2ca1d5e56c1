"""Pages in a headless browser: how wide they want to be, and what they complain of."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CHROMIUM", "Look", "look"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""The browser's path; None where there is none."""

_WIDTHS = """<script>addEventListener("load", () => {
  document.title = JSON.stringify([...document.querySelectorAll("iframe")].map(
    frame => [frame.clientWidth, frame.contentDocument.documentElement.scrollWidth]));
});</script>"""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the browser made of some pages."""

    widths: list[tuple[int, int]]
    """Of each page: the room that it had and the room that it took, in CSS pixels."""
    complaints: list[str]
    """Lines of the console."""


def look(pages: list[tuple[str, int]], folder: Path) -> Look:
    """Opens pages of given widths side by side: in frames, since a window of a phone's width is refused.

    Args:
        pages: text and width in CSS pixels.
        folder: to write into.
    """
    frames = [
        f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(text)}"></iframe>'
        for text, width in pages
    ]
    outer = folder / "outer.html"
    outer.write_text(f"<!doctype html><title></title>{''.join(frames)}{_WIDTHS}", encoding="utf-8")
    run = subprocess.run(
        [
            CHROMIUM or "chromium",
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-extensions", "--no-first-run"),
            *("--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}"),
            *("--virtual-time-budget=2000", "--dump-dom", outer.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", run.stdout)
    assert title, run.stderr
    return Look(
        widths=[tuple(pair) for pair in json.loads(title[1])],
        complaints=[line for line in run.stderr.splitlines() if "CONSOLE" in line],
    )
