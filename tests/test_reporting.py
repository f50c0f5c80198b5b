"""The report as text: escaped, closed to the network, complete without scripts, equal for equal results."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html.parser
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_reporting_data import HOSTILE, LONG, SAMPLES, analyze, compare, demo, mutant, renamed, rewrite, transformer

from graphcheck import reporting
from graphcheck.errors import GraphcheckError
from graphcheck.reporting import families, page, words
from graphcheck.verdict import Verdict

VOID = {"meta", "link", "br", "input", "img"}
ALLOWED_PARENT = {
    "tr": {"thead", "tbody"},
    "td": {"tr"},
    "th": {"tr"},
    "li": {"ul", "ol"},
    "dd": {"div", "dl"},
    "dt": {"div", "dl"},
    "figcaption": {"figure"},
}


class Checker(html.parser.HTMLParser):
    """Tags in order, with their attributes; complains about what is not closed, doubled or misplaced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.problems: list[str] = []
        self.text: list[str] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.ids: set[str] = set()
        self.feed(text)
        self.close()
        if self.stack:
            self.problems.append(f"not closed: {self.stack}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {k: v or "" for k, v in attrs}
        if len(found) != len(attrs):
            self.problems.append(f"{tag} has an attribute twice: {attrs}")
        parent = self.stack[-1] if self.stack else ""
        if parent not in ALLOWED_PARENT.get(tag, {parent}):
            self.problems.append(f"{tag} in {parent}")
        if "p" in self.stack and tag in (
            "p",
            "div",
            "ul",
            "ol",
            "dl",
            "table",
            "section",
            "h2",
            "h3",
            "figure",
            "details",
        ):
            self.problems.append(f"{tag} inside p")
        if (ident := found.get("id")) is not None:
            if not ident or ident in self.ids:
                self.problems.append(f"id {ident!r} empty or twice")
            self.ids.add(ident)
        self.tags.append((tag, found))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "script":
            self.scripts.append((self.tags[-1][1], data))
        elif not self.stack or self.stack[-1] != "style":
            self.text.append(data)


def blocks(checked: Checker) -> dict[str, Any]:
    """The packed data of a page, by id."""
    return {
        a["id"]: json.loads(gzip.decompress(base64.b64decode(d)))
        for a, d in checked.scripts
        if a.get("type") == "application/gzip"
    }


@pytest.mark.parametrize("name", SAMPLES)
def test_page_is_valid_and_says_what_it_is(name: str) -> None:
    result = SAMPLES[name]()
    checked = Checker(reporting.render([result]))
    assert checked.problems == []
    text = " ".join(checked.text)
    if verdict := result.get("verdict"):
        assert words.VERDICTS[verdict].headline in text or name == "rewrite"
        assert result["reason"] in text


def text_of(result: dict[str, Any]) -> str:
    return " ".join(" ".join(Checker(reporting.render([result])).text).split())


def test_ordinary_convolutions_are_counted_and_are_no_patch_embeddings() -> None:
    result = analyze()
    (found,) = result["patch_embeddings"]
    assert "1 patch embedding found, and 2 ordinary convolutions" in text_of(
        result | {"patch_embeddings": [found, *[found | {"ordinary": True}] * 2]}
    )
    alone = text_of(result | {"patch_embeddings": [found | {"ordinary": True}]})
    assert "No patch embeddings found, and 1 ordinary convolution" in alone and "None of its inputs is cut" in alone


def test_bare_movement_is_drawn_and_that_of_a_site_is_not() -> None:
    row = {"kind": "space-to-depth", "form": "reshape", "blocksize": 2, "channels": 3, "site": None}
    row |= {"pattern": "n c (h p1) (w p2) -> n (c p1 p2) h w", "input": "x", "output": "m", "nodes": ["Relu_2"]}
    back = {"kind": "depth-to-space", "pattern": "n (p1 p2 c) h w -> n c (h p1) (w p2)", "input": "m", "output": "x"}
    text = text_of(analyze() | {"movements": [row, row | back, row | {"site": "Conv_0"}]})
    assert "1 patch embedding found, and 2 movements without a projection" in text
    assert "Movement without a projection 2" in text and "Movement without a projection 3" not in text
    assert ": 12 numbers, in the order (c p1 p2)" in text
    assert "12 numbers, in the order (p1 p2 c), become the patch" in text
    assert "How a block of pixels becomes the channels at a place" in text
    unnamed = text_of(analyze() | {"movements": [row | {"pattern": None}]})
    assert "blocks 2×2" in unnamed and "channels at a place" not in unnamed


def test_the_constants_that_alone_separate_two_graphs_are_a_table() -> None:
    row = {"a": "w", "b": "w", "shape_a": [3, 4], "shape_b": [3, 4]}
    row |= {"elements": 12, "unequal": 5, "max_abs": 0.25, "max_ulp": 7.0}
    result = mutant() | {"changed": [row], "used": {"a": 10, "b": 10}}
    assert "1 of 10 differs, and the graphs in nothing else." in text_of(result)
    assert "w 3×4 5 12 0.25 7" in text_of(result)
    assert "Constants that differ" not in text_of(result | {"verdict": "proved"})


def test_checker_sees_what_is_wrong() -> None:
    assert (
        Checker("<div><p>x</div>").problems
        and Checker("<td>x</td>").problems
        and Checker('<p id="a"></p><p id="a"></p>').problems
    )


@pytest.mark.parametrize("name", SAMPLES)
def test_packed_views_are_valid_too(name: str) -> None:
    views = [
        b for k, b in blocks(Checker(reporting.render([SAMPLES[name](), compare()]))).items() if k.endswith("views")
    ]
    assert views and all(Checker(text).problems == [] for view in views for text in view.values())


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize(
    "suffix", [HOSTILE, LONG, "\u202e\u0007", "' onmouseover='x"], ids=["markup", "long", "bidi", "quote"]
)
def test_hostile_names_change_nothing(name: str, suffix: str) -> None:
    plain, hostile = (Checker(reporting.render([renamed(SAMPLES[name](), s)])) for s in ("", suffix))
    assert [(t, sorted(a)) for t, a in plain.tags] == [(t, sorted(a)) for t, a in hostile.tags]
    assert hostile.problems == []
    for ours, theirs in zip(blocks(plain).items(), blocks(hostile).items(), strict=True):
        if ours[0].endswith("views"):
            for one, other in zip(ours[1].values(), theirs[1].values(), strict=True):
                assert [(t, sorted(a)) for t, a in Checker(one).tags] == [
                    (t, sorted(a)) for t, a in Checker(other).tags
                ]


def test_long_text_does_not_make_a_large_file() -> None:
    assert len(reporting.render([renamed(compare(), LONG)])) < 400_000


def test_hostile_names_are_told_as_text() -> None:
    text = " ".join(Checker(reporting.render([compare(reason=HOSTILE)])).text)
    assert "</script><script>alert('x')</script>" in text and "{{ 7*7 }}" in text


@pytest.mark.parametrize("name", SAMPLES)
def test_policy_lets_nothing_else_in(name: str) -> None:
    text = reporting.render([SAMPLES[name]()])
    checked = Checker(text)
    policy = next(
        a["content"] for t, a in checked.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
    running = [d for a, d in checked.scripts if "type" not in a]
    assert len(running) == 1
    for kind, content in [
        ("script-src", running[0]),
        *(("style-src", s) for s in re.findall(r"<style>(.*?)</style>", text, re.S)),
    ]:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert re.search(rf"{kind}[^;]*'sha256-{re.escape(digest)}'", policy)
    for tag, attributes in checked.tags:
        assert not any(a == "style" or a.startswith("on") for a in attributes), (tag, attributes)
        for a in ("href", "src", "action", "srcset", "data", "xlink:href"):
            assert attributes.get(a, "#").startswith(("#", "data:")), (tag, attributes)


def test_own_script_is_small() -> None:
    assert 10_000 < len(page.script().encode()) <= page.MAX_SCRIPT


@pytest.mark.parametrize("verdict", words.VERDICTS)
def test_noscript_holds_the_verdict(verdict: str) -> None:
    noscript = "".join(re.findall(r"<noscript>(.*?)</noscript>", reporting.render([compare(verdict=verdict)]), re.S))
    assert verdict in noscript and words.VERDICTS[verdict].headline in noscript


def test_noscript_of_the_demo_lists_every_pair() -> None:
    noscript = "".join(re.findall(r"<noscript>(.*?)</noscript>", reporting.render([demo("within-rounding")]), re.S))
    assert noscript.count("<td>within-rounding</td>") == 3


def test_unknown_schema_is_named() -> None:
    with pytest.raises(GraphcheckError, match="'graphcheck/compare/99' is unknown"):
        reporting.render([compare(schema="graphcheck/compare/99")])
    with pytest.raises(GraphcheckError, match="unknown"):
        reporting.render([["no", "result"]])  # type: ignore[list-item]
    with pytest.raises(GraphcheckError, match="no result"):
        reporting.render([])


def test_garbled_result_is_one_sentence() -> None:
    broken = compare()
    del broken["verdict"]
    with pytest.raises(GraphcheckError, match=r"result 1 \(graphcheck/compare/1\) lacks or garbles 'verdict'"):
        reporting.render([broken])


@pytest.mark.parametrize(
    "key",
    [
        "numeric",
        "proof",
        "structure",
        "interface",
        "graphs",
        "alignment",
        "timings",
        "command",
        "witness",
        "divergence",
    ],
)
def test_missing_parts_leave_the_verdict(key: str) -> None:
    assert "The same function" in reporting.render([compare(**{key: None})])


def test_numbers_that_are_none_and_nan() -> None:
    result = compare()
    out = result["numeric"]["runs"][0]["outputs"][0]
    out |= {k: float("nan") for k in ("max_abs", "cosine", "spread_units")} | {
        "histogram": [[float("inf"), 1]],
        "heatmap": {"values": [[float("nan")]]},
    }
    checked = Checker(reporting.render([result]))
    assert checked.problems == [] and "NaN" in checked.text


def test_every_part_of_the_evidence_is_told() -> None:
    text = " ".join(Checker(reporting.render([compare()])).text)
    for expected in (
        "1×8",
        "below 10⁻¹²",
        "Erf is an unknown function",
        "4194301",
        "a new key",
        "output y is constant",
        "graphcheck compare a.onnx b.onnx",
        "0" * 64,
        "1.23.2",
        "N is 1",
    ):
        assert expected in text, expected


def test_same_result_same_file() -> None:
    assert reporting.render([mutant()]) == reporting.render([mutant()])


def test_many_results_have_an_index() -> None:
    checked = Checker(reporting.render([compare(), mutant(), analyze(), rewrite(), demo()]))
    links = [a["href"][1:] for t, a in checked.tags if t == "a" and re.fullmatch(r"#r\d", a["href"])]
    assert (
        checked.problems == []
        and links == ["r0", "r1", "r2", "r3", "r4"]
        and set(blocks(checked)["views"]) == set(links)
    )


def test_demo_cells_lead_to_their_pairs() -> None:
    checked = Checker(reporting.render([demo()]))
    cells = {a["href"][1:] for t, a in checked.tags if a.get("class", "").startswith("cell")}
    packed = blocks(checked)
    assert (
        len(cells) == 3
        and cells <= set(packed["f0-views"])
        and packed["f0-drawings"]
        and set(packed["f0-graphs"]) == {"t-conv", "t-matmul", "t-unfold"}
    )


def test_tallies_count_what_was_tried() -> None:
    result = demo()
    one, two, _ = result["families"][0]["variants"]
    one["rewrite_conv"] |= {"sites": [], "refusals": []}  # in that form already
    two["rewrite_conv"]["checks"][0]["ok"] = False
    assert families.tallies(result) == {"recognised": (3, 3), "rewritten to conv": (1, 2), "rewritten to matmul": (0, 0)}
    assert "1 failed" in " ".join(Checker(reporting.render([result])).text)


@pytest.mark.parametrize(
    ("names", "stem"),
    [(["t-a-x", "t-a-y"], "t-a-"), (["a", "ab"], ""), (["a-b"], ""), ([], ""), (["a-b", "a-b-c"], "a-")],
)
def test_stem_of_a_family(names: list[str], stem: str) -> None:
    assert families._stem(names) == stem


def test_write_is_atomic(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "report.html"
    reporting.write([compare()], target)
    before = target.read_text(encoding="utf-8")
    with pytest.raises(GraphcheckError):
        reporting.write([{"schema": "?"}], target)
    assert target.read_text(encoding="utf-8") == before and [p.name for p in target.parent.iterdir()] == ["report.html"]


def test_large_pair_stays_small() -> None:
    big = transformer(550)
    result = compare(big, big, [[n["id"], n["id"], "same"] for n in big["nodes"]])
    assert len(big["nodes"]) > 4_900 and len(reporting.render([result])) < 1_000_000


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, graphcheck.reporting; "
        "print([m for m in ('jinja2', 'networkx', 'fast_sugiyama', 'numpy', 'onnx') if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_every_text_colour_can_be_read_in_light_and_dark() -> None:
    """WCAG 2.2, success criterion 1.4.3: 4.5 to 1."""
    found = {m[1]: m.group(2, 3) for m in re.finditer(r"--([\w-]+): light-dark\((#\w+), (#\w+)\)", page.asset(".css"))}
    grounds = {name: found.pop(name) for name in ("bg", "surface", "raised")}
    texts = {name: pair for name, pair in found.items() if not name.startswith("line")}
    assert len(texts) > 10
    for (name, text), ground, scheme in itertools.product(texts.items(), grounds.values(), (0, 1)):
        dark, light = sorted((luminance(text[scheme]), luminance(ground[scheme])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, scheme)


def test_the_legend_of_families_has_the_verdicts_of_pairs() -> None:
    text = reporting.render([demo()])
    legend = text[text.index('<p class="legend">') :].partition("</p>")[0]
    assert all(verdict in legend for verdict in Verdict) and "convicted" not in legend
