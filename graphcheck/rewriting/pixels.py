"""The patch un-embedding as one MatMul with Reshape, Transpose, Reshape behind it; and what its other forms share."""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from graphcheck.patches.site import Site, Unembedding
from graphcheck.rewriting.builder import Dim, SiteBuilder, count_of, product, size_of
from graphcheck.rewriting.common import (
    NO_END,
    Groups,
    axes_of,
    by_columns,
    dense_weight,
    dims_of,
    regrouped,
    row_groups,
    scale,
)

NAME = "matmul"


def why_not(site: Site) -> str | None:
    """Every site can be a MatMul."""
    return None


def build(b: SiteBuilder) -> tuple[ir.Value, Groups]:
    """Rows as the input has them where its features are a dim of their own; columns in the order of the image's axes."""
    site = cast(Unembedding, b.site)
    groups = row_groups(site)
    x = tokens(b, [*groups, (len(site.axes),)])
    columns = [i for i, a in enumerate(site.axes) if a.role == "channel" or (a.role == "spatial" and a.kernel > 1)]
    sizes = [size_of(site, i) if site.axes[i].role == "channel" else Dim(site.axes[i].kernel) for i in columns]
    weight = by_columns(site, dense_weight(site), columns)
    y = b.op("MatMul", [x, b.weight(weight, 0)], (*b.dims[x][:-1], product(sizes)))
    if site.bias is not None:
        y = b.op("Add", [y, b.constant(by_columns(site, site.bias[None], columns)[0], "bias")], b.dims[y])
    rows = [i for group in groups for i in group]
    at = {**{(i, 0): j for j, i in enumerate(rows)}, **{(i, 1): len(rows) + j for j, i in enumerate(columns)}}
    perm = [at[key] for key in sorted(at)]
    atoms = (*(count_of(site, i) for i in rows), *sizes)
    return b.move(y, atoms, perm, tuple(dims_of(site, group, whole=True) for group in site.dims)), list(site.dims)


def tokens(b: SiteBuilder, groups: Groups) -> ir.Value:
    """The input's tokens times alpha, those cut off that are none, in dims that run over ``groups``.

    A factor behind the projection would stand between it and the movement.
    """
    site = cast(Unembedding, b.site)
    cuts = {at: (begin, -end or NO_END) for at, (begin, end) in enumerate(site.taken) if begin or end}
    dims = (dims_of(site, group) if at in cuts else b.dims[b.source][at] for at, group in enumerate(site.order))
    return regrouped(b, scale(b, b.slice(b.source, cuts, tuple(dims))), site.order, groups)


def maps(b: SiteBuilder) -> tuple[ir.Value, Groups]:
    """The tokens as [batch, features, *windows], and the axes that the dims of such an image run over."""
    site = b.site
    batch, channel, spatial = (axes_of(site, role) for role in ("batch", "channel", "spatial"))
    rest = [(i,) for i in spatial]
    return tokens(b, [tuple(batch), (len(site.axes),), *rest]), [tuple(batch), tuple(channel), *rest]
