"""Situations that people reported in public, rebuilt small: what a person wanted to know, and the answer to it.

Each row names its sources. Right answers come from onnxruntime, torch, onnx.reference or arithmetic. What runs on real
files is in ``benchmarks/real.py``: whether two files of silero-vad are the same, and whether a simplified OCR is right.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from graphcheck import analyze, compare, rewrite
from graphcheck.errors import UsageError
from graphcheck.verdict import Comparison, Verdict

Ranges = dict[str, tuple[float, float]]


def text(graph: str, opset: int = 17, more: str = "", **constants: np.ndarray) -> onnx.ModelProto:
    """A model of ONNX text, with arrays as initializers."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}{more}]> g {graph}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return model


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    """Numbers whose sums are exact."""
    return (np.random.default_rng(seed).integers(-64, 65, shape) / 64).astype(np.float32)


def judged(a: onnx.ModelProto, b: onnx.ModelProto, **options: Any) -> Comparison:
    return compare(a, b, graphs=False, **({"run": False} | options))


@dataclasses.dataclass(frozen=True)
class Report:
    """Two models, and what is wanted: the verdict, and phrases of the sentence."""

    source: str
    pair: Callable[[], tuple[onnx.ModelProto, onnx.ModelProto]]
    wanted: Verdict
    says: tuple[str, ...] = ()
    ranges: Ranges = dataclasses.field(default_factory=dict)
    run: bool = False
    every: tuple[str, ...] = ()


# -- 04: onnx#6162, Fast_Dense_Feature_Extraction#3: are these transposes a pixel shuffle, and which operator? -------

_SPLIT = """(float[1,8,4,4] x) => (float[1,32,2,2] y) <int64[6] s = {1,8,2,2,2,2}, int64[4] t = {1,32,2,2}>
  { a = Reshape (x, s) b = Transpose <perm = [0,1,3,5,2,4]> (a) y = Reshape (b, t) }"""
_JOIN = """(float[1,32,2,2] x) => (float[1,8,4,4] y) <int64[6] s = {1,2,2,8,2,2}, int64[4] t = {1,8,4,4}>
  { a = Reshape (x, s) b = Transpose <perm = [0,3,4,1,5,2]> (a) y = Reshape (b, t) }"""


def _depth_to_space(mode: str) -> onnx.ModelProto:
    body = f'y = DepthToSpace <blocksize = 2, mode = "{mode}"> (x)'
    return text(f"(float[1,32,2,2] x) => (float[1,8,4,4] y) {{ {body} }}")


def _space_to_depth(picked: bool) -> onnx.ModelProto:
    body = "a = SpaceToDepth <blocksize = 2> (x) y = Gather <axis = 1> (a, i)"
    order = np.arange(32).reshape(4, 8).T.ravel() if picked else np.arange(32)
    return text(f"(float[1,8,4,4] x) => (float[1,32,2,2] y) {{ {body} }}", i=order)


# -- 07: onnxruntime#32132, #25259: is the fused QDQ model the same? -------------------------------------------------


def _quantized(fused: bool) -> onnx.ModelProto:
    scales = "<float sa = {0.02}, float sb = {0.03}, float sc = {0.16}, %s>"
    head = "(float[1,4] x, float[1,4] z) => (float[1,4] y) "
    if fused:
        body = """{ p = QuantizeLinear (x, sa, u) q = QuantizeLinear (z, sb, u)
          r = com.microsoft.QLinearAdd (p, sa, u, q, sb, u, sc, u) y = DequantizeLinear (r, sc, u) }"""
        return text(head + scales % "uint8 u = {128}" + body, more=', "com.microsoft": 1')
    body = """{ p = QuantizeLinear (x, sa, i) d = DequantizeLinear (p, sa, i) q = QuantizeLinear (z, sb, i)
      e = DequantizeLinear (q, sb, i) s = Add (d, e) r = QuantizeLinear (s, sc, i) y = DequantizeLinear (r, sc, i) }"""
    return text(head + scales % "int8 i = {0}" + body)


# -- 13: Swin-Unet#6, openpifpaf#259: is patch expanding a ConvTranspose? --------------------------------------------


def _expanding(transposed: bool) -> onnx.ModelProto:
    w = drawn(8, 16)  # from 8 channels to 2 x 2 pixels of 4
    if transposed:
        body = "t = Transpose <perm = [0,3,1,2]> (x) c = ConvTranspose <strides = [2,2]> (t, w)"
        body += " y = Transpose <perm = [0,2,3,1]> (c)"
        kernel = np.ascontiguousarray(w.reshape(8, 2, 2, 4).transpose(0, 3, 1, 2))
        return text(f"(float[1,3,3,8] x) => (float[1,6,6,4] y) {{ {body} }}", w=kernel)
    body = "m = MatMul (x, w) r = Reshape (m, s) t = Transpose <perm = [0,1,3,2,4,5]> (r) y = Reshape (t, o)"
    sizes = {"s": np.array([1, 3, 3, 2, 2, 4]), "o": np.array([1, 6, 6, 4])}
    return text(f"(float[1,3,3,8] x) => (float[1,6,6,4] y) {{ {body} }}", w=w, **sizes)


