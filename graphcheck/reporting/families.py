"""The index of many variants: a matrix for each family; its pairs and variants are packed as views of their own."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

from markupsafe import Markup

from graphcheck.reporting import graphs, views, words
from graphcheck.reporting.views import Add, Fragment, Pair, Stage, View

Cells = dict[tuple[str, str], tuple[str, dict[str, Any]]]
HIDDEN = 60
"""Most shape operators that a pair of many shows on demand; a report of that pair alone shows them all."""


def demo(result: dict[str, Any], ident: str, add: Add, fragment: Fragment) -> View:
    """The view of a demo's result."""
    families = [_Family(f, f"{ident}f{i}").pack(add, fragment) for i, f in enumerate(result.get("families") or [])]
    total: Counter[str] = sum((f["counts"] for f in families), Counter())
    html = fragment("demo.html.j2", r=result, ident=ident, families=families, total=total, tallies=tallies(result))
    line = ", ".join(f"{n} {v}" for v, n in total.most_common())
    return View(ident, "demo", "The variants and how they relate", None, line, html)


class _Family:
    """One family on its way into the page. Drawings that are alike are kept once, and of graphs what is drawn."""

    def __init__(self, family: dict[str, Any], prefix: str) -> None:
        self.family, self.prefix = family, prefix
        self.variants: list[dict[str, Any]] = family.get("variants") or []
        self.pairs: list[dict[str, Any]] = family.get("pairs") or []
        self.analyses = {str(v["name"]): v.get("analyze") or {} for v in self.variants}
        self.graphs = {name: found["graph"] for name, found in self.analyses.items() if found.get("graph")}
        self.known = graphs.Sides()
        self.drawings: dict[str, Any] = {}
        self.keys: dict[str, str] = {}
        self.drawn: dict[str, set[int]] = {name: set() for name in self.graphs}

    def pack(self, add: Add, fragment: Fragment) -> dict[str, Any]:
        """What the template needs of the family; its views, drawings and graphs are packed on the way."""
        packed: dict[str, Markup] = {}
        cells: Cells = {}
        for i, row in enumerate(self.pairs):
            a, b, key = str(row["a"]), str(row["b"]), f"{self.prefix}-pair-{i}"
            packed[key] = views.compare(row["compare"], key, add, fragment, self._pair(row, a, b)).html
            cells[a, b] = cells[b, a] = (key, row["compare"])
        times = self._times()
        for i, variant in enumerate(self.variants):
            key = f"{self.prefix}-variant-{i}"
            packed[key] = self._variant(variant, key, times, fragment)
        add(f"{self.prefix}-views", packed)
        add(f"{self.prefix}-drawings", self.drawings)
        add(f"{self.prefix}-graphs", {name: _shown(graph, self.drawn[name]) for name, graph in self.graphs.items()})
        names = [str(v["name"]) for v in self.variants]
        stem = _stem(names)
        drawn: dict[str, Any] = next((a for a in self.analyses.values() if a.get("patch_embeddings")), {})
        medians = [(v.get("time_ms") or {}).get("median") for v in self.variants]
        return {
            "f": self.family,
            "prefix": self.prefix,
            "names": {n: n[len(stem) :] for n in names},
            "cells": cells,
            "site": next(iter(drawn.get("patch_embeddings") or []), None),
            "size": next(iter(views.image_sizes(drawn)), None),
            "counts": Counter(str(row["compare"].get("verdict")) for row in self.pairs),
            "slowest": max((float(t) for t in medians if words.is_number(t)), default=0.0),
        }

    def _pair(self, row: dict[str, Any], a: str, b: str) -> tuple[Stage | None, Pair, str]:
        title = f"{a} and {b}"
        if a not in self.graphs or b not in self.graphs:
            return None, {}, title
        pair = {"a": self.graphs[a], "b": self.graphs[b]}
        data = views.pair_drawing(row["compare"], pair["a"], pair["b"], self.known, HIDDEN)
        return self._stage(data, a, b), pair, title

    def _variant(self, variant: dict[str, Any], key: str, times: list[tuple[str, Any]], fragment: Fragment) -> Markup:
        name = str(variant["name"])
        analysis = self.analyses[name]
        graph, stage = self.graphs.get(name), None
        if graph:
            marks = {"a": views.marks_of(analysis, analysis.get("patch_embeddings"))}
            stage = self._stage({"drawings": graphs.drawings(graph, marks=marks, known=self.known, limit=HIDDEN)}, name)
        context = {"v": variant, "ident": key, "sizes": views.image_sizes(analysis), "stage": stage, "times": times}
        return fragment("variant.html.j2", **context, ids=views.ids_of(graph))

    def _stage(self, data: dict[str, Any], a: str, b: str = "") -> Stage:
        text = json.dumps(data, separators=(",", ":"))
        key = self.keys.setdefault(text, str(len(self.keys)))
        self.drawings[key] = data
        for drawing in data["drawings"]:
            for kind, of_a, of_b, *_ in drawing["verts"]:
                for name, index in ((a, of_a), (b, of_b)) if kind == "n" else ():
                    if index is not None:
                        self.drawn[name].add(index)
        return Stage(f"{self.prefix}-drawings", f"{self.prefix}-graphs", a, b, key, a, b)

    def _times(self) -> list[tuple[str, Any]]:
        """The fastest variant of each form that is measured on one image, as (form, times)."""
        best: dict[str, Any] = {}
        for variant in self.variants:
            time, form = variant.get("time_ms") or {}, str(variant.get("form"))
            if words.is_number(time.get("median")) and variant.get("batch") != 2:
                best[form] = min(best.get(form, time), time, key=lambda t: float(t["median"]))
        return sorted(best.items(), key=lambda row: float(row[1]["median"]))


