"""Small files that ask for far more memory or time than any machine has: name -> ONNX text of the graph."""

# ruff: noqa: E501  (a graph a line)
from __future__ import annotations

import numpy as np
import onnx
import onnx.parser

_HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
_TRILLION = "int64[3] s = {10000, 10000, 10000}"

# The constants become one element again and are added to the input, so that the model's interface is an ordinary one.
_FOLDED = {
    "ConstantOfShape": "t = ConstantOfShape(s)",
    "Expand": "t = Expand(one, s)",
    "Tile": "k = Expand(one, ones) t = Tile(k, s)",
    "Range": "n = Constant<value = int64 {1000000000000}>() z = Constant<value = int64 {0}>() "
    "d = Constant<value = int64 {1}>() g = Range(z, n, d) t = Cast<to = 1>(g)",
    "Pad": "p = Constant<value = int64[2] {0, 1000000000000}>() t = Pad(one1, p)",
    "OneHot": "n = Constant<value = int64 {1000000000000}>() i = Constant<value = int64[1] {3}>() "
    "v = Constant<value = float[2] {0, 1}>() t = OneHot(i, n, v)",
    "EyeLike": "q = Constant<value = int64[2] {1000000, 1000000}>() c = ConstantOfShape(q) t = EyeLike<dtype = 1>(c)",
    "Resize": "k = Expand(one, ones) e = Constant<value = float[0] {}>() f = Constant<value = float[3] {1e4, 1e4, 1e4}>() "
    "t = Resize(k, e, f)",
    "Einsum": "v = ConstantOfShape(m) t = Einsum<equation = \"i,j,k->ijk\">(v, v, v)",
    "outer MatMul": "a = ConstantOfShape(mc) b = ConstantOfShape(mr) t = MatMul(a, b)",
    "outer Add": "a = ConstantOfShape(mc) b = ConstantOfShape(mr) t = Add(a, b)",
    "Gather": "q = Constant<value = int64[2] {1000, 1000}>() a = ConstantOfShape(m) i = ConstantOfShape<value = int64[1] {0}>(q) "
    "b = Gather(a, i) j = ConstantOfShape<value = int64[1] {0}>(q) c = Gather(b, j) t = Gather(c, j)",
    "HannWindow": "n = Constant<value = int64 {1000000000000}>() t = HannWindow(n)",
}  # fmt: skip

_COMPUTED = {
    "Expand of the input": "y = Expand(x, s)",
    "Tile of the input": "k = Expand(x, ones) y = Tile(k, s)",
    "Pad of the input": "p = Constant<value = int64[2] {0, 1000000000000}>() y = Pad(x, p)",
    "Resize of the input": "k = Expand(x, ones) e = Constant<value = float[0] {}>() "
    "r = Constant<value = float[3] {1e4, 1e4, 1e4}>() y = Resize(k, e, r)",
    "Add of the input in two directions": "p = Constant<value = int64[2] {1000000, 1}>() "
    "q = Constant<value = int64[2] {1, 1000000}>() a = Expand(x, p) b = Expand(x, q) y = Add(a, b)",
    "outer MatMul of the input": "p = Constant<value = int64[2] {1000000, 1}>() "
    "q = Constant<value = int64[2] {1, 1000000}>() a = Expand(x, p) b = Expand(x, q) y = MatMul(a, b)",
    "Einsum of the input": 'a = Expand(x, m) y = Einsum<equation = "i,j,k->ijk">(a, a, a)',
    "Conv with huge pads": "k = Expand(x, four) w = Expand(one, four) "
    "y = Conv<pads = [1000000, 1000000, 1000000, 1000000], kernel_shape = [1, 1]>(k, w)",
    "MaxPool with huge pads": "k = Expand(x, four) y = MaxPool<kernel_shape = [2000001, 2000001], "
    "pads = [1000000, 1000000, 1000000, 1000000]>(k)",
    "ConvTranspose with huge strides": "k = Expand(x, big) w = Expand(one, four) y = ConvTranspose<strides = [100000, 100000]>(k, w)",
    "DepthToSpace": "y = DepthToSpace<blocksize = 1000000>(x)",
}


def _text(body: str, made: str = "") -> str:
    inits = (
        f"{_TRILLION}, int64[3] ones = {{1, 1, 1}}, int64[4] four = {{1, 1, 1, 1}}, int64[4] big = {{1, 1, 100, 100}}, "
        "int64[1] m = {1000000}, int64[2] mc = {1000000, 1}, int64[2] mr = {1, 1000000}, float one = {1}, float[1] one1 = {1}"
    )
    return f"{_HEAD} g (float[1] x) => (float[N] y) <{inits}> {{ {body} {made} }}"


