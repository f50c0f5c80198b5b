"""How far one output element of a float64 evaluation can be from the true number, to first order in the roundings.

The running bounds of :mod:`graphcheck.domains.real` assume the worst at every step and grow by orders of magnitude a
layer. Here each step's own rounding is carried to the one element that matters by the actual derivatives (reverse
mode), so that only the roundings take their worst signs, not the steps between: |error| <= sum over the steps of
|d element / d step| * rounding of the step (Bauer, "Computational graphs and rounding error", SIAM J. Numer. Anal. 11,
1974; Linnainmaa, BIT 16, 1976). What is left out is of second order, products of two roundings, 1e-32 against 1e-16;
:data:`MARGIN` stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.domains.domain import apply
from graphcheck.domains.maps import Map
from graphcheck.domains.real import Float64, Real
from graphcheck.domains.terms import Terms

MARGIN = 2.0
_NEAR = 1e-9  # a step function this close to its jump, on the scale of its operand, may lie on either side


def element_bound(
    terms: Terms, inputs: Mapping[tuple[Any, ...], np.ndarray], root: int, index: int
) -> tuple[float, float]:
    """(value, first-order error bound) of element ``index`` of a class; inf where no derivative is known."""
    steps = _forward(terms, inputs, root)
    total = 0.0
    for cls, slope in _backward(terms, steps, root, index):
        moved = slope != 0
        total += float(np.abs(slope[moved]) @ steps[cls].error[moved])
        if not math.isfinite(total):
            total = math.inf
            break
    return float(steps[terms.find(root)].value[index]), MARGIN * total


def derivatives(
    terms: Terms, inputs: Mapping[tuple[Any, ...], np.ndarray], root: int, index: int
) -> dict[tuple[Any, ...], np.ndarray]:
    """The derivatives of element ``index`` of a class towards every leaf, by its key; NaN where none is known."""
    steps = _forward(terms, inputs, root)
    found = _backward(terms, steps, root, index)
    return {terms.terms[cls].params: slope for cls, slope in found if terms.terms[cls].kind == "leaf"}


def _forward(terms: Terms, inputs: Mapping[tuple[Any, ...], np.ndarray], root: int) -> dict[int, Real]:
    """Every value below ``root`` in order, with the rounding of its own step alone."""
    steps: dict[int, Real] = {}
    domain = Float64(inputs)
    with np.errstate(all="ignore"):
        for cls in terms.order([root]):
            below = (terms.find(a) for a in terms.terms[cls].args)
            steps[cls] = apply(
                terms, domain, cls, [Real(steps[a].value, np.zeros(steps[a].value.shape)) for a in below]
            )
    return steps


def _backward(terms: Terms, steps: dict[int, Real], root: int, index: int) -> Iterator[tuple[int, np.ndarray]]:
    """The derivatives of one element towards every class below it, from the element down."""
    root = terms.find(root)
    slopes = {root: np.zeros(terms.size(root))}
    slopes[root][index] = 1.0
    for cls in reversed(steps):
        slope = slopes.pop(cls, None)
        if slope is None:
            continue
        yield cls, slope
        term = terms.term(cls)
        with np.errstate(all="ignore"):
            parts = _pull(term.kind, term.params, slope, [steps[a].value for a in term.args], steps[cls].value)
        for arg, part in zip(term.args, parts, strict=False):
            if terms.terms[arg].kind != "const":
                slopes[arg] = slopes[arg] + part if arg in slopes else part


def _pull(
    kind: str, params: tuple[Any, ...], slope: np.ndarray, args: Sequence[np.ndarray], value: np.ndarray
) -> list[np.ndarray]:
    """The derivatives towards a verb's operands, given those towards its result."""
    match kind:
        case "move":
            sizes = [a.size for a in args]
            whole = np.bincount(params[0].index, slope, 1 + sum(sizes))[1:]
            return np.split(whole, np.cumsum(sizes)[:-1])
        case "ew":
            return _elementwise(params[0], params[1], slope, args, value)
        case "contract":
            return _contract(params, slope, args)
        case "sum":
            return [np.repeat(slope, params[1])]
        case "rows":
            return [_rows(params, slope, args[0], value)]
        case "opaque":
            return [np.full(a.size, np.nan) for a in args]
        case _:
            return []


