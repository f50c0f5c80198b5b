"""Splits movement through tensors of many dims (window partition, pixel shuffle) into steps of few."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.files import model as model_
from graphcheck.graphs import walk
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.patches.site import Refusal
from graphcheck.patches.trace import Trial, trials
from graphcheck.patches.transpositions import Transposition, find_transpositions
from graphcheck.rewriting.apply import default_behind, discard, install, register, sweep
from graphcheck.rewriting.builder import Atom, Builder, Cannot, Dim, product

RULE = "movement-in-steps"
_LARGEST = 2**24  # bytes of a constant that is stored anew


def limit_rank(
    model: ir.Model, rank: int, before: Trial
) -> tuple[list[tuple[Transposition, list[ir.Node]]], list[Refusal]]:
    """Rewrite, in place, all movement so that its tensors have ``rank`` dims at most.

    ``before`` is a trial of the model before its sites were rewritten: with what the new tensors declare, it often tells
    that nothing is over the limit. Returns what was rewritten, with the new nodes, and every tensor that is still over the
    limit with the reason.
    """
    values = itertools.chain(
        model.graph.inputs, model.graph.initializers.values(), *(node.outputs for node in model.graph.all_nodes())
    )
    if all((dims := _dims(value, before)) is not None and len(dims) <= rank for value in values):
        return [], []
    runs = trials(model)
    done = _fold_constants(model, runs, rank)
    regions, left = find_transpositions(model, runs, rank)
    for movement in regions:
        try:
            done.append((movement, split(model, movement, runs[0], rank)))
        except Cannot as error:
            left += [
                Refusal(Coded(f"tensor {v.name} is left: {error}", "GC309"), model_.node_name(n))
                for n in movement.nodes[:1]
                for v in n.outputs
            ]
    if done:
        sweep(model)
    return done, [*left, *_left(model, runs[0], rank)]


def _fold_constants(model: ir.Model, runs: list[Trial], rank: int) -> list[tuple[Transposition, list[ir.Node]]]:
    """Put what is made of constants of too many dims (a mask, a table of positions) into an initializer of few."""
    done: list[tuple[Transposition, list[ir.Node]]] = []
    for node in list(model.graph):
        for value in node.outputs:
            array = _constant(value, runs)
            if array is None or array.ndim > rank or array.nbytes > _LARGEST or value.is_graph_output():
                continue
            behind = _wide_behind(node, runs[0], rank)
            if behind and default_behind(model, value) is None:
                folded = ir.Value(name=f"{value.name}/graphcheck/constant", shape=ir.Shape(array.shape))
                folded.const_value = ir.tensor(array, name=folded.name)
                folded.dtype = folded.const_value.dtype
                register(model, folded)
                value.replace_all_uses_with(folded)
                done.append((Transposition(value, folded, (), (), (), (*behind, node)), []))
    return done


def _constant(value: ir.Value, runs: list[Trial]) -> np.ndarray | None:
    """The value at every size, if it is one and the same."""
    first, *others = (run.values.get(value) for run in runs)
    same = all(isinstance(other, np.ndarray) and np.array_equal(first, other) for other in others)  # type: ignore[arg-type]
    return first if isinstance(first, np.ndarray) and same else None


def _wide_behind(node: ir.Node, run: Trial, rank: int) -> list[ir.Node]:
    """The nodes behind this one that make constants of too many dims, or this one where it reads a stored one."""

    def wide(values: Iterable[ir.Value | None]) -> list[ir.Value]:
        constant = [v for v in values if v is not None and isinstance(run.values.get(v), np.ndarray)]
        return [value for value in constant if _rank(value, run) > rank]

    first = wide(node.inputs)
    makers = walk.makers(walk.back(first, lambda value: wide(walk.operands(value))))
    reads_stored = any(value.producer() is None for value in first)
    return [*reversed(makers), *([node] if reads_stored else [])]


def _rank(value: ir.Value, run: Trial) -> int:
    """The number of dims of a value, as traced, or as declared where it could not be traced; 0 if it is not known."""
    return len(_dims(value, run) or ())


def _dims(value: ir.Value, run: Trial) -> Sequence[Any] | ir.Shape | None:
    traced = run.values.get(value)
    return traced.shape if isinstance(traced, (np.ndarray, Tensor)) else value.shape


def _left(model: ir.Model, run: Trial, rank: int) -> list[Refusal]:
    """Inputs, constants, what could not be traced and what lies in subgraphs, where it has too many dims."""
    said = f"dims where {rank} are allowed"
    tensors = [(f"input {v.name}", v, v.name or "", "") for v in model.graph.inputs]
    tensors += [(f"initializer {v.name}", v, v.name or "", "") for v in model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        for value in node.outputs:
            name, traced = model_.node_name(node), run.values.get(value)
            if node.graph is not model.graph:
                tensors.append((f"tensor {value.name}", value, name, ": it is inside a subgraph"))
            elif isinstance(traced, np.ndarray):
                tensors.append((f"tensor {value.name}", value, name, ": it is a constant that the result is computed with"))
            elif traced is None:
                tensors.append((f"tensor {value.name}", value, name, ": it could not be traced"))
    wide = [(what, _rank(v, run), why, at) for what, v, at, why in tensors if _rank(v, run) > rank]
    return [Refusal(Coded(f"{what} has {count} {said}{why}", "GC309"), at) for what, count, why, at in wide]


def split(model: ir.Model, movement: Transposition, run: Trial, rank: int | None) -> list[ir.Node]:
    """Write movement, in place, in steps whose tensors have ``rank`` dims at most (None: as many as it takes)."""
    tensor = run.tensor(movement.input)
    assert tensor is not None
    dynamic = {axis for size, axis in movement.atoms if size is None}
    sizes = tuple(Dim(1, (Atom(i),)) if i in dynamic else Dim(n) for i, n in enumerate(tensor.shape))
    atoms = []
    for size, axis in movement.atoms:
        rest = math.prod(n for n, a in movement.atoms if a == axis and n is not None)
        atoms.append(Dim(size) if size is not None else Dim(1, (Atom(axis, 0, rest),)))
    dims = tuple(product(atoms[i] for i in group) for group in movement.dims)
    dtype = ir.DataType.from_numpy(tensor.dtype)
    builder = Builder(model, movement.input, sizes, movement.output.name or "moved", RULE, dtype, rank)
    try:
        result = builder.move(movement.input, tuple(atoms), movement.perm, dims)
    except Cannot:
        discard(builder)
        raise
    if not builder.nodes:
        raise Cannot("it moves nothing")
    install(model, builder, movement.output, result)
    return builder.nodes
