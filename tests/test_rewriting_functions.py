"""Patch embeddings inside model-local functions, as some exporters write them: one function for a module."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest
from patch_cases import ops

from graphcheck.patches.inlining import inlined
from graphcheck.patches.preparing import analyze_json
from graphcheck.rewriting.checks import structural_checks
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdicts.compare import compare

HEAD = '<ir_version: 10, opset_import: ["" : 18, "pkg" : 1]>'
GRAPH = "g (float[N,3,8,8] x) => (float[N,4,8] y) {"
PATCHES = """
<domain: "pkg", opset_import: ["" : 18]>
Patches (x, w, b) => (y) {
  s1 = Constant <value = int64[6] {0, 3, 2, 4, 2, 4}> ()
  s2 = Constant <value = int64[3] {0, 4, 48}> ()
  order = Reshape (x, s1)
  moved = Transpose <perm = [0, 2, 4, 3, 5, 1]> (order)
  rows = Reshape (moved, s2)
  product = MatMul (rows, w)
  y = Add (product, b)
}
"""
HEAD_FUNCTION = """
<domain: "pkg", opset_import: ["" : 18]>
Head (x, w) => (y) { t = MatMul (x, w)  y = Tanh (t) }
"""
MODEL_FUNCTION = """
<domain: "pkg", opset_import: ["" : 18, "pkg" : 1]>
Model (x, w, b, h) => (y) { p = pkg.Patches (x, w, b)  y = pkg.Head (p, h) }
"""


def model(body: str, *functions: str, opset: int = 18) -> ir.Model:
    text = "\n".join([HEAD.replace("18", str(opset)), GRAPH, body, "}", *functions])
    proto = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, shape in (("w", (48, 8)), ("b", (8,)), ("h", (8, 8))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name))
    return ir.from_proto(proto)


NESTED = ("y = pkg.Model (x, w, b, h)", PATCHES, HEAD_FUNCTION, MODEL_FUNCTION)
FLAT = ("p = pkg.Patches (x, w, b)  y = pkg.Head (p, h)", PATCHES, HEAD_FUNCTION)


@pytest.mark.parametrize("case", [FLAT, NESTED], ids=["flat", "nested"])
def test_a_site_in_a_function_is_found_and_rewritten(case: tuple[str, ...]) -> None:
    original = model(*case)
    (site,) = analyze_json(original)["patch_embeddings"]
    assert (site["kernel_shape"], site["strides"], site["out_channels"]) == ([4, 4], [4, 4], 8)
    result = rewrite(original, "conv", check=lambda a, b: compare(a, b, graphs=False))
    assert result.changed, result.reason
    assert str(result.verdict) == "proved" and all(check.ok for check in result.checks)
    assert "Conv" in ops(result.model) and "pkg.Head" in ops(result.model), "other functions stay functions"
    assert [f.name for f in result.model.functions.values()] == ["Head"]
    assert len(original.functions) == len(case) - 1, "the original is left as it is"


def test_functions_without_a_site_stay() -> None:
    plain = model("q = pkg.Head (x, h)  y = Squeeze (q)", HEAD_FUNCTION)
    assert inlined(plain)[0].model is plain


def test_a_function_of_another_opset_stays() -> None:
    other = model(*FLAT, opset=19)
    assert inlined(other)[0].model is other
    result = rewrite(other, "conv")
    assert result.reason == "nothing to rewrite"
    reason = "the function is of another opset version than the model, so it is not looked into"
    assert [(r.reason, r.node) for r in result.refusals] == [(reason, "pkg.Head"), (reason, "pkg.Patches")]


@pytest.mark.parametrize("case", [FLAT, NESTED], ids=["flat", "nested"])
def test_what_is_refused_in_a_function_is_told(case: tuple[str, ...]) -> None:
    between = PATCHES.replace("product = MatMul (rows, w)", "mixed = Tanh (rows)  product = MatMul (mixed, w)")
    original = model(case[0], between, *case[2:])
    told = analyze_json(original)
    reason, node = "Tanh stands between the patchify and the projection", "pkg.Patches/Tanh(mixed)"
    assert not told["patch_embeddings"] and told["refusals"] == [{"reason": reason, "code": "GC303", "node": node}]
    assert [r.to_json() for r in rewrite(original, "conv").refusals] == told["refusals"]


def test_a_refusal_beside_a_site_in_functions_is_told() -> None:
    between = PATCHES.replace("product = MatMul (rows, w)", "mixed = Tanh (rows)  product = MatMul (mixed, w)")
    between = between.replace("Patches (x", "Mixed (x")
    body = "p = pkg.Patches (x, w, b)  q = pkg.Mixed (x, w, b)  y = Add (p, q)"
    told = analyze_json(model(body, PATCHES, between))
    assert len(told["patch_embeddings"]) == 1
    assert [r["node"] for r in told["refusals"]] == ["pkg.Mixed/Tanh(mixed)"]


def test_opsets_that_no_function_had_are_seen() -> None:
    original = model(*FLAT)
    changed = rewrite(original, "conv").model
    changed.opset_imports["nobody"] = 3
    assert [c.ok for c in structural_checks(original, changed) if c.name == "interface"] == [False]


def test_a_rank_limit_reaches_into_functions() -> None:
    result = rewrite(model(*FLAT), "matmul", max_rank=5, check=lambda a, b: compare(a, b, graphs=False))
    assert result.changed, result.reason
    assert not result.model.functions
    assert max(len(v.shape) for node in result.model.graph for v in node.outputs if v.shape is not None) <= 5