# -- 15: Qwen3-VL#2087: is Conv3d on a repeated frame a Conv2d? ------------------------------------------------------


def _inflated(share: float | None) -> onnx.ModelProto:
    w = drawn(4, 3, 2, 2)
    if share is None:
        return text("(float[1,3,4,4] x) => (float[1,4,2,2] y) { y = Conv <strides = [2,2]> (x, w) }", w=w)
    body = "u = Unsqueeze (x, two) f = Concat <axis = 2> (u, u) c = Conv <strides = [2,2,2]> (f, w) y = Squeeze (c, two)"
    kernel = np.stack([w * np.float32(share)] * 2, 2)
    return text(f"(float[1,3,4,4] x) => (float[1,4,2,2] y) {{ {body} }}", w=kernel, two=np.array([2]))


# -- 21: pytorch#84374, #78323: do two exports with a baked size agree? ----------------------------------------------


def _baked(size: int) -> onnx.ModelProto:
    body = 'r = Resize <mode = "linear"> (p, , , s) y = Add (r, x)'
    head = "(float[1,3,h,w] x) => (float[1,3,h2,w2] y) { p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (x) "
    return text(head + body + " }", s=np.array([1, 3, size, size]))


# -- 22: onnx/models#537, #114, insightface#1593: did I make the batch free rightly? ---------------------------------


def _batched(batch: str, shape: list[int]) -> onnx.ModelProto:
    body = "t = Transpose <perm = [0,2,3,1]> (x) r = Reshape (t, s) y = Sigmoid (r)"
    return text(f"(float[{batch},2,4,4] x) => (float[{batch},16,2] y) {{ {body} }}", s=np.array(shape))


# -- 24: onnx#4008, #2829, #4781: the same after convert_version? ----------------------------------------------------


def _dft(opset: int) -> onnx.ModelProto:
    head = "(float[1,8,2] x) => (float[1,8,2] y) "
    if opset < 20:
        return text(head + "{ y = DFT <axis = 1> (x) }", opset)
    return text(head + "<int64 a = {1}> { y = DFT (x, , a) }", opset)


def _group_normalization(opset: int) -> onnx.ModelProto:
    head = "(float[2,4,3,3] x) => (float[2,4,3,3] y) <float[2] s = {2,3}, float[2] b = {0.5,1}>"
    return text(head + "{ y = GroupNormalization <num_groups = 2> (x, s, b) }", opset)


# -- 25: sklearn-onnx#1001, #881: two conversions of one forest ------------------------------------------------------


def _forest(order: tuple[int, ...], threshold: float = -0.5) -> onnx.ModelProto:
    """Stumps in an order; the second one's threshold is given."""
    stumps = [(2, -0.125, 1.0, -1.0), (1, threshold, 0.5, 0.25), (2, -0.75, 2.0, -3.0)]
    nodes = [(tree, node, *stumps[of]) for tree, of in enumerate(order) for node in range(3)]
    node = onnx.helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[t for t, *_ in nodes], nodes_nodeids=[n for _, n, *_ in nodes],
        nodes_featureids=[f if n == 0 else 0 for _, n, f, *_ in nodes],
        nodes_modes=["LEAF" if n else "BRANCH_LEQ" for _, n, *_ in nodes],
        nodes_values=[v if n == 0 else 0.0 for _, n, _, v, *_ in nodes],
        nodes_truenodeids=[0 if n else 1 for _, n, *_ in nodes], nodes_falsenodeids=[0 if n else 2 for _, n, *_ in nodes],
        target_treeids=[t for t, n, *_ in nodes if n], target_nodeids=[n for _, n, *_ in nodes if n],
        target_ids=[0 for _, n, *_ in nodes if n], target_weights=[(yes, no)[n - 1] for _, n, _, _, yes, no in nodes if n],
    )  # fmt: skip
    model = text("(float[4,3] x) => (float[4,1] y) { y = Relu (x) }", more=', "ai.onnx.ml": 3')
    del model.graph.node[:]
    model.graph.node.append(node)
    return model


# -- 27: OnnxSlim#126, PaddleOCR#5535: is the simplified OCR right? ---------------------------------------------------


def _scaled(folded: bool, bent: float = 0.0) -> onnx.ModelProto:
    """A scale in front of x * Clip(x + 3, 0, 6) / 6, or in the Conv before it; ``bent`` is added to one weight."""
    w, b, s = drawn(4, 2, 3, 3) / np.float32(7), drawn(4, seed=1), np.float32([0.7])
    w[1, 0, 2, 1] += np.float32(bent)
    head = "(float[1,2,8,8] x) => (float[1,4,8,8] y) <float[1] t = {0.3}, float three = {3}, float zero = {0}, float six = {6}>"
    scale = "m = Identity (c)" if folded else "m = Mul (s, c)"
    body = f"c = Conv <pads = [1,1,1,1]> (x, w, b) {scale} a = Add (m, t) p = Add (a, three) q = Clip (p, zero, six)"
    stored = {"w": w * s, "b": b * s} if folded else {"w": w, "b": b, "s": s}
    return text(f"{head} {{ {body} u = Mul (a, q) y = Div (u, six) }}", **stored)


