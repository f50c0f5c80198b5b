"""Nets that end in pixels, at random and small, for the tables of the rewriter: DiT, MAE, Swin-Unet, UNETR, ESPCN, ...

What transformers has is its own; the others are written after their papers, each whole: what projects to pixels stands
behind blocks of attention or convolutions, and before what the net does with the image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.zoo.architectures import Module, _transformers

_TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def _block(width: int, condition: int = 0) -> Module:
    """Attention of two heads and an MLP behind LayerNorms; with ``condition`` shifted, scaled and gated by it, as in DiT."""
    from torch import nn

    class Block(nn.Module):
        """[N, L, width] and, for DiT, [N, condition] to [N, L, width]."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = (nn.LayerNorm(width, elementwise_affine=not condition) for _ in range(2))
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(condition, 6 * width)) if condition else None

        def attend(self, x: Any) -> Any:
            n, length, _ = x.shape
            q, k, v = self.qkv(x).reshape(n, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4).unbind(0)
            scores = (q @ k.transpose(-2, -1)) * (width // 2) ** -0.5
            return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, width))

        def forward(self, x: Any, c: Any = None) -> Any:
            if self.modulation is None:
                x = x + self.attend(self.first(x))
                return x + self.mlp(self.second(x))
            a, b, gate, d, e, last = (part.unsqueeze(1) for part in self.modulation(c).chunk(6, 1))
            x = x + gate * self.attend(self.first(x) * (1 + b) + a)
            return x + last * self.mlp(self.second(x) * (1 + e) + d)

    return Block()


def _dit() -> Module:
    import torch
    from torch import nn

    class Dit(nn.Module):
        """Two blocks and FinalLayer under adaLN-Zero, and unpatchify; sigma is learned beside the noise."""

        def __init__(self) -> None:
            super().__init__()
            self.patches, self.places = nn.Conv2d(4, 8, 2, 2), nn.Parameter(torch.zeros(1, 12, 8))
            self.blocks = nn.ModuleList(_block(8, 6) for _ in range(2))
            self.norm, self.linear = nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 2 * 2 * 8)
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(6, 16))

        def forward(self, x: Any, c: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2) + self.places
            for block in self.blocks:
                x = block(x, c)
            shift, scale = (part.unsqueeze(1) for part in self.modulation(c).chunk(2, 1))
            x = self.linear(self.norm(x) * (1 + scale) + shift).reshape(x.shape[0], 3, 4, 2, 2, 8)
            return torch.einsum("nhwpqc->nchpwq", x).reshape(x.shape[0], 8, 6, 8)

    return Dit()


def _mae() -> Module:
    import torch
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    decoder = {f"decoder_{name}": size for name, size in _TINY.items()}
    config = ViTMAEConfig(**_TINY, **decoder, image_size=12, patch_size=4)
    config._attn_implementation = "eager"

    class Mae(torch.nn.Module):
        """The decoder over four tokens that were seen, where five were masked, and the library's own unpatchify."""

        def __init__(self) -> None:
            super().__init__()
            self.whole = ViTMAEForPreTraining(config)
            self.register_buffer("places", torch.tensor([[3, 0, 8, 1, 5, 2, 7, 4, 6]]))

        def forward(self, x: Any) -> Any:
            places = self.places.expand(x.shape[0], -1)
            return self.whole.unpatchify(self.whole.decoder(x, places).logits)

    return Mae()


def _swin_unet() -> Module:
    from torch import nn

    def expanded(x: Any, grid: tuple[int, int], size: int) -> Any:
        """Patches side by side: [N, h * w, size * size * c] -> [N, h * size * w * size, c]."""
        (h, w), c = grid, x.shape[-1] // size**2
        x = x.view(-1, h, w, size, size, c).permute(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, h * size * w * size, c)

    class SwinUnet(nn.Module):
        """The decoder: a block, PatchExpand, a block with the skip beside it, FinalPatchExpand_X4, a 1x1 Conv."""

        def __init__(self) -> None:
            super().__init__()
            self.deep, self.expand, self.norm = _block(8), nn.Linear(8, 16, bias=False), nn.LayerNorm(4)
            self.join, self.high = nn.Linear(8, 4), _block(4)
            self.final, self.last = nn.Linear(4, 64, bias=False), nn.LayerNorm(4)
            self.classes = nn.Conv2d(4, 3, 1, bias=False)

        def forward(self, x: Any, skip: Any) -> Any:
            import torch

            x = self.norm(expanded(self.expand(self.deep(x)), (2, 2), 2))
            x = self.high(self.join(torch.cat([x, skip], -1)))
            x = self.last(expanded(self.final(x), (4, 4), 4))
            return self.classes(x.view(-1, 16, 16, 4).permute(0, 3, 1, 2))

    return SwinUnet()


