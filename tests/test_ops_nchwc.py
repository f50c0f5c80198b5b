"""The operators of com.microsoft.nchwc: in float64 beside onnxruntime, and pairs of a net with its level "all"."""

# ruff: noqa: E501 (graphs as text are kept on their lines)

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from ops_support import assert_agrees, float64, run, values

import graphcheck
from graphcheck.kernel.ops import nchwc

HEADER = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "com.microsoft.nchwc": 1]>\n'


def net(text: str, **weights: np.ndarray) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(HEADER + text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(w, name) for name, w in weights.items())
    return proto


def level_all(proto: onnx.ModelProto, tmp_path: Any) -> onnx.ModelProto:
    """What onnxruntime writes of it at level "all"; the test is skipped where that has no blocks."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "all.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    written = onnx.load(tmp_path / "all.onnx")
    if not any(n.domain == nchwc.DOMAIN for n in written.graph.node):
        pytest.skip("onnxruntime has no blocks of channels on this kind of machine")
    return written


def operators(proto: onnx.ModelProto) -> set[str]:
    return {n.op_type for n in proto.graph.node if n.domain == nchwc.DOMAIN}


def stored(w: np.ndarray, b: int, both: bool) -> np.ndarray:
    """Weights [M, C, kH, kW] one by one in the order in which mlas writes them."""
    many, c, kh, kw = w.shape
    flat = []
    for o in range(0, many, b):
        for i in range(0, c, b if both else 1):
            for y, x, k, n in itertools.product(range(kh), range(kw), range(b if both else 1), range(b)):
                flat.append(w[o + n, i + k, y, x])
    return np.asarray(flat, w.dtype).reshape(w.shape)


@pytest.fixture(params=[8, 16])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine of either block size."""
    monkeypatch.setattr(nchwc, "machine_block", lambda: request.param)
    return int(request.param)


def test_this_machine_has_the_blocks_that_it_is_said_to_have() -> None:
    text = "g (float[1,4,1,1] x) => (float[a,b,c,d] y) { y = com.microsoft.nchwc.ReorderInput(x) }"
    size = nchwc.machine_block()
    if size is None:
        pytest.skip("onnxruntime has no blocks of channels on this kind of machine")
    assert run(net(text), {"x": values((1, 4, 1, 1))})[0].shape[1] == size


