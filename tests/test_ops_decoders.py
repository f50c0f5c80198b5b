"""The operators of decoders (rotary embedding, grouped queries, weights in few bits) beside onnxruntime, and a small decoder
as the model builder writes it beside one of plain operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from ops_support import assert_agrees, floats, ints, model, node_model, values

from graphcheck.verdicts.compare import compare

DOMAIN = "com.microsoft"
CACHE = [np.cos(values((16, 4), 5)), np.sin(values((16, 4), 5))]
WIDE = [np.cos(values((16, 8), 5)), np.sin(values((16, 8), 5))]


def check(op: str, inputs: list[Any], attributes: dict[str, Any], constants: Any = (), outputs: int = 1) -> None:
    proto = node_model(op, inputs, attributes, 18, outputs, DOMAIN, constants)
    feeds = {f"x{i}": x for i, x in enumerate(inputs)}
    assert_agrees(proto, feeds, units=256)
    assert_agrees(proto, feeds, units=256, normalize=False)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize(
    ("shape", "attributes"), [((2, 3, 3, 8), {}), ((2, 3, 24), {}), ((2, 3, 20), {"num_heads": 2, "rotary_embedding_dim": 8})]
)
@pytest.mark.parametrize("positions", [ints(4), np.asarray([[3, 0, 15], [1, 2, 3]])])
def test_rotary_embedding(interleaved: int, shape: tuple[int, ...], attributes: dict[str, int], positions: Any) -> None:
    check("RotaryEmbedding", [values(shape)], {"interleaved": interleaved, **attributes}, [positions, *CACHE])


@pytest.mark.parametrize("rotary", [{}, {"do_rotary": 1}, {"do_rotary": 1, "rotary_interleaved": 1}])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("past", "scale"), [(0, 0.0), (3, 0.0), (2, 0.4)])
def test_group_query_attention(rotary: dict[str, int], packed: bool, past: int, scale: float) -> None:
    heads, shared, size, length = 4, 2, 16, 1 if past else 5
    qkv = [values((2, length, n * size), n) for n in (heads, shared, shared + 1)]
    qkv[2] = qkv[2][..., : shared * size]
    inputs = [np.concatenate(qkv, -1)] if packed else qkv
    kept = [values((2, shared, past, size), 8), values((2, shared, past, size), 9)]
    lengths = [np.full(2, past + length - 1, np.int32), np.asarray(past + length, np.int32)]
    attributes = {"num_heads": heads, "kv_num_heads": shared, "scale": scale, **rotary}
    constants = [*([None, None] if packed else []), *kept, *lengths, *(WIDE if rotary else [])]
    check("GroupQueryAttention", inputs, attributes, constants, 3)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero", [False, True])
def test_matmul_of_weights_in_few_bits(bits: int, zero: bool) -> None:
    n, k, block = 6, 48, 32
    random = np.random.default_rng(0)
    blocks = -(-k // block)
    b = random.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    scales = np.abs(values((n * blocks,), 3)) * np.float32(0.1)
    points = [random.integers(0, 256, n * -(-blocks * bits // 8)).astype(np.uint8)] if zero else []
    check("MatMulNBits", [values((2, 3, k))], {"K": k, "N": n, "bits": bits, "block_size": block}, [b, scales, *points])


def test_weights_in_few_bits_are_those_that_are_dequantized() -> None:
    b = np.random.default_rng(0).integers(0, 256, (4, 1, 8)).astype(np.uint8)
    scales = floats(0.1, 0.2, 0.3, 0.7)
    sizes = {"K": 16, "N": 4, "bits": 4, "block_size": 16}
    packed = node_model("MatMulNBits", [values((2, 16))], sizes, 18, 1, DOMAIN, [b, scales])
    whole = np.stack([b[:, 0] & 15, b[:, 0] >> 4], 2).reshape(4, 16).astype(np.float32) - 8
    weight = (whole * scales[:, None]).T

    def plain(weight: np.ndarray) -> onnx.ModelProto:
        return node_model("MatMul", [values((2, 16))], {}, 18, 1, "", [np.ascontiguousarray(weight)])

    for proto in (packed, plain(weight)):
        proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y0", TensorProto.FLOAT, [2, 4]))
    other = plain(weight)
    other.graph.output[0].CopyFrom(packed.graph.output[0])
    assert compare(packed, other).verdict == "proved"
    weight[3, 2] += scales[2]
    other = plain(weight)
    other.graph.output[0].CopyFrom(packed.graph.output[0])
    assert compare(packed, other).verdict == "different"


# -- a decoder's layer: as onnxruntime's model builder writes it, and of plain operators -------------------------------

HEADS, SHARED, SIZE, LENGTH, HIDDEN = 4, 2, 16, 5, 64


def _weights() -> dict[str, np.ndarray]:
    shapes = {"wq": (HIDDEN, HIDDEN), "wk": (HIDDEN, SHARED * SIZE), "wv": (HIDDEN, SHARED * SIZE), "wo": (HIDDEN, HIDDEN)}
    found = {name: values(shape, i) / np.float32(8) for i, (name, shape) in enumerate(shapes.items())}
    angles = np.arange(16)[:, None] * 10000 ** (-np.arange(8) / 8)
    more = {"cos": np.cos(angles), "sin": np.sin(angles), "g1": 1 + values((HIDDEN,), 7) / 9, "g2": 1 + values((HIDDEN,), 8) / 9}
    return found | {name: x.astype(np.float32) for name, x in more.items()}


def _decoder(body: str, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    inputs = f"float[2,{LENGTH},{HIDDEN}] x"
    proto = model(f"g ({inputs}) => (float[2,{LENGTH},{HIDDEN}] y, float[2,{LENGTH},{HIDDEN}] residual) {{ {body} }}", 23)
    proto.graph.initializer.extend(numpy_helper.from_array(x, name) for name, x in constants.items())
    return proto


def built(gamma: str = "g2") -> onnx.ModelProto:
    """RMSNorm, GroupQueryAttention with its own rotary embedding, and the residual with the next norm, fused."""
    ms = "com.microsoft."
    body = f"""n = SimplifiedLayerNormalization <axis = -1, epsilon = 0.00001, stash_type = 1> (x, g1)
        q = MatMul (n, wq) k = MatMul (n, wk) v = MatMul (n, wv)
        a, pk, pv = {ms}GroupQueryAttention <num_heads = {HEADS}, kv_num_heads = {SHARED}, do_rotary = 1>
            (q, k, v, , , lengths, total, cos, sin)
        o = MatMul (a, wo)
        y, mean, inv, residual = {ms}SkipSimplifiedLayerNormalization <epsilon = 0.00001> (x, o, {gamma})"""
    body = body.replace("y, mean, inv, residual", "y, , , residual")
    lengths = {"lengths": np.full(2, LENGTH - 1, np.int32), "total": np.asarray(LENGTH, np.int32)}
    return _decoder(body, _weights() | lengths)


def exported(turn: str = "Neg (b{0})", masked: int = 0) -> onnx.ModelProto:
    """The same by rotate_half, repeated keys and values, a causal mask and RMSNormalization."""
    weights = _weights()
    cos, sin = (np.concatenate([weights.pop(name)[:LENGTH]] * 2, -1) for name in ("cos", "sin"))
    mask = np.triu(np.full((LENGTH, LENGTH), -np.inf, np.float32), 1 + masked)
    more = {"cos": cos, "sin": sin, "mask": mask, "scale": np.asarray(1 / np.sqrt(SIZE), np.float32)}
    more |= {"axis": ints(2), "heads": ints(0, LENGTH, -1, SIZE), "halves": ints(8, 8), "flat": ints(0, LENGTH, HIDDEN)}
    more |= {"wide": ints(1, 1, HEADS // SHARED, 1, 1), "joined": ints(0, HEADS, LENGTH, SIZE)}
    parts = [
        f"{at}0 = MatMul (n, w{at}) {at}1 = Reshape ({at}0, heads) {at}2 = Transpose <perm = [0,2,1,3]> ({at}1)" for at in "qkv"
    ]
    parts += [
        f"a{at}, b{at} = Split <axis = -1> ({at}2, halves) m{at} = {turn.format(at)} r{at} = Concat <axis = -1> (m{at}, a{at})"
        f" c{at} = Mul ({at}2, cos) s{at} = Mul (r{at}, sin) {at}3 = Add (c{at}, s{at})"
        for at in "qk"
    ]
    parts += [
        f"{at}4 = Unsqueeze ({last}, axis) {at}5 = Tile ({at}4, wide) {at}6 = Reshape ({at}5, joined)"
        for at, last in (("k", "k3"), ("v", "v2"))
    ]
    body = f"""n = RMSNormalization <axis = -1, epsilon = 0.00001> (x, g1) {" ".join(parts)}
        t = Transpose <perm = [0,1,3,2]> (k6) d = MatMul (q3, t) e = Mul (d, scale) f = Add (e, mask) p = Softmax (f)
        h = MatMul (p, v6) i = Transpose <perm = [0,2,1,3]> (h) j = Reshape (i, flat) o = MatMul (j, wo)
        residual = Add (x, o) y = RMSNormalization <axis = -1, epsilon = 0.00001> (residual, g2)"""
    return _decoder(body, weights | more)


def test_a_decoder_of_the_model_builder_is_its_export() -> None:
    found = compare(built(), exported())
    assert found.verdict == "proved", found.reason


@pytest.mark.parametrize("damage", [{"turn": "Identity (b{0})"}, {"masked": 1}], ids=["turned the other way", "sees the next"])
def test_a_decoder_that_departs_is_different(damage: dict[str, Any]) -> None:
    assert compare(built(), exported(**damage)).verdict == "different"
