"""Finds the projections to patches of pixels (un-embeddings), and says what is close to one and is none."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.files import model as model_
from graphcheck.kernel import geometry
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.terms.maps import Map
from graphcheck.patches import merge
from graphcheck.patches.contraction import Contraction, Traced
from graphcheck.patches.ends import after, dims_over, per_channel, shown
from graphcheck.patches.pixels import Pixels, images_of, on_own_axes, pixels_at, row_at, rows_of, width_of, windows_at
from graphcheck.patches.product import Product, operands
from graphcheck.patches.reading import Reading, candidates, index_of_weight, own_bias, product_of
from graphcheck.patches.site import NOT_CONSTANT, ONE_SIZE, Refusal, Unembedding
from graphcheck.patches.stored_weight import stored_integers
from graphcheck.patches.trace import Trial
from graphcheck.patches.window import NoWindow, WindowMap
from graphcheck.words import dims

_FUSED = "what is fused into it stands between the projection and the movement"
_STEPS = 24  # nodes looked at behind a projection: a decomposed LayerNormalization has nine


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
    """A value that holds the rows of a projection: ``order`` and ``taken`` as in :class:`Unembedding`."""

    value: ir.Value
    order: tuple[tuple[int, ...], ...]
    taken: tuple[tuple[int, int], ...]


def unembedding(
    contraction: Contraction, inner: Collection[ir.Value], *, near: bool = False, before: ir.Value | None = None
) -> Unembedding | Refusal | None:
    """The projection to pixels that a contraction is, or why it is none; None where nothing looks like one.

    ``inner`` are values inside of other sites, which it does not begin at; with ``near`` it begins at its own operand.
    It ends before the value ``before``.
    """
    first = contraction.first
    found = product_of(first)
    if first.node.op_type == "ConvTranspose" and (reason := _not_tiling(first)) is not None:
        return Refusal(Coded(reason, "GC301"), contraction.name)
    images = () if found is None else images_of(first, found)
    if before is not None:
        ends = [image.end for image in images]
        images = images[: ends.index(before)] if before in ends else ()
    if found is None:
        return None
    if not images:
        return _kept_apart(first, found) if before is None else None
    if not on_own_axes(first, images[0]):
        return None  # the windows run across the projection's own axes: boxes of anchors, not patches
    if first.node.attr("activation") or len(first.inputs) > 3:
        return Refusal(Coded(_FUSED, "GC303"), contraction.name)
    if first.is_conv and first.node.op_type != "ConvTranspose" and math.prod(first.kernel_shape) > 1:
        reason = f"its own kernel of {dims(first.kernel_shape)} makes the patches overlap, which would need additions"
        return Refusal(Coded(reason, "GC301"), contraction.name)
    if not contraction.whole and len(contraction.traced) < 2:
        return Refusal(ONE_SIZE, contraction.name)
    try:
        return _build(contraction, images, inner, near)
    except NoWindow as error:
        return Refusal(error.reason, contraction.name)


def weight_not_constant(traced: Traced) -> Refusal | None:
    """A projection to pixels with a weight that is an input of the model."""
    trial, inputs = traced.trial, traced.inputs
    for at in (0, 1):
        weight = inputs[at] if len(inputs) > 1 else None
        carrier = traced.source.inputs[at] if weight is not None else None
        if not isinstance(weight, Tensor) or carrier is None or trial.carriers[weight.cls][0].producer() is not None:
            continue
        stand_in = tuple(np.ones(x.shape, x.dtype) if i == at and x is not None else x for i, x in enumerate(inputs))
        one = dataclasses.replace(traced, inputs=stand_in)
        if (
            operands(one.node, list(stand_in)) is None
            or (found := product_of(one)) is None
            or not images_of(one, found)
        ):
            continue
        return Refusal(NOT_CONSTANT, model_.node_name(traced.source))
    return None


def _not_tiling(traced: Traced) -> str | None:
    """Why the windows of a ConvTranspose do not lie side by side; None if they do."""
    window = geometry.Window.resolve(traced.node.attributes, traced.data.shape[2:], traced.kernel_shape)
    pairs = list(zip(window.extents(), window.strides, strict=True))
    if any(extent > stride for extent, stride in pairs):
        return "its windows overlap, which would need additions"
    if any(extent < stride for extent, stride in pairs) or any(d > 1 for d in window.dilations):
        return "its windows leave gaps"
    size = [n * stride for n, stride in zip(traced.data.shape[2:], window.strides, strict=True)]
    out = traced.trial.shape(traced.source.outputs[0])[2:]
    return None if list(out) == size else "its pads cut off or add pixels"


def _build(
    contraction: Contraction, images: Sequence[Pixels], inner: Collection[ir.Value], near: bool
) -> Unembedding | Refusal | None:
    """The un-embedding that ends at the last of ``images`` that shows it alike at every size."""
    first, reason = contraction.first, None
    for image in reversed(images):
        try:
            seen, pixels = zip(*(_reading(image.end, traced) for traced in contraction.traced), strict=True)
            break
        except NoWindow as error:
            reason = error
    else:
        assert reason is not None
        raise reason
    axes = merge.axes(seen)
    for reading in seen[1:]:
        merge.same(seen[0], reading)
        if not _alike(seen[0].bias, reading.bias):
            raise NoWindow("the geometry differs between sizes: another bias")
    if len({one.dims for one in pixels}) > 1:
        raise NoWindow("the geometry differs between sizes: the axes have other roles")
    held = [list(_held(reading, image, near)) for reading, image in zip(seen, pixels, strict=True)]
    shared = [t for t in held[0] if all(_has(t, others) for others in held[1:])]
    if not shared:
        raise NoWindow("the geometry differs between sizes: its input orders the windows otherwise")
    tokens = next((t for t in shared if t.value not in inner), shared[-1])
    runs = [traced.trial for traced in contraction.traced]
    nodes = merge.region(tokens.value, image.end, runs[0])
    index, groups = merge.with_groups(seen[0])
    pattern = merge.pattern(seen[0], axes)
    bias = seen[0].bias
    return Unembedding(
        form=merge.form_upward(seen[0], nodes),
        pattern=None if pattern is None else " -> ".join(reversed(pattern.split(" -> "))),
        axes=axes,
        layout=merge.layout_of(axes),
        groups=groups,
        in_channels=len(index),
        out_channels=index.shape[1] * groups,
        kernel_shape=seen[0].kernel_shape,
        input=tokens.value,
        output=image.end,
        node=contraction.node,
        region=nodes,
        dims=pixels[0].dims,
        tensors=merge.tensors(nodes, runs),
        weight_value=first.values[1],
        weight=first.weight,
        weight_index=index,
        alpha=seen[0].alpha,
        bias=None if bias is None else bias.astype(first.weight.dtype),
        order=tokens.order,
        quantized=stored_integers(first.values[1], index, runs[0]),
        shape=runs[0].shape(image.end),
        taken=tokens.taken,
        given=tuple(
            d[0] if len(set(d)) == 1 else None for d in zip(*(r.shape(tokens.value) for r in runs), strict=True)
        ),
    )


def _alike(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b))


def _has(tokens: Tokens, others: Sequence[Tokens]) -> bool:
    """Whether another trial shows the same value in the same way."""
    return any((t.value, t.order, t.taken) == (tokens.value, tokens.order, tokens.taken) for t in others)


def _reading(end: ir.Value, traced: Traced) -> tuple[Reading, Pixels]:
    """The windows of ``end`` with weight and bias as for a patch embedding of it."""
    found = product_of(traced)
    pixels = None if found is None else pixels_at(end, traced.source.outputs[0], found, traced)
    if found is None or pixels is None:
        raise NoWindow("the geometry differs between sizes: there are patches at one alone")
    (groups, rows, _), n, window = found.shape, found.kernel.shape[1], pixels.window
    bias = own_bias(found, traced, rows_of(found, traced), groups * n)
    if pixels.bias is not None:
        if bias is not None:
            raise NoWindow("a second constant is added to the bias before the movement to pixels", "GC303")
        bias = per_channel(pixels.bias, pixels.placed, groups * n, traced.trial.terms.maps)
        if bias is None:
            raise NoWindow("the bias differs between the rows")
    turned = dataclasses.replace(
        found, shape=(groups, rows, n), kernel=np.ascontiguousarray(found.kernel.transpose(0, 2, 1))
    )
    index, site_groups = index_of_weight(window, turned)
    kernel = tuple(axis.kernel for axis in window.axes if axis.role == "spatial")
    if bias is not None:
        bias = _by_offset(bias, window)
    direct = traced.node.op_type == "ConvTranspose"
    columns = (window.offsets, window.positions)
    return Reading(
        traced, end, window.axes, pixels.placed, index, site_groups, found.alpha, bias, direct, False, columns, kernel
    ), pixels  # fmt: skip


def _by_offset(bias: np.ndarray, window: WindowMap) -> np.ndarray:
    """A bias of each column as [channels, *kernel]."""
    order = sorted(range(len(window.axes)), key=lambda i: ("channel", "spatial", "batch").index(window.axes[i].role))
    kept = [i for i in order if window.axes[i].role != "batch"]
    sizes = [a.size if a.role == "channel" else a.kernel for a in (window.axes[i] for i in kept)]
    placed = np.empty(bias.size, bias.dtype)
    placed[np.ravel_multi_index(tuple(window.offsets[kept]), sizes)] = bias
    return placed.reshape(-1, *(a.kernel for a in window.axes if a.role == "spatial"))


def _held(reading: Reading, pixels: Pixels, near: bool) -> Iterator[Tokens]:
    """Values that hold the tokens, the furthest back first; with ``near`` the operand itself alone."""
    traced, maps = reading.traced, reading.traced.trial.terms.maps
    found, trial = product_of(traced), traced.trial
    assert found is not None
    groups, rows, k = found.shape
    columns = (
        found.columns if groups == 1 else maps.compose(found.columns, maps.transpose((groups, rows, k), (1, 0, 2)))
    )
    seen = maps.compose(columns, maps.picked_rows(row_at(pixels), groups * k))
    if seen is None or seen.has_zero:
        return
    there = [(traced.values[0], seen)]
    if not near and len(trial.sources(traced.data.cls)) == 1:
        source, moved = trial.index_of(traced.data.cls)
        table = maps.compose(moved, seen)
        assert table is not None
        there = [*(() if table.has_zero else candidates(source, table, traced)), *there]
    for value, view in there:
        shape = trial.shape(value)
        over = (
            None
            if trial.dtype(value) != traced.data.dtype
            else dims_over(view, [*pixels.counts, groups * k], shape, maps)
        )
        if over is not None:
            spans = [math.prod([*pixels.counts, groups * k][a] for a in group) for group in over[0]]
            taken = tuple((b, n - b - span) for b, n, span in zip(over[1], shape, spans, strict=True))
            yield Tokens(value, over[0], taken)


def _kept_apart(traced: Traced, found: Product) -> Refusal | None:
    """The node that stands between a projection and movement that would make its columns patches of pixels."""
    trial, maps = traced.trial, traced.trial.terms.maps
    bases: list[tuple[ir.Value, Map | None, ir.Node | None]] = [
        (traced.source.outputs[0], rows_of(found, traced), None)
    ]
    for base, placed, blocker in bases:
        moved = after(base, trial, part=True)
        for value in moved:
            there = shown(value, base, trial, part=True)
            view = None if there is None else maps.compose(placed, there.index)
            image = None if blocker is None else windows_at(traced, value, view, width_of(found))
            if blocker is not None and image is not None and on_own_axes(traced, image):
                reason = f"{blocker.op_type} stands between the projection and the movement to pixels"
                return Refusal(Coded(reason, "GC303"), model_.node_name(blocker))
            for node in dict.fromkeys(use.node for use in value.uses()):
                out = node.outputs[0]
                if node.op_type == "Col2Im" and out not in moved:
                    reason = "its windows do not lie side by side, which would need additions or a cut"
                    return Refusal(Coded(reason, "GC301"), model_.node_name(node))
                if len(bases) < _STEPS and out not in moved and _elementwise(node, value, trial):
                    bases.append((out, view, blocker or node))
    return None


def _elementwise(node: ir.Node, value: ir.Value, trial: Trial) -> bool:
    """Whether a node gives a tensor shaped like ``value``, its only operand of that size: a normalization's steps do."""
    shape = trial.shape(value)
    sized = [v for v in dict.fromkeys(node.inputs) if v is not None and math.prod(trial.shape(v)) == math.prod(shape)]
    return sized == [value] and trial.shape(node.outputs[0]) == shape and node not in trial.products
