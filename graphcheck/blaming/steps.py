"""A model cut into steps at what was dumped: a node that cannot be evaluated is passed over, and what it was dumped as is taken.

Whole numbers and booleans that depend on computed ones (the places of a TopK, a mask) are taken from the dump as they are, so
that they may steer the operators behind them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from graphcheck.blaming.dumps.lazy import head
from graphcheck.codes import Coded
from graphcheck.errors import Exhausted, Undecided, UsageError
from graphcheck.files import model as model_
from graphcheck.kernel.interpreter import Env
from graphcheck.kernel.ops import movement
from graphcheck.kernel.ops.algebra import Tensor, Value
from graphcheck.kernel.terms.verbs import Verb
from graphcheck.kernel.values.bounds import limits
from graphcheck.precision import kinds
from graphcheck.precision.program import Cutting, Key, Program, Result, Step, finished, is_free
from graphcheck.precision.walks import largest

ROUNDED = "was dumped as floats that do not hold its integers: dump it in its own type"
_FEW = 16  # elements of a constant that may steer an operator, and is taken as it was computed
_FINITE, _SIGNS = frozenset(("IsNaN", "IsInf")), ("positive", "negative")
_PLAIN = frozenset(
    ("Cast", "Where", "Add", "Sub", "Mul", "Div", "Neg", "Constant", "Equal", "Less", "Greater", "Not", "And", "Or")
)


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A tensor that is not judged, and why."""

    node: str
    op_type: str
    output: str
    reason: Coded

    def to_json(self) -> dict[str, Any]:
        """An entry of ``skipped`` in the JSON."""
        return dataclasses.asdict(self) | {"code": self.reason.code}


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _Quantized(Result):
    """What a quantizer writes, in as many bits as it may be: its rounding is no part of the terms."""

    @property
    def kind(self) -> kinds.Kind | None:
        """As of 8 bits."""
        ends = limits(self.dtype)
        return kinds.of(self.dtype) if ends is None else kinds.Kind(self.dtype, *ends, np.inf, 0.0, 1.0, 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Cut:
    """A model's steps, what was passed over, and the arrays that nothing computed reaches, by value."""

    program: Program
    skipped: tuple[Skipped, ...]
    constants: Mapping[ir.Value, np.ndarray]
    computed: frozenset[str]  # tensors that depend on inputs
    scaled: frozenset[str]  # results of nodes that read a constant number of the model


def cut(model: ir.Model, tensors: Mapping[str, np.ndarray]) -> Cut:
    """The steps of a model whose inputs and results were dumped as ``tensors``. Raises :class:`Undecided` at a limit alone."""
    cutting = _Dumped(model, tensors)
    given: dict[str, Value] = {}
    for value in model.graph.inputs:
        name = str(value.name)
        if name not in model.graph.initializers or name in tensors:
            dtype = None if value.dtype is None else np.dtype(value.dtype.numpy())
            if dtype is not None:
                _check_numbers(tensors, name, dtype)
            rounded = dtype is not None and is_rounded(tensors, name, dtype)
            found = None if rounded else _input(cutting, value, dtype, tensors.get(name))
            if found is None:
                why = Coded(ROUNDED, "GC402") if rounded else Coded("was not dumped", "GC401")
                cutting.lost[value] = Coded(f"input {name!r} {why}", why.code)
            given[name] = found
    trace = cutting.run(given)
    arrays = {v: x for v, x in trace.values.items() if isinstance(x, np.ndarray) and v not in cutting.lost}
    computed = frozenset(str(v.name) for v, x in trace.values.items() if isinstance(x, Tensor)) | cutting.taken
    return Cut(finished(cutting, trace), tuple(cutting.skipped), arrays, computed, frozenset(cutting.scaled))


def leaves(steps: Sequence[Step]) -> list[Key]:
    """What a region reads and does not make."""
    made = {r.key for step in steps for r in step.results}
    return [*dict.fromkeys(key for step in steps for key in step.reads if key not in made)]


def is_rounded(tensors: Mapping[str, np.ndarray], name: str, dtype: np.dtype[Any]) -> bool:
    """Whether integers were dumped as floats that do not hold all numbers of so many digits."""
    if dtype.kind not in "iu" or name not in tensors or not is_free(held := head(tensors, name)[1]):
        return False
    digits = ml_dtypes.finfo(held).nmant + 1  # type: ignore[no-untyped-call]
    return bool(largest(np.asarray(tensors[name], np.float64)) >= 2.0**digits)


def _check_numbers(tensors: Mapping[str, np.ndarray], name: str, dtype: np.dtype[Any]) -> None:
    """Raise :class:`UsageError` for text in a dump where the model has numbers."""
    if name in tensors and dtype.kind in "biuf" and head(tensors, name)[1].kind in "USO":
        raise UsageError(f"tensor {name!r} of the dump holds text, and the model has {dtype} there")


def _input(cutting: Cutting, value: ir.Value, declared: np.dtype[Any] | None, dumped: np.ndarray | None) -> Value:
    """What an input is taken as: a leaf of its declared type, or the array where it holds whole numbers."""
    dtype = declared if dumped is None else declared or dumped.dtype
    if dtype is None:
        return None
    steers = any(node.op_type in ("Resize", "Upsample") and at for node, at in value.uses())  # its scales
    if dumped is not None and is_free(dtype) and not steers:
        return cutting.free(str(value.name), dumped.shape, dtype)
    if dumped is not None:
        return np.asarray(dumped).astype(dtype)
    dims = model_.declared_shape(value)
    if is_free(dtype) and dims is not None and all(isinstance(d, int) for d in dims):
        return cutting.free(str(value.name), tuple(d for d in dims if isinstance(d, int)), dtype)
    return None


class _Dumped(Cutting):
    """Makes every result a leaf, of movement too, and goes on behind what it cannot evaluate."""

    def __init__(self, model: ir.Model, tensors: Mapping[str, np.ndarray]) -> None:
        super().__init__(model, _FEW + 1)
        self.tensors = tensors
        self.lost: dict[ir.Value, Coded] = {}
        self.skipped: list[Skipped] = []
        self.scaled: set[str] = set()
        self.taken: set[str] = set()  # whole numbers that were dumped
        self._folded: set[ir.Value] = set()  # constants that were rounded where nobody saw it

    def evaluate(
        self, source: ir.Node, env: Env, attributes: Mapping[str, Any], opsets: Mapping[str, int]
    ) -> Sequence[Value]:
        """As ever, or what was dumped."""
        if self._inside:
            return super().evaluate(source, env, attributes, opsets)
        lost = next((self.lost[v] for v in source.inputs if v is not None and v in self.lost), None)
        try:
            if lost is not None:
                raise Undecided(lost)
            made = super().evaluate(source, env, attributes, opsets)
        except Exhausted:
            raise
        except (Undecided, MemoryError) as error:
            said = error.reason if isinstance(error, Undecided) else "it does not fit into memory"
            reason = said if isinstance(said, Coded) else Coded(said, "GC403")
            return [self._from_dump(source, value, reason) for value in source.outputs]
        return [self._or_dump(source, v, x) for v, x in zip(source.outputs, made, strict=False)]

    def _from_dump(self, source: ir.Node, value: ir.Value, reason: Coded) -> Value:
        """What was dumped of a result that cannot be evaluated."""
        name = str(value.name)
        if not name:
            return None
        self.skipped.append(Skipped(model_.node_name(source), source.op_type, name, reason))
        if name not in self.tensors:
            neither = f"{name!r} is neither dumped nor computed: {reason}"
            self.lost[value] = reason if " is neither " in reason else Coded(neither, "GC401")
            return None
        shape, dtype = head(self.tensors, name)
        dtype = np.dtype(value.dtype.numpy()) if value.dtype is not None else dtype
        if math.prod(shape) and (is_free(dtype) or kinds.of(dtype) is not None):
            return self.free(name, shape, dtype, "dumped")
        self.taken.add(name)
        return np.asarray(self.tensors[name]).astype(dtype)

    def _or_dump(self, source: ir.Node, value: ir.Value, made: Value) -> Value:
        """A result, or what was dumped of it where that has to be known: whole numbers that depend on inputs, and constants,
        which are judged if they are of one step. Whole numbers are judged wherever they are from."""
        name = str(value.name)
        shape, dtype = head(self.tensors, name) if name in self.tensors else (None, None)
        if source.op_type in _FINITE and not source.domain:
            made = self._odd(source, made)
        if isinstance(made, Tensor | np.ndarray):
            _check_numbers(self.tensors, name, made.dtype)
        if isinstance(made, Tensor):
            whole = not is_free(made.dtype) and kinds.of(made.dtype) is None
            told = dtype is not None and dtype.kind in "biuf" and shape == made.shape
            if whole and told and not is_rounded(self.tensors, name, made.dtype):
                self.taken.add(name)
                return np.asarray(self.tensors[name]).astype(made.dtype)
            return made
        if not isinstance(made, np.ndarray):
            return made
        if not is_free(made.dtype):
            if shape != made.shape or made.dtype.kind not in "biu" or source.op_type == "Constant":
                return made
            self._judged(source, name, made)
            return np.asarray(self.tensors[name]).astype(made.dtype)
        moves = source.op_type in movement.OPS
        rounds = source.op_type not in _PLAIN and not moves
        unseen = any(v in self._folded for v in source.inputs if v is not None)
        if shape != made.shape or made.size <= _FEW:
            if rounds or unseen or source.op_type in _PLAIN:
                self._folded.add(value)
            return made
        if rounds or unseen:
            why = Coded("it is made of constants, by more than one operator that rounds or was not dumped", "GC403")
            self.skipped.append(Skipped(model_.node_name(source), source.op_type, name, why))
            return self.free(name, made.shape, made.dtype, "dumped")
        return Tensor(self.m.terms.leaf(self._judged(source, name, made), made.size), made.shape, made.dtype)

    def _odd(self, source: ir.Node, made: Value) -> Value:
        """IsNaN and IsInf of what was dumped: over the reals neither is ever true."""
        name = "" if source.inputs[0] is None else str(source.inputs[0].name)
        if name not in self.tensors or not isinstance(made, np.ndarray):
            return made
        x = np.asarray(self.tensors[name])
        if source.op_type == "IsNaN":
            return np.asarray(np.isnan(x)).reshape(made.shape)
        signs = [source.attributes[f"detect_{s}"].as_int() if f"detect_{s}" in source.attributes else 1 for s in _SIGNS]
        found = (np.isposinf(x) & bool(signs[0])) | (np.isneginf(x) & bool(signs[1]))
        return np.asarray(found).reshape(made.shape)

    def _judged(self, source: ir.Node, name: str, made: np.ndarray) -> Key:
        """A step more, which gives an array."""
        key = ("result", len(self.made), 0)
        result = Result(self.m.lift(made).cls, key, name, made.shape, made.dtype)
        self.types[key] = made.dtype
        self.made.append(Step(model_.node_name(source), source.op_type, (), (result,), keeps=False))
        return key

    def _cut(self, source: ir.Node, names: Sequence[str], made: Sequence[Value], given: Sequence[Value] = ()) -> list[Value]:
        if any(isinstance(x, np.ndarray) and x.size == 1 and is_free(x.dtype) for x in given):
            self.scaled.update(names)
        count = len(self.made)
        leaves = super()._cut(source, names, made, given)
        if source.op_type.startswith("Q") and len(self.made) > count:
            results = tuple(_Quantized(*(getattr(r, f.name) for f in dataclasses.fields(r))) for r in self.made[-1].results)
            self.made[-1] = dataclasses.replace(self.made[-1], results=results)
        return leaves

    def _is_read(self, verb: Verb | None, x: Tensor) -> bool:
        """Results that are what was read are steps too: a dump may hold either, and movement goes wrong as well."""
        return False
