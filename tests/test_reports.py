"""Situations that people reported in public, rebuilt small: what a person wanted to know, and the answer to it.

Each row names its sources. Right answers come from onnxruntime, torch, onnx.reference or arithmetic. What runs on real
files is in ``benchmarks/real.py``: whether two files of silero-vad are the same, and whether a simplified OCR is right.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from graphcheck import analyze, compare, rewrite
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
    """Two models, and what is wanted: the verdict, and phrases of the sentence. ``missing``: why it is not so today."""

    source: str
    pair: Callable[[], tuple[onnx.ModelProto, onnx.ModelProto]]
    wanted: Verdict
    says: tuple[str, ...] = ()
    ranges: Ranges = dataclasses.field(default_factory=dict)
    run: bool = False
    missing: str = ""


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


# -- 90-attack/05: equal functions that people meet daily --------------------------------------------------------------


def _daily(a: str, b: str, more: str = "", opset: int = 17) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    head = f"(float[2,3,6,6] x) => (float[a,b,c,d] y) {more}"
    return text(f"{head} {{ {a} }}", opset), text(f"{head} {{ {b} }}", opset)


_POOL = "MaxPool <kernel_shape = [{0},{0}], pads = [{1},{1},{1},{1}]>"
_FIVE, _NINE = _POOL.format(3, 1), _POOL.format(7, 3)
_HARD = "<float three = {3}, float six = {6}, float zero = {0}>"


REPORTS = {
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
    "21 sizes baked in": Report(
        "pytorch#84374", lambda: (_baked(20), _baked(28)), Verdict.DIFFERENT, ("x=1x3x",), run=True
    ),
    "21 one size baked in twice": Report(
        "pytorch#78323", lambda: (_baked(20), _baked(20)), Verdict.IDENTICAL
    ),
    "22 a batch made free": Report(
        "insightface#1593", lambda: (_batched("1", [1, -1, 2]), _batched("N", [-1, 16, 2])), Verdict.PROVED
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
    "28 fold is a rearrangement": Report(
        "unfoldNd#29", lambda: (_folded(False), _folded(True)), Verdict.PROVED
    ),
    "29 one branch is the same": Report(
        "silero-vad#783", lambda: (_branched([1, 2, 3, 4]), _branched([1, 2, 3, 5])), Verdict.PROVED,
        ("at sr=16000 alone",), {"sr": (16000, 16000)},
    ),
    "29 the other branch is not": Report(
        "silero-vad#783", lambda: (_branched([1, 2, 3, 4]), _branched([1, 2, 3, 5])), Verdict.DIFFERENT
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
    return judged(*report.pair(), ranges=report.ranges, run=report.run)


def _rows() -> list[Any]:
    marks = {name: pytest.mark.xfail(reason=r.missing, strict=True) for name, r in REPORTS.items() if r.missing}
    return [pytest.param(name, marks=[marks[name]] if name in marks else []) for name in REPORTS]


@pytest.mark.parametrize("name", _rows())
def test_a_reported_situation_has_the_wanted_answer(name: str) -> None:
    found = told(name)
    assert found.verdict is REPORTS[name].wanted, found.reason
    assert all(phrase in found.reason for phrase in REPORTS[name].says)


@pytest.mark.parametrize("name", [name for name, report in REPORTS.items() if report.missing])
def test_what_is_missing_is_no_false_verdict(name: str) -> None:
    assert told(name).verdict in (REPORTS[name].wanted, Verdict.UNDECIDED)


def test_22_an_output_that_contradicts_its_declaration_at_batch_2_is_no_proof() -> None:
    """onnx/models#537: with a free batch, the wrong Reshape moves all rows into one."""
    free, wrong = _batched("N", [-1, 16, 2]), _batched("N", [1, -1, 2])
    assert judged(free, wrong).verdict is Verdict.DIFFERENT


def test_13_and_04_the_analyzer_says_nothing_false_of_them() -> None:
    """Patch expanding and pixel shuffles are no patch embeddings: nothing is rewritten."""
    for model in (_expanding(False), _expanding(True), text(_SPLIT), text(_JOIN)):
        assert not analyze(model).sites and not rewrite(model, to="conv").changed