# -- 28: unfoldNd#29, pytorch#41423, onnx#5415: is F.fold a rearrangement? -------------------------------------------


def _folded(rearranged: bool) -> onnx.ModelProto:
    head = "(float[1,6,48] x) => (float[1,3,12,8] y) "
    if rearranged:
        body = "r = Reshape (x, s) t = Transpose <perm = [0,3,1,4,2,5]> (r) y = Reshape (t, o)"
        return text(f"{head}{{ {body} }}", 18, s=np.array([1, 3, 2, 3, 4, 4]), o=np.array([1, 3, 12, 8]))
    body = "t = Transpose <perm = [0,2,1]> (x) y = Col2Im <strides = [4,4]> (t, s, k)"
    return text(f"{head}{{ {body} }}", 18, s=np.array([12, 8]), k=np.array([4, 4]))


# -- 29: reduced from silero-vad#783: the same at sr = 16000? --------------------------------------------------------


def _branched(weight: list[float]) -> onnx.ModelProto:
    return text(
        """(float[1,4] x, int64 sr) => (float[1,4] y) <int64 k = {16000}> {
          c = Equal (sr, k)
          o = If (c) < then_branch = t () => (float[1,4] to) { t1 = Relu (x) to = Tanh (t1) },
                       else_branch = e () => (float[1,4] eo) { e1 = Sigmoid (x) e2 = Mul (e1, w) eo = Exp (e2) } >
          y = Neg (o) }""",
        w=np.array([weight], np.float32),
    )


# -- 01: silero-vad#783: are two published files the same? By branch, each of which takes another length --------------


def _by_rate(weight: float) -> onnx.ModelProto:
    return text(
        """(float[b,n] x, int64 sr) => (float[b,4] y) <int64 k = {16000}, int64[3] s16 = {0,4,8}, int64[3] s8 = {0,4,4},
          int64[1] last = {2}> {
          c = Equal (sr, k)
          y = If (c) < then_branch = t () => (float[b,4] to) {
                         t1 = Reshape (x, s16) t2 = ReduceSum <keepdims = 0> (t1, last) to = Tanh (t2) },
                       else_branch = e () => (float[b,4] eo) {
                         e1 = Reshape (x, s8) e2 = ReduceSum <keepdims = 0> (e1, last) e3 = Mul (e2, w) eo = Exp (e3) } > }""",
        w=np.array(weight, np.float32),
    )


# -- 02: silero-vad#680, #609: is the file of one sampling rate right? ------------------------------------------------


def _at_one_rate() -> onnx.ModelProto:
    return text("(float[1,4] x) => (float[1,4] y) { t1 = Relu (x) t2 = Tanh (t1) y = Neg (t2) }")


def _worded() -> onnx.ModelProto:
    return text("(float[1,4] x, string[1] words) => (float[1,4] y, string[1] z) { y = Neg (x) z = Identity (words) }")


# -- 16: onnxconverter-common#323, #299, onnxruntime#11384: where does float16 give NaN? -------------------------------


def _squared(half: bool) -> onnx.ModelProto:
    head = "(float[1,3,8,8] x) => (float[1,1,1,1] y) "
    body = "q = Mul ({0}, {0}) m = ReduceMean ({1}) {2} = Sqrt (m)"
    if half:
        return text(f"{head}{{ h = Cast <to = 10> (x) {body.format('h', 'q', 'r')} y = Cast <to = 1> (r) }}")
    return text(f"{head}{{ {body.format('x', 'q', 'y')} }}")


# -- 18: onnx2tf#258, dino#260, ability-draft-plus#80: which layer collapses in int8? ---------------------------------


def _in_int8(quantized: bool) -> onnx.ModelProto:
    head = "(float[1,3,6,6] x) => (float[1,4,6,6] y) "
    w = drawn(4, 3, 1, 1)
    if not quantized:
        return text(f"{head}{{ y = Conv (x, w) }}", w=w)
    body = "q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) y = Conv (d, w)"
    return text(f"{head}<float s = {{0.03}}, int8 z = {{0}}> {{ {body} }}", w=w)


# -- 20: mmdeploy#968, icefall#1452: which parameters changed? --------------------------------------------------------


def _retrained(changed: bool) -> onnx.ModelProto:
    body = "c = Conv <pads = [1,1,1,1]> (x, w) r = Relu (c) f = Flatten (r) y = Gemm (f, v, b)"
    w, v, b = drawn(4, 3, 3, 3), drawn(64, 5, seed=1), drawn(5, seed=2)
    w[2, 1, 0, 2] += np.float32(0.5 * changed)
    return text(f"(float[1,3,4,4] x) => (float[1,5] y) {{ {body} }}", w=w, v=v, b=b + np.float32(0.25 * changed))


# -- 23: lightly-train#250, rf-detr#212, dinov2#216: is the precomputed position table the in-graph bicubic? -----------


