"""The patch un-embedding as a 1x1 Conv and DepthToSpace."""

from __future__ import annotations

import onnx_ir as ir

from graphcheck.patches.site import Site
from graphcheck.rewriting.builder import Dim, SiteBuilder
from graphcheck.rewriting.common import Groups, dims_of, operands
from graphcheck.rewriting.pixels import maps

NAME = "depth-to-space"


def why_not(site: Site) -> str | None:
    """DepthToSpace is 2-D and square."""
    if len(site.spatial) != 2:
        return "DepthToSpace has two spatial axes"
    if site.spatial[0].kernel != site.spatial[1].kernel:
        return "DepthToSpace needs square patches"
    if site.groups > 1:
        return "DepthToSpace mixes the channels of groups"
    return None


def build(b: SiteBuilder) -> tuple[ir.Value, Groups]:
    """[batch, features, h, w] -> Conv [batch, p1 * p2 * channels, h, w] -> DepthToSpace, whose order is that of every opset."""
    site = b.site
    x, groups = maps(b)
    size = site.spatial[0].kernel
    batch, _, *windows = b.dims[x]
    weight = b.weight(site.weight_index.transpose(2, 3, 1, 0).reshape(-1, site.features, 1, 1), 1)
    bias = None if site.bias is None else site.bias.transpose(1, 2, 0).reshape(-1)
    depth = (batch, Dim(site.channels * size * size), *windows)
    y = b.op("Conv", operands(b, x, weight, bias), depth, kernel_shape=[1, 1])
    dims = (batch, Dim(site.channels), *(dims_of(site, group, whole=True) for group in groups[2:]))
    return b.op("DepthToSpace", [y], dims, blocksize=size), groups
