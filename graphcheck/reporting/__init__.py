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
    """Write ``render(results)`` to ``path`` at once: a temporary file beside it, then a rename; or leave nothing."""
    import os
    import tempfile

    html = render(results)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(html)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