def _positions(computed: bool, moved: float = 0.0) -> onnx.ModelProto:
    """Positions of 7x7 patches, resized for 4x5: in the graph, or by a runtime before."""
    head, table = "(float[1,8,4,5] x) => (float[1,8,4,5] y) ", np.random.default_rng(0).standard_normal((1, 8, 7, 7))
    resize = '<int64[4] s = {1,8,4,5}> { r = Resize <mode = "cubic"> (e, , , s) y = %s }'
    if computed:
        return text(f"{head}{resize % 'Add (x, r)'}", e=table.astype(np.float32))
    alone = text(f"{head}{resize % 'Identity (r)'}", e=table.astype(np.float32))
    made: Any = onnxruntime.InferenceSession(alone.SerializeToString()).run(None, {"x": np.zeros((1, 8, 4, 5), np.float32)})
    made[0][0, 3, 1, 2] += np.float32(moved)
    return text(f"{head}{{ y = Add (x, r) }}", r=made[0])


# -- 30: LightGlue-ONNX#35, TransformerEngine#256: is my half copy right? ---------------------------------------------


def _narrow(kind: str) -> onnx.ModelProto:
    w = drawn(8, 8) / np.float32(3)
    if kind == "bfloat16":
        body = "h = Cast <to = 16> (w) f = Cast <to = 1> (h) y = MatMul (x, f)"
        return text(f"(float[2,8] x) => (float[2,8] y) {{ {body} }}", w=w)
    if kind == "float":
        return text("(float[2,8] x) => (float[2,8] y) { y = MatMul (x, w) }", w=w)
    half = (w.T if kind == "transposed" else w).astype(np.float16)
    return text("(float16[2,8] x) => (float16[2,8] y) { y = MatMul (x, w) }", w=half)


# -- 90-attack/01: a table that was folded, and one element of it damaged ---------------------------------------------


def _folded_table(folded: bool) -> onnx.ModelProto:
    u, v = drawn(30, 16), drawn(16, 4, seed=1)
    head = "(int64[N,6] x) => (float[N,6,4] y) "
    if not folded:
        return text(f"{head}{{ t = MatMul (u, v) y = Gather (t, x) }}", 21, u=u, v=v)
    table = u @ v
    table[17, 2] += np.float32(0.05)
    return text(f"{head}{{ y = Gather (t, x) }}", 21, t=table)


# -- 90-attack/02: right pairs whose roundings differ; 03: a Loop; 06: sizes; 08: uint8 wraps ------------------------


def _pair(head: str, a: str, b: str, opset: int = 21) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return text(f"{head} {{ {a} }}", opset), text(f"{head} {{ {b} }}", opset)


def _looped(fn: str, trips: int, factor: float = 0.5, inner: str = "") -> onnx.ModelProto:
    return text(
        f"""(float[2,4] x) => (float[2,4] y) <int64 n = {{{trips}}}, bool c = {{1}}, float k = {{{factor}}}> {{
          y = Loop (n, c, x) <body = b (int64 i, bool ci, float[2,4] a) => (bool co, float[2,4] ao) {{
            co = Identity (ci) {inner or f"t = {fn} (a)"} ao = Mul (t, k) }}> }}""",
        18,
    )


def _capped(most: int) -> onnx.ModelProto:
    """x + Min(S, most): the same as long as no axis is longer."""
    body = "s = Shape <start = 1, end = 2> (x) m = Min (s, k) f = Cast <to = 1> (m) y = Add (x, f)"
    return text(f"(float[1,S,4] x) => (float[1,S,4] y) <int64[1] k = {{{most}}}> {{ {body} }}", 18)


# -- 90-attack/05: equal functions that people meet daily --------------------------------------------------------------


def _daily(a: str, b: str, more: str = "", opset: int = 17) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    head = f"(float[2,3,6,6] x) => (float[a,b,c,d] y) {more}"
    return text(f"{head} {{ {a} }}", opset), text(f"{head} {{ {b} }}", opset)


def _looked_up(through: str) -> onnx.ModelProto:
    to = {"int32": 6, "int8": 3}.get(through)
    body = f"i = Cast <to = {to}> (x) j = Cast <to = 7> (i) y = Gather (w, j)" if to else "y = Gather (w, x)"
    return text(f"(int64[N,6] x) => (float[N,6,4] y) {{ {body} }}", 21, w=drawn(300, 4))


def _requantized(scale: float | None, second: float | None = None) -> onnx.ModelProto:
    """What is uint8 dequantized and quantized again, or as it is."""
    if scale is None:
        return text("(uint8[N,6] x) => (uint8[N,6] y) { y = Identity (x) }", 21)
    body = "q = DequantizeLinear (x, s, z) y = QuantizeLinear (q, r, z)"
    consts = f"<float s = {{{scale}}}, float r = {{{second or scale}}}, uint8 z = {{7}}>"
    return text(f"(uint8[N,6] x) => (uint8[N,6] y) {consts} {{ {body} }}", 21)


_POOL = "MaxPool <kernel_shape = [{0},{0}], pads = [{1},{1},{1},{1}]>"
_FIVE, _NINE = _POOL.format(3, 1), _POOL.format(7, 3)
_HARD = "<float three = {3}, float six = {6}, float zero = {0}>"


