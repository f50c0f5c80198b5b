"""If, Loop, Scan and SequenceMap, where what steers them is concrete: their bodies are evaluated step by step.

In a store that asks for it, a Loop or Scan of many steps is taken as a whole. Its body is evaluated once, on free tensors, the
bound variables, in place of the step's number, the state and the slices. They are known by how many loops stand around, by
their places and types, as de Bruijn has it. The whole is an unknown function of the first state, of what is sliced, and of what
the body gives as a function of its variables: equal bodies at equal operands are equal by congruence.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck import limits
from graphcheck.errors import Endless, Exhausted, Late, Oversized, Undecided
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.rules.numbers import above_zero
from graphcheck.kernel.terms.verbs import Ew, Leaf, Opaque, Term


@dataclasses.dataclass(frozen=True)
class Body:
    """What an operator may do with its subgraphs: ``run`` gives the outputs of one at its inputs."""

    m: Algebra
    run: Callable[[ir.Graph, Sequence[Any]], list[Any]]

    def __call__(self, graph: ir.Graph, inputs: Sequence[Any]) -> list[Any]:
        """The outputs of a subgraph."""
        return self.run(graph, inputs)

    def take(self, x: Some, at: int, axis: int) -> Some:
        """The slice of ``x`` at one index of ``axis``."""
        return take(self.m, x, at, axis)

    def stack(self, node: Node, parts: list[Some], axis: int, declared: ir.Value) -> Some:
        """Equal shapes along a new axis."""
        return stack(self.m, node, parts, axis, declared)

    def like(self, new: Tensor, old: Some) -> Tensor:
        """``new``, which is at every size what ``old`` is."""
        return new

    def alike(self, x: Some, y: Some) -> bool:
        """Whether two tensors are of one kind at every size."""
        return True


_MAX_TRIPS = 10_000
_MANY = 64  # steps from which on a Loop or Scan is taken as a whole


def if_(m: Algebra, node: Node, inputs: list[Any], body: Body) -> list[Any]:
    """One of two branches; where the condition is computed, a selection between what both give in equal shapes."""
    condition = inputs[0]
    if isinstance(condition, np.ndarray):
        return body(node.attr("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"), ())
    then, other = (body(node.attr(name), ()) for name in ("then_branch", "else_branch"))
    for x, y in zip(then, other, strict=True):
        alike = isinstance(x, (np.ndarray, Tensor)) and isinstance(y, (np.ndarray, Tensor)) and x.dtype == y.dtype
        if not alike or x.shape != y.shape:
            raise Undecided("the condition of If depends on the inputs, and its branches differ in shape", node.name)
    return [m.where(m.reshape(condition, ()), x, y) for x, y in zip(then, other, strict=True)]


def loop(m: Algebra, node: Node, inputs: list[Any], body: Body) -> list[Any]:
    """State, carried from step to step, and scan outputs, stacked."""
    graph = node.attr("body")
    padded: list[Any] = [*inputs, *[None] * (2 - len(inputs))]
    trips, go_on, state = padded[0], padded[1], padded[2:]
    state += [None] * (len(graph.inputs) - 2 - len(state))
    for value, what in ((trips, "trip count"), (go_on, "condition")):
        if isinstance(value, Tensor):
            raise Undecided(f"the {what} of Loop depends on the inputs", node.name)
    limit = math.inf if trips is None else int(trips.reshape(-1)[0])
    go_on = np.asarray(True) if go_on is None else go_on
    goes_on = bool(go_on.reshape(-1)[0])
    ends = goes_on and limit < math.inf
    if ends and (found := _whole(node, body, int(limit), state, go_on)) is not None:
        return found
    if limit > _MAX_TRIPS and goes_on and _never_stops(graph):
        raise Endless(f"Loop goes on beyond {_MAX_TRIPS} steps", node.name)
    scanned: list[list[Some]] = [[] for _ in range(len(graph.outputs) - 1 - len(state))]
    trip = 0
    while trip < limit and bool(go_on.reshape(-1)[0]):
        if trip >= _MAX_TRIPS:
            raise Endless(f"Loop goes on beyond {_MAX_TRIPS} steps", node.name)
        go_on, *rest = body(graph, [np.asarray(trip, np.int64), go_on, *state])
        if isinstance(go_on, Tensor):
            raise Undecided("the condition of Loop depends on the inputs", node.name)
        state = rest[: len(state)]
        for column, value in zip(scanned, rest[len(state) :], strict=True):
            column.append(value)
        trip += 1
    declared = graph.outputs[1 + len(state) :]
    return [*state, *(body.stack(node, column, 0, value) for column, value in zip(scanned, declared, strict=True))]


def _never_stops(graph: ir.Graph) -> bool:
    """Whether the condition that a Loop's body returns is the one that it is given."""
    value: ir.Value | None = graph.outputs[0]
    while value is not None and (source := value.producer()) is not None and source.op_type == "Identity":
        value = source.inputs[0]
    return value is graph.inputs[1]


