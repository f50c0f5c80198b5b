"""The table of elementwise functions: every claim of every record against mpmath and Fractions; and a wrong one is seen."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
from documented import ROOT, Page
from ops_support import model
from test_domains import modulo

import graphcheck
from graphcheck.errors import UnknownFunction
from graphcheck.kernel.ops.algebra import Algebra
from graphcheck.kernel.ops.table import TAUGHT
from graphcheck.kernel.terms.functions import CORRECTLY, EXACTLY, FUNCTIONS, PARTIAL, Function, Slope, function, nowhere
from graphcheck.kernel.terms.rules import RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values import bounds
from graphcheck.kernel.values.residues import Residues, draw_primes

mpmath.mp.dps = 50
Number = Any  # of mpmath


def rounded(bits: int, least: int, top: float = 0.0) -> Callable[[Number], Number]:
    """To the nearest float of so many digits and multiples of 2**least, ties to even, saturating at ``top``."""

    def op(x: Number) -> Number:
        if not x:
            return x
        unit = mpmath.mpf(2) ** max(least, mpmath.floor(mpmath.log(abs(x), 2)) + 1 - bits)
        found = mpmath.nint(x / unit) * unit
        return min(max(found, -top), top) if top else found

    return op


def pow_(a: Number, b: Number) -> Number:
    return mpmath.mpf(a) ** int(b) if b == int(b) else mpmath.power(a, b)


def wrapped(low: int, high: int) -> Callable[[Number], Number]:
    return lambda x: x - mpmath.floor((x - low) / (high - low + 1)) * (high - low + 1)


def truncated(x: Number) -> Number:
    return mpmath.floor(x) if x > 0 else mpmath.ceil(x)


TRUTH: dict[str, Callable[..., Number]] = {
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "recip": lambda a: 1 / a,
    "pow": pow_,
    "abs": abs,
    "about": lambda a, b: a,
    "max": max,
    "min": min,
    "pos": lambda a: int(a > 0),
    "masking": lambda a: 0 if a > 0.5 else -mpmath.inf,
    "floor": mpmath.floor,
    "ceil": mpmath.ceil,
    "round": mpmath.nint,
    "mod": lambda a, b: a - b * mpmath.floor(a / b),
    "fmod": lambda a, b: a - b * truncated(a / b),
    "intdiv": lambda a, b: truncated(a / b),
    "cast:int32": truncated,
    "cast:float16": rounded(11, -24),
    "cast:bfloat16": rounded(8, -133),
    "cast:float8_e4m3fn": rounded(4, -9, 448),
    "wrap:uint8": wrapped(0, 255),
    "wrap:int4": wrapped(-8, 7),
    "saturate:int8": lambda a: min(max(a, -128), 127),
    "saturate:float8_e5m2": rounded(3, -16, 57344),
    **{name: getattr(mpmath, name) for name in ("exp", "log", "sqrt", "erf", "tanh", "sin", "cos", "tan")},
    **{name: getattr(mpmath, name) for name in ("atan", "sinh", "cosh", "asinh", "asin", "acos", "atanh", "acosh")},
}
SLACK = 1 + 2.0**-45  # pays for the rounding of the bounds' own sums, in Float64 too
_LINE = (-2.75, -1.0, -0.6, -1e-3, 0.0, 0.3, 1.0, 1.5, 2.5)
_ABOVE = (1e-3, 0.3, 1.0, 2.75)
_INSIDE = (-0.99, -0.6, 0.0, 0.3, 0.9)
_WHOLE = (-300.0, -7.0, 0.0, 3.0, 130.0, 255.0)
# Operands that a function is looked at, and operands where float64 may leave its range.
PLACES: dict[str, tuple[tuple[float, ...], ...]] = {
    **dict.fromkeys(("about", "add", "mul", "max", "min"), (_LINE, _LINE)),
    **dict.fromkeys(("mod", "fmod", "intdiv"), ((-7.0, 0.0, 3.0, 11.0), (-3.0, 2.0, 5.0))),
    **dict.fromkeys(("log", "sqrt"), (_ABOVE,)),
    **dict.fromkeys(("asin", "acos", "atanh"), (_INSIDE,)),
    **dict.fromkeys(("wrap:uint8", "wrap:int4"), (_WHOLE,)),
    "cast:bfloat16": ((*(x for x in _LINE if x), 1 + 2.0**-8, 1 - 3 * 2.0**-9),),  # it has steps of 2**-133 at 0
    "acosh": ((1.001, 1.5, 4.0),),
    "masking": ((0.75, 1.0),),  # -inf below
    "recip": (tuple(x for x in _LINE if x),),
    "pow": (_ABOVE, (-1.5, 0.0, 0.5, 2.0, 3.0)),
}
_FAR = (-1e300, -1e200, -800.0, -1e-200, 1e-200, 400.0, 800.0, 1e200, 1e300)


def grid(name: str) -> Iterator[tuple[float, ...]]:
    return itertools.product(*PLACES.get(name, (_LINE,)))


def truth(name: str, *xs: float | Number) -> Number:
    """The exact value, None where there is none."""
    try:
        found = TRUTH[name](*map(mpmath.mpf, xs))
    except (ZeroDivisionError, ValueError):
        return None
    return None if isinstance(found, mpmath.mpc) or not mpmath.isfinite(found) else found


def called(f: Callable[..., Any], *xs: float) -> Any:
    with np.errstate(all="ignore"):
        found = f(*(np.asarray([x]) for x in xs))
    return [float(np.reshape(part, -1)[0]) for part in found] if isinstance(found, tuple) else float(np.reshape(found, -1)[0])


def wrong_values(f: Function) -> bool:
    """Value, rounding, and bound: at the operands, and anywhere within what they err by."""
    for xs in grid(f.name):
        exact, value = truth(f.name, *xs), called(f.value, *xs)
        off, size = abs(mpmath.mpf(value) - exact), abs(exact)
        if off > f.rounding.relative * size + f.rounding.absolute:
            return True
        if f.rounding.ulps == 0 and f.name not in ("mod", "fmod") and off:
            return True
        for room in (0.0, 1e-9, 0.02):
            told, error = called(f.bound, *(part for x in xs for part in (x, room)))
            if room == 0.0 and told != value:
                return True
            for sides in itertools.product((-1.0, -0.4, 0.0, 0.7, 1.0), repeat=len(xs)):
                there = truth(f.name, *(mpmath.mpf(x) + room * side for x, side in zip(xs, sides, strict=True)))
                if there is not None and abs(there - mpmath.mpf(told)) > error * SLACK:
                    return True
    return False


def quotients(f: Function, xs: tuple[float, ...], at: int) -> list[Number] | None:
    """Difference quotients to the left and to the right."""
    step, here = mpmath.mpf("1e-18"), truth(f.name, *xs)
    found = []
    for side in (-step, step):
        there = truth(f.name, *(mpmath.mpf(x) + side * (i == at) for i, x in enumerate(xs)))
        if there is None or here is None:
            return None
        found.append((there - here) / side)
    return found


def wrong_slope(f: Function) -> bool:
    if f.slope is None:
        return False
    for xs in grid(f.name):
        for at in range(len(xs)):
            both = quotients(f, xs, at)
            if both is None or called(f.slope.pole, 0.0, *xs) or (f.jumps and jumps_at(f, xs[0])):
                continue
            partial = called(f.slope.partials, called(f.value, *xs), *xs)[at]
            least, most = sorted(both)
            kink = most - least > 1e-6 * (1 + abs(most))
            if kink and not (f.slope.bends and f.edge is not None and most - least <= 2 + 1e-6):
                return True
            if not least - 1e-6 * (1 + abs(least)) <= partial <= most + 1e-6 * (1 + abs(most)):
                return True
    return False


def wrong_pole(f: Function) -> bool:
    """Where an error changes the slope, other than at a kink, the record has to say so."""
    if f.slope is None or f.slope.bends:
        return False
    for xs in grid(f.name):
        for room in (1e-9, 1e-4, 0.1):
            if called(f.slope.pole, room, *xs):
                continue
            for side in (-room, room):
                there = (xs[0] + side, *xs[1:])
                value, moved = truth(f.name, *xs), truth(f.name, *there)
                if value is None or moved is None:
                    return True
                ends = [called(f.slope.partials, float(v), *p)[0] for v, p in ((value, xs), (moved, there))]
                if abs(ends[1] - ends[0]) > 0.05 + 10 * room + 0.02 * max(map(abs, ends)):
                    return True
                if abs(moved - value) > 2 * room * max(*map(abs, ends), 1e-3) + 5 * room * room:
                    return True  # a jump
    return False


def jumps_at(f: Function, x: Number) -> bool:
    rest = [0.0] * (len(PLACES.get(f.name, (_LINE,))) - 1)
    ends = [truth(f.name, mpmath.mpf(x) + side, *rest) for side in (-mpmath.mpf("1e-18"), mpmath.mpf("1e-18"))]
    return None not in ends and abs(ends[1] - ends[0]) > 1e-6 * (1 + abs(ends[0]))


def wrong_jumps(f: Function) -> bool:
    """A record without jumps has none at halves, at the end of a type and at a tie of one; a pole is no jump."""
    places = [*np.arange(-4.0, 4.5, 0.5), 255.5, 256.0, 1 + 2.0**-9, 1 + 2.0**-12]
    poles = [x for x in places if f.arity == 1 and f.slope is not None and called(f.slope.pole, 0.0, x)]
    return not f.jumps and any(jumps_at(f, x) for x in places if x not in poles)


def wrong_edge(f: Function) -> bool:
    """The function of x (of x and 0) jumps or bends where the edge says."""
    if f.edge is None:
        return False
    for x in (-1.3, 0.2, 1.6, 2.4):
        edge = float(f.edge(x)) or (1.0 if f.name == "cast:int32" else 0.0)  # truncation does not jump at 0
        both = quotients(f, (edge, *[0.0] * (f.arity != 1)), 0)
        if "float" not in f.name and (both is None or abs(both[1] - both[0]) < 1e-6) and not jumps_at(f, edge):
            return True
    return False


def wrong_parity(f: Function) -> bool:
    if not f.parity:
        return False
    for (x,) in grid(f.name):
        here, there = truth(f.name, x), truth(f.name, -x)
        if here is None or there is None:
            continue
        wanted = {"odd": -here, "even": here, "reciprocal": 1 / here if here else None}[f.parity]
        if wanted is None or abs(there - wanted) > 1e-30:
            return True
    return False


def wrong_order(f: Function) -> bool:
    if not f.commutative:
        return False
    pairs = [(truth(f.name, *xs), truth(f.name, *xs[::-1])) for xs in grid(f.name) if len(xs) == 2]
    return not pairs or any(a != b for a, b in pairs)


def wrong_rational(f: Function) -> bool:
    """What is computed modulo primes is what Fractions give."""
    if not f.rational:
        return False
    primes, xs = draw_primes(3, 3), [Fraction(7, 3), Fraction(-5, 11)][: f.arity or 2]
    domain = Residues(primes, 0)
    operands = [domain._mod(np.asarray([[float(modulo(x, p) or 0)] for p in primes])) for x in xs]
    try:
        found = domain.ew(f.name, operands, [None] * len(xs), 1)
        exact = {"add": sum, "mul": lambda v: v[0] * v[1], "recip": lambda v: 1 / v[0]}[f.name](xs)  # type: ignore[operator, no-untyped-call]
    except KeyError:
        return True
    return any(int(row[0]) % p != modulo(exact, p) for row, p in zip(found, primes, strict=True))


def wrong_mask(f: Function) -> bool:
    """Where -inf stands."""
    inf = float("inf")
    match f.mask:
        case "any":
            return called(f.value, -inf, 1.5) != -inf or called(f.value, 1.5, -inf) != -inf
        case "all":
            return called(f.value, -inf, 1.5) != 1.5 or called(f.value, -inf, -inf) != -inf
        case "factor":
            return called(f.value, -inf, 1.5) != -inf or called(f.value, 0.25, -inf) != -inf
        case "zero":
            return called(f.value, -inf) != 0.0
    return False


def wrong_reach(f: Function) -> bool:
    """Where a number is too large or too small for float64, the record says that float64 was left."""
    for xs in itertools.product(_FAR, repeat=f.arity or 2):
        value = called(f.value, *xs)
        if not (np.isinf(value) or value == 0.0) or ("float" in f.name and value == 0.0):
            continue
        if f.name == "pow" and max(map(abs, xs)) > 1e6:
            continue  # beyond mpmath
        exact = truth(f.name, *xs)
        left = f.reach.overflow if np.isinf(value) else f.reach.underflow
        if exact is not None and exact != value and not called(left, *xs):
            return True
    return False


def wrong_noise(f: Function) -> bool:
    """A rounding whose scale is 0, or that does not take place, is one of a number that float32 holds."""
    for xs in grid(f.name):
        here = tuple(map(float, map(np.float32, xs)))
        value = called(f.value, *here)
        scale = f.noise(np.asarray([value]), [np.asarray([x]) for x in here], 2.0**-24)
        if f.rounding.ulps and (scale is None or not float(scale[0])) and float(np.float32(value)) != value:
            return True
    return False


CHECKS: dict[str, Callable[[Function], bool]] = {
    name.removeprefix("wrong_"): check for name, check in list(globals().items()) if name.startswith("wrong_")
}


def faults(f: Function) -> list[str]:
    """What of a record is not true."""
    return [name for name, check in CHECKS.items() if check(f)]


def test_every_function_has_its_truth() -> None:
    assert set(TRUTH) >= set(FUNCTIONS)
    assert {name.partition(":")[0] for name in TRUTH} == {*FUNCTIONS, "cast", "wrap", "saturate"}


@pytest.mark.parametrize("name", TRUTH)
def test_a_record_is_true(name: str) -> None:
    assert function(name).name == name
    assert faults(function(name)) == []


@pytest.mark.parametrize("name", TRUTH)
def test_a_bound_of_many_elements_is_that_of_each(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "_BLOCK", 4)
    rng, f = np.random.default_rng(0), function(name)
    scales = [0.0, 1e-40, 1.0, 300.0, 1e300, np.inf, np.nan, 1.0, 2.0**-30, 1.0, 5.0]
    for few in (-1, 0)[: max(f.arity, 1)]:  # which operand has one element
        with np.errstate(all="ignore"):
            xs = [rng.standard_normal(1) if i == few else rng.standard_normal(11) * scales for i in range(max(f.arity, 1))]
            given = [part for x in xs for part in (x, np.abs(x) * 1e-9 * rng.integers(0, 2, x.size))]
            whole, parts = f.bound(*given), bounds.in_blocks(f.bound, *given)
        for one, other in zip(whole, parts, strict=True):
            assert np.allclose(np.broadcast_to(one, 11), other, rtol=1e-9, atol=0, equal_nan=True)


@pytest.mark.parametrize("unit", [2.0**-11, 2.0**-24, 2.0**-53])
def test_what_a_type_holds_is_told_by_its_digits(unit: float) -> None:
    digits = int(-np.log2(unit))
    held = np.array([0.0, 1.0, 2.0 ** (digits - 1) - 1, -3 * 2.0**-140, 2.0**300, 2.0**-1000, 2.0**-1074])
    not_held = np.array([1.0 + 2.0**-52]) if digits < 53 else np.array([])
    assert bounds.held(held, unit).all() and bounds.held(held[:4], unit).all()
    both = np.concatenate([held, not_held])
    assert bounds.held(both, unit).tolist() == [True] * len(held) + [False] * len(not_held)


def unlike(f: Callable[..., Any], factor: float) -> Callable[..., Any]:
    def bound(*xs: Any) -> tuple[Any, Any]:
        value, error = f(*xs)
        return value, error * factor

    return bound


BFLOAT16 = bounds.dtype_of("bfloat16")  # to which ml_dtypes rounds a float64 twice
_SLOPE = Slope(lambda v, a: (2 * a,), nowhere)
# A record, what is changed in it, and the check that sees it.
PLANTED: list[tuple[str, dict[str, Any], str]] = [
    ("tanh", {"value": lambda a: np.tanh(a) * (1 + 1e-13)}, "values"),
    ("exp", {"bound": unlike(function("exp").bound, 0.5)}, "values"),
    ("sqrt", {"bound": unlike(function("sqrt").bound, 0.0)}, "values"),
    ("floor", {"bound": unlike(function("floor").bound, 0.0)}, "values"),
    ("tan", {"bound": unlike(function("tan").bound, 0.5)}, "values"),
    ("cast:float16", {"value": function("cast:bfloat16").value}, "values"),
    ("cast:bfloat16", {"bound": bounds.piecewise(lambda x: x.astype(BFLOAT16).astype(np.float64))}, "values"),
    ("sin", {"rounding": EXACTLY}, "values"),
    ("recip", {"rounding": EXACTLY}, "values"),
    ("sin", {"slope": _SLOPE}, "slope"),
    ("cos", {"slope": Slope(lambda v, a: (np.sin(a),), nowhere)}, "slope"),
    ("pow", {"slope": dataclasses.replace(function("pow").slope, partials=lambda v, a, b: (b * v / a, v))}, "slope"),  # type: ignore[type-var]
    ("abs", {"slope": dataclasses.replace(function("abs").slope, bends=False)}, "slope"),  # type: ignore[type-var]
    ("max", {"slope": dataclasses.replace(function("max").slope, bends=False)}, "slope"),  # type: ignore[type-var]
    ("abs", {"edge": None}, "slope"),
    ("recip", {"slope": dataclasses.replace(function("recip").slope, pole=nowhere)}, "pole"),  # type: ignore[type-var]
    ("log", {"slope": dataclasses.replace(function("log").slope, pole=nowhere)}, "pole"),  # type: ignore[type-var]
    ("acosh", {"slope": dataclasses.replace(function("acosh").slope, pole=nowhere)}, "pole"),  # type: ignore[type-var]
    ("round", {"slope": dataclasses.replace(function("round").slope, pole=nowhere)}, "pole"),  # type: ignore[type-var]
    ("pos", {"jumps": False}, "jumps"),
    ("round", {"jumps": False}, "jumps"),
    ("wrap:uint8", {"jumps": False}, "jumps"),
    ("cast:bfloat16", {"jumps": False}, "jumps"),
    ("round", {"edge": np.rint}, "edge"),
    ("floor", {"edge": lambda x: np.floor(x) + 0.5}, "edge"),
    ("exp", {"edge": lambda x: 0.0}, "edge"),
    ("cos", {"parity": "odd"}, "parity"),
    ("sinh", {"parity": "even"}, "parity"),
    ("exp", {"parity": "odd"}, "parity"),
    ("tanh", {"parity": "reciprocal"}, "parity"),
    ("pow", {"commutative": True}, "order"),
    ("sqrt", {"commutative": True}, "order"),
    ("sqrt", {"rational": True}, "rational"),
    ("max", {"mask": "any"}, "mask"),
    ("min", {"mask": "all"}, "mask"),
    ("log", {"mask": "zero"}, "mask"),
    ("exp", {"mask": "any"}, "mask"),
    ("exp", {"reach": PARTIAL}, "reach"),
    ("mul", {"reach": function("add").reach}, "reach"),
    ("pow", {"reach": function("recip").reach}, "reach"),
    ("mul", {"noise": lambda value, xs, unit: None}, "noise"),
    ("exp", {"noise": lambda value, xs, unit: 0 * value}, "noise"),
]


@pytest.mark.parametrize(("name", "changes", "fault"), PLANTED, ids=[f"{n} {f}: {' '.join(c)}" for n, c, f in PLANTED])
def test_a_wrong_record_is_seen(name: str, changes: dict[str, Any], fault: str) -> None:
    try:
        assert fault in faults(dataclasses.replace(function(name), **changes))
    except TypeError:
        assert changes == {"mask": "any"}  # of one operand


def test_what_a_record_leaves_out_is_taken_at_its_worst() -> None:
    bare = Function(name="bare", arity=1, value=np.cbrt, bound=lambda a, ea: (np.cbrt(a), ea * np.inf), rounding=CORRECTLY)
    assert bare.slope is None and bare.jumps and not (bare.parity or bare.commutative or bare.rational or bare.mask)
    assert bare.reach.overflow(1.0) is True and bare.reach.underflow(1.0) is True
    assert bare.noise(np.asarray([-2.0]), [], 0.5) == [2.0]


@pytest.mark.parametrize("name", ["cbrt", "cast", "cast:float7", "wrap:float16", "saturate:", "exp:int8", "add:"])
def test_a_name_without_a_record_is_an_error_at_the_door(name: str) -> None:
    m = Algebra(Terms(RULES))
    x = np.ones(2, np.float32)
    for ew in (lambda: m.ew(name, x), lambda: m.terms.ew(name, [(m.lift(x).cls, None)], 2)):
        with pytest.raises(UnknownFunction, match=rf"an operator applies the elementwise function '{name}', which has no"):
            ew()


def cube_roots(body: str) -> Any:
    found = model(f"g (float[3] x) => (float[3] y) {{ {body.replace('Cbrt', 'com.example.Cbrt')} }}")
    found.opset_import.add(domain="com.example", version=1)
    return found


def test_an_operator_with_an_unknown_function_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TAUGHT, ("com.example", "Cbrt"), lambda m, node, x: m.ew("cbrt", x))
    pair = cube_roots("y = Cbrt(x)"), cube_roots("t = Add(x, x) y = Cbrt(t)")
    with pytest.raises(UnknownFunction, match=r"Cbrt \(node \S+\) applies the elementwise function 'cbrt', which has no record"):
        graphcheck.compare(*pair, run=False)


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("t = Neg(x) u = Cbrt(t) y = Neg(u)", "proved"),
        ("t = Add(x, x) y = Cbrt(t)", "different"),
        ("t = Abs(x) y = Cbrt(t)", "different"),
    ],
)
def test_an_operator_that_needs_a_function_as_the_page_teaches_it(
    body: str, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    (text,) = (t for kind, t in Page(ROOT / "docs/how-to/add-an-op.md").blocks if kind == "python" and "Function(" in t)
    exec(compile(text, "add-an-op.md", "exec"), names)
    monkeypatch.setitem(FUNCTIONS, "cbrt", names["CBRT"])
    monkeypatch.setitem(TRUTH, "cbrt", lambda a: mpmath.sign(a) * mpmath.cbrt(abs(a)))
    monkeypatch.setitem(TAUGHT, ("com.example", "Cbrt"), names["cbrt"])
    assert faults(names["CBRT"]) == []
    result = graphcheck.compare(cube_roots("y = Cbrt(x)"), cube_roots(body), run=False)
    assert str(result.verdict) == verdict
