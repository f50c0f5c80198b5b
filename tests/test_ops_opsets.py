"""Operators as every opset since 7 writes them, in the float64 domain beside onnxruntime: one row a form."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from ops_support import assert_agrees, floats, ints, node_model, values

from graphcheck.errors import Undecided
from graphcheck.kernel.ops import reference
from graphcheck.kernel.ops.node import Node

ONE = np.asarray(1.0, np.float32)
Row = tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any], list[Any], int]


def row(
    op: str, versions: Any, shape: tuple[int, ...], attributes: Any = None, constants: Any = (), outputs: int = 1
) -> Row:
    return op, tuple(versions), shape, dict(attributes or {}), list(constants), outputs


SHAPE = (3, 4, 5)
PADS = ints(0, 1, 2, 1, 0, 2)
ROWS = [
    row("Slice", (7, 9), SHAPE, {"starts": [0, 1], "ends": [2, -1], "axes": [0, 2]}),
    row("Slice", (7, 9), SHAPE, {"starts": [1, -3], "ends": [100, 1000]}),
    row("Slice", (10, 11, 13), SHAPE, None, [ints(-1), ints(-(10**9)), ints(1), ints(-2)]),
    *[
        row("Pad", (7, 10), SHAPE, {"pads": PADS.tolist(), "mode": mode, "value": 2.5})
        for mode in ("constant", "reflect", "edge")
    ],
    row("Pad", (7, 10), SHAPE, {"pads": PADS.tolist()}),
    row("Pad", (7, 10), SHAPE, {"pads": [0, -1, -2, 1, 0, 2], "value": 1.0}),
    *[row("Pad", (11, 13, 18), SHAPE, {"mode": mode}, [PADS]) for mode in ("constant", "reflect", "edge")],
    row("Pad", (11, 13, 18), SHAPE, None, [PADS, 2.5 * ONE]),
    row("Pad", (11, 13, 18), SHAPE, None, [ints(0, -1, 2, 1, 0, -2), 2.5 * ONE]),
    row("Pad", (18,), SHAPE, None, [ints(1, -2, 0, 1), None, ints(1, 2)]),
    row("Pad", (19,), SHAPE, {"mode": "wrap"}, [PADS]),
    row("Squeeze", (7, 11), (3, 1, 5, 1), {"axes": [1, 3]}),
    row("Squeeze", (7, 11, 13), (3, 1, 5, 1)),
    row("Squeeze", (11,), (3, 1, 5, 1), {"axes": [-1]}),
    row("Squeeze", (13, 21), (3, 1, 5, 1), None, [ints(-1)]),
    row("Unsqueeze", (7, 11), (3, 5), {"axes": [0, 3]}),
    row("Unsqueeze", (13, 21), (3, 5), None, [ints(-1, 0)]),
    row("Split", (7, 11), (6, 4), {"axis": 0, "split": [1, 2, 3]}, (), 3),
    row("Split", (7, 11, 13), (6, 4), {"axis": 1}, (), 2),
    row("Split", (11,), (6, 4), {"axis": -1}, (), 2),
    row("Split", (13, 18), (6, 4), {"axis": 0}, [ints(2, 4)], 2),
    row("Split", (18,), (7, 4), {"axis": 0, "num_outputs": 3}, (), 3),
    row("Upsample", (7,), (1, 2, 3, 4), {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 3.0]}),
    row("Upsample", (7,), (1, 2, 3, 4), {"mode": "linear", "scales": [1.0, 1.0, 2.0, 3.0]}),
    row("Upsample", (9,), (1, 2, 3, 4), {"mode": "nearest"}, [floats(1, 1, 2.5, 3)]),
    row("Upsample", (9,), (1, 2, 3, 4), {"mode": "linear"}, [floats(1, 1, 2, 2)]),
    row("Resize", (10,), (1, 2, 4, 4), {"mode": "nearest"}, [floats(1, 1, 0.5, 2)]),
    row("Resize", (10,), (1, 2, 4, 4), {"mode": "linear"}, [floats(1, 1, 0.6, 2)]),
    *[
        row(
            "Resize",
            (13, 18, 19),
            (1, 2, 5, 4),
            {"mode": mode, "coordinate_transformation_mode": how, "nearest_mode": "round_prefer_ceil"},
            [None, *last],
        )
        for mode in ("nearest", "linear", "cubic")
        for how, last in (
            ("half_pixel", [floats(1, 1, 0.6, 2.3)]),
            ("pytorch_half_pixel", [floats(1, 1, 0.6, 2.3)]),
            ("asymmetric", [floats(1, 1, 0.6, 2.3)]),
            ("align_corners", [None, ints(1, 2, 3, 7)]),
        )
    ],
    row(
        "Resize",
        (11,),
        (1, 2, 5, 4),
        {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1},
        [floats(), floats(1, 1, 1.6, 2.3)],
    ),
    row("Resize", (18,), (1, 2, 5, 4), {"mode": "linear", "axes": [2, 3], "antialias": 1}, [None, floats(0.5, 0.6)]),
    row("Resize", (18,), (1, 2, 5, 4), {"mode": "cubic", "axes": [3, 2], "antialias": 1}, [None, floats(0.5, 0.6)]),
    row("Resize", (18,), (1, 2, 5, 4), {"mode": "linear", "axes": [3, 2]}, [None, None, ints(7, 3)]),
    row(
        "BatchNormalization",
        (7, 9, 14, 15),
        (2, 3, 4, 4),
        {"epsilon": 1e-3},
        [floats(1, 2, 3), floats(4, 5, 6), floats(7, 8, 9), floats(1, 2, 3)],
    ),
    row("Dropout", (7, 10, 12, 13), (3, 4)),
    *[
        row(op, (7, 11, 13), (2, 3, 4), attributes)
        for op in ("Softmax", "LogSoftmax")
        for attributes in (None, {"axis": 0}, {"axis": 2})
    ],
    row("Clip", (7,), (3, 4), {"min": -0.5, "max": 0.7}),
    row("Clip", (7, 13), (3, 4)),
    row("Clip", (11, 13), (3, 4), None, [-0.2 * ONE]),
    row("Clip", (12, 13), (3, 4), None, [None, 0.2 * ONE]),
    *[
        row(op, versions, (2, 3, 4), attributes, constants)
        for op in (
            "ReduceMean",
            "ReduceMax",
            "ReduceMin",
            "ReduceL1",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceProd",
            "ReduceLogSumExp",
        )
        for versions, attributes, constants in (
            ((7, 11, 13), {"axes": [1, 0], "keepdims": 0}, []),
            ((11, 13), {"axes": [-1]}, []),
            ((7, 13, 18), {}, []),
            ((18,), {}, [ints(-1)]),
        )
    ],
    *[row("ReduceSum", (7, 11), (2, 3, 4), {"axes": [1, 0], "keepdims": keep}) for keep in (0, 1)],
    row("ReduceSum", (13,), (2, 3, 4), {"keepdims": 0}, [ints(-1)]),
    row("ReduceSum", (13,), (2, 3, 4), {"noop_with_empty_axes": 1}),
    row("ReduceSum", (13,), (2, 3, 4), {"noop_with_empty_axes": 1}, [ints()]),
    *[row(op, (11, 13), (3, 4), {"axis": 1}) for op in ("ArgMax", "ArgMin")],
    *[row(op, (13,), (3, 4), {"axis": 0, "select_last_index": 1, "keepdims": 0}) for op in ("ArgMax", "ArgMin")],
    *[
        row(op, (11, 18, 22), (3, 4))
        for op in [
            "Elu",
            "Selu",
            "HardSigmoid",
            "ThresholdedRelu",
            "Softsign",
            "Softplus",
            "LeakyRelu",
            "Sigmoid",
            "Tanh",
            "Erf",
            "Relu",
            "Neg",
            "Abs",
            "Exp",
            "Sign",
            "Round",
            "Ceil",
        ]
    ],
    row("Celu", (12,), (3, 4), {"alpha": 0.5}),
    row("Shrink", (11, 18), (3, 4), {"lambd": 0.3, "bias": 0.1}),
    row("HardSwish", (14, 22), (3, 4)),
    row("Mish", (18, 22), (3, 4)),
    row("Gelu", (20,), (3, 4)),
    row("Gelu", (20,), (3, 4), {"approximate": "tanh"}),
    row("MeanVarianceNormalization", (9, 13), (2, 3, 4, 5)),
    row(
        "Gemm",
        (7, 9, 11, 13),
        (3, 4),
        {"alpha": 0.5, "beta": 2.0, "transB": 1},
        [values((5, 4), 1), floats(1, 2, 3, 4, 5)],
    ),
    row("Gemm", (11, 13), (3, 4), {"transA": 1}, [values((3, 5), 1)]),
    row("Gemm", (11, 13), (3, 4), None, [values((4, 5), 1), floats(1, 2, 3).reshape(3, 1)]),
    row("PRelu", (7, 9, 16), (2, 3, 4), None, [floats(0.1, 0.2, 0.3).reshape(3, 1)]),
    *[row("Flatten", (9, 11, 13), (2, 3, 4), {"axis": axis}) for axis in (0, 1, 2, 3)],
    row("Flatten", (11, 13), (2, 3, 4), {"axis": -1}),
    row("Expand", (8, 13), (3, 1), None, [ints(2, 1, 4)]),
    row("Tile", (7, 13), (3, 2), None, [ints(2, 3)]),
    row("DepthToSpace", (7, 11, 13), (1, 8, 2, 3), {"blocksize": 2}),
    row("DepthToSpace", (11, 13), (1, 8, 2, 3), {"blocksize": 2, "mode": "CRD"}),
    row("SpaceToDepth", (7, 13), (1, 2, 4, 6), {"blocksize": 2}),
    row("Scatter", (9,), (3, 4), {"axis": 1}, [ints(1, 3).reshape(1, 2), floats(5, 6).reshape(1, 2)]),
    row("ScatterElements", (11, 13, 18), (3, 4), {"axis": 1}, [ints(1, 3).reshape(1, 2), floats(5, 6).reshape(1, 2)]),
    row("ScatterND", (11, 13, 18), (3, 4), None, [ints(1, 2).reshape(2, 1), np.ones((2, 4), np.float32)]),
    row("Gather", (7, 11, 13), (3, 4), {"axis": 1}, [ints(1, 3).reshape(1, 2)]),
    row("Gather", (11, 13), (3, 4), {"axis": -1}, [ints(-1, 3).reshape(1, 2)]),
    row("GatherND", (12, 13), (3, 4, 2), {"batch_dims": 1}, [ints(1, 2, 0).reshape(3, 1)]),
    row("GatherElements", (11, 13), (3, 4), {"axis": 1}, [ints(-1, 3).reshape(1, 2)]),
    row("CumSum", (11, 14), (3, 4), {"exclusive": 1, "reverse": 1}, [np.asarray(1, np.int64)]),
    row("CumSum", (11, 14), (3, 4), None, [np.asarray(-2, np.int64)]),
    row("InstanceNormalization", (7, 13), (2, 3, 4), None, [floats(1, 2, 3), floats(4, 5, 6)]),
    *[row("LpNormalization", (7, 13), (2, 3), {"axis": 0, "p": p}) for p in (1, 2)],
    row("LRN", (7, 13), (1, 5, 3, 3), {"size": 3, "alpha": 0.1, "beta": 0.5, "bias": 2.0}),
    row("GlobalLpPool", (7, 11), (1, 2, 3, 3), {"p": 3}),
    *[row("LpPool", (11,), (1, 2, 5, 5), {"kernel_shape": [2, 2], "strides": [2, 1], "p": p}) for p in (1, 2, 3)],
    row("GlobalMaxPool", (7,), (1, 2, 3, 3)),
    row("GlobalAveragePool", (7,), (1, 2, 3, 3)),
    row("LayerNormalization", (17,), (2, 3, 4), {"axis": 1}, [np.full((3, 4), 2, np.float32), values((3, 4), 2)], 3),
    row("LayerNormalization", (17,), (2, 3, 4), {"epsilon": 0.1}, [floats(1, 2, 3, 4)]),
    row("GroupNormalization", (21,), (2, 4, 3), {"num_groups": 2}, [floats(1, 2, 3, 4), floats(3, 4, 5, 6)]),
    row("RMSNormalization", (23,), (2, 3, 4), {"axis": -1}, [floats(1, 2, 3, 4)]),
    row("Trilu", (14,), (3, 4), {"upper": 0}, [np.asarray(-1, np.int64)]),
    row("ReverseSequence", (10,), (4, 3), {"batch_axis": 1, "time_axis": 0}, [ints(1, 2, 4)]),
    row("Compress", (9, 11), (3, 4), {"axis": 1}, [np.asarray([1, 0, 1], bool)]),
    row("Compress", (9, 11), (3, 4), None, [np.asarray([1, 0, 1], bool)]),
    row("EyeLike", (9, 22), (3, 4), {"k": 1}),
    row("Shape", (7, 13, 15), (3, 4, 5)),
    row("Shape", (15, 21), (3, 4, 5), {"start": -2, "end": -1}),
    row("Size", (7, 13), (3, 4)),
    row("Cast", (9, 13), (3, 4), {"to": 10}),
    row("Cast", (9, 13), (3, 4), {"to": 7}),
    row("Cast", (9, 13), (3, 4), {"to": 9}),
    row("Mod", (10, 13), (3, 4), {"fmod": 1}, [0.3 * ONE]),
    row("Pow", (7, 12, 13), (3, 4), None, [2 * ONE]),
    row("Pow", (12, 13), (3, 4), None, [np.asarray(3, np.int64)]),
    *[row(op, (7, 13, 14), (3, 4), None, [floats(1, 2, 3, 4)]) for op in ("Add", "Sub", "Mul", "Div")],
    *[row(op, (8, 13), (3, 4), None, [floats(1, -2, 0.3, 0), floats(0.2)]) for op in ("Max", "Min", "Sum", "Mean")],
    *[row(op, (9, 13), (3, 4), None, [floats(1, -2, 0.3, 0)]) for op in ("Less", "Greater")],
    *[row(op, (12, 16), (3, 4), None, [floats(1, -2, 0.3, 0)]) for op in ("LessOrEqual", "GreaterOrEqual")],
    row("Einsum", (12,), (3, 3), {"equation": "ii->i"}),
    row("Einsum", (12,), (3, 4), {"equation": "ij,jk"}, [values((4, 2), 1)]),
    row("Einsum", (12,), (2, 3, 4), {"equation": "...ij,...kj->...ik"}, [values((2, 5, 4), 1)]),
    row("QuantizeLinear", (10, 13), (3, 4), None, [0.05 * ONE, np.asarray(3, np.uint8)]),
    row("QuantizeLinear", (13,), (3, 4), {"axis": 0}, [floats(0.1, 0.2, 0.3), np.asarray([1, 2, 3], np.int8)]),
]


def name(entry: Row) -> str:
    op, _, _, attributes, constants, _ = entry
    return f"{op}-{'-'.join(f'{k}={v}' for k, v in attributes.items())}-{len(constants)}"[:80]


@pytest.mark.parametrize("entry", ROWS, ids=[f"{i}-{name(r)}" for i, r in enumerate(ROWS)])
def test_operator_as_onnxruntime_runs_it(entry: Row) -> None:
    op, versions, shape, attributes, constants, outputs = entry
    feeds = {"x0": values(shape)}
    for version in versions:
        proto = node_model(op, [feeds["x0"]], attributes, version, outputs, constants=constants)
        assert_agrees(proto, feeds)
        assert_agrees(proto, feeds, normalize=False)
        assert_agrees(proto, feeds, concrete=True)


def test_the_table_fails_on_a_wrong_meaning() -> None:
    """Pad-2's value taken for another one must be seen."""
    feeds = {"x0": values(SHAPE)}
    right = node_model("Pad", [feeds["x0"]], {"pads": PADS.tolist(), "value": 2.5}, 10)
    wrong = node_model("Pad", [feeds["x0"]], {"pads": PADS.tolist(), "value": 2.0}, 10)
    from ops_support import float64, run

    assert np.abs(float64(wrong, feeds)[0].value - run(right, feeds)[0]).max() == 0.5