def scan(m: Algebra, node: Node, inputs: list[Any], body: Body) -> list[Any]:
    """Like Loop, over slices of the scan inputs along their axes, forwards or backwards."""
    if node.version < 9:
        raise Undecided("Scan before operator set 9 is not evaluated", node.name)
    graph, count = node.attr("body"), node.attr("num_scan_inputs")
    state, data = list(inputs[: len(inputs) - count]), inputs[len(inputs) - count :]
    outputs = len(graph.outputs) - len(state)
    axes = node.attr("scan_input_axes") or [0] * count
    backwards = node.attr("scan_input_directions") or [0] * count
    trips = data[0].shape[axes[0]]
    out_axes = node.attr("scan_output_axes") or [0] * outputs
    out_backwards = node.attr("scan_output_directions") or [0] * outputs
    plain = not any((*axes, *backwards, *out_axes, *out_backwards))
    if plain and (found := _whole(node, body, trips, state, None, data)) is not None:
        return found
    if trips > _MAX_TRIPS:
        raise Endless(f"Scan goes on beyond {_MAX_TRIPS} steps", node.name)
    scanned: list[list[Some]] = [[] for _ in range(outputs)]
    for trip in range(trips):
        at = [trips - 1 - trip if back else trip for back in backwards]
        slices = [body.take(x, i, axis) for x, i, axis in zip(data, at, axes, strict=True)]
        results = body(graph, [*state, *slices])
        state = results[: len(state)]
        for column, value in zip(scanned, results[len(state) :], strict=True):
            column.append(value)
    columns = [column[::-1] if back else column for column, back in zip(scanned, out_backwards, strict=True)]
    declared = graph.outputs[len(state) :]
    stacked = (body.stack(node, c, axis, value) for c, axis, value in zip(columns, out_axes, declared, strict=True))
    return [*state, *stacked]


def _whole(
    node: Node, body: Body, trips: int, state: Sequence[Any], go_on: np.ndarray | None = None, data: Sequence[Some] = ()
) -> list[Any] | None:
    """The last state and the scan outputs of a Loop (``go_on`` is its condition) or a Scan (of ``data``, by their first axes) as
    unknown functions of the first state, the data, and what the body gives of its variables.

    None where it is not taken so: the steps are few, or the body stops, needs a value of its variables, changes the type of the
    state, or may be undefined (1 / i in the first step, which an identity might hide).
    """
    m, graph = body.m, node.attr("body")
    if not m.whole or trips < _MANY or not all(isinstance(x, (np.ndarray, Tensor)) and 0 not in x.shape for x in state):
        return None
    body = dataclasses.replace(body)  # what a trial finds of sizes is nothing that the steps say
    variables = [*state, *(body.take(x, 0, 0) for x in data)]
    number, *bound = (_bound(m, at, x) for at, x in enumerate((np.asarray(0, np.int64), *variables)))
    given: list[Any] = [body.like(new, old) for new, old in zip(bound, variables, strict=True)]
    m.level += 1
    try:
        made = body(graph, given if go_on is None else [number, go_on, *given])
        again = [] if go_on is None else [made.pop(0)]
        args = [m.lift(x) for x in (*state, *data, *made)] if list not in map(type, made) else []
    except (Exhausted, Late, Oversized):
        raise
    except Undecided:
        return None
    finally:
        m.level -= 1
    stays = all(isinstance(x, np.ndarray) and bool(x.reshape(-1)[0]) for x in again) and bool(args)
    stays = stays and all((x.shape, x.dtype) == (y.shape, y.dtype) for x, y in zip(state, made, strict=False))
    stays = stays and all(map(body.alike, [*state, *made[len(state) :]], made))
    finite = not any(m.terms.neginf[c] or c in m.terms.nan for c in (m.terms.find(x.cls) for x in args))
    if not (stays and finite and _is_defined(m, [number.cls, *(x.cls for x in bound)], trips)):
        return None
    if _is_constant(m, state, bound, made) or _grows(m, number.cls):
        return None
    m.wholes += 1
    kind = "Scan" if go_on is None else "Loop"
    key, found = ("", "Loop", m.level, kind, trips, len(state), len(data)), list[Any]()
    for at, (one, declared) in enumerate(zip(made, graph.outputs[len(again) :], strict=True)):
        last = at < len(state)
        limits.current().check_elements((1 if last else trips) * math.prod(one.shape), "a scan output", node.name)
        whole = m.unknown(key, args, at, one.shape if last else (trips, *one.shape), one.dtype)
        found.append(body.like(whole, state[at] if last else body.stack(node, [one], 0, declared)))
    return found


def _bound(m: Algebra, at: int, like: Some) -> Tensor:
    """The variable at a place of the loop at this level, of the shape and type of what it stands for."""
    key = ("bound", m.level, at, like.shape, like.dtype.name)
    return Tensor(m.terms.leaf(key, math.prod(like.shape)), like.shape, like.dtype)


