"""Heads that project to pixels, as torch exports them: recognised, written in every legal form, proved, and back."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import graphcheck
from graphcheck.patches.analyze import find
from graphcheck.rewriting.forms import UNEMBEDDED
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.verdict import Comparison, Verdict

pytestmark = pytest.mark.torch


def prove(a: ir.Model, b: ir.Model) -> Comparison:
    return graphcheck.compare(a, b, graphs=False)


def exported(module: Any, *shape: int, dynamo: bool) -> ir.Model:
    """The module, by one of torch's two exporters, with a dynamic batch."""
    import torch

    module, x = module.eval(), torch.zeros(shape)
    if dynamo:
        batch = torch.export.Dim("batch")
        program = torch.onnx.export(module, (x,), dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
        return ir.from_proto(program.model_proto)
    buffer = io.BytesIO()
    names = {"input_names": ["x"], "output_names": ["y"]}
    torch.onnx.export(module, (x,), buffer, dynamo=False, dynamic_axes={"x": {0: "batch"}}, opset_version=18, **names)
    return ir.from_proto(onnx.load_model_from_string(buffer.getvalue()))


def heads() -> dict[str, tuple[Callable[[], Any], tuple[int, ...], str, list[int]]]:
    """name -> (how the module is made, its input's shape, layout, kernel)."""
    import torch
    from torch import nn
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    class Mae(nn.Module):
        """The decoder's norm and projection, the class token dropped, and the library's own unpatchify."""

        def __init__(self) -> None:
            super().__init__()
            sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 8}
            decoder = {f"decoder_{k}": v for k, v in sizes.items()}
            config = ViTMAEConfig(**sizes, **decoder, image_size=12, patch_size=4)
            self.whole = ViTMAEForPreTraining(config)

        def forward(self, x: Any) -> Any:
            x = self.whole.decoder.decoder_pred(self.whole.decoder.decoder_norm(x))
            return self.whole.unpatchify(x[:, 1:, :])

    class Dit(nn.Module):
        """FinalLayer, modulated by constants, and unpatchify of DiT; sigma is learned beside the noise."""

        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 2 * 2 * 6)

        def forward(self, x: Any) -> Any:
            x = self.linear(self.norm(x)).reshape(x.shape[0], 3, 4, 2, 2, 6)
            return torch.einsum("nhwpqc->nchpwq", x).reshape(x.shape[0], 6, 6, 8).chunk(2, dim=1)[0] * 2

    class Expand(nn.Module):
        """PatchExpand of Swin-Unet: the norm stands behind the movement."""

        def __init__(self) -> None:
            super().__init__()
            self.expand, self.norm = nn.Linear(8, 16, bias=False), nn.LayerNorm(4)

        def forward(self, x: Any) -> Any:
            x = self.expand(x).view(-1, 3, 4, 16)
            x = x.view(-1, 3, 4, 2, 2, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 6, 8, 4)
            return self.norm(x.view(-1, 48, 4))

    class Fold(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 12)

        def forward(self, x: Any) -> Any:
            return nn.functional.fold(self.linear(x).transpose(1, 2), (6, 8), 2, stride=2)

    class Series(nn.Module):
        """The pretraining head of PatchTST, its patches put back into the series."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 4)

        def forward(self, x: Any) -> Any:
            return self.linear(x).flatten(2)

    return {
        "mae": (Mae, (2, 10, 8), "NCHW", [4, 4]),
        "dit": (Dit, (2, 12, 8), "NCHW", [2, 2]),
        "swin-unet": (Expand, (2, 12, 8), "NHWC", [2, 2]),
        "unetr": (lambda: nn.ConvTranspose3d(8, 4, 2, 2, bias=False), (2, 8, 2, 3, 2), "NCDHW", [2, 2, 2]),
        "espcn": (lambda: nn.Sequential(nn.Conv2d(8, 12, 1), nn.PixelShuffle(2)), (2, 8, 3, 4), "NCHW", [2, 2]),
        "fold": (Fold, (2, 12, 8), "NCHW", [2, 2]),
        "patchtst": (Series, (2, 3, 6, 8), "NNW", [4]),
        "upsampling": (lambda: nn.ConvTranspose2d(8, 4, 3, 3), (2, 8, 3, 4), "NCHW", [3, 3]),
    }


NAMES = ("mae", "dit", "swin-unet", "unetr", "espcn", "fold", "patchtst", "upsampling")


@pytest.mark.parametrize("dynamo", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_head_is_recognised_written_and_brought_back(name: str, dynamo: bool) -> None:
    make, shape, layout, kernel = heads()[name]
    model = exported(make(), *shape, dynamo=dynamo)
    (site,) = find(model).unembeddings
    assert (site.layout, list(site.kernel_shape), site.blocked) == (layout, kernel, None)
    legal = [to for to, form in UNEMBEDDED.items() if to != site.form and form.why_not(site) is None]
    assert legal or name == "patchtst"  # whose bias differs within the patch
    for to in legal:
        there = rewrite(model, to, check=prove)
        assert there.changed and there.verdict is Verdict.PROVED, there.reason
        if site.form in UNEMBEDDED:
            back = rewrite(there.model, site.form, check=prove)
            assert back.changed and back.verdict is Verdict.PROVED, back.reason
            assert prove(model, back.model).verdict.meets(Verdict.PROVED)


@pytest.mark.parametrize("dynamo", [True, False])
def test_what_the_super_resolution_nets_do_before_the_shuffle_is_named(dynamo: bool) -> None:
    from torch import nn

    wide = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))
    active = nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.PixelShuffle(2))
    reasons = [[r.reason for r in find(exported(net, 2, 8, 3, 4, dynamo=dynamo)).refusals] for net in (wide, active)]
    assert reasons == [
        ["its own kernel of 3x3 makes the patches overlap, which would need additions"],
        ["Relu stands between the projection and the movement to pixels"],
    ]


@pytest.mark.parametrize("seed", range(12))
def test_a_random_head(seed: int) -> None:
    """Rank, sizes, order of the patch, layout and bias drawn; what comes out is the geometry that was built."""
    import torch
    from torch import nn

    draw = np.random.default_rng(seed)
    rank, channels, features = int(draw.integers(1, 4)), int(draw.integers(1, 4)), int(draw.integers(2, 6))
    kernel, grid = draw.integers(2, 4, rank).tolist(), draw.integers(2, 4, rank).tolist()
    order = draw.permutation(rank + 1).tolist()  # of (p1 .. pn, c) in the columns
    last, bias = bool(draw.integers(2)), bool(draw.integers(2))
    sizes = [*kernel, channels]
    split = [*grid, *(sizes[i] for i in order)]
    at = {axis: 1 + rank + order.index(axis) for axis in range(rank + 1)}
    pixels = [axis for i in range(rank) for axis in (1 + i, at[i])]
    perm = [0, *pixels, at[rank]] if last else [0, at[rank], *pixels]
    image = [g * k for g, k in zip(grid, kernel, strict=True)]

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(features, int(np.prod(sizes)), bias=bias)

        def forward(self, x: Any) -> Any:
            x = self.linear(x).reshape(x.shape[0], *split).permute(*perm)
            return x.reshape(x.shape[0], *([*image, channels] if last else [channels, *image]))

    torch.manual_seed(seed)
    model = exported(Head(), 2, int(np.prod(grid)), features, dynamo=bool(draw.integers(2)))
    (site,) = find(model).unembeddings
    assert (list(site.kernel_shape), site.in_channels, site.out_channels) == (kernel, features, channels)
    assert site.layout == ("N{}C" if last else "NC{}").format("DHW"[3 - rank :])
    names = [*(["p"] if rank == 1 else [f"p{i + 1}" for i in range(rank)]), "c"]
    written = [name for i in order if (name := names[i]) != "c" or channels > 1]  # one channel stands anywhere
    assert site.pattern is not None
    columns = site.pattern.split(" -> ")[0].split("(")[-1].rstrip(")").split()
    assert [name for name in columns if name != "c" or channels > 1] == written
    for to, form in UNEMBEDDED.items():
        if to != site.form and form.why_not(site) is None:
            result = rewrite(model, to, check=prove)
            assert result.changed and result.verdict is Verdict.PROVED, result.reason