_STEPS = {
    "Loop without end": (
        "y = Loop(,c, x) <body = b (int64 i, bool d, float[1] v) => (bool e, float[1] w) { e = Identity(d) w = Cos(v) }>"
    ),
    "Loop of a billion trips": (
        "y = Loop(n, c, x) <body = b (int64 i, bool d, float[1] v) => (bool e, float[1] w) { e = Identity(d) w = Cos(v) }>"
    ),
    "nested Loops": (
        "y = Loop(k, c, x) <body = b (int64 i, bool d, float[1] v) => (bool e, float[1] w) { e = Identity(d) "
        "w = Loop(k, d, v) <body = b2 (int64 i2, bool d2, float[1] v2) => (bool e2, float[1] w2) { e2 = Identity(d2) "
        "w2 = Loop(k, d2, v2) <body = b3 (int64 i3, bool d3, float[1] v3) => (bool e3, float[1] w3) "
        "{ e3 = Identity(d3) w3 = Cos(v3) }> }> }>"
    ),
    "Loop that doubles": (
        "y = Loop(k, c, x) <body = b (int64 i, bool d, float[A] v) => (bool e, float[B] w) "
        "{ e = Identity(d) w = Concat<axis = 0>(v, v) }>"
    ),
    "Loop on constants that doubles": (
        "z = Loop(k, c, one) <body = b (int64 i, bool d, float[A] v) => (bool e, float[B] w) "
        "{ e = Identity(d) w = Concat<axis = 0>(v, v) }> r = ReduceSum(z) y = Add(x, r)"
    ),
    "Loop on constants without end": (
        "z = Loop(, c, one) <body = b (int64 i, bool d, float[1] v) => (bool e, float[1] w) "
        "{ e = Identity(d) w = Cos(v) }> y = Add(x, z)"
    ),
    "Loop that gathers": (
        "z, q = Loop(n, c, one) <body = b (int64 i, bool d, float[1] v) => (bool e, float[1] w, float[1000000] u) "
        "{ e = Identity(d) w = Cos(v) m = Constant<value_ints = [1000000]>() u = Expand(v, m) }> y = Add(x, z)"
    ),
}  # fmt: skip


def _steps(body: str) -> str:
    inits = "int64 n = {1000000000}, int64 k = {9000}, bool c = {1}, float[1] one = {1}"
    return f"{_HEAD} g (float[1] x) => (float[N] y) <{inits}> {{ {body} }}"


def _doubling(op: str, count: int, *, computed: bool) -> str:
    first = "x" if computed else "one1"
    nodes = " ".join(f"t{i} = {op.format(p=f't{i - 1}' if i else first)}" for i in range(count))
    end = f"y = Neg(t{count - 1})" if computed else f"r = ReduceSum(t{count - 1}) y = Add(x, r)"
    return _text(nodes, end)


_CONCAT = "Concat<axis = 0>({p}, {p})"
# Each makes another 2**26 elements; none is too large by itself.
_MANY = " ".join(
    f"k{i} = Constant<value_ints = [{8192 + i}, 8192]>() c{i} = ConstantOfShape(k{i}) e{i} = Exp(c{i}) r{i} = ReduceMax<keepdims = 0>(e{i})"
    for i in range(200)
)


def texts() -> dict[str, str]:
    """Every bomb by name."""
    found = {
        f"folded {name}": _text(body, "r = ReduceSum<keepdims = 0>(t) y = Add(x, r)") for name, body in _FOLDED.items()
    }
    found |= {f"computed {name}": _text(body) for name, body in _COMPUTED.items()}
    found |= {name: _steps(body) for name, body in _STEPS.items()}
    found["chain that doubles, computed"] = _doubling(_CONCAT, 60, computed=True)
    found["chain that doubles, folded"] = _doubling(_CONCAT, 60, computed=False)
    found["expression that doubles"] = _doubling("Mul({p}, {p})", 200, computed=True)
    found["sum that doubles"] = _doubling("Add({p}, {p})", 5000, computed=True)
    found["many large constants"] = _text(
        _MANY, "y = Add(x, " + "r0) " + " ".join(f"y{i} = Add(x, r{i})" for i in range(1, 200))
    )
    found["huge input"] = f"{_HEAD} g (float[4611686018427387904] x) => (float[N] y) {{ y = Relu(x) }}"
    found["large input"] = f"{_HEAD} g (float[1000000, 1000000] x) => (float[N, M] y) {{ y = Relu(x) }}"
    found["quite large input"] = f"{_HEAD} g (float[50000, 20000] x) => (float[N, M] y) {{ y = Relu(x) }}"
    return found


def build(name: str) -> bytes:
    """The file of a bomb."""
    model = onnx.parser.parse_model(texts()[name])
    return bytes(model.SerializeToString())


def claiming(elements: int) -> bytes:
    """An initializer that says it has so many elements, and holds 16 bytes."""
    model = onnx.parser.parse_model(f"{_HEAD} g (float[1] x) => (float[1] y) <float w = {{1}}> {{ y = Add(x, w) }}")
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(4, np.float32), "w"))
    tensor.dims[:] = [elements]
    return bytes(model.SerializeToString())
