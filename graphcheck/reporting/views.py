"""One view for each kind of result: what its template needs, computed from the JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup, escape

from graphcheck.reporting import graphs, patchart, words
from graphcheck.words import plural

Add = Callable[[str, Any], str]
Fragment = Callable[..., Markup]
Pair = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class View:
    """A part of the page: what an index says of it, and its HTML."""

    id: str
    kind: str
    title: str
    verdict: str | None
    line: str
    html: Markup


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the script needs to draw graphs: names of data blocks, keys in them, and the names of the two sides."""

    block: str
    store: str
    a: str
    b: str = ""
    key: str = ""
    name_a: str = ""
    name_b: str = ""


def nodelink(name: object, ids: dict[str, int] | None, side: str, view: str = "") -> Markup:
    """The name of a node, as a link to it in the drawing of ``view`` where that drawing has it."""
    text = f"<code>{escape(words.short(name, 80))}</code>"
    ident = (ids or {}).get(str(name))
    if ident is None:
        return Markup(text)
    return Markup(f'<a href="#{escape(view)}{";" if view else ""}node={side}:{ident}" class="nodelink">{text}</a>')


def file_name(model: dict[str, Any] | None) -> str:
    """The last part of a model's path; "model in memory" without one."""
    path = (model or {}).get("path")
    return str(path).replace("\\", "/").rsplit("/", 1)[-1] if path else "model in memory"


def compare(
    result: dict[str, Any],
    ident: str,
    add: Add,
    fragment: Fragment,
    family: tuple[Stage | None, Pair, str] | None = None,
) -> View:
    """The view of one pair, its graphs packed with it.

    ``family`` is for a pair of many: its graphs, packed elsewhere, the same as data, and a title; the models are then
    described elsewhere too.
    """
    pair: Pair = result.get("graphs") or {}
    stage, title = None, ""
    if family is not None:
        stage, pair, title = family
    elif pair.get("a") and pair.get("b"):
        data = pair_drawing(result, pair["a"], pair["b"])
        stage = Stage(add(f"{ident}drawing", data), add(f"{ident}graphs", pair), "a", "b")
    if stage is not None:
        stage = dataclasses.replace(stage, name_a=file_name(result.get("a")), name_b=file_name(result.get("b")))
    title = title or f"{file_name(result.get('a'))} and {file_name(result.get('b'))}"
    html = fragment(
        "compare.html.j2",
        r=result,
        ident=ident,
        stage=stage,
        title=title,
        ids={s: ids_of(pair.get(s)) for s in "ab"},
        curve_data=_curve(result, pair),
        worst=worst(result),
        brief=family is not None,
    )
    return View(ident, "compare", title, str(result["verdict"]), str(result.get("reason") or ""), html)


def pair_drawing(
    result: dict[str, Any],
    a: dict[str, Any],
    b: dict[str, Any],
    known: graphs.Sides | None = None,
    limit: int | None = None,
) -> dict[str, Any]:
    """The packed drawing of a pair with its deviations."""
    made = graphs.drawings(
        a,
        b,
        alignment=result.get("alignment") or _mapped(result, a, b),
        interface=result.get("interface"),
        divergence=result.get("divergence"),
        known=known,
        limit=limit,
        rounded=result.get("verdict") == "within-rounding",
    )
    return {"drawings": made, "deviations": graphs.deviations(result.get("numeric"))}


def _mapped(result: dict[str, Any], a: dict[str, Any], b: dict[str, Any]) -> list[list[Any]]:
    """The alignment of identical graphs, from the names of the mapped nodes."""
    if result.get("verdict") != "identical":
        return []
    ids_a, ids_b = ids_of(a), ids_of(b)
    pairs = (result.get("structure") or {}).get("mapping") or []
    return [[ids_a[x], ids_b[y], "same"] for x, y in pairs if x in ids_a and y in ids_b]


def _curve(result: dict[str, Any], pair: Pair) -> list[dict[str, Any]]:
    """The divergence curve in the order of A's nodes, each point with its node."""
    points = (result.get("numeric") or {}).get("curve") or []
    if not pair.get("a"):
        return list(points)
    maker = {name: n["id"] for n in pair["a"]["nodes"] for name in n["outputs"]}
    ordered = sorted(points, key=lambda p: maker.get(p.get("a"), 1 << 60))
    return [p | {"node": maker.get(p.get("a"))} for p in ordered]


