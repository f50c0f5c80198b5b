"""DFT, STFT, Col2Im and OneHot beside onnxruntime, and what they are made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ops_support import assert_agrees, ints, node_model, values

from graphcheck.verdicts.compare import compare


def check(op: str, shape: tuple[int, ...], attributes: dict[str, Any], constants: Any, version: int = 18) -> None:
    proto = node_model(op, [values(shape)], attributes, version, 1, "", constants)
    assert_agrees(proto, {"x0": values(shape)}, units=512)
    assert_agrees(proto, {"x0": values(shape, 1)}, units=512, normalize=False)


@pytest.mark.parametrize(  # one-sided, onnxruntime takes real numbers
    ("parts", "attributes"), [(1, {}), (2, {}), (1, {"inverse": 1}), (2, {"inverse": 1}), (1, {"onesided": 1})]
)
@pytest.mark.parametrize("length", [None, 5, 11])
def test_dft(parts: int, attributes: dict[str, int], length: int | None) -> None:
    given = [] if length is None else [np.asarray(length, np.int64)]
    check("DFT", (2, 8, 3, parts), {"axis": 1, **attributes}, given)
    check("DFT", (2, 3, 8, parts), attributes, [*(given or [None]), np.asarray(2, np.int64)], 20)


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize(("window", "length"), [(True, None), (False, 6), (True, 6)])
def test_stft(onesided: int, window: bool, length: int | None) -> None:
    constants = [np.asarray(3, np.int64), values((6,), 2) if window else None]
    constants += [] if length is None else [np.asarray(length, np.int64)]
    check("STFT", (2, 21, 1), {"onesided": onesided}, constants)


@pytest.mark.parametrize(
    "attributes", [{}, {"strides": [2, 1]}, {"pads": [1, 0, 1, 2]}, {"dilations": [1, 2], "pads": [1, 1, 0, 1]}]
)
def test_col2im(attributes: dict[str, Any]) -> None:
    image, block = (5, 6), (2, 3)
    pads, strides, dilations = (attributes.get(k, d) for k, d in (("pads", [0] * 4), ("strides", [1, 1]), ("dilations", [1, 1])))
    extents = [dilations[i] * (k - 1) + 1 for i, k in enumerate(block)]
    rows = [(n + pads[i] + pads[i + 2] - extents[i]) // strides[i] + 1 for i, n in enumerate(image)]
    check("Col2Im", (2, 3 * 6, rows[0] * rows[1]), attributes, [ints(*image), ints(*block)])


def test_a_transform_is_the_product_with_its_table() -> None:
    table = np.exp(-2j * np.pi * np.outer(np.arange(8), np.arange(5)) / 8)
    weight = np.stack([table.real, table.imag], -1).reshape(8, 10).round(12).astype(np.float32)
    stored = node_model("MatMul", [values((2, 8))], {}, 18, 1, "", [weight])
    transform = node_model("DFT", [values((2, 8, 1))], {"axis": 1, "onesided": 1}, 18)
    reshaped = _behind(transform, [2, 8, 1], [2, 10])
    assert compare(reshaped, _named(stored)).verdict == "within-rounding"
    weight[3, 2] *= -1
    assert compare(reshaped, _named(node_model("MatMul", [values((2, 8))], {}, 18, 1, "", [weight]))).verdict == "different"


def _named(proto: Any) -> Any:
    proto.graph.output[0].CopyFrom(_typed("y0", [2, 10]))
    return proto


def _typed(name: str, shape: list[int]) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _behind(proto: Any, before: list[int], after: list[int]) -> Any:
    """The model between two Reshapes."""
    from onnx import helper, numpy_helper

    (node,) = proto.graph.node
    node.input[0], node.output[0] = "inside", "outside"
    proto.graph.node.insert(0, helper.make_node("Reshape", ["x0", "before"], ["inside"]))
    proto.graph.node.append(helper.make_node("Reshape", ["outside", "after"], ["y0"]))
    proto.graph.initializer.extend(numpy_helper.from_array(ints(*s), n) for n, s in (("before", before), ("after", after)))
    proto.graph.input[0].CopyFrom(_typed("x0", [2, 8]))
    return _named(proto)
