"""The pytest plugin in a pytest of its own: the fixture passes, fails with a report that is kept, and the XML names it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import onnx
import pytest

import graphcheck

ROOT = Path(__file__).parent.parent
NET = '<ir_version: 10, opset_import: ["": 21]> net (float[N,2] x) => (float[N,2] y) { y = %s }'
TESTS = """
def test_same(graphcheck_equivalent):
    assert str(graphcheck_equivalent("a.onnx", "a.onnx").verdict) == "identical"

def test_wrong(graphcheck_equivalent):
    graphcheck_equivalent("a.onnx", "b.onnx", require="proved")
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, op in (("a", "Relu (x)"), ("b", "Neg (x)")):
        (tmp_path / f"{name}.onnx").write_bytes(onnx.parser.parse_model(NET % op).SerializeToString())
    (tmp_path / "test_exports.py").write_text(TESTS)
    return tmp_path


def run(here: Path, *options: str) -> str:
    """What pytest says; the plugin is named, since what is installed here may be without its entry point."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "graphcheck.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-q",
        *options,
    ]
    return subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, check=False).stdout


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--graphcheck-reports", "kept")])
def test_a_failure_leaves_its_report(here: Path, options: tuple[str, ...]) -> None:
    told = run(here, "--junit-xml", "told.xml", "--basetemp", "base", *options)
    assert "1 failed, 1 passed" in told and "different: " in told and "(required: proved)" in told
    (report,) = here.rglob("*.html")
    assert (report.parent.name == "kept") == bool(options) and "test_wrong" in report.name
    assert f"report: {report.relative_to(here) if options else report}" in told
    assert "<title>" in report.read_text() and "different" in report.read_text()
    properties = {p.get("name"): p.get("value") for p in ElementTree.parse(here / "told.xml").iter("property")}
    assert Path(here, str(properties["graphcheck_report"])) == report


def test_assert_equivalent_writes_a_report_only_where_it_fails(here: Path) -> None:
    target = here / "report.html"
    graphcheck.assert_equivalent(here / "a.onnx", here / "a.onnx", report=target)
    assert not target.exists()
    with pytest.raises(AssertionError, match=r"report: \S+report.html"):
        graphcheck.assert_equivalent(here / "a.onnx", here / "b.onnx", report=target)
    assert target.exists()
