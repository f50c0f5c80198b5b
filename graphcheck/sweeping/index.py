"""The index report of a sweep: one HTML table in a folder, and a page of its own for each result."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graphcheck.errors import GraphcheckError
from graphcheck.formats.json import dumps
from graphcheck.outcome import Outcome
from graphcheck.verdict import Verdict
from graphcheck.words import GLYPHS, safe

Load = Callable[[str], dict[str, Any] | None]
_PAGES = "pages"
_TEMPLATE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>graphcheck: {{ outcomes|length }} results</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<style>:root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:.35rem .6rem;border-bottom:1px solid #8884}
td.n{text-align:right;white-space:nowrap}td.v{white-space:nowrap;font-weight:600}.c0{color:light-dark(#0a6b2d,#6fd08c)}
.c1,.c2{color:light-dark(#b3261e,#ff8a80)}.c3{color:light-dark(#8a5a00,#f0c060)}</style>
<h1>{{ outcomes|length }} results</h1><p>{% for status, count in counts %}{{ count }} {{ status }}{{ ", " if not loop.last }}{% endfor %}</p>
<table><thead><tr><th>verdict</th><th>what</th><th>why</th><th>seconds</th><th>MiB</th></tr></thead><tbody>
{% for o in outcomes %}<tr><td class="v c{{ o.exit_code(require) }}">{{ glyphs.get(o.status, "!") }} {{ o.status }}</td>
<td>{% if o.name in pages %}<a href="{{ pages[o.name] }}">{{ o.name|safe_text }}</a>{% else %}{{ o.name|safe_text }}{% endif %}</td>
<td>{{ o.why|safe_text }}</td><td class="n">{{ "%.1f"|format(o.seconds) }}</td>
<td class="n">{{ o.memory // 1048576 or "" }}</td></tr>
{% endfor %}</tbody></table></html>
"""  # noqa: E501


def write(outcomes: Sequence[Outcome], folder: Path, require: Verdict, load: Load) -> None:
    """Write ``index.html`` into ``folder``, what needs attention first, and ``pages/*.html`` beside it.

    ``load`` gives the whole result of a key. Pages of an earlier sweep are removed; raises GraphcheckError where the
    folder cannot be written.
    """
    import jinja2

    from graphcheck.files.atomic import write_bytes

    order = {1: 0, 2: 1, 3: 2, 0: 3}
    ordered = sorted(outcomes, key=lambda o: order[o.exit_code(require)])
    try:
        shutil.rmtree(folder / _PAGES, ignore_errors=True)
        (folder / _PAGES).mkdir(parents=True)
    except OSError as error:
        raise GraphcheckError(f"{folder}: cannot be written: {error.strerror}") from None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["safe_text"] = safe
    html = environment.from_string(_TEMPLATE).render(
        outcomes=ordered,
        counts=Counter(o.status for o in outcomes).most_common(),
        pages=_pages(ordered, folder, load),
        glyphs=GLYPHS,
        require=require,
    )
    write_bytes(html.encode(errors="replace"), folder / "index.html")


def _pages(outcomes: Sequence[Outcome], folder: Path, load: Load) -> dict[str, str]:
    """Where the page of each named outcome lies; numbered files, since names are anyone's."""
    from graphcheck import reporting

    pages = {}
    for number, outcome in enumerate(outcomes):
        result = load(outcome.key) if outcome.key and outcome.result is not None else None
        if result is not None:
            page = f"{_PAGES}/{number}.html"
            try:
                reporting.write([json.loads(dumps(result))], folder / page)
            except GraphcheckError:
                continue  # a result that the report cannot draw still has its row
            pages[outcome.name] = page
    return pages
