"""Small graphs in ONNX text with random constants, for the tests of the analyzer and the rewriter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from graphcheck.files import model as model_
from graphcheck.kernel.interpreter import Interpreter
from graphcheck.kernel.ops.algebra import Algebra, Tensor
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.store import Terms

NUMPY = {"float": np.float32, "double": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def graph(inputs: str, outputs: str, body: str, opset: int = 18, kind: str = "float", **constants: Any) -> ir.Model:
    """A model from text; a constant is an array, or a shape (tuple) to fill with seeded random numbers."""
    header = f'<ir_version: 9, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    proto = onnx.parser.parse_model(f"{header} agraph ({inputs}) => ({outputs}) {{ {body} }}")
    random = np.random.default_rng(0)
    for name, value in constants.items():
        array = random.normal(size=value).astype(NUMPY[kind]) if isinstance(value, tuple) else np.asarray(value)
        tensor = ir.to_proto(ir.tensor(array, name=name))
        proto.graph.initializer.append(tensor)
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def ints(*values: int) -> np.ndarray:
    """An int64 vector."""
    return np.asarray(values, np.int64)


def proved(a: ir.Model, b: ir.Model, *sizes: Mapping[str, int]) -> bool:
    """Whether both models give the same classes in one store, at each choice of sizes: a proof by congruence."""
    for choice in sizes or ({},):
        algebra = Algebra(Terms(RULES))
        one, other = (_outputs(model, algebra, choice) for model in (a, b))
        if one != other:
            return False
    return True


def _outputs(model: ir.Model, algebra: Algebra, sizes: Mapping[str, int]) -> list[tuple[int, tuple[int, ...]]]:
    inputs = {}
    for at, value in enumerate(model_.required_inputs(model)):
        shape = tuple(d if isinstance(d, int) else sizes[d or "?"] for d in model_.declared_shape(value) or ())
        cls = algebra.terms.leaf((at,), math.prod(shape))
        inputs[value.name or ""] = Tensor(cls, shape, np.dtype(value.dtype.numpy()))  # type: ignore[union-attr]
    outputs = Interpreter(model, algebra).run(inputs).outputs
    return [(algebra.terms.find(algebra.lift(y).cls), tuple(y.shape)) for y in outputs if y is not None]


def run(model: ir.Model, seed: int, sizes: Mapping[str, int] | None = None) -> list[np.ndarray]:
    """The outputs in onnxruntime, unoptimized, on seeded normal inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    random = np.random.default_rng(seed)
    feeds = {}
    for value in model_.required_inputs(model):
        shape = [d if isinstance(d, int) else (sizes or {})[d or "?"] for d in model_.declared_shape(value) or ()]
        feeds[value.name] = random.normal(size=shape).astype(value.dtype.numpy())  # type: ignore[union-attr]
    return session.run(None, feeds)  # type: ignore[no-any-return]


def ops(model: ir.Model) -> list[str]:
    """The operators in graph order."""
    return [model_.op_name(node) for node in model.graph]


def patchify(
    shape: Sequence[int | str], split: Sequence[int], perm: Sequence[int], merged: Sequence[int], bias: bool = True,
    kind: str = "float", opset: int = 18, weight: np.ndarray | None = None,
) -> ir.Model:  # fmt: skip
    """Reshape to ``split``, Transpose, Reshape to ``merged``, MatMul, and Add."""
    dims = ",".join(map(str, shape))
    order = ", ".join(map(str, perm))
    body = f"r = Reshape(x, split) t = Transpose<perm = [{order}]>(r) m = Reshape(t, merged) p = MatMul(m, w)"
    body += "y = Add(p, b)" if bias else "y = Identity(p)"
    k = merged[-1]
    constants: dict[str, Any] = {
        "split": ints(*split),
        "merged": ints(*merged),
        "w": (k, 5) if weight is None else weight,
    }
    if bias:
        constants["b"] = (5,)
    rank = len(merged)
    out = ",".join(f"o{i}" for i in range(rank))
    return graph(f"{kind}[{dims}] x", f"{kind}[{out}] y", body, opset, kind, **constants)


