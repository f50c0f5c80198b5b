"""The report in a real browser: headless Chromium driven by playwright.

Where one of the two is missing these tests are skipped, and fail if GRAPHCHECK_REQUIRE_BROWSER is 1.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_reporting_data import (
    HOSTILE,
    SAMPLES,
    analyze,
    compare,
    demo,
    graph,
    matmul_graph,
    mutant,
    node,
    renamed,
    rewrite,
    transformer,
)

from graphcheck import reporting

pytestmark = pytest.mark.browser

Open = Callable[..., Any]


def missing(what: str) -> None:
    if os.environ.get("GRAPHCHECK_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{what} is missing, and GRAPHCHECK_REQUIRE_BROWSER is 1")
    pytest.skip(f"{what} is missing")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    with sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a page of results; at the end there must have been no console error and no request but the file itself."""
    contexts, trouble = [], []

    def open_page(*results: dict[str, Any], anchor: str = "", wait: str = ".canvas .box", **options: Any) -> Any:
        path = tmp_path / "report.html"
        reporting.write(list(results), path)
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: trouble.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: trouble.append(str(e)))
        page.on("dialog", lambda d: trouble.append(f"dialog: {d.message}"))
        page.on("request", lambda r: trouble.append(r.url) if not r.url.startswith((path.as_uri(), "data:")) else None)
        page.goto(path.as_uri() + anchor)
        if wait:
            page.locator(wait).first.wait_for(state="attached", timeout=120_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert trouble == []


def blocks(count: int = 12) -> dict[str, Any]:
    big = transformer(count)
    return compare(big, big, [[n["id"], n["id"], "same"] for n in big["nodes"]])


def texts(page: Any, selector: str) -> list[str]:
    found: list[str] = page.eval_on_selector_all(selector, "all => all.map(x => x.textContent)")
    return found


@pytest.mark.parametrize("name", SAMPLES)
def test_every_page_opens_without_trouble(show: Open, name: str) -> None:
    page = show(SAMPLES[name](), wait=".hero h1")
    page.wait_for_timeout(200)
    assert page.locator(".hero h1").first.is_visible()


def test_verdict_is_in_the_first_screen(show: Open) -> None:
    page = show(compare())
    box = page.get_by_role("heading", name="The same function").bounding_box()
    assert box["y"] + box["height"] < 300


def test_both_graphs_are_drawn_and_partners_are_opposite(show: Open) -> None:
    page = show(compare())
    assert (
        page.locator(".box .op", has_text="Conv").count() == 1
        and page.locator(".box .op", has_text="MatMul").count() == 1
    )
    left, right = (page.locator(f'[data-key="v{s}{v}"]') for s, v in zip("ab", [relu(page)] * 2, strict=True))
    assert abs(left.bounding_box()["y"] - right.bounding_box()["y"]) < 1


def relu(page: Any) -> int:
    key: str = page.locator(".box", has=page.locator(".op", has_text="Relu")).first.get_attribute("data-key")
    return int(key[2:])


def test_click_shows_attributes_and_partner(show: Open) -> None:
    page = show(compare())
    page.locator(f'[data-key="va{relu(page)}"]').click()
    panel = page.locator(".panel")
    assert panel.is_visible() and panel.locator("h3").inner_text() == "Relu"
    assert panel.locator('[data-side="a"]').get_by_text("Relu_2").is_visible()
    assert panel.locator('[data-side="b"]').get_by_text("Relu_3").is_visible()
    assert page.evaluate("location.hash") == "#node=a:2" and page.locator(".partner").count() == 1
    page.keyboard.press("Escape")
    assert not panel.is_visible()


def test_hovering_tells_op_shape_attributes_and_partner(show: Open) -> None:
    page = show(compare())
    title = page.locator(f'[data-key="va{relu(page)}"] title').text_content()
    assert title == "Relu Relu_2\naxis = 1\n1×N×?×8 float\nsame: Relu Relu_3 of B\ndeviation 3.0e-5, spread 2.0e-6"


def test_a_long_dim_is_shown_at_the_size_that_was_run_with_its_formula_on_hover(show: Open) -> None:
    result, formula = compare(), "floor(height/2 - 1/2) + 1"
    for name, tensor in result["graphs"]["a"]["tensors"].items():
        tensor |= {"shape": [1, "N", formula, 8], "sizes": [1, 2, 112, 8]} if name == "y" else {}
    page = show(result)
    box = page.locator(f'[data-key="va{relu(page)}"]')
    assert box.locator(".dims").text_content() == "1×N×112×8"
    assert f"1×N×112×8 as run\n1×N×{formula}×8 float" in box.locator("title").text_content()
    box.click()
    shown = page.locator('.panel [data-side="a"] .tensors b', has_text="112")
    assert shown.get_attribute("title") == f"1×N×{formula}×8"


def test_icons_are_drawn_and_no_signs_of_a_font(show: Open) -> None:
    page = show(blocks())
    assert page.locator("#theme svg").count() == 1 and page.locator("#theme").inner_text() == ""
    assert page.locator(".canvas .fold .turn").count() >= 1
    text = page.evaluate("document.body.textContent")
    assert not set(text) & set("◐☀☾▸▾⛶")


def test_search_finds_a_node_inside_a_fold(show: Open) -> None:
    page = show(blocks())
    assert page.locator(".box .op", has_text="Softmax").count() == 0
    page.keyboard.press("Tab")
    page.get_by_label("Search nodes").fill("layer/7/attention/Softmax")
    assert page.locator(".hits button").count() == 1
    page.keyboard.press("Enter")
    page.locator(".box.selected .op", has_text="Softmax").first.wait_for()
    assert "Softmax" in page.locator(".panel h3").inner_text()


def test_search_without_hit_says_so(show: Open) -> None:
    page = show(compare())
    page.get_by_label("Search nodes").fill("no such thing")
    assert page.locator(".hits").inner_text() == "no node has this in its name or op"


def test_blocks_fold_and_unfold(show: Open) -> None:
    page = show(blocks())
    assert texts(page, ".fold .times") == ["× 12"] * 2
    page.locator(".fold.many").first.click()
    page.locator(".fold .op", has_text="layer.0").first.wait_for()
    assert page.locator(".fold.many").count() == 0
    page.get_by_role("button", name="Unfold all (o)", exact=True).click()
    assert page.locator(".box .op", has_text="Softmax").count() > 1
    page.get_by_role("button", name="Fold all (c)", exact=True).click()
    assert texts(page, ".fold .times") == ["× 12"] * 2


def test_opens_at_the_first_divergence(show: Open) -> None:
    page = show(mutant(), wait=".box.divergence")
    view, node = page.locator(".view").bounding_box(), page.locator(".box.divergence").bounding_box()
    assert view["y"] < node["y"] < view["y"] + view["height"]
    assert texts(page, ".flagword") == ["first divergence"]


def test_link_opens_its_node(show: Open) -> None:
    page = show(blocks(), anchor="#node=b:40", wait=".box.selected")
    current = page.locator(".panel section.current")
    assert current.get_attribute("data-side") == "b" and "_40" in current.locator("dd").first.inner_text()


def test_shape_arithmetic_is_shown_on_demand(show: Open) -> None:
    nodes = [node(0, "Shape", ["x"], ["s"]), node(1, "Reshape", ["x", "s"], ["y"])]
    page = show(compare(graph(nodes, ["x"], ["y"]), matmul_graph(), []))
    assert page.locator(".box .op", has_text=re.compile("^Shape$")).count() == 0
    page.get_by_role("button", name="Show what depends on shapes").click()
    assert page.locator(".box .op", has_text=re.compile("^Shape$")).count() == 1
    page.get_by_role("button", name="Show what depends on shapes").click()
    page.get_by_label("Search nodes").fill("Shape_0")
    page.get_by_text("1 more among the shape ops").click()
    assert page.locator(".box .op", has_text=re.compile("^Shape$")).count() == 1


def test_link_may_name_its_node(show: Open) -> None:
    page = show(compare(), anchor="#node=b:Relu_3", wait=".box.selected")
    assert page.locator(".panel section.current").get_by_text("Relu_3").is_visible()
    page.goto(page.url.split("#")[0] + "#node=b:nobody%3B")
    page.get_by_text("No such node in this file").wait_for()


def test_many_pairs_of_the_same_models_are_a_matrix(show: Open) -> None:
    pairs = []
    for a, b in (("u", "v"), ("u", "w"), ("v", "w")):
        pairs.append(compare(verdict="proved" if "u" in (a, b) else "undecided"))
        pairs[-1]["a"]["path"], pairs[-1]["b"]["path"] = f"dir/{a}.onnx", f"dir/{b}.onnx"
    page = show(*pairs, wait=".cell")
    assert page.locator(".cell").count() == 6 and texts(page, ".matrix th bdi") == ["u.onnx", "v.onnx", "w.onnx"]
    page.locator(".chip", has_text="undecided").click()
    assert page.locator(".cell.dim").count() == 4 and page.locator("tr.gone").count() == 2
    page.locator(".cell.v-undecided").first.click()
    page.locator(".detail .hero h1", has_text="Not decided").wait_for()


def test_region_of_a_rewrite_leads_to_its_nodes(show: Open) -> None:
    page = show(rewrite())
    page.locator(".chart.region a", has_text="MatMul").click()
    page.locator(".panel h3", has_text="MatMul").wait_for()
    assert page.evaluate("location.hash") == "#node=a:2"
    page.locator("a.nodelink", has_text="Relu_3").click()
    page.locator(".panel h3", has_text="Relu").wait_for()
    assert page.locator(".box.marked").count() >= 2


def test_what_is_printed_is_drawn_before_it_is_seen(show: Open) -> None:
    page = show(analyze(), wait=".hero", viewport={"width": 400, "height": 300})
    page.locator(".canvas .box").first.wait_for(state="attached")
    assert page.evaluate("scrollY") == 0 and len(page.pdf()) > 10_000


def test_wrong_link_says_so(show: Open) -> None:
    page = show(compare(), anchor="#node=a:999")
    page.get_by_text("No such node in this file").wait_for()


def test_keys_walk_cross_and_fold(show: Open) -> None:
    page = show(compare())
    page.locator(f'[data-key="va{relu(page)}"]').click()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("location.hash") == "#node=b:3"
    page.keyboard.press("ArrowUp")
    assert page.evaluate("location.hash") == "#node=b:2"
    page.keyboard.press("?")
    assert page.locator(".panel h3").inner_text() == "Keys"


def test_filter_dims_the_rest(show: Open) -> None:
    page = show(compare())
    page.locator(".chip", has_text="A only").click()
    assert page.locator(".box.s-a.dim").count() == 0 and page.locator(".box.s-same.dim").count() == 6


def test_hostile_names_stay_text(show: Open) -> None:
    page = show(renamed(mutant(), HOSTILE), wait=".box.divergence")
    page.locator(".box.divergence").click()
    assert "<script>alert" in page.locator(".panel").inner_text()
    page.get_by_label("Search nodes").fill("alert")
    assert page.locator(".hits button").count() > 1
    assert page.locator("main script, main img").count() == 0


def test_demo_cell_opens_its_pair_with_graphs(show: Open) -> None:
    page = show(demo(), wait=".cell")
    page.locator(".cell").first.click()
    page.locator(".detail .hero h1").wait_for()
    page.locator(".detail .canvas .box").first.wait_for()
    assert page.locator(".detail .hero h1").inner_text() == "The same function"
    page.locator(".variants a").nth(1).click()
    page.locator(".detail .hero h1", has_text="matmul").wait_for()


def test_tables_sort_and_matrix_filters(show: Open) -> None:
    page = show(demo(), wait=".cell")
    page.locator(".variants .sorter", has_text="time").click()
    page.locator(".variants .sorter", has_text="time").click()
    assert texts(page, ".variants tbody td:nth-child(2)") == ["unfold", "matmul", "conv"]
    assert texts(page, ".matrix .nth") == texts(page, ".matrix thead th") == ["3", "2", "1"]
    corner = page.locator(".matrix tbody tr").first.locator("td").nth(1)
    assert corner.locator("a").get_attribute("title") == "t-unfold and t-matmul: proved"
    page.get_by_label("Filter pairs").fill("unfold")
    assert page.locator(".cell.dim").count() == 2


def test_link_into_a_packed_view_opens_the_node(show: Open) -> None:
    page = show(compare(), mutant(), anchor="#r1;node=b:3", wait=".detail .box.selected")
    assert page.locator(".detail .hero h1").inner_text() == "Not the same"


def test_links_in_a_packed_view_stay_in_it(show: Open) -> None:
    page = show(compare(), mutant(), anchor="#r1", wait=".detail .box.divergence")
    page.locator(".detail .hero a.nodelink").first.click()
    page.locator(".detail .panel h3", has_text="Neg").wait_for()
    assert page.evaluate("location.hash").startswith("#r1;node=b:")


def test_theme_switches(show: Open) -> None:
    page = show(compare(), color_scheme="light")
    before = page.evaluate("getComputedStyle(document.body).color")
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.body).color") != before


