"""Ways to spoil a copy in lower precision: what it stores, what it rounds by, or what the model computed that it was made of."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.zoo.copying import KINDS, Net, fresh, stored
from tests.zoo.editing import name_of
from tests.zoo.mutations import MUTATIONS, mutate
from tests.zoo.oracle import Oracle
from tests.zoo.quantized import one_step

NARROW = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
CANCEL = {"LayerNormalization", "Softmax"}
INTEGERS = (TensorProto.INT8, TensorProto.UINT8)


class Copied(NamedTuple):
    """A net, the kind of a copy, the model that it was made of and the right copy; ``title`` seeds the choice of places."""

    net: Net
    kind: str
    model: onnx.ModelProto
    right: onnx.ModelProto

    @classmethod
    def of(cls, net: Net, kind: str) -> Copied:
        """That copy of it; raises what its maker raises."""
        return cls(net, kind, *KINDS[kind].make(net))

    @property
    def title(self) -> str:
        return f"{self.net.name}, {self.net.exporter}, {self.kind}"

    def drawn(self, way: str, places: Iterable[Any]) -> Any:
        """One of the places, by the title; None where there is none."""
        found = list(places)
        return found[zlib.crc32(f"{self.title} {way}".encode()) % len(found)] if found else None


class Spoilt(NamedTuple):
    """A spoilt copy, the name of what was changed (a node, or a constant), and the spoilt model that it was made of, if so."""

    way: str
    copy: onnx.ModelProto
    changed: str
    model: onnx.ModelProto | None = None

    def harmless(self, right: onnx.ModelProto) -> bool:
        """Whether what was changed in a ``right`` model changes nothing: the mean of what is constant, a Resize to its size."""
        return self.model is not None and Oracle(right).effect(self.model) == "no change"


Way = Callable[[Copied, str], Spoilt | None]  # None where it applies nowhere; the name of the way is passed
Change = Callable[[np.ndarray], np.ndarray]


def first(array: np.ndarray, change: Callable[[Any], Any]) -> np.ndarray:
    """The first element changed."""
    flat = array.reshape(-1).copy()
    flat[0] = change(flat[0])
    return flat.reshape(array.shape)


def turned(q: np.ndarray) -> np.ndarray:
    """A square matrix transposed, anything else as it is."""
    return np.ascontiguousarray(q.T) if q.ndim == 2 and q.shape[0] == q.shape[1] else q


def with_tensor(model: onnx.ModelProto, name: str, change: Change) -> onnx.ModelProto | None:
    """The model with one constant changed; None where there is none, or where nothing changes."""
    made = fresh(model)
    tensor = next((t for t in made.graph.initializer if t.name == name), None)
    if tensor is None:
        return None
    before = numpy_helper.to_array(tensor)
    after = np.asarray(change(before)).astype(before.dtype)
    tensor.CopyFrom(numpy_helper.from_array(after, name))
    return made if (before != after).any() else None


def _changed(
    copied: Copied, name: str, constants: list[str], change: Change, part: Callable[[str], str] = str
) -> Spoilt | None:
    """One of the constants changed, or what is stored with it under the name that ``part`` gives."""
    constant = copied.drawn(name, constants)
    made = constant and with_tensor(copied.right, part(constant), change)
    return Spoilt(name, made, constant) if made else None


# -- what is stored -------------------------------------------------------------------------------------------------


def _weight(suffix: str, part: str, change: Change) -> Way:
    """A part of one weight (its numbers, scale or zero point) that a quantizer named by ``suffix``."""

    def way(copied: Copied, name: str) -> Spoilt | None:
        held = {t.name: t for t in copied.right.graph.initializer}
        weights = [
            n for n, t in held.items() if n.endswith(f"_{suffix}") and len(t.dims) > 1 and t.data_type in INTEGERS
        ]
        return _changed(copied, name, weights, change, lambda weight: weight.removesuffix(suffix) + part)

    return way


def _bias(change: Change) -> Way:
    """A stored bias of a quantized operator."""

    def way(copied: Copied, name: str) -> Spoilt | None:
        held = [t for t in copied.right.graph.initializer if t.name.endswith("_quantized") and np.prod(t.dims) > 1]
        return _changed(copied, name, [t.name for t in held if t.data_type == TensorProto.INT32], change)

    return way


def next_number(array: np.ndarray, seed: int) -> np.ndarray:
    """One element that is not 0, moved to the next number of its format."""
    flat = array.reshape(-1).copy()
    at = np.random.default_rng(seed).choice(np.flatnonzero(flat != 0)) if flat.astype(bool).any() else 0
    flat[at] = np.nextafter(flat[at], flat.dtype.type(1e4))
    return flat.reshape(array.shape)


def _number(copied: Copied, name: str) -> Spoilt | None:
    """A number of a constant in a narrow floating-point format is the next one."""
    constants = [t.name for t in copied.right.graph.initializer if t.data_type in NARROW and np.prod(t.dims) > 1]
    seed = zlib.crc32(copied.title.encode())
    return _changed(copied, name, constants, lambda x: next_number(x, seed))


def _epsilon(copied: Copied, name: str) -> Spoilt | None:
    """The epsilon of a normalization, an attribute or a small constant that is added, is 0. Not that of a BatchNormalization
    whose variances it does not change in the type that they are stored in: such a copy is what folding makes, bit for bit."""
    made = fresh(copied.right)
    held = {t.name: t for t in made.graph.initializer}
    small = {n for n, t in held.items() if t.data_type in (TensorProto.FLOAT, *NARROW) and np.prod(t.dims) == 1}
    small = {n for n in small if 0 < abs(numpy_helper.to_array(held[n]).reshape(-1)[0]) < 1e-3}

    cast = {n.output[0]: n.input[0] for n in made.graph.node if n.op_type == "Cast"}

    def matters(node: onnx.NodeProto, epsilon: float) -> bool:
        if node.op_type != "BatchNormalization" or (name := cast.get(node.input[4], node.input[4])) not in held:
            return True
        variances = numpy_helper.to_array(held[name])
        return bool(((variances.astype(float) + epsilon).astype(variances.dtype) != variances).any())

    found = [(n, a) for n in made.graph.node for a in n.attribute if a.name == "epsilon" and matters(n, a.f)]
    found += [(n, held[i]) for n in made.graph.node if n.op_type == "Add" for i in n.input if i in small]
    if not found:
        return None
    node, holder = copied.drawn(name, found)
    if isinstance(holder, onnx.AttributeProto):
        holder.f = 0.0
    else:
        holder.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(holder) * 0, holder.name))
        return Spoilt(name, made, holder.name)  # which several may read
    return Spoilt(name, made, name_of(node))


STORED: dict[str, Way] = {
    "the next number": _number,
    "an epsilon lost": _epsilon,
    "one step": _weight("quantized", "quantized", one_step),
    "columns swapped": _weight(
        "quantized", "quantized", lambda q: q[..., [*range(q.shape[-1])[:2][::-1], *range(2, q.shape[-1])]]
    ),
    "order reversed": _weight("quantized", "quantized", lambda q: np.ascontiguousarray(q[::-1])),
    "transposed": _weight("quantized", "quantized", turned),
    "a weight lost": _weight("quantized", "quantized", lambda q: q * 0),
    "scale doubled": _weight("quantized", "scale", lambda s: first(s, lambda x: 2 * x)),
    "scales exchanged": _weight("quantized", "scale", lambda s: np.roll(s, 1)),
    "scale of 1.001": _weight("quantized", "scale", lambda s: s * s.dtype.type(1.001)),
    "zero point": _weight("quantized", "zero_point", lambda z: first(z, lambda x: x + 1)),
    "half the zero point's type": _weight(
        "quantized", "zero_point", lambda z: z ^ z.dtype.type(-128 if z.dtype == np.int8 else 128)
    ),
    "bias lost": _bias(lambda b: b * 0),
    "bias off": _bias(lambda b: first(b, lambda x: x + 3)),
    # two int4 in a byte, [columns, blocks, bytes]
    "one step of four bits": _weight("Q4", "Q4", lambda q: first(q, lambda x: x ^ 1)),
    "pairs swapped": _weight("Q4", "Q4", lambda q: q << 4 | q >> 4),
    "columns reversed": _weight("Q4", "Q4", lambda q: np.ascontiguousarray(q[::-1])),
    "blocks exchanged": _weight("Q4", "Q4", lambda q: np.roll(q, 1, 1)),
    "scale of a block doubled": _weight("Q4", "scales", lambda s: first(s, lambda x: 2 * x)),
    "scales of blocks exchanged": _weight("Q4", "scales", lambda s: np.roll(s, 1)),
    "scales of 1.1": _weight("Q4", "scales", lambda s: s * s.dtype.type(1.1)),
    "zero point of a block": _weight("Q4", "zero_points", lambda z: first(z, lambda x: x ^ 1)),
}

# -- what is rounded by ---------------------------------------------------------------------------------------------


def _operand(which: int, change: Change) -> Way:
    """The scale (1) or zero point (2) of one quantized tensor that an operator reads, there alone. Not a zero point that only
    normalizations see, which cancel what is added to all."""

    def way(copied: Copied, name: str) -> Spoilt | None:
        made = fresh(copied.right)
        held = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
        read = [n for n in made.graph.node if n.op_type.startswith(("DequantizeLinear", "QGemm", "QLinear"))]
        if which == 2:
            seen = {i: {n.op_type for n in made.graph.node if i in n.input} for i in (n.output[0] for n in read)}
            read = [n for n in read if not seen[n.output[0]] or seen[n.output[0]] - CANCEL]
        node = copied.drawn(name, (n for n in read if n.input[0] not in held and n.input[2] in held))
        if node is None:
            return None
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(change(held[node.input[which]])), "spoilt"))
        node.input[which] = "spoilt"
        return Spoilt(name, made, node.name)

    return way


def _saturates(copied: Copied, name: str) -> Spoilt | None:
    """The range of a tensor, wherever it is read, a 64th as wide; of an eighth a calibrator may cut off little of long tails."""
    held = {t.name for t in copied.right.graph.initializer}
    node = copied.drawn(
        name, (n for n in copied.right.graph.node if n.op_type == "QuantizeLinear" and n.input[1] in held)
    )
    made = node and with_tensor(copied.right, node.input[1], lambda s: s / 64)
    return Spoilt(name, made, node.input[1]) if made else None


def _of_another(which: int) -> Way:
    """The scale (1) or zero point (2) that another tensor was quantized by as it ran."""

    def way(copied: Copied, name: str) -> Spoilt | None:
        made = fresh(copied.right)
        dynamic = [n for n in made.graph.node if n.op_type == "DynamicQuantizeLinear"]
        if len(dynamic) < 2:
            return None
        right, wrong = dynamic[0].output[which], dynamic[-1].output[which]
        if which == 2 and any(right in n.input and wrong in n.input for n in made.graph.node):
            return None
        reader = next(n for n in made.graph.node if wrong in n.input)
        reader.input[:] = [right if i == wrong else i for i in reader.input]
        return Spoilt(name, made, reader.name)

    return way


def _axis(copied: Copied, name: str) -> Spoilt | None:
    """A square matrix is dequantized along its other axis."""
    made = fresh(copied.right)
    held = {t.name: tuple(t.dims) for t in made.graph.initializer}
    for node in made.graph.node:
        shape = held.get(node.input[0], ()) if node.op_type == "DequantizeLinear" else ()
        if len(shape) == 2 and shape[0] == shape[1] and held[node.input[1]] == shape[:1]:
            axis = next(a for a in node.attribute if a.name == "axis")
            axis.i = 1 - axis.i % 2
            return Spoilt(name, made, node.name)
    return None


ROUNDED: dict[str, Way] = {
    "another scale": _operand(1, lambda s: s * np.float32(1.25)),
    "another zero point": _operand(2, lambda z: (z.astype(int) + 1).astype(z.dtype)),
    "saturates": _saturates,
    "scale of another tensor": _of_another(1),
    "zero point of another tensor": _of_another(2),
    "axis": _axis,
}

# -- what is computed -----------------------------------------------------------------------------------------------

SAME = ("float16 and back", "scores by an ulp", "scalar factor by an ulp")  # copies like any other
SWALLOWED = (  # by half a step, or by the range that the calibration found
    "weight by an ulp", "matrix by an ulp", "weights times 1 + 1e-6", "epsilon", "2**-30 added", "Clip at 1000", "batch baked",
    "batch of a Reshape baked",
)  # fmt: skip


def _mutated(copied: Copied, name: str) -> Spoilt | None:
    """The copy of a spoilt model: the damage is beside honest rounding. None where the format swallows it, and where the copy is
    made of the module."""
    if copied.model is not copied.net.model:
        return None
    by_integers = KINDS[copied.kind].allow.startswith("int")
    if name in SAME or (name in SWALLOWED and by_integers) or (mutant := mutate(copied.net.model, name, 0)) is None:
        return None
    model, changed = mutant
    try:
        _, copy = KINDS[copied.kind].make(copied.net._replace(model=model))
    except Exception:  # its maker has no copy of it
        return None
    return None if stored(copy) == stored(copied.right) else Spoilt(name, copy, changed, model)


COMPUTED: dict[str, Way] = dict.fromkeys(MUTATIONS, _mutated)
WAYS = (STORED, ROUNDED, COMPUTED)


def _made(ways: dict[str, Way], copied: Copied) -> Iterator[Spoilt]:
    """The copies that are spoilt in one of these ways."""
    for name in sorted(ways, key=lambda name: zlib.crc32(f"{copied.title} {name}".encode())):
        if (made := ways[name](copied, name)) is not None:
            yield made


def spoilt(copied: Copied) -> Iterator[Spoilt]:
    """Copies that are wrong in one thing, in turn in what they store, round by and compute; the order is another for each title,
    so that where one ends is not always the same place."""
    left = [_made(ways, copied) for ways in WAYS]
    while left:
        for each in [*left]:
            if (found := next(each, None)) is None:
                left.remove(each)
            else:
                yield found
