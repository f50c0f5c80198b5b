"""Random tensor programs, run on the store of terms and on numpy arrays (of Fractions, or of float64) alike."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np

from graphcheck.kernel.ops.algebra import Algebra, Tensor

RATIONAL = (
    "add", "mul", "sub", "neg", "square", "transpose", "reshape", "slice", "pad", "concat", "expand", "matmul", "sum",
    "gather", "mean", "one_hot", "recip",
)  # fmt: skip
FUNCTIONS = (
    "relu", "exp", "tanh", "sqrt_abs", "max", "rowmax", "rowmin", "softmax", "sigmoid", "where", "argmax", "softmax_by_hand",
)  # fmt: skip
ALL = (*RATIONAL, *FUNCTIONS)


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation on earlier values (by index), its choices resolved."""

    op: str
    args: tuple[int, ...]
    extra: Any = None


@dataclasses.dataclass
class Program:
    """Leaves and constants come first, then the steps; ``shapes`` is of every value."""

    leaves: list[tuple[int, ...]]
    constants: list[np.ndarray]
    steps: list[Step]
    shapes: list[tuple[int, ...]]


def draw(seed: int, length: int, ops: tuple[str, ...]) -> Program:
    """A program of small shapes: sizes of 1 to 4, ranks of 0 to 3."""
    rng = np.random.default_rng(seed)
    leaves = [tuple(int(n) for n in rng.integers(1, 4, rng.integers(1, 4))) for _ in range(2)]
    constants = []
    for _ in range(3):
        shape = (
            leaves[rng.integers(2)]
            if rng.integers(2)
            else tuple(int(n) for n in rng.integers(1, 4, rng.integers(0, 3)))
        )
        constants.append((rng.integers(-8, 9, shape) / 4).astype(np.float32))
    program = Program(leaves, constants, [], [*leaves, *(c.shape for c in constants)])
    while len(program.steps) < length:
        step = _step(rng, str(rng.choice(ops)), program.shapes, len(leaves))
        if step is not None:
            shape = _shape(step, program.shapes)
            if 0 < math.prod(shape) <= 200:
                program.steps.append(step)
                program.shapes.append(shape)
    return program


def altered(program: Program, seed: int) -> Program:
    """The program with one step made another of the same shape, or one element of a constant another number."""
    rng = np.random.default_rng(seed)
    if rng.integers(3) == 0:
        constants = [c.copy() for c in program.constants]
        changed = constants[rng.integers(len(constants))]
        changed.reshape(-1)[rng.integers(changed.size)] += np.float32(0.125)
        return dataclasses.replace(program, constants=constants)
    first = len(program.leaves) + len(program.constants)
    for _ in range(200):
        i = int(rng.integers(len(program.steps)))
        shapes = program.shapes[: first + i]
        old = program.steps[i]
        step = _step(rng, old.op if rng.integers(2) else str(rng.choice(RATIONAL)), shapes, len(program.leaves))
        if step is not None and step != old and _shape(step, shapes) == program.shapes[first + i]:
            return dataclasses.replace(program, steps=[*program.steps[:i], step, *program.steps[i + 1 :]])
    return program


def _late(rng: np.random.Generator, n: int) -> int:
    """An index, later ones more often."""
    return int(n - 1 - min(n - 1, rng.geometric(0.25) - 1))


