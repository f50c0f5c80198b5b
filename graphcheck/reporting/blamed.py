"""The view of a blame: the network with the ratio painted on it, drift beside local deviation, a picture of each convicted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from graphcheck.reporting import graphs
from graphcheck.reporting.charts import BAND, drawing, tag
from graphcheck.reporting.views import Stage, View, file_name, ids_of
from graphcheck.reporting.words import UNJUDGED, is_number, number, saying

_MOST = 240  # points that are drawn


def blame(result: dict[str, Any], ident: str, add: Callable[[str, Any], str], fragment: Callable[..., Markup]) -> View:
    """The view of one device's dump."""
    graph, stage = result.get("graph"), None
    title = file_name({"path": result.get("model")})
    if graph:
        marks = {str(row["node"]): "suspect" for row in result["suspect"]}
        marks |= {str(row["node"]): "convicted" for row in result["convicted"]}
        rows = [row for row in result["curve"] if is_number(row["local"]) and is_number(row["bound"])]
        data = {
            "drawings": graphs.drawings(graph, marks={"a": marks}),
            "deviations": {row["tensor"]: [row["local"], row["bound"] / BAND] for row in rows},
        }
        stage = Stage(add(f"{ident}drawing", data), add(f"{ident}graphs", {"a": graph}), "a", name_a=title)
    say = UNJUDGED if result["verdict"] == "undecided" else saying(result["verdict"])
    html = fragment("blame.html.j2", r=result, ident=ident, stage=stage, title=title, ids=ids_of(graph), say=say)
    return View(ident, "blame", title, str(result["verdict"]), str(result.get("reason") or ""), html)


def curves(points: list[dict[str, Any]]) -> Markup | None:
    """Drift and local deviation of each tensor along the depth, and the bound, on a log scale."""
    lines = {key: [(i, p[key]) for i, p in enumerate(points) if is_number(p.get(key))] for key in ("bound", "drift", "local")}
    positive = [v for line in lines.values() for _, v in line if v > 0]
    if len(points) < 2 or not positive:
        return None
    width, height, left, base = 760, 240, 56, 204
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)) + 0.05)
    low, high = max(low, high - 12), max(high, low + 1)

    def at(i: int, value: float) -> str:
        x = left + i * (width - left - 12) / (len(points) - 1)
        return f"{x:.1f},{base - (math.log10(max(value, 10.0**low)) - low) / (high - low) * (base - 14):.1f}"

    parts = []
    for power in range(low, high + 1, max(1, math.ceil((high - low) / 6))):
        y = at(0, 10.0**power).split(",")[1]
        parts += [tag("line", x1=left, x2=width - 12, y1=y, y2=y, class_="grid")]
        parts += [tag("text", f"1e{power}", x=left - 6, y=float(y) + 4, class_="tick end")]
    band = lines["bound"]
    if len(band) > 1:
        outline = " ".join(at(i, v) for i, v in band)
        first, last = (at(i, 1.0).split(",")[0] for i in (band[0][0], band[-1][0]))
        parts.append(tag("polygon", points=f"{first},{base} {outline} {last},{base}", class_="spread"))
    for key, css in (("drift", "curve dashed"), ("local", "curve")):
        step = max(1, len(lines[key]) // _MOST)
        groups = [lines[key][begin : begin + step] for begin in range(0, len(lines[key]), step)]
        tops = [max(group, key=lambda pair: pair[1]) for group in groups]
        if len(tops) > 1:
            parts.append(tag("polyline", points=" ".join(at(i, v) for i, v in tops), class_=css))
    for i, point in enumerate(points):
        if is_number(point.get("local")) and is_number(point.get("bound")) and point["local"] > point["bound"]:
            x, y = at(i, point["local"]).split(",")
            tip = tag("title", f"{point['tensor']}: {number(point['local'])}, explained {number(point['bound'])}")
            parts.append(tag("circle", tip, cx=x, cy=y, r=3.4, class_="dot over"))
    parts.append(tag("text", "depth of the network, first tensor to last", x=(width + left) / 2, y=height - 8, class_="tick mid"))
    return drawing(width, height, "Drift and local deviation along the network, log scale", *parts, css="chart wide")
