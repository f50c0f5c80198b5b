"""Bare movement between pixels and channels as SpaceToDepth or DepthToSpace, or as Reshape, Transpose, Reshape."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.files import model as model_
from graphcheck.patches.shuffles import Shuffle, find_shuffles
from graphcheck.patches.site import Refusal
from graphcheck.patches.trace import Trial, trials
from graphcheck.patches.transpositions import transposition
from graphcheck.rewriting.apply import install, sweep
from graphcheck.rewriting.builder import RULE as rule
from graphcheck.rewriting.builder import Atom, Builder, Cannot, Dim
from graphcheck.rewriting.rank import split

RESHAPE = "reshape"
FORMS = ("space-to-depth", RESHAPE)  # the former stands for DepthToSpace too
RULE = "bare-movement"


@dataclasses.dataclass(frozen=True, eq=False)
class Moved:
    """Movement that was written anew: as it was, the form it has now, and its new nodes."""

    input: ir.Value
    output: ir.Value
    nodes: tuple[ir.Node, ...]
    to: str
    made: tuple[ir.Node, ...]


def rewrite_movement(model: ir.Model, to: str, without: Collection[str] = ()) -> tuple[list[Moved], list[Refusal]]:
    """Write the shuffles of ``model``, in place, with their operator, or (``reshape``) without it; those that end at a
    tensor named in ``without`` stay.

    Returns what was written anew, and why other movement through tensors of many dims was left.
    """
    runs = trials(model)
    shuffles, refusals = find_shuffles(model, runs)
    done: list[Moved] = []
    for shuffle in shuffles:
        if shuffle.is_operator is (to != RESHAPE) or shuffle.output.name in without:
            continue
        try:
            made = _reshaped(model, shuffle, runs) if to == RESHAPE else _operator(model, shuffle, runs)
        except Cannot as error:
            refusals.append(Refusal(error.reason, model_.node_name(shuffle.nodes[-1])))
            continue
        done.append(
            Moved(shuffle.input, shuffle.output, shuffle.nodes, RESHAPE if to == RESHAPE else shuffle.kind, tuple(made))
        )
    if done:
        sweep(model)
    return done, refusals


def unasked(model: ir.Model, runs: Sequence[Trial]) -> list[Refusal]:
    """That bare movement is there, where nobody asked for it."""
    reason = Coded("no projection is behind this movement, and --movement rewrites it without one", "GC308")
    return [Refusal(reason, model_.node_name(s.nodes[-1])) for s in find_shuffles(model, runs)[0] if not s.is_operator]


def _operator(model: ir.Model, shuffle: Shuffle, runs: Sequence[Trial]) -> list[ir.Node]:
    """SpaceToDepth and, where the order of its channels is another, a Gather; a Gather and DepthToSpace likewise."""
    dims = tuple(Dim(1, (Atom(axis),)) for axis in range(4))
    dtype = ir.DataType.from_numpy(runs[0].dtype(shuffle.input))  # type: ignore[arg-type]
    b = Builder(model, shuffle.input, dims, shuffle.output.name or "moved", RULE, dtype)
    plain, after = bool((np.diff(shuffle.order) == 1).all()), shuffle.kind == "space-to-depth"
    given: dict[str, Any] = {"blocksize": shuffle.block}
    x = shuffle.input
    if not plain and not after and np.array_equal(shuffle.order, _channels_first(shuffle)) and b.opset >= 11:
        given, plain = {**given, "mode": "CRD"}, True
    if not plain and not after:
        x = b.op("Gather", [x, b.constant(shuffle.order.astype(np.int64), "order")], None, axis=1)
    x = b.op(shuffle.operator, [x], None, **given)
    if not plain and after:
        x = b.op("Gather", [x, b.constant(np.argsort(shuffle.order).astype(np.int64), "order")], None, axis=1)
    install(model, b, shuffle.output, x)
    return b.nodes


def _channels_first(shuffle: Shuffle) -> np.ndarray:
    """The order of the channels that DepthToSpace calls CRD, told by its other mode."""
    depth = shuffle.order.size
    split_ = np.arange(depth).reshape(depth // shuffle.block**2, shuffle.block, shuffle.block)
    return split_.transpose(1, 2, 0).reshape(-1)


def _reshaped(model: ir.Model, shuffle: Shuffle, runs: Sequence[Trial]) -> list[ir.Node]:
    """Reshape, Transpose, Reshape."""
    found = transposition(shuffle.input, shuffle.output, shuffle.nodes, runs)
    if isinstance(found, str):
        raise Cannot(f"{found}, so that it stays {shuffle.operator} and Gather")
    nodes = split(model, found, runs[0], None)
    for node in nodes:
        node.metadata_props[rule] = RULE
    return nodes
