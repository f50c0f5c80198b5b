"""One result as a notebook shows it: the verdict, a table and a small picture, without scripts and without a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from graphcheck.reporting import blamed, charts, page, patchart, views, words
from graphcheck.words import plural

_ROWS = 12
# Light and dark follow the page where it says which it is (JupyterLab, nbconvert, VS Code, Colab), else the reader's system.
_THEMES = {
    "light": '[data-jp-theme-light="true"] &, .vscode-light &, html[theme="light"] &',
    "dark": '[data-jp-theme-light="false"] &, .vscode-dark &, html[theme="dark"] &',
}
_OWN = """
  display: block; max-width: 860px; padding: 12px 16px; border: 1px solid var(--line); border-radius: 10px;
  background: var(--surface); color: var(--ink); font: 14px/1.5 var(--sans);
  .verdict { font-weight: 650; color: var(--v); } .v-none { --v: var(--ink); }
  .reason, .more { margin: 4px 0 8px; color: var(--ink); overflow-wrap: anywhere; } .more { color: var(--ink2); }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; font-size: 13px; margin: 0 0 8px; color: var(--ink); }
  th, td { text-align: left; padding: 3px 14px 3px 0; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
  td + td { overflow-wrap: break-word; }
  th { color: var(--ink2); font-weight: 500; white-space: nowrap; } td { font-variant-numeric: tabular-nums; }
"""
Row = Sequence[object]


def html(result: dict[str, Any]) -> Markup:
    """The HTML of a result of compare, analyze, rewrite or blame, every text in it escaped."""
    result = words.clean(result)
    kind = str(result["schema"]).split("/")[1]
    head, rows, picture = {"compare": _compared, "analyze": _analyzed, "rewrite": _rewritten, "blame": _blamed}[kind](
        result
    )
    rows, refusals = (
        [[words.short(words.number(cell), 80) for cell in row] for row in rows],
        result.get("refusals") or [],
    )
    parts = {side.upper(): (result.get("divergence") or {}).get(side) for side in "ab"}
    notes = [
        f"first apart in {side}: {at['op_type']} {at['node']}, tensor {at['tensor']}"
        for side, at in parts.items()
        if at
    ]
    notes += [f"{plural(len(rows) - _ROWS, 'row')} more"] if len(rows) > _ROWS else []
    notes += [f"{words.short(refusal['node'], 80)}: {refusal['reason']}" for refusal in refusals[:3]]
    notes += [f"{plural(len(refusals) - 3, 'refusal')} more"] if len(refusals) > 3 else []
    verdict = result.get("verdict")
    said = None if verdict is None else words.saying(verdict)
    plain = views.found(result).capitalize() if kind == "analyze" else "Nothing was rewritten"
    return page.fragment(
        "notebook.html.j2",
        css=Markup(_style()),
        verdict=verdict,
        title=f"{said.glyph} {verdict}: {said.headline}" if said else plain,
        reason=result.get("reason"),
        head=head,
        rows=rows[:_ROWS],
        notes=notes,
        picture=picture,
    )


def _style() -> str:
    """Styles that reach nothing else in the page: all are nested in the class of the block."""
    colours = page.asset("colours.css").replace(":root", "&")
    schemes = "".join(f"{where} {{ color-scheme: {scheme}; }}\n" for scheme, where in _THEMES.items())
    verdicts = " ".join(
        f".v-{name} {{ --v: var(--{own}); }}"
        for name in words.VERDICTS
        for own in [{"clean": "proved", "convicted": "different"}.get(name, name)]
    )
    return f".graphcheck-result {{ all: initial; {colours} {schemes} {_OWN} {verdicts} {page.asset('charts.css')} }}"


def _compared(result: dict[str, Any]) -> tuple[Row, Iterable[Row], Markup | None]:
    worst = views.worst(result)
    rows = [
        (o.get("a"), words.shape(o.get("shape")), *(o.get(k) for k in ("max_abs", "max_ulp", "most_spreads")))
        for o in worst
    ]
    picture = charts.curve((result.get("numeric") or {}).get("curve"))
    if picture is None and worst:
        top = max(worst, key=lambda o: o["max_abs"] if words.is_number(o.get("max_abs")) else -1.0)
        picture = charts.histogram(top.get("histogram"), top.get("units"))
    return ("output", "shape", "max abs", "max ulp", "spreads"), rows, picture


def _sites(result: dict[str, Any], sites: Sequence[dict[str, Any]]) -> tuple[list[list[object]], Markup | None]:
    rows: list[list[object]] = [
        [s["node"], s["form"], words.shape(s["kernel_shape"]), words.shape(s["strides"]), s["layout"], s["pattern"]]
        for s in sites
    ]
    first = next((s for s in sites if not s["ordinary"]), None)
    if first is None:
        return rows, None
    alone = {**result, "patch_embeddings": [first], "patch_unembeddings": []}
    return rows, patchart.patch_picture(first, *views.image_sizes(alone)[0], assumed="model" not in result)


def _analyzed(result: dict[str, Any]) -> tuple[Row, Iterable[Row], Markup | None]:
    rows, picture = _sites(result, [*result["patch_embeddings"], *result["patch_unembeddings"]])
    return ("node", "form", "kernel", "strides", "layout", "pattern"), rows, picture


def _rewritten(result: dict[str, Any]) -> tuple[Row, Iterable[Row], Markup | None]:
    rows, picture = _sites(result, [row["site"] for row in result["sites"]])
    made = [[*row[:2], applied["to"], *row[2:]] for row, applied in zip(rows, result["sites"], strict=True)]
    return ("node", "from", "to", "kernel", "strides", "layout", "pattern"), made, picture


def _blamed(result: dict[str, Any]) -> tuple[Row, Iterable[Row], Markup | None]:
    rows = [
        (r["node"], r["op_type"], r["output"], r["deviation"], r["bound"], (r["looks_like"] or {}).get("name"))
        for r in result["convicted"]
    ]
    return ("node", "operator", "output", "deviation", "explained", "looks like"), rows, blamed.curves(result["curve"])
