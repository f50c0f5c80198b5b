"""Every node test of onnx.backend.test in the float64 domain, against the expected outputs that ONNX ships.

Float inputs are free tensors (computed), integers and booleans are concrete, and in a second pass free where the
operator lets them be. ``tests/data/backend_cases.txt`` names the cases that pass: losing one fails; ``python
tests/test_backend_nodes.py`` writes it anew and tells what every other case stops at.
"""

from __future__ import annotations

import collections
import functools
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphcheck.errors import GraphcheckError, Undecided
from graphcheck.files import model as model_
from graphcheck.kernel.interpreter import Interpreter
from graphcheck.kernel.ops.algebra import Algebra, Tensor
from graphcheck.kernel.terms.rules import PLAIN, RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64

LIST = Path(__file__).parent / "data" / "backend_cases.txt"
CHUNKS = 8
# Expected outputs come from numpy in the declared type: so many of its units, on the scale of the output, are granted.
UNITS = 64.0
# Cases whose expected outputs were typed in with fewer digits: the absolute room.
ROUNDED = {"test_averagepool_2d_ceil_last_window_starts_on_pad": 1e-4}


@functools.cache
def cases() -> dict[str, Any]:
    """The node tests of the installed onnx by name."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in load_model_tests(kind="node")}


# Float inputs that steer: scales, sizes and ranges must be concrete, as they are in every model.
STEERING = {"Resize": (1, 2), "Upsample": (1,), "Range": (0, 1, 2), "OneHot": (0, 1)}


def array_of(value: Any) -> Any:
    """A numpy array, or a list of them; TensorProtos are read."""
    import onnx

    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return [array_of(v) for v in value] if isinstance(value, list) else np.asarray(value)


def leaves(value: Any) -> list[np.ndarray]:
    """The arrays of a value."""
    value = array_of(value)
    return [a for v in value for a in leaves(v)] if isinstance(value, list) else [value]


def is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or (dtype.kind == "V" and "float" in dtype.name)


def excluded(case: Any) -> str | None:
    """Why a case is outside what the float64 domain means; None if it is inside."""
    if len(case.model.graph.node) == 1 and any(n.op_type in RANDOM for n in case.model.graph.node):
        return "random"
    for inputs, outputs in case.data_sets:
        for value in (*inputs, *outputs):
            if value is None or isinstance(value, dict):
                return "optional or map"
            for array in leaves(value):
                if array.dtype.kind in "OUS":
                    return "strings"
                if array.dtype.kind == "c":
                    return "complex numbers"
        for array in () if elementwise(case) else (a for value in inputs for a in leaves(value)):
            if is_float(array.dtype) and not np.isfinite(array.astype(np.float64)).all():
                return "NaN or infinity in an input"
    return None


RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


class Wrong(Exception):
    """A meaning that contradicts the expected output."""


class Unknown(Exception):
    """An output that rests on an operator without a taught meaning."""


def elementwise(case: Any) -> bool:
    """Whether an element that is not finite can be left out on both sides."""
    return {n.op_type for n in case.model.graph.node} <= {"Cast", "CastLike"}


def leaf(m: Algebra, key: tuple[Any, ...], array: np.ndarray, given: dict[tuple[Any, ...], np.ndarray]) -> Tensor:
    wide = array.astype(np.float64)
    given[key] = np.where(np.isfinite(wide), wide, 0)
    return Tensor(m.terms.leaf(key, array.size), array.shape, array.dtype)


def value(m: Algebra, given: Any, names: set[str], free_integers: bool, name: str, key: tuple[Any, ...], x: Any) -> Any:
    """An input as the interpreter takes it: free or concrete, a sequence element by element."""
    if isinstance(x, list):
        return [value(m, given, names, free_integers, name, (*key, i), y) for i, y in enumerate(x)]
    free = is_float(x.dtype) or (free_integers and x.dtype.kind in "iub")
    return leaf(m, key, x, given) if free and name not in names else x


def check(case: Any, *, free_integers: bool = False, normalize: bool = True) -> None:
    """Trace and evaluate one case; raises Undecided, Unknown or Wrong."""
    for inputs, outputs in case.data_sets:
        m = Algebra(Terms(RULES if normalize else PLAIN))
        model = model_.read(case.model)
        given: dict[tuple[Any, ...], np.ndarray] = {}

        names = {
            n for node in case.model.graph.node for i in STEERING.get(node.op_type, ()) for n in node.input[i : i + 1]
        }

        make = functools.partial(value, m, given, names, free_integers)
        pairs = enumerate(zip(model.graph.inputs, inputs, strict=False))
        named = {str(v.name): make(str(v.name), (i,), array_of(x)) for i, (v, x) in pairs}
        traced = Interpreter(model, m).run(named)
        for result, expected in zip(traced.outputs, outputs, strict=True):
            if isinstance(expected, list) != isinstance(result, list):
                raise Wrong("a sequence for a tensor, or a tensor for a sequence")
            results = result if isinstance(result, list) else [result]
            if len(results) != len(leaves(expected)):
                raise Wrong(f"{len(results)} elements for {len(leaves(expected))}")
            for r, e in zip(results, leaves(expected), strict=True):
                kept = np.isfinite(array_of(inputs[0]).astype(np.float64)) if elementwise(case) else None
                compare(m, r, e, given, precision(inputs, outputs), ROUNDED.get(case.name, 0.0), kept)


def precision(inputs: Any, outputs: Any) -> float:
    """The coarsest unit roundoff among the float types of a case."""
    import ml_dtypes

    units = [2.0**-24]
    dtypes = {a.dtype for x in (*inputs, *outputs) for a in leaves(x)}
    units += [float(ml_dtypes.finfo(dtype).eps) / 2 for dtype in dtypes if is_float(dtype)]
    return max(units)


def compare(
    m: Algebra, result: Any, expected: np.ndarray, given: Any, unit: float, absolute: float, kept: np.ndarray | None
) -> None:
    """Raise unless the value lies within its own error bound and the rounding of the expected output."""
    if result is None:
        raise Wrong("an output is missing")
    if tuple(result.shape) != expected.shape:
        raise Wrong(f"shape {tuple(result.shape)} for {expected.shape}")
    if result.dtype != expected.dtype:
        raise Wrong(f"type {result.dtype} for {expected.dtype}")
    if isinstance(result, np.ndarray):
        value, error = result.astype(np.float64).reshape(-1), np.zeros(result.size)
    else:
        domain = Float64(given)
        real = evaluate(m.terms, domain, [result.cls])[m.terms.find(result.cls)]
        if domain.unknown:
            raise Unknown(", ".join(sorted(domain.unknown)))
        value, error = real.value, real.error
    wanted = expected.astype(np.float64).reshape(-1)
    if value.shape != wanted.shape:
        raise Wrong(f"{value.shape} values for {wanted.shape}")
    if kept is not None:
        value, error, wanted = value[kept.reshape(-1)], error[kept.reshape(-1)], wanted[kept.reshape(-1)]
    if not is_float(expected.dtype):
        unit = 0.0
    finite = wanted[np.isfinite(wanted)]
    room = error + absolute + UNITS * unit * np.maximum(np.abs(wanted), np.abs(finite).max(initial=0.0))
    with np.errstate(invalid="ignore"):
        room = np.where(np.isnan(room), np.inf, room)
        off = (np.abs(value - wanted) > room) & (value != wanted) & ~(np.isnan(value) & np.isnan(wanted))
        off |= (np.isnan(value) != np.isnan(wanted)) & np.isfinite(error)
    if off.any():
        at = int(off.argmax())
        raise Wrong(f"element {at} is {value[at]!r} for {wanted[at]!r}, bound {error[at]:.1e}")
    if not np.isfinite(error[np.isfinite(wanted)]).all():
        raise Undecided("the error bound is infinite")


def outcome(case: Any, **options: Any) -> tuple[str, str]:
    """('passed' | 'wrong' | 'undecided' | 'opaque' | 'excluded', reason)."""
    reason = excluded(case)
    if reason is not None:
        return "excluded", reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            check(case, **options)
        except Wrong as error:
            return "wrong", str(error)
        except Unknown as error:
            return "opaque", str(error)
        except (Undecided, GraphcheckError) as error:
            return "undecided", f"{error} (node {getattr(error, 'node', None)})"
    return "passed", ""


def floor() -> list[str]:
    """The recorded names of the cases that pass."""
    lines = LIST.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_recorded_cases_still_pass_and_none_is_wrong(chunk: int) -> None:
    recorded = set(floor())
    lost, wrong = [], []
    for name in sorted(cases())[chunk::CHUNKS]:
        kind, reason = outcome(cases()[name])
        if kind == "wrong":
            wrong.append(f"{name}: {reason}")
        elif kind != "passed" and name in recorded:
            lost.append(f"{name}: {kind}, {reason}")
    assert not wrong, "\n".join(wrong)
    assert not lost, "\n".join(lost)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_no_case_is_wrong_with_computed_integers_or_without_normal_form(chunk: int) -> None:
    wrong = []
    for name in sorted(cases())[chunk::CHUNKS]:
        for options in ({"free_integers": True}, {"normalize": False}):
            kind, reason = outcome(cases()[name], **options)
            if kind == "wrong":
                wrong.append(f"{name} {options}: {reason}")
    assert not wrong, "\n".join(wrong)


def test_recorded_cases_exist_and_are_most() -> None:
    recorded = floor()
    assert len(set(recorded)) == len(recorded)
    known = [name for name in recorded if name in cases()]
    print(f"{len(known)} of {len(cases())} cases run")
    assert len(known) > 0.8 * len(cases())


def test_a_wrong_meaning_is_found() -> None:
    """The check must fail on a meaning that is wrong: LeakyRelu with another slope."""
    import copy

    case = copy.deepcopy(cases()["test_leakyrelu"])
    case.model.graph.node[0].attribute[0].f *= 1 + 1e-4
    assert outcome(case)[0] == "wrong"


def main() -> None:
    """Write the list anew and print what stops every case that is not on it."""
    results = {name: outcome(case) for name, case in cases().items()}
    stops: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for name, (kind, reason) in results.items():
        if kind != "passed":
            stops[kind, reason.split(" (node")[0]].append(name)
    for (kind, reason), names in sorted(stops.items()):
        print(f"{kind:10} {len(names):4}  {reason}: {', '.join(names[:3])}{' ...' if len(names) > 3 else ''}")
    passed = sorted(name for name, (kind, _) in results.items() if kind == "passed")
    LIST.write_text(f"# {len(passed)} of {len(results)} node tests of onnx.backend.test\n" + "\n".join(passed) + "\n")
    print(f"{len(passed)} of {len(results)} cases run")


if __name__ == "__main__":
    sys.exit(main())
