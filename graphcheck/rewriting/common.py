"""What the forms share: the input in a chosen layout, the weight in a chosen order, the way to the old output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.patches.site import Site, Unembedding
from graphcheck.rewriting.builder import Dim, Dims, SiteBuilder, count_of, product, size_of

NO_END = 2**63 - 1
Groups = list[tuple[int, ...]]  # the axes (len(axes): out_channels) that each dim of a value runs over


def axes_of(site: Site, role: str) -> list[int]:
    """The input axes of a role."""
    return [i for i, axis in enumerate(site.axes) if axis.role == role]


def cropped(b: SiteBuilder, x: ir.Value, whole: bool = False) -> ir.Value:
    """The input without what lies before the first window or is cut off behind (negative pads).

    With ``whole``, an axis of windows side by side is cut to whole windows too, where a Conv would ignore the rest.
    """
    site, cuts, dims, ends = b.site, {}, list(b.dims[x]), {}
    demands = any("demands sizes" in note for note in site.notes)
    for at, axis in enumerate(site.axes):
        begin, end = max(-axis.begin, 0), min(axis.end, 0)
        covered = 0 if axis.count is None else axis.count * axis.stride - max(axis.begin, 0)
        if whole and axis.role == "spatial" and axis.size is not None and axis.end <= 0 and axis.kernel > 1:
            if begin or begin + covered != axis.size:
                cuts[at] = (begin, begin + covered)
                dims[at] = Dim(covered)
        elif begin or end:
            cuts[at] = (begin, end or NO_END)
            dims[at] = size_of(site, at, padded=True) if axis.begin <= 0 and axis.end <= 0 else dims[at]
        if whole and axis.role == "spatial" and axis.size is None and not demands and axis.kernel > 1:
            ends[at] = count_of(site, at) * Dim(axis.stride)
    return b.slice_to(b.slice(x, cuts, tuple(dims)), ends)


def sampled(b: SiteBuilder, x: ir.Value) -> ir.Value:
    """Each stride-th element of the axes that a kernel of one runs over."""
    steps = {i: axis.stride for i, axis in enumerate(b.site.axes) if axis.kernel == 1 and axis.stride > 1}
    dims = tuple(count_of(b.site, i) if i in steps else dim for i, dim in enumerate(b.dims[x]))
    return b.slice(x, dict.fromkeys(steps, (0, NO_END)), dims, steps)


def padded(b: SiteBuilder, x: ir.Value) -> ir.Value:
    """The input, cropped, with its zeros around it."""
    x = cropped(b, x)
    begin, end = ([max(v, 0) for v in pads] for pads in zip(*((a.begin, a.end) for a in b.site.axes), strict=True))
    return b.pad(x, begin, end, tuple(size_of(b.site, i, padded=True) for i in range(len(b.site.axes))))


def has_padding(site: Site) -> bool:
    """Whether windows reach over the input's border."""
    return any(a.begin > 0 or a.end > 0 for a in site.spatial)


def channels_first(b: SiteBuilder, x: ir.Value) -> tuple[ir.Value, Groups]:
    """The input as [batch, channels, *spatial], and which axes its dims run over."""
    site = b.site
    batch, channel, spatial = (axes_of(site, role) for role in ("batch", "channel", "spatial"))
    x = b.transpose(x, [*batch, *channel, *spatial])
    have = b.dims[x]
    n, c = len(batch), len(batch) + len(channel)
    x = b.reshape(x, (product(have[:n]), product(have[n:c]), *have[c:]))
    return x, [tuple(batch), tuple(channel), *((i,) for i in spatial)]


def dense_weight(site: Site) -> np.ndarray:
    """The weight's index with groups told as zeros (-1): [features, channels, *kernel_shape]."""
    index = site.weight_index
    if site.groups == 1:
        return index
    filters, channels = site.features // site.groups, site.channels // site.groups
    dense = np.full((site.groups, filters, site.groups, channels, *index.shape[2:]), -1, np.int64)
    at = np.arange(site.groups)
    dense[at, :, at] = index.reshape(site.groups, filters, channels, *index.shape[2:])
    return dense.reshape(site.features, site.channels, *index.shape[2:])


