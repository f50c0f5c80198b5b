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

    ``columns`` is a map of ``shape`` = (groups, rows, k), 0 for padding; ``kernel`` int [groups, n, k], 0-based;
    ``place`` a map of the output, into [groups, rows, n]; ``bias`` one into the bias operand, or None. ``data``,
    ``weight`` and ``bias_input`` are input positions.
    """

    data: int
    weight: int
    columns: Map
    shape: tuple[int, int, int]
    kernel: np.ndarray
    place: Map
    alpha: float
    bias: Map | None
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
    terms, maps, cls = m.terms, m.terms.maps, out.cls
    alpha, bias = 1.0, None
    place = maps.whole(terms.size(cls))
    while not isinstance(contraction := terms.terms[cls].verb, Contract):
        term = terms.terms[cls]
        if isinstance(term.verb, Move) and len(term.args) == 1 and not term.verb.map.has_zero:
            place, cls = through(m, term.args[0], term.verb.map, place), term.args[0]
            continue
        fn = term.verb.fn if isinstance(term.verb, Ew) else ""
        at = _added(m, term.args, leaves) if fn == "add" and bias is None else None
        if at is not None and alpha == 1.0:
            bias = _bias_map(m, term.args[at], through(m, term.args[at], term.views[at][1], place), leaves)
        elif fn == "mul":
            at = next((i for i, a in enumerate(term.args) if terms.scalar(a) is not None), None)
            if at is None:
                return None
            alpha *= float(terms.scalar(term.args[at]) or 0.0)
        if at is None:
            return None
        place, cls = through(m, term.args[1 - at], term.views[1 - at][1], place), term.args[1 - at]
    batches, rows, n, k = contraction.batches, contraction.m, contraction.n, contraction.k
    a, b = (_side(m, arg, leaves) for arg in terms.terms[cls].args)
    if a is None or b is None or {a[0], b[0]} != {"data", "weight"}:
        return None
    right = maps.compose(b[1], maps.transpose((batches[1], k, n), (0, 2, 1))) if contraction.kn else b[1]
    assert right is not None
    shapes = (batches[0], rows, k), (batches[1], n, k)
    if a[0] == "data":
        return _arrange(m, (a[1], shapes[0]), (right, shapes[1]), place, 0, (data, weight, alpha, bias))
    return _arrange(m, (right, shapes[1]), (a[1], shapes[0]), place, 1, (data, weight, alpha, bias))


def through(m: Algebra, cls: int, view: Map | None, seen: Map) -> Map:
    """The elements of ``cls`` that a map ``seen`` of its user shows, through the user's own map."""
    if view is None and m.terms.size(cls) == 1:
        return m.terms.maps.spread(seen.size)
    found = m.terms.maps.compose(view, seen)
    assert found is not None
    return found


def _added(m: Algebra, args: tuple[int, ...], leaves: dict[str, int]) -> int | None:
    """Which operand of an addition is the bias."""
    return next((i for i, a in enumerate(args) if len(args) == 2 and _is_bias(m, a, leaves)), None)


def _is_bias(m: Algebra, cls: int, leaves: dict[str, int]) -> bool:
    term = m.terms.terms[cls]
    if isinstance(term.verb, Ew) and term.verb.fn == "mul":
        return any(_is_bias(m, a, leaves) for a in term.args)
    return cls == leaves.get("bias") or (isinstance(term.verb, Move) and leaves.get("bias") in term.args)


def _bias_map(m: Algebra, cls: int, seen: Map, leaves: dict[str, int]) -> Map:
    """The bias element that each output shows, seen through maps and Gemm's beta."""
    while cls != leaves["bias"]:
        term = m.terms.terms[cls]
        at = next(i for i, a in enumerate(term.args) if _is_bias(m, a, leaves))
        view = term.verb.map if isinstance(term.verb, Move) else term.views[at][1]
        seen, cls = through(m, term.args[at], view, seen), term.args[at]
    return seen


def _side(m: Algebra, cls: int, leaves: dict[str, int]) -> tuple[str, Map] | None:
    """Which operand a factor of the contraction is, and the map of its elements."""
    names = {c: name for name, c in leaves.items()}
    if cls in names:
        return names[cls], m.terms.maps.whole(m.terms.size(cls))
    term = m.terms.terms[cls]
    if isinstance(term.verb, Move) and len(term.args) == 1 and term.args[0] in names:
        return names[term.args[0]], term.verb.map
    return None


Side = tuple[Map, tuple[int, int, int]]  # the elements of an operand as [batches, rows or n, k]


def _arrange(
    m: Algebra, data: Side, weight: Side, place: Map, side: int, told: tuple[int, int, float, Map | None]
) -> Product | None:
    """Groups, rows and columns from the contraction's batches: a batch with one weight for all is rows.

    ``side`` is the position of the data in the contraction.
    """
    limits.current().check_time()
    (columns, (batches, rows, k)), (own, (groups, filters, _)) = data, weight
    if own.has_zero:
        return None
    kernel, batch = own.index.reshape(groups, filters, k), max(batches, groups)
    if groups > 1 and bool((kernel == kernel[:1]).all()):
        kernel, groups = kernel[:1], 1
    if groups == 1:  # what a step along the batch, the rows and the filters is worth in [groups, rows, n]
        worth, shape = (rows * filters if batches > 1 else 0, filters, 1), (1, batches * rows, k)
    elif batches == 1:
        worth, shape, kernel = (filters, groups * filters, 1), (1, rows, k), kernel.reshape(1, -1, k)
    else:
        worth, shape = (rows * filters, filters, 1), (groups, rows, k)
    at, row, n = worth
    box, steps = ((batch, rows, filters), (at, row, n)) if side == 0 else ((batch, filters, rows), (at, n, row))
    seen = m.terms.maps.compose(m.terms.maps.box(box, steps), place)
    assert seen is not None
    position, other, alpha, bias = told
    return Product(position, other, columns, shape, kernel.astype(np.int64) - 1, seen, alpha, bias, 2)
