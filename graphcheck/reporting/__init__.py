"""The report: plain JSON results in, one self-contained HTML file out."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def render(results: list[dict[str, Any]]) -> str:
    """One HTML page for saved results of compare, analyze, rewrite or demo.

    It needs no network and runs no foreign script. Raises GraphcheckError for a result whose ``schema`` is unknown, or
    that lacks what its schema promises.
    """
    from graphcheck.reporting import page

    return page.render(results)


def write(results: list[dict[str, Any]], path: str | Path) -> None:
    """Write ``render(results)`` to ``path`` at once, or leave nothing; folders that are missing are made."""
    from graphcheck.files import atomic

    html = render(results)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    atomic.write_bytes(html.encode(), path)
