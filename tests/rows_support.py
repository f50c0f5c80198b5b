"""The type of rows beside onnxruntime: what a trace says of a graph with a free batch N, and whether runs bear it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import helper

from graphcheck.kernel.every import Sizing, Symbol, Typed
from graphcheck.kernel.interpreter import Interpreter
from graphcheck.kernel.ops import forms, rows
from graphcheck.kernel.ops.algebra import Algebra, Tensor
from graphcheck.kernel.terms.rules import PLAIN
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64

# Outputs by name, of inputs; None for one that has no value there.
Run = Callable[[Sequence[str], Mapping[str, np.ndarray]], Sequence[np.ndarray | None]]
SIZES = tuple(range(1, 10))
POOL = 9  # rows that are drawn once; a batch is made of them in any order


def shapes(proto: onnx.ModelProto, n: int, m: int = 2) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs, with the dims N and M being ``n`` and ``m``."""
    given, sizes = {init.name for init in proto.graph.initializer}, {"N": n, "M": m}
    return {
        value.name: tuple(sizes.get(d.dim_param, d.dim_value) for d in value.type.tensor_type.shape.dim)
        for value in proto.graph.input
        if value.name not in given
    }


def symbol(proto: onnx.ModelProto, n: int, name: str = "N") -> Symbol:
    """Where the dim ``name`` stands in the inputs."""
    places = {
        value.name: tuple(i for i, d in enumerate(value.type.tensor_type.shape.dim) if d.dim_param == name)
        for value in proto.graph.input
    }
    return Symbol(name, n, {key: axes for key, axes in places.items() if axes})


def dtypes(proto: onnx.ModelProto) -> dict[str, np.dtype[Any]]:
    """Types of the inputs."""
    return {v.name: helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type) for v in proto.graph.input}


def draw(proto: onnx.ModelProto, n: int, seed: int, m: int = 2) -> dict[str, np.ndarray]:
    """Whole numbers for the inputs at a batch of ``n``, so that sums are exact; integers are small enough for indices."""
    rng, types = np.random.default_rng(seed), dtypes(proto)
    found = {}
    for name, shape in shapes(proto, n, m).items():
        kind = types[name].kind
        least, most = (-4, 5) if kind == "f" else (0, 2)
        found[name] = rng.integers(least, most, shape).astype(types[name])
    return found


def sizings(proto: onnx.ModelProto, n: int = 2, m: int = 2, names: Sequence[str] = ("N",)) -> Sequence[Sizing]:
    """What a trace at N = ``n`` and M = ``m`` says of the sizes ``names``; integer inputs have drawn values."""
    types, algebra = dtypes(proto), Algebra(Terms(PLAIN))
    given: dict[str, Any] = dict(draw(proto, n, 0, m))
    for name, shape in shapes(proto, n, m).items():
        if types[name].kind == "f":
            given[name] = Tensor(algebra.terms.leaf((name,), int(np.prod(shape))), shape, types[name])
    symbols = [symbol(proto, {"N": n, "M": m}[name], name) for name in names]
    return Typed(ir.from_proto(proto), algebra, symbols).run(given).sizings


def typed(proto: onnx.ModelProto, n: int = 2, m: int = 2) -> Sizing:
    """What a trace says of N."""
    return sizings(proto, n, m)[0]


def text(kind: rows.Kind) -> str:
    """A type in short: ``fixed``, ``rows 0``, ``rows 0 1 4`` (axis, outer, inner), ``sized``, ``mixed``."""
    if rows.is_fixed(kind):
        return "fixed"
    if isinstance(kind, rows.Rows):
        more = f" {kind.outer} {kind.inner}" if (kind.outer, kind.inner) != (1, 1) else ""
        return f"rows {kind.axis}{more}"
    if isinstance(kind, forms.Sized):
        return "sized" if kind.sure else "mixed"
    return "mixed"


