"""The shell of the page: templates, style, script, packed data and the policy that lets nothing else in."""

from __future__ import annotations

import base64
import contextlib
import functools
import gc
import gzip
import hashlib
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from graphcheck.errors import GraphcheckError
from graphcheck.reporting import blamed, charts, families, patchart, rewritten, views, words
from graphcheck.verdict import Verdict

MAX_SCRIPT, LARGE = 60_000, 1_000_000


def _passes(result: dict[str, Any], *arguments: Any) -> Any:
    """The comparison with what the first pass made that changes the function."""
    if result["first"] is None:
        raise GraphcheckError(f"no pass of {words.short(result['tool'], 80)} changes the function: there is nothing to draw")
    return views.MAKERS["graphcheck/compare/1"](result["first"]["comparison"], *arguments)


MAKERS = views.MAKERS | {
    "graphcheck/demo/1": families.demo,
    "graphcheck/blame/1": blamed.blame,
    "graphcheck/passes/1": _passes,
}


class Blocks:
    """Data packed into the page, by id: JSON, gzip, base64; the script unpacks a block when it is asked for."""

    def __init__(self) -> None:
        self.items: list[tuple[str, str]] = []

    def add(self, name: str, data: Any) -> str:
        """Pack ``data`` under ``name`` and return it."""
        raw = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        level = 9 if len(raw) < LARGE else 7  # twice as fast, 2 % larger
        # No time stamp in the header: equal results give equal files.
        self.items.append((name, base64.b64encode(gzip.compress(raw, level, mtime=0)).decode()))
        return name


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("graphcheck.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )
    environment.filters |= {
        "number": words.number,
        "shape": words.shape,
        "size": words.size,
        "duration": words.duration,
        "probability": words.probability,
        "cosine": words.cosine,
        "short": words.short,
        "saying": words.saying,
        "vclass": words.verdict_class,
    }
    environment.tests["unequal"] = lambda counts: counts[0] != counts[1]
    environment.globals |= {
        "histogram": charts.histogram,
        "curve": charts.curve,
        "blame_curves": blamed.curves,
        "heatmap": charts.heatmap,
        "scatter": charts.scatter,
        "time_bars": charts.time_bars,
        "measured": views.measured,
        "nodelink": views.nodelink,
        "patch_picture": patchart.patch_picture,
        "filters_picture": patchart.filters_picture,
        "region_picture": rewritten.region_picture,
        "site_graphs": rewritten.site_graphs,
        "ranks": views.ranks,
        "FLOATS": words.FLOATS,
        "STATUS": words.STATUS,
        "VERDICTS": [name for name in words.VERDICTS if name in set(Verdict)],  # not those of blame
    }
    return environment


@functools.cache
def asset(suffix: str) -> str:
    """The files whose names end so, one behind the other."""
    folder = resources.files("graphcheck.reporting") / "assets"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(suffix)), key=lambda f: f.name)
    return "\n".join(f.read_text(encoding="utf-8") for f in files)


def script() -> str:
    """The page's own script, all files as one function scope."""
    return '"use strict";(() => {\n' + asset(".js") + "\n})();"


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def policy(css: str, js: str, plain: str) -> str:
    """The Content-Security-Policy: these styles, this script, pictures written into the file, and nothing else."""
    return (
        f"default-src 'none'; script-src {_digest(js)}; style-src {_digest(css)} {_digest(plain)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def fragment(template: str, **context: Any) -> Markup:
    """A rendered, escaped template."""
    return Markup(_environment().get_template(template).render(**context))


def render(results: list[dict[str, Any]]) -> str:
    """See ``graphcheck.reporting.render``."""
    if not results:
        raise GraphcheckError("no result to report: give at least one JSON file of compare, analyze, rewrite, blame or demo")
    with _uncollected():
        return _render(results)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: a large report makes millions of small objects that all stay until its end."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def _render(results: list[dict[str, Any]]) -> str:
    blocks = Blocks()
    made = []
    for i, result in enumerate(results):
        schema = result.get("schema") if isinstance(result, dict) else None
        maker = MAKERS.get(str(schema))
        if maker is None:
            known = ", ".join(MAKERS)
            raise GraphcheckError(f"schema {words.short(schema, 80)!r} is unknown to this report, which reads {known}")
        try:
            made.append(maker(words.clean(result), f"r{i}" if len(results) > 1 else "", blocks.add, fragment))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            raise GraphcheckError(
                f"result {i + 1} ({schema}) lacks or garbles {error!s:.120}, so no report was made of it"
            ) from error
    if len(made) == 1:
        body, title = made[0].html, made[0].title
    else:
        blocks.add("views", {view.id: view.html for view in made})
        names, cells = families.crossed(made, results)
        body, title = fragment("many.html.j2", views=made, names=names, cells=cells), f"{len(made)} results"
    css, js, plain = asset(".css"), script(), "#theme,.stage,.jsonly{display:none}"
    return str(
        fragment(
            "page.html.j2",
            title=title,
            views=made,
            body=body,
            css=Markup(css),
            js=Markup(js),
            plain=Markup(plain),
            policy=policy(css, js, plain),
            blocks=blocks.items,
        )
    )