def test_reorder_lays_channels_in_blocks(block: int) -> None:
    x = values((2, 20, 3, 2))
    found = float64(net("g (float[2,20,3,2] x) => (float[a,b,c,d] y) { y = com.microsoft.nchwc.ReorderInput(x) }"), {"x": x})[0].value
    full = -(-20 // block) * block
    wide = np.concatenate([x, np.zeros((2, full - 20, 3, 2))], axis=1)
    flat = [wide[n, c + k, h, w] for n, c, h, w, k in itertools.product(range(2), range(0, full, block), range(3), range(2), range(block))]
    assert np.array_equal(found.reshape(-1), flat)


def test_reorder_there_and_back_is_nothing(block: int) -> None:
    text = "g (float[2,20,3,2] x) => (float[2,20,3,2] y) {{ {} }}"
    there = "b = com.microsoft.nchwc.ReorderInput(x) y = com.microsoft.nchwc.ReorderOutput<channels = 20>(b)"
    last = "t = Transpose<perm = [0, 2, 3, 1]>(x) b = com.microsoft.nchwc.ReorderInput<channels_last = 1>(t) z = com.microsoft.nchwc.ReorderOutput<channels = 20, channels_last = 1>(b) y = Transpose<perm = [0, 3, 1, 2]>(z)"
    short = "b = com.microsoft.nchwc.ReorderInput(x) y = com.microsoft.nchwc.ReorderOutput<channels = 19>(b)"
    for body in (there, last):
        found = graphcheck.compare(net(text.format("y = Identity(x)")), net(text.format(body)), run=False)
        assert found.verdict == "proved"
        assert f"in blocks of {block} channels" in " ".join(found.to_json()["proof"]["assumptions"])
    assert float64(net(text.format(short)), {"x": values((2, 20, 3, 2))})[0].value.shape == (2, 19, 3, 2)


def conv(channels: int, filters: int, groups: int, blocked: str, more: str = "") -> str:
    """Conv with pads by ``w`` and ``b`` on x, in ONNX's domain or (``blocked``: how its input is called) in blocks."""
    attributes = f"group = {groups}, kernel_shape = [3, 2], pads = [1, 0, 1, 1], strides = [2, 1]{more}"
    shapes = f"(float[1,{channels},5,4] x) => (float[1,{filters},3,4] y)"
    if not blocked:
        return f"g {shapes} {{ y = Conv<{attributes}>(x, w, b) }}"
    reorder = "" if blocked == "x" else f"{blocked} = com.microsoft.nchwc.ReorderInput(x)"
    return f"g {shapes} {{ {reorder} t = com.microsoft.nchwc.Conv<{attributes}>({blocked}, w, b) y = com.microsoft.nchwc.ReorderOutput<channels = {filters}>(t) }}"


@pytest.mark.parametrize(
    ("channels", "filters", "groups"), [(3, 16, 1), (32, 16, 1), (16, 48, 1), (32, 32, 32), (32, 64, 2), (5, 20, 1)]
)
def test_conv_in_blocks_is_conv(channels: int, filters: int, groups: int, block: int) -> None:
    w, b = values((filters, channels // groups, 3, 2), 1), values((1, filters), 2).reshape(-1)
    full = -filters % block
    wide, bias = np.pad(w, ((0, full), (0, 0), (0, 0), (0, 0))), np.pad(b, (0, full))
    both = channels >= block and groups < channels
    plain = net(conv(channels, filters, groups, ""), w=w, b=b)
    name = "r" if channels >= block else "x"
    inside = net(conv(channels, filters, groups, name), w=stored(wide, block, both), b=bias)
    assert graphcheck.compare(plain, inside, run=False).verdict == "proved"
    mutant = stored(wide, block, both)
    mutant.flat[[0, 5]] = mutant.flat[[5, 0]]
    for wrong in (net(conv(channels, filters, groups, name), w=mutant, b=bias), net(conv(channels, filters, groups, name, ", dilations = [1, 1]").replace("[1, 0, 1, 1]", "[0, 1, 2, 0]"), w=stored(wide, block, both), b=bias)):
        assert graphcheck.compare(plain, wrong, run=False).verdict in ("different", "undecided")
    feeds = {"x": values((1, channels, 5, 4))}
    off = np.abs(float64(inside, feeds)[0].value - run(plain, feeds)[0]).max()
    assert off < 1e-4


def test_a_file_of_other_blocks_is_undecided_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    text, weights = conv(3, 24, 1, "x"), {"w": stored(values((24, 3, 3, 2)), 8, False), "b": values((1, 24)).reshape(-1)}
    for size, verdict in ((8, "proved"), (16, "undecided"), (None, "undecided")):
        monkeypatch.setattr(nchwc, "machine_block", lambda size=size: size)
        found = graphcheck.compare(net(conv(3, 24, 1, ""), w=values((24, 3, 3, 2)), b=weights["b"]), net(text, **weights), run=False)
        assert found.verdict == verdict
        if size == 16:
            assert "onnxruntime has blocks of 16 channels, no divisor of 24, on this kind of machine" in str(found)


# A net and the operators in blocks that onnxruntime writes for it.
NETS: dict[str, tuple[str, Callable[[], dict[str, np.ndarray]], set[str]]] = {
    "stem, pool, residual": (
        """g (float[1,3,12,12] x) => (float[1,5] y) {
          c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w, b)
          r = Relu(c)
          p = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(r)
          d = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p, v, b)
          a = Add(d, p)
          s = Relu(a)
          k = Concat<axis = 1>(s, p)
          e = Conv<kernel_shape = [1, 1]>(k, u, b)
          f = LeakyRelu<alpha = 0.3>(e)
          g = GlobalAveragePool(f)
          h = Flatten(g)
          y = MatMul(h, m)
        }""",
        lambda: {
            "w": values((32, 3, 3, 3), 1),
            "v": values((32, 32, 3, 3), 2) / 8,
            "u": values((32, 64, 1, 1), 3) / 8,
            "b": values((1, 32), 4).reshape(-1),
            "m": values((32, 5), 5),
        },
        {"Conv", "MaxPool", "GlobalAveragePool", "ReorderOutput"},
    ),
    "narrow, average pool": (
        """g (float[2,4,9,8] x) => (float[2,32,5,4] y) {
          c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(x, w, b)
          s = Sigmoid(c)
          e = Conv<kernel_shape = [1, 1]>(s, v)
          t = Tanh(e)
          f = Conv<kernel_shape = [1, 1]>(t, u)
          y = AveragePool<kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 1, 0], count_include_pad = 1>(f)
        }""",
        lambda: {"w": values((20, 4, 3, 3), 1), "b": values((1, 20), 2).reshape(-1), "v": values((20, 20, 1, 1), 3), "u": values((32, 20, 1, 1), 4)},
        {"Conv", "AveragePool"},
    ),
    "depthwise, global maximum": (
        """g (float[1,3,8,8] x) => (float[1,32,1,1] y) {
          c = Conv<kernel_shape = [3, 3], strides = [2, 2]>(x, w)
          d = Conv<kernel_shape = [3, 3], pads = [2, 2, 2, 2], dilations = [2, 2], group = 32>(c, v)
          k = Clip(d, lo, hi)
          e = Conv<kernel_shape = [1, 1], group = 2>(k, u)
          a = AveragePool<kernel_shape = [2, 2], pads = [1, 1, 0, 0]>(e)
          y = GlobalMaxPool(a)
        }""",
        lambda: {
            "w": values((32, 3, 3, 3), 1),
            "v": values((32, 1, 3, 3), 2),
            "u": values((32, 16, 1, 1), 3),
            "lo": np.asarray(0, np.float32),
            "hi": np.asarray(6, np.float32),
        },
        {"Conv", "AveragePool", "GlobalMaxPool"},
    ),
    **{
        f"upsample {mode} {how}": (
            f"""g (float[1,3,4,3] x) => (float[1,16,8,9] y) <float[4] s = {{1, 1, 2, 3}}> {{
              c = Conv<kernel_shape = [1, 1]>(x, w)
              r = Resize<mode = "{mode}", coordinate_transformation_mode = "{how}"{', nearest_mode = "floor"' if mode == "nearest" else ""}>(c, , s)
              y = Conv<kernel_shape = [1, 1]>(r, v)
            }}""",
            lambda: {"w": values((16, 3, 1, 1), 1), "v": values((16, 16, 1, 1), 2)},
            {"Conv", "Upsample"},
        )
        for mode, how in [("nearest", "asymmetric"), ("linear", "asymmetric"), ("linear", "half_pixel"), ("linear", "align_corners")]
    },
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_what_onnxruntime_writes_at_level_all_is_the_same_function(name: str, tmp_path: Any) -> None:
    text, weights, wanted = NETS[name]
    before = net(text, **weights())
    after = level_all(before, tmp_path)
    assert wanted <= operators(after)
    feeds = {"x": values(tuple(d.dim_value for d in before.graph.input[0].type.tensor_type.shape.dim))}
    assert_agrees(after, feeds)
    assert_agrees(after, feeds, normalize=False)
    assert graphcheck.compare(before, after, run=False).verdict == "proved"


def damaged(proto: onnx.ModelProto, how: str) -> onnx.ModelProto:
    """A level-all file with one fault in a node or a weight of its last Conv but one, or of its pool."""
    wrong = onnx.ModelProto.FromString(proto.SerializeToString())
    node = [n for n in wrong.graph.node if n.domain == nchwc.DOMAIN and n.op_type == ("MaxPool" if how == "pool" else "Conv")][0 if how == "pool" else 1]
    if how == "weights":
        tensor = next(t for t in wrong.graph.initializer if t.name == node.input[1])
        w = onnx.numpy_helper.to_array(tensor).copy()
        w.flat[[0, 300]] = w.flat[[300, 0]]
        tensor.CopyFrom(onnx.numpy_helper.from_array(w, tensor.name))
    elif how == "activation":
        del node.attribute[next(i for i, a in enumerate(node.attribute) if a.name == "activation")]
    elif how == "sum":
        node.input.pop()
    else:
        pads = next(a for a in node.attribute if a.name == "pads")
        pads.ints[:] = [0, 2, 2, 0]
    return wrong


@pytest.mark.parametrize("how", ["weights", "pads", "activation", "sum", "pool"])
def test_a_fault_in_blocks_is_different(how: str, tmp_path: Any) -> None:
    text, weights, _ = NETS["stem, pool, residual"]
    before = net(text, **weights())
    found = graphcheck.compare(before, damaged(level_all(before, tmp_path), how))
    assert found.verdict == "different"


SCALED = "g (float[2,3,4,4] x) => (float[2,3,2,2] y) {{ c = Conv<kernel_shape = [2, 2], strides = [2, 2], group = 3>(x, w) {} }}"


@pytest.mark.parametrize(("scale", "verdict"), [((1.5, 2.0, 3.0), "proved"), ((1.5, 3.0, 2.0), "different")])
def test_a_scale_as_a_conv_of_one_element_is_the_product(scale: tuple[float, ...], verdict: str) -> None:
    """onnxruntime writes the Mul of a BatchNormalization in blocks as a depthwise 1x1 Conv."""
    w, s = values((3, 1, 2, 2), 1), np.asarray(scale, np.float32)
    product = net(SCALED.format("y = Mul(c, s)"), w=w, s=np.asarray([[[1.5]], [[2]], [[3]]], np.float32))
    found = graphcheck.compare(product, net(SCALED.format("y = Conv<group = 3>(c, s)"), w=w, s=s.reshape(3, 1, 1, 1)), run=False)
    assert found.verdict == verdict
    if verdict == "proved":
        assert found.to_json()["proof"]["tier"] == "congruence"


def test_a_tensor_that_leaves_its_blocks_by_another_operator_is_not_the_plain_one(block: int) -> None:
    """Relu keeps the order; Softmax over the last axis sees the channels of a block."""
    head = "g (float[1,16,3,3] x) => (float[1,16,3,3] y)"
    back = "y = com.microsoft.nchwc.ReorderOutput<channels = 16>(t)"
    for op, verdict in (("Relu(", "proved"), ("Softmax<axis = 3>(", None)):
        plain = net(f"{head} {{ y = {op}x) }}")
        inside = net(f"{head} {{ r = com.microsoft.nchwc.ReorderInput(x) t = {op}r) {back} }}")
        assert (graphcheck.compare(plain, inside, run=False).verdict == "proved") == (verdict == "proved")
    as_it_lies = net(f"{head} {{ y = com.microsoft.nchwc.ReorderInput(x) }}")
    assert graphcheck.compare(net(f"{head} {{ y = Identity(x) }}"), as_it_lies, run=False).verdict == "different"


@pytest.mark.parametrize(("attributes", "opaque"), [("", False), (', coordinate_transformation_mode = "half_pixel"', True), (', mode = "cubic"', True)])
def test_an_upsample_that_onnxruntime_refuses_is_an_unknown_function(attributes: str, opaque: bool, block: int) -> None:
    text = f"g (float[1,16,2,2] x) => (float[1,16,4,6] y) {{ y = com.microsoft.nchwc.Upsample<scales = [1, 1, 2, 3]{attributes}>(x) }}"
    assert float64(net(text), {"x": values((1, 16, 2, 2))})[0].opaque == opaque