def _units(out: dict[str, Any]) -> dict[str, float]:
    """What one ulp of the output's largest magnitude, and one spread, are as deviations."""
    found = {}
    for name, key in (("1 ulp", "scale_ulp"), ("spread", "spread_units")):
        if words.is_number(out.get(key)) and out[key] > 0 and words.is_number(out.get("max_abs")):
            found[name] = out["max_abs"] / out[key]
    return found


def worst(result: dict[str, Any]) -> list[dict[str, Any]]:
    """For each pair of outputs, the run that deviates most for its size, which is the one that pictures were made of."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    spreads: dict[tuple[str, str], float] = {}
    for run in (result.get("numeric") or {}).get("runs") or []:
        for out in run.get("outputs") or []:
            key = (str(out.get("a")), str(out.get("b")))
            if words.is_number(out.get("spread_units")):
                spreads[key] = max(spreads.get(key, 0.0), out["spread_units"])
            if key not in best or _apart(out) > _apart(best[key]):
                best[key] = out | {"side_note": f"{run.get('side_note')}, {_fed(run.get('inputs') or {})}"}
    return [out | {"units": _units(out), "most_spreads": spreads.get(key)} for key, out in best.items()]


def _apart(out: dict[str, Any]) -> tuple[float, ...]:
    sizes = [float(out[k]) if words.is_number(out.get(k)) else -1.0 for k in ("scale_ulp", "max_abs")]
    return (float("scatter" in out), *sizes)


def _fed(inputs: dict[str, Any]) -> str:
    """What a run was fed, in a few words."""
    if inputs.get("distribution") == "given":
        return "the inputs given"
    scale, signs = inputs.get("scale"), inputs.get("signs")
    parts = [f"{inputs.get('distribution')} inputs"]
    parts += [f"scale {words.number(scale)}"] if words.is_number(scale) and scale != 1 else []
    parts += [f"{signs} only"] if signs in ("positive", "negative") else []
    return ", ".join([*parts, f"seed {inputs.get('seed')}"])


def analyze(result: dict[str, Any], ident: str, add: Add, fragment: Fragment) -> View:
    """The view of one model: its patch embeddings drawn, its refusals, its graph. Ordinary convolutions are counted alone."""
    known = result.get("patch_embeddings") or []
    result = result | {"patch_embeddings": [site for site in known if not site.get("ordinary")]}
    graph, back = result.get("graph"), result.get("patch_unembeddings") or []
    moved = [patchart.moved(row) for row in result.get("movements") or [] if row.get("site") is None]
    stage = None
    if graph:
        marks = marks_of(result, result.get("patch_embeddings"), back, moved)
        data = {"drawings": graphs.drawings(graph, marks={"a": marks})}
        stage = Stage(
            add(f"{ident}drawing", data),
            add(f"{ident}graphs", {"a": graph}),
            "a",
            name_a=file_name(result.get("model")),
        )
    title = file_name(result.get("model"))
    line = found(result | {"patch_embeddings": known})
    html = fragment(
        "analyze.html.j2",
        r=result,
        ident=ident,
        stage=stage,
        title=title,
        line=line,
        moved=list(zip(moved, image_sizes({**result, "patch_embeddings": moved, "patch_unembeddings": []}), strict=True)),
        sizes=image_sizes(result),
        ids=ids_of(graph),
    )
    return View(ident, "analyze", title, None, line, html)


def found(result: dict[str, Any]) -> str:
    """How many patch embeddings, un-embeddings and ordinary convolutions an analysis found, as a phrase."""
    known, back = result.get("patch_embeddings") or [], result.get("patch_unembeddings") or []
    count = len([site for site in known if not site.get("ordinary")])
    besides = f" and {plural(len(back), 'patch un-embedding')}" if back else ""
    bare = len([row for row in result.get("movements") or [] if row.get("site") is None])
    ordinary = f", and {plural(len(known) - count, 'ordinary convolution')}" if len(known) > count else ""
    moved = f", and {plural(bare, 'movement')} without a projection" if bare else ""
    return f"{plural(count, 'patch embedding')}{besides} found{ordinary}{moved}"


def marks_of(
    result: dict[str, Any],
    sites: list[dict[str, Any]] | None,
    back: Sequence[dict[str, Any]] = (),
    moved: Sequence[dict[str, Any]] = (),
) -> dict[str, str]:
    """Words for the nodes of sites, of bare movement, and for those refused, by name."""
    marks = {str(r.get("node")): "refused" for r in result.get("refusals") or []}
    for word, found in (("movement", moved), ("patch un-embedding", back), ("patch embedding", sites or ())):
        marks |= {str(name): word for site in found for name in site.get("nodes") or []}
    return marks


def ids_of(graph: dict[str, Any] | None) -> dict[str, int]:
    """The ids of a graph's nodes by their names."""
    return {str(n["name"]): int(n["id"]) for n in graph["nodes"]} if graph else {}


