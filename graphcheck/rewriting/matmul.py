"""The patch embedding as one MatMul: Reshape, Transpose, Reshape, MatMul where windows lie side by side."""

from __future__ import annotations

import onnx_ir as ir

from graphcheck.patches.site import Site
from graphcheck.rewriting import unfold
from graphcheck.rewriting.builder import Dim, SiteBuilder, count_of, product, size_of
from graphcheck.rewriting.common import (
    Groups,
    add_bias,
    axes_of,
    columns_weight,
    cropped,
    dims_of,
    has_padding,
    padded,
    row_groups,
    sampled,
    tiles,
)

NAME = "matmul"


def why_not(site: Site) -> str | None:
    """Every site can be a MatMul."""
    return None


def build(b: SiteBuilder) -> tuple[ir.Value, Groups]:
    """Rows in the order of the old output where its channels stand last; columns in the order of the input's axes."""
    site = b.site
    if site.flattened:
        return _flattened(b)
    if not site.pointwise and (not tiles(site) or has_padding(site)):
        return unfold.build(b)
    x = sampled(b, padded(b, b.source) if has_padding(site) else cropped(b, b.source, whole=True))
    split: list[Dim] = []
    rows: dict[int, int] = {}
    columns: dict[int, int] = {}
    for at, axis in enumerate(site.axes):
        if axis.role != "channel":
            rows[at] = len(split)
            split.append(count_of(site, at))
        if axis.role == "channel" or (axis.role == "spatial" and axis.kernel > 1):
            columns[at] = len(split)
            split.append(size_of(site, at) if axis.role == "channel" else Dim(axis.kernel))
    groups = row_groups(site)
    order = [i for group in groups for i in group]
    order = [*(i for i in rows if i not in order), *order]
    perm = [*(rows[i] for i in order), *(columns[i] for i in columns)]
    heads = tuple(dims_of(site, group) for group in groups)
    x = b.move(x, tuple(split), perm, (*heads, product(split[columns[i]] for i in columns)))
    weight = b.weight(columns_weight(site, list(columns)), 1)
    y = b.op("MatMul", [x, weight], (*heads, Dim(site.out_channels)))
    return add_bias(b, y), [*groups, (len(site.axes),)]


def _flattened(b: SiteBuilder) -> tuple[ir.Value, Groups]:
    """Patches that are flattened already need nothing but a MatMul."""
    site = b.site
    batch, channel = axes_of(site, "batch"), axes_of(site, "channel")
    rest = [i for i in range(len(site.axes)) if i not in batch and i not in channel]
    x = b.transpose(sampled(b, cropped(b, b.source)), [*batch, *rest, *channel])
    k = product(size_of(site, i) for i in channel)
    x = b.reshape(x, (product(count_of(site, i) for i in [*batch, *rest]), k))
    weight = b.weight(site.weight_index.reshape(site.out_channels, -1).T, 1)
    y = b.op("MatMul", [x, weight], (b.dims[x][0], Dim(site.out_channels)))
    return add_bias(b, y), [(*batch, *rest), (len(site.axes),)]
