"""Mutations of functions: one operator for another of the same signature, and small functions put in between."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.zoo.editing import Editor, Mutation, attribute, set_attribute

# operator -> what it is taken for, and the attributes of that
TAKEN_FOR: dict[str, tuple[str, dict[str, Any]]] = {
    "Erf": ("Tanh", {}),
    "Tanh": ("Erf", {}),
    "Sqrt": ("Abs", {}),
    "Exp": ("Softplus", {}),
    "Log": ("Sqrt", {}),
    "Abs": ("Relu", {}),
    "Sigmoid": ("HardSigmoid", {}),
    "HardSigmoid": ("Sigmoid", {}),
    "HardSwish": ("Mish", {}),
    "Relu": ("LeakyRelu", {"alpha": 0.01}),
    "LeakyRelu": ("Relu", {}),
    "Elu": ("Relu", {}),
    "Floor": ("Ceil", {}),
    "Ceil": ("Round", {}),
    "Round": ("Floor", {}),
    "Sin": ("Cos", {}),
    "Cos": ("Sin", {}),
    "Neg": ("Identity", {}),
    "Sign": ("Identity", {}),
    "Max": ("Min", {}),
    "Min": ("Max", {}),
    "Less": ("LessOrEqual", {}),
    "LessOrEqual": ("Less", {}),
    "Greater": ("GreaterOrEqual", {}),
    "GreaterOrEqual": ("Greater", {}),
    "Div": ("Mul", {}),
    "Softmax": ("LogSoftmax", {}),
    "GlobalAveragePool": ("GlobalMaxPool", {}),
    "GlobalMaxPool": ("GlobalAveragePool", {}),
}
KEEPING = {
    "ReduceMax": "ReduceMin",
    "ReduceMin": "ReduceMax",
    "ReduceMean": "ReduceMax",
    "ReduceSum": "ReduceMean",
    "ReduceL2": "ReduceSumSquare",
    "ArgMax": "ArgMin",
    "MaxPool": "AveragePool",
    "AveragePool": "MaxPool",
}


def _taken_for(op_type: str) -> Mutation:
    other, attributes = TAKEN_FOR[op_type]

    def mutation(e: Editor) -> onnx.NodeProto | None:
        for node in e.nodes(op_type):
            kept = {"axis": attribute(node, "axis", -1)} if op_type == "Softmax" else {}
            e.replace(node, other, **attributes, **kept)
            return node
        return None

    return mutation


def _keeping(op_type: str) -> Mutation:
    """Another operator with the same attributes and operands."""

    def mutation(e: Editor) -> onnx.NodeProto | None:
        for node in e.nodes(op_type):
            gone = ("count_include_pad", "storage_order", "dilations") if op_type.endswith("Pool") else ()
            kept = [a for a in node.attribute if a.name not in gone]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.op_type = KEEPING[op_type]
            return node
        return None

    return mutation


def gelu_kind(e: Editor) -> onnx.NodeProto | None:
    """Gelu by Erf becomes Gelu by Tanh, or the other way."""
    for node in e.nodes("Gelu"):
        other = "none" if attribute(node, "approximate", b"none") == b"tanh" else "tanh"
        set_attribute(node, "approximate", other)
        return node
    return None


def exp_linear(e: Editor) -> onnx.NodeProto | None:
    """Exp(x) becomes 1 + x."""
    for node in e.nodes("Exp"):
        e.replace(node, "Add")
        node.input.append(e.new_constant(np.asarray(1, np.float32)))
        return node
    return None


def last_of_ties(e: Editor) -> onnx.NodeProto | None:
    """ArgMax takes the last of equal elements."""
    for node in e.nodes("ArgMax", "ArgMin"):
        set_attribute(node, "select_last_index", 1 - attribute(node, "select_last_index", 0))
        return node
    return None


def clip_far(e: Editor) -> onnx.NodeProto | None:
    """A Clip at 1,000 put in."""
    for node in _computed(e):
        e.insert_after(node, "Clip", [e.new_constant(np.asarray(v, np.float32)) for v in (-1e3, 1e3)])
        return node
    return None


def relu_on_one(e: Editor) -> onnx.NodeProto | None:
    """A Relu on one element of a tensor's last axis."""
    for node in _computed(e):
        shape = e.shape(node.output[0])
        if shape and isinstance(shape[-1], int) and shape[-1] > 1:
            slope = np.ones(shape[-1], np.float32)
            slope[e.rng.integers(shape[-1])] = 0
            e.insert_after(node, "PRelu", [e.new_constant(slope)])
            return node
    return None


def cast_and_back(e: Editor) -> onnx.NodeProto | None:
    """float16 in between."""
    for node in _computed(e):
        e.insert_after(node, "Cast", to=TensorProto.FLOAT)
        e.insert_after(node, "Cast", to=TensorProto.FLOAT16)
        return node
    return None


def tiny_added(e: Editor) -> onnx.NodeProto | None:
    """2**-30 added to every element."""
    for node in _computed(e):
        e.insert_after(node, "Add", [e.new_constant(np.asarray(2.0**-30, np.float32))])
        return node
    return None


def absolute(e: Editor) -> onnx.NodeProto | None:
    """Abs put in."""
    for node in _computed(e):
        e.insert_after(node, "Abs")
        return node
    return None


def resize_mode(e: Editor) -> onnx.NodeProto | None:
    """Nearest becomes linear, or linear cubic; coordinates half a pixel off."""
    for node in e.nodes("Resize"):
        if e.rng.integers(2):
            known = attribute(node, "coordinate_transformation_mode", b"half_pixel")
            set_attribute(
                node, "coordinate_transformation_mode", "asymmetric" if known != b"asymmetric" else "align_corners"
            )
        else:
            set_attribute(node, "mode", "linear" if attribute(node, "mode", b"nearest") == b"nearest" else "nearest")
        return node
    return None


def _computed(e: Editor) -> list[onnx.NodeProto]:
    return [
        n
        for n in e.nodes("MatMul", "Add", "Mul", "Conv", "Gemm", "LayerNormalization", "Softmax", "Relu", "Sub")
        if e.is_float(n.output[0])
    ]


MUTATIONS: dict[str, Mutation] = {
    **{f"{op} becomes {other}": _taken_for(op) for op, (other, _) in TAKEN_FOR.items()},
    **{f"{op} becomes {other}": _keeping(op) for op, other in KEEPING.items()},
    "kind of Gelu": gelu_kind,
    "Exp becomes 1 + x": exp_linear,
    "last of ties": last_of_ties,
    "Clip at 1000": clip_far,
    "Relu on one element": relu_on_one,
    "float16 and back": cast_and_back,
    "2**-30 added": tiny_added,
    "Abs put in": absolute,
    "Resize": resize_mode,
}