REPORTS = {
    "01 one branch of two is the same": Report(
        "silero-vad#783", lambda: (_by_rate(1.0), _by_rate(2.0)), Verdict.DIFFERENT,
        ("proved where sr = 16000; different elsewhere: at sr=8000 output 'y' differs",),
    ),
    "02 a file of one sampling rate has no input for it": Report(
        "silero-vad#680", lambda: (_branched([1, 2, 3, 4]), _at_one_rate()), Verdict.DIFFERENT,
        ("the interfaces do not fit: input 'sr' of A has no partner in B",),
    ),
    "04 unshuffle is not SpaceToDepth": Report(
        "onnx#6162", lambda: (text(_SPLIT), _space_to_depth(False)), Verdict.DIFFERENT
    ),
    "04 unshuffle is SpaceToDepth in another order": Report(
        "onnx#6162", lambda: (text(_SPLIT), _space_to_depth(True)), Verdict.PROVED
    ),
    "04 unwarp is DepthToSpace DCR": Report(
        "Fast_Dense_Feature_Extraction#3", lambda: (text(_JOIN), _depth_to_space("DCR")), Verdict.PROVED
    ),
    "04 unwarp is not DepthToSpace CRD": Report(
        "Fast_Dense_Feature_Extraction#3", lambda: (text(_JOIN), _depth_to_space("CRD")), Verdict.DIFFERENT
    ),
    "07 a fused QDQ model": Report(
        "onnxruntime#32132", lambda: (_quantized(False), _quantized(True)), Verdict.PROVED,
    ),
    "13 patch expanding is a ConvTranspose": Report(
        "Swin-Unet#6", lambda: (_expanding(False), _expanding(True)), Verdict.PROVED
    ),
    "15 half the weight on a repeated frame": Report(
        "Qwen3-VL#2087", lambda: (_inflated(None), _inflated(0.5)), Verdict.PROVED
    ),
    "15 the whole weight on a repeated frame": Report(
        "Qwen3-VL#2087", lambda: (_inflated(None), _inflated(1.0)), Verdict.DIFFERENT
    ),
    "16 a square overflows float16": Report(
        "onnxconverter-common#323", lambda: (_squared(False), _squared(True)), Verdict.UNDECIDED, run=True,
    ),
    "18 int8 against float": Report(
        "onnx2tf#258", lambda: (_in_int8(False), _in_int8(True)), Verdict.DIFFERENT, ("output 'y' differs by 0.0",), run=True
    ),
    "20 parameters that changed": Report(
        "mmdeploy#968", lambda: (_retrained(False), _retrained(True)), Verdict.DIFFERENT
    ),
    "21 sizes baked in": Report(
        "pytorch#84374", lambda: (_baked(20), _baked(28)), Verdict.DIFFERENT, ("x=1x3x",), run=True
    ),
    "21 one size baked in twice": Report(
        "pytorch#78323", lambda: (_baked(20), _baked(20)), Verdict.IDENTICAL
    ),
    "22 a batch made free": Report(
        "insightface#1593", lambda: (_batched("1", [1, -1, 2]), _batched("N", [-1, 16, 2])), Verdict.PROVED,
        ("for every batch size, row by row, and", "; B gives for each row what A gives for it"),
    ),
    "22 a batch made free, all rows in one": Report(
        "insightface#1593", lambda: (_batched("1", [1, -1, 2]), _batched("N", [1, -1, 2])), Verdict.UNDECIDED,
        ("not for every batch size: output y: it has no axis of one element for each row",), every=("batch",),
    ),
    "23 a table of positions, resized before": Report(
        "lightly-train#250", lambda: (_positions(True), _positions(False)), Verdict.WITHIN_ROUNDING
    ),
    "23 a table of positions, one of them moved": Report(
        "lightly-train#250", lambda: (_positions(True), _positions(False, 0.01)), Verdict.DIFFERENT
    ),
    "24 DFT, converted": Report(
        "onnx#4008", lambda: (_dft(17), _dft(20)), Verdict.PROVED
    ),
    "24 GroupNormalization, broken by its converter": Report(
        "onnx#4781", lambda: (_group_normalization(18), _group_normalization(21)), Verdict.DIFFERENT,
        ("A runs at x=2x4x3x3 and B does not", "GroupNormalization does not take the shapes [2, 4, 3, 3], [2], [2]"), run=True,
    ),
    "25 a forest in another order": Report(
        "sklearn-onnx#1001", lambda: (_forest((0, 1, 2)), _forest((2, 1, 0))), Verdict.PROVED,
    ),
    "25 a forest with another threshold": Report(
        "sklearn-onnx#881", lambda: (_forest((0, 1, 2)), _forest((0, 1, 2), -0.25)), Verdict.DIFFERENT, run=True,
    ),
    "27 a scale folded in front of a HardSwish": Report(
        "OnnxSlim#126", lambda: (_scaled(False), _scaled(True)), Verdict.WITHIN_ROUNDING, ("once 2 constants",), run=True
    ),
    "27 a scale folded in front of a HardSwish, and one weight another": Report(
        "OnnxSlim#126", lambda: (_scaled(False), _scaled(True, 1e-4)), Verdict.DIFFERENT, run=True
    ),
    "28 fold is a rearrangement": Report(
        "unfoldNd#29", lambda: (_folded(False), _folded(True)), Verdict.PROVED
    ),
    "29 one branch is the same": Report(
        "silero-vad#783", lambda: (_branched([1, 2, 3, 4]), _branched([1, 2, 3, 5])), Verdict.PROVED,
        ("at sr=16000 alone",), {"sr": (16000, 16000)},
    ),
    "29 the other branch is not": Report(
        "silero-vad#783", lambda: (_branched([1, 2, 3, 4]), _branched([1, 2, 3, 5])), Verdict.DIFFERENT,
        ("proved where sr = 16000; different elsewhere: output 'y' differs",),
    ),
    "30 a half copy": Report(
        "LightGlue-ONNX#35", lambda: (_narrow("float"), _narrow("half")), Verdict.UNDECIDED,
        ("the declared types differ, so the models are compared by deviations only",), run=True,
    ),
    "30 a half copy with a weight transposed": Report(
        "LightGlue-ONNX#35", lambda: (_narrow("float"), _narrow("transposed")), Verdict.UNDECIDED,
        ("the declared types differ, so the models are compared by deviations only",), run=True,
    ),
    "30 a weight through bfloat16": Report(
        "TransformerEngine#256", lambda: (_narrow("float"), _narrow("bfloat16")), Verdict.DIFFERENT
    ),
    "90/01 a folded table with one element damaged": Report(
        "90-attack/01", lambda: (_folded_table(False), _folded_table(True)), Verdict.DIFFERENT
    ),
    "90/02 a variance by moments": Report(
        "90-attack/02", lambda: _pair(
            "(float[N,16] x) => (float[N,1] y) <int64[1] k = {1}>",
            "m = ReduceMean (x, k) d = Sub (x, m) q = Mul (d, d) y = ReduceMean (q, k)",
            "q = Mul (x, x) a = ReduceMean (q, k) m = ReduceMean (x, k) b = Mul (m, m) y = Sub (a, b)",
        ), Verdict.PROVED, run=True,
    ),
    "90/02 a million added and taken away": Report(
        "90-attack/02", lambda: _pair(
            "(float[N,4] x) => (float[N,4] y) <float k = {1e6}>", "a = Add (x, k) y = Sub (a, k)", "y = Identity (x)"
        ), Verdict.PROVED, run=True,
    ),
    "90/03 a Loop of few trips": Report(
        "90-attack/03", lambda: (_looped("Tanh", 3), _looped("Sin", 3)), Verdict.DIFFERENT
    ),
    # at most 2^-300 on both sides, which is 0 in float32; over the reals they differ by 7e-91: neither is to be said
    "90/03 a Loop whose outputs no float can tell apart": Report(
        "90-attack/03", lambda: (_looped("Tanh", 300), _looped("Sin", 300)), Verdict.UNDECIDED
    ),
    "90/03 a Loop of many trips": Report(
        "90-attack/03", lambda: (_looped("Tanh", 300, 1.5), _looped("Sin", 300, 1.5)), Verdict.DIFFERENT
    ),
    "90/03 a Loop of many trips, in other words": Report(
        "90-attack/03", lambda: (_looped("Tanh", 300), _looped("Tanh", 300, inner="h = Neg (a) g = Tanh (h) t = Neg (g)")),
        Verdict.PROVED,
    ),
    "90/06 the same up to a length of 128": Report(
        "90-attack/06", lambda: (_capped(128), _capped(256)), Verdict.DIFFERENT, ("that is at x=1x129x4, and at x=1x8x4",)
    ),
    "90/08 uint8 doubled and halved": Report(
        "90-attack/08", lambda: _pair(
            "(uint8[N,4] x) => (uint8[N,4] y) <uint8 k = {2}>", "n = Mul (x, k) y = Div (n, k)", "y = Identity (x)"
        ), Verdict.DIFFERENT,
    ),
    "90/08 the mean of two, in uint8 and int32": Report(
        "90-attack/08", lambda: _pair(
            "(uint8[N,4] x, uint8[N,4] w) => (uint8[N,4] y) <uint8 k = {2}, int32 l = {2}>", "s = Add (x, w) y = Div (s, k)",
            "p = Cast <to = 6> (x) q = Cast <to = 6> (w) s = Add (p, q) d = Div (s, l) y = Cast <to = 2> (d)",
        ), Verdict.DIFFERENT,
    ),
    "90/05 token ids through int32": Report(
        "90-attack/05", lambda: (_looked_up(""), _looked_up("int32")), Verdict.PROVED,
    ),
    "90/05 token ids through int8": Report(
        "90-attack/05", lambda: (_looked_up(""), _looked_up("int8")), Verdict.DIFFERENT, run=True
    ),
    "90/05 quantized twice": Report(
        "90-attack/05", lambda: (_requantized(0.05), _requantized(None)), Verdict.PROVED, run=True
    ),
    "90/05 quantized twice with another scale": Report(
        "90-attack/05", lambda: (_requantized(0.05, 0.04), _requantized(None)), Verdict.DIFFERENT, run=True
    ),
    "90 several MaxPools": Report(
        "SPPF", lambda: _daily(f"a = {_FIVE} (x) b = {_FIVE} (a) y = {_FIVE} (b)", f"y = {_NINE} (x)"), Verdict.PROVED,
    ),
    "90 HardSwish by Clip": Report(
        "MobileNetV3", lambda: _daily(
            "y = HardSwish (x)", "a = Add (x, three) c = Clip (a, zero, six) m = Mul (x, c) y = Div (m, six)", _HARD
        ), Verdict.WITHIN_ROUNDING,
    ),
    "90 Where(x >= 0, x, 0)": Report(
        "90-attack/05", lambda: _daily("y = Relu (x)", "c = GreaterOrEqual (x, zero) y = Where (c, x, zero)", _HARD),
        Verdict.PROVED,
    ),
    "90 ReduceMin by a negated ReduceMax": Report(
        "90-attack/05", lambda: _daily("y = ReduceMin (x)", "n = Neg (x) m = ReduceMax (n) y = Neg (m)"), Verdict.PROVED,
    ),
}  # fmt: skip


