"""Random valid graphs, copies of them that mean the same, and damage to files."""

from __future__ import annotations

import random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_UNARY = ("Relu", "Neg", "Exp", "Tanh", "Sigmoid", "Abs", "Sqrt", "Erf", "Softmax", "Identity", "Gelu", "HardSwish")
_BINARY = ("Add", "Mul", "Sub", "Div", "Max", "Min", "MatMul", "Pow")
_MOVES = ("Transpose", "Reshape", "Slice", "Concat", "Pad", "Gather", "Split")
SIDE = 4  # every tensor is [SIDE, SIDE], so that any two fit


def graph(seed: int) -> onnx.ModelProto:
    """A valid model: square matrices, one or two inputs, 3 to 14 nodes, constants of both kinds."""
    rng = random.Random(seed)
    draw = np.random.default_rng(seed)
    values, nodes, constants = ["x"] + ["x2"] * (rng.random() < 0.5), [], {}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIDE, SIDE]) for name in values]

    def constant(array: np.ndarray) -> str:
        name = f"c{len(constants)}"
        constants[name] = numpy_helper.from_array(array, name)
        return name

    for number in range(rng.randint(3, 14)):
        out, kind, source = f"t{number}", rng.random(), rng.choice(values)
        if kind < 0.3:
            nodes.append(helper.make_node(rng.choice(_UNARY), [source], [out], f"n{number}"))
        elif kind < 0.7:
            square = draw.normal(size=(SIDE, SIDE)).astype(np.float32)
            other = constant(square) if rng.random() < 0.5 else rng.choice(values)
            pair = [source, other] if rng.random() < 0.7 else [other, source]
            nodes.append(helper.make_node(rng.choice(_BINARY), pair, [out], f"n{number}"))
        else:
            nodes += _move(rng.choice(_MOVES), source, rng.choice(values), out, number, constant)
        values.append(out)
    outputs = [
        helper.make_tensor_value_info(v, TensorProto.FLOAT, [SIDE, SIDE])
        for v in {values[-1], values[-2]} - {"x", "x2"}
    ]
    outputs.sort(key=lambda value: value.name)
    model = helper.make_model(
        helper.make_graph(nodes, f"g{seed}", inputs, outputs, list(constants.values())),
        opset_imports=[helper.make_opsetid("", 20)], ir_version=9,
    )  # fmt: skip
    onnx.checker.check_model(model)
    return model


def _move(op: str, source: str, other: str, out: str, number: int, constant: object) -> list[onnx.NodeProto]:
    def ints(*numbers: int) -> str:
        return constant(np.array(numbers))  # type: ignore[operator,no-any-return]

    name = f"n{number}"
    match op:
        case "Transpose":
            return [helper.make_node(op, [source], [out], name, perm=[1, 0])]
        case "Reshape":
            return [
                helper.make_node(op, [source, ints(2, -1)], [f"{out}_"], name),
                helper.make_node(op, [f"{out}_", ints(SIDE, SIDE)], [out], f"{name}_"),
            ]
        case "Slice":
            return [helper.make_node(op, [source, ints(-1), ints(-99), ints(1), ints(-1)], [out], name)]
        case "Concat":
            return [
                helper.make_node(op, [source, other], [f"{out}_"], name, axis=1),
                helper.make_node("Slice", [f"{out}_", ints(2), ints(2 + SIDE), ints(1)], [out], f"{name}_"),
            ]
        case "Pad":
            return [
                helper.make_node(op, [source, ints(1, 0, 0, 0)], [f"{out}_"], name),
                helper.make_node("Slice", [f"{out}_", ints(0), ints(SIDE), ints(0)], [out], f"{name}_"),
            ]
        case "Gather":
            return [helper.make_node(op, [source, ints(0, 3, 3, 1)], [out], name, axis=number % 2)]
        case _:
            return [
                helper.make_node("Split", [source], [f"{out}_0", f"{out}_1"], name, axis=1, num_outputs=2),
                helper.make_node("Concat", [f"{out}_1", f"{out}_0"], [out], f"{name}_", axis=1),
            ]


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """All inner names are others."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = {v.name for v in (*copy.graph.input, *copy.graph.output)}
    for node in copy.graph.node:
        node.name = f"other/{node.name}"
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = name if name in kept or not name else f"r_{name}"
    for tensor in copy.graph.initializer:
        tensor.name = f"r_{tensor.name}"
    return copy


def reordered(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The nodes in another topological order, the initializers in another one."""
    rng = random.Random(seed)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {v.name for v in copy.graph.input} | {t.name for t in copy.graph.initializer} | {""}
    waiting, placed = list(copy.graph.node), []
    while waiting:
        node = rng.choice([n for n in waiting if known.issuperset(n.input)])
        waiting.remove(node)
        known.update(node.output)
        placed.append(node)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in placed]
    tensors = [onnx.TensorProto.FromString(t.SerializeToString()) for t in copy.graph.initializer]
    rng.shuffle(tensors)
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.extend(tensors)
    return copy


def lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every initializer as a Constant node."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in copy.graph.initializer]
    nodes += [onnx.NodeProto.FromString(n.SerializeToString()) for n in copy.graph.node]
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(nodes)
    return copy


def rewritten(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """Some nodes written otherwise: a - b as a + (-b), a transposition twice more, an Identity between."""
    rng = random.Random(seed)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes: list[onnx.NodeProto] = []
    for number, node in enumerate(model.graph.node):
        name, how = f"w{number}", rng.random()
        if node.op_type == "Sub":
            nodes += [
                helper.make_node("Neg", [node.input[1]], [name]),
                helper.make_node("Add", [node.input[0], name], list(node.output)),
            ]
        elif node.op_type in ("Add", "Mul") and how < 0.5:
            nodes.append(helper.make_node(node.op_type, list(node.input)[::-1], list(node.output)))
        elif len(node.output) == 1 and how < 0.3:
            inner = onnx.NodeProto.FromString(node.SerializeToString())
            inner.output[0] = name
            nodes += [inner, helper.make_node("Transpose", [name], [f"{name}_"])]
            nodes.append(helper.make_node("Transpose", [f"{name}_"], list(node.output)))
        else:
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def damaged(data: bytes, seed: int) -> bytes:
    """Bytes changed, cut out, doubled or cut off."""
    rng = random.Random(seed)
    work = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not work:
            break
        at, length = rng.randrange(len(work)), rng.choice((1, 1, 2, 8, 40))
        match rng.randrange(5):
            case 0:
                work[at] ^= 1 << rng.randrange(8)
            case 1:
                work[at : at + length] = rng.randbytes(length)
            case 2:
                del work[at : at + length]
            case 3:
                work[at:at] = work[at : at + length]
            case _:
                if rng.random() < 0.3:
                    del work[at:]
                else:
                    work[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(work)


def mutant(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """One element of one weight moved by a half, or one operator replaced by another."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = [t for t in copy.graph.initializer if t.data_type == TensorProto.FLOAT]
    swaps = {"Add": "Sub", "Sub": "Add", "Mul": "Add", "Max": "Min", "Min": "Max", "Relu": "Abs", "Tanh": "Sigmoid"}
    nodes = [n for n in copy.graph.node if n.op_type in swaps]
    if nodes and (seed % 2 or not weights):
        chosen = nodes[seed % len(nodes)]
        chosen.op_type = swaps[chosen.op_type]
    elif weights:
        chosen_weight = weights[seed % len(weights)]
        changed = numpy_helper.to_array(chosen_weight).copy()
        changed[seed % SIDE, seed % 3] += 0.5
        chosen_weight.CopyFrom(numpy_helper.from_array(changed, chosen_weight.name))
    return copy


def apart(a: onnx.ModelProto, b: onnx.ModelProto, seed: int) -> bool:
    """Whether onnx.reference shows a gross difference on one input."""
    from onnx.reference import ReferenceEvaluator

    draw = np.random.default_rng(seed)
    feeds = {v.name: draw.normal(size=(SIDE, SIDE)).astype(np.float32) for v in a.graph.input}
    with np.errstate(all="ignore"):
        x, y = (ReferenceEvaluator(m).run(None, feeds) for m in (a, b))
        return any(
            np.isfinite(p).all() and np.isfinite(q).all() and np.abs(p - q).max() > 1e-2 * (1 + np.abs(p).max())
            for p, q in zip(x, y, strict=True)
        )