def _step(rng: np.random.Generator, op: str, shapes: list[tuple[int, ...]], leaves: int) -> Step | None:
    i = _late(rng, len(shapes))
    shape, rank = shapes[i], len(shapes[i])
    axis = int(rng.integers(rank)) if rank else None
    if op in ("add", "mul", "sub", "max", "where"):
        fits = [j for j, s in enumerate(shapes) if _broadcasts(s, shape)]
        return Step(op, (i, int(rng.choice(fits))))
    if op in ("neg", "square", "relu", "exp", "tanh", "sqrt_abs", "sigmoid", "recip"):
        return Step(op, (i,))
    if axis is None:
        return None
    if op == "transpose":
        return Step(op, (i,), tuple(int(p) for p in rng.permutation(rank)))
    if op == "reshape":
        size = math.prod(shape)
        divisors = [d for d in range(1, size + 1) if size % d == 0]
        first = int(rng.choice(divisors))
        return Step(op, (i,), (first, size // first) if rng.integers(2) else (size,))
    if op == "slice":
        low, step = int(rng.integers(shape[axis])), int(rng.choice([1, 1, 2]))
        return Step(op, (i,), (axis, low, int(rng.integers(low + 1, shape[axis] + 1)), step))
    if op == "pad":
        return Step(op, (i,), (axis, int(rng.integers(2)), int(rng.integers(2))))
    if op == "concat":
        rest = (*shape[:axis], *shape[axis + 1 :])
        fits = [j for j, s in enumerate(shapes) if len(s) == rank and (*s[:axis], *s[axis + 1 :]) == rest]
        return Step(op, (i, int(rng.choice(fits))), axis)
    if op == "expand":
        return Step(op, (i,), (2, *shape))
    if op == "matmul":
        fits = [j for j, s in enumerate(shapes) if len(s) >= 2 <= rank and s[-2] == shape[-1]]
        fits = [j for j in fits if _broadcasts(shapes[j][:-2], shape[:-2])]
        return Step(op, (i, int(rng.choice(fits)))) if fits else None
    if op == "gather":
        return Step(op, (i,), (axis, tuple(int(v) for v in rng.integers(0, shape[axis], rng.integers(1, 4)))))
    if op == "one_hot":
        return Step(op, (i,), tuple(int(v) for v in rng.integers(0, shape[-1], rng.integers(1, 4))))
    return Step(op, (i,), axis)  # reductions and row functions


def _broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(a, b)
    except ValueError:
        return False
    return True


def _shape(step: Step, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    return np.shape(on_arrays(step, [np.zeros(s) for s in (shapes[j] for j in step.args)]))


def run_arrays(program: Program, leaves: list[np.ndarray]) -> list[np.ndarray]:
    """Every value, in the type of the leaves (object arrays of Fractions, or float64)."""
    exact = leaves[0].dtype == object
    constants = [_fractions(c) if exact else c.astype(np.float64) for c in program.constants]
    values = [*leaves, *constants]
    with np.errstate(all="ignore"):
        for step in program.steps:
            values.append(np.asarray(on_arrays(step, [values[j] for j in step.args])))
    return values


def _fractions(array: np.ndarray) -> np.ndarray:
    return np.asarray([Fraction(float(v)) for v in array.reshape(-1)] + [None], object)[:-1].reshape(array.shape)


def fractions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random fractions that are no dyadic numbers."""
    numbers = [Fraction(int(a), int(b)) for a, b in rng.integers(1, 40, (math.prod(shape), 2))]
    signs = rng.choice([-1, 1], len(numbers))
    return np.asarray([n * int(s) for n, s in zip(numbers, signs, strict=True)] + [None], object)[:-1].reshape(shape)


def on_arrays(step: Step, xs: list[np.ndarray]) -> Any:
    """One step by numpy."""
    x, extra = xs[0], step.extra
    match step.op:
        case "add" | "mul" | "sub":
            return {"add": np.add, "mul": np.multiply, "sub": np.subtract}[step.op](*xs)
        case "neg":
            return -x
        case "square":
            return x * x
        case "recip":  # 1 / (x^2 + 2), which is never undefined
            return 1 / (x * x + 2)
        case "transpose":
            return x.transpose(extra)
        case "reshape":
            return x.reshape(extra)
        case "slice":
            return np.take(x, range(*extra[1:]), axis=extra[0])
        case "pad":
            widths = [(extra[1], extra[2]) if i == extra[0] else (0, 0) for i in range(x.ndim)]
            zero: Any = Fraction(0) if x.dtype == object else 0
            return np.pad(x, widths, constant_values=zero)
        case "concat":
            return np.concatenate(xs, axis=extra)
        case "expand":
            return np.broadcast_to(x, extra)
        case "matmul":
            return xs[0] @ xs[1]
        case "sum":
            return x.sum(axis=extra)
        case "mean":
            return x.sum(axis=extra, keepdims=True) / x.shape[extra]
        case "gather":
            return np.take(x, extra[1], axis=extra[0])
        case "relu":
            return np.where(x > 0, x, x * 0)
        case "one_hot":
            return np.take(x, extra, axis=-1)
        case _:
            return _function(step, xs)


def _function(step: Step, xs: list[np.ndarray]) -> Any:
    x, extra = xs[0], step.extra
    match step.op:
        case "exp":
            return np.exp(np.minimum(x, 20))
        case "tanh":
            return np.tanh(x)
        case "sqrt_abs":
            return np.sqrt(np.abs(x))
        case "sigmoid":
            return 1 / (1 + np.exp(-x))
        case "max":
            return np.maximum(*xs)
        case "where":
            return np.where(xs[0] > xs[1], xs[0], xs[1] * 2)
        case "rowmax":
            return x.max(axis=extra)
        case "rowmin":
            return x.min(axis=extra)
        case "argmax":
            return x.argmax(axis=extra).astype(np.float64)
        case "softmax" | "softmax_by_hand":
            power = np.exp(x - x.max(axis=extra, keepdims=True))
            return power / power.sum(axis=extra, keepdims=True)
    raise ValueError(step.op)


def run_terms(program: Program, m: Algebra) -> list[Tensor]:
    """Every value as a class of the store behind ``m``; the leaves' keys are ("leaf", i)."""
    dtype = np.dtype(np.float32)
    values = [Tensor(m.terms.leaf(("leaf", i), math.prod(s)), s, dtype) for i, s in enumerate(program.leaves)]
    values += [m.lift(c) for c in program.constants]
    for step in program.steps:
        values.append(m.lift(_on_terms(m, step, [values[j] for j in step.args])))
    return values


def _on_terms(m: Algebra, step: Step, xs: list[Tensor]) -> Any:
    x, extra = xs[0], step.extra
    index = np.arange(1, 1 + math.prod(x.shape)).reshape(x.shape)
    match step.op:
        case "add" | "mul" | "sub" | "matmul":
            return getattr(m, step.op)(*xs)
        case "neg" | "relu":
            return getattr(m, step.op)(x)
        case "exp":
            return m.exp(m.ew("min", x, np.asarray(20, np.float32)))
        case "square":
            return m.mul(x, x)
        case "recip":
            return m.recip(m.add(m.mul(x, x), np.asarray(2, np.float32)))
        case "transpose":
            return m.transpose(x, extra)
        case "reshape":
            return m.reshape(x, extra)
        case "slice" | "pad" | "gather":
            moved = np.asarray(on_arrays(step, [index]))
            return m.pick(x, np.ascontiguousarray(moved), moved.shape)
        case "concat":
            other = np.arange(1, 1 + math.prod(xs[1].shape)).reshape(xs[1].shape) + index.size
            moved = np.concatenate([index, other], axis=extra)
            return m.join(xs, moved, moved.shape, x.dtype)
        case "expand":
            return m.expand(x, extra)
        case "sum":
            return m.sum(x, [extra], False)
        case "mean":
            return m.mean(x, [extra])
        case "one_hot":  # as a product with a matrix of zeros and ones
            table = np.zeros((x.shape[-1], len(extra)), np.float32)
            table[list(extra), range(len(extra))] = 1
            return m.matmul(x, table) if len(x.shape) > 1 else m.reshape(m.matmul(m.reshape(x, (1, -1)), table), (-1,))
        case "tanh":
            return m.ew("tanh", x)
        case "sqrt_abs":
            return m.ew("sqrt", m.ew("abs", x))
        case "sigmoid":
            return m.sigmoid(x)
        case "max":
            return m.ew("max", *xs)
        case "where":
            twice = m.mul(np.asarray(2, np.float32), xs[1])
            return m.where(m.pos(m.sub(xs[0], xs[1])), m.expand(x, np.broadcast_shapes(x.shape, xs[1].shape)), twice)
        case "rowmax" | "rowmin":
            return m.extreme(step.op[3:], x, [extra], False)
        case "argmax":
            rows_of, keep, rows, k = m.last(x, [extra])
            return Tensor(m.terms.rows("argmax:0", rows_of.cls, rows, k), keep, x.dtype)
        case "softmax":
            return m.along("softmax", x, extra)
        case "softmax_by_hand":
            power = m.exp(m.sub(x, m.extreme("max", x, [extra])))
            return m.div(power, m.sum(power, [extra]))
    raise ValueError(step.op)
