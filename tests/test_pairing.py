"""Tensors of a dump are those of the model that they are said to be, by name or by value: never another one, wrong op or not."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import onnx
import pytest

from graphcheck.blaming import layouts, pairing
from graphcheck.files.model import read
from tests.zoo import nets
from tests.zoo.device_faults import FAULTS, places
from tests.zoo.devices import DEVICES, Device, Executor, Run, device

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


def inputs(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    shapes = {v.name: [d.dim_value or 2 for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def mispaired(found: pairing.Pairing, run: Run) -> list[tuple[str, str]]:
    """(the model's name, what it was paired with in truth) where that holds other numbers."""
    named = found.named(run.dump)
    assert len({each.name for each in found.pairs.values()}) == len(found.pairs)
    return [
        (name, run.names[each.name])
        for name, each in found.pairs.items()
        if run.names[each.name] != name
        and not (name in run.stored and np.array_equal(named[name], run.stored[name], equal_nan=True))
    ]


def test_exact_names() -> None:
    model = nets.net("detector")
    run = Executor(model).run(inputs(model), device("float16"))
    found = pairing.pair(read(model), run.dump)
    assert {name: each.name for name, each in found.pairs.items()} == {name: name for name in run.dump}
    assert found.unmatched == () and found.notes == ()


def renamed(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return model


@pytest.mark.parametrize("escape", ["_", "__", "-", "."])
def test_names_written_as_those_of_files(escape: str) -> None:
    model = renamed(nets.net("detector"), {"c": "/stem/conv:0", "r": "/stem/relu/0", "e": "/neck.1/conv"})
    run = Executor(model).run(inputs(model), device("float32"))
    dump = {re.sub("[^0-9A-Za-z]", escape, name).lstrip("_"): x for name, x in run.dump.items()}
    found = pairing.pair(read(model), dump, values=False)
    assert found.pairs["/stem/conv:0"].name.replace(escape, "") == "stemconv0"
    assert found.unmatched == () and len(found.pairs) == len(dump)
    assert "3 tensors of the dump were found by escaped name" in found.notes


def test_names_that_are_one_once_escaped_are_not_guessed() -> None:
    model = onnx.parser.parse_model(
        f"{HEADER} net (float[9] x) => (float[9] y) {{ a = Abs (x) b = Neg (a) y = Add (a, b) }}"
    )
    read_ = read(renamed(model, {"a": "a/0", "b": "a_0"}))
    values = {"x": np.ones(9, np.float32), "a__0": np.ones(9, np.float32)}
    assert pairing.pair(read_, values, values=False).unmatched == ("a__0",)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("net", sorted(nets.NETS))
@pytest.mark.parametrize("name", ["float32", "float16, fused", "bfloat16", "float16, every third"])
def test_lost_names(net: str, name: str, layout: str) -> None:
    model = nets.net(net)
    run = Executor(model).run(inputs(model), dataclasses.replace(device(name), named=False, layout=layout))
    found = pairing.pair(read(model), run.dump)
    assert mispaired(found, run) == []
    if net == "detector":
        assert found.unmatched == () or name == "bfloat16"
        assert any("are read as channels last" in note for note in found.notes) is (layout == "NHWC")
    assert len(found.unmatched) <= 0.25 * len(run.dump)


def test_lost_names_beside_a_wrong_op() -> None:
    """However wrong one op is, nothing is taken for anything else, and most of what is behind it is found."""
    model = nets.net("attention")
    executor = Executor(model)
    tried = 0
    for fault, (make, _) in FAULTS.items():
        for place in places(executor, fault, 2, 1):
            for on in (dataclasses.replace(device("float16"), named=False), DEVICES[-1]):
                try:
                    run = executor.run(inputs(model), on, place, make)
                except ValueError:
                    continue
                found = pairing.pair(read(model), run.dump)
                assert mispaired(found, run) == [], (fault, place, on.name)
                tried += 1
    assert tried > 40


def test_a_tensor_far_from_what_it_should_be_is_found_by_what_follows() -> None:
    text = "net (float[4,16] x) => (float[4,16] y) <float[16,16] v, float[16,16] w>"
    model = onnx.parser.parse_model(f"{HEADER} {text} {{ a = MatMul (x, v) r = Relu (a) y = MatMul (r, w) }}")
    random = np.random.default_rng(1)
    for name in ("v", "w"):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(random.standard_normal((16, 16)).astype(np.float32), name)
        )
    run = Executor(model).run(inputs(model), Device("d", "float32", named=False), "r", lambda p: [1 - p.inputs[0]])
    found = pairing.pair(read(model), run.dump)
    assert mispaired(found, run) == [] and found.unmatched == ()
    assert any("is far from what 'r' should be, and what follows was computed from it" in note for note in found.notes)


def test_what_is_left_is_told_by_elimination_and_not_judged() -> None:
    model = nets.net("detector")
    run = Executor(model).run(inputs(model), device("float32"))
    dump = {name if name == "x" else f"t{place}": x for place, (name, x) in enumerate(run.dump.items())}
    lost = next(name for name, x in dump.items() if x is run.dump["a"])
    dump[lost] = np.cos(dump[lost] * 9)
    found = pairing.pair(read(model), dump)
    assert found.unmatched == (lost,) and "a" not in found.pairs
    assert f"{lost!r} can only be 'a' by its shape, and is far from what that should be: name it so, if it is" in found.notes


def test_a_tensor_of_no_model_is_unmatched() -> None:
    """A buffer of the device's own, and one that is nearly two others."""
    text = "net (float[64] x) => (float[64] y) <float[64] b> { a = Mul (x, x) c = Add (a, b) y = Neg (c) }"
    model = onnx.parser.parse_model(f"{HEADER} {text}")
    tiny = np.full(64, 1e-4, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(tiny, "b"))
    x = inputs(model)["x"]
    between = (x * x + tiny / 2).astype(np.float32)
    found = pairing.pair(read(model), {"x": x, "own": x[::-1].copy(), "between": between})
    assert found.unmatched == ("own", "between") and list(found.pairs) == ["x"]


def test_a_shape_that_says_something_else() -> None:
    model = nets.net("detector")
    run = Executor(model).run(inputs(model), device("float32"))
    found = pairing.pair(read(model), run.dump | {"c": run.dump["c"][:, :3]})
    assert "c" in found.unmatched
    assert "'c' has the shape [2, 3, 8, 8] in the dump and [2, 6, 8, 8] in the model" in found.notes


def test_without_inputs_names_are_all_there_is() -> None:
    model = nets.net("detector")
    run = Executor(model).run(inputs(model), device("float32"))
    dump = {name: x for name, x in run.dump.items() if name != "x"} | {"lost": run.dump["low"] + 1}
    found = pairing.pair(read(model), dump)
    assert len(found.pairs) == len(run.dump) - 1 and found.unmatched == ("lost",)
    assert found.notes == ("input 'x' is not in the dump, so that tensors are paired by their names alone",)


def test_layouts_that_shapes_do_not_tell() -> None:
    """As many channels as rows and columns: what the rest of the dump says, the values confirm."""
    text = "net (float[1,8,8,8] x) => (float[1,4,8,8] y) <float[8,8,1,1] v, float[4,8,1,1] w> { a = Conv (x, v) y = Conv (a, w) }"
    model = onnx.parser.parse_model(f"{HEADER} {text}")
    random = np.random.default_rng(1)
    for name, shape in (("v", (8, 8, 1, 1)), ("w", (4, 8, 1, 1))):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        )
    run = Executor(model).run(inputs(model), Device("d", "float32", layout="NHWC"))
    found = pairing.pair(read(model), run.dump)
    assert found.pairs["a"].laid == list(layouts.readings((1, 8, 8, 8), (1, 8, 8, 8)))[1]
    assert found.pairs["a"].laid.layout == "channels last"
    assert mispaired(found, run) == [] and np.array_equal(found.named(run.dump)["a"], run.stored["a"])