def _is_constant(m: Algebra, state: Sequence[Any], bound: Sequence[Tensor], made: Sequence[Some]) -> bool:
    """Whether a state of floats is one of constants alone: its steps overflow where those of a runtime do."""
    own = [m.terms.find(x.cls) for x in bound]
    varied = {*own[len(state) :], *(cls for cls, x in zip(own, state, strict=False) if isinstance(x, Tensor))}
    behind = []
    for x in made[: len(state)]:
        leaves = [(c, v.key) for c in m.terms.order([m.lift(x).cls]) if isinstance(v := m.terms.term(c).verb, Leaf)]
        behind.append({c for c, key in leaves if c in own or key[0] != "bound" or len(key) < 5 or key[1] < m.level})
    for _ in state:
        varied |= {cls for cls, found in zip(own, behind, strict=False) if varied & found or found.difference(own)}
    return any(cls not in varied and x.dtype.kind not in "iub" for cls, x in zip(own, state, strict=False))


def _made_of(m: Algebra, variables: Sequence[int]) -> Iterator[int]:
    """The classes that were computed of variables at this level; what is behind a whole of it depends on none."""
    seen, todo = set[int](), [m.terms.find(c) for c in variables]
    while todo:
        for cls in {*map(m.terms.find, m.terms.users(todo.pop()))} - seen:
            seen.add(cls)
            yield cls
            match m.terms.term(cls).verb:
                case Opaque((("", "Loop", level, *_), *_)) if level == m.level:
                    pass
                case _:
                    todo.append(cls)


def _grows(m: Algebra, number: int) -> bool:
    """Whether what grows fast is computed of the step's number: at a later step it overflows where that of a runtime does."""
    made = {m.terms.find(number), *_made_of(m, [number])}
    terms = [term for term in map(m.terms.term, made) if isinstance(term.verb, Ew)]
    return any(function(t.verb.fn).steep or (t.verb.fn == "mul" and made.issuperset(t.args)) for t in terms)  # type: ignore[union-attr]


def _is_defined(m: Algebra, bound: Sequence[int], trips: int) -> bool:
    """Whether all that was computed of the variables at this level, the step's number first, is defined at all their values."""
    for term in map(m.terms.term, _made_of(m, bound)):
        match term:
            case Term(Opaque((("", "Loop", *_), *_))):
                pass
            case Term(Opaque((("", "Gather", _, attributes, *_), _, ((shape, _), *_), _)), (_, index)):
                if index != m.terms.find(bound[0]) or trips > shape[dict(attributes).get("axis", 0)]:
                    return False
            case Term(Opaque()):
                return False
            case Term(Ew(fn), (x, *_)) if not function(fn).total:
                if fn not in ("recip", "log", "sqrt") or not above_zero(m.terms, x):
                    return False
    return True


def sequence_map(m: Algebra, node: Node, inputs: list[Any], body: Body) -> list[Any]:
    """The body on each element of the sequences; a tensor among the inputs is the same for all."""
    graph = node.attr("body")
    count = len(inputs[0])
    results = [body(graph, [x[i] if isinstance(x, list) else x for x in inputs]) for i in range(count)]
    return [[r[j] for r in results] for j in range(len(graph.outputs))]


def take(m: Algebra, x: Some, at: int, axis: int) -> Some:
    """The slice of ``x`` at one index of ``axis``."""
    if isinstance(x, np.ndarray):
        return np.asarray(x.take(at, axis))
    index = np.asarray(np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape).take(at, axis))
    return m.pick(x, index, index.shape)


def stack(m: Algebra, node: Node, parts: list[Some], axis: int, declared: ir.Value | None = None) -> Some:
    """Equal shapes along a new axis; the declared type is what no parts at all have."""
    if not parts:
        shape = declared.shape.numpy() if declared is not None and declared.shape is not None else None
        if shape is None or declared is None or declared.dtype is None or not all(isinstance(n, int) for n in shape):
            raise Undecided(f"{node.op_type} runs no step, so the shape of its scan outputs is unknown", node.name)
        return np.zeros(
            (*shape[: axis % (len(shape) + 1)], 0, *shape[axis % (len(shape) + 1) :]), declared.dtype.numpy()
        )
    if all(isinstance(x, np.ndarray) for x in parts):
        return np.stack(parts, axis)  # type: ignore[arg-type]
    size = math.prod(parts[0].shape)
    index = np.stack([np.arange(1, 1 + size).reshape(p.shape) + i * size for i, p in enumerate(parts)], axis)
    return m.join(parts, index, index.shape, parts[0].dtype)


OPS: dict[str, Callable[[Algebra, Node, list[Any], Body], list[Any]]] = {
    "If": if_,
    "Loop": loop,
    "Scan": scan,
    "SequenceMap": sequence_map,
}
