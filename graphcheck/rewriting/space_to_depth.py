"""The patch embedding as SpaceToDepth and a 1x1 Conv."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from graphcheck.patches.site import Site
from graphcheck.rewriting.builder import Dim, SiteBuilder, count_of
from graphcheck.rewriting.common import Groups, axes_of, channels_first, cropped, dense_weight, tiles, with_bias

NAME = "space-to-depth"


def why_not(site: Site) -> str | None:
    """SpaceToDepth is 2-D, square and unpadded."""
    spatial = site.spatial
    if site.pointwise:
        return "its kernel is one, so there are no patches to put into the channels"
    if len(spatial) != 2:
        return "SpaceToDepth has two spatial axes"
    if not tiles(site) or spatial[0].kernel != spatial[1].kernel:
        return "SpaceToDepth needs square windows side by side (kernel equal to stride, no dilation)"
    if any(a.begin > 0 or a.end > 0 for a in spatial):
        return "SpaceToDepth has no padding"
    if site.groups > 1:
        return "SpaceToDepth mixes the channels of groups"
    return None


def build(b: SiteBuilder) -> tuple[ir.Value, Groups]:
    """[batch, channels, h, w] -> SpaceToDepth [batch, p1 * p2 * channels, h / p, w / p] -> Conv."""
    site = b.site
    x, groups = channels_first(b, cropped(b, b.source, whole=True))
    size = site.spatial[0].kernel
    height, width = (count_of(site, i) for i in axes_of(site, "spatial"))
    batch, channels = b.dims[x][:2]
    depth = channels * Dim(size * size)
    x = b.op("SpaceToDepth", [x], (batch, depth, height, width), blocksize=size)
    weight = np.moveaxis(dense_weight(site), 1, 3).reshape(site.out_channels, -1, 1, 1)
    dims = (batch, Dim(site.out_channels), height, width)
    y = with_bias(b, "Conv", x, b.weight(weight, 0), site.bias, dims, kernel_shape=[1, 1])
    return y, [groups[0], (len(site.axes),), *groups[2:]]