@functools.cache
def told(name: str) -> Comparison:
    report = REPORTS[name]
    return judged(*report.pair(), ranges=report.ranges, run=report.run, every=report.every)


@pytest.mark.parametrize("name", REPORTS)
def test_a_reported_situation_has_the_wanted_answer(name: str) -> None:
    found = told(name)
    assert found.verdict is REPORTS[name].wanted, found.reason
    assert all(phrase in found.reason for phrase in REPORTS[name].says), found.reason


def test_22_an_output_that_contradicts_its_declaration_at_batch_2_is_no_proof() -> None:
    """onnx/models#537: with a free batch, the wrong Reshape moves all rows into one."""
    free, wrong = _batched("N", [-1, 16, 2]), _batched("N", [1, -1, 2])
    assert judged(free, wrong).verdict is Verdict.DIFFERENT


def test_02_a_file_of_one_sampling_rate_is_compared_with_fix() -> None:
    """silero-vad#680: the rate is held at a number where a model takes it, and one that does not is its partner."""
    a, b = _branched([1, 2, 3, 4]), _at_one_rate()
    for first, second, side in ((a, b, "A"), (b, a, "B")):
        found = judged(first, second, fix={"sr": 16000})
        assert found.verdict is Verdict.PROVED, found.reason
        assert ", with sr held at 16000, " in found.reason
        assert f"input 'sr' of {side} is held at 16000, as asked" in found.evidence["interface"]["notes"]
        assert judged(first, second, fix={"sr": 8000}, run=True).verdict is Verdict.DIFFERENT
    assert [value.name for value in a.graph.input] == ["x", "sr"], "what was given stays as it was"
    assert judged(a, a, fix={"sr": 16000}).verdict is Verdict.IDENTICAL


