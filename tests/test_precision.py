"""Copies in a narrower format: which are accepted under ``--allow``, and what is named in those that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from graphcheck import compare
from graphcheck.errors import UsageError
from graphcheck.kernel.proof.allowed import EDGES, FORMATS, Allowed
from graphcheck.kernel.proof.room import apart
from graphcheck.kernel.terms.rules import PUSH
from graphcheck.kernel.terms.store import Terms
from graphcheck.verdict import Comparison, Verdict

DRAWN = np.random.default_rng(5)
CONSTANTS = {
    "w": DRAWN.standard_normal((8, 16)).astype(np.float32),
    "b": DRAWN.standard_normal(16).astype(np.float32),
    "mask": np.where(np.arange(16) % 5 == 4, np.float32(-3.4e38), np.float32(0)),
    "w2": DRAWN.standard_normal((16, 8)).astype(np.float32),
    "epsilon": np.asarray(1e-5, np.float32),
    "scale": DRAWN.standard_normal(8).astype(np.float32),
}
ACCEPTED = (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)
TYPES = {"float": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
HALVES = ("float16", "bfloat16")  # test_float8_copies.py has the others
Constants = dict[str, np.ndarray]


def network(constants: Constants, dtype: str = "float", io: str = "", axis: int = -1) -> onnx.ModelProto:
    """Attention over constants, then a normalization by hand, all in ``dtype`` behind casts from and to ``io``."""
    io = io or dtype
    inner, outer = ("x", "y") if io == dtype else ("x_", "y_")
    nodes = [
        helper.make_node("MatMul", [inner, "w"], ["h"], "product"),
        helper.make_node("Add", ["h", "b"], ["hb"], "bias"),
        helper.make_node("Add", ["hb", "mask"], ["m"], "masked"),
        helper.make_node("Softmax", ["m"], ["s"], "softmax", axis=axis),
        helper.make_node("MatMul", ["s", "w2"], ["v"], "values"),
        helper.make_node("Mul", ["v", "v"], ["vv"], "square"),
        helper.make_node("ReduceMean", ["vv"], ["mean"], "mean", axes=[-1]),
        helper.make_node("Add", ["mean", "epsilon"], ["e"], "add_epsilon"),
        helper.make_node("Sqrt", ["e"], ["root"], "root"),
        helper.make_node("Div", ["v", "root"], ["n"], "normalized"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Mul", ["r", "scale"], [outer], "scaled"),
    ]
    if io != dtype:
        nodes.insert(0, helper.make_node("Cast", ["x"], [inner], "cast_in", to=TYPES[dtype]))
        nodes.append(helper.make_node("Cast", [outer], ["y"], "cast_out", to=TYPES[io]))
    ports = [helper.make_tensor_value_info(name, TYPES[io], ["N", 8]) for name in "xy"]
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "network", ports[:1], ports[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def copied(dtype: str, constants: Constants = CONSTANTS) -> Constants:
    """As converters write a copy: cut to the largest number, to nearest even."""
    most = EDGES[dtype][0]
    return {name: np.clip(array, -most, most).astype(FORMATS[dtype]) for name, array in constants.items()}


def compared(b: onnx.ModelProto, *allow: str) -> Comparison:
    return compare(network(CONSTANTS), b, allow=allow, run=False)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("io", ["float", ""])
def test_a_right_copy_is_accepted_and_only_where_it_is_allowed(dtype: str, io: str) -> None:
    copy = network(copied(dtype), dtype, io)
    found = compared(copy, dtype)
    assert found.verdict is Verdict.WITHIN_ROUNDING, found.reason
    assert found.evidence["precision"]["constants"] == len(CONSTANTS)
    assert found.evidence["precision"]["cut"] == 3
    other = next(name for name in HALVES if name != dtype)
    assert compared(copy, other).verdict not in ACCEPTED
    without = compared(copy)
    assert without.verdict not in ACCEPTED
    assert io != "float" or f"the same function but for {dtype}: --allow {dtype} accepts that" in without.reason


def next_number(array: np.ndarray, at: tuple[int, ...]) -> np.ndarray:
    """One element by one ulp of the format."""
    bits = array.copy().view(np.uint16)
    bits[at] += 1
    return bits.view(array.dtype)


SPOILT: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "one ulp of one weight": ("w", lambda a: next_number(a, (3, 4))),
    "one ulp of the bias": ("b", lambda a: next_number(a, (7,))),
    "two columns swapped": ("w", lambda a: a[:, [1, 0, *range(2, 16)]]),
    "another order of inputs": ("w2", lambda a: a[::-1].copy()),
    "a scale doubled": ("scale", lambda a: a * np.asarray([1, 1, 2, 1, 1, 1, 1, 1], a.dtype)),
    "a sign": ("w2", lambda a: a * np.where(np.arange(8) == 3, -1, 1).astype(a.dtype)),
    "half a mask": ("mask", lambda a: np.where(np.arange(16) == 4, np.zeros(1, a.dtype), a)),
    "another epsilon": ("epsilon", lambda a: a * np.asarray(2, a.dtype)),
}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_copy_is_not_and_its_constant_is_named(dtype: str, kind: str) -> None:
    name, spoil = SPOILT[kind]
    constants = copied(dtype)
    found = compared(network({**constants, name: spoil(constants[name])}, dtype, "float"), dtype)
    assert found.verdict not in ACCEPTED, found.reason
    off = [row["b"] for row in found.evidence["precision"]["off"]]
    assert off == [name]
    assert f"not rounded so: '{off[0]}'" in found.reason


@pytest.mark.parametrize("name", ["b", "mask", "epsilon", "scale"])
def test_a_copy_without_a_constant_is_not_accepted(name: str) -> None:
    constants = copied("float16")
    found = compared(network({**constants, name: constants[name] * np.float16(0)}, "float16", "float"), "float16")
    assert found.verdict not in ACCEPTED
    assert found.evidence["precision"]["off"] or found.evidence["divergence"]


def test_another_structure_is_no_copy() -> None:
    found = compared(network(copied("float16"), "float16", "float", axis=0), "float16")
    assert found.verdict is Verdict.DIFFERENT


def test_a_constant_of_which_nothing_is_left_is_named() -> None:
    tiny, nothing = np.asarray([1e-9, 2e-9]), np.zeros(2)
    told = Allowed(("float16",)).told(tiny, nothing, (nothing, nothing), added=False)
    assert told.why == "nothing of it is left in float16" and told.at == 1
    told = Allowed(("float16",)).told(tiny, np.asarray([0.0, 2.0**-24]), (nothing, nothing), added=False)
    assert told.within and told.lifted == 2


@pytest.mark.parametrize(("x", "y"), [(8e-8, 1), (2e-9, 1), (-6e-8, -1)])
def test_what_onnxconverter_common_lifts_is_accepted_and_counted(x: float, y: float) -> None:
    nothing = np.zeros(2)
    halves = [
        Allowed((name,)).told(np.array([x, 1.0]), np.array([y * 2.0**-23, 1.0]), (nothing, nothing), added=False)
        for name in HALVES
    ]
    assert halves[0].within and halves[0].lifted == 1
    assert not halves[1].within  # bfloat16 has numbers of that size


@pytest.mark.parametrize(("x", "y"), [(1.01e-7, 3), (-6e-8, 1), (0.0, 1), (9e-8, 3), (2e-9, -1), (9e-8, 0)])
def test_another_number_of_that_size_is_named(x: float, y: float) -> None:
    nothing = np.zeros(2)
    told = Allowed(("float16",)).told(np.array([x, 1.0]), np.array([y * 2.0**-23, 1.0]), (nothing, nothing), added=False)
    assert not told.within and told.at == 0


@pytest.mark.parametrize("allowed", [Allowed(), Allowed(ulps=9999), Allowed(tuple(FORMATS), 4)])
def test_an_error_without_a_bound_explains_nothing(allowed: Allowed) -> None:
    x, y, none = np.array([1.0, 2.0]), np.array([5.0, 2.0]), np.zeros(2)
    for errors in ((np.array([np.inf, 0.0]), none), (none, np.array([np.nan, 0.0]))):
        told = allowed.told(x, y, errors, added=False)
        assert not told.within and told.needs == np.inf
    terms = Terms(PUSH)
    a, b, c, stored = (terms.const(np.array(v, np.float32)) for v in ([1.1, 3], [0.9090909, 1.25], [-1, 1.5], [123, 1 / 5.25]))
    near_0 = terms.ew("add", [(terms.ew("mul", [(a, None), (b, None)], 2), None), (c, None)], 2)
    found = apart(terms, terms.ew("recip", [(near_0, None)], 2), stored, allowed=allowed)
    assert not found["within"] and found["needs"] == np.inf


def steering(dtype: str, behind: str) -> onnx.ModelProto:
    """A choice behind a rounding: ArgMax, a comparison, a whole number."""
    bodies = {
        "ArgMax": "h = ArgMax <axis = 1> (m) y = Cast <to = 1> (h)",
        "Greater": "g = Greater (m, c) h = Where (g, c, d) y = Cast <to = 1> (h)",
        "Cast": "h = Cast <to = 7> (m) y = Cast <to = 1> (h)",
        "Relu": "h = Relu (m) y = Cast <to = 1> (h)",
    }
    to = TYPES[dtype]
    return onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,n] y)
        <float one = {{1.5}}, float two = {{2.5}}> {{
        m = Cast <to = {to}> (x) c = Cast <to = {to}> (one) d = Cast <to = {to}> (two) {bodies[behind]} }}"""
    )


