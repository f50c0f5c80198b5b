"""Small nets and their int8 copies by onnxruntime's quantizers: dynamic, static QDQ and QOperator, per tensor and per channel."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'


def _made(text: str, **constants: Any) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"{HEAD} {text}")
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{i}"
    return model


def mlp() -> onnx.ModelProto:
    """Two MatMuls with biases and a Relu."""
    rng = np.random.default_rng(0)
    return _made(
        """g (float[N,16] x) => (float[N,8] y) {
        h = MatMul (x, w1) hb = Add (h, b1) r = Relu (hb) o = MatMul(r, w2) y = Add(o, b2) }""",
        w1=rng.standard_normal((16, 32)) * 0.2,
        b1=rng.standard_normal(32) * 0.1,
        w2=rng.standard_normal((32, 8)) * 0.2,
        b2=rng.standard_normal(8),
    )


def cnn(activation: str = "Relu") -> onnx.ModelProto:
    """Conv, BatchNormalization and ``activation`` (Relu or Clip), MaxPool, grouped, a residual, a pool and a Gemm."""
    rng = np.random.default_rng(0)
    bounds = ", zero, six" if activation == "Clip" else ""
    norms: dict[str, Any] = {}
    for i in (1, 2):
        norms |= {f"g{i}": rng.uniform(0.5, 2, 8), f"be{i}": rng.standard_normal(8) * 0.2}
        norms |= {f"mu{i}": rng.standard_normal(8) * 0.1, f"va{i}": rng.uniform(0.5, 2, 8)}
    return _made(
        f"""g (float[N,3,8,8] x) => (float[N,5] y) {"<float zero = {0}, float six = {6}>" if bounds else ""} {{
        c1 = Conv <pads = [1,1,1,1]> (x, w1, b1) n1 = BatchNormalization (c1, g1, be1, mu1, va1) r1 = {activation} (n1{bounds})
        p1 = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (r1)
        c2 = Conv <pads = [1,1,1,1], group = 4> (p1, w2, b2) n2 = BatchNormalization (c2, g2, be2, mu2, va2)
        r2 = {activation} (n2{bounds}) s = Add (r2, p1) p2 = GlobalAveragePool (s) f = Flatten (p2)
        y = Gemm <transB = 1> (f, w3, b3) }}""",
        w1=rng.standard_normal((8, 3, 3, 3)) * 0.3,
        b1=rng.standard_normal(8) * 0.1,
        w2=rng.standard_normal((8, 2, 3, 3)) * 0.3,
        b2=rng.standard_normal(8) * 0.1,
        w3=rng.standard_normal((5, 8)),
        b3=rng.standard_normal(5),
        **norms,
    )


def vit() -> onnx.ModelProto:
    """A block of attention and a GELU behind LayerNormalizations; one of their biases is used twice."""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) * 0.3

    weights = {f"w{name}": drawn(16, 16) for name in "qkvo"} | {f"b{name}": drawn(16) for name in "qkvo"}
    return _made(
        """g (float[N,6,16] x) => (float[N,10] y) <int64[4] heads = {0,0,2,8}, int64[3] flat = {0,0,16}, int64 first = {0}> {
        e = Add (x, pos) n1 = LayerNormalization (e, g1, be1)
        q0 = MatMul (n1, wq) q1 = Add (q0, bq) q2 = Reshape (q1, heads) q = Transpose <perm = [0,2,1,3]> (q2)
        k0 = MatMul (n1, wk) k1 = Add (k0, bk) k2 = Reshape (k1, heads) k = Transpose <perm = [0,2,3,1]> (k2)
        v0 = MatMul (n1, wv) v1 = Add (v0, bv) v2 = Reshape (v1, heads) v = Transpose <perm = [0,2,1,3]> (v2)
        s0 = MatMul (q, k) s = Mul (s0, scale) p = Softmax <axis = -1> (s) o0 = MatMul (p, v)
        o1 = Transpose <perm = [0,2,1,3]> (o0) o2 = Reshape (o1, flat) o3 = MatMul (o2, wo) o = Add (o3, bo) e2 = Add (o, e)
        n2 = LayerNormalization (e2, g2, be2) f0 = MatMul (n2, wf1) f1 = Add (f0, bf1)
        d = Div (f1, root) h0 = Erf (d) h1 = Add (h0, one) h2 = Mul (f1, h1) h = Mul (h2, half)
        f2 = MatMul (h, wf2) f = Add (f2, bf2) e3 = Add (f, e2) n3 = LayerNormalization (e3, g1, be2)
        c = Gather <axis = 1> (n3, first) y0 = MatMul (c, wh) y = Add (y0, bh) }""",
        **weights,
        pos=drawn(6, 16),
        g1=1 + drawn(16),
        be1=drawn(16),
        g2=1 + drawn(16),
        be2=drawn(16),
        wf1=drawn(16, 64),
        bf1=drawn(64),
        wf2=drawn(64, 16),
        bf2=drawn(16),
        wh=drawn(16, 10),
        bh=drawn(10),
        scale=8**-0.5,
        root=2**0.5,
        one=1,
        half=0.5,
    )


def lstm() -> onnx.ModelProto:
    """An LSTM of three steps and a MatMul."""
    rng = np.random.default_rng(0)
    return _made(
        """g (float[3,1,8] x) => (float[3,1,4] y) <int64[1] one = {1}> {
        h, last, cell = LSTM <hidden_size = 6> (x, w, r, b) s = Squeeze (h, one) y = MatMul (s, w2) }""",
        w=rng.standard_normal((1, 24, 8)) * 0.3,
        r=rng.standard_normal((1, 24, 6)) * 0.3,
        b=rng.standard_normal((1, 48)) * 0.1,
        w2=rng.standard_normal((6, 4)),
    )


def packed(model: onnx.ModelProto, bits: int = 4, *, symmetric: bool = True) -> onnx.ModelProto:
    """A copy whose MatMuls are MatMulNBits in blocks of 16."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        made = MatMulNBitsQuantizer(onnx.ModelProto.FromString(model.SerializeToString()), bits, 16, symmetric)
        made.process()
    finally:
        logging.disable(level)
    copy: onnx.ModelProto = made.model.model
    return copy


NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": mlp, "cnn": cnn, "relu6": lambda: cnn("Clip"), "vit": vit, "lstm": lstm
}  # fmt: skip


def calibration(model: onnx.ModelProto, count: int = 4) -> list[dict[str, np.ndarray]]:
    """Normal inputs for the static quantizers, by name."""
    rng = np.random.default_rng(1)
    return [
        {
            port.name: rng.standard_normal([d.dim_value or 2 for d in port.type.tensor_type.shape.dim]).astype(np.float32)
            for port in model.graph.input
        }
        for _ in range(count)
    ]


class _Inputs:
    """These, one after the other."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.feeds: Iterator[dict[str, np.ndarray]] = iter(calibration(model))

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next ones, by name."""
        return next(self.feeds, None)


def quantized(model: onnx.ModelProto, kind: str, *, folds: bool = True, **options: Any) -> onnx.ModelProto:
    """A copy by ``quantize_dynamic``, or by ``quantize_static`` to QDQ or QOperator, behind its own preparation if it ``folds``;
    ``options`` are those of onnxruntime, types by their names."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    given = {key: QuantType[value] if key.endswith("_type") else value for key, value in options.items()}
    level = logging.root.manager.disable
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place), warnings.catch_warnings():  # it leaves files behind
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            plain, ready, made = (str(Path(place, f"{name}.onnx")) for name in ("plain", "ready", "made"))
            onnx.save(model, plain)
            if kind == "dynamic":
                quantize_dynamic(plain, made, **given)
            else:
                if folds:
                    try:
                        quant_pre_process(plain, ready)
                    except Exception:  # its own inference of shapes fails on some exports
                        quant_pre_process(plain, ready, skip_symbolic_shape=True)
                else:
                    onnx.save(model, ready)
                quantize_static(ready, made, _Inputs(model), quant_format=QuantFormat[kind], **given)
            return onnx.load(made)
        finally:
            logging.disable(level)


COPIES: dict[str, dict[str, Any]] = {
    "dynamic": {"kind": "dynamic", "weight_type": "QUInt8"},
    "dynamic, per channel": {"kind": "dynamic", "weight_type": "QInt8", "per_channel": True},
    "dynamic, seven bits": {"kind": "dynamic", "weight_type": "QInt8", "reduce_range": True},
    "QDQ": {"kind": "QDQ", "folds": False},
    "QDQ, unsigned": {"kind": "QDQ", "activation_type": "QUInt8", "weight_type": "QInt8"},
    "QDQ, per channel": {"kind": "QDQ", "per_channel": True},
    "QDQ, symmetric": {"kind": "QDQ", "extra_options": {"ActivationSymmetric": True}},
    "QDQ, weights in the graph": {"kind": "QDQ", "extra_options": {"AddQDQPairToWeight": True}},
    "QOperator": {"kind": "QOperator", "activation_type": "QUInt8", "weight_type": "QInt8"},
    "QOperator, per channel": {
        "kind": "QOperator", "activation_type": "QUInt8", "weight_type": "QUInt8", "per_channel": True
    },
}  # fmt: skip


def one_step(q: np.ndarray) -> np.ndarray:
    """The element that is nearest to the middle of the positive ones, one step on."""
    flat = q.reshape(-1).copy()
    flat[np.argmin(np.abs(flat.astype(int) - 60))] += 1
    return flat.reshape(q.shape)
