"""What the report draws of real models: traced shapes, and a rewrite before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser
from test_reporting import Checker
from test_reporting_data import demo, mutant

from graphcheck import reporting
from graphcheck.api import compare
from graphcheck.reporting import families, rewritten
from graphcheck.reporting.shapes import graph_of
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite


def patches(batch: str = "n") -> ir.Model:
    """Patches of 2x2 in a 4x4 image with two channels, by a MatMul to three; no inner shape is declared."""
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
    g (float[{batch},2,4,4] x) => (float[{batch},4,3] y)
    <int64[6] cut = {{0,2,2,2,2,2}}, int64[3] rows = {{0,4,8}}, float[8,3] w = {{{",".join("0" * 24)}}}> {{
        a = Reshape(x, cut)  b = Transpose<perm = [0, 2, 4, 1, 3, 5]>(a)  c = Reshape(b, rows)  y = MatMul(c, w)
    }}"""
    model = parser.parse_model(text)
    weight = np.random.default_rng(0).standard_normal((8, 3), np.float32)
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(weight, "w"))
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    onnx.checker.check_model(model)
    return ir.serde.deserialize_model(model)


def test_shapes_are_traced_and_symbols_named() -> None:
    tensors = graph_of(patches())["tensors"]
    assert tensors["b"] == {"dtype": "float", "shape": ["n", 2, 2, 2, 2, 2], "constant": False, "sizes": [2] * 6}
    assert tensors["c"]["shape"] == ["n", 4, 8] and tensors["w"]["constant"]
    assert graph_of(patches("1"))["tensors"]["a"]["shape"] == [1, 2, 2, 2, 2, 2]


def test_what_is_declared_stays_and_unknown_dims_are_traced() -> None:
    model = patches()
    value = next(v for node in model.graph for v in node.outputs if v.name == "b")
    value.shape = ir.Shape(["batch", 2, None, 2, None, 2])
    assert graph_of(model)["tensors"]["b"]["shape"] == ["batch", 2, 2, 2, 2, 2]


@pytest.mark.parametrize(
    ("seen", "named"), [((7, 7), 7), ((2, 3), "n"), ((8, 12), "n*4"), ((7, 14), "h/16"), ((5, 9), None), ((0, 0), 0)]
)
def test_a_dim_is_named_after_what_it_follows(seen: tuple[int, int], named: object) -> None:
    from graphcheck.reporting.shapes import _dim

    assert _dim(seen, [{"n": 2, "h": 112}, {"n": 3, "h": 224}]) == named


def rewritten_patches() -> tuple[Rewrite, dict[str, object]]:
    proofs = []

    def prove(a: ir.Model, b: ir.Model) -> object:
        proofs.append((a, b, compare(a, b, graphs=False)))
        return proofs[-1][2]

    result = rewrite(patches("1"), "conv", check=prove)  # type: ignore[arg-type]
    return result, rewritten.evidence(result, proofs, lambda models: [[3.0, 1.0, 2.0, 4.0] for _ in models])


def test_a_rewrite_is_drawn_before_and_after() -> None:
    result, found = rewritten_patches()
    assert found["times_ms"] == {k: {"median": 3.0, "min": 2.0, "max": 4.0} for k in ("before", "after")}
    assert found["alignment"]
    data = result.to_json() | found
    cut = rewritten.region(data)
    assert [n["op_type"] for n in cut["a"]["nodes"]] == ["Reshape", "Transpose", "Reshape", "MatMul"]
    assert cut["b"]["nodes"][0]["op_type"] == "Conv" and cut["a"]["inputs"] == cut["b"]["inputs"] == ["x"]
    picture = str(rewritten.region_picture(cut["a"], "a"))
    assert picture.count("6-D") == 2 and "W 8×3" in picture and 'href="#node=a:3"' in picture
    checked = Checker(reporting.render([data]))
    assert checked.problems == [] and "The largest tensor has 6 dims before, 4 after" in " ".join(checked.text)


def test_a_proof_of_other_models_aligns_nothing() -> None:
    result, _ = rewritten_patches()
    other = patches("1")
    assert "alignment" not in rewritten.evidence(result, [(other, result.model, compare(other, other, graphs=False))])


def test_without_graphs_the_tensors_are_listed() -> None:
    result, _ = rewritten_patches()
    assert rewritten.region(result.to_json()) == {}
    assert 'class="tensorline"' in reporting.render([result.to_json()])


def test_a_family_keeps_drawings_once_and_of_graphs_what_is_drawn() -> None:
    packed: dict[str, Any] = {}
    data = demo()["families"][0]
    for variant in data["variants"]:  # a subgraph of shapes that nobody draws
        graph = variant["analyze"]["graph"]
        count = families.HIDDEN + 1
        graph["nodes"] += [
            mutant()["graphs"]["a"]["nodes"][0] | {"id": 100 + i, "op_type": "Shape", "outputs": [f"z{i}"]}
            for i in range(count)
        ]
    families._Family(data, "f").pack(packed.__setitem__, lambda *_, **__: "")  # type: ignore[arg-type]
    assert len(packed["f-drawings"]) < len(data["pairs"]) + len(data["variants"])
    assert all(len(graph["nodes"]) < 10 for graph in packed["f-graphs"].values())