def _unetr() -> Module:
    import torch
    from torch import nn

    def convs(a: int, b: int) -> Module:
        return nn.Sequential(nn.Conv3d(a, b, 3, padding=1, bias=False), nn.InstanceNorm3d(b), nn.LeakyReLU(0.01))

    class Unetr(nn.Module):
        """A ViT over patches of a volume, and two steps up by ConvTranspose, each with a skip and a Conv."""

        def __init__(self) -> None:
            super().__init__()
            self.patches, self.block, self.norm = nn.Conv3d(1, 8, 4, 4), _block(8), nn.LayerNorm(8)
            self.up, self.skip = nn.ConvTranspose3d(8, 4, 2, 2, bias=False), nn.ConvTranspose3d(8, 4, 2, 2, bias=False)
            self.low, self.high = convs(8, 4), convs(8, 4)
            self.upper, self.image, self.out = nn.ConvTranspose3d(4, 4, 2, 2, bias=False), convs(1, 4), nn.Conv3d(4, 2, 1)

        def forward(self, x: Any) -> Any:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            deep = self.norm(self.block(tokens))
            maps, early = (t.transpose(1, 2).reshape(-1, 8, 2, 2, 2) for t in (deep, tokens))
            y = self.low(torch.cat([self.up(maps), self.skip(early)], 1))
            return self.out(self.high(torch.cat([self.upper(y), self.image(x)], 1)))

    return Unetr()


def _espcn(kernel: int) -> Module:
    from torch import nn

    last = nn.Conv2d(4, 12, kernel, padding=kernel // 2)
    convs = (nn.Conv2d(3, 6, 5, padding=2), nn.Tanh(), nn.Conv2d(6, 4, 3, padding=1), nn.Tanh())
    return nn.Sequential(*convs, last, nn.PixelShuffle(2))


def _ffdnet() -> Module:
    import torch
    from torch import nn

    class Ffdnet(nn.Module):
        """Convolutions between a pixel unshuffle, with a map of the noise beside it, and a pixel shuffle."""

        def __init__(self) -> None:
            super().__init__()
            first, last = nn.Conv2d(13, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
            self.convs, self.down, self.up = nn.Sequential(first, nn.ReLU(), last), nn.PixelUnshuffle(2), nn.PixelShuffle(2)

        def forward(self, x: Any, noise: Any) -> Any:
            return self.up(self.convs(torch.cat([self.down(x), noise], 1)))

    return Ffdnet()


def _patchtst() -> Module:
    from torch import nn
    from transformers import PatchTSTConfig, PatchTSTForPretraining

    config = PatchTSTConfig(
        num_input_channels=3, context_length=24, patch_length=4, patch_stride=4, d_model=8, ffn_dim=16,
        num_hidden_layers=1, num_attention_heads=2, do_mask_input=True,
    )  # fmt: skip
    config._attn_implementation = "eager"
    whole = PatchTSTForPretraining(config)

    class PatchTst(nn.Module):
        """The encoder over patches that are given, the pretraining head, and its patches put back into the series."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = whole.model.encoder, whole.head

        def forward(self, x: Any) -> Any:
            return self.head(self.encoder(x).last_hidden_state).flatten(2)

    return PatchTst()


def _fold(stride: int) -> Module:
    from torch import nn

    class Fold(nn.Module):
        """Tokens to patches of two by two pixels, side by side where the stride is two, as FuseFormer composes them."""

        def __init__(self) -> None:
            super().__init__()
            self.block, self.linear = _block(8), nn.Linear(8, 12)

        def forward(self, x: Any) -> Any:
            size = tuple((n - 1) * stride + 2 for n in (3, 4))
            return nn.functional.fold(self.linear(self.block(x)).transpose(1, 2), size, 2, stride=stride)

    return Fold()


def _upsampling() -> Module:
    from torch import nn

    return nn.ConvTranspose2d(8, 4, 3, 3)


def _reconstruction(result: Any) -> Any:
    return result.reconstruction


def _depth(result: Any) -> Any:
    return result.predicted_depth


_IMAGE = {**_TINY, "image_size": 16, "patch_size": 4}
_DPT = {
    "is_hybrid": False, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3], "neck_hidden_sizes": [4, 4, 4, 4],
    "fusion_hidden_size": 4, "num_attention_heads": 2,
}  # fmt: skip
_SWIN2SR = {
    "image_size": 8, "patch_size": 1, "embed_dim": 8, "depths": [1], "num_heads": [2], "window_size": 4,
    "upsampler": "pixelshuffledirect", "mlp_ratio": 2.0,
}  # fmt: skip
# name -> (build, input shapes)
NETS: dict[str, tuple[Callable[[], Module], tuple[tuple[int, ...], ...]]] = {
    "dit": (_dit, ((2, 4, 6, 8), (2, 6))),
    "mae": (_mae, ((2, 5, 8),)),
    "swin-unet": (_swin_unet, ((2, 4, 8), (2, 16, 4))),
    "unetr": (_unetr, ((2, 1, 8, 8, 8),)),
    "espcn": (lambda: _espcn(3), ((2, 3, 3, 4),)),
    "espcn 1x1": (lambda: _espcn(1), ((2, 3, 3, 4),)),
    "ffdnet": (_ffdnet, ((2, 3, 8, 12), (2, 1, 4, 6))),
    "patchtst head": (_patchtst, ((2, 3, 6, 4),)),
    "fold": (lambda: _fold(2), ((2, 12, 8),)),
    "fold, overlapping": (lambda: _fold(1), ((2, 12, 8),)),
    "upsampling": (_upsampling, ((2, 8, 3, 4),)),
    "vit masked image": (
        _transformers("ViTForMaskedImageModeling", {**_IMAGE, "encoder_stride": 4}, _reconstruction), ((2, 3, 16, 16),),
    ),
    "dpt depth": (_transformers("DPTForDepthEstimation", {**_IMAGE, **_DPT}, _depth), ((2, 3, 16, 16),)),
    "swin2sr": (_transformers("Swin2SRForImageSuperResolution", _SWIN2SR, _reconstruction), ((2, 3, 8, 8),)),
}  # fmt: skip