def _contract(params: tuple[Any, ...], slope: np.ndarray, args: Sequence[np.ndarray]) -> list[np.ndarray]:
    batches, m, n, k, kn = params
    up = slope.reshape(-1, m, n)
    a = args[0].reshape(batches[0], m, k)
    b = args[1].reshape(batches[1], *((k, n) if kn else (n, k)))
    to_a = up @ (b.swapaxes(1, 2) if kn else b)
    to_b = a.swapaxes(1, 2) @ up if kn else up.swapaxes(1, 2) @ a
    shared = [(to_a, batches[0]), (to_b, batches[1])]
    return [(t.sum(axis=0) if count == 1 else t).reshape(-1) for t, count in shared]


def _rows(params: tuple[Any, ...], slope: np.ndarray, x: np.ndarray, value: np.ndarray) -> np.ndarray:
    fn, rows, k = params[:3]
    if fn == "softmax":
        p, up = value.reshape(rows, k), slope.reshape(rows, k)
        return np.asarray(p * (up - (up * p).sum(axis=1, keepdims=True))).reshape(-1)
    if fn in ("max", "min"):
        chosen = x.reshape(rows, k) == value[:, None]
        return np.asarray(slope[:, None] * chosen / chosen.sum(axis=1, keepdims=True)).reshape(-1)
    ordered = np.sort(x.reshape(rows, k), axis=1)  # argmax, argmin: steps where two are close
    gap = np.diff(ordered, axis=1).min(axis=1, initial=np.inf)
    unsure = (slope != 0) & (gap <= _NEAR * np.abs(ordered).max(axis=1))
    return np.repeat(np.where(unsure, np.nan, 0.0), k)


def _elementwise(
    fn: str, maps: Sequence[Map | None], slope: np.ndarray, args: Sequence[np.ndarray], value: np.ndarray
) -> list[np.ndarray]:
    seen = [a if map_ is None else a[map_.index - 1] for a, map_ in zip(args, maps, strict=True)]
    name = fn.partition(":")[0]
    if name in ("max", "min"):
        partials = [(s == value).astype(np.float64) for s in seen]
    elif name in _PARTIALS:
        partials = list(_PARTIALS[name](value, *seen))
    else:
        partials = [_step(name, s) for s in seen]
    result = []
    for partial, arg, map_ in zip(partials, args, maps, strict=True):
        flow = np.where(slope == 0, 0.0, slope * partial)
        if map_ is not None:
            flow = np.bincount(map_.index, flow, 1 + arg.size)[1:]
        elif arg.size == 1:
            flow = flow.sum(keepdims=True)
        result.append(flow)
    return result


def _step(name: str, a: np.ndarray) -> np.ndarray:
    """0 away from the jumps of a piecewise constant function; unknown near them and for any other function."""
    if name == "pos":
        away = np.abs(a)
    elif name in ("floor", "ceil", "cast"):
        away = np.abs(a - np.rint(a))
    elif name == "round":
        away = np.abs(a - np.floor(a) - 0.5)
    else:
        return np.full(a.shape, np.nan)
    return np.where(away <= _NEAR * np.abs(a).max(initial=1.0), np.nan, 0.0)


_PARTIALS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "add": lambda v, a, b: (1.0, 1.0),
    "mul": lambda v, a, b: (b, a),
    "recip": lambda v, a: (-v * v,),
    "exp": lambda v, a: (v,),
    "abs": lambda v, a: (np.sign(a),),
    "sqrt": lambda v, a: (0.5 / v,),
    "log": lambda v, a: (1 / a,),
    "erf": lambda v, a: (2 / math.sqrt(math.pi) * np.exp(-a * a),),
    "tanh": lambda v, a: (1 - v * v,),
    "sin": lambda v, a: (np.cos(a),),
    "cos": lambda v, a: (-np.sin(a),),
    "tan": lambda v, a: (1 + v * v,),
    "atan": lambda v, a: (1 / (1 + a * a),),
    "asin": lambda v, a: (1 / np.sqrt(1 - a * a),),
    "acos": lambda v, a: (-1 / np.sqrt(1 - a * a),),
    "sinh": lambda v, a: (np.cosh(a),),
    "cosh": lambda v, a: (np.sinh(a),),
    "asinh": lambda v, a: (1 / np.sqrt(1 + a * a),),
    "acosh": lambda v, a: (1 / np.sqrt(a * a - 1),),
    "atanh": lambda v, a: (1 / (1 - a * a),),
    "pow": lambda v, a, b: (b * v / a, np.where(a > 0, v * np.log(np.abs(a)), 0)),
    "saturate": lambda v, a: ((v == a).astype(np.float64),),
}
