"""Broken and odd model files, as bytes: name -> how to make it."""

# ruff: noqa: E501  (a graph a line)
from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

_HEAD = '<ir_version: 10, opset_import: ["" : 21]>'


def good() -> onnx.ModelProto:
    """A small sound model: a strided Conv and a MatMul."""
    model = onnx.parser.parse_model(
        f"{_HEAD} g (float[N,3,8,8] x) => (float[N,4,5] y) {{ c = Conv<strides = [4, 4], kernel_shape = [4, 4]>(x, w, b) "
        "r = Reshape(c, s) t = Transpose<perm = [0, 2, 1]>(r) y = MatMul(t, m) }"
    )
    draw = np.random.default_rng(1).normal
    arrays = {
        "w": draw(size=(6, 3, 4, 4)).astype(np.float32),
        "b": draw(size=6).astype(np.float32),
        "s": np.array([0, 6, 4]),
        "m": draw(size=(6, 5)).astype(np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def _text(body: str, head: str = _HEAD) -> onnx.ModelProto:
    return onnx.parser.parse_model(f"{head} {body}")


def _edited(edit: Callable[[onnx.ModelProto], object]) -> Callable[[], bytes]:
    def make() -> bytes:
        model = good()
        edit(model)
        return bytes(model.SerializeToString())

    return make


def _of(body: str, head: str = _HEAD) -> Callable[[], bytes]:
    return lambda: bytes(_text(body, head).SerializeToString())


def _weight(model: onnx.ModelProto, name: str = "w") -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


def _fill(value: float) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        tensor = _weight(model)
        array = numpy_helper.to_array(tensor).copy()
        array[0, 0, 0, 0] = value
        tensor.CopyFrom(numpy_helper.from_array(array, "w"))

    return edit


def _rename(old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.name = node.name or f"{new} node"
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    names[i] = new if name == old else name
        for named in (*model.graph.input, *model.graph.output, *model.graph.initializer):
            named.name = new if named.name == old else named.name

    return edit


def field(number: int, content: bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    size, head = len(content), bytearray([number << 3 | 2])
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes(head) + bytes([size]) + content


def _nested(depth: int) -> bytes:
    """If within If, written as bytes: protobuf itself would refuse to build the deep ones."""
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["o"])], "b", [], [helper.make_tensor_value_info("o", 1, [1])]
    ).SerializeToString()
    for level in range(depth):
        leaf = helper.make_graph(
            [helper.make_node("Neg", ["x"], [f"q{level}"])],
            "b",
            [],
            [helper.make_tensor_value_info(f"q{level}", 1, [1])],
        )
        node = helper.make_node("If", ["c"], [f"p{level}"], else_branch=leaf).SerializeToString()
        branch = onnx.AttributeProto(name="then_branch", type=5).SerializeToString() + field(6, graph)
        outer = helper.make_graph([], "b", [], [helper.make_tensor_value_info(f"p{level}", 1, [1])])
        graph = outer.SerializeToString() + field(1, node + field(5, branch))
    inputs = [helper.make_tensor_value_info("x", 1, [1]), helper.make_tensor_value_info("c", 9, [])]
    graph += b"".join(field(11, i.SerializeToString()) for i in inputs)
    head = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)]).SerializeToString()
    return head + field(7, graph)


def _functions(*calls: tuple[str, str]) -> bytes:
    """Model-local functions, each (name, what it calls)."""
    model = _text(
        f"g (float[1] x) => (float[1] y) {{ y = f.{calls[0][0]}(x) }}",
        '<ir_version: 10, opset_import: ["" : 21, "f" : 1]>',
    )
    for name, callee in calls:
        domain = "" if callee == "Neg" else "f"
        function = helper.make_function(
            "f", name, ["a"], ["b"], [helper.make_node(callee, ["a"], ["b"], domain=domain)],
            [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)],
        )  # fmt: skip
        model.functions.append(function)
    return bytes(model.SerializeToString())


