"""Pure movement between two tensors as one transposition: for transpositions whose inner tensors have too many dims."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.files import model as model_
from graphcheck.graphs import walk
from graphcheck.kernel.terms.verbs import Move
from graphcheck.patches.site import Refusal
from graphcheck.patches.trace import Trial


@dataclasses.dataclass(frozen=True, eq=False)
class Transposition:
    """``output`` is ``input`` reshaped to ``atoms``, transposed by ``perm`` and reshaped, at every size tried.

    ``atoms`` has, for each axis of the finest reshape, its size (None where it varies) and the input axis it is part
    of;
    ``dims`` lists, for each dim of the output, the atoms (in the transposed order) that it runs over.
    """

    input: ir.Value
    output: ir.Value
    atoms: tuple[tuple[int | None, int], ...]
    perm: tuple[int, ...]
    dims: tuple[tuple[int, ...], ...]
    nodes: tuple[ir.Node, ...]


def rank_of(value: ir.Value, trial: Trial) -> int:
    """The rank of a computed tensor; 0 if it is none."""
    tensor = trial.tensor(value)
    return 0 if tensor is None else len(tensor.shape)


def find_transpositions(model: ir.Model, runs: Sequence[Trial], rank: int) -> tuple[list[Transposition], list[Refusal]]:
    """Transpositions through tensors of more than ``rank`` dims, and each such tensor that stands in none."""
    transpositions: list[Transposition] = []
    inside: set[ir.Value] = set()
    reasons: dict[ir.Value, str] = {}
    for node in model.graph:
        for value in node.outputs:
            wide = [v for v in node.inputs if v is not None and rank_of(v, runs[0]) > rank]
            if not wide or rank_of(value, runs[0]) > rank or rank_of(value, runs[0]) == 0:
                continue
            made = _transposition(value, runs, rank)
            if isinstance(made, Transposition):
                transpositions.append(made)
                inside |= {v for n in made.nodes for v in n.outputs}
            else:
                reasons.update(dict.fromkeys(wide, made))
    left = []
    for node in model.graph:
        for value in node.outputs:
            if rank_of(value, runs[0]) > rank and value not in inside:
                reason = reasons.get(value, "its nodes do more than move elements between smaller tensors")
                dims = rank_of(value, runs[0])
                said = f"tensor {value.name} has {dims} dims where {rank} are allowed: {reason}"
                left.append(Refusal(Coded(said, "GC309"), model_.node_name(node)))
    return transpositions, left


def _transposition(output: ir.Value, runs: Sequence[Trial], rank: int) -> Transposition | str:
    """The transposition that gives ``output``, or why there is none."""
    passed: list[ir.Value] = []
    for at in walk.chain(output, lambda node: only_computed(node, runs[0])):
        if passed and rank_of(at, runs[0]) <= rank:
            break
        passed.append(at)
    else:
        producer = at.producer()
        return "it is an input of the model" if producer is None else f"{producer.op_type} joins several tensors"
    return transposition(at, output, tuple(reversed(walk.makers(passed))), runs)


def only_computed(node: ir.Node, run: Trial) -> ir.Value | None:
    """The one operand of a node that is computed; None where it has none, or several."""
    computed = [v for v in node.inputs if run.tensor(v) is not None]
    return computed[0] if len(computed) == 1 else None


def transposition(
    source: ir.Value, output: ir.Value, nodes: tuple[ir.Node, ...], runs: Sequence[Trial]
) -> Transposition | str:
    """What ``nodes`` do from ``source`` to ``output`` as a transposition, or why it is none."""
    orders = [_order(source, output, run) for run in runs if run.tensor(output) is not None]
    if any(o is None for o in orders):
        return "its nodes move elements in a way that no transposition of axes does"
    return _merge(source, output, [o for o in orders if o is not None], nodes)


Order = tuple[list[int], list[int], list[int], tuple[int, ...], tuple[int, ...]]


def _order(source: ir.Value, output: ir.Value, run: Trial) -> Order | None:
    """(sizes of the atoms in the source's order, source axis of each, order, both shapes) at one size."""
    index, a, b = relative(source, output, run), run.tensor(source), run.tensor(output)
    if index is None or a is None or b is None:
        return None
    nested = factors(index, b.shape)
    if nested is None:
        return None
    nested = sorted(nested, key=lambda pair: -pair[1])
    split: list[tuple[int, int, int]] = []  # size, stride in the source, source axis
    strides = [math.prod(a.shape[i + 1 :]) for i in range(len(a.shape))]
    for size, stride in nested:  # cut atoms where source axes begin
        for axis, (step, n) in enumerate(zip(strides, a.shape, strict=True)):
            if n > 1 and stride < step < stride * size:
                if (stride * size) % step or step % stride:
                    return None
                split.append((stride * size // step, step, axis))
                size = step // stride
        split.append((size, stride, _axis_of(stride, strides, a.shape)))
    split.sort(key=lambda atom: -atom[1])
    sizes = [atom[0] for atom in split]
    if math.prod(sizes) != index.size:
        return None
    grid = np.arange(index.size).reshape(sizes)
    want = index.reshape(-1)
    where = np.argsort(want, kind="stable").reshape(sizes)  # the output position of each source element
    steps = [int(np.take(where, 1, axis=i).reshape(-1)[0]) for i in range(len(sizes))]
    order = sorted(range(len(sizes)), key=lambda i: -steps[i])
    if not np.array_equal(grid.transpose(order).reshape(-1), want):
        return None
    return sizes, [atom[2] for atom in split], order, a.shape, b.shape


def _axis_of(stride: int, strides: Sequence[int], shape: Sequence[int]) -> int:
    """The axis that a step of ``stride`` elements lies in."""
    return next(i for i, (step, n) in enumerate(zip(strides, shape, strict=True)) if n > 1 and step <= stride)


def relative(source: ir.Value, output: ir.Value, run: Trial) -> np.ndarray | None:
    """The source element, 0-based, of each output element, if all stand there once."""
    a, b, terms = run.tensor(source), run.tensor(output), run.algebra.terms
    if a is None or b is None or math.prod(a.shape) != math.prod(b.shape):
        return None
    if a.cls == b.cls:
        return np.arange(math.prod(a.shape))
    one, other = terms.terms[a.cls], terms.terms[b.cls]
    if not isinstance(other.verb, Move) or other.verb.map.has_zero:
        return None
    if other.args == (a.cls,):
        index = other.verb.map.index.astype(np.int64) - 1
    elif isinstance(one.verb, Move) and one.args == other.args and not one.verb.map.has_zero:
        back = np.full(sum(terms.size(x) for x in one.args), -1)
        back[one.verb.map.index - 1] = np.arange(one.verb.map.size)
        index = back[other.verb.map.index - 1]
    else:
        return None
    return index if bool((index >= 0).all()) and int(np.bincount(index).max()) == 1 else None


def factors(index: np.ndarray, shape: Sequence[int]) -> list[tuple[int, int]] | None:
    """[(size, stride)] of nested runs that make up ``index``, outermost first; None if it is not made so.

    Runs end where a dim of ``shape`` ends, so that every dim is a product of them.
    """
    rest, steps = index.reshape(-1), []
    bounds = [n for n in shape if n > 1]
    while bounds:
        room = bounds.pop()
        while room > 1:
            step = int(rest[1] - rest[0])
            run = rest[:room]
            straight = 1 + int(np.argmin(np.append(np.diff(run) == step, False)))
            size = next(n for n in range(min(straight, room), 0, -1) if room % n == 0 and _holds(rest, n, step))
            if size == 1:
                return None
            steps.append((size, step))
            rest, room = rest[::size], room // size
    return steps[::-1] if rest.size == 1 and rest[0] == 0 and all(s > 0 for _, s in steps) else None


def _holds(rest: np.ndarray, size: int, step: int) -> bool:
    table = rest.reshape(-1, size)
    return bool((table - table[:, :1] == step * np.arange(size)).all())


def _merge(source: ir.Value, output: ir.Value, orders: list[Order], nodes: tuple[ir.Node, ...]) -> Transposition | str:
    sizes, axes, order, _, shape = orders[0]
    if any(o[1] != axes or o[2] != order for o in orders):
        return "its movement differs between sizes"
    varying = [i for i in range(len(sizes)) if len({o[0][i] for o in orders}) > 1]
    if len({axes[i] for i in varying}) != len(varying):
        return "two sizes within one axis vary"
    dims: list[tuple[int, ...]] = []
    left = list(order)
    for at, dim in enumerate(shape):
        group: list[int] = []
        while left and math.prod(sizes[i] for i in group) < dim:
            group.append(left.pop(0))
        if any(math.prod(o[0][i] for i in group) != o[4][at] for o in orders):
            return "its movement differs between sizes"
        dims.append(tuple(group))
    atoms = tuple((None if i in varying else sizes[i], axes[i]) for i in range(len(sizes)))
    return Transposition(source, output, atoms, tuple(order), tuple(dims), nodes)