def session(proto: onnx.ModelProto) -> Any:
    """onnxruntime, without optimizations, on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def in_onnxruntime(proto: onnx.ModelProto) -> Run:
    """What runs the model in onnxruntime."""
    made = session(proto)
    return lambda names, feeds: made.run(names, feeds)  # type: ignore[no-any-return]


def in_float64(proto: onnx.ModelProto) -> Run:
    """What evaluates the kernel's own meaning of the model in float64, floats being free and integers known; an output behind
    a function of which that knows no value has none."""
    model, order = ir.from_proto(proto), [y.name for y in proto.graph.output]

    def run(names: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray | None]:
        algebra = Algebra(Terms(PLAIN))
        free = {k: Tensor(algebra.terms.leaf((k,), x.size), x.shape, x.dtype) for k, x in feeds.items() if x.dtype.kind == "f"}
        made = Interpreter(model, algebra).run({**feeds, **free}).outputs
        domain, found = Float64({(k,): x for k, x in feeds.items()}), []
        for name in names:
            y = made[order.index(name)]
            if isinstance(y, Tensor):
                value = evaluate(algebra.terms, domain, [y.cls])[algebra.terms.find(y.cls)].value.reshape(y.shape)
                found.append(None if domain.unknown else value)
            else:
                found.append(np.asarray(y))
        return found

    return run


def chosen(proto: onnx.ModelProto, pool: Mapping[str, np.ndarray], pick: Sequence[int]) -> dict[str, np.ndarray]:
    """The rows ``pick`` of the pool; what has no N is as it is."""
    places = symbol(proto, POOL).places
    return {name: x.take(pick, places[name][0]) if name in places else x for name, x in pool.items()}


def block(y: np.ndarray, kind: rows.Rows, n: int, size: int) -> np.ndarray:
    """Block ``n`` of an array at batch ``size``."""
    shape = (*y.shape[: kind.axis], kind.outer, size, kind.inner, *y.shape[kind.axis + 1 :])
    return y.reshape(shape).take(n, kind.axis + 1)


def _alike(x: np.ndarray, y: np.ndarray, units: float) -> bool:
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    if x.dtype.kind != "f":
        return bool((x == y).all())
    x, y = x.astype(np.float64), y.astype(np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    room = units * np.abs(y[both]).max(initial=1.0)
    return bool((np.abs(x[both] - y[both]) <= room).all() and np.array_equal(x[~both], y[~both], equal_nan=True))


def broken(
    proto: onnx.ModelProto,
    said: Sequence[rows.Kind],
    sizes: Iterable[int] = SIZES,
    seed: int = 0,
    units: float = 1e-4,
    pool: Mapping[str, np.ndarray] | None = None,
    by: Callable[[onnx.ModelProto], Run] = in_onnxruntime,
    few: int = POOL,
) -> str | None:
    """Where runs contradict the types ``said`` of the outputs: None if nowhere. ``few`` rows of the pool are drawn from.

    Block n at each size must be what the model gives for row n alone, and what is fixed the same at every size; a graph
    with such outputs runs at every size.
    """
    there = [(i, kind) for i, kind in enumerate(said) if text(kind) not in ("mixed", "sized")]
    if not there:
        return None
    run, pool = by(proto), draw(proto, POOL, seed) if pool is None else pool
    names = [proto.graph.output[i].name for i, _ in there]
    rng = np.random.default_rng(seed)
    alone: dict[int, Sequence[np.ndarray | None]] = {}
    failed = ""
    for row in range(few):  # one whose indices are out of range has no value, at no size
        try:
            alone[row] = run(names, chosen(proto, pool, [row]))
        except Exception as error:
            failed = str(error)[:200]
    if not alone:
        return f"it does not run at size 1: {failed}"
    for size in sizes:
        pick = rng.choice([*alone], size, replace=size > len(alone)).tolist()
        try:
            found = run(names, chosen(proto, pool, pick))
        except Exception as error:
            return f"it does not run at size {size}: {str(error)[:200]}"
        looked = range(size) if size <= 40 else sorted({*rng.integers(0, size, 20).tolist(), size - 1})
        for at, (name, (_, kind)) in enumerate(zip(names, there, strict=True)):
            wrong = _contradicted(found[at], {n: alone[pick[n]][at] for n in looked}, kind, size, units)
            if wrong:
                return f"{name} {wrong}"
    return None


def _contradicted(
    found: np.ndarray | None, alone: Mapping[int, np.ndarray | None], kind: rows.Kind, size: int, units: float
) -> str:
    """How an output at a size contradicts its type, by what some of its rows give alone; "" where it does not."""
    for n, one in alone.items():
        if found is None or one is None:
            continue
        if not isinstance(kind, rows.Rows):
            if not _alike(found, one, units):
                return f"is not the same at size {size}"
        elif kind.axis >= found.ndim or found.shape[kind.axis] != kind.outer * size * kind.inner:
            return f"has the shape {found.shape} at size {size}, not {kind}"
        elif not _alike(block(found, kind, n, size), block(one, kind, 0, 1), units):
            return f"has a block {n} at size {size} that is not that of its row alone"
    return ""
