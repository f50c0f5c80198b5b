"""Exports for the tables of the rewriter: models that begin with patches or end in pixels, and what is to be seen in them.

They are what transformers, einops and Keras give, by every exporter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import onnx

from graphcheck.exporting import catalogue
from graphcheck.exporting import export as export_variants
from tests.zoo import architectures, pixel_nets
from tests.zoo.architectures import Module, _hidden, _transformers

_TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
_PATCHES = {"audio": (1, 40, 24), "video": (1, 4, 3, 32, 32), "image": (1, 3, 32, 32), "series": (1, 32, 2)}


def _qwen25() -> Module:
    import torch
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

    config = Qwen2_5_VLVisionConfig(
        depth=2, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=4, out_hidden_size=24, window_size=16,
        fullatt_block_indexes=[1],
    )  # fmt: skip
    config._attn_implementation = "eager"
    model = Qwen2_5_VisionTransformerPretrainedModel(config)

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


def _qwen3() -> Module:
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionPatchEmbed

    return Qwen3VLVisionPatchEmbed(Qwen3VLVisionConfig(hidden_size=32, patch_size=4, num_heads=2, depth=1))


def _einops(pattern: str, shape: str, columns: int, *, norm: bool = False) -> Module:
    """A vision transformer of one block whose patches are an einops pattern."""
    import torch
    from einops.layers.torch import Rearrange
    from torch import nn

    sizes = {key: int(value) for key, value in (pair.split("=") for pair in shape.split())}
    layers = [nn.LayerNorm(columns)] if norm else []
    patches = nn.Sequential(Rearrange(pattern, **sizes), *layers, nn.Linear(columns, 16))

    class Vit(nn.Module):
        """Patches, a class token, positions, one block of attention."""

        def __init__(self) -> None:
            super().__init__()
            self.patches, self.qkv, self.out, self.norm = patches, nn.Linear(16, 48), nn.Linear(16, 16), nn.LayerNorm(16)
            self.token, self.places = nn.Parameter(torch.zeros(1, 1, 16)), nn.Parameter(torch.zeros(1, 17, 16))

        def forward(self, x: Any) -> Any:
            x = self.patches(x)
            x = torch.cat([self.token.expand(len(x), 1, 16), x], 1) + self.places[:, : 1 + x.shape[1]]
            q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
            return x + self.out((q @ k.transpose(1, 2) / 4).softmax(-1) @ v)

    return Vit()


_P1P2C, _SIZES = "b c (h p1) (w p2) -> b (h w) (p1 p2 c)", "p1=8 p2=8"
MORE: dict[str, tuple[Callable[[], Module], tuple[tuple[int, ...], ...]]] = {
    "pvt-v2": (
        _transformers(
            "PvtV2Model",
            {
                "image_size": 64,
                "hidden_sizes": [8, 16, 16, 16],
                "depths": [1, 1, 1, 1],
                "num_attention_heads": [1, 1, 2, 2],
                "sr_ratios": [4, 2, 1, 1],
                "mlp_ratios": [2, 2, 2, 2],
            },
            _hidden,
        ),
        ((1, 3, 64, 64),),
    ),
    "ast": (
        _transformers(
            "ASTModel",
            {**_TINY, "patch_size": 8, "frequency_stride": 4, "time_stride": 4, "max_length": 40, "num_mel_bins": 24},
            _hidden,
        ),
        (_PATCHES["audio"],),
    ),
    "vivit": (
        _transformers("VivitModel", {**_TINY, "image_size": 32, "num_frames": 4, "tubelet_size": [2, 16, 16]}, _hidden),
        (_PATCHES["video"],),
    ),
    "timesformer": (
        _transformers("TimesformerModel", {**_TINY, "image_size": 32, "patch_size": 8, "num_frames": 4}, _hidden),
        (_PATCHES["video"],),
    ),
    "patchtst": (
        _transformers(
            "PatchTSTModel",
            {
                "num_input_channels": 2,
                "context_length": 32,
                "patch_length": 8,
                "patch_stride": 8,
                "d_model": 16,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "ffn_dim": 32,
                "do_mask_input": False,
            },
            _hidden,
        ),
        (_PATCHES["series"],),
    ),
    "dpt": (
        _transformers(
            "DPTModel",
            {**_TINY, "image_size": 32, "patch_size": 8, "is_hybrid": False, "backbone_out_indices": [0, 0, 0, 0]},
            _hidden,
        ),
        (_PATCHES["image"],),
    ),
    "qwen2.5-vl vision": (_qwen25, ((16, 3 * 2 * 4 * 4),)),
    "qwen3-vl patches": (_qwen3, ((16, 3 * 2 * 4 * 4),)),
    "einops p1 p2 c": (lambda: _einops(_P1P2C, _SIZES, 192), (_PATCHES["image"],)),
    "einops c p1 p2": (
        lambda: _einops("b c (h p1) (w p2) -> b (h w) (c p1 p2)", _SIZES, 192),
        (_PATCHES["image"],),
    ),
    "einops nhwc": (lambda: _einops("b (h p1) (w p2) c -> b (h w) (p1 p2 c)", _SIZES, 192), ((1, 32, 32, 3),)),
    "einops video": (
        lambda: _einops("b (t q) c (h p1) (w p2) -> b (t h w) (q p1 p2 c)", "q=2 p1=16 p2=16", 1536),
        (_PATCHES["video"],),
    ),
    "einops with LayerNorm": (lambda: _einops(_P1P2C, _SIZES, 192, norm=True), (_PATCHES["image"],)),
}
TORCH = ("swin", "swinv2", "segformer", "convnext", "videomae", "mobilevit", "yolo", "qwen2-vl vision", *MORE)
WHOLE = ("resnet", "mobilenet", *pixel_nets.NETS)  # looked at for every kind of site
FAMILIES = (
    "vit", "deit", "dinov2", "clip-vision", "siglip-vision", "beit", "article-keras", "article-keras-bias",
    "convolution-keras", "convolution", "torch-p16d32", "torch-p14d384",
)  # fmt: skip
EXPORTERS = ("torchscript", "dynamo")

# What torch's exporters fail at, or give a model that onnxruntime refuses: (model, exporter) -> why.
FAILS = {
    ("patchtst", "torchscript"): "shapes that do not fit each other",
    ("qwen2-vl vision", "dynamo"): "the grid decides shapes",
    ("qwen2.5-vl vision", "dynamo"): "the grid decides shapes",
}
# What tf2onnx fails at: it computes a Reshape's sizes from a batch that it does not know.
KERAS_FAILS = tuple(
    f"{family}-unfold-tf2onnx-dynamic" for family in ("article-keras", "article-keras-bias", "convolution-keras")
)


# What the first site's words begin with, or else a refusal's: the patch embeddings, and what more there is in a net.
SEEN = {
    "ast": "conv 8x8/4x4",
    "vivit": "conv 2x16x16/2x16x16",
    "timesformer": "conv 8x8/8x8",
    "patchtst": "matmul 8/8",  # its Gather takes all in the order in which they are
    "dpt": "conv 8x8/8x8",
    "qwen2-vl vision": "conv 2x4x4/",
    "qwen2.5-vl vision": "conv 2x4x4/",
    "einops video": "matmul 2x16x16/2x16x16",
    "einops with LayerNorm": "LayerNormalization stands between the patchify and the projection",
    "yolo": "space-to-depth 6x6/2x2 padded",
    "pvt-v2": "conv 4x4/4x4",
    "segformer": "conv 4x4/4x4",
    "swin": "conv 2x2/2x2",
    "videomae": "conv 2x8x8/2x8x8",
    "convnext": "conv 4x4/4x4",
    "mobilevit": "conv 3x3/2x2 padded",  # a downsampling over data that was folded back from patches
}
_OVERLAP = "its own kernel of 3×3 makes the patches overlap, which would need additions"
MORE_SEEN = {
    "dit": {"embeddings": "conv 2x2/2x2", "un-embeddings": "matmul 2x2/2x2", "pointwise": "matmul"},
    "mae": {"un-embeddings": "matmul 4x4/4x4", "pointwise": "matmul"},
    "swin-unet": {"un-embeddings": "matmul 2x2/2x2 NHWC", "pointwise": "matmul"},
    "unetr": {"embeddings": "conv 4x4x4/4x4x4", "un-embeddings": "conv-transpose 2x2x2/", "ordinary": "conv 3x3x3/1x1x1"},
    "espcn": {"un-embeddings": _OVERLAP, "ordinary": "conv 5x5/1x1 padded", "movement": "DepthToSpace, depth-to-space 2x2"},
    "espcn 1x1": {"un-embeddings": "depth-to-space 2x2/2x2", "movement": "DepthToSpace, depth-to-space 2x2"},
    "ffdnet": {"un-embeddings": _OVERLAP, "movement": "reshape, space-to-depth 2x2"},
    "patchtst head": {"un-embeddings": "matmul 4/4 NNW", "pointwise": "matmul"},
    "fold": {"un-embeddings": "fold 2x2/2x2"},
    "fold, overlapping": {"un-embeddings": "its windows do not lie side by side"},
    "upsampling": {"un-embeddings": "conv-transpose 3x3/3x3"},
    "vit masked image": {"embeddings": "conv 4x4/4x4", "un-embeddings": "depth-to-space 4x4/4x4"},
    "dpt depth": {"embeddings": "conv 4x4/4x4", "un-embeddings": "conv-transpose 4x4/4x4", "ordinary": "conv 3x3/2x2"},
    "swin2sr": {"un-embeddings": _OVERLAP, "movement": "DepthToSpace, depth-to-space 2x2"},
    "resnet": {"ordinary": "conv 7x7/2x2 padded", "pointwise": "conv 1x1/2x2"},
    "mobilenet": {"ordinary": "conv 3x3/2x2 padded", "pointwise": "conv 1x1/1x1"},  # its padding is a node before it
}


def is_whole(case: str) -> bool:
    """Whether it is looked at for every kind of site."""
    return case.rpartition(", ")[0] in WHOLE


def expected(case: str, kind: str) -> str | None:
    """What is to be seen of a kind of site in a case: "" is anything, None also nothing."""
    name = case.rpartition(", ")[0]
    if is_whole(case):
        return MORE_SEEN[name].get(kind)
    return SEEN.get(name, "") if kind == "embeddings" else None


def cases() -> list[str]:
    """The names of all cases: ``MODEL, EXPORTER`` and the variants of the catalogue."""
    nets = (*WHOLE, *TORCH)
    torch = [f"{name}, {exporter}" for name in nets for exporter in EXPORTERS if (name, exporter) not in FAILS]
    made = (v.name for v in catalogue() if v.family in FAMILIES and not v.benchmark)
    return [*torch, *(name for name in made if name not in KERAS_FAILS)]


def export(case: str) -> onnx.ModelProto:
    """The model of a case; raises what its exporter raises."""
    name, comma, exporter = case.rpartition(", ")
    if comma:
        with mock.patch.dict(architectures.ARCHITECTURES, {**MORE, **pixel_nets.NETS}):
            return architectures.export(name, exporter, batch=name in pixel_nets.NETS)
    with tempfile.TemporaryDirectory() as folder:
        made = export_variants([case], folder)
        if made.failures:
            raise RuntimeError(made.failures[0].error)
        return onnx.ModelProto.FromString((Path(folder) / f"{case}.onnx").read_bytes())
