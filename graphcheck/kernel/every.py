"""A trace that carries the type of rows along: what a graph does at every size N of a free dim, from one size alone.

Each value has a type for each symbol (:mod:`graphcheck.kernel.ops.rows`), by its identity: what an operator gives is a new
object, so that functions, branches and loops pass types on by passing values on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Undecided
from graphcheck.kernel.interpreter import Env, Interpreter, Trace
from graphcheck.kernel.ops import control, forms, movement, rows
from graphcheck.kernel.ops.algebra import Algebra, Some, Tensor, Value
from graphcheck.kernel.ops.node import Node
from graphcheck.kernel.ops.table import meaning_of

_COMPARED = ("Clip", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Min", "Mod", "Sub")


@dataclasses.dataclass(frozen=True, slots=True)
class Symbol:
    """A free dim: its name, its size in the trace, and where the inputs have it (input name -> axis)."""

    name: str
    size: int
    places: Mapping[str, tuple[int, ...]]

    @classmethod
    def at(cls, name: str, there: Sequence[tuple[str, int]], inputs: Mapping[str, tuple[str, tuple[int, ...]]]) -> Symbol:
        """A symbol that stands ``there``, at (input, axis); ``inputs`` have the shapes of the trace."""
        places: dict[str, tuple[int, ...]] = {}
        for key, axis in there:
            places[key] = (*places.get(key, ()), axis)
        key, axis = there[0]
        return cls(name, inputs[key][1][axis], places)

    def renamed(self, names: Mapping[str, str]) -> Symbol:
        """The symbol where the inputs have other names."""
        return dataclasses.replace(self, places={names[key]: axes for key, axes in self.places.items()})


@dataclasses.dataclass(eq=False)
class Sizing:
    """What a trace says of a symbol: the types of the outputs, and the breakpoints with the node of each."""

    symbol: Symbol
    kinds: dict[int, rows.Kind] = dataclasses.field(default_factory=dict)
    breaks: dict[int, str] = dataclasses.field(default_factory=dict)
    outputs: list[rows.Kind] = dataclasses.field(default_factory=list)
    spoiled: rows.Mixed | None = None  # why nothing is said of any output

    def of(self, value: Value) -> rows.Kind | None:
        """The type of a value; one that nobody typed is mixed, an omitted one is None."""
        if value is None:
            return None
        return self.kinds.get(id(value)) or rows.Mixed("", "it is not known how it was made, in a loop or of a sequence")

    def larger(self, value: Value) -> Value:
        """A tensor of the shape that the value has where the symbol is larger by one."""
        if not isinstance(value, Tensor | np.ndarray):
            return value
        dims = rows.dims_of(self.kinds.get(id(value)), value.shape)
        return Tensor(0, tuple(int(a + b * (self.symbol.size + 1)) for a, b in dims), value.dtype)

    def see(self, node: Node, inputs: Sequence[Value], outputs: Sequence[Value]) -> None:
        """Give the outputs of a node their types."""
        given = [self.of(x) for x in inputs]
        found = self._typed(node, inputs, given, outputs)
        for at, (value, kind) in enumerate(zip(outputs, found, strict=True)):
            if value is not None:
                self.kinds[id(value)] = self._checked(node, inputs, given, at, value, kind)

    def _typed(
        self, node: Node, inputs: Sequence[Value], given: Sequence[rows.Kind | None], outputs: Sequence[Value]
    ) -> Sequence[rows.Kind]:
        if node.op_type in ("Shape", "Size") and node.domain == "":
            return [self._shape(node, inputs[0], given[0])]
        if node.op_type == "Slice" and node.domain == "":
            self._ends(node, inputs, given)
        self._met(node, inputs, given)
        if all(kind is None or rows.is_fixed(kind) for kind in given):
            return [rows.FIXED] * len(outputs)
        sized = self._sized(node, inputs, given, outputs)
        if sized is not None:
            return sized
        spoiled = next((kind for kind in given if isinstance(kind, rows.Mixed)), None)
        if spoiled is not None:
            return [dataclasses.replace(spoiled, dims=())] * len(outputs)
        rule = getattr(meaning_of(node.domain, node.op_type), "rows", None)
        rule = rule or (rows.UNTOLD.get(node.op_type, rows.mixed) if node.domain == "" else rows.mixed)
        try:
            found = rule(rows.Seen(node, inputs, given, outputs, self.symbol.size))
        except (rows.Mix, forms.Formless) as error:
            return [rows.Mixed(node.name, str(error) or "its sizes are not known")] * len(outputs)
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:  # a node that its rule did not foresee
            return [rows.Mixed(node.name, f"its rule says nothing of it ({type(error).__name__})")] * len(outputs)
        return list(found) if isinstance(found, Sequence) else [found] * len(outputs)

    def _checked(
        self, node: Node, inputs: Sequence[Value], given: Sequence[rows.Kind | None], at: int, value: Any, kind: rows.Kind
    ) -> rows.Kind:
        """The type, if it fits the trace; of a mixed tensor with a guess at the sizes of its axes."""
        shape = getattr(value, "shape", ())
        if isinstance(kind, rows.Rows):
            fits = kind.axis < len(shape) and shape[kind.axis] == kind.outer * self.symbol.size * kind.inner
            return kind if fits else rows.Mixed(node.name, "its shape is not what its rule says")
        if isinstance(kind, rows.Mixed) and not kind.dims:
            known = {self._here(form): form for form in self._moving(inputs, given)}
            return dataclasses.replace(kind, dims=tuple(known.get(n, (n, 0)) for n in shape))
        return kind

    def _here(self, form: forms.Form) -> forms.Number:
        return form[0] + form[1] * self.symbol.size

    def _moving(self, inputs: Sequence[Value], given: Sequence[rows.Kind | None]) -> list[forms.Form]:
        """Sizes that depend on the symbol, of the axes of the inputs and among their elements."""
        found = []
        for value, kind in zip(inputs, given, strict=True):
            if isinstance(kind, forms.Sized):
                found += kind.forms()
            elif isinstance(kind, rows.Rows | rows.Mixed) and isinstance(value, Tensor | np.ndarray):
                found += rows.dims_of(kind, value.shape)
        return [form for form in found if form[1]]

    def _shape(self, node: Node, value: Value, kind: rows.Kind | None) -> rows.Kind:
        shape = getattr(value, "shape", None)
        if shape is None:
            return rows.Mixed(node.name, "it counts a sequence")
        # what is mixed may have another rank at another size, so a vector of its sizes another length
        dims, sure = rows.dims_of(kind, shape), not isinstance(kind, rows.Mixed) and getattr(kind, "sure", True)
        if node.op_type == "Size":
            try:
                total = forms.of([forms.product(dims)], sure)
            except forms.Formless:
                return rows.Mixed(node.name, "its size is not known")
            return forms.Sized(total.start.reshape(()), total.slope.reshape(()), sure)
        return forms.of(dims[node.attr("start", 0) : node.attr("end", None)], sure)

    def _sized(
        self, node: Node, inputs: Sequence[Value], given: Sequence[rows.Kind | None], outputs: Sequence[Value]
    ) -> list[rows.Kind] | None:
        """The forms of arithmetic on sizes; None where it is none."""
        if node.domain != "" or not all(isinstance(y, np.ndarray) for y in outputs):
            return None
        if not any(isinstance(kind, forms.Sized) for kind in given):
            return None
        try:
            operands = [_forms(value, kind) for value, kind in zip(inputs, given, strict=True)]
            found: list[rows.Kind] = []
            for at, output in enumerate(outputs):
                assert isinstance(output, np.ndarray)
                meeting = forms.Meeting(self.symbol.size, lambda size: self._break(size, node))
                moved = movement.DATA.get(node.op_type, ())
                data = range(len(inputs)) if moved is movement.ALL else moved
                found.append(forms.result(node, operands, inputs, at, output, meeting, data))
        except (forms.Formless, Undecided, LookupError, TypeError, ValueError, ArithmeticError):  # what no form foresees
            return None
        return found

    def _ends(self, node: Node, inputs: Sequence[Value], given: Sequence[rows.Kind | None]) -> None:
        """A Slice is cut off at the ends of its axis, where its bounds or the axis grow with the symbol."""
        data, numbers = inputs[0], [x.reshape(-1).tolist() if isinstance(x, np.ndarray) else None for x in inputs[1:4]]
        if not isinstance(data, Tensor | np.ndarray) or len(inputs) < 3:
            return
        dims, meeting = rows.dims_of(given[0], data.shape), forms.Meeting(self.symbol.size, lambda n: self._break(n, node))
        axes = numbers[2] if len(inputs) > 3 and numbers[2] is not None else range(len(dims))
        for bounds, kind in zip(numbers[:2], given[1:3], strict=True):
            if bounds is None:
                continue
            found = kind.forms() if isinstance(kind, forms.Sized) else [(n, 0) for n in bounds]
            for axis, (a, b) in zip(axes, found, strict=False):
                size, per = dims[axis]
                if (b or per) and abs(a) < rows.FAR:
                    for form in ((a, b), (a - size, b - per), (a + size, b + per)):
                        meeting.sign(form)

    def _met(self, node: Node, inputs: Sequence[Value], given: Sequence[rows.Kind | None]) -> None:
        """Numbers that a size made, such as a Range, meet constants, or the end of a table: there something may change."""
        numbers = [x for x, kind in zip(inputs, given, strict=True) if _counted(x, kind)]
        if not numbers or node.domain != "":
            return
        if node.op_type == "Gather" and isinstance(given[0], rows.Fixed) and isinstance(inputs[0], Tensor | np.ndarray):
            ends = [inputs[0].shape[node.attr("axis", 0)]]
        elif node.op_type in _COMPARED and any(isinstance(kind, rows.Mixed) for kind in given):
            fixed = [x for x, kind in zip(inputs, given, strict=True) if kind is not None and rows.is_fixed(kind)]
            ends = [n for x in fixed if isinstance(x, np.ndarray) and x.size < 5 for n in x.reshape(-1).tolist()]
        else:
            return
        for end in ends:
            for size in range(int(end), int(end) + 3) if abs(end) < rows.FAR else ():
                self._break(size, node)

    def _break(self, size: int, node: Node) -> None:
        if size >= 1 and size != self.symbol.size:
            self.breaks.setdefault(size, node.name)


def _counted(value: Value, kind: rows.Kind | None) -> bool:
    """Whether these are numbers that depend on the symbol, and not by a + b N."""
    loose = isinstance(kind, rows.Mixed) or (isinstance(kind, forms.Sized) and not kind.constant)
    return loose and isinstance(value, np.ndarray) and value.dtype.kind in "iuf"


def _forms(value: Value, kind: rows.Kind | None) -> forms.Sized | None:
    if kind is None or isinstance(kind, forms.Sized):
        return kind
    if not rows.is_fixed(kind) or not isinstance(value, np.ndarray):
        raise forms.Formless
    return forms.constants(value)


class Typed(Interpreter):
    """Types every value for each of ``symbols`` on the way."""

    def __init__(self, model: ir.Model, algebra: Algebra, symbols: Sequence[Symbol]) -> None:
        super().__init__(model, algebra)
        self.sizings = [Sizing(symbol) for symbol in symbols]
        self._kept: list[Value] = []  # so that no other object gets the identity of one that has a type

    def run(self, inputs: Mapping[str, Value]) -> Trace:
        """The trace, with what it says of each symbol."""
        trace = super().run(self.typed(inputs))
        self.settle(trace.outputs)
        return dataclasses.replace(trace, sizings=self.sizings)

    def typed(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Inputs of the main graph with their types."""
        inputs = {name: _anew(value) for name, value in inputs.items()}
        for sizing in self.sizings:
            for name, value in inputs.items():
                axes = sizing.symbol.places.get(name, ())
                twice = rows.Mixed(name, "the input has the symbol on two axes")
                kind = rows.FIXED if not axes else rows.Rows(axes[0]) if len(axes) == 1 else twice
                sizing.kinds[id(value)] = kind
        self._kept += inputs.values()
        return inputs

    def part(
        self, nodes: Sequence[ir.Node], given: Mapping[ir.Value, Value], kinds: Sequence[Mapping[ir.Value, rows.Kind]]
    ) -> Env:
        """The values of some nodes of the main graph from ``given`` ones, whose types for each symbol are fixed, or ``kinds``."""
        env = {value: _anew(x) for value, x in given.items()}
        self._kept += env.values()
        for sizing, own in zip(self.sizings, kinds, strict=True):
            sizing.kinds |= {id(x): own.get(value, rows.FIXED) for value, x in env.items()}
        self._nodes(nodes, env, {}, self.model.opset_imports)
        return env

    def settle(self, outputs: Sequence[Value]) -> None:
        """Note the types of the main graph's outputs."""
        for sizing in self.sizings:
            sizing.outputs = [sizing.spoiled or sizing.of(y) or rows.Mixed("", "an output is missing") for y in outputs]

    def _constants(self, graph: ir.Graph, env: Env) -> None:
        super()._constants(graph, env)
        for value in graph.initializers.values():
            self._register(env.get(value), rows.FIXED)

    def _register(self, value: Value, kind: rows.Kind) -> None:
        """Give a value a type, unless it has one."""
        if value is None or (self.sizings and id(value) in self.sizings[0].kinds):
            return
        self._kept.append(value)
        for sizing in self.sizings:
            sizing.kinds[id(value)] = kind

    def _controlled(self, node: Node, inputs: list[Any], body: control.Body) -> list[Any]:
        """What steers it must be fixed, at every step; then it takes the same steps for every N."""
        steps = _Steps(body.m, body.run, self, node)
        empty = [x for x in inputs if 0 in getattr(x, "shape", ())]  # a Scan over none takes no step, here or at any size
        steps.steered({"If": inputs[:1], "Loop": inputs[:2], "Scan": empty}.get(node.op_type, []))
        found = super()._controlled(node, inputs, steps)
        return self._spoiled(node, found, steps.reasons)

    def _sequenced(self, node: Node, inputs: list[Any]) -> list[Any]:
        found = super()._sequenced(node, inputs)
        if node.op_type in ("Identity", "Optional", "OptionalGetElement"):
            return found
        return self._spoiled(node, found, ["it works on a sequence"] * len(self.sizings))

    def _spoiled(self, node: Node, found: Sequence[Any], reasons: Sequence[str]) -> list[Any]:
        """The values, mixed for each symbol that has a reason."""
        fresh = [_anew(value) for value in found]
        self._kept += fresh
        for sizing, reason in zip(self.sizings, reasons, strict=True):
            for old, new in zip(found, fresh, strict=True):
                if new is not None:
                    kind = sizing.of(old) or rows.FIXED
                    if isinstance(kind, rows.Mixed) and not kind.node:
                        kind = dataclasses.replace(kind, node=node.name)
                    sizing.kinds[id(new)] = rows.Mixed(node.name, reason) if reason else kind
        return fresh

    def _told(self, op: Callable[..., Any], node: Node, inputs: Sequence[Value]) -> Sequence[Value]:
        return self.see(node, inputs, super()._told(op, node, inputs))

    def _body(self, node: Node, inputs: Sequence[Value]) -> ir.Function | None:
        """The function body; one that is another for a larger size leaves nothing to say of the symbol."""
        found = super()._body(node, inputs)
        for sizing in self.sizings if found is not None else ():
            if super()._body(node, [sizing.larger(x) for x in inputs]) is not found:
                sizing.spoiled = rows.Mixed(node.name, "its function body depends on the size")
        return found

    def _fold(self, node: Node, inputs: list[Any]) -> Sequence[Value]:
        return self.see(node, inputs, super()._fold(node, inputs))

    def _opaque(self, node: Node, inputs: list[Value], doubt: str) -> list[Value]:
        return list(self.see(node, inputs, super()._opaque(node, inputs, doubt)))

    def see(self, node: Node, inputs: Sequence[Value], outputs: Sequence[Value]) -> Sequence[Value]:
        """What a node gives, with its types."""
        if not self.sizings:
            return outputs
        outputs = [_anew(y) for y in outputs]
        self._kept += outputs
        for sizing in self.sizings:
            sizing.see(node, inputs, outputs)
        return outputs


