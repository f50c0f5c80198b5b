"""The patch un-embedding as one ConvTranspose."""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx_ir as ir

from graphcheck.patches.site import Site, Unembedding
from graphcheck.rewriting.builder import Dim, SiteBuilder
from graphcheck.rewriting.common import Groups, dims_of, operands
from graphcheck.rewriting.pixels import maps

NAME = "conv-transpose"


def why_not(site: Site) -> str | None:
    """Why the site can be no ConvTranspose."""
    per = None if site.bias is None else site.bias.reshape(site.channels, -1)
    if per is not None and per.tobytes() != np.repeat(per[:, :1], per.shape[1], axis=1).tobytes():
        return "its bias differs within the patch, and a ConvTranspose has one for each channel"
    if len(site.spatial) > 3:
        return f"it has {len(site.spatial)} spatial axes, and runtimes have ConvTranspose for three at most"
    return None


def build(b: SiteBuilder) -> tuple[ir.Value, Groups]:
    """[batch, features, *windows] -> ConvTranspose -> [batch, channels, *spatial]."""
    site = cast(Unembedding, b.site)
    x, groups = maps(b)
    kernel = [a.kernel for a in site.spatial]
    sizes = (dims_of(site, group, whole=True) for group in groups[2:])
    bias = None if site.bias is None else site.bias.reshape(site.channels, -1)[:, 0]
    dims = (b.dims[x][0], Dim(site.channels), *sizes)
    inputs = operands(b, x, b.weight(site.weight_index, 0), bias)
    return b.op("ConvTranspose", inputs, dims, kernel_shape=kernel, strides=kernel, group=site.groups), groups