@pytest.mark.parametrize("behind", ["ArgMax", "Greater", "Cast"])
def test_a_step_behind_a_rounding_is_not_forgiven(behind: str) -> None:
    found = compare(steering("float", behind), steering("float16", behind), allow=["float16"], run=False)
    assert found.verdict not in ACCEPTED, found.reason
    assert found.verdict is Verdict.DIFFERENT or "reaches" in found.reason
    relu = compare(steering("float", "Relu"), steering("float16", "Relu"), allow=["float16"], run=False)
    assert relu.verdict is Verdict.WITHIN_ROUNDING


def test_a_threshold_in_another_format_is_not_forgiven() -> None:
    def model(threshold: float) -> onnx.ModelProto:
        return onnx.parser.parse_model(
            f"""<ir_version: 10, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) <float t = {{{threshold!r}}},
            float one = {{1.0}}, float two = {{2.0}}> {{ c = Greater (x, t) y = Where (c, one, two) }}"""
        )

    found = compare(model(0.1), model(float(np.float16(0.1))), allow=["float16"], run=False)
    assert found.verdict not in ACCEPTED, found.reason


def folded(ulps: int) -> Iterator[onnx.ModelProto]:
    """Weights so many ulps apart, and a bias that is off by as many of its largest element, in its smallest."""
    weight, bias = CONSTANTS["w"], CONSTANTS["b"] * np.float32(1)
    bias[3] = 1e-3
    for times in (0, ulps):
        moved = bias.copy()
        moved[3] += np.float32(times * np.spacing(np.abs(bias).max()))
        bits = (weight.view(np.int32) + times).view(np.float32)
        yield network({**CONSTANTS, "w": bits, "b": moved})