@pytest.mark.parametrize(
    ("op", "attributes"), [("Add", {"broadcast": 1, "axis": 0}), ("Gemm", {"broadcast": 1}), ("BatchNormalization", {})]
)
def test_meanings_before_opset_7_are_undecided(op: str, attributes: dict[str, Any]) -> None:
    from ops_support import float64

    constants = [floats(1, 2, 3)] if op == "Add" else [floats(1, 2, 3)] * 4
    with pytest.raises(Undecided, match="operator set 6"):
        float64(node_model(op, [values((3, 3))], attributes, 6, constants=constants), {"x0": values((3, 3))})


@pytest.mark.parametrize(
    ("op", "attributes", "version", "constants"),
    [
        ("Resize", {"mode": "nearest"}, 10, [floats(1, 1, 0.6, 1)]),
        (
            "Resize",
            {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
            13,
            [None, floats(1, 1, 0.5, 1)],
        ),
        ("Resize", {"mode": "nearest", "nearest_mode": "floor"}, 13, [None, floats(1, 1, 0.6, 1)]),
        (
            "Resize",
            {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 5.0},
            13,
            [floats(0, 0, 0, 0, 1, 1, 2, 2), None, ints(1, 1, 4, 4)],
        ),
        ("Hardmax", {}, 13, []),
    ],
)
def test_what_the_standard_leaves_open_is_an_unknown_function(
    op: str, attributes: Any, version: int, constants: Any
) -> None:
    from ops_support import float64

    proto = node_model(op, [values((1, 1, 5, 4))], attributes, version, constants=constants)
    from onnx import shape_inference

    proto = shape_inference.infer_shapes(proto, data_prop=True)
    assert float64(proto, {"x0": values((1, 1, 5, 4))})[0].opaque


ENDS = (0, 2, 5, 7, -1, -6, -9, 2**31 - 2, 2**31 - 1, -(2**31), 2**63 - 2, 2**63 - 1, 3 - 2**63, -(2**63))


@pytest.mark.parametrize("step", [1, 2, -1, -2, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("start", ENDS)
def test_a_slice_from_and_to_beyond_the_ends(start: int, step: int) -> None:
    x = values((5,))
    for end in ENDS:
        proto = node_model("Slice", [x], {}, 13, constants=[ints(start), ints(end), ints(0), ints(step)])
        if step < 0 and end in (2**31 - 1, 2**63 - 1):  # onnxruntime takes these for the beginning, the standard does not
            with pytest.raises(Undecided, match="Slice backwards with"):
                assert_agrees(proto, {"x0": x})
        else:
            assert_agrees(proto, {"x0": x})


GAPS: dict[str, Any] = {"kernel_shape": [1], "strides": [3], "ceil_mode": 1}


@pytest.mark.parametrize(
    ("op", "attributes", "constants", "outputs", "message"),
    [
        ("Pad", {}, [ints(-2, 0, -1, 0)], 1, "crops more of"),
        ("MaxPool", GAPS, [], 2, "MaxPool with Indices; its shape in ceil"),
        ("AveragePool", {**GAPS, "auto_pad": "SAME_UPPER"}, [], 1, "auto_pad SAME and gaps: .*; its shape in ceil"),
    ],
)
def test_a_shape_that_shape_inference_has_wrong_is_not_believed(
    op: str, attributes: dict[str, Any], constants: list[Any], outputs: int, message: str
) -> None:
    x = values((2, 2) if op == "Pad" else (1, 1, 5))
    with pytest.raises(Undecided, match=message):
        assert_agrees(node_model(op, [x], attributes, 13, outputs, constants=constants), {"x0": x})


@pytest.mark.parametrize("index", [-4, 3, -(2**63), 2**63 - 1])
def test_elements_gathered_from_beyond_a_concrete_axis(index: int) -> None:
    """onnx.reference looks for the place of the largest integers for years, and finds one for the others."""
    node = Node("", "GatherElements", 13, "n", {"axis": 0}, 2, 1, (True,) * 2, (True,))
    with pytest.raises(Undecided, match="beyond the 3 elements of its axis 0"):
        reference.run(node, [np.arange(3), np.array([0, index])])


def test_what_the_standard_leaves_open_is_not_folded_either() -> None:
    from ops_support import model

    from graphcheck.api import compare

    head = "g (float[1,1,1,2] x) => (float[1,1,1,2] y) <float[1,1,2,4] c = {1,2,3,4,5,6,7,8}, float[4] s = {1,1,0.6,0.6}>"
    resize = '{ r = Resize<mode = "linear", coordinate_transformation_mode = "align_corners">(c, , s) y = Add(x, r) }'
    seen = "g (float[1,1,1,2] x) => (float[1,1,1,2] y) <float[1,1,1,2] r = {1, 3.142857074737549}> { y = Add(x, r) }"
    assert compare(model(f"{head} {resize}"), model(seen), graphs=False, run=False).verdict == "undecided"


def test_the_implementation_of_an_operator_is_that_of_onnx_reference() -> None:
    """It is found without the list of all operators; every operator and opset of that list."""
    from onnx.reference.ops import _op_list

    def given(load: Any, *which: Any) -> Any:
        try:
            return load(*which)
        except RuntimeError as error:  # no implementation of that version
            return str(error)

    for op_type in _op_list._build_registered_operators():
        for version in range(1, onnx.defs.onnx_opset_version() + 1):
            expected = given(_op_list.load_op, "", op_type, version)
            assert given(reference.implementation, op_type, version) == expected, (op_type, version)
