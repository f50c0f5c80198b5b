"""Operators that do not broadcast: other shapes are refused where a runtime refuses them, and typed at no size of a batch."""

# ruff: noqa: E501 (graphs as text are kept on their lines)

from __future__ import annotations

import re

import onnx
import pytest
import rows_support

from graphcheck.errors import Refused

# What onnxruntime refuses at batch 2, or gives another shape: inputs, constants, the node, and what it would be by broadcasting.
UNFIT = [
    ("float[1,3,4] x, float[N,3,4] z, float[4] g", "", "com.microsoft.SkipLayerNormalization (x, z, g)"),
    ("float[1,3,4] x, float[N,3,4] z, float[4] g", "", "com.microsoft.SkipSimplifiedLayerNormalization (x, z, g)"),
    ("float[N,4] x, float[1,4] z, float[4] g", "", "com.microsoft.SkipLayerNormalization (x, z, g)"),
    ("float[N,1,8] x, float[4,2] c, float[4,2] s", "int64[1,1] p = {1}", "com.microsoft.RotaryEmbedding <num_heads = 2> (x, p, c, s)"),
    ("float[N,3,8] x, float[4,2] c, float[4,2] s", "int64[1,3] p = {0, 1, 2}", "com.microsoft.RotaryEmbedding <num_heads = 2> (x, p, c, s)"),
    ("float[1,4] x, float[N,4] z", "", "LayerNormalization (x, z)"),
    ("float[1,4] x, float[4] g, float[N,4] z", "", "LayerNormalization (x, g, z)"),
    ("float[N] x, float[N] z", "", "Clip (x, z)"),
    ("float[1,3] x, float[3,4] w, float[N,4] z", "", "Gemm (x, w, z)"),
    ("float[N,1,2] x, float[2,1,1] w, float[2] b", "float[1,2,2] z = {1, 2, 3, 4}", "com.microsoft.FusedConv <activation = \"Relu\"> (x, w, b, z)"),
]  # fmt: skip
EVERYWHERE = [
    ("float[2,3,4] x, float[3] z", "com.microsoft.BiasGelu (x, z)", "BiasGelu takes no [3] where [4] is due"),
    ("float[2,4] x, float[1] z", "com.microsoft.FastGelu (x, z)", "FastGelu takes no [1] where [4] is due"),
    ("float[2,3,4] x, float[4] z", "com.microsoft.SkipLayerNormalization (x, x, z, z, o)", "takes no [1] where [4] is due"),
    ("float[2,3,4] x, float[3,3] z", "com.microsoft.MultiHeadAttention <num_heads = 2> (x, x, x, , , z)", "takes no [3, 3] where [2, 2, 3, 3] is due"),
    ("float[2,3,4] x, float[1,3,4] z", "com.microsoft.MultiHeadAttention <num_heads = 2> (x, z, z)", "takes no [1, 3, 4] where [2, 3, 4] is due"),
    ("float[2,3,4] x, float[4,12] z", "com.microsoft.Attention <num_heads = 2> (x, z, o)", "takes no [1] where [12] is due"),
    ("float[2,3,4] x, float[1] z", "InstanceNormalization (x, z, z)", "takes no [1] where [3] is due"),
    ("float[2,3,4] x, float[1] z", "BatchNormalization (x, z, z, z, z)", "takes no [1] where [3] is due"),
    ("float[2,3] x, float[1] z", "QuantizeLinear (x, z, q)", "takes no [3] where [1] is due"),
]  # fmt: skip


def unfit(inputs: str, constants: str, node: str, before: str = "") -> onnx.ModelProto:
    head = '<ir_version: 10, opset_import: ["": 18, "com.microsoft": 1]>\n'
    proto = onnx.parser.parse_model(f"{head}g ({inputs}) => () <{constants}> {{ {before} y = {node} }}")
    proto.graph.output.append(onnx.ValueInfoProto(name="y"))
    return proto


@pytest.mark.parametrize("case", UNFIT, ids=range(len(UNFIT)))
def test_an_operator_that_does_not_broadcast_is_typed_at_no_size(case: tuple[str, str, str]) -> None:
    proto = unfit(*case)
    assert rows_support.text(rows_support.typed(proto, 1).outputs[0]) == "mixed"
    with pytest.raises(Refused, match="is due"):
        rows_support.typed(proto, 2)
    session = rows_support.session(proto)
    assert session.run(None, rows_support.draw(proto, 1, 0))[0].shape[0] == 1
    if "Skip" in case[2] and "1,3,4" in case[0]:
        assert session.run(None, rows_support.draw(proto, 2, 0))[0].shape[0] == 1
        return
    with pytest.raises(Exception, match=r"INVALID|FAIL"):
        session.run(None, rows_support.draw(proto, 2, 0))


@pytest.mark.parametrize(("inputs", "node", "text"), EVERYWHERE, ids=range(len(EVERYWHERE)))
def test_a_parameter_of_another_size_is_refused(inputs: str, node: str, text: str) -> None:
    proto = unfit(inputs, "float[1] o = {1}, uint8[3] q = {1, 2, 3}", node)
    with pytest.raises(Refused, match=re.escape(text)):
        rows_support.typed(proto)
    with pytest.raises(Exception, match=r"INVALID|FAIL"):
        rows_support.session(proto).run(None, rows_support.draw(proto, 2, 0))


def test_several_tokens_behind_a_past_are_those_of_one_row() -> None:
    """As onnxruntime has it: batch_size must be 1 when sequence_length > 1 and past context is given."""
    for tokens, kind in ((1, "rows 0"), (2, "mixed")):
        new = ", ".join(f"float[N,{tokens},16] {name}" for name in "xkv")
        past = ", ".join(f"float[N,2,3,8] {name}" for name in ("pk", "pv"))
        held = f"int32 t = {{{3 + tokens}}}, int32 o = {{{2 + tokens}}}, int32 n = {{0}}"
        node = "com.microsoft.GroupQueryAttention <num_heads = 2, kv_num_heads = 2> (x, k, v, pk, pv, m, t)"
        proto = unfit(f"{new}, {past}, int32[N] l", held, node, "z = Mul (l, n)\n m = Add (z, o)\n")
        assert rows_support.text(rows_support.typed(proto).outputs[0]) == kind
