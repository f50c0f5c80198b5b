"""Tiny random models of more architectures, exported by both torch exporters: Swin, SegFormer, ConvNeXt, VideoMAE, ..."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import onnx

Module = Any


def _transformers(
    name: str, settings: dict[str, Any], pick: Callable[[Any], Any], **extra: Any
) -> Callable[[], Module]:
    def build() -> Module:
        import transformers

        model_class = getattr(transformers, name)
        config = model_class.config_class(**settings)
        config._attn_implementation = "eager"
        return _picked(
            model_class._from_config(config, attn_implementation="eager")
            if extra.get("plain")
            else model_class(config),
            pick,
        )

    return build


def _picked(model: Any, pick: Callable[[Any], Any]) -> Any:
    from torch import nn

    class Picked(nn.Module):
        """A model as a function from tensors to tensors."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *xs: Any) -> Any:
            return pick(self.model(*xs))

    return Picked()


def _hidden(result: Any) -> Any:
    return result.last_hidden_state


def _logits(result: Any) -> Any:
    return result.logits


# name -> (build, input shapes)
ARCHITECTURES: dict[str, tuple[Callable[[], Module], tuple[tuple[int, ...], ...]]] = {
    "swin": (
        _transformers(
            "SwinModel",
            {
                "image_size": 32,
                "patch_size": 2,
                "embed_dim": 8,
                "depths": [2, 2],
                "num_heads": [2, 2],
                "window_size": 4,
            },
            _hidden,
        ),
        ((1, 3, 32, 32),),
    ),
    "swinv2": (
        _transformers(
            "Swinv2Model",
            {
                "image_size": 32,
                "patch_size": 2,
                "embed_dim": 8,
                "depths": [2, 2],
                "num_heads": [2, 2],
                "window_size": 4,
            },
            _hidden,
        ),
        ((1, 3, 32, 32),),
    ),
    "segformer": (
        _transformers(
            "SegformerForSemanticSegmentation",
            {
                "hidden_sizes": [8, 16, 16, 16],
                "depths": [1, 1, 1, 1],
                "num_attention_heads": [1, 2, 2, 2],
                "decoder_hidden_size": 16,
                "num_labels": 5,
                "sr_ratios": [4, 2, 1, 1],
            },
            _logits,
        ),
        ((1, 3, 64, 64),),
    ),
    "convnext": (
        _transformers(
            "ConvNextModel", {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "image_size": 32}, _hidden
        ),
        ((1, 3, 32, 32),),
    ),
    "convnextv2": (
        _transformers(
            "ConvNextV2Model", {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "image_size": 32}, _hidden
        ),
        ((1, 3, 32, 32),),
    ),
    "videomae": (
        _transformers(
            "VideoMAEModel",
            {
                "image_size": 32,
                "patch_size": 8,
                "num_frames": 4,
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 32,
            },
            _hidden,
        ),
        ((1, 4, 3, 32, 32),),
    ),
    "resnet": (
        _transformers(
            "ResNetForImageClassification",
            {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "layer_type": "basic", "num_labels": 4},
            _logits,
        ),
        ((1, 3, 32, 32),),
    ),
    "mobilenet": (
        _transformers(
            "MobileNetV2Model",
            {"image_size": 32, "depth_multiplier": 0.25, "min_depth": 8, "depth_divisible_by": 8},
            _hidden,
        ),
        ((1, 3, 32, 32),),
    ),
    "mobilevit": (
        _transformers(
            "MobileViTModel",
            {
                "image_size": 64,
                "hidden_sizes": [8, 12, 16],
                "neck_hidden_sizes": [4, 8, 8, 8, 8, 8, 8],
                "num_attention_heads": 2,
            },
            _hidden,
        ),
        ((1, 3, 64, 64),),
    ),
    "detr-like decoder": (lambda: _decoder(), ((1, 9, 16), (1, 5, 16))),
    "qwen2-vl vision": (lambda: _qwen(), ((16, 3 * 2 * 4 * 4),)),
    "yolo": (lambda: _yolo(), ((1, 3, 32, 32),)),
}


RECURRENT: dict[str, tuple[Callable[[], Module], tuple[tuple[int, ...], ...]]] = {"lstm": (lambda: _lstm(), ((2, 6, 8),))}


# Each torch exporter folds their BatchNormalizations into the weights, in float32 and in an order of its own: then no
# graph says what the weights were, and two weights 2 ulps apart are undecided. One exporter is told not to.
FOLDED = frozenset({"resnet", "mobilenet", "mobilevit"})
# How far apart the exporters' weights are depends on the processor's vector instructions: of these they agree on one
# machine and are 2 to 8 ulps apart on another. Across exporters, one is told not to fold.
FOLDED_BY_MACHINE = frozenset({"yolo", "segformer"})


def _lstm() -> Module:
    from torch import nn

    class Tagger(nn.Module):
        """A bidirectional LSTM and a linear layer."""

        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(8, 12, batch_first=True, bidirectional=True), nn.Linear(24, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0])

    return Tagger()


def _decoder() -> Module:
    from torch import nn

    layer = nn.TransformerDecoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True)
    return nn.TransformerDecoder(layer, 2)


