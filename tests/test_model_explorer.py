"""Node data for Model Explorer: each node in the colour of what is known of it, in the form that its reader takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphcheck.cli import main
from graphcheck.formats import format_results
from graphcheck.formats.model_explorer import COLOURS
from graphcheck.outcome import Outcome

NET = """<ir_version: 10, opset_import: ["": 21]> net (float[1,2] x) => (float[1,2] y)
<float[2,2] w = {1, 2, 3, 4}, float[2,2] v = {1, %s, 0, 1}> { h = MatMul (x, w) i = MatMul (h, v) y = Relu (i) }"""

NODES = ("node", "/body/project", "node_1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, number in (("a", "2"), ("b", "3")):
        model = onnx.parser.parse_model(NET % number)
        model.graph.node[1].name = "/body/project"
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(data: Any) -> dict[str, str]:
    """Node -> status, of data that is what ``GraphNodeData`` says: see model_explorer/node_data_builder.py."""
    assert set(data) == {"results", "name"} and isinstance(data["name"], str)
    status = {colours: name for name, colours in COLOURS.items() if name != "suspect"}
    found = {}
    for tensor, row in data["results"].items():
        assert set(row) == {"value", "bgColor", "textColor"} and isinstance(row["value"], (int, float))
        found[tensor] = status[row["bgColor"], row["textColor"]]
    return found


def test_a_comparison_shows_where_the_graphs_part(here: Path) -> None:
    assert main(["compare", "a.onnx", "b.onnx", "--format", "model-explorer=data.json"]) == 1
    data = json.loads((here / "data.json").read_text())
    assert checked(data) == dict(zip(NODES, ("same", "wrong", "unlike"), strict=True))
    assert data["results"][NODES[0]]["value"] == 0 and data["results"][NODES[1]]["value"] > 0.01
    assert main(["compare", "a.onnx", "a.onnx", "--format", "model-explorer=data.json"]) == 0
    assert checked(json.loads((here / "data.json").read_text())) == dict.fromkeys(NODES, "same")


def test_a_blame_shows_who_is_wrong(here: Path) -> None:
    x, w, v = np.ones((1, 2), np.float32), np.asarray([[1, 2], [3, 4]]), np.asarray([[1, 2], [0, 1]])
    wrong = x @ w @ v + 1
    np.savez(
        here / "dump.npz", x=x, h=(x @ w).astype(np.float32), i=wrong.astype(np.float32), y=wrong.astype(np.float32)
    )
    formats = ["--format", "model-explorer=data.json", "--format", "junit=told.xml"]
    assert main(["blame", "a.onnx", "--tensors", "dump.npz", *formats]) == 1
    data = json.loads((here / "data.json").read_text())
    assert checked(data) == dict(zip(NODES, ("same", "wrong", "same"), strict=True))
    assert data["results"][NODES[1]]["value"] > 1
    assert 'failures="1"' in (here / "told.xml").read_text()


def test_a_guarded_optimizer_has_formats_too(here: Path) -> None:
    (here / "copy.sh").write_text("cp b.onnx $2")
    copy = ["--", "sh", "copy.sh", "{in}", "{out}"]
    assert main(["guard", "a.onnx", "--format", "model-explorer=data.json", "--format", "sarif=s.json", *copy]) == 1
    assert checked(json.loads((here / "data.json").read_text()))[NODES[1]] == "wrong"
    assert len(json.loads((here / "s.json").read_text())["runs"][0]["results"]) == 1
    code = main(["guard", "a.onnx", "--passes", "onnxslim", "--format", "junit=told.xml"])
    assert code == 0 and 'failures="0"' in (here / "told.xml").read_text()


def test_many_results_are_a_graph_each_and_names_stay_inside() -> None:
    hostile = '"}]</script>\x00\ud800'
    many = [Outcome(name, "undecided", "why", result={"verdict": "undecided"}) for name in ("one", hostile)]
    data = json.loads(format_results(many, "model-explorer"))
    assert len(data) == 2 and all(checked(each) == {} for each in data.values())