def test_02_an_input_that_is_held_is_as_long_as_the_batch() -> None:
    """Held at 1, a mask of N rows has the sum N: that of one row alone was taken for it, at every size."""
    head = '<ir_version: 10, opset_import: ["": 18]> g (float[N,3] x, float[N,1] k) => (float[N,3] y) <int64[1] z = {0}>'
    summed, shown = (onnx.parser.parse_model(f"{head} {{ s = {op} y = Mul (x, s) }}") for op in ("ReduceSum (k, z)", "Abs (k)"))
    plain = onnx.parser.parse_model(f"{head.replace(', float[N,1] k', '')} {{ y = Identity (x) }}")
    for first, second in ((summed, plain), (plain, summed)):
        found = judged(first, second, fix={"k": 1}, run=True)
        assert found.verdict is Verdict.DIFFERENT, found.reason
    assert judged(shown, plain, fix={"k": -1}, every=("batch",)).verdict is Verdict.PROVED


def test_02_a_dim_that_an_input_held_has_alone_is_1_and_told() -> None:
    head = '<ir_version: 10, opset_import: ["": 18]> g (float[N,3] x, float[N,M] k) => (float[N,3] y) <int64[1] z = {1}>'
    model = onnx.parser.parse_model(f"{head} {{ s = ReduceSum (k, z) y = Mul (x, s) }}")
    plain = onnx.parser.parse_model(f"{head.replace(', float[N,M] k', '')} {{ y = Identity (x) }}")
    found = judged(model, plain, fix={"k": 1})
    said = [note for note in found.evidence["interface"]["notes"] if "dim" in note]
    assert found.verdict is Verdict.PROVED, found.reason
    assert said == ["dim 'M' of input 'k' of A, which no other input has, is 1 where it is held"]


@pytest.mark.parametrize(
    ("fix", "error"),
    [
        ({"rate": 1}, "no input is named 'rate'; there are sr, x"),
        ({"sr": 0.5}, "input 'sr' is int64, and cannot be 0.5"),
        ({"words": 1}, "input 'words' cannot be held at 1: its type is string"),
        ({"sr": float("nan")}, "fix takes finite numbers, not nan"),
    ],
)
def test_02_an_input_that_cannot_be_held(fix: dict[str, float], error: str) -> None:
    with pytest.raises(UsageError, match=f"{re.escape(error)}$"):
        judged(_branched([1, 2, 3, 4]), _worded() if "words" in fix else _at_one_rate(), fix=fix)


