"""The type of rows: how an operator treats the rows of a batch whose size N is free.

Every tensor of one graph has one of four types:

- fixed: for every N the same shape and the same elements (the inputs that do not have N being given);
- rows (axis, outer, inner): that axis has outer * N * inner elements, and block n of it, the elements with the number n in
  the middle, is a function of row n of the inputs alone, the same one for every n and every N; the other axes are fixed;
- sized: integers a + b N (:mod:`graphcheck.kernel.ops.forms`);
- mixed: anything else; the node that made it so is remembered.

A rule says of one operator which type its outputs have, given those of its inputs, and holds by the operator's definition for
every N >= 1. It is a field of the operator's entry (:class:`Op`); an operator without one is mixed. docs/explanation.md has
the theorem that rests on it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.ops.algebra import Value
from graphcheck.kernel.ops.forms import Form, Formless, Sized, constants, product, text
from graphcheck.kernel.ops.node import Node

FAR = 10**9  # as the end of a Slice, from here on it means all the way: TensorFlow's exports write this number


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    """The same for every N."""


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Block n of an axis of outer * N * inner elements depends on row n alone."""

    axis: int
    outer: int = 1
    inner: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Mixed:
    """Neither: the node and the reason, and the sizes of the axes as far as they can be guessed."""

    node: str
    reason: str
    dims: tuple[Form, ...] = ()


Kind = Fixed | Rows | Sized | Mixed
FIXED = Fixed()


BAKES = "it bakes the size in"  # how a reason begins where a node fits one size alone


class Mix(Exception):
    """The output is mixed; the text is the reason."""


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A node with its values at the traced size ``n`` and the types of its inputs (None for an omitted one)."""

    node: Node
    inputs: Sequence[Value]
    kinds: Sequence[Kind | None]
    outputs: Sequence[Value]
    n: int

    def kind(self, at: int) -> Kind | None:
        """The type of an input; None where it is omitted."""
        return self.kinds[at] if at < len(self.kinds) else None

    def shape(self, at: int) -> tuple[int, ...]:
        """The shape of an input at the traced size."""
        return tuple(self.inputs[at].shape)  # type: ignore[union-attr]

    def rank(self, at: int = 0) -> int:
        """Of an output."""
        return len(self.outputs[at].shape)  # type: ignore[union-attr]

    def rows(self, at: int = 0) -> Rows:
        """The rows of an input; raises :class:`Mix` if it has none."""
        kind = self.kind(at)
        if not isinstance(kind, Rows):
            raise Mix("its data does not have this dim")
        return kind

    def fixed(self, *but: int) -> None:
        """Raise :class:`Mix` unless all inputs except ``but`` are fixed."""
        for i, kind in enumerate(self.kinds):
            if i not in but and not (kind is None or is_fixed(kind)):
                raise Mix(f"its input {i} depends on this dim")

    def numbers(self, at: int) -> np.ndarray:
        """A fixed input that steers; raises :class:`Mix` if it is not fixed."""
        kind, value = self.kind(at), self.inputs[at]
        if kind is None or not is_fixed(kind) or not isinstance(value, np.ndarray):
            raise Mix(f"its input {at} depends on this dim")
        return value

    def forms(self, at: int) -> list[Form]:
        """The numbers of an input that steers, for every N; raises :class:`Mix` if they are not known for every N."""
        kind = self.kind(at)
        if isinstance(kind, Sized) and kind.sure:
            return kind.forms()
        try:
            return constants(self.numbers(at)).forms()
        except Formless:
            raise Mix(f"its input {at} holds other numbers than sizes") from None

    def axis(self, name: str = "axis", default: int = 0, at: int = 0) -> int:
        """An attribute that is an axis of an input, counted from the front."""
        return int(self.node.attr(name, default)) % max(len(self.shape(at)), 1)

    def dims(self, at: int) -> list[Form]:
        """The sizes of the axes of an input for every N."""
        return dims_of(self.kinds[at], self.shape(at))


Rule = Callable[[Seen], "Kind | Sequence[Kind]"]


def mixed(see: Seen) -> Kind:
    """The rule of an operator that nobody typed."""
    raise Mix("no rule says what it does with this dim")


@dataclasses.dataclass(frozen=True, slots=True)
class Op:
    """An operator: what it means in verbs, and how it passes the type of rows on."""

    meaning: Callable[..., Any]
    rows: Rule = mixed

    def __call__(self, *args: Any) -> Any:
        """The meaning."""
        return self.meaning(*args)


def ops(rule: Rule, meanings: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Entries of a family with one rule."""
    return {name: Op(meaning, rule) for name, meaning in meanings.items()}


