"""The public pass proves what it did."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes

import graphcheck
from graphcheck.verdict import Comparison, Verdict

RESHAPED = """<ir_version: 9, opset_import: ["" : 18]>
g (float[b,3,8,8] x) => (float[b,4,5] y) <float[48,5] w = {{{}}}> {{
 s1 = Constant <value_ints = [0,3,2,4,2,4]> ()
 r = Reshape (x, s1)
 t = Transpose <perm = [0,2,4,3,5,1]> (r)
 s2 = Constant <value_ints = [0,4,48]> ()
 p = Reshape (t, s2)
 y = MatMul (p, w)
}}""".format(",".join(str(i % 17 - 8) for i in range(240)))


def test_the_pass_rewrites_and_proves() -> None:
    rewrite = graphcheck.PatchEmbedding(to="conv")
    result = onnx_ir.passes.Sequential(rewrite)(ir.from_onnx_text(RESHAPED))
    assert [n.op_type for n in result.model.graph].count("Conv") == 1
    assert "MatMul" not in [n.op_type for n in result.model.graph]
    assert rewrite.result is not None and rewrite.result.verdict is Verdict.PROVED


def test_what_is_not_proved_is_not_done() -> None:
    def doubt(a: ir.Model, b: ir.Model) -> Comparison:
        return Comparison(Verdict.UNDECIDED, "nobody knows", {})

    result = graphcheck.PatchEmbedding(to="conv", check=doubt)(ir.from_onnx_text(RESHAPED))
    assert not result.modified
    assert "Conv" not in [n.op_type for n in result.model.graph]