@pytest.mark.parametrize(
    ("name", "op"),
    [("04 unshuffle is not SpaceToDepth", "SpaceToDepth"), ("04 unwarp is not DepthToSpace CRD", "DepthToSpace")],
)
def test_04_the_first_node_whose_movement_departs_is_named_and_cut_out(name: str, op: str, tmp_path: Path) -> None:
    found = judged(*REPORTS[name].pair(), reduce=tmp_path).evidence
    assert found["divergence"]["b"]["op_type"] == op
    assert found["reduced"]["verdict"] == "different" and onnx.load(found["reduced"]["b"]).graph.node[0].op_type == op


def test_16_the_first_tensor_that_overflows_is_named() -> None:
    """An image of 10 bits, whose squares onnxruntime's CPU provider computes in float32."""
    found = judged(_squared(False), _squared(True), run=True, ranges={"x": (0.0, 1023.0)}, allow=["float16"])
    assert found.evidence["precision"]["overflowed"][0]["op_type"] == "Mul"


def test_18_the_layers_are_ranked_and_the_copy_accepted_where_it_is_asked_for() -> None:
    found = judged(_in_int8(False), _in_int8(True), run=True, allow=["int8"], top=1)
    assert found.verdict is Verdict.WITHIN_ROUNDING
    assert [row["node"] for row in found.evidence["precision"]["keep"]] == ["Conv(y)"]


@pytest.mark.parametrize(
    ("kind", "wanted", "says"),
    [
        ("half", Verdict.WITHIN_ROUNDING, "1 constant of float16"),
        ("bfloat16", Verdict.WITHIN_ROUNDING, "1 constant of bfloat16"),
        ("transposed", Verdict.UNDECIDED, "for constants that were not rounded so: 'w' at [0, 1]"),
    ],
)
def test_30_a_right_copy_is_told_from_a_wrong_one(kind: str, wanted: Verdict, says: str) -> None:
    found = judged(_narrow("float"), _narrow(kind), run=True, allow=["bfloat16" if kind == "bfloat16" else "float16"])
    assert found.verdict is wanted and says in found.reason, found.reason


def test_07_a_tie_is_told_in_quantization_steps() -> None:
    """Both are right: x + z lies between two integers, and the fused kernel rounds it the other way."""
    found = judged(_quantized(False), _quantized(True), run=True, numerics="full")
    said = [text for text in found.evidence["numeric"]["warnings"] if "quantized" in text]
    rows = [row for run in found.evidence["numeric"]["runs"] for row in run["outputs"]]
    assert found.verdict is Verdict.PROVED and all(row["step"] == pytest.approx(0.16) for row in rows)
    assert bool(said) == any(row["unequal"] for row in rows) and all("it differs by exactly one step at" in text for text in said)
    whole = dataclasses.replace(REPORTS["18 int8 against float"], run=True)
    plain = judged(*whole.pair(), run=True)
    assert not any("quantized in steps" in text for text in plain.evidence["numeric"]["warnings"])


@pytest.mark.parametrize(("moved", "says"), [(0, ""), (1, "exactly one step at 1 elements"), (3, "at most 3 steps at 1")])
def test_07_steps_are_counted(moved: int, says: str) -> None:
    body = "q = QuantizeLinear (x, s, z) t = Transpose (q) {} d = DequantizeLinear ({}, s, z) y = Flatten (d)"
    head = f"(float[1,4] x) => (float[4,1] y) <float s = {{0.25}}, int8 z = {{0}}, int8[4,1] k = {{0, {moved}, 0, 0}}>"
    a = text(f"{head} {{ {body.format('', 't')} }}", 21)
    b = text(f"{head} {{ {body.format('w = Add (t, k)', 'w')} }}", 21)
    warnings = judged(a, b, run=True).evidence["numeric"]["warnings"]
    said = [line for line in warnings if "quantized in steps of 0.25" in line]
    assert (says in said[0]) if says else not said


def test_20_the_parameters_that_changed_are_listed() -> None:
    changed = told("20 parameters that changed").evidence["changed"]
    assert [(row["a"], row["unequal"], row["max_abs"]) for row in changed] == [("w", 1, 0.5), ("b", 5, 0.25)]


@pytest.mark.parametrize("kind", ["uint8", "float16"])
def test_90_04_a_site_behind_a_cast_is_rewritten(kind: str) -> None:
    head = f"({kind}[1,3,8,8] x) => (float[1,4,2,2] y)"
    model = text(f"{head} {{ f = Cast <to = 1> (x) y = Conv <strides = [4,4]> (f, w) }}", w=drawn(4, 3, 4, 4))
    done = rewrite(model, to="matmul")
    assert done.changed and done.verdict == "proved" and "Cast" in {node.op_type for node in done.model.graph}


def test_13_and_04_the_analyzer_says_nothing_false_of_them() -> None:
    """Patch expanding and pixel shuffles are no patch embeddings: nothing is rewritten."""
    for model in (_expanding(False), _expanding(True), text(_SPLIT), text(_JOIN)):
        assert not analyze(model).sites and not rewrite(model, to="conv").changed