def _doubling_functions(depth: int) -> bytes:
    """f0 calls f1 twice, f1 calls f2 twice ...: 2**depth nodes once expanded."""
    model = _text(
        "g (float[1] x) => (float[1] y) { y = f.f0(x) }", '<ir_version: 10, opset_import: ["" : 21, "f" : 1]>'
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    for i in range(depth):
        callee, domain = (f"f{i + 1}", "f") if i < depth - 1 else ("Cos", "")
        nodes = [
            helper.make_node(callee, ["a"], ["t"], domain=domain),
            helper.make_node(callee, ["t"], ["b"], domain=domain),
        ]
        model.functions.append(helper.make_function("f", f"f{i}", ["a"], ["b"], nodes, opsets))
    return bytes(model.SerializeToString())


def _raw_dims(model: onnx.ModelProto, dims: list[int], name: str = "w") -> None:
    _weight(model, name).dims[:] = dims


def _input_dims(model: onnx.ModelProto, dims: list[int]) -> None:
    shape = model.graph.input[0].type.tensor_type.shape
    del shape.dim[:]
    for size in dims:
        shape.dim.add().dim_value = size


def _typed(kind: int) -> Callable[[], bytes]:
    name = TensorProto.DataType.Name(kind).lower()

    def make() -> bytes:
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Cast", ["w"], ["z"], to=1)], f"g{name}",
            [helper.make_tensor_value_info("x", kind, [2, 3])],
            [helper.make_tensor_value_info("y", kind, [2, 3]), helper.make_tensor_value_info("z", 1, [2])],
            [helper.make_tensor("w", kind, [2], [b"a", b"b"] if kind == TensorProto.STRING else [1, 0])],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
        return bytes(model.SerializeToString())

    return make


def _sparse() -> bytes:
    model = good()
    values = numpy_helper.from_array(np.ones(2, np.float32), "sp")
    indices = numpy_helper.from_array(np.array([1, 3]), "si")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**6, 10**6]))
    model.graph.node.append(helper.make_node("Identity", ["sp"], ["dead"]))
    return bytes(model.SerializeToString())


def _sparse_constant() -> bytes:
    values = numpy_helper.from_array(np.ones(2, np.float32), "v")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 3]), "i"), [10**6, 10**6])
    graph = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], sparse_value=sparse), helper.make_node("Add", ["x", "c"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 1, [1])], [helper.make_tensor_value_info("y", 1, None)],
    )  # fmt: skip
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString())


def _cut(part: float) -> bytes:
    data = good().SerializeToString()
    return bytes(data[: int(len(data) * part)])


ESCAPE = "\x1b]0;owned\x07\x1b[2J\x1b[31m\n\r\u202eevil"