@dataclasses.dataclass(frozen=True)
class _Steps(control.Body):
    """The steps of If, Loop and Scan, with the types of what they slice and stack, and what of them is not the same for
    every N, for each symbol: "" if all is."""

    typed: Typed
    node: Node
    reasons: list[str] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reasons", [""] * len(self.typed.sizings))

    def steered(self, values: Sequence[Value]) -> None:
        """These values steer."""
        for i, sizing in enumerate(self.typed.sizings):
            kinds = [sizing.of(value) for value in values]
            if any(kind is not None and not rows.is_fixed(kind) for kind in kinds):
                self.reasons[i] = self.reasons[i] or "what steers it depends on this dim"

    def __call__(self, graph: ir.Graph, inputs: Sequence[Any]) -> list[Any]:
        """One step; the number of a Loop's step and the condition that it begins with are fixed where its steering is."""
        if self.node.op_type == "Loop":
            for value in inputs[:2]:
                self.typed._register(value, rows.FIXED)
        found = super().__call__(graph, inputs)
        if self.node.op_type == "Loop":
            self.steered(found[:1])
        return found

    def like(self, new: Tensor, old: Some) -> Tensor:
        """The type of ``old`` is that of the new tensor."""
        self.typed._kept.append(new)
        for sizing in self.typed.sizings:
            sizing.kinds[id(new)] = sizing.of(old) or rows.FIXED
        return new

    def alike(self, x: Some, y: Some) -> bool:
        """Whether both have the same type for each symbol, which is not mixed, and nothing steers otherwise at other sizes."""
        kinds = [(sizing.of(x), sizing.of(y)) for sizing in self.typed.sizings]
        return not any(self.reasons) and all(a == b and not isinstance(a, rows.Mixed) for a, b in kinds)

    def take(self, x: Some, at: int, axis: int) -> Some:
        """A slice: fixed, or rows where the batch is on another axis; else the number of steps depends on the batch."""
        found: Some = _anew(super().take(x, at, axis))
        axis = axis % len(x.shape)
        self.typed._kept.append(found)
        for i, sizing in enumerate(self.typed.sizings):
            kind = sizing.of(x)
            if isinstance(kind, rows.Rows) and kind.axis != axis:
                kind = dataclasses.replace(kind, axis=kind.axis - (axis < kind.axis))
            elif kind is not None and rows.is_fixed(kind):
                kind = rows.FIXED
            else:
                self.reasons[i] = self.reasons[i] or "it steps through this dim"
                kind = rows.Mixed(self.node.name, self.reasons[i])
            sizing.kinds[id(found)] = kind
        return found

    def stack(self, node: Node, parts: list[Some], axis: int, declared: ir.Value) -> Some:
        """Fixed, or rows, where all parts are."""
        found: Some = _anew(super().stack(node, parts, axis, declared))
        axis = axis % len(found.shape)
        self.typed._kept.append(found)
        for sizing in self.typed.sizings:
            kinds = [sizing.of(part) for part in parts]
            kind: rows.Kind = rows.Mixed(node.name, "its steps give different types")
            if all(k is not None and rows.is_fixed(k) for k in kinds):
                kind = rows.FIXED
            elif len({*kinds}) == 1 and isinstance(kinds[0], rows.Rows):
                kind = dataclasses.replace(kinds[0], axis=kinds[0].axis + (axis <= kinds[0].axis))
            sizing.kinds[id(found)] = kind
        return found


def _anew(value: Any) -> Any:
    """The same value as an object of its own."""
    if isinstance(value, Tensor):
        return Tensor(value.cls, value.shape, value.dtype, value.held)
    return value.view() if isinstance(value, np.ndarray) else list(value) if isinstance(value, list) else value
