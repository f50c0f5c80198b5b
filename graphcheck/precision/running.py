"""A radius beside each value of a copy, carried forward: no product of roundings is left out, and no order of a sum.

What carries it is the error bound of :class:`graphcheck.kernel.values.float64.Float64`, with the roundings of a wider unit inside
of a node. A LayerNormalization is taken as a whole: x / |x| moves by at most 2 |d| / (|x| + |x + d|) (Dunkl and Williams, Amer.
Math. Monthly 71, 1964, for inner products), so that it stays finite whatever comes in, as do operators with ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.maps import Map
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.precision.program import Key, Normal, Program, Result, Step

_NOTHING = np.zeros(1)
_ENDS = {
    **dict.fromkeys(("Softmax", "Sigmoid", "HardSigmoid"), (0.0, 1.0)),
    **dict.fromkeys(("Tanh", "Erf", "Sin", "Cos"), (-1.0, 1.0)),
}
_SLACK = 1 + 2.0**-20  # for the rounding of the bounds, and of float64


def radii(
    program: Program,
    fed: Mapping[Key, np.ndarray],
    errors: Mapping[Key, np.ndarray],
    unit: float,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """How far each output may be from its value over the reals with the other model's constants.

    ``errors`` of inputs and constants are those of the copy, ``unit`` is the unit roundoff inside of a node.
    """
    known = {key: x - errors[key] if key in errors else x for key, x in fed.items()}  # around the other model's numbers
    wrong = {key: np.abs(errors[key]) for key in fed if key in errors}
    last = {key: place for place, step in enumerate(program.steps) for key in step.reads}
    wanted = {key for key in program.outputs.values() if isinstance(key, tuple)}
    for place, step in enumerate(program.steps):
        tick()
        with np.errstate(all="ignore"):
            domain = Running(known, wrong, 0.0 if step.keeps else unit)
            found = evaluate(program.terms, domain, [r.cls for r in step.results])
            for result in step.results:
                real = found[program.terms.find(result.cls)]
                known[result.key] = real.value
                radius = real.error
                if step.normal is not None and step.normal.cls == result.cls and step.normal.key in known:
                    radius = np.fmin(radius, _whole(step.normal, known, wrong, unit))
                if step.op_type in _ENDS:
                    low, high = _ENDS[step.op_type]
                    radius = np.fmin(radius, np.maximum(real.value - low, high - real.value) + 16 * unit)
                wrong[result.key] = _settled(step, result, real.value, radius)
        for key in step.reads:
            if last[key] == place and key not in wanted:
                known.pop(key, None)
                wrong.pop(key, None)
    return {
        name: np.broadcast_to(wrong[key], known[key].shape) if isinstance(key, tuple) else np.zeros(key.size)
        for name, key in program.outputs.items()
    }


def _settled(step: Step, result: Result, value: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The radius once a result is rounded to its type."""
    kind = result.kind
    if kind is None or step.keeps:
        return np.asarray(radius)
    if not kind.is_float:
        over = np.maximum(np.maximum(value - kind.high, kind.low - value), 0.0)
        return np.asarray(radius + 0.5 + over)
    return np.asarray((radius + kind.unit * (np.abs(value) + radius) + kind.least / 2) * _SLACK)


def _whole(normal: Normal, known: Mapping[Key, np.ndarray], wrong: Mapping[Key, np.ndarray], unit: float) -> np.ndarray:
    """The radius of a normalization of rows, taken as a whole."""
    size, root = normal.size, np.sqrt(normal.size)
    x = known[normal.key].reshape(-1, size)
    error = np.broadcast_to(wrong.get(normal.key, _NOTHING), known[normal.key].shape).reshape(-1, size)
    reach = np.abs(x) + error
    error = error + (size + 4) * unit * (reach + reach.mean(axis=1, keepdims=True))  # of the mean, and of taking it off
    away = x - x.mean(axis=1, keepdims=True) if normal.centred else x
    length = np.sqrt(np.square(away).sum(axis=1) + size * normal.epsilon)
    moved = np.sqrt(np.square(error).sum(axis=1))  # taking off the mean makes it no longer
    apart = root * 2 * moved / np.maximum(np.maximum(2 * length - moved, moved), 2.0**-500)
    (scale, scale_error), (bias, bias_error) = (_read(v, known, wrong) for v in (normal.scale, normal.bias))
    scale = np.abs(scale) + scale_error
    most = root * scale + np.abs(bias) + bias_error  # of any element of the result
    whole = apart[:, None] * scale + root * scale_error + bias_error + (size + 16) * unit * most
    return np.asarray(np.broadcast_to(whole, x.shape).reshape(-1))


def _read(value: np.ndarray | Key | None, known: Mapping[Key, np.ndarray], wrong: Mapping[Key, np.ndarray]) -> tuple[Any, Any]:
    """A parameter of a normalization and how far it may be off."""
    if value is None:
        return _NOTHING, _NOTHING
    if isinstance(value, np.ndarray):
        return value.astype(np.float64).reshape(-1), _NOTHING
    return known[value], wrong.get(value, _NOTHING)


class Running(Float64):
    """Float64 with radii at the leaves, and roundings of another unit at each verb."""

    def __init__(self, values: Mapping[Key, np.ndarray], errors: Mapping[Key, np.ndarray], unit: float) -> None:
        super().__init__(values)
        self.errors, self.own = errors, unit

    def leaf(self, cls: int, key: tuple[Any, ...], size: int) -> Real:
        found = super().leaf(cls, key, size)
        error = self.errors.get(key)
        return found if error is None else Real(found.raw, np.broadcast_to(error, (size,)))

    def _with(self, made: Real, more: Any) -> Real:
        more = np.where(np.isneginf(made.value), 0.0, more)
        return Real(made.raw, made.error + more * _SLACK)

    def ew(self, fn: str, values: Sequence[Real], maps: Sequence[Map | None], size: int) -> Real:
        made, record = super().ew(fn, values, maps, size), function(fn)
        if not record.rounding.ulps or not self.own:
            return made
        units = 1 if record.rounding.ulps == 1 else 2 * record.rounding.ulps
        return self._with(made, units * self.own * (np.abs(made.value) + made.error))

    def contract(self, a: Real, b: Real, batches: tuple[int, int], m: int, n: int, k: int, kn: bool) -> Real:
        made = super().contract(a, b, batches, m, n, k, kn)
        if not self.own:
            return made
        x, y = (Real(np.abs(r.value) + r.error, np.zeros(r.raw.size)) for r in (a, b))
        return self._with(made, self._gamma(k) * Float64({}, bounds=False).contract(x, y, batches, m, n, k, kn).value)

    def sum(self, a: Real, rows: int, k: int) -> Real:
        made = super().sum(a, rows, k)
        return self._with(made, self._gamma(k) * (np.abs(a.value) + a.error).reshape(rows, k).sum(axis=1))

    def rows(self, fn: str, a: Real, rows: int, k: int, size: int) -> Real:
        made = super().rows(fn, a, rows, k, size)
        if fn != "softmax":
            return made
        table = a.value.reshape(rows, k)
        far = np.where(np.isfinite(table), np.abs(table - table.max(axis=1, keepdims=True)), 0.0).reshape(-1)
        return self._with(made, 4 * self.own * (far + k + 16) * np.minimum(made.value + made.error, 1.0))

    def _gamma(self, k: int) -> float:
        return k * self.own / (1 - k * self.own) if k * self.own < 1 else np.inf
