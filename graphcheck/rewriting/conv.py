"""The patch embedding as one Conv."""

from __future__ import annotations

import onnx_ir as ir

from graphcheck.patches.site import Site
from graphcheck.rewriting.builder import Dim, SiteBuilder, count_of
from graphcheck.rewriting.common import Groups, channels_first, cropped, with_bias

NAME = "conv"


def why_not(site: Site) -> str | None:
    """Why the site can be no Conv."""
    if site.flattened:
        return "its patches are flattened already, so there is nothing to slide over"
    if len(site.spatial) > 3:
        return f"it has {len(site.spatial)} spatial axes, and runtimes have Conv for three at most"
    return None


def build(b: SiteBuilder) -> tuple[ir.Value, Groups]:
    """[batch, channels, *spatial] -> Conv -> [batch, out_channels, *windows]."""
    site, spatial = b.site, b.site.spatial
    x, groups = channels_first(b, cropped(b, b.source))
    bare = [] if spatial else [1, 1]  # a Conv has an axis to slide over, and accelerators want two
    x = b.reshape(x, (*b.dims[x], *map(Dim, bare)))
    weight = b.weight(site.weight_index.reshape(*site.weight_index.shape, *bare), 0)
    counts = tuple(count_of(site, i) for i, axis in enumerate(site.axes) if axis.role == "spatial")
    y = with_bias(
        b,
        "Conv",
        x,
        weight,
        site.bias,
        (b.dims[x][0], Dim(site.out_channels), *counts, *map(Dim, bare)),
        kernel_shape=[a.kernel for a in spatial] or bare,
        strides=[a.stride for a in spatial] or bare,
        dilations=[a.dilation for a in spatial] or bare,
        pads=[max(a.begin, 0) for a in spatial] + [max(a.end, 0) for a in spatial] or 2 * [0 for _ in bare],
        group=site.groups,
    )
    return y, [groups[0], (len(site.axes),), *groups[2:], *(() for _ in bare)]
