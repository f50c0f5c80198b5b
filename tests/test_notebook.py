"""What a notebook shows of each result: complete, escaped, without scripts and addresses, light and dark."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import graphcheck
from graphcheck.verdict import Comparison, Verdict
from tests.unpatch_table import cases

HOSTILE = "<script>alert(1)</script>\"'&\x1b[31m\u202e"
CONV = """<ir_version: 10, opset_import: ["": 21]> net (float[1,3,32,32] x) => (float[1,4,2,2] y)
{ y = Conv <strides = [16, 16]> (x, w) }"""


def conv(name: str = "node", wrong: float = 0.0) -> onnx.ModelProto:
    """A patch embedding whose one node has a name."""
    model = onnx.parser.parse_model(CONV)
    weight = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    weight[0, 0, 0, 0] += wrong
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    model.graph.node[0].name = name
    return model


def results(name: str = "node") -> dict[str, Any]:
    """One of each kind."""
    model, x = conv(name), np.ones((1, 3, 32, 32), np.float32)
    return {
        "compare": graphcheck.compare(model, conv(name, 1.0)),
        "analyze": graphcheck.analyze(model),
        "rewrite": graphcheck.rewrite(model, "matmul"),
        "blame": graphcheck.blame(model, {"x": x, "y": np.ones((1, 4, 2, 2), np.float32)}),
    }


SHOWN = {
    "compare": ("different", "first apart in B: Conv", "max ulp", "Histogram of deviations"),
    "analyze": ("1 patch embedding found", "16×16", "NCHW", "one patch"),
    "rewrite": ("proved", "matmul", "by congruence", "one patch"),
    "blame": ("convicted", "is wrong", "explained"),
}


def test_each_result_shows_its_verdict_its_table_and_its_picture() -> None:
    for kind, result in results().items():
        html = result._repr_html_()
        assert all(text in html for text in SHOWN[kind]), kind
        assert "<table>" in html and ("<svg" in html) == (kind != "blame"), kind  # one tensor makes no curve


def test_nothing_in_a_name_is_markup_and_nothing_is_fetched() -> None:
    for kind, result in results(HOSTILE).items():
        html = result._repr_html_()
        assert "alert(1)" in html and "<script" not in html and "\x1b" not in html, kind
        assert "http" not in html and not re.search(r"(src|href)=\"(?!data:image/png)|url\(|@import|onload", html), kind


def test_what_was_not_rewritten_and_what_was_not_run_has_no_picture() -> None:
    left = graphcheck.rewrite(conv(), "conv")._repr_html_()
    assert "Nothing was rewritten" in left and "<svg" not in left
    bare = Comparison(Verdict.UNDECIDED, "why", {})._repr_html_()
    assert "undecided" in bare and "why" in bare and "<table>" not in bare and "<svg" not in bare


def test_the_picture_has_the_size_of_the_image_and_an_un_embedding_is_told() -> None:
    told = graphcheck.rewrite(conv(), "matmul")._repr_html_()
    assert ">32 × 32 image, 2 × 2 = 4 patches" in told
    back = graphcheck.analyze(cases()["espcn"][0])._repr_html_()
    assert "No patch embeddings and 1 patch un-embedding found" in back and "b c (h p1) (w p2)" in back
    assert ">for example a 224 × 224 image, 112 × 112 = 12544 patches" in back and "(c p1 p2), become the patch" in back


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_light_and_dark_and_leaves_the_page_alone(scheme: Any, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    blocks = "".join(result._repr_html_() for result in results().values())
    themes = {"light": 'data-jp-theme-light="true"', "dark": 'data-jp-theme-light="false"', None: ""}
    for said, attribute in themes.items():
        page_file = tmp_path / "page.html"
        page_file.write_text(
            f"<table id=own><tr><td>own</td></tr></table><div {attribute}>{blocks}</div>", encoding="utf-8"
        )
        with sync_api.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
            page = browser.new_page(color_scheme=scheme)
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(page_file.as_uri())
            dark = (said or scheme) == "dark"
            style = "e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).color]"
            assert page.locator(".graphcheck-result").count() == 4
            ground, ink = (
                sum(map(int, re.findall(r"\d+", c)[:3]))
                for c in page.locator(".graphcheck-result").first.evaluate(style)
            )
            assert (ground < 200) == dark and (ink > 500) == dark
            own = page.locator("#own td").evaluate("e => getComputedStyle(e).borderBottomWidth")
            assert (
                own == "0px"
                and page.locator(".graphcheck-result td").first.evaluate("e => getComputedStyle(e).borderBottomWidth")
                == "1px"
            )
            assert all(url.startswith(("file:", "data:")) for url in asked)
            browser.close()
