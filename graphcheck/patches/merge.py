"""Readings at several sizes as one geometry, and the names that people know it by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from graphcheck.graphs import walk
from graphcheck.patches.reading import Reading
from graphcheck.patches.site import SiteAxis
from graphcheck.patches.trace import Trial
from graphcheck.patches.window import Axis, NoWindow

_LAYOUT = {"batch": "N", "channel": "C"}
# Operators that move without copying or dropping; a region of these alone is the reshape form.
_RESHAPES = frozenset(
    [
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
        "Cast",
        "If",
        "MatMul",
        "Gemm",
        "Einsum",
        "FusedMatMul",
        "FusedGemm",
    ]
)


def axes(readings: Sequence[Reading]) -> tuple[SiteAxis, ...]:
    """The axes of all readings as one; raises :class:`NoWindow` where they disagree."""
    if len({tuple(a.role for a in r.axes) for r in readings}) > 1 or len({id(r.source) for r in readings}) > 1:
        raise NoWindow("the geometry differs between sizes: the axes have other roles")
    return tuple(_axis([r.axes[i] for r in readings]) for i in range(len(readings[0].axes)))


def _axis(seen: list[Axis]) -> SiteAxis:
    size = seen[0].size if len({a.size for a in seen}) == 1 else None
    count = seen[0].count if len({a.count for a in seen}) == 1 else None
    role = seen[0].role
    if role != "spatial":
        if role == "channel" and size is None:
            raise NoWindow("the geometry differs between sizes: the number of channels varies")
        return SiteAxis(role, size, count)
    several = [a for a in seen if a.count > 1]
    stride = (several or seen)[0].stride
    if len({(a.kernel, a.dilation, a.origin) for a in seen}) > 1 or any(a.stride != stride for a in several):
        raise NoWindow("the geometry differs between sizes: another kernel, stride, dilation or padding")
    first, begin = seen[0], -seen[0].origin
    lows = [(a.count - 1) * stride + a.extent - a.size - begin for a in seen]
    low, high = max(lows), min(lows) + stride - 1
    if low > high:
        raise NoWindow("the geometry differs between sizes: the windows end elsewhere")
    stated = {a.end for a in seen}
    if len(stated) == 1 and first.end is not None and low <= first.end <= high:
        end = first.end
    elif low <= begin <= high and begin >= 0:
        end = begin
    else:
        end = 0 if low <= 0 <= high else low if low > 0 else high
    return SiteAxis(role, size, count, first.kernel, stride, first.dilation, begin, end)


def same(a: Reading, b: Reading) -> None:
    """Raise :class:`NoWindow` unless both readings order channels and filters alike."""
    if not np.array_equal(a.weight_index, b.weight_index) or a.groups != b.groups or a.alpha != b.alpha:
        raise NoWindow("the geometry differs between sizes: the flattened patch has another order")


def with_groups(reading: Reading) -> tuple[np.ndarray, int]:
    """(weight index, groups), with a block-diagonal weight told as groups."""
    index, groups = reading.weight_index, reading.groups
    if groups > 1 or index.ndim < 2 or reading.direct or reading.flattened:
        return index, groups
    flat = np.concatenate([reading.traced.weight.reshape(-1) != 0, [False]])
    block = flat[index].reshape(*index.shape[:2], -1).any(axis=2)
    common = math.gcd(*block.shape)
    for g in range(common, 1, -1):
        if common % g:
            continue
        filters, channels = block.shape[0] // g, block.shape[1] // g
        parts = block.reshape(g, filters, g, channels).any(axis=(1, 3))
        if not bool((parts & ~np.eye(g, dtype=bool)).any()) and bool(parts.any()):
            kept = index.reshape(g, filters, g, channels, *index.shape[2:])
            diagonal = kept[np.arange(g), :, np.arange(g)]
            return diagonal.reshape(g * filters, channels, *index.shape[2:]), g
    return index, 1


def layout_of(axes_: Sequence[SiteAxis]) -> str:
    """``NCHW``, ``NHWC``, ``NWC``, ``NDCHW`` ...: N for each batch axis, C for each channel axis."""
    spatial = sum(a.role == "spatial" for a in axes_)
    letters = "DHW"[3 - spatial :] if spatial <= 3 else "".join("STUVWXYZ"[:spatial])
    names = iter(letters)
    return "".join(_LAYOUT.get(a.role) or next(names) for a in axes_)


def region(source: ir.Value, end: ir.Value, trial: Trial) -> tuple[ir.Node, ...]:
    """The nodes between ``source`` and ``end`` that compute on the data, in graph order."""

    def computed(value: ir.Value) -> bool:
        return value is not source and trial.tensor(value) is not None

    values = walk.back([end], lambda value: walk.operands(value) if computed(value) else ())
    return tuple(sorted(walk.makers(filter(computed, values)), key=lambda node: trial.places.get(node, 0)))


def tensors(nodes: Sequence[ir.Node], runs: Sequence[Trial]) -> tuple[tuple[str, str, tuple[int | None, ...]], ...]:
    """(name, operator, shape) of what the nodes compute; None for a dim that varies with the size."""
    rows = []
    for node in nodes:
        for value in node.outputs:
            shapes = [t.shape for run in runs if (t := run.tensor(value)) is not None]
            if shapes and len({len(s) for s in shapes}) == 1:
                dims = tuple(d[0] if len(set(d)) == 1 else None for d in zip(*shapes, strict=True))
                rows.append((value.name or "", node.op_type, dims))
    return tuple(rows)


def form(reading: Reading) -> str:
    """The name of the form that the graph has: by its operators, for people only."""
    node = reading.traced.source
    if all(axis.kernel == 1 for axis in reading.axes) and not reading.flattened:
        return "conv" if reading.traced.is_conv else "matmul"
    trial = reading.traced.trial
    ops = {n.op_type for n in region(reading.source, node.outputs[0], trial) if _changes(n, trial)}
    if reading.traced.is_conv:
        plain = ops <= _RESHAPES | {node.op_type, "Pad"} and math.prod(_conv_kernel(node)) != 1
        return "conv" if plain and _conv_kernel(node) == reading.kernel_shape else "space-to-depth"
    sliding = any(a.extent > a.stride for a in reading.axes if a.role == "spatial")
    return "matmul" if ops <= _RESHAPES and not sliding else "unfold"


def _changes(node: ir.Node, trial: Trial) -> bool:
    """Whether a node gives other elements than its operands, or in another order: a product with one does not."""
    operands = {trial.tensor(value) for value in node.inputs}
    return not {t.cls for value in node.outputs if (t := trial.tensor(value))} & {t.cls for t in operands if t}


def form_upward(reading: Reading, nodes: Sequence[ir.Node]) -> str:
    """The name of the form that a projection to pixels has in these ``nodes``, for people only."""
    node = reading.traced.source
    ops = {n.op_type for n in nodes}
    plain = ops <= _RESHAPES | {node.op_type, "Add", "Slice"}
    if node.op_type == "ConvTranspose":
        return "conv-transpose" if plain and reading.traced.kernel_shape == reading.kernel_shape else "pixel-shuffle"
    if reading.traced.is_conv:
        return "depth-to-space" if "DepthToSpace" in ops else "pixel-shuffle"
    return "matmul" if plain else "fold"


def _conv_kernel(node: ir.Node) -> tuple[int, ...]:
    declared = node.attributes.get("kernel_shape")
    if declared is not None:
        return tuple(declared.as_ints())
    shape = node.inputs[1].shape if node.inputs[1] is not None else None
    return tuple(int(d) for d in shape[2:]) if shape is not None else ()  # type: ignore[arg-type]


def pattern(reading: Reading, axes_: Sequence[SiteAxis]) -> str | None:
    """The movement as einops writes it, ``b c (h p1) (w p2) -> b (h w) (p1 p2 c)``; None where there is no pattern."""
    tiles = all(
        a.extent == a.stride and a.dilation == 1 and not a.begin and a.end == 0 for a in axes_ if a.role == "spatial"
    )
    patched = [i for i, a in enumerate(axes_) if a.role == "spatial" and a.kernel > 1]
    if reading.flattened or not tiles or not patched:
        return None
    left, rows, kernel, channel = [], [], [], []
    spatial = [i for i, a in enumerate(axes_) if a.role == "spatial"]
    names = dict(
        zip(
            spatial,
            (["t", "h", "w"] if len(spatial) == 3 else ["h", "w"] if len(spatial) == 2 else ["l"]),
            strict=False,
        )
    )
    if len(spatial) > 3:
        return None
    batch = [i for i, a in enumerate(axes_) if a.role == "batch"]
    channels = [i for i, a in enumerate(axes_) if a.role == "channel"]
    for i in range(len(axes_)):
        if i in batch:
            name = "b" if len(batch) == 1 else f"b{batch.index(i) + 1}"
            left.append(name)
            rows.append((i, name))
        elif i in channels:
            name = "c" if len(channels) == 1 else f"c{channels.index(i) + 1}"
            left.append(name)
            channel.append((i, name))
        elif i in patched:
            part = "p" if len(patched) == 1 else f"p{patched.index(i) + 1}"
            left.append(f"({names[i]} {part})")
            rows.append((i, names[i]))
            kernel.append((i, part))
        else:
            left.append(names[i])
            rows.append((i, names[i]))
    if reading.direct:
        order = [*channel, *kernel]
        columns: list[str] | None = [name for _, name in order]
    else:
        columns = _columns(reading, [*channel, *kernel])
    if columns is None:
        return None
    if not reading.direct:
        rows = _row_order(reading, rows)
    heads = [name for i, name in rows if i in batch]
    grid = [name for i, name in rows if i not in batch]
    middle = f"({' '.join(grid)})" if len(grid) > 1 else grid[0]
    return f"{' '.join(left)} -> {' '.join([*heads, middle])} ({' '.join(columns)})"


def _row_order(reading: Reading, rows: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """The rows' axes, the slowest first."""
    positions = reading.columns[1]
    first = {i: int(np.argmax(positions[i] > 0)) if positions[i].any() else 0 for i, _ in rows}
    return sorted(rows, key=lambda row: -first[row[0]] if first[row[0]] else -positions.shape[1])


def _columns(reading: Reading, named: list[tuple[int, str]]) -> list[str] | None:
    """The names of the flattened patch's axes, slowest first; None if it is no transposition of them."""
    offsets = reading.columns[0]
    counts = [max(int(offsets[i].max()) + 1, 1) for i, _ in named]
    if math.prod(counts) != offsets.shape[1]:
        return None
    flat = np.ravel_multi_index(tuple(offsets[i] for i, _ in named), counts)
    back = np.empty(flat.size, np.int64)
    back[flat] = np.arange(flat.size)
    table = back.reshape(counts)
    steps = []
    for at, count in enumerate(counts):
        step = int(np.take(table, 1, axis=at).reshape(-1)[0]) if count > 1 else 0
        steps.append(step)
        table = table - step * np.arange(count).reshape([-1 if i == at else 1 for i in range(len(counts))])
    if bool(table.any()):
        return None
    order = sorted(range(len(named)), key=lambda i: -steps[i] if counts[i] > 1 else 0)
    return [named[i][1] for i in order]
