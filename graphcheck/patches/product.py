"""What a contraction node computes, read off its own meaning: which data and weight elements each output sums.

The node's operator runs once on free tensors; the term that it leaves says, for any of MatMul, Gemm, Einsum, Conv and
the fused forms, which elements meet which, and where the sums go. No operator's rules are told a second time here.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from graphcheck import limits
from graphcheck.errors import Undecided
from graphcheck.kernel.ops.algebra import Algebra, Tensor, Value
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.ops.table import TAUGHT
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.terms.verbs import Contract, Ew, Move

CONTRACTIONS = frozenset(
    {
        ("", "MatMul"),
        ("", "Gemm"),
        ("", "Einsum"),
        ("", "Conv"),
        ("com.microsoft", "FusedMatMul"),
        ("com.microsoft", "TransposeMatMul"),
        ("com.microsoft", "FusedConv"),
        ("com.microsoft", "FusedGemm"),
    }
)


@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """One contraction: ``out[place] = alpha * sum_k data[columns[g, r, k]] * weight[kernel[g, n, k]] + bias``.

    ``columns`` int [groups, rows, k], 1-based, 0 for padding; ``kernel`` int [groups, n, k], 0-based; ``place`` int
    [out size], the flat index into [groups, rows, n] that each output element shows; ``bias`` int [out size], 0-based
    into the bias operand, or None. ``data``, ``weight`` and ``bias_input`` are input positions.
    """

    data: int
    weight: int
    columns: np.ndarray
    kernel: np.ndarray
    place: np.ndarray
    alpha: float
    bias: np.ndarray | None
    bias_input: int


def operands(node: Node, inputs: list[Value]) -> tuple[int, int] | None:
    """(data, weight) positions: the computed operand and the constant one; None if there is no such pair."""
    if len(inputs) < 2 or inputs[0] is None or inputs[1] is None or (node.op_type == "Einsum" and len(inputs) != 2):
        return None
    constant = [isinstance(x, np.ndarray) for x in inputs[:2]]
    if constant == [False, True]:
        return 0, 1
    if constant == [True, False] and "Conv" not in node.op_type:
        return 1, 0
    return None


def out_shape(node: Node, a: Value, b: Value) -> tuple[int, ...] | None:
    """The output's shape where it is plain to see (MatMul, Gemm); None otherwise."""
    assert a is not None and b is not None
    if node.op_type == "MatMul" and len(a.shape) > 1 and len(b.shape) > 1 and a.shape[-1] == b.shape[-2]:
        return (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    if node.op_type == "Gemm":
        flip = (-1 if node.attr("transA", 0) else 1, 1 if node.attr("transB", 0) else -1)
        rows, columns = a.shape[:: flip[0]][0], b.shape[:: -flip[1]][1]
        return (rows, columns)
    return None


def product(m: Algebra, node: Node, inputs: list[Value], data: int, weight: int) -> Product | None:
    """Run the operator on free tensors of the inputs' shapes and read the contraction; None if it is no plain one."""
    names = {data: "data", weight: "weight"}
    if len(inputs) > 2 and inputs[2] is not None:
        names[2] = "bias"
    free: list[Value] = [None] * max(len(names), 2)
    for at, name in names.items():
        x = inputs[at]
        assert x is not None
        size = math.prod(x.shape)
        free[at] = Tensor(m.terms.leaf((name, size), size), tuple(x.shape), np.dtype(np.float32))
    attributes = {k: v for k, v in node.attributes.items() if not k.startswith("activation")}
    bare = dataclasses.replace(node, attributes=attributes, n_inputs=len(free))
    try:
        out = TAUGHT[(node.domain, node.op_type)](m, bare, *free)
    except Undecided:
        return None
    leaves = {name: free[at].cls for at, name in names.items()}  # type: ignore[union-attr]
    return _read(m, out, leaves, data, weight)


def _read(m: Algebra, out: Tensor, leaves: dict[str, int], data: int, weight: int) -> Product | None:
    """Descend from the output through movement, bias and scale to the contraction; None if something else is met."""
    terms, cls = m.terms, out.cls
    alpha, bias = 1.0, None
    place = np.arange(terms.size(cls))
    while not isinstance(contraction := terms.terms[cls].verb, Contract):
        term = terms.terms[cls]
        if isinstance(term.verb, Move) and len(term.args) == 1 and not term.verb.map.has_zero:
            place, cls = _through(m, term.args[0], term.verb.map, place), term.args[0]
            continue
        fn = term.verb.fn if isinstance(term.verb, Ew) else ""
        at = _added(m, term.args, leaves) if fn == "add" and bias is None else None
        if at is not None and alpha == 1.0:
            bias = _bias_index(m, term.args[at], _through(m, term.args[at], term.views[at][1], place), leaves)
        elif fn == "mul":
            at = next((i for i, a in enumerate(term.args) if terms.scalar(a) is not None), None)
            if at is None:
                return None
            alpha *= float(terms.scalar(term.args[at]) or 0.0)
        if at is None:
            return None
        place, cls = _through(m, term.args[1 - at], term.views[1 - at][1], place), term.args[1 - at]
    batches, rows, n, k = contraction.batches, contraction.m, contraction.n, contraction.k
    a, b = (_side(m, arg, leaves) for arg in terms.terms[cls].args)
    if a is None or b is None or {a[0], b[0]} != {"data", "weight"}:
        return None
    right = b[1].reshape(batches[1], k, n).swapaxes(1, 2) if contraction.kn else b[1].reshape(batches[1], n, k)
    sides = {a[0]: (a[1].reshape(batches[0], rows, k), 0), b[0]: (right, 1)}
    return _arrange(sides, place, max(batches), (rows, n), Product(data, weight, *_NOTHING, alpha, bias, 2))


_NOTHING = (np.zeros(0), np.zeros(0), np.zeros(0))


def _through(m: Algebra, cls: int, view: Map | None, index: np.ndarray) -> np.ndarray:
    """The elements of ``cls`` that positions ``index`` of its user show, through the user's map."""
    if view is not None:
        return np.asarray(view.index[index], np.int64) - 1
    return np.zeros_like(index) if m.terms.size(cls) == 1 else index


def _added(m: Algebra, args: tuple[int, ...], leaves: dict[str, int]) -> int | None:
    """Which operand of an addition is the bias."""
    return next((i for i, a in enumerate(args) if len(args) == 2 and _is_bias(m, a, leaves)), None)


def _is_bias(m: Algebra, cls: int, leaves: dict[str, int]) -> bool:
    term = m.terms.terms[cls]
    if isinstance(term.verb, Ew) and term.verb.fn == "mul":
        return any(_is_bias(m, a, leaves) for a in term.args)
    return cls == leaves.get("bias") or (isinstance(term.verb, Move) and leaves.get("bias") in term.args)


def _bias_index(m: Algebra, cls: int, index: np.ndarray, leaves: dict[str, int]) -> np.ndarray:
    """The bias element that each output shows, seen through maps and Gemm's beta."""
    while cls != leaves["bias"]:
        term = m.terms.terms[cls]
        at = next(i for i, a in enumerate(term.args) if _is_bias(m, a, leaves))
        view = term.verb.map if isinstance(term.verb, Move) else term.views[at][1]
        index, cls = _through(m, term.args[at], view, index), term.args[at]
    return index


def _side(m: Algebra, cls: int, leaves: dict[str, int]) -> tuple[str, np.ndarray] | None:
    """Which operand a factor of the contraction is, and its elements, 1-based."""
    names = {c: name for name, c in leaves.items()}
    if cls in names:
        return names[cls], np.arange(1, m.terms.size(cls) + 1)
    term = m.terms.terms[cls]
    if isinstance(term.verb, Move) and len(term.args) == 1 and term.args[0] in names:
        return names[term.args[0]], term.verb.map.index
    return None


def _arrange(
    sides: dict[str, tuple[np.ndarray, int]], place: np.ndarray, batch: int, sizes: tuple[int, int], rest: Product
) -> Product | None:
    """Groups, rows and columns from the contraction's batches: a batch with one weight for all is rows."""
    limits.current().check_time()
    (columns, side), (kernel, _) = sides["data"], sides["weight"]
    at, first, second = np.unravel_index(place.astype(np.int64), (batch, *sizes))
    row, n = (first, second) if side == 0 else (second, first)
    rows, filters = columns.shape[1], kernel.shape[1]
    if (kernel == 0).any():
        return None
    if kernel.shape[0] > 1 and bool((kernel == kernel[:1]).all()):
        kernel = kernel[:1]
    if kernel.shape[0] == 1:
        if columns.shape[0] > 1:
            row, columns = at * rows + row, columns.reshape(1, -1, columns.shape[2])
        at = np.zeros_like(at)
    elif columns.shape[0] == 1:
        n, kernel, at = at * filters + n, kernel.reshape(1, -1, kernel.shape[2]), np.zeros_like(at)
    flat = (at * columns.shape[1] + row) * kernel.shape[1] + n
    return dataclasses.replace(rest, columns=columns, kernel=kernel.astype(np.int64) - 1, place=flat)
