"""Small graphs in ONNX text with random constants, for the tests of the analyzer and the rewriter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir

from graphcheck import model as model_
from graphcheck.domains.terms import Terms
from graphcheck.interpreter import Interpreter
from graphcheck.ops.algebra import Algebra, Tensor

NUMPY = {"float": np.float32, "double": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def graph(
    inputs: str, outputs: str, body: str, opset: int = 18, kind: str = "float", constants: Mapping[str, Any] | None = None
) -> ir.Model:
    """A model from text; a constant is an array, or a shape (tuple) to fill with seeded random numbers."""
    header = f'<ir_version: 9, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    proto = onnx.parser.parse_model(f"{header} agraph ({inputs}) => ({outputs}) {{ {body} }}")
    random = np.random.default_rng(0)
    for name, value in (constants or {}).items():
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
        algebra = Algebra(Terms())
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
    kind: str = "float", filters: int = 5, opset: int = 18,
) -> ir.Model:  # fmt: skip
    """Reshape to ``split``, Transpose, Reshape to ``merged``, MatMul, and Add."""
    dims = ",".join(map(str, shape))
    body = """
        r = Reshape (x, split)
        t = Transpose <perm = [%s]> (r)
        m = Reshape (t, merged)
        p = MatMul (m, w)
    """ % ", ".join(map(str, perm))
    body += "y = Add (p, b)" if bias else "y = Identity (p)"
    k = merged[-1]
    constants: dict[str, Any] = {"split": ints(*split), "merged": ints(*merged), "w": (k, filters)}
    if bias:
        constants["b"] = (filters,)
    rank = len(merged)
    out = ",".join(f"o{i}" for i in range(rank))
    return graph(f"{kind}[{dims}] x", f"{kind}[{out}] y", body, opset, kind, constants)
