"""Tests for those who teach operators from outside (the entry points of ``graphcheck.ops``): what a built-in one has to pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from graphcheck.files.model import ModelLike

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], Sequence[np.ndarray]]
_DISTURBED = 1.5  # by which an operand is multiplied


def check_op(model: ModelLike, run: Run, *, units: float, sizes: Sequence[int] = (1, 2, 3, 5), seed: int = 0) -> None:
    """Nothing, if the meanings of a model's operators are what ``run`` gives; for test suites.

    Args:
        model: A small model of the operator: floats in, a leading symbolic dim where it is to be typed by rows.
        run: The operator's own runtime: outputs in order, of inputs by name.
        units: How far a result may be off, in float32 roundings of its largest magnitude; there is no default.
        sizes: Of every symbolic dim.
        seed: Of the inputs.

    Raises:
        AssertionError: in one sentence, where a value is not that of ``run``; where equal models are not proved to be so,
            or a model with a disturbed operand is, on which ``run`` differs; where a size is claimed at which a row is
            not that of the row alone; and where an operator is an unknown function.
    """
    from graphcheck.api import compare
    from graphcheck.files.model import read
    from graphcheck.verdict import Verdict

    loaded = read(model)
    for at, size in enumerate(sizes):
        feeds = _drawn(loaded, size, seed + at)
        _check_values(loaded, run, feeds, units)
        _check_rows(loaded, run, feeds, size, units)
    feeds = _drawn(loaded, max(sizes), seed)
    for name in feeds:
        once, twice = _disturbed(loaded, name, 1.5), _disturbed(_disturbed(loaded, name, 3.0), name, 0.5)
        found = compare(once, twice, run=False)
        assert found.verdict.meets(Verdict.PROVED), f"{name!r} times 3 and 0.5 is not {name!r} times 1.5: {found}"
        moved = run({**feeds, name: np.asarray(feeds[name] * _DISTURBED, feeds[name].dtype)})
        if all(np.array_equal(x, y) for x, y in zip(run(feeds), moved, strict=True)):
            continue  # the operator does not depend on it, or not so
        other = compare(loaded, _disturbed(loaded, name, _DISTURBED), run=False)
        proved = other.verdict.meets(Verdict.WITHIN_ROUNDING)
        assert not proved, f"{name!r} times {_DISTURBED} is said to be the same, though the runtime differs: {other}"


def _drawn(model: ir.Model, size: int, seed: int) -> dict[str, np.ndarray]:
    """Normal values for each input, every symbolic dim of the one size."""
    from graphcheck.files.model import declared_shape, required_inputs

    rng = np.random.default_rng(seed)
    found = {}
    for value in required_inputs(model):
        shape = tuple(dim if isinstance(dim, int) else size for dim in declared_shape(value) or ())
        assert value.dtype is not None, f"input {value.name!r} has no type"
        found[str(value.name)] = rng.standard_normal(shape).astype(value.dtype.numpy())
    return found


def _traced(model: ir.Model, feeds: Arrays, size: int | None) -> Any:
    """A trace on free inputs, typed by the leading dim where a ``size`` is given."""
    from graphcheck.kernel.every import Symbol, Typed
    from graphcheck.kernel.interpreter import Interpreter
    from graphcheck.kernel.ops.algebra import Algebra, Tensor
    from graphcheck.kernel.terms.rules import PLAIN
    from graphcheck.kernel.terms.store import Terms

    algebra = Algebra(Terms(PLAIN))
    given: dict[str, Any] = {
        name: Tensor(algebra.terms.leaf((name,), x.size), x.shape, x.dtype) for name, x in feeds.items()
    }
    if size is None:
        return algebra, Interpreter(model, algebra).run(given)
    places = {name: (0,) for name in feeds if _leads(model, name)}
    return algebra, Typed(model, algebra, [Symbol("N", size, places)]).run(given)


def _leads(model: ir.Model, name: str) -> bool:
    """Whether the leading dim of an input is symbolic."""
    from graphcheck.files.model import declared_shape

    shape = next(declared_shape(value) for value in model.graph.inputs if value.name == name)
    return bool(shape) and not isinstance(shape[0], int)  # type: ignore[index]


def _check_values(model: ir.Model, run: Run, feeds: Arrays, units: float) -> None:
    from graphcheck.kernel.values.domain import evaluate
    from graphcheck.kernel.values.float64 import Float64

    algebra, traced = _traced(model, feeds, None)
    assert not traced.opaque, f"unknown functions: {'; '.join(traced.opaque)}"
    domain = Float64({(name,): x for name, x in feeds.items()})
    for value, y, expected in zip(model.graph.outputs, traced.outputs, run(feeds), strict=True):
        real = evaluate(algebra.terms, domain, [algebra.lift(y).cls])[algebra.terms.find(algebra.lift(y).cls)]
        assert not domain.unknown, f"{value.name!r} is behind an unknown function: is its operator taught?"
        assert tuple(y.shape) == expected.shape, f"{value.name!r} has shape {y.shape}, in the runtime {expected.shape}"
        off = np.abs(real.value.reshape(y.shape) - expected.astype(np.float64))
        room = real.error.reshape(y.shape) + units * 2.0**-24 * np.abs(expected).max(initial=0.0)
        told = f"{value.name!r} is off by {off.max(initial=0.0):.3g}, where {room.max(initial=0.0):.3g} is granted"
        assert bool((off <= room).all()), told


def _check_rows(model: ir.Model, run: Run, feeds: Arrays, size: int, units: float) -> None:
    """Block n of an output that is typed by rows is that of row n alone."""
    from graphcheck.kernel.ops import rows

    if not any(_leads(model, name) for name in feeds):
        return
    (sizing,) = _traced(model, feeds, size)[1].sizings
    whole = run(feeds)
    for n in range(size):
        alone = run({name: x[n : n + 1] if _leads(model, name) else x for name, x in feeds.items()})
        for value, kind, y, one in zip(model.graph.outputs, sizing.outputs, whole, alone, strict=True):
            if isinstance(kind, rows.Rows):
                held = y.shape[kind.axis] if kind.axis < y.ndim else 0
                assert held == kind.outer * size * kind.inner, (
                    f"{value.name!r} is typed {kind}, and has the shape {y.shape}"
                )
                shape = (*y.shape[: kind.axis], kind.outer, size, kind.inner, *y.shape[kind.axis + 1 :])
                y = y.reshape(shape).take(n, kind.axis + 1).reshape(one.shape)
            elif not rows.is_fixed(kind):
                continue
            off = np.abs(y.astype(np.float64) - one.astype(np.float64)).max(initial=0.0)
            room = units * 2.0**-24 * np.abs(y).max(initial=0.0)
            told = f"{value.name!r} is typed {kind}, and at size {size} row {n} is off by {off:.3g} from the row alone"
            assert bool(off <= room), told


def _disturbed(model: ir.Model, name: str, factor: float) -> ir.Model:
    """A clone in which one input is multiplied before it is used."""
    import onnx_ir as ir

    clone, own = model.clone(), f"times_{factor:g}"
    for value in clone.graph.inputs:
        if value.name == name:
            users = list(value.uses())
            dtype = value.dtype
            assert dtype is not None
            scale = ir.tensor(np.asarray(factor, dtype.numpy()), name=own)
            constant = ir.Value(name=own, const_value=scale, type=ir.TensorType(dtype), shape=ir.Shape([]))
            clone.graph.initializers[own] = constant
            node = ir.node("Mul", [value, constant])
            node.outputs[0].name = f"{name}_{own}"
            node.outputs[0].type, node.outputs[0].shape = value.type, value.shape
            for user in users:
                user.node.replace_input_with(user.idx, node.outputs[0])
            clone.graph.insert_before(clone.graph[0], node)
    return clone
