"""The package and what plugs into other programs, each in an environment of its own that has the host's own code.

``make hosts`` runs them; environments are kept in ``build/hosts``. In the ordinary suite the same integrations are tested as far
as that goes without the hosts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hosts_support as support
import onnx
import pytest
from hosts_support import ROOT, call

pytestmark = pytest.mark.hosts

# What `pip install graphcheck` alone has to do; it runs outside of the tree.
PLAIN = """
import importlib.util, sys, graphcheck
from importlib import metadata
assert not any(importlib.util.find_spec(name) for name in ("torch", "tensorflow", "pytest", "onnxscript", "mypy"))
assert graphcheck.__version__ == metadata.version("graphcheck") and sys.prefix in graphcheck.__file__
assert graphcheck.compare("conv.onnx", "conv.onnx").verdict == "identical"
assert [site.kernel_shape for site in graphcheck.analyze("conv.onnx").sites] == [(4, 4)]
rewrite = graphcheck.rewrite("conv.onnx", "matmul")
assert rewrite.changed and rewrite.verdict == "proved"
assert graphcheck.compare("conv.onnx", rewrite.model).verdict == "proved"
"""
CONV = """<ir_version: 10, opset_import: ["": 21]> net (float[1,3,8,8] x) => (float[1,8,2,2] y)
<float[8,3,4,4] w = {%s}> { y = Conv <strides = [4, 4]> (x, w) }"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.wheel(tmp_path_factory.mktemp("dist"))


def models(folder: Path) -> Path:
    """Writes a patch embedding to a folder, and one of which a weight is wrong."""
    for name, first in (("conv", 0.0), ("wrong", 1.0)):
        weights = [first, *((i * 7 % 31) / 16 for i in range(1, 384))]
        proto = onnx.parser.parse_model(CONV % ", ".join(map(str, weights)))
        (folder / f"{name}.onnx").write_bytes(proto.SerializeToString())
    return folder


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_package_alone_compares_analyzes_and_rewrites(version: str, wheel: Path, tmp_path: Path) -> None:
    python = support.pythons().get(version)
    if python is None:
        pytest.skip(f"Python {version} is not at hand")
    env = support.environment(f"plain-{version}", wheel, python=python) / "bin"
    call(env / "python", "-W", "error", "-c", PLAIN, cwd=models(tmp_path))
    assert "proved" in call(
        env / "graphcheck", "rewrite", "conv.onnx", "-o", "matmul.onnx", "--to", "matmul", cwd=tmp_path
    )
    assert "proved" in call(env / "graphcheck", "compare", "conv.onnx", "matmul.onnx", cwd=tmp_path)
    assert "different" in call(env / "graphcheck", "compare", "conv.onnx", "wrong.onnx", cwd=tmp_path, code=1)
    assert "4" in call(env / "graphcheck", "analyze", "conv.onnx", cwd=tmp_path)
    told = call(env / "graphcheck", "export", "article-keras", cwd=tmp_path, code=2)
    assert "graphcheck[keras]" in told and "Traceback" not in told


def test_the_passes_run_in_olive(wheel: Path) -> None:
    # requests: Olive imports it and does not ask for it
    env = support.environment(
        "olive", wheel, ("olive-ai==0.13.0", "requests", "pytest", "pytest-timeout", "hypothesis")
    )
    told = call(env / "bin/python", "-m", "pytest", "-q", "tests/test_rewriting_olive.py")
    assert re.search(r"\d+ passed", told) and "skipped" not in told
    assert str(ROOT) in call(env / "bin/python", "-c", "import graphcheck; print(graphcheck.__file__)", cwd=ROOT)


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """A browser."""
    sync_api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        yield browser
        browser.close()


