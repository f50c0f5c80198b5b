"""Mutations of movement and wiring: axes, permutations, windows, indices, orders, residuals, batches."""

from __future__ import annotations

import itertools

import numpy as np
import onnx

from tests.zoo.editing import Editor, Mutation, attribute, set_attribute


def softmax_axis(e: Editor) -> onnx.NodeProto | None:
    """Softmax over the axis before its own."""
    for node in e.nodes("Softmax", "LogSoftmax"):
        rank = len(e.shape(node.input[0]) or ())
        if rank > 1:
            set_attribute(node, "axis", int(attribute(node, "axis", -1)) % rank - 1)
            return node
    return None


def reduce_axis(e: Editor) -> onnx.NodeProto | None:
    """A kept-dims reduction over the axis before its own."""
    for node in e.nodes("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"):
        rank = len(e.shape(node.input[0]) or ())
        axes = e.constant(node, 1) if len(node.input) > 1 else np.asarray(attribute(node, "axes", ()), np.int64)
        if axes is None or axes.size != 1 or rank < 2 or not attribute(node, "keepdims", 1):
            continue
        moved = axes % rank - 1
        if len(node.input) > 1:
            e.set_constant(node, 1, moved)
        else:
            set_attribute(node, "axes", [int(moved[0])])
        return node
    return None


def concat_axis(e: Editor) -> onnx.NodeProto | None:
    """Concat along another axis (valid where a Reshape follows)."""
    for node in e.nodes("Concat"):
        rank = len(e.shape(node.output[0]) or ())
        if rank > 1 and len(node.input) > 1:
            set_attribute(node, "axis", (int(attribute(node, "axis")) - 1) % rank)
            return node
    return None


def perm(e: Editor) -> onnx.NodeProto | None:
    """Two axes of the same size swapped in a Transpose."""
    for node in e.nodes("Transpose"):
        shape = e.shape(node.output[0])
        if not shape:
            continue
        order = list(attribute(node, "perm", range(len(shape))[::-1]))
        for i, j in itertools.combinations(range(len(shape)), 2):
            if shape[i] == shape[j] and shape[i] is not None and shape[i] != 1:
                order[i], order[j] = order[j], order[i]
                set_attribute(node, "perm", order)
                return node
    return None


