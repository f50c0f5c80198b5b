"""Nets that end in pixels, as torch exports them: recognised, written in every legal form, proved, and back."""

from __future__ import annotations

import io
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
from tests.zoo import patch_exports, patch_rows, pixel_nets

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


NETS = [name for name in pixel_nets.NETS if name not in ("unetr", "dpt depth")]  # these two take longer: make zoo


@pytest.mark.parametrize("exporter", patch_exports.EXPORTERS)
@pytest.mark.parametrize("name", NETS)
def test_the_end_of_a_net_is_recognised_written_and_brought_back(name: str, exporter: str) -> None:
    (row,) = patch_rows.rows(f"{name}, {exporter}", ["un-embeddings"])
    assert row.expected and row.wrong == []
    assert not any("blocked" in words for words in row.sites)


@pytest.mark.parametrize("dynamo", [True, False])
def test_what_the_super_resolution_nets_do_before_the_shuffle_is_named(dynamo: bool) -> None:
    from torch import nn

    wide = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2))
    active = nn.Sequential(nn.Conv2d(8, 12, 1), nn.ReLU(), nn.PixelShuffle(2))
    reasons = [[r.reason for r in find(exported(net, 2, 8, 3, 4, dynamo=dynamo)).refusals] for net in (wide, active)]
    assert reasons == [
        ["its own kernel of 3×3 makes the patches overlap, which would need additions"],
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