def test_folded_constants_within_ulps() -> None:
    for ulps, allowed, accepted in ((4, 4, True), (4, 3, False), (5, 4, False), (3, 4, True)):
        found = compare(*folded(ulps), allow=[f"ulps={allowed}"], run=False)
        assert (found.verdict is Verdict.WITHIN_ROUNDING) == accepted, found.reason
    a, b = ({**CONSTANTS, "b": np.array([1e6, x, *[1.0] * 14], np.float32)} for x in (0.0, 0.2))
    assert compare(network(a), network(b), allow=["ulps=4"], run=False).verdict not in ACCEPTED  # it is no rounding
    assert "--allow ulps=4 accepts that" in compare(*folded(4), run=False).reason
    assert "--allow" not in compare(*folded(400), run=False).reason


@pytest.mark.parametrize("text", ["float17", "ulps=0", "ulps=", "ulps=4.5", "int7", "steps=1", "int8,steps=0"])
def test_what_is_no_rounding_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"allow (takes float16, .*, ulps=N .* or steps=N|steps=1 goes with)"):
        compare(network(CONSTANTS), network(CONSTANTS), allow=text.split(","))


numbers = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=6)


@given(numbers, st.sampled_from(sorted(FORMATS)), st.integers(0, 5), st.sampled_from([-1, 1]))
def test_a_rounding_is_told_bit_for_bit(values: list[float], name: str, at: int, step: int) -> None:
    exact = np.asarray(values, np.float64)
    most, least = EDGES[name]
    with np.errstate(all="ignore"):
        stored = np.clip(exact, -most, most).astype(np.float32).astype(FORMATS[name])
    near, nothing = stored.astype(np.float64), np.zeros(len(values))
    told = Allowed((name,)).told(exact, near, (nothing, nothing), added=False)
    assert told.within == (bool(near.any()) or not exact.any())
    at %= len(values)
    other = stored.copy()
    other[at] = np.nextafter(stored[at], np.asarray(step * most, stored.dtype))
    moved = other.astype(np.float64)
    if np.abs(exact[at]) > 2 * least and moved[at] != near[at]:
        told = Allowed((name,)).told(exact, moved, (nothing, nothing), added=False)
        assert told.why and (told.at == at or not moved.any())