def is_fixed(kind: Kind) -> bool:
    """Whether a value is the same for every N."""
    return isinstance(kind, Fixed) or (isinstance(kind, Sized) and kind.constant)


def dims_of(kind: Kind | None, shape: Sequence[int]) -> list[Form]:
    """The sizes of the axes as a + b N: known for every N, but of a mixed tensor a guess."""
    if isinstance(kind, Mixed) and len(kind.dims) == len(shape):
        return list(kind.dims)
    dims: list[Form] = [(n, 0) for n in shape]
    if isinstance(kind, Rows):
        dims[kind.axis] = (0, kind.outer * kind.inner)
    return dims


def aligned(see: Seen, among: Sequence[int] | None = None, but: int = 0) -> Rows:
    """The rows that operands which broadcast have in common, the axis counted from the back (negative).

    Raises :class:`Mix` where two stand on different axes, or where a fixed operand has more than one element along it. The
    last ``but`` axes are not broadcast.
    """
    found: Rows | None = None
    there = [i for i in (range(len(see.kinds)) if among is None else among) if see.kind(i) is not None]
    for i in there:
        kind = see.kinds[i]
        if isinstance(kind, Rows):
            here = dataclasses.replace(kind, axis=kind.axis - len(see.shape(i)))
            if found is not None and found != here:
                raise Mix("this dim stands on different axes of its operands")
            found = here
        elif kind is not None and not is_fixed(kind):
            raise Mix("it computes with a size")
    if found is None:
        raise Mix("its data does not have this dim")
    for i in there:
        shape = see.shape(i)
        if not isinstance(see.kinds[i], Rows) and -found.axis <= len(shape) and shape[found.axis] != 1:
            raise Mix(f"{BAKES}: an operand has one size along this dim")
    return found


def elementwise(see: Seen) -> Kind:
    """Operands that broadcast: the batch is on the same axis of all, and no other has more than one element there."""
    found = aligned(see)
    return dataclasses.replace(found, axis=see.rank() + found.axis)


def off(axes: Callable[[Seen], Sequence[int]], *, keeps: bool = True) -> Rule:
    """An operator along ``axes`` of input 0, off the batch; other inputs broadcast to it, and it to none."""

    def rule(see: Seen) -> Kind:
        see.rows()
        rank = len(see.shape(0))
        found, gone = aligned(see), {a % rank for a in axes(see)} if rank else set()
        axis = rank + found.axis
        if axis < 0 or axis in gone:
            raise Mix("it works along this dim")
        if not keeps and not see.node.attr("keepdims", 1):
            axis -= sum(a < axis for a in gone)
        return dataclasses.replace(found, axis=axis)

    return rule


def attribute(name: str = "axis", default: int = 0) -> Callable[[Seen], Sequence[int]]:
    """The axis that an attribute names."""
    return lambda see: (see.node.attr(name, default),)


def behind(default: int) -> Callable[[Seen], Sequence[int]]:
    """All axes from the attribute ``axis`` on."""
    return lambda see: range(see.axis(default=default), len(see.shape(0)))


def reduced(see: Seen) -> Kind:
    """A reduction: axes as an attribute or as input 1, all where there are none."""
    given = see.node.attr("axes")
    if given is None and see.kind(1) is not None:
        given = see.numbers(1).reshape(-1).tolist()
    if not given and see.node.attr("noop_with_empty_axes", 0):
        return see.rows()
    axes = given or range(len(see.shape(0)))
    alone = dataclasses.replace(see, inputs=see.inputs[:1], kinds=see.kinds[:1])
    result: Kind = off(lambda _: axes, keeps=False)(alone)  # type: ignore[assignment]
    return result


