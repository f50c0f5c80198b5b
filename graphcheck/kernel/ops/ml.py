"""Operators of ai.onnx.ml: linear models, scalers and forests. Source: https://onnx.ai/onnx/operators/index_ai_onnx_ml.html

Labels of a classifier are an unknown function of its scores.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphcheck.errors import Refused, Untaught
from graphcheck.kernel.ops import arithmetic, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor
from graphcheck.kernel.ops.node import Node

DOMAIN = "ai.onnx.ml"
_COMPARISONS: dict[str, Callable[..., Some]] = {
    "BRANCH_LEQ": arithmetic.less_equal,
    "BRANCH_LT": arithmetic.less,
    "BRANCH_GTE": arithmetic.greater_equal,
    "BRANCH_GT": arithmetic.greater,
    "BRANCH_EQ": arithmetic.equal,
    "BRANCH_NEQ": lambda m, node, a, b: arithmetic.not_(m, node, arithmetic.equal(m, node, a, b)),
}
_MODES = tuple(_COMPARISONS)
_MOST = 2**24  # factors of the leaves of a forest


def _float(m: Algebra, x: Some) -> Some:
    """The declared type of what these operators compute."""
    return x.astype(np.float32) if isinstance(x, np.ndarray) else Tensor(x.cls, x.shape, np.dtype(np.float32))


def _vector(node: Node, name: str, default: Any = ()) -> np.ndarray:
    value = node.attr(name, default)
    value = np.asarray(value.numpy() if hasattr(value, "numpy") else value)
    if (value.dtype == np.float64 and hasattr(node.attr(name), "numpy")) or f"{name}_as_tensor" in node.attributes:
        raise Untaught(f"{node.op_type} in double", node.name)
    return value.astype(np.float32)


def scaler(m: Algebra, node: Node, x: Some) -> Some:
    """(x - offset) * scale."""
    return m.mul(m.sub(_float(m, x), _vector(node, "offset", [0.0])), _vector(node, "scale", [1.0]))


def normalizer(m: Algebra, node: Node, x: Some) -> Some:
    """Rows over their 1-norm or 2-norm."""
    x, norm = _float(m, x), node.attr("norm", "MAX")
    if norm == "MAX":
        raise Untaught("Normalizer by the maximum: of values or of their sizes, the runtimes differ", node.name)
    total = m.sum(m.ew("abs", x) if norm == "L1" else m.mul(x, x), [len(x.shape) - 1])
    return m.mul(x, m.recip(total if norm == "L1" else m.ew("sqrt", total)))


def features(m: Algebra, node: Node, x: Some, index: Some) -> Some:
    """Elements along the last axis."""
    if isinstance(index, Tensor):
        raise Untaught("ArrayFeatureExtractor steered by a value that depends on the inputs", node.name)
    flat = index.reshape(-1)
    if flat.size and not 0 <= flat.min() <= flat.max() < x.shape[-1]:
        raise Refused(f"ArrayFeatureExtractor picks beyond the {x.shape[-1]} elements of its last axis", node.name)
    at = np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape)[..., flat]
    return m.pick(x, at, at.shape if at.ndim > 1 else (1, *at.shape))


def _post(m: Algebra, node: Node, scores: Some) -> Some:
    how = node.attr("post_transform", "NONE")
    if how in ("NONE", 0):
        return scores
    if how == "LOGISTIC":
        return m.sigmoid(scores)
    if how == "SOFTMAX":
        return m.along("softmax", scores, -1)
    raise Untaught(f"{node.op_type} with post_transform {how}", node.name)


def _linear(m: Algebra, node: Node, x: Some, rows: int) -> Some:
    weight = _vector(node, "coefficients").reshape(rows, -1)
    y: Some = m.matmul(_float(m, x), np.ascontiguousarray(weight.T))
    return m.add(y, _vector(node, "intercepts")) if node.attr("intercepts") else y


def linear_regressor(m: Algebra, node: Node, x: Some) -> Some:
    """x W^T + intercepts."""
    return _post(m, node, _linear(m, node, x, node.attr("targets", 1)))


def _labelled(m: Algebra, node: Node, scores: Some, rows: int) -> tuple[Some, Some]:
    """The label, and the scores after the transform; of two classes or more that each have a score of their own."""
    labels = node.attr("classlabels_int64s") or node.attr("classlabels_ints")
    if not labels or len(labels) != rows or rows < 2:
        raise Untaught(f"{node.op_type} with labels that are strings, or a score for one of two classes", node.name)
    label = m.unknown(("", "label", 1, (tuple(labels),), (True,)), [m.lift(scores)], 0, scores.shape[:1], np.int64)
    return label, _post(m, node, scores)


def linear_classifier(m: Algebra, node: Node, x: Some) -> tuple[Some, Some]:
    """The label and the scores x W^T + intercepts."""
    rows = len(node.attr("intercepts") or node.attr("classlabels_ints") or ())
    if not rows:
        raise Untaught("LinearClassifier whose classes are not counted", node.name)
    return _labelled(m, node, _linear(m, node, x, rows), rows)


def _branches(node: Node) -> Iterator[tuple[list[tuple[Any, ...]], list[tuple[int, float]]]]:
    """For each leaf the comparisons on its way, (feature, threshold, mode, which way), and (target, weight) of what it adds."""
    if node.op_type == "TreeEnsemble":
        yield from _branches_of_five(node)
        return
    kind = "class" if node.op_type.endswith("Classifier") else "target"
    names = "treeids", "nodeids", "modes", "truenodeids", "falsenodeids", "featureids"
    table = list(zip(*(node.attr(f"nodes_{name}") for name in names), _vector(node, "nodes_values"), strict=True))
    nodes = {(tree, at): rest for tree, at, *rest in table}
    added: dict[tuple[int, int], list[tuple[int, float]]] = {}
    columns = (node.attr(f"{kind}_{name}") for name in ("treeids", "nodeids", "ids"))
    for tree, at, target, weight in zip(*columns, _vector(node, f"{kind}_weights"), strict=True):
        added.setdefault((tree, at), []).append((target, weight))
    below = {(tree, to) for tree, _, mode, yes, no, *_ in table if mode != "LEAF" for to in (yes, no)}
    stack: list[tuple[tuple[int, int], list[tuple[Any, ...]]]] = [(at, []) for at in nodes if at not in below]
    first = {tree: (tree, at) for tree, at, *_ in reversed(table)}
    if sorted(first.values()) != sorted(at for at, _ in stack):
        raise Untaught(f"{node.op_type} with a tree that does not begin with its root: the standard is silent", node.name)
    while stack:
        at, way = stack.pop()
        mode, yes, no, feature, value = nodes[at]
        if mode == "LEAF":
            yield way, added.get(at, [])
            continue
        if len(way) > len(nodes):
            raise Refused(f"a tree of {node.op_type} has no end", node.name)
        stack += [((at[0], to), [*way, (feature, value, mode, taken)]) for to, taken in ((yes, True), (no, False))]


def _branches_of_five(node: Node) -> Iterator[tuple[list[tuple[Any, ...]], list[tuple[int, float]]]]:
    """The same of TreeEnsemble, whose leaves stand in lists of their own."""
    modes, splits, weights = node.attr("nodes_modes").numpy(), _vector(node, "nodes_splits"), _vector(node, "leaf_weights")
    features_, targets = node.attr("nodes_featureids"), node.attr("leaf_targetids")
    ends = {True: ("nodes_truenodeids", "nodes_trueleafs"), False: ("nodes_falsenodeids", "nodes_falseleafs")}
    stack: list[tuple[int, bool, list[tuple[Any, ...]]]] = [(root, False, []) for root in node.attr("tree_roots")]
    while stack:
        at, leaf, way = stack.pop()
        if leaf:
            yield way, [(targets[at], weights[at])]
            continue
        if modes[at] >= len(_MODES) or len(way) > len(splits):
            raise Untaught("TreeEnsemble that asks for members of a set", node.name)
        for taken, (to, is_leaf) in ends.items():
            step = features_[at], splits[at], _MODES[modes[at]], taken
            stack.append((node.attr(to)[at], bool(node.attr(is_leaf)[at]), [*way, step]))


def _forest(m: Algebra, node: Node, x: Some, targets: int) -> Some:
    """Scores [N, targets]: for each leaf the product of the comparisons on its way, times what it adds, summed."""
    leaves = list(_branches(node))
    if any(node.attr("nodes_missing_value_tracks_true", ())):
        m.assumptions.add(arithmetic.FINITE)
    depth = max((len(way) for way, _ in leaves), default=0)
    if len(leaves) * max(depth, 1) * x.shape[0] > _MOST:
        raise Untaught(f"{node.op_type} with {len(leaves)} leaves", node.name)
    steps = sorted({step[:3] for way, _ in leaves for step in way}, key=lambda s: (s[2], s[0], s[1]))
    x = _float(m, x)
    rows = np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape)
    parts: list[Some] = [np.ones((x.shape[0], 1), np.float32)]
    for mode in sorted({mode for _, _, mode in steps}):
        mine = [s for s in steps if s[2] == mode]
        if mode not in _COMPARISONS:
            raise Untaught(f"{node.op_type} with {mode}", node.name)
        column = rows[:, [feature for feature, _, _ in mine]]
        bounds = np.asarray([[value for _, value, _ in mine]], np.float32)
        parts.append(_float(m, _COMPARISONS[mode](m, node, m.pick(x, column, column.shape), bounds)))
    places = {step: i + 1 for i, step in enumerate(steps)}
    width, flat = 1 + len(steps), [m.transpose(part, (1, 0)) for part in parts]
    sizes = np.cumsum([0, *(math.prod(part.shape) for part in flat)])
    stacked = m.join(flat, np.arange(1, 1 + sizes[-1]), (width, x.shape[0]), np.float32)
    either = np.arange(1, 1 + 2 * sizes[-1]).reshape(2 * width, -1)
    both = m.join((stacked, m.sub(np.ones((), np.float32), stacked)), either, (2 * width, x.shape[0]), np.float32)
    table = np.zeros((len(leaves), max(depth, 1)), np.int64)
    weights = np.zeros((targets, len(leaves)), np.float64)
    for i, (way, adds) in enumerate(leaves):
        table[i, : len(way)] = [places[step[:3]] + (0 if step[3] else width) for step in way]
        for target, weight in adds:
            weights[target, i] += weight
    factors: list[Some] = [m.pick(both, either[table[:, d]], (len(leaves), x.shape[0])) for d in range(table.shape[1])]
    return m.transpose(m.matmul(weights, functools.reduce(m.mul, factors)), (1, 0))


def tree_regressor(m: Algebra, node: Node, x: Some) -> Some:
    """The sum (or the average) over the trees, plus base values."""
    how = node.attr("aggregate_function", "SUM")
    if how not in ("SUM", "AVERAGE", 0, 1):
        raise Untaught(f"{node.op_type} with {how}", node.name)
    scores = _forest(m, node, x, node.attr("n_targets", 1))
    trees = len(node.attr("tree_roots") or set(node.attr("nodes_treeids"))) if how in ("AVERAGE", 0) else 1
    scores = _float(m, m.mul(scores, m.recip(np.asarray(float(trees)))))
    return _post(m, node, scores if node.attr("base_values") is None else m.add(scores, _vector(node, "base_values")))


def tree_classifier(m: Algebra, node: Node, x: Some) -> tuple[Some, Some]:
    """The label and the scores, the sum over the trees plus base values."""
    labels = node.attr("classlabels_int64s") or ()
    rows = len(labels) if len(set(node.attr("class_ids"))) == len(labels) else 0
    if not rows:
        raise Untaught("TreeEnsembleClassifier with labels that are strings, or a score for one of two classes", node.name)
    scores = _float(m, _forest(m, node, x, rows))
    return _labelled(m, node, scores if node.attr("base_values") is None else m.add(scores, _vector(node, "base_values")), rows)


_TABLES: dict[str, Callable[..., Any]] = {
    "LinearRegressor": linear_regressor,
    "LinearClassifier": linear_classifier,
    "TreeEnsembleRegressor": tree_regressor,
    "TreeEnsembleClassifier": tree_classifier,
    "TreeEnsemble": tree_regressor,
    "Scaler": scaler,
    "Normalizer": normalizer,
    "ArrayFeatureExtractor": features,
}
OPS: dict[str, Callable[..., Any]] = rows.ops(rows.table, _TABLES)
