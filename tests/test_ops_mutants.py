"""Random graphs against random mutants of them: whatever has the same class, or the same residues, has the same values."""

from __future__ import annotations

import copy
import math

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from ops_support import values
from test_maps import Chain, chains

from graphcheck.errors import Undecided
from graphcheck.kernel.interpreter import Interpreter
from graphcheck.kernel.ops.algebra import Algebra, Tensor
from graphcheck.kernel.terms.rules import PLAIN, RULES
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.kernel.values.residues import Residues, draw_primes

SWAPS = [
    ["Relu", "Neg", "Tanh", "Sigmoid", "Abs", "Exp"],
    ["Add", "Mul", "Sub", "Max", "Min"],
    ["ReduceMean", "ReduceMin", "ReduceSum"],
]


def mutate(proto: onnx.ModelProto, draw: st.DrawFn) -> onnx.ModelProto:
    """One node's type, one attribute or one constant changed a little."""
    proto = copy.deepcopy(proto)
    kind = draw(st.sampled_from(["type", "attribute", "constant", "element", "ulp", "operands"]))
    if kind == "type":
        group = draw(st.sampled_from(SWAPS))
        nodes = [n for n in proto.graph.node if n.op_type in group]
        assume(nodes)
        draw(st.sampled_from(nodes)).op_type = draw(st.sampled_from(group))
    elif kind == "attribute":
        found = [(n, a) for n in proto.graph.node for a in n.attribute]
        assume(found)
        node, attribute = draw(st.sampled_from(found))
        if attribute.ints:
            order = draw(st.permutations(list(attribute.ints)))
            del attribute.ints[:]
            attribute.ints.extend(order)
        else:
            attribute.i = draw(st.integers(0, 3))
    elif kind == "operands":
        nodes = [
            n for n in proto.graph.node if len(n.input) == 2 and n.op_type in ("Add", "Mul", "Sub", "Max", "Concat")
        ]
        assume(nodes)
        node = draw(st.sampled_from(nodes))
        node.input[0], node.input[1] = node.input[1], node.input[0]
    else:
        assume(proto.graph.initializer)
        tensor = draw(st.sampled_from(list(proto.graph.initializer)))
        array = numpy_helper.to_array(tensor).copy()
        assume(array.size)
        at = draw(st.integers(0, array.size - 1))
        flat = array.reshape(-1)
        if kind == "constant":
            flat[:] = np.roll(flat, draw(st.integers(1, 3)))
        elif array.dtype.kind == "i":
            flat[at] = draw(st.integers(-2, 4))
        else:
            flat[at] = np.nextafter(flat[at], np.float32(9)) if kind == "ulp" else flat[at] + np.float32(0.5)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Chain, onnx.ModelProto, onnx.ModelProto]:
    chain = draw(chains(arithmetic=True))
    proto = chain.model()
    return chain, proto, mutate(proto, draw)


@settings(max_examples=400)
@given(pairs())
def test_the_same_class_or_residues_mean_the_same_values(case: tuple[Chain, onnx.ModelProto, onnx.ModelProto]) -> None:
    chain, first, second = case
    m = Algebra(Terms(RULES))
    size = math.prod(chain.start)
    x = Tensor(m.terms.leaf(("x",), size), chain.start, np.dtype(np.float32))
    found = []
    for proto in (first, second):
        try:
            found.append(m.lift(Interpreter(ir.from_proto(proto), m).run({"x": x}).outputs[0]))
        except Undecided:
            assume(False)
    assume(found[0].shape == found[1].shape)
    one, two = (m.terms.find(y.cls) for y in found)
    residues = evaluate(m.terms, Residues(draw_primes(5, 2), seed=5), [one, two])
    same = one == two or np.array_equal(residues[one], residues[two])
    event(f"same class {one == two}, same residues {same}")
    for seed in range(3):
        inputs = {("x",): values(chain.start, seed) * np.float32(3**seed)}
        real = evaluate(m.terms, Float64(inputs), [one, two])
        off = np.abs(real[one].value - real[two].value)
        certain = bool((off > real[one].error + real[two].error).any())
        assert not (same and certain)
        straight = [evaluate_straight(proto, inputs[("x",)]) for proto in (first, second)]
        off = np.abs(straight[0][0] - straight[1][0])
        assert not (same and bool((off > straight[0][1] + straight[1][1]).any()))


def evaluate_straight(proto: onnx.ModelProto, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and error of one model alone, without the normal form."""
    m = Algebra(Terms(PLAIN))
    leaf = Tensor(m.terms.leaf(("x",), x.size), x.shape, x.dtype)
    cls = m.lift(Interpreter(ir.from_proto(proto), m).run({"x": leaf}).outputs[0]).cls
    real = evaluate(m.terms, Float64({("x",): x}), [cls])[m.terms.find(cls)]
    return real.value, real.error
