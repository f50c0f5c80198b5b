"""Small models in the float64 domain beside onnxruntime: what the tests of the operators share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from graphcheck.kernel.geometry import Window
from graphcheck.kernel.interpreter import Interpreter
from graphcheck.kernel.ops.algebra import Algebra, Tensor
from graphcheck.kernel.terms.rules import PLAIN, RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64

HEADER = '<ir_version: 10, opset_import: ["": {version}, "com.microsoft": 1]>\n'
UNIT = 2.0**-24


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Value, error bound and declared type of one output; ``opaque`` says that an unknown function is below it."""

    value: np.ndarray
    error: np.ndarray
    dtype: np.dtype[Any]
    opaque: bool


def im2col_table(shape: Sequence[int], window: Window, groups: int = 1) -> np.ndarray:
    """What :func:`graphcheck.kernel.geometry.im2col_form` stands for, element by element: int [groups, N * L, C/groups * K]."""
    batch, channels, *spatial = shape
    at = window.gather(spatial)
    positions = math.prod(at.shape[: len(spatial)])
    at = at.reshape(1, positions, 1, -1)
    plane = math.prod(spatial)
    image = np.arange(batch).reshape(-1, 1, 1, 1)
    columns = []
    per_group = channels // groups
    for group in range(groups):
        channel = np.arange(group * per_group, (group + 1) * per_group).reshape(1, 1, -1, 1)
        index = np.where(at > 0, at + (image * channels + channel) * plane, 0)
        columns.append(index.reshape(batch * positions, -1))
    return np.stack(columns)


def model(text: str, version: int = 18) -> onnx.ModelProto:
    """An ONNX text graph as a model."""
    return onnx.parser.parse_model(HEADER.format(version=version) + text)


def node_model(
    op: str,
    inputs: Sequence[np.ndarray],
    attributes: Mapping[str, Any],
    version: int,
    outputs: int = 1,
    domain: str = "",
    constants: Sequence[np.ndarray | None] = (),
) -> onnx.ModelProto:
    """One node on computed inputs x0, x1 ..., with initializers behind them (None: omitted)."""
    names = [f"x{i}" for i in range(len(inputs))]
    fixed = ["" if c is None else f"c{i}" for i, c in enumerate(constants)]
    node = helper.make_node(op, [*names, *fixed], [f"y{i}" for i in range(outputs)], domain=domain, **attributes)
    typed = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for n, x in zip(names, inputs, strict=True)
    ]
    stored = [numpy_helper.from_array(c, n) for c, n in zip(constants, fixed, strict=True) if c is not None]
    graph = helper.make_graph([node], "g", typed, [onnx.ValueInfoProto(name=f"y{i}") for i in range(outputs)], stored)
    opsets = [helper.make_opsetid("", version), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=min(10, 3 + version))


def trace(
    proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], *, normalize: bool = True, concrete: bool = False
) -> tuple[Algebra, list[Any]]:
    """The outputs as tensors of a fresh store, the feeds being free tensors by name unless ``concrete``."""
    m = Algebra(Terms(RULES if normalize else PLAIN))
    given: dict[str, Any] = {name: Tensor(m.terms.leaf((name,), x.size), x.shape, x.dtype) for name, x in feeds.items()}
    if concrete:
        given = dict(feeds)
    return m, Interpreter(ir.from_proto(proto), m).run(given).outputs


def float64(
    proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], *, normalize: bool = True, concrete: bool = False
) -> list[Outcome]:
    """All outputs in the float64 domain."""
    m, outputs = trace(proto, feeds, normalize=normalize, concrete=concrete)
    results = []
    for y in outputs:
        if isinstance(y, np.ndarray):
            results.append(Outcome(y.astype(np.float64), np.zeros(y.shape), y.dtype, False))
            continue
        domain = Float64({(name,): x for name, x in feeds.items()})
        real = evaluate(m.terms, domain, [y.cls])[m.terms.find(y.cls)]
        opaque = bool(domain.unknown)
        results.append(Outcome(real.value.reshape(y.shape), real.error.reshape(y.shape), y.dtype, opaque))
    return results


def run(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """onnxruntime's outputs, without optimizations, on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))  # type: ignore[no-any-return]


def assert_agrees(
    proto: onnx.ModelProto,
    feeds: Mapping[str, np.ndarray],
    *,
    units: float = 64.0,
    normalize: bool = True,
    concrete: bool = False,
) -> list[Outcome]:
    """Every output within its own bound and ``units`` float32 roundings of onnxruntime's, on the output's scale."""
    found = float64(proto, feeds, normalize=normalize, concrete=concrete)
    for y, wanted in zip(found, run(proto, feeds), strict=True):
        assert not y.opaque
        assert y.value.shape == wanted.shape
        assert y.dtype == wanted.dtype
        exact = wanted.dtype.kind in "iub"
        room = y.error + (0.0 if exact else units * UNIT * np.abs(wanted).max(initial=1.0))
        off = np.abs(y.value - wanted.astype(np.float64))
        assert bool((off <= room).all()), f"off by {off.max()} where {room[off > room].max()} is granted"
    return found


def values(shape: Sequence[int], seed: int = 0, dtype: Any = np.float32) -> np.ndarray:
    """Normal-distributed values."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def ints(*items: int) -> np.ndarray:
    """A vector of int64."""
    return np.asarray(items, np.int64)


def floats(*items: float) -> np.ndarray:
    """A vector of float32."""
    return np.asarray(items, np.float32)