NOTEBOOK = """
import graphcheck, numpy as np
a, b = "conv.onnx", "wrong.onnx"
results = [graphcheck.compare(a, b), graphcheck.analyze(a), graphcheck.rewrite(a, "matmul")]
results.append(graphcheck.blame(a, {"x": np.ones((1, 3, 8, 8), np.float32), "y": np.ones((1, 8, 2, 2), np.float32)}))
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_notebook_page_shows_the_results(theme: str, wheel: Path, tmp_path: Path) -> None:
    """As nbconvert writes it of an executed notebook, in Chromium, with no address asked for."""
    env = support.environment("notebook", wheel, ("nbconvert", "ipykernel")) / "bin"
    cells = [NOTEBOOK, *(f"results[{i}]" for i in range(4))]
    code = [
        {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": cell} for cell in cells
    ]
    (models(tmp_path) / "n.ipynb").write_text(
        json.dumps({"cells": code, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})
    )
    call(env / "python", "-m", "nbconvert", "--execute", "--to", "html", "--theme", theme, "n.ipynb", cwd=tmp_path)
    with opened() as browser:
        page = browser.new_page(color_scheme="dark" if theme == "light" else "light")  # the page's theme wins
        page.goto((tmp_path / "n.html").as_uri(), wait_until="domcontentloaded")
        shown = page.locator(".graphcheck-result")
        verdicts = shown.locator(".verdict").all_inner_texts()
        assert [text.split(":")[0][2:] for text in verdicts if ":" in text] == ["different", "proved", "convicted"]
        assert shown.locator("svg").count() >= 3 and shown.locator("table").count() == 4
        light = shown.first.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(255, 255, 255)"
        assert light == (theme == "light")
        if folder := os.environ.get("GRAPHCHECK_SHOTS"):
            page.screenshot(path=Path(folder, f"notebook-{theme}.png"), full_page=True)


def test_model_explorer_shows_the_node_data(wheel: Path, tmp_path: Path) -> None:
    """Its server and its page, with its adapter for ONNX: the node has the value and the colour of the file."""
    env = support.environment("model-explorer", wheel, ("ai-edge-model-explorer", "model-explorer-onnx")) / "bin"
    compare = (env / "graphcheck", "compare", "conv.onnx", "wrong.onnx", "--format", "model-explorer=data.json")
    call(*compare, cwd=models(tmp_path), code=1)
    given = json.loads((tmp_path / "data.json").read_text())
    assert given["results"]["node"]["bgColor"] == "#b42318"
    call(env / "python", "-c", READER, cwd=tmp_path)
    options = ("--node_data_paths", "data.json", "--no_open_in_browser", "--extensions", "model_explorer_onnx")
    command = [env / "model-explorer", "wrong.onnx", *options]
    with (tmp_path / "log").open("w") as log, opened() as browser:
        server = subprocess.Popen(list(map(str, command)), cwd=tmp_path, stdout=log, stderr=log)
        try:
            page = browser.new_page(viewport={"width": 1300, "height": 800})
            page.goto(address(tmp_path / "log"))
            row = page.locator("tr", has_text=re.compile(r"\bConv\b"))
            row.wait_for(timeout=60_000)
            shown = row.inner_text()
            assert float(shown.split()[-1]) == pytest.approx(given["results"]["node"]["value"], rel=1e-3)
            if folder := os.environ.get("GRAPHCHECK_SHOTS"):
                page.screenshot(path=Path(folder, "model-explorer.png"))
        finally:
            server.kill()
            server.wait()


def address(log: Path) -> str:
    """What a server says that it listens at."""
    for _ in range(300):
        if found := re.search(r"http://\S+", log.read_text()):
            return found[0]
        time.sleep(0.2)
    raise AssertionError(log.read_text())


# The classes are those that Model Explorer's own writers use.
READER = """
import json
from model_explorer.node_data_builder import GraphNodeData, NodeDataResult
given = json.load(open("data.json"))
rows = {name: NodeDataResult(**row) for name, row in given["results"].items()}
written = json.loads(GraphNodeData(results=rows, name=given["name"]).to_json_string())
assert all(written[key] == given[key] for key in given), written
"""