def test_the_edges_are_those_of_the_formats() -> None:
    for name, dtype in FORMATS.items():
        info = ml_dtypes.finfo(dtype)
        assert EDGES[name] == (float(info.max), float(info.smallest_subnormal))


def embedding(dtype: str, index: str = "ids", table: np.ndarray | None = None) -> onnx.ModelProto:
    """A table gathered by ids (of the input, or computed behind a rounding), joined to two constants, and a product."""
    stored = {
        "table": DRAWN_TABLE if table is None else table,
        "first": CONSTANTS["w"][:1],
        "second": CONSTANTS["w"][1:2],
        "w": CONSTANTS["w2"],
    }
    to = TYPES[dtype]
    computed = f"near = Cast <to = {to}> (x) computed = Cast <to = 7> (near)"
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 17]> g (int64[5] ids, float[5] x) => (float[n,m] y) {{
        {computed if index == "computed" else ""}
        e = Gather <axis = 0> (table, {index}) j = Concat <axis = 0> (first, e, second)
        p = MatMul (j, w) y = Cast <to = 1> (p) }}"""
    )
    for name, array in stored.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(FORMATS.get(dtype, np.float32)), name))
    return model


DRAWN_TABLE = DRAWN.standard_normal((12, 16)).astype(np.float32)


def test_a_table_and_constants_that_are_joined_have_their_partners() -> None:
    found = compare(embedding("float"), embedding("float16"), allow=["float16"], run=False)
    assert found.verdict is Verdict.WITHIN_ROUNDING and found.evidence["precision"]["constants"] == 4
    wrong = DRAWN_TABLE.astype(np.float16)
    wrong[2, 2] = np.nextafter(wrong[2, 2], np.float16(9))
    found = compare(embedding("float"), embedding("float16", table=wrong), allow=["float16"], run=False)
    assert found.verdict is Verdict.UNDECIDED
    assert [(row["b"], row["index"]) for row in found.evidence["precision"]["off"]] == [("table", [2, 2])]


def test_a_narrower_copy_is_not_forgiven_unasked() -> None:
    found = compare(embedding("float"), embedding("float16"), run=False)
    assert found.verdict is Verdict.UNDECIDED and "--allow float16 accepts that" in found.reason


@pytest.mark.parametrize(("last", "told"), [("Cos(c)", True), ("Sin(c)", False)])
def test_what_a_runtime_computes_in_float32_of_a_float16_model_is_told(last: str, told: bool) -> None:
    """onnxruntime's optimized file of a float16 model, for a processor without float16: casts to float32, one back at the end."""
    head = '<ir_version: 10, opset_import: ["" : 17]> g (float16[2,8] x) => (float16[2,8] y)'
    a = onnx.parser.parse_model(f"{head} {{ i = Cast<to = 7>(x) h = Cast<to = 10>(i) c = MatMul(h, w) y = Cos(c) }}")
    b = onnx.parser.parse_model(
        f"{head} {{ v = Cast<to = 1>(w) i = Cast<to = 7>(x) h = Cast<to = 10>(i) f = Cast<to = 1>(h) c = MatMul(f, v) s = {last} "
        "y = Cast<to = 10>(s) }"
    )
    for model in (a, b):
        model.graph.initializer.append(numpy_helper.from_array(CONSTANTS["w"][:, :8].astype(np.float16), "w"))
    without, allowed = (compare(a, b, run=False, allow=allow) for allow in ((), ("float16",)))
    assert without.verdict not in ACCEPTED, without.reason
    assert ("the same function but for float16: --allow float16 accepts that" in without.reason) is told
    assert (allowed.verdict is Verdict.WITHIN_ROUNDING) is told, allowed.reason