def _shown(graph: dict[str, Any], drawn: set[int]) -> dict[str, Any]:
    """The graph without nodes that no drawing shows, and without what only these read and write."""
    nodes = [n for n in graph["nodes"] if int(n["id"]) in drawn]
    names = {name for n in nodes for name in (*n["inputs"], *n["outputs"])} | {*graph["inputs"], *graph["outputs"]}
    return graph | {"nodes": nodes, "tensors": {k: t for k, t in graph["tensors"].items() if k in names}}


def crossed(made: list[View], results: list[dict[str, Any]]) -> tuple[dict[str, str], Cells]:
    """Names and cells of the matrix of saved comparisons; nothing where they are not many pairs of the same models."""
    pairs = [(v, r) for v, r in zip(made, results, strict=True) if v.kind == "compare"]
    cells: Cells = {}
    names: dict[str, None] = {}
    for view, result in pairs:
        a, b = (str(words.clean((result.get(s) or {}).get("path"))) for s in "ab")
        names |= dict.fromkeys((a, b))
        cells[a, b] = cells[b, a] = (view.id, result)
    if len(pairs) < 3 or len(names) > len(pairs) or "None" in names:
        return {}, {}
    return {name: views.file_name({"path": name}) for name in names}, cells


def _stem(names: list[str]) -> str:
    """What the names of a family begin with alike, up to a hyphen, so that it need not be said in every row."""
    if len(names) < 2:
        return ""
    columns = zip(*(name.split("-")[:-1] for name in names), strict=False)
    return "".join(f"{column[0]}-" for column in itertools.takewhile(lambda c: len(set(c)) == 1, columns))


def tallies(result: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(done, tried) of what the demo does to each variant."""
    variants = [v for f in result.get("families") or [] for v in f.get("variants") or []]
    out = {"recognised": (sum(bool((v.get("analyze") or {}).get("patch_embeddings")) for v in variants), len(variants))}
    for to in ("conv", "matmul"):
        results = [v[f"rewrite_{to}"] for v in variants if v.get(f"rewrite_{to}")]
        # What has the form already has neither site nor refusal: nothing was tried on it.
        tried = [r for r in results if r.get("sites") or r.get("refusals")]
        out[f"rewritten to {to}"] = (sum(passed(r) for r in tried), len(tried))
    return out


def passed(result: dict[str, Any]) -> bool:
    """Whether a rewrite did something and every check on it held."""
    return (
        bool(result.get("sites"))
        and result.get("verdict") != "different"
        and all(c.get("ok") is not False for c in result.get("checks") or [])
    )
