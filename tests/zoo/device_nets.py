"""Networks for simulated devices: a ViT, Swin, ConvNeXt, ResNet, MobileViT, a text encoder, an LSTM, a detection head, QDQ."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tests.zoo import nets

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'
# Text nets: the inputs' draws are normal, the weights' too.
LSTM = """
net (float[7,2,12] x) => (float[2,5] y)
<float[1,64,12] w, float[1,64,16] r, float[1,128] b, float[1,96,16] w2, float[1,96,32] r2, float[32,5] v, float[5] c>
{
  h, last, cell = LSTM <hidden_size = 16> (x, w, r, b)
  s = Squeeze (h, one)
  t = Tanh (s)
  g, gate = GRU <hidden_size = 32, linear_before_reset = 1> (t, w2, r2)
  u = Squeeze (gate, none)
  z = Gemm (u, v, c)
  y = Softmax <axis = -1> (z)
}"""
HEAD = """
net (float[1,8,16,16] x) => (float[1,10,32,32] y, float[1,8,8,8] pooled)
<float[16,8,3,3] w, float[16] b, float[16,1,3,3] d, float[12,16,1,1] p, float[12] q, float[10,24,1,1] o,
 float[12] scale, float[12] shift, float[12] mean, float[12] var, float[4] twice = {1.0, 1.0, 2.0, 2.0}>
{
  c = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w, b)
  r = Relu (c)
  m = MaxPool <kernel_shape = [3,3], strides = [1,1], pads = [1,1,1,1]> (c)
  e = Conv <pads = [1,1,1,1], group = 16> (r, d)
  n = Conv (e, p, q)
  k = BatchNormalization <epsilon = 0.00001> (n, scale, shift, mean, var)
  l = HardSwish (k)
  a = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (l)
  z = Concat <axis = 1> (a, k)
  up = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (z, , twice)
  near = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (up, , twice)
  f = Conv (near, o)
  s = Sigmoid (f)
  i = Sub (s, f)
  y = Exp (i)
  pooled = Slice (m, begin, end, axes)
}"""
OWN: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": (LSTM, {"one": [1], "none": [0]}),
    "head": (HEAD, {"begin": [1], "end": [9], "axes": [1]}),
}


def _own(name: str) -> onnx.ModelProto:
    text, integers = OWN[name]
    model = onnx.parser.parse_model(f"{HEADER} {text}")
    random = np.random.default_rng(zlib.crc32(name.encode()))
    known = {t.name for t in model.graph.initializer}
    for value in list(model.graph.value_info):
        if value.name in known:
            continue
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        fan = max(1, int(np.prod(shape[1:]))) if len(shape) > 1 else 1
        x = (
            random.standard_normal(shape) * (2 / fan) ** 0.5
            if len(shape) > 1
            else random.standard_normal(shape) * 0.3 + 1
        )
        x = np.abs(x) + 0.3 if value.name == "var" else x
        model.graph.initializer.append(numpy_helper.from_array(x.astype(np.float32), value.name))
    for key, numbers in integers.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(numbers, np.int64), key))
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def _quantized() -> onnx.ModelProto:
    """A small net in QDQ form, its largest numbers cut by the quantizers."""
    text = """
    net (float[2,3,8,8] x) => (float[2,4,8,8] y)
    <float[4,3,3,3] w, float[4] b, float xs = {0.02}, int8 zero = {0}, float cs = {0.03}>
    {
      xq = QuantizeLinear (x, xs, zero)
      xd = DequantizeLinear (xq, xs, zero)
      c = Conv <pads = [1,1,1,1]> (xd, w, b)
      r = Relu (c)
      rq = QuantizeLinear (r, cs, zero)
      rd = DequantizeLinear (rq, cs, zero)
      y = Add (rd, rd)
    }"""
    model = onnx.parser.parse_model(f"{HEADER} {text}")
    random = np.random.default_rng(8)
    model.graph.initializer.append(
        numpy_helper.from_array(random.standard_normal((4, 3, 3, 3)).astype(np.float32) * 0.6, "w")
    )
    model.graph.initializer.append(numpy_helper.from_array(random.standard_normal(4).astype(np.float32), "b"))
    for node in model.graph.node:
        node.name = node.output[0]
    return model


def _exported(name: str) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        from tests.zoo import architectures

        return architectures.export(name, "torchscript")

    return build


def _transformers(which: str) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        import io

        import torch
        import transformers

        torch.manual_seed(zlib.crc32(which.encode()))
        common = {"hidden_size": 48, "num_attention_heads": 4, "intermediate_size": 96, "attn_implementation": "eager"}
        if which == "vit":
            config: Any = transformers.ViTConfig(image_size=32, patch_size=8, num_hidden_layers=12, **common)
            made, args = transformers.ViTModel(config, add_pooling_layer=False), (torch.zeros(1, 3, 32, 32),)
        else:
            config = transformers.BertConfig(vocab_size=90, num_hidden_layers=4, max_position_embeddings=24, **common)
            made = transformers.BertModel(config, add_pooling_layer=False)
            args = (torch.ones(2, 11, dtype=torch.int64), torch.ones(2, 11, dtype=torch.int64))

        class Hidden(torch.nn.Module):
            """The last hidden state."""

            def __init__(self) -> None:
                super().__init__()
                self.model = made.eval()

            def forward(self, *xs: Any) -> Any:
                return self.model(*xs).last_hidden_state

        with torch.no_grad():
            for key, parameter in made.named_parameters():
                noise = torch.randn_like(parameter)
                small = noise * 0.2 + float(key.endswith("weight"))
                parameter.copy_(noise * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else small)
            buffer = io.BytesIO()
            names = ["x0", "x1"][: len(args)]
            given: Any = (Hidden(), args, buffer)
            torch.onnx.export(*given, dynamo=False, opset_version=18, input_names=names, output_names=["y"])
        return onnx.load_model_from_string(buffer.getvalue())

    return build


NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    "head": lambda: _own("head"),
    "lstm": lambda: _own("lstm"),
    "detector": lambda: nets.net("detector"),
    "attention": lambda: nets.net("attention"),
    "qdq": _quantized,
    "resnet": _exported("resnet"),
    "convnext": _exported("convnext"),
    "yolo": _exported("yolo"),
    "vit": _transformers("vit"),
    "text": _transformers("text"),
    "mobilevit": _exported("mobilevit"),
    "swin": _exported("swin"),
}


def net(name: str, folder: Path | None = None) -> onnx.ModelProto:
    """A network; one that torch has to export is kept in ``folder``."""
    if folder is None or name in OWN or name in (*nets.NETS, "qdq"):
        return NETS[name]()
    path = folder / f"{name}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(NETS[name](), path)
    return onnx.load(path)


def inputs(name: str, model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    """Normal numbers; ids and masks of a text."""
    random = np.random.default_rng([seed, zlib.crc32(name.encode())])
    found = {}
    for value in model.graph.input:
        shape = [d.dim_value or 2 for d in value.type.tensor_type.shape.dim]
        x: np.ndarray = random.standard_normal(shape).astype(np.float32)
        if value.type.tensor_type.elem_type == onnx.TensorProto.INT64:
            mask = np.broadcast_to(np.arange(shape[1]) < shape[1] - 2, shape).astype(np.int64)
            x = random.integers(0, 90, shape) if value.name == "x0" else mask
        found[value.name] = x
    return found