def test_ids_behind_a_rounding_are_not_forgiven() -> None:
    found = compare(embedding("float", "computed"), embedding("float16", "computed"), allow=["float16"], run=False)
    assert found.verdict not in ACCEPTED, found.reason


def test_float16_inputs_of_a_size_that_has_to_be_found() -> None:
    def model(dtype: str, factor: float) -> onnx.ModelProto:
        found = onnx.parser.parse_model(
            f"""<ir_version: 10, opset_import: ["" : 17]> g ({dtype}[2,n] x) => ({dtype}[2,q] y) <int64[2] to = {{6, 16}}> {{
            r = Reshape (x, to) y = MatMul (r, w) }}"""
        )
        weight = (CONSTANTS["w2"] * np.float32(factor)).astype(FORMATS.get(dtype, np.float32))
        found.graph.initializer.append(numpy_helper.from_array(weight, "w"))
        return found

    found = compare(model("float", 1.0), model("float16", 1.0), allow=["float16"], run=False)
    assert found.verdict is Verdict.WITHIN_ROUNDING, found.reason
    found = compare(model("float", 1.0), model("float16", 2.0), allow=["float16"], run=False)
    assert found.verdict is Verdict.UNDECIDED and "'w' at [0, 0]" in found.reason


@pytest.mark.parametrize(("ulps", "accepted"), [(0, True), (1, False)])
def test_an_epsilon_that_both_have_elsewhere_faces_its_rounding(ulps: int, accepted: bool) -> None:
    """A LayerNormalization keeps its epsilon in float32, and so both graphs have the number that one of them rounds."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x) => (float[N,8] y) {{
        n = LayerNormalization <epsilon = 1e-6> (x, scale) a = Abs (n) m = ReduceMean <axes = [-1]> (a) {0} y = Div (n, d) }}"""

    def made(body: str, epsilon: np.ndarray) -> onnx.ModelProto:
        model = onnx.parser.parse_model(text.format(body))
        stored = {"scale": CONSTANTS["scale"], "e": epsilon}
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
        return model

    epsilon = np.asarray(1e-6, np.float32)
    half = epsilon.astype(np.float16)
    for _ in range(ulps):
        half = np.nextafter(half, np.float16(1))
    copy = made("f = Cast <to = 1> (e) d = Add (m, f)", half)
    found = compare(made("d = Add (m, e)", epsilon), copy, allow=["float16"], run=False, graphs=False)
    assert (found.verdict in ACCEPTED) is accepted, found.reason