def _qwen() -> Module:
    import torch
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLVisionConfig
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

    config = Qwen2VLVisionConfig(depth=2, embed_dim=32, hidden_size=24, num_heads=2, patch_size=4, mlp_ratio=2)
    config._attn_implementation = "eager"
    model = Qwen2VisionTransformerPretrainedModel(config)

    class Tower(torch.nn.Module):
        """The tower at one grid of 1 x 4 x 4 patches."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.register_buffer("grid", torch.tensor([[1, 4, 4]]))

        def forward(self, patches: Any) -> Any:
            result = self.model(patches, grid_thw=self.grid)
            return getattr(result, "last_hidden_state", result)

    return Tower()


def _yolo() -> Module:
    import torch
    from torch import nn
    from torch.nn import functional

    def block(a: int, b: int, k: int = 1, s: int = 1) -> nn.Module:
        return nn.Sequential(nn.Conv2d(a, b, k, s, k // 2, bias=False), nn.BatchNorm2d(b), nn.SiLU())

    class Yolo(nn.Module):
        """Focus, CSP, SPPF, an upsampled neck and a sigmoid head with a grid of anchors."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.down, self.deep = block(12, 8, 3), block(8, 16, 3, 2), block(16, 16, 3, 2)
            self.one, self.two, self.bottle, self.csp = block(16, 8), block(16, 8), block(8, 8, 3), block(16, 16)
            self.squeeze, self.spread, self.pool = block(16, 8), block(32, 16), nn.MaxPool2d(5, 1, 2)
            self.neck, self.head = block(32, 16), nn.Conv2d(16, 3 * 7, 1)

        def forward(self, x: Any) -> Any:
            x = torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
            x = self.down(self.stem(x))
            side = self.csp(torch.cat([self.one(x) + self.bottle(self.one(x)), self.two(x)], 1))
            x = self.squeeze(self.deep(side))
            pooled = [x]
            for _ in range(3):
                pooled.append(self.pool(pooled[-1]))
            x = functional.interpolate(self.spread(torch.cat(pooled, 1)), scale_factor=2.0, mode="nearest")
            y = self.head(self.neck(torch.cat([x, side], 1)))
            b, _, h, w = y.shape
            y = y.view(b, 3, 7, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack((columns, rows), 2).view(1, 1, h, w, 2).to(y.dtype)
            xy, wh = (y[..., :2] * 2.0 - 0.5 + grid) * 8.0, (y[..., 2:4] * 2) ** 2 * 10.0
            return torch.cat([xy, wh, y[..., 4:]], -1).view(b, -1, 7)

    return Yolo()


def module(name: str) -> tuple[Module, tuple[Any, ...]]:
    """The module in evaluation mode, all its weights drawn anew by name, and zeros to trace it with."""
    import torch

    build, shapes = {**ARCHITECTURES, **RECURRENT}[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        made = build().eval()
        with torch.no_grad():
            for key, parameter in made.named_parameters():
                noise = torch.randn_like(parameter)
                if parameter.ndim > 1:  # as large as keeps the signal from vanishing
                    parameter.copy_(noise * (2 * len(parameter) / parameter.numel()) ** 0.5)
                else:
                    parameter.copy_(noise * 0.2 + float(key.endswith("weight")))
            for key, buffer in made.named_buffers():
                if key.endswith("running_mean"):
                    buffer.copy_(torch.randn_like(buffer) * 0.1)
                elif key.endswith("running_var"):
                    buffer.copy_(torch.rand_like(buffer) + 0.5)
    return made, tuple(torch.zeros(shape) for shape in shapes)


def across(name: str, batch: bool = False) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """One architecture by both exporters, of which one at most folds BatchNormalizations."""
    apart = FOLDED | FOLDED_BY_MACHINE
    return export(name, "torchscript", batch), export(name, "dynamo", batch, folds=name not in apart)


def export(
    name: str,
    exporter: str,
    batch: bool = False,
    opset: int = 18,
    folds: bool | None = None,
    dtype: str = "float32",
) -> onnx.ModelProto:
    """One architecture in ``dtype`` by "torchscript" or "dynamo", its batch symbolic if ``batch``; its BatchNormalizations stay
    where they are if ``folds`` is False. Raises what the exporter raises."""
    import torch

    from graphcheck.exporting.run import _clean, _quiet

    made, args = module(name)
    made, args = made.to(kind := getattr(torch, dtype)), tuple(a.to(kind) for a in args)
    if batch:
        args = tuple(torch.zeros(2, *a.shape[1:], dtype=kind) for a in args)
    inputs = [f"x{i}" for i in range(len(args))]
    with _quiet(), torch.no_grad():
        if exporter == "torchscript":
            buffer = io.BytesIO()
            with mock.patch.object(torch._C, "_jit_onnx_log"):
                torch.onnx.export(
                    made,
                    args,
                    buffer,
                    dynamo=False,  # type: ignore[arg-type]  # any binary file
                    opset_version=opset,
                    training=torch.onnx.TrainingMode.PRESERVE if folds is False else torch.onnx.TrainingMode.EVAL,
                    input_names=inputs,
                    output_names=["y"],
                    dynamic_axes={n: {0: "batch"} for n in [*inputs, "y"]} if batch else None,
                )
            return _clean(onnx.load_model_from_string(buffer.getvalue()))
        dims = tuple({0: torch.export.Dim("batch")} for _ in args)
        # a module of *xs takes its arguments as one tuple
        shapes = ((dims,) if hasattr(made, "model") and name != "qwen2-vl vision" else dims) if batch else None
        program = torch.onnx.export(
            made,
            args,
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=inputs,
            output_names=["y"],
            dynamic_shapes=shapes,
            optimize=name not in FOLDED if folds is None else folds,
        )
        assert program is not None
        return _clean(program.model_proto)