def softmax(see: Seen) -> Kind:
    """Along one axis; before opset 13 over all axes from it on."""
    old = see.node.version < 13
    axes = behind(1) if old else attribute("axis", -1)
    result: Kind = off(axes)(see)  # type: ignore[assignment]
    return result


def first(see: Seen) -> Kind:
    """Each element of axis 0 of input 0 by itself; all else is fixed."""
    see.fixed(0)
    if see.node.attr("training_mode", 0) or see.node.attr("storage_order", 0):
        raise Mix("it looks at the whole batch")
    rows = see.rows()
    if rows.axis != 0:
        raise Mix("this dim is not its axis 0")
    return rows


def pooled(see: Seen) -> Sequence[Kind]:
    """As :func:`first`; the places of the largest elements count through the batch."""
    rows = first(see)
    return [rows, *[Mixed(see.node.name, "its second output counts through this dim")] * (len(see.outputs) - 1)]


def table(see: Seen) -> Kind:
    """As :func:`first`, of a table with a row for each element of axis 0."""
    if len(see.shape(0)) != 2:
        raise Mix("its data has not two axes")
    return first(see)


def statistics(see: Seen) -> Kind:
    """BatchNormalization by stored statistics; with more outputs it takes those of the batch."""
    if len(see.outputs) > 1:
        raise Mix("it looks at the whole batch")
    return first(see)


def batched(rows: Sequence[int], also: Sequence[int] = ()) -> Rule:
    """Inputs ``rows`` and all outputs have the batch on axis 0; ``also`` too, unless they are fixed and have one element
    there; all else is fixed."""

    def rule(see: Seen) -> Kind:
        see.fixed(*rows, *also)
        base = see.rows(rows[0])
        if base.axis != 0 or see.node.attr("is_packed_batching", 0):
            raise Mix("this dim is not its axis 0")
        for i in (*rows, *also):
            kind = see.kind(i)
            one = i in also and kind is not None and is_fixed(kind) and (*see.shape(i), 1)[0] == 1
            if kind is not None and kind != base and not one:
                raise Mix(f"its input {i} has this dim elsewhere")
        return base

    return rule


def permuted(kind: Kind, perm: Sequence[int]) -> Kind:
    """The type behind a Transpose."""
    return dataclasses.replace(kind, axis=list(perm).index(kind.axis)) if isinstance(kind, Rows) else kind


def transposed(see: Seen) -> Kind:
    """The batch goes where ``perm`` puts its axis."""
    rank = len(see.shape(0))
    return permuted(see.rows(), see.node.attr("perm") or range(rank)[::-1])


