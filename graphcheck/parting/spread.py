"""What rounding may do to the outputs of two models that were proved equal: each side's own, in terms of its own.

After a proof both sides are one in the store, and the terms of one of them are as good as those of the other for it. For
rounding they are not: E[x^2] - E[x]^2 cancels where E[(x - E[x])^2] does not. So each model is traced again, alone, without
the merges and the normal forms.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.errors import Exhausted, Oversized, Undecided
from graphcheck.interface.inputs import leaves_of, side_inputs
from graphcheck.interface.ports import Interface
from graphcheck.kernel.interpreter import Interpreter
from graphcheck.kernel.ops.algebra import Algebra, Tensor, Value
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.terms.rules import PLAIN
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.parting.witness import unit_of

_NOISE_RUNS = 4


def spread_of(
    models: tuple[ir.Model, ir.Model],
    interface: Interface,
    pair: Pair,
    inputs: Mapping[str, np.ndarray],
    seed: int,
) -> dict[str, float]:
    """How far rounding may part the outputs of a proved ``pair`` at an input (by pair key), by A's name; NaN: not known."""
    shared = {p.a.name: p.b.name for p in interface.outputs if p.a is not None and p.b is not None}
    try:
        sides = [
            _own(model, feeds, fixed, seed)
            for model, feeds, fixed in zip(models, side_inputs(interface, inputs), _fixed(interface, pair), strict=True)
        ]
    except (Exhausted, Oversized):
        raise
    except Undecided:
        return dict.fromkeys(shared, math.nan)
    return {a: sides[0][a] + sides[1][b] for a, b in shared.items()}


def _fixed(interface: Interface, pair: Pair) -> tuple[set[str], set[str]]:
    """The inputs of each side that the graphs were traced at, by their own names."""
    fixed = [p for p in interface.inputs if p.key in pair.concrete]
    return {p.a.name for p in fixed if p.a is not None}, {p.b.name for p in fixed if p.b is not None}


def _own(model: ir.Model, feeds: Mapping[str, np.ndarray], fixed: set[str], seed: int) -> dict[str, float]:
    """The spread of each output of one model, by its name."""
    algebra = Algebra(Terms(PLAIN))
    terms, find = algebra.terms, algebra.terms.find
    given: dict[str, Value] = {
        name: x if name in fixed else Tensor(terms.leaf(("input", name), x.size), x.shape, x.dtype)
        for name, x in feeds.items()
    }
    trace = Interpreter(model, algebra).run(given)
    outputs = dict(zip((v.name for v in model.graph.outputs), trace.outputs, strict=True))
    classes = {str(name): find(y.cls) for name, y in outputs.items() if isinstance(y, Tensor)}
    leaves = leaves_of(feeds)
    spread = dict.fromkeys((str(name) for name in outputs), 0.0)
    with np.errstate(all="ignore"):
        exact = evaluate(terms, Float64(leaves, bounds=False), list(classes.values()))
        runs: list[Float64] = [_Rounding(leaves, unit_of(trace))]
        runs += [Float64(leaves, bounds=False, unit=unit_of(trace), seed=seed + i) for i in range(_NOISE_RUNS)]
        for run in runs:
            values = evaluate(terms, run, list(classes.values()))
            for name, cls in classes.items():
                spread[name] = max(spread[name], _moved(values[cls].value, exact[cls].value))
    return spread


class _Rounding(Float64):
    """Rounds what every operation gives to so many bits: unlike noise, it loses a small term beside a large one."""

    def __init__(self, inputs: Mapping[tuple[Any, ...], np.ndarray], unit: float) -> None:
        super().__init__(inputs, bounds=False)
        self.bits = round(-math.log2(unit))

    def _finish(self, value: np.ndarray, error: np.ndarray | None, scale: np.ndarray | None) -> Real:
        part, power = np.frexp(value)
        return super()._finish(np.ldexp(np.rint(np.ldexp(part, self.bits)), power - self.bits), error, scale)


def _moved(x: np.ndarray, exact: np.ndarray) -> float:
    """max |x - exact|, infinities at the same places left out; NaN where a value is not known."""
    apart: np.ndarray = np.where(x == exact, 0.0, np.abs(x - exact))
    return float(apart.max(initial=0.0))