def test_phone_needs_no_sideways_scroll(show: Open) -> None:
    for name in SAMPLES:
        page = show(SAMPLES[name](), wait=".hero", viewport={"width": 390, "height": 844})
        page.wait_for_timeout(150)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name


def test_without_scripts_the_verdict_stands(show: Open) -> None:
    page = show(compare(), wait="", java_script_enabled=False)
    assert page.locator(".noscript").is_visible() and "proved" in page.locator(".noscript").inner_text()
    assert (
        page.get_by_role("heading", name="The same function").is_visible() and not page.locator(".stage").is_visible()
    )


def test_large_pair_stays_usable(show: Open) -> None:
    page = show(blocks(550), wait=".canvas .fold")
    page.get_by_role("button", name="Unfold all (o)", exact=True).click()
    assert page.locator(".box").count() < 600
    page.locator(".view").evaluate("v => v.scrollTo(0, v.scrollHeight / 2)")
    page.wait_for_timeout(200)
    assert 10 < page.locator(".box").count() < 600


def test_policy_stops_a_foreign_script(show: Open, browser: Any, tmp_path: Path) -> None:
    """The other tests would see a script run: here one is put in by hand, and the policy, nothing else, stops it."""
    text = reporting.render([compare()]).replace("</main>", "<script>document.title = 'owned'</script></main>")
    path = tmp_path / "tampered.html"
    path.write_text(text, encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.title() != "owned"
    path.write_text(text.replace("Content-Security-Policy", "X-No-Policy"), encoding="utf-8")
    page.goto(path.as_uri())
    assert page.title() == "owned"
    page.close()


def test_a_phone_shows_one_side_that_can_be_read(show: Open) -> None:
    page = show(blocks(), viewport={"width": 390, "height": 844})
    assert texts(page, ".heads b") == ["A"] and texts(page, ".seg [aria-pressed=true]") == ["A"]
    page.locator(".canvas .box").first.click()
    page.keyboard.press("ArrowRight")
    assert texts(page, ".heads b") == ["B"] and page.locator(".box.selected").last.is_visible()
    page.get_by_role("button", name="Show both", exact=True).click()
    assert texts(page, ".heads b") == ["A", "B"]


def test_long_symbolic_dims_fit(show: Open) -> None:
    result = compare()
    result["b"]["outputs"] = [
        {"name": "y" * 40, "dtype": "FLOAT", "shape": ["batch", *(f"Layer{'n' * 60}_{i}" for i in range(3))]}
    ]
    for width in (390, 1280):
        page = show(result, wait=".hero", viewport={"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
