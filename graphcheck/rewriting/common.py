"""What the forms share: the input in a chosen layout, the weight in a chosen order, the way to the old output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphcheck.patches.site import Site
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
    """The weight's index with groups told as zeros (-1): [out_channels, in_channels, *kernel_shape]."""
    index = site.weight_index
    if site.groups == 1:
        return index
    filters, channels = site.out_channels // site.groups, site.in_channels // site.groups
    dense = np.full((site.groups, filters, site.groups, channels, *index.shape[2:]), -1, np.int64)
    at = np.arange(site.groups)
    dense[at, :, at] = index.reshape(site.groups, filters, channels, *index.shape[2:])
    return dense.reshape(site.out_channels, site.in_channels, *index.shape[2:])


def columns_weight(site: Site, columns: Sequence[int]) -> np.ndarray:
    """The weight's index as [K, out_channels], its rows running over the input axes ``columns``, slowest first."""
    channel, spatial = axes_of(site, "channel"), axes_of(site, "spatial")
    sizes = [site.axes[i].size or 1 for i in channel] + [site.axes[i].kernel for i in spatial]
    table = dense_weight(site).reshape(site.out_channels, *sizes)
    place = {axis: 1 + at for at, axis in enumerate([*channel, *spatial])}
    left = [place[i] for i in place if i not in columns]  # kernels of one, anywhere
    return np.ascontiguousarray(table.transpose([*(place[i] for i in columns), *left, 0])).reshape(
        -1, site.out_channels
    )


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


def dims_of(site: Site, group: Sequence[int]) -> Dim:
    """How many elements a dim over these axes has."""
    return product(Dim(site.out_channels) if i == len(site.axes) else count_of(site, i) for i in group)


def target_dims(site: Site) -> Dims:
    """The dims of the old output."""
    return tuple(dims_of(site, group) for group in site.order)


def is_unit(site: Site, axis: int) -> bool:
    """Whether an axis has one window at every size, so that it stands in no dim."""
    return (axis != len(site.axes) and site.axes[axis].count == 1) or (
        axis == len(site.axes) and site.out_channels == 1
    )


def to_output(b: SiteBuilder, y: ir.Value, groups: Groups) -> ir.Value:
    """``y``, whose dims run over ``groups``, in the order and dims of the old output."""
    site = b.site
    have = [tuple(i for i in group if not is_unit(site, i)) for group in groups]
    want = list(site.order)
    if len(have) == len(want) and sorted(have) == sorted(want):
        perm, left = [], list(range(len(have)))
        for group in want:
            at = next(i for i in left if have[i] == group)
            left.remove(at)
            perm.append(at)
        return b.reshape(b.transpose(y, perm), target_dims(site))
    lead = 0
    while lead < min(len(have), len(want)) and have[lead] == want[lead]:
        lead += 1
    kept = tuple(dims_of(site, group) for group in have[:lead])
    flat_have, flat_want = [i for g in have[lead:] for i in g], [i for g in want[lead:] for i in g]
    if flat_have != flat_want:
        blocks = _blocks(flat_have, flat_want)
        y = b.reshape(y, (*kept, *(dims_of(site, block) for block in blocks)))
        order = sorted(range(len(blocks)), key=lambda at: flat_want.index(blocks[at][0]))
        y = b.transpose(y, [*range(lead), *(lead + at for at in order)])
    return b.reshape(y, target_dims(site))


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