def image_sizes(result: dict[str, Any]) -> list[tuple[int, int]]:
    """Height and width of the image that each site reads or, an un-embedding, writes, from its shape and layout; 224 where
    unknown.

    The patch embeddings come first, and the un-embeddings behind them.
    """
    model, graph = result.get("model") or {}, result.get("graph") or {}
    tensors = graph.get("tensors") or {}
    out = []
    for site in [*(result.get("patch_embeddings") or []), *(result.get("patch_unembeddings") or [])]:
        end = "output" if patchart.is_back(site) else "input"
        named = [each for each in model.get(f"{end}s") or [] if each.get("name") == site.get(end)]
        shapes = [(tensors.get(site.get(end)) or {}).get("shape"), *(each.get("shape") for each in named)]
        shape: list[Any] = next((s for s in shapes if isinstance(s, list) and len(s) == 4), [])
        layout = str(site.get("layout") or "NCHW")
        dims = [shape[layout.index(axis)] for axis in "HW"] if shape and sorted(layout) == sorted("NCHW") else []
        out.append(
            (dims[0], dims[1]) if len(dims) == 2 and all(isinstance(d, int) and d > 0 for d in dims) else (224, 224)
        )
    return out


def rewrite(result: dict[str, Any], ident: str, add: Add, fragment: Fragment) -> View:
    """The view of one rewrite: each site before and after, its times and checks, and both models."""
    title = f"{file_name(result.get('model'))} to {result.get('to')}"
    sites = [s.get("site") or {} for s in result.get("sites") or []]
    pair: Pair = result.get("graphs") or {}
    stage = None
    if pair.get("a"):
        # Clicks on what stands before and after lead here, so both sides hold all nodes.
        made = graphs.drawings(
            pair["a"], pair.get("b"), alignment=result.get("alignment") or [], marks={"a": marks_of(result, sites)}
        )
        stage = Stage(add(f"{ident}drawing", {"drawings": made}), add(f"{ident}graphs", pair), "a")
        if pair.get("b"):
            stage = dataclasses.replace(stage, b="b", name_a="before", name_b="after")
    html = fragment(
        "rewrite.html.j2",
        r=result,
        ident=ident,
        title=title,
        stage=stage,
        sizes=image_sizes({"model": result.get("model"), "patch_embeddings": sites}),
        ids=ids_of(pair.get("a")),
        linked=True,
    )
    return View(ident, "rewrite", title, result.get("verdict"), str(result.get("reason") or ""), html)


def ranks(site: dict[str, Any]) -> dict[str, int]:
    """The largest rank of a tensor of a site, before and after."""
    found = {when: [t["rank"] for t in site.get(when) or [] if words.is_number(t.get("rank"))] for when in _WHEN}
    return {when: max(ranks) for when, ranks in found.items() if ranks}


_WHEN = ("before", "after")


def measured(site: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(form, times) of one site that ``--to fastest`` measured, the chosen form marked."""
    return [
        (
            f"{row['form']}{' ✓' if row['form'] == site.get('chosen') else ''}",
            {"median": row.get("median"), "min": row.get("lower"), "max": row.get("upper")},
        )
        for row in site.get("forms") or []
        if not row.get("untimed")
    ]


MAKERS: dict[str, Callable[[dict[str, Any], str, Add, Fragment], View]] = {
    "graphcheck/compare/1": compare,
    "graphcheck/analyze/1": analyze,
    "graphcheck/rewrite/1": rewrite,
}