def conv(attributes: str, weight: tuple[int, ...], inputs: str = "float[N,3,H,W] x", op: str = "Conv") -> ir.Model:
    """A Conv with a bias on the input as it is."""
    out = ",".join("abcde"[: len(weight)])
    return graph(inputs, f"float[{out}] y", f"y = {op}<{attributes}>(x, w, b)", w=weight, b=weight[:1])


def conv_nhwc(attributes: str, weight: tuple[int, ...], inputs: str = "float[N,H,W,3] x", op: str = "Conv") -> ir.Model:
    """A Conv between two Transposes, as tf2onnx writes it."""
    body = (
        f"t = Transpose<perm = [0, 3, 1, 2]>(x) c = {op}<{attributes}>(t, w, b) y = Transpose<perm = [0, 2, 3, 1]>(c)"
    )
    return graph(inputs, "float[a,b,c,d] y", body, w=weight, b=weight[:1])


PATCHES = "r = Reshape(x, split) t = Transpose<perm = [0, 2, 4, 1, 3, 5]>(r) m = Reshape(t, merged)"
SPLIT = {"split": ints(-1, 3, 2, 4, 2, 4), "merged": ints(-1, 4, 48)}
IMAGE = "float[N,3,8,8] x"
TOKENS = "float[a,b,c] y"


def projected(body: str, inputs: str = IMAGE, outputs: str = TOKENS, opset: int = 18, **constants: Any) -> ir.Model:
    """The patches [N, 4, 48] of a [N, 3, 8, 8] image as ``m``, and what ``body`` makes of them."""
    return graph(inputs, outputs, f"{PATCHES} {body}", opset, **{**SPLIT, **constants})


def gathered(index: Sequence[Sequence[int]]) -> ir.Model:
    """Rows picked from a line of twelve numbers by a table, and a MatMul."""
    table = np.asarray(index, np.int64)
    return graph("float[1,12] x", TOKENS, "m = Gather<axis = 1>(x, i) y = MatMul(m, w)", i=table, w=(table.shape[1], 5))


def dynamic() -> ir.Model:
    """Batch, height and width symbolic; the sizes of the patch grid computed from the shape."""
    body = """
        sh = Shape(x) n = Gather<axis = 0>(sh, i0) h = Gather<axis = 0>(sh, i2) v = Gather<axis = 0>(sh, i3)
        gh = Div(h, p) gw = Div(v, p) s1 = Concat<axis = 0>(n, three, gh, p, gw, p) r = Reshape(x, s1)
        t = Transpose<perm = [0, 2, 4, 3, 5, 1]>(r) l = Mul(gh, gw) s2 = Concat<axis = 0>(n, l, k) m = Reshape(t, s2)
        q = MatMul(m, w) y = Add(q, b)
    """
    numbers = {"i0": ints(0), "i2": ints(2), "i3": ints(3), "p": ints(4), "three": ints(3), "k": ints(48)}
    return graph("float[N,3,H,W] x", TOKENS, body, w=(48, 5), b=(5,), **numbers)


def focus() -> ir.Model:
    """YOLOv5's Focus: every second pixel from four corners, concatenated, and a 3x3 Conv: a 6x6 Conv of stride 2."""
    body = """
        p = Slice(x, z0, e, ax, two) q = Slice(x, z1, e, ax, two) r = Slice(x, z2, e, ax, two)
        s = Slice(x, z3, e, ax, two)
        k = Concat<axis = 1>(p, q, r, s) y = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(k, w, b)
    """
    corners = {"z0": ints(0, 0), "z1": ints(1, 0), "z2": ints(0, 1), "z3": ints(1, 1), "e": ints(2**62, 2**62)}
    return graph(
        "float[N,3,H,W] x", "float[a,b,c,d] y", body, ax=ints(2, 3), two=ints(2, 2), w=(5, 12, 3, 3), b=(5,), **corners
    )