BROKEN: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "one byte": lambda: b"\x08",
    "random bytes": lambda: random.Random(3).randbytes(4096),
    "zeros": lambda: bytes(4096),
    "ones": lambda: b"\xff" * 4096,
    "text": lambda: b"<html>404 not found</html>\n" * 40,
    "git lfs pointer": lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12345\n",
    "zip": lambda: b"PK\x03\x04" + random.Random(4).randbytes(500),
    **{f"cut at {part:.0%}": (lambda part=part: _cut(part)) for part in (0.01, 0.1, 0.3, 0.5, 0.9, 0.99)},
    "tensor proto": lambda: bytes(numpy_helper.from_array(np.ones((50, 50), np.float32), "t").SerializeToString()),
    "graph proto": lambda: bytes(good().graph.SerializeToString()),
    "no graph": lambda: bytes(onnx.ModelProto(ir_version=8).SerializeToString()),
    "no opset": _edited(lambda m: m.ClearField("opset_import")),
    "no ir_version": _edited(lambda m: m.ClearField("ir_version")),
    "ir_version 10**9": _edited(lambda m: setattr(m, "ir_version", 10**9)),
    "ir_version -1": _edited(lambda m: setattr(m, "ir_version", -1)),
    "opset 1": _edited(lambda m: setattr(m.opset_import[0], "version", 1)),
    "opset 6": _of("g (float[1] x) => (float[1] y) { y = Relu(x) }", '<ir_version: 3, opset_import: ["" : 6]>'),
    "opset 99": _edited(lambda m: setattr(m.opset_import[0], "version", 99)),
    "opset -1": _edited(lambda m: setattr(m.opset_import[0], "version", -1)),
    "opset 2**62": _edited(lambda m: setattr(m.opset_import[0], "version", 2**62)),
    "opset twice": _edited(lambda m: m.opset_import.append(helper.make_opsetid("", 13))),
    "no outputs": _edited(lambda m: m.graph.ClearField("output")),
    "no nodes": _edited(lambda m: m.graph.ClearField("node")),
    "no inputs": _of("g () => (float[2] y) { y = Constant<value = float[2] {1, 2}>() }"),
    "unnamed graph": _edited(lambda m: m.graph.ClearField("name")),
    "unnamed output": _edited(lambda m: setattr(m.graph.output[0], "name", "")),
    "unnamed input": _edited(lambda m: setattr(m.graph.input[0], "name", "")),
    "output is the input": _of("g (float[2] x) => (float[2] x) { }"),
    "output is an initializer": _of("g (float[2] x) => (float[2] w) <float[2] w = {1, 2}> { y = Add(x, w) }"),
    "output twice": _edited(lambda m: m.graph.output.append(m.graph.output[0])),
    "input twice": _edited(lambda m: m.graph.input.append(m.graph.input[0])),
    "initializer twice": _edited(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
    "initializer without name": _edited(lambda m: setattr(_weight(m), "name", "")),
    "initializer missing": _edited(lambda m: m.graph.initializer.pop(0)),
    "initializer is an input": _edited(lambda m: m.graph.input.append(helper.make_tensor_value_info("w", 1, [6, 3, 4, 4]))),
    "initializer is an input of another shape": _edited(
        lambda m: m.graph.input.append(helper.make_tensor_value_info("w", 1, [7, 3, 4, 4]))
    ),
    "initializer is an input of another type": _edited(
        lambda m: m.graph.input.append(helper.make_tensor_value_info("w", 11, [6, 3, 4, 4]))
    ),
    "initializer is a node's output": _edited(lambda m: setattr(_weight(m, "b"), "name", "c")),
    "missing producer": _edited(lambda m: m.graph.node[1].input.__setitem__(0, "nowhere")),
    "output without producer": _edited(lambda m: setattr(m.graph.output[0], "name", "nowhere")),
    "duplicate producers": _edited(lambda m: m.graph.node.append(m.graph.node[0])),
    "cycle": _edited(lambda m: m.graph.node[0].input.__setitem__(0, "t")),
    "self loop": _edited(lambda m: m.graph.node[3].input.__setitem__(0, "y")),
    "not sorted": _edited(lambda m: m.graph.node.insert(0, m.graph.node.pop())),
    "duplicate node names": _edited(lambda m: [setattr(n, "name", "same") for n in m.graph.node]),
    "node without op_type": _edited(lambda m: setattr(m.graph.node[0], "op_type", "")),
    "node without outputs": _edited(lambda m: m.graph.node[3].ClearField("output")),
    "too many inputs": _edited(lambda m: m.graph.node[3].input.extend(["x"] * 9)),
    "unknown op": _edited(lambda m: setattr(m.graph.node[3], "op_type", "NoSuchOp")),
    "unknown domain": _edited(
        lambda m: (setattr(m.graph.node[3], "domain", "no.such"), m.opset_import.append(helper.make_opsetid("no.such", 1)))
    ),
    "domain without opset": _edited(lambda m: setattr(m.graph.node[3], "domain", "no.such")),
    "unknown attribute": _edited(lambda m: m.graph.node[0].attribute.append(helper.make_attribute("nope", 3))),
    "attribute of another type": _edited(
        lambda m: m.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("strides", "four"))
    ),
    "attribute twice": _edited(lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0])),
    "attribute without type": _edited(lambda m: m.graph.node[0].attribute[0].ClearField("type")),
    "attribute of unknown type": lambda: _edited(lambda m: None)().replace(b"strides", b"strid\xff\xfe"),
    "attribute reference outside a function": _edited(
        lambda m: m.graph.node[0].attribute.append(onnx.AttributeProto(name="group", type=2, ref_attr_name="k"))
    ),
    "strides 0": _edited(lambda m: m.graph.node[0].attribute[0].ints.__setitem__(0, 0)),
    "strides negative": _edited(lambda m: m.graph.node[0].attribute[0].ints.__setitem__(0, -4)),
    "group 0": _edited(lambda m: m.graph.node[0].attribute.append(helper.make_attribute("group", 0))),
    "group 5": _edited(lambda m: m.graph.node[0].attribute.append(helper.make_attribute("group", 5))),
    "perm twice the same": _edited(lambda m: m.graph.node[2].attribute[0].ints.__setitem__(0, 2)),
    "perm out of range": _edited(lambda m: m.graph.node[2].attribute[0].ints.__setitem__(0, 9)),
    "wrong weight type": _edited(lambda m: setattr(_weight(m, "m"), "data_type", TensorProto.INT32)),
    "undefined weight type": _edited(lambda m: setattr(_weight(m, "m"), "data_type", 0)),
    "unknown weight type": _edited(lambda m: setattr(_weight(m, "m"), "data_type", 99)),
    "unknown mapped weight type": _edited(lambda m: setattr(_weight(m), "data_type", 99)),
    "string mapped weight": _edited(lambda m: setattr(_weight(m), "data_type", TensorProto.STRING)),
    "undefined mapped weight": _edited(lambda m: setattr(_weight(m), "data_type", 0)),
    "wrong weight shape": _edited(lambda m: _raw_dims(m, [6, 4, 3, 4])),
    "weight shape too large": _edited(lambda m: _raw_dims(m, [6, 3, 4, 40])),
    "weight shape too small": _edited(lambda m: _raw_dims(m, [6, 3, 4])),
    "weight of 10**12 elements": _edited(lambda m: _raw_dims(m, [10**6, 10**6])),
    "weight of 2**62 elements": _edited(lambda m: _raw_dims(m, [2**62])),
    "weight of overflowing shape": _edited(lambda m: _raw_dims(m, [2**62, 2**62, 4])),
    "small weight of 10**12 elements": _edited(lambda m: _raw_dims(m, [10**6, 10**6], "m")),
    "small weight of overflowing shape": _edited(lambda m: _raw_dims(m, [2**32, 2**32, 30], "m")),
    "negative weight shape": _edited(lambda m: _raw_dims(m, [-6, -3, 4, 4])),
    "negative small weight shape": _edited(lambda m: _raw_dims(m, [-6, -5], "m")),
    "zero-size weight shape with data": _edited(lambda m: _raw_dims(m, [0, 3, 4, 4])),
    "weight without data": _edited(lambda m: _weight(m).ClearField("raw_data")),
    "weight with two kinds of data": _edited(lambda m: _weight(m, "m").float_data.extend([1.0] * 30)),
    "segmented weight": _edited(lambda m: setattr(_weight(m, "m").segment, "end", 5)),
    "sparse initializer": _sparse,
    "sparse constant": _sparse_constant,
    "NaN weight": _edited(_fill(np.nan)),
    "Inf weight": _edited(_fill(np.inf)),
    "-Inf weight": _edited(_fill(-np.inf)),
    "denormal weight": _edited(_fill(1e-42)),
    "zero-size input": _edited(lambda m: _input_dims(m, [0, 3, 8, 8])),
    "negative input dim": _edited(lambda m: _input_dims(m, [-1, 3, 8, 8])),
    "input dim 2**62": _edited(lambda m: _input_dims(m, [2**62, 3, 8, 8])),
    "input dim 10**6": _edited(lambda m: _input_dims(m, [10**6, 3, 8, 8])),
    "input of another rank": _edited(lambda m: _input_dims(m, [3, 8])),
    "input without shape": _edited(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")),
    "input without type": _edited(lambda m: m.graph.input[0].ClearField("type")),
    "input of rank 100": _edited(lambda m: _input_dims(m, [1] * 100)),
    "rank 100": _of("g (float[1] x) => (float[N] y) { s = ConstantOfShape<value = int64[1] {1}>(k) r = Reshape(x, s) y = Neg(r) }".replace("g (float[1] x) => (float[N] y)", "g (float[1] x) => (float[N] y) <int64[1] k = {100}>")),
    "output of another shape": _edited(lambda m: m.graph.output[0].type.tensor_type.shape.dim.add()),
    "output of another type": _edited(lambda m: setattr(m.graph.output[0].type.tensor_type, "elem_type", 7)),
    "reshape to -1, -1": _edited(lambda m: _weight(m, "s").CopyFrom(numpy_helper.from_array(np.array([-1, -1, 4]), "s"))),
    "reshape to -7": _edited(lambda m: _weight(m, "s").CopyFrom(numpy_helper.from_array(np.array([0, -7, 4]), "s"))),
    "reshape to the wrong size": _edited(lambda m: _weight(m, "s").CopyFrom(numpy_helper.from_array(np.array([0, 7, 4]), "s"))),
    "reshape overflow": _edited(lambda m: _weight(m, "s").CopyFrom(numpy_helper.from_array(np.array([2**62, 4, 0]), "s"))),
    "gather out of range": _of("g (float[3] x) => (float[1] y) <int64[1] i = {99}> { y = Gather(x, i) }"),
    "slice huge": _of("g (float[3] x) => (float[N] y) <int64[1] a = {-9223372036854775808}, int64[1] e = {9223372036854775807}> { y = Slice(x, a, e) }"),
    "slice step 0": _of("g (float[3] x) => (float[N] y) <int64[1] a = {0}, int64[1] e = {2}, int64[1] z = {0}> { y = Slice(x, a, e, a, z) }"),
    "squeeze of 5": _of("g (float[5] x) => (float[N] y) <int64[1] a = {0}> { y = Squeeze(x, a) }"),
    "division by zero": _of("g (float[3] x) => (float[3] y) <float z = {0}> { y = Div(x, z) }"),
    "integer division by zero": _of("g (int64[3] x) => (int64[3] y) <int64 z = {0}> { y = Div(x, z) }"),
    "folded integer division by zero": _of("g (int64[1] x) => (int64[1] y) <int64[1] o = {5}, int64[1] z = {0}> { d = Div(o, z) y = Add(x, d) }"),
    "folded mod by zero": _of("g (int64[1] x) => (int64[1] y) <int64[1] o = {5}, int64[1] z = {0}> { d = Mod(o, z) y = Add(x, d) }"),
    "folded int min / -1": _of("g (int64[1] x) => (int64[1] y) <int64[1] o = {-9223372036854775808}, int64[1] z = {-1}> { d = Div(o, z) y = Add(x, d) }"),
    "sequences": _of("g (float[2] x) => (seq(float[2]) y) { y = SequenceConstruct(x, x) }"),
    "sequence input": _of("g (seq(float[2]) x) => (float[2] y) <int64 i = {0}> { y = SequenceAt(x, i) }"),
    "sequence at out of range": _of("g (float[2] x) => (float[2] y) <int64 i = {9}> { q = SequenceConstruct(x) y = SequenceAt(q, i) }"),
    "optional": _of("g (optional(float[2]) x) => (float[2] y) { y = OptionalGetElement(x) }"),
    "map output": _of("g (int64[2] x) => (int64[2] y) { y = Identity(x) }"),
    "strings": _of("g (string[2] x) => (string[2] y) { y = StringConcat(x, x) }"),
    "regular expression": _of('g (string[2] x) => (bool[2] y) { y = RegexFullMatch<pattern = "(a+)+$">(x) }'),
    "recursive function": lambda: _functions(("f", "f")),
    "mutually recursive functions": lambda: _functions(("f", "g"), ("g", "f")),
    "function not defined": lambda: _functions(("f", "nope")),
    "function twice": lambda: _functions(("f", "Neg"), ("f", "Neg")),
    "functions of depth 400": lambda: _functions(*[(f"f{i}", f"f{i + 1}" if i < 399 else "Neg") for i in range(400)]),
    "functions that double": lambda: _doubling_functions(40),
    "Ifs of depth 12": lambda: _nested(12),
    "Ifs of depth 30": lambda: _nested(30),
    "Ifs of depth 300": lambda: _nested(300),
    "name of 1 MB": _edited(_rename("c", "n" * 2**20)),
    "input name of 1 MB": _edited(_rename("x", "n" * 2**20)),
    "terminal escapes": _edited(_rename("c", ESCAPE)),
    "terminal escapes in input and output": _edited(lambda m: (_rename("x", ESCAPE)(m), _rename("y", "z" + ESCAPE)(m))),
    "terminal escapes in an unknown op": _edited(lambda m: setattr(m.graph.node[3], "op_type", "Op" + ESCAPE)),
    "terminal escapes in an initializer": _edited(lambda m: (_rename("w", ESCAPE)(m), _raw_dims(m, [7], ESCAPE))),
    "names that are no UTF-8": lambda: bytes(good().SerializeToString()).replace(b"Conv", b"\xff\xfe\xfd\xfc"),
    "weight name that is no UTF-8": lambda: bytes(good().SerializeToString()).replace(b"B\x01w", b"B\x01\xff"),
    "NUL names": _edited(_rename("c", "a\0b")),
    "path-like names": _edited(_rename("w", "../../etc/passwd")),
    "concat of 10,000": _of("g (float[1] x) => (float[N] y) { y = Concat<axis = 0>(" + ", ".join(["x"] * 10_000) + ") }"),
    "random normal": _of("g (float[2] x) => (float[2] y) { r = RandomNormal<shape = [2]>() y = Add(x, r) }"),
    "training": _edited(lambda m: m.training_info.add()),
    **{f"type {TensorProto.DataType.Name(kind).lower()}": _typed(kind) for kind in range(1, 24)},
}  # fmt: skip


def _chain(count: int) -> bytes:
    model = _text("g (float[1] x) => (float[1] y) { y = Neg(x) }")
    del model.graph.node[:]
    for i in range(count):
        source, target = f"t{i}" if i else "x", f"t{i + 1}" if i < count - 1 else "y"
        model.graph.node.add(op_type="Neg", input=[source], output=[target])
    return bytes(model.SerializeToString())


def _wide(count: int) -> bytes:
    model = _text("g (float[1] x) => (float[1] y) { y = Neg(x) }")
    for i in range(count):
        model.graph.node.add(op_type="Neg", input=["x"], output=[f"y{i}"])
        model.graph.output.append(helper.make_tensor_value_info(f"y{i}", 1, [1]))
    return bytes(model.SerializeToString())


# sound, and slow by size alone: for benchmarks/hostile.py
LARGE: dict[str, Callable[[], bytes]] = {
    "100,000 nodes": lambda: _chain(100_000),
    "10,000 outputs": lambda: _wide(10_000),
}