def pads(e: Editor) -> onnx.NodeProto | None:
    """A window's pads moved by one pixel."""
    for node in e.nodes("Conv", "MaxPool", "AveragePool", "ConvTranspose"):
        found = list(attribute(node, "pads", ()))
        half = len(found) // 2
        if found and found[half] > 0:
            found[0], found[half] = found[0] + 1, found[half] - 1
            set_attribute(node, "pads", found)
            return node
    for node in e.nodes("Pad"):
        value = e.constant(node, 1)
        if value is not None and value[value.size // 2 :].any():
            at = int(np.flatnonzero(value[value.size // 2 :])[0])
            value = value.copy()
            value[at], value[at + value.size // 2] = value[at] + 1, value[at + value.size // 2] - 1
            e.set_constant(node, 1, value)
            return node
    return None


def strides(e: Editor) -> onnx.NodeProto | None:
    """A stride more by one, with as much padding as keeps the output's size."""
    for node in e.nodes("Conv", "MaxPool", "AveragePool"):
        shape, out = e.shape(node.input[0]), e.shape(node.output[0])
        found = list(attribute(node, "strides", ()))
        if not found or not shape or not out or None in shape[2:] or None in out[2:] or out[-1] == 1:
            continue
        before = list(attribute(node, "pads", [0] * (2 * len(found))))
        found[-1] += 1
        before[-1] += int(out[-1] or 0) - 1
        set_attribute(node, "strides", found)
        set_attribute(node, "pads", before)
        return node
    return None


def dilations(e: Editor) -> onnx.NodeProto | None:
    """A dilation of 2 with as much padding as keeps the output's size."""
    for node in e.nodes("Conv", "MaxPool"):
        weight = e.constant(node, 1)
        kernel = list(attribute(node, "kernel_shape") or (() if weight is None else weight.shape[2:]))
        if not kernel or kernel[-1] < 2 or kernel[-1] % 2 == 0:
            continue
        rank = len(kernel)
        steps, around = list(attribute(node, "dilations", [1] * rank)), list(attribute(node, "pads", [0] * (2 * rank)))
        steps[-1] += 1
        for at in (rank - 1, 2 * rank - 1):
            around[at] += (kernel[-1] - 1) // 2
        set_attribute(node, "dilations", steps)
        set_attribute(node, "pads", around)
        return node
    return None


def slice_bounds(e: Editor) -> onnx.NodeProto | None:
    """A Slice moved by one element."""
    for node in e.nodes("Slice"):
        starts, ends, axes, steps = (e.constant(node, i) for i in (1, 2, 3, 4))
        shape = e.shape(node.input[0])
        if starts is None or ends is None or axes is None or not shape or (steps is not None and (steps < 0).any()):
            continue
        for i, axis in enumerate(axes):
            size = shape[int(axis)]
            if size is None or size < 2:
                continue
            low, high = (int(np.clip(v + size if v < 0 else v, 0, size)) for v in (starts[i], ends[i]))
            by = 1 if high < size else -1 if low > 0 else 0
            if by:
                starts, ends = starts.copy(), ends.copy()
                starts[i], ends[i] = low + by, high + by
                e.set_constant(node, 1, starts)
                e.set_constant(node, 2, ends)
                return node
    return None


def gather_index(e: Editor) -> onnx.NodeProto | None:
    """Another index of a Gather."""
    for node in e.nodes("Gather"):
        index, shape = e.constant(node, 1), e.shape(node.input[0])
        size = shape[attribute(node, "axis", 0)] if shape else None
        if index is not None and size is not None and size > 1:
            e.set_constant(node, 1, (index + 1) % size)
            return node
    return None


def concat_order(e: Editor) -> onnx.NodeProto | None:
    """Two operands of a Concat swapped (a class token put last, two halves exchanged)."""
    for node in e.nodes("Concat"):
        if len(node.input) > 1 and node.input[0] != node.input[1]:
            node.input[0], node.input[1] = node.input[1], node.input[0]
            return node
    return None


def split_order(e: Editor) -> onnx.NodeProto | None:
    """Two outputs of a Split swapped."""
    for node in e.nodes("Split"):
        if len(node.output) > 1 and e.shape(node.output[0]) == e.shape(node.output[1]):
            node.output[0], node.output[1] = node.output[1], node.output[0]
            return node
    return None


def residual_rewired(e: Editor) -> onnx.NodeProto | None:
    """The sum of a block and its input becomes twice the block."""
    for node in e.nodes("Add"):
        a, b = node.input
        if a != b and not {a, b} & e.constants.keys() and e.shape(a) == e.shape(b):
            node.input[1] = a
            return node
    return None


def layer_dropped(e: Editor) -> onnx.NodeProto | None:
    """A residual block is left out."""
    for node in e.nodes("Add"):
        a, b = node.input
        if a != b and not {a, b} & e.constants.keys() and e.shape(a) == e.shape(b) is not None:
            e.replace(node, "Identity")
            del node.input[1:]
            return node
    return None


def norm_dropped(e: Editor) -> onnx.NodeProto | None:
    """A LayerNormalization is left out."""
    for node in e.nodes("LayerNormalization", "BatchNormalization"):
        e.replace(node, "Identity")
        del node.input[1:]
        del node.output[1:]
        return node
    return None


def head_swap(e: Editor) -> onnx.NodeProto | None:
    """The first two heads of one operand of an attention's product exchanged."""
    for node in e.nodes("MatMul"):
        shape = e.shape(node.input[0])
        count = shape[1] if shape and len(shape) == 4 else None
        if count is not None and count > 1 and len(e.shape(node.input[1]) or ()) == 4:
            heads = np.arange(count)
            heads[:2] = 1, 0
            e.insert_before(node, 0, "Gather", [e.new_constant(heads)], axis=1)
            return node
    return None


def batch_baked(e: Editor) -> onnx.NodeProto | None:
    """Every image of the batch becomes the first one."""
    for node in e.nodes():
        name = node.input[0] if node.input else ""
        if any(v.name == name for v in e.graph.input) and e.shape(name) and (e.shape(name) or (1,))[0] != 1:
            shape, index = e.fresh("shape"), e.new_constant(np.zeros(1, np.int64))
            e.insert_before(node, 0, "Expand", [shape])
            at = next(i for i, n in enumerate(e.graph.node) if n.op_type == "Expand" and n.input[1] == shape)
            e.graph.node.insert(at, onnx.helper.make_node("Shape", [name], [shape], name=e.fresh("Shape")))
            expand = e.graph.node[at + 1]
            e.insert_before(expand, 0, "Gather", [index], axis=0)
            return node
    return None


def batch_reshaped(e: Editor) -> onnx.NodeProto | None:
    """The batch of a Reshape's shape becomes 1."""
    for node in e.nodes("Reshape"):
        value = e.constant(node, 1)
        if value is not None and value.size > 1 and value[0] in (-1, 0) and (e.shape(node.input[0]) or (1,))[0] is None:
            value = value.copy()
            value[0] = 1
            e.set_constant(node, 1, value)
            return node
    return None


def operands_swapped(e: Editor) -> onnx.NodeProto | None:
    """a - b becomes b - a."""
    for node in e.nodes("Sub", "Pow", "Div"):
        if e.shape(node.input[0]) == e.shape(node.input[1]) or node.op_type == "Sub":
            node.input[0], node.input[1] = node.input[1], node.input[0]
            return node
    return None


def where_swapped(e: Editor) -> onnx.NodeProto | None:
    """The two branches of a Where exchanged."""
    for node in e.nodes("Where"):
        node.input[1], node.input[2] = node.input[2], node.input[1]
        return node
    return None


def matmul_swapped(e: Editor) -> onnx.NodeProto | None:
    """A @ B of square computed matrices becomes B @ A."""
    for node in e.nodes("MatMul"):
        shapes = [e.shape(name) for name in node.input]
        if shapes[0] == shapes[1] and shapes[0] and shapes[0][-1] == shapes[0][-2]:
            node.input[0], node.input[1] = node.input[1], node.input[0]
            return node
    return None


def tokens_reversed(e: Editor) -> onnx.NodeProto | None:
    """The last two elements of the inner axis of a computed tensor exchanged."""
    for node in e.nodes("MatMul", "Add", "Mul", "LayerNormalization", "Conv", "Reshape"):
        shape = e.shape(node.output[0])
        if shape and isinstance(shape[-1], int) and shape[-1] > 1:
            index = np.arange(shape[-1])
            index[-2:] = index[:-3:-1]
            e.insert_after(node, "Gather", [e.new_constant(index)], axis=len(shape) - 1)
            return node
    return None


MUTATIONS: dict[str, Mutation] = {
    "axis of Softmax": softmax_axis,
    "axis of a reduction": reduce_axis,
    "axis of Concat": concat_axis,
    "perm of Transpose": perm,
    "pads": pads,
    "strides": strides,
    "dilations": dilations,
    "slice bounds": slice_bounds,
    "gather index": gather_index,
    "order of Concat": concat_order,
    "order of Split": split_order,
    "residual rewired": residual_rewired,
    "layer dropped": layer_dropped,
    "normalization dropped": norm_dropped,
    "heads swapped": head_swap,
    "batch baked": batch_baked,
    "batch of a Reshape baked": batch_reshaped,
    "operands swapped": operands_swapped,
    "branches of Where swapped": where_swapped,
    "factors of MatMul swapped": matmul_swapped,
    "two elements swapped": tokens_reversed,
}