def _cut(kind: Rows, shape: Sequence[int], to: Sequence[Form]) -> Rows:
    """The batch among the axes ``to`` that the same elements are given, of which one depends on N."""
    at = [j for j, (_, slope) in enumerate(to) if slope]
    if len(at) != 1 or to[at[0]][0]:
        raise Mix("the new shape does not hold this dim on one axis")
    k, per = at[0], int(to[at[0]][1])
    before = math.prod(shape[: kind.axis]) * kind.outer
    ahead = math.prod(int(n) for n, _ in to[:k])
    if not ahead or not before or before % ahead or per % (before // ahead):
        raise Mix("the new shape cuts through this dim")
    return Rows(k, before // ahead, per // (before // ahead))


def reshaped(see: Seen) -> Kind:
    """The elements keep their order: as many stand before a block as before, and the shape holds N."""
    kind, shape = see.rows(), see.shape(0)
    if see.node.attr("shape") is not None:
        raise Mix("its shape is an attribute")
    dims, to = see.dims(0), see.forms(1)
    if not see.node.attr("allowzero", 0):
        to = [dims[i] if form == (0, 0) and i < len(dims) else form for i, form in enumerate(to)]
    return _cut(kind, shape, _filled(product(dims), to))


def _filled(total: Form, to: Sequence[Form]) -> Sequence[Form]:
    """Sizes with -1 replaced by what is left of ``total``; raises :class:`Mix` where they are not that many for every N."""
    try:
        known = product([form for form in to if form != (-1, 0)])
    except Formless:
        raise Mix("the new shape has this dim twice") from None
    if total[0] or (known[0] and known[1]) or not any(known):
        raise Mix("the new shape is not known for every size")
    if (-1, 0) not in to:
        if known != total:
            raise Mix(f"{BAKES}: its shape is [{', '.join(map(text, to))}]")
        return to
    count = total[1] // known[1] if known[1] else total[1] // known[0]
    if count * (known[1] or known[0]) != total[1]:
        raise Mix("the elements do not fill the new shape for every size")
    return [((count, 0) if known[1] else (0, count)) if form == (-1, 0) else form for form in to]


def flattened(see: Seen) -> Kind:
    """Flatten: two axes, cut at ``axis``."""
    kind, at = see.rows(), int(see.node.attr("axis", 1))
    dims = see.dims(0)
    at = at + len(dims) if at < 0 else at
    return _cut(kind, see.shape(0), [product(dims[:at]), product(dims[at:])])


def squeezed(see: Seen) -> Kind:
    """Squeeze of named axes off the batch."""
    axes = see.node.attr("axes") or (see.numbers(1).reshape(-1).tolist() if see.kind(1) is not None else None)
    kind, rank = see.rows(), len(see.shape(0))
    if not axes:
        raise Mix("it drops every axis of one element, this dim too where that is 1")
    gone = {a % rank for a in axes}
    if kind.axis in gone:
        raise Mix("it drops this dim")
    return dataclasses.replace(kind, axis=kind.axis - sum(a < kind.axis for a in gone))


def unsqueezed(see: Seen) -> Kind:
    """Unsqueeze: new axes of one element."""
    axes = see.node.attr("axes") or see.numbers(1).reshape(-1).tolist()
    new = {a % see.rank() for a in axes}
    kept = [i for i in range(see.rank()) if i not in new]
    return dataclasses.replace(see.rows(), axis=kept[see.rows().axis])


def joined(see: Seen) -> Kind:
    """Concat off the batch of tensors that all have it on one axis."""
    kinds = set(see.kinds)
    if len(kinds) != 1:
        raise Mix("not all that it joins has this dim on the same axis")
    result: Kind = off(attribute())(see)  # type: ignore[assignment]
    return result


def split(see: Seen) -> Sequence[Kind]:
    """Split off the batch."""
    see.fixed(0)
    if see.rows().axis == see.axis():
        raise Mix("it splits this dim")
    return [see.rows()] * len(see.outputs)


def gathered(see: Seen) -> Kind:
    """Gather: fixed indices along another axis, or indices with rows into what is fixed."""
    data, index, axis = see.kind(0), see.kind(1), see.axis()
    if isinstance(data, Rows) and index is not None and is_fixed(index):
        if axis == data.axis:
            raise Mix("it picks rows by their place in this dim")
        return dataclasses.replace(data, axis=data.axis + (len(see.shape(1)) - 1 if axis < data.axis else 0))
    if isinstance(index, Rows) and data is not None and is_fixed(data):
        return dataclasses.replace(index, axis=axis + index.axis)
    raise Mix("both its data and its indices depend on this dim")


def gathered_elements(see: Seen) -> Kind:
    """GatherElements and ScatterElements along another axis than the batch, which all inputs have on the same one."""
    if len(set(see.kinds)) != 1 or see.rows().axis == see.axis():
        raise Mix("its indices name rows")
    return see.rows()


def gathered_nd(see: Seen) -> Kind:
    """GatherND: fixed indices in front of the batch, indices with rows into what is fixed, or a batch axis of both."""
    data, index, many = see.kind(0), see.kind(1), int(see.node.attr("batch_dims", 0))
    rank, depth = len(see.shape(1)), see.shape(1)[-1]
    if isinstance(data, Rows) and data == index and data.axis < min(many, rank - 1):
        return data
    if isinstance(data, Rows) and index is not None and is_fixed(index) and data.axis >= many + depth:
        return dataclasses.replace(data, axis=rank - 1 + data.axis - many - depth)
    if isinstance(index, Rows) and data is not None and is_fixed(data) and not many and index.axis < rank - 1:
        return index
    raise Mix("its indices name rows")


def _plain(numbers: Sequence[int]) -> list[Form]:
    return [(int(n), 0) for n in numbers]


def sliced(see: Seen) -> Kind:
    """Slice off the batch, or the whole of it."""
    kind = see.rows()
    if see.node.version < 10:
        starts, ends, axes = (see.node.attr(name) for name in ("starts", "ends", "axes"))
        begin, end = _plain(starts), _plain(ends)
        step = _plain([1] * len(begin))
        axes = axes or range(len(begin))
    else:
        begin, end = see.forms(1), see.forms(2)
        axes = range(len(begin)) if see.kind(3) is None else see.numbers(3).reshape(-1).tolist()
        step = _plain([1] * len(begin)) if see.kind(4) is None else see.forms(4)
    for axis, *bounds in zip(axes, begin, end, step, strict=True):
        if axis % len(see.shape(0)) != kind.axis:
            if any(slope for _, slope in bounds):
                raise Mix("it slices by the size of this dim")
            continue
        a, b = bounds[1]
        far = (not b and a >= FAR) or (a >= 0 and b >= kind.outer * kind.inner)
        if bounds[0] != (0, 0) or bounds[2] != (1, 0) or not far:
            raise Mix("it slices this dim")
    return kind


def expanded(see: Seen) -> Kind:
    """Expand of rows off the batch, or of what is fixed along a new batch."""
    to, dims = see.forms(1), see.dims(0)
    kind = see.kind(0)
    if not isinstance(kind, Fixed | Rows):
        raise Mix("it expands a size")
    rank = max(len(to), len(dims))
    ones: list[Form] = [(1, 0)] * rank
    to, dims = ones[len(to) :] + to, ones[len(dims) :] + dims
    found = None if isinstance(kind, Fixed) else dataclasses.replace(kind, axis=kind.axis + rank - len(see.shape(0)))
    for j, (have, want) in enumerate(zip(dims, to, strict=True)):
        if have[1]:
            if want not in ((1, 0), have):
                raise Mix(f"{BAKES}: its shape does not fit this dim for every size")
        elif want[1]:
            if have != (1, 0) or want[0] or want[1] < 0 or found is not None:
                raise Mix("it makes an axis of this dim beside another, or of what has one size")
            found = Rows(j, 1, int(want[1]))
    if found is None:
        raise Mix("its data does not have this dim")
    return found


def tiled(see: Seen) -> Kind:
    """Tile of rows off the batch, or of what is fixed along a new batch."""
    times = see.forms(1)
    at = [j for j, (_, slope) in enumerate(times) if slope]
    kind = see.kind(0)
    if isinstance(kind, Rows):
        if at or times[kind.axis] != (1, 0):
            raise Mix("it repeats this dim")
        return kind
    if len(at) != 1 or times[at[0]][0] or not (kind is not None and is_fixed(kind)):
        raise Mix("it repeats what it has along more than one axis of this dim")
    return Rows(at[0], 1, int(times[at[0]][1]) * see.shape(0)[at[0]])


def filled(see: Seen) -> Kind:
    """ConstantOfShape: one number, one axis of the batch."""
    to = see.forms(0)
    at = [j for j, (_, slope) in enumerate(to) if slope]
    if len(at) != 1 or to[at[0]][0]:
        raise Mix("its shape does not hold this dim on one axis")
    return Rows(at[0], 1, int(to[at[0]][1]))


def padded(see: Seen) -> Kind:
    """Pad off the batch."""
    kind, rank = see.rows(), len(see.shape(0))
    see.fixed(0)
    pads = see.node.attr("pads") if see.node.version < 11 else see.numbers(1).reshape(-1).tolist()
    axes = range(rank) if see.kind(3) is None else see.numbers(3).reshape(-1).tolist()
    there = [i for i, a in enumerate(axes) if a % rank == kind.axis]
    if any(pads[i] or pads[i + len(pads) // 2] for i in there):
        raise Mix("it pads this dim")
    return kind


def resized(see: Seen) -> Kind:
    """Resize and Upsample off the batch, whose scale is 1."""
    kind, rank = see.rows(), len(see.shape(0))
    if see.node.attr("coordinate_transformation_mode") in ("tf_crop_and_resize", "tf_half_pixel_for_nn"):
        raise Mix("it crops, or looks half an element on where the scale is 1 too")
    if see.node.attr("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Mix("it keeps the aspect ratio")
    axes = [a % rank for a in see.node.attr("axes") or range(rank)]
    if kind.axis not in axes:
        see.fixed(0)
        return kind
    at, new = axes.index(kind.axis), see.node.version >= 11 and see.node.op_type == "Resize"
    if new and see.kind(3) is not None:
        sizes = see.forms(3)
        if sizes[at] != (0, kind.outer * kind.inner) or any(slope for i, (_, slope) in enumerate(sizes) if i != at):
            raise Mix("it resizes this dim")
        return kind
    see.fixed(0)
    scales = see.node.attr("scales") or see.numbers(2 if new else 1).reshape(-1).tolist()
    if scales[at] != 1:
        raise Mix("it resizes this dim")
    return kind


def quantized(see: Seen) -> Kind:
    """QuantizeLinear and DequantizeLinear: a fixed scale, of all or along another axis than the batch."""
    see.fixed(0)
    kind = see.rows()
    if math.prod(see.shape(1)) > 1 and (len(see.shape(1)) > 1 or see.axis(default=1) == kind.axis):
        raise Mix(f"{BAKES}: its scale has one size along this dim")
    return kind


def multiplied(see: Seen) -> Kind:
    """MatMul: the batch among the batch axes of both, the rows of A or the columns of B, never in what is summed."""
    return _product(see.shape(0), see.shape(1), see.kinds[0], see.kinds[1])


def _product(left: Sequence[int], right: Sequence[int], of_left: Kind | None, of_right: Kind | None) -> Rows:
    one_a, one_b = len(left) == 1, len(right) == 1
    places = []
    for shape, kind, one, back in ((left, of_left, one_a, 0), (right, of_right, one_b, 1)):
        if kind is not None and not isinstance(kind, Rows) and not is_fixed(kind):
            raise Mix("it computes with a size")
        shift = back if one else 0  # a vector on the right is a column
        places.append(kind.axis - len(shape) - shift if isinstance(kind, Rows) else None)
    x, y = places
    if x == -1 or y == -2:
        raise Mix("it sums over this dim")
    if (x == -2 or y == -1) and x is not None and y is not None:
        raise Mix("it multiplies rows with rows")
    if x is not None and y is not None and (x != y or of_left.outer != of_right.outer or of_left.inner != of_right.inner):  # type: ignore[union-attr]
        raise Mix("this dim stands on different axes of its operands")
    place = x if x is not None else y
    if place is None:
        raise Mix("its data does not have this dim")
    if place < -2:
        for shape, kind, one in ((left, of_left, one_a), (right, of_right, one_b)):
            if not isinstance(kind, Rows) and not one and -place <= len(shape) and shape[place] != 1:
                raise Mix(f"{BAKES}: an operand has one size along this dim")
    rank = max(len(left), len(right), 2) - one_a - one_b
    if place < -2:
        axis = rank + place + one_a + one_b
    else:
        axis = rank - 1 if place == -1 or one_b else rank - 2
    kind = of_left if x is not None else of_right
    assert isinstance(kind, Rows)
    return dataclasses.replace(kind, axis=axis)


def einsum(see: Seen) -> Kind:
    """The letter of the batch is the same in every operand that has it, in no fixed one, and in the result."""
    equation = see.node.attr("equation")
    equation = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "")
    left, arrow, right = equation.partition("->")
    if "." in equation or not arrow:
        raise Mix("its equation is not spelled out")
    letters, kinds = set(), set()
    for names, kind in zip(left.split(","), see.kinds, strict=True):
        if isinstance(kind, Rows):
            letters.add(names[kind.axis])
            kinds.add((kind.outer, kind.inner))
            if names.count(names[kind.axis]) > 1:
                raise Mix("it takes a diagonal of this dim")
        elif kind is None or not is_fixed(kind):
            raise Mix("it computes with a size")
    if len(letters) != 1 or len(kinds) != 1:
        raise Mix("this dim stands on different axes of its operands")
    letter = letters.pop()
    if any(letter in names for names, kind in zip(left.split(","), see.kinds, strict=True) if not isinstance(kind, Rows)):
        raise Mix(f"{BAKES}: an operand has one size along this dim")
    if right.count(letter) != 1:
        raise Mix("it sums over this dim")
    return Rows(right.index(letter), *kinds.pop())


def gemm(see: Seen) -> Kind:
    """op(A) op(B) + C."""
    sides = []
    for at, flag in ((0, "transA"), (1, "transB")):
        perm = (1, 0) if see.node.attr(flag, 0) else (0, 1)
        shape, kind = see.shape(at), see.kinds[at]
        sides.append(([shape[p] for p in perm], permuted(kind, perm) if kind is not None else None))
    (left, of_left), (right, of_right) = sides
    made = _product(left, right, of_left, of_right)
    if see.kind(2) is None:
        return made
    both = dataclasses.replace(see, inputs=[see.outputs[0], see.inputs[2]], kinds=[made, see.kinds[2]])
    return elementwise(both)


def quantized_gemm(see: Seen) -> Kind:
    """com.microsoft's QGemm: rows of A, all else fixed; C has no row for each of A's."""
    see.fixed(0)
    kind, bias = see.rows(), see.kind(6)
    if kind.axis != 0 or see.node.attr("transA", 0) or (bias is not None and (1, 1, *see.shape(6))[-2] != 1):
        raise Mix("this dim is not the rows of A alone")
    return kind


def fused_product(see: Seen) -> Kind:
    """com.microsoft's FusedMatMul: operands with their last two axes swapped, or their first moved behind."""
    see.fixed(0, 1)
    sides = []
    for at, side in ((0, "A"), (1, "B")):
        shape, kind = see.shape(at), see.kinds[at]
        rank = len(shape)
        perm = list(range(rank))
        if see.node.attr(f"transBatch{side}", 0):
            perm = [*perm[1 : rank - 1], 0, rank - 1]
        if see.node.attr(f"trans{side}", 0) and rank > 1:
            perm = [*perm[:-2], perm[-1], perm[-2]]
        sides.append(([shape[p] for p in perm], permuted(kind, perm) if kind is not None else None))
    (left, of_left), (right, of_right) = sides
    return _product(left, right, of_left, of_right)


def scaled_product(b: int, columns: Sequence[int] = ()) -> Rule:
    """A MatMul of quantized operands 0 and ``b``; scales and zero points are fixed and have one element, or (``columns``) one
    for each column of B."""

    def rule(see: Seen) -> Kind:
        see.fixed(0, b)
        made = _product(see.shape(0), see.shape(b), see.kinds[0], see.kinds[b])
        for i, kind in enumerate(see.kinds):
            if i in (0, b) or kind is None or math.prod(see.shape(i)) == 1:
                continue
            if i not in columns or len(see.shape(i)) > 1 or made.axis == see.rank() - 1:
                raise Mix(f"{BAKES}: its scale has one size along this dim")
        return made

    return rule


def times_fixed(see: Seen) -> Kind:
    """A product of the last axis by fixed weights."""
    see.fixed(0)
    if see.rows().axis == len(see.shape(0)) - 1:
        raise Mix("it sums over this dim")
    return see.rows()


def skipped(see: Seen) -> Kind:
    """com.microsoft's SkipLayerNormalization: x, and a skip of the same rows, or one for all rows of three axes."""
    found: Rows = off(lambda _: (-1,))(see)  # type: ignore[assignment]
    if not isinstance(see.kind(1), Rows) and (found.axis or see.rank() != 3):
        raise Mix(f"{BAKES}: its skip has one size along this dim")
    return found


def rotary(see: Seen) -> Kind:
    """com.microsoft's RotaryEmbedding: one position of the first for all rows, or those of each row."""
    found: Kind = batched((0, 1) if len(see.shape(1)) == 2 else (0,))(see)  # type: ignore[assignment]
    return found


def grouped(see: Seen) -> Kind:
    """com.microsoft's GroupQueryAttention; behind a past, onnxruntime takes several tokens of one row only."""
    if see.kind(3) is not None and see.shape(0)[1] != 1:
        raise Mix("it takes several tokens behind a past of one row only")
    found: Kind = batched((0, 1, 2, 3, 4, 5, 9), also=(10,))(see)  # type: ignore[assignment]
    return found


def clipped(see: Seen) -> Kind:
    """Clip by bounds of one element."""
    see.fixed(0)
    return see.rows()


def attention(see: Seen) -> Kind:
    """com.microsoft's Attention without a past: x, weights, bias, mask, past, bias of the scores."""
    if see.kind(4) is not None or len(see.outputs) > 1:
        raise Mix("its past is not typed")
    found: Kind = batched((0, 3), also=(5,))(see)  # type: ignore[assignment]
    return found


def recurrent(see: Seen) -> Sequence[Kind]:
    """RNN, GRU, LSTM: the batch is axis 1 of X (0 with layout 1) and of the states, axis 2 of Y (0)."""
    base, front = see.rows(), bool(see.node.attr("layout", 0))
    at = 0 if front else 1
    places = {0: at, 4: 0, 5: at, 6: at}  # X, sequence_lens, initial_h, initial_c
    see.fixed(*places)
    if any(see.kind(i) not in (None, dataclasses.replace(base, axis=axis)) for i, axis in places.items()):
        raise Mix("this dim is not where its layout has it, in X, its states or its lengths")
    return [dataclasses.replace(base, axis=axis) for axis in (0 if front else 2, at, at)[: len(see.outputs)]]


def identity(see: Seen) -> Sequence[Kind]:
    """The elements of input 0, whatever else there is; the mask of a Dropout is all ones, and as long."""
    kind = see.kind(0)
    if not isinstance(kind, Fixed | Rows):
        raise Mix("it computes with a size")
    rows = kind if isinstance(kind, Rows) else FIXED
    return [kind, *[rows] * (len(see.outputs) - 1)]


def one_hot(see: Seen) -> Kind:
    """OneHot: a new axis at ``axis``."""
    see.fixed(0)
    axis, kind = int(see.node.attr("axis", -1)) % see.rank(), see.rows()
    return dataclasses.replace(kind, axis=kind.axis + (axis <= kind.axis))


def transform(see: Seen) -> Kind:
    """DFT off the batch."""
    see.fixed(0)
    old = see.node.version < 20
    axis = int(see.node.attr("axis", 1)) if old else -2 if see.kind(2) is None else int(see.numbers(2).reshape(-1)[0])
    if see.rows().axis in (axis % len(see.shape(0)), len(see.shape(0)) - 1):
        raise Mix("it works along this dim")
    return see.rows()


def triangle(see: Seen) -> Kind:
    """Trilu of the last two axes."""
    see.fixed(0)
    if see.rows().axis >= len(see.shape(0)) - 2:
        raise Mix("it cuts this dim")
    return see.rows()


def top(see: Seen) -> Sequence[Kind]:
    """TopK off the batch."""
    see.fixed(0)
    if see.rows().axis == see.axis(default=-1):
        raise Mix("it sorts this dim")
    return [see.rows()] * len(see.outputs)


# Operators that the kernel takes as unknown functions of their inputs, or folds.
UNTOLD: dict[str, Rule] = {
    "ConstantOfShape": filled,
    "GridSample": batched((0, 1)),
    "Hardmax": softmax,
    "TopK": top,
    "Erf": elementwise,
    "BitShift": elementwise,
    "BitwiseAnd": elementwise,
    "BitwiseNot": elementwise,
    "BitwiseOr": elementwise,
    "BitwiseXor": elementwise,
}