def by_columns(site: Site, table: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """[n, channels, *kernel_shape] as [n, K], its columns running over the image's axes ``columns``, slowest first."""
    channel, spatial = axes_of(site, "channel"), axes_of(site, "spatial")
    sizes = [site.axes[i].size or 1 for i in channel] + [site.axes[i].kernel for i in spatial]
    place = {axis: 1 + at for at, axis in enumerate([*channel, *spatial])}
    left = [place[i] for i in place if i not in columns]  # kernels of one, anywhere
    return table.reshape(-1, *sizes).transpose([0, *(place[i] for i in columns), *left]).reshape(len(table), -1)


def columns_weight(site: Site, columns: Sequence[int]) -> np.ndarray:
    """The weight's index as [K, features], its rows running over the image's axes ``columns``, slowest first."""
    return np.ascontiguousarray(by_columns(site, dense_weight(site), columns).T)


def row_groups(site: Site) -> Groups:
    """The dims of the rows: those of the tokens without their features, if these are a dim of their own."""
    features = (len(site.axes),)
    if features in site.order:
        return [group for group in site.order if group != features]
    return [tuple(axes_of(site, "batch")), tuple(axes_of(site, "spatial"))]


def add_bias(b: SiteBuilder, y: ir.Value) -> ir.Value:
    """alpha and the bias along the last axis."""
    y = scale(b, y)
    if b.site.bias is None:
        return y
    return b.op("Add", [y, b.constant(b.site.bias, "bias")], b.dims[y])


def scale(b: SiteBuilder, y: ir.Value) -> ir.Value:
    """Gemm's alpha, as a factor of its own: the weight stays as it was."""
    if b.site.alpha == 1.0:
        return y
    factor = b.constant(np.asarray(b.site.alpha, b.site.weight.dtype), "alpha")
    return b.op("Mul", [y, factor], b.dims[y])


def operands(b: SiteBuilder, x: ir.Value, weight: ir.Value, bias: np.ndarray | None) -> list[ir.Value]:
    """The inputs of a Conv or ConvTranspose."""
    return [x, weight, *([] if bias is None else [b.constant(bias, "bias")])]


def with_bias(
    b: SiteBuilder, op_type: str, x: ir.Value, weight: ir.Value, bias: np.ndarray | None, dims: Dims, **attributes: Any
) -> ir.Value:
    """A Conv or ConvTranspose with alpha and ``bias``, one number for each channel."""
    own = bias is not None and b.site.alpha == 1.0
    y = scale(b, b.op(op_type, operands(b, x, weight, bias if own else None), dims, **attributes))
    if bias is None or own:
        return y
    return b.op("Add", [y, b.constant(bias.reshape(-1, *[1] * (len(dims) - 2)), "bias")], dims)


def dims_of(site: Site, group: Sequence[int], whole: bool = False) -> Dim:
    """How many elements a dim over these axes has: windows and features, or the ``whole`` image's elements."""
    size = size_of if whole else count_of
    return product(Dim(site.features) if i == len(site.axes) else size(site, i) for i in group)


def to_output(b: SiteBuilder, y: ir.Value, groups: Groups) -> ir.Value:
    """``y``, whose dims run over ``groups``, in the order and dims of the old output."""
    site = b.site
    if isinstance(site, Unembedding):
        return regrouped(b, y, groups, site.dims, whole=True)
    return regrouped(b, y, groups, site.order)


def regrouped(
    b: SiteBuilder,
    y: ir.Value,
    groups: Sequence[tuple[int, ...]],
    order: Sequence[tuple[int, ...]],
    *,
    whole: bool = False,
) -> ir.Value:
    """``y``, whose dims run over ``groups``, in dims that run over ``order``; ``whole`` as for :func:`dims_of`."""
    site = b.site
    one = Dim(1)
    have, want = ([tuple(i for i in g if dims_of(site, (i,), whole) != one) for g in side] for side in (groups, order))
    target = tuple(dims_of(site, group, whole) for group in order)
    if len(have) == len(want) and sorted(have) == sorted(want):
        perm, left = [], list(range(len(have)))
        for group in want:
            at = next(i for i in left if have[i] == group)
            left.remove(at)
            perm.append(at)
        return b.reshape(b.transpose(y, perm), target)
    lead = 0
    while lead < min(len(have), len(want)) and have[lead] == want[lead]:
        lead += 1
    kept = tuple(dims_of(site, group, whole) for group in have[:lead])
    flat_have, flat_want = [i for g in have[lead:] for i in g], [i for g in want[lead:] for i in g]
    if flat_have != flat_want:
        blocks = _blocks(flat_have, flat_want)
        y = b.reshape(y, (*kept, *(dims_of(site, block, whole) for block in blocks)))
        turned = sorted(range(len(blocks)), key=lambda at: flat_want.index(blocks[at][0]))
        y = b.transpose(y, [*range(lead), *(lead + at for at in turned)])
    return b.reshape(y, target)


def _blocks(have: Sequence[int], want: Sequence[int]) -> list[tuple[int, ...]]:
    """Runs of ``have`` that are runs of ``want`` too: what a Transpose may move as one axis."""
    blocks: list[tuple[int, ...]] = []
    for axis in have:
        if blocks and want.index(blocks[-1][-1]) + 1 == want.index(axis):
            blocks[-1] = (*blocks[-1], axis)
        else:
            blocks.append((axis,))
    return blocks


def tiles(site: Site) -> bool:
    """Whether the windows lie side by side: kernel equal to stride, no dilation; or are single elements."""
    return all((a.kernel == a.stride and a.dilation == 1) or a.kernel == 1 for a in site.spatial)
