"""Copies in int8 and int4 of the zoo's networks: right ones and spoilt ones, compared with the float32 model under ``--allow``.

    python benchmarks/copies_int8.py [--nets resnet,swin] [--exporter torchscript]

Right copies: those of tests/zoo/copying.py. Spoilt ones: a change to a weight, its scale or zero point, a bias, a quantizer or
what reads it, in such a copy; and a copy of a model that is wrong (tests/zoo/mutations.py). Each net has a row: what came out of
the right copies, how many of the spoilt ones were not accepted, and of how many the changed constant or node was named.
Needs torch, transformers and onnxruntime.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx import TensorProto, numpy_helper  # noqa: E402

from benchmarks.copies import ACCEPTED, Spoilt, Tally, compared, in_turn, lasting, stored  # noqa: E402
from tests.zoo.copying import KINDS as COPIED  # noqa: E402
from tests.zoo.copying import NETS, Net, fresh  # noqa: E402
from tests.zoo.mutations import MUTATIONS, mutate  # noqa: E402
from tests.zoo.quantized import calibration, one_step  # noqa: E402

BY_HAND = NETS["text"]
KINDS = {kind: each for kind, each in COPIED.items() if each.allow.startswith("int")}


def first(array: np.ndarray, change: Callable[[Any], Any]) -> np.ndarray:
    """The first element changed."""
    flat = array.reshape(-1).copy()
    flat[0] = change(flat[0])
    return flat.reshape(array.shape)


def turned(q: np.ndarray) -> np.ndarray:
    """A square matrix transposed, anything else as it is."""
    return np.ascontiguousarray(q.T) if q.ndim == 2 and q.shape[0] == q.shape[1] else q


CHANGES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "one step": ("quantized", one_step),
    "columns swapped": ("quantized", lambda q: q[..., [*range(q.shape[-1])[:2][::-1], *range(2, q.shape[-1])]]),
    "order reversed": ("quantized", lambda q: np.ascontiguousarray(q[::-1])),
    "transposed": ("quantized", turned),
    "a weight lost": ("quantized", lambda q: q * 0),
    "scale doubled": ("scale", lambda s: first(s, lambda x: 2 * x)),
    "scales exchanged": ("scale", lambda s: np.roll(s, 1)),
    "scale of 1.001": ("scale", lambda s: s * s.dtype.type(1.001)),
    "zero point": ("zero_point", lambda z: first(z, lambda x: x + 1)),
    "half the zero point's type": ("zero_point", lambda z: z ^ z.dtype.type(-128 if z.dtype == np.int8 else 128)),
}
PACKED: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {  # of two int4 in a byte, [columns, blocks, bytes]
    "one step": ("Q4", lambda q: first(q, lambda x: x ^ 1)),
    "pairs swapped": ("Q4", lambda q: q << 4 | q >> 4),
    "order reversed": ("Q4", lambda q: np.ascontiguousarray(q[::-1])),
    "blocks exchanged": ("Q4", lambda q: np.roll(q, 1, 1)),
    "scale doubled": ("scales", CHANGES["scale doubled"][1]),
    "scales exchanged": ("scales", CHANGES["scales exchanged"][1]),
    "scale of 1.1": ("scales", lambda s: s * s.dtype.type(1.1)),
    "zero point": ("zero_points", lambda z: first(z, lambda x: x ^ 1)),
}
BIASES = {"bias lost": lambda b: b * 0, "bias off": lambda b: first(b, lambda x: x + 3)}
SWALLOWED = (  # by half a step, or by the range that the calibration found
    "weight by an ulp", "matrix by an ulp", "weights times 1 + 1e-6", "epsilon", "scalar factor by an ulp", "scores by an ulp",
    "float16 and back", "2**-30 added", "Clip at 1000", "batch baked", "batch of a Reshape baked",
)  # fmt: skip


def with_tensor(
    model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> onnx.ModelProto | None:
    """The model with one constant changed; None where there is none, or where nothing changes."""
    made = fresh(model)
    tensor = next((t for t in made.graph.initializer if t.name == name), None)
    if tensor is None:
        return None
    before = numpy_helper.to_array(tensor)
    after = np.asarray(change(before)).astype(before.dtype)
    tensor.CopyFrom(numpy_helper.from_array(after, name))
    return made if (before != after).any() else None


def of_constants(model: onnx.ModelProto) -> Iterator[Spoilt]:
    """A weight of the copy (the middle one), its scale or zero point, or its first bias changed."""
    held = {t.name: t for t in model.graph.initializer}
    stored = (TensorProto.INT8, TensorProto.UINT8)
    for suffix, changes in (("quantized", CHANGES), ("Q4", PACKED)):
        weights = [n for n, t in held.items() if n.endswith(f"_{suffix}") and len(t.dims) > 1 and t.data_type in stored]
        for kind, (part, change) in changes.items() if weights else ():
            weight = weights[len(weights) // 2]
            if (made := with_tensor(model, weight.removesuffix(suffix) + part, change)) is not None:
                yield Spoilt(kind, made, weight)
    biases = [n for n, t in held.items() if t.data_type == TensorProto.INT32 and n.endswith("_quantized") and np.prod(t.dims) > 1]
    for bias in biases[:1]:
        for kind, change in BIASES.items():
            if (made := with_tensor(model, bias, change)) is not None:
                yield Spoilt(kind, made, bias)


def of_quantizers(model: onnx.ModelProto) -> Iterator[Spoilt]:
    """One operand of an operator that reads quantized activations changed, there alone: its scale, zero point or axis; or the
    range of a tensor, wherever it is read, a quarter as wide."""
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    reads = ("DequantizeLinear", "QGemm", "QLinear")
    read = [(i, n.input) for i, n in enumerate(model.graph.node) if n.op_type.startswith(reads)]
    at = [i for i, inputs in read if inputs[0] not in held and inputs[2] in held]
    changes = {
        "another scale": (1, lambda s: s * np.float32(1.25)),
        "another zero point": (2, lambda z: (z.astype(int) + 1).astype(z.dtype)),
    }
    for kind, (which, change) in changes.items() if at else ():
        made = fresh(model)
        node = made.graph.node[at[len(at) // 2]]
        made.graph.initializer.append(numpy_helper.from_array(np.asarray(change(held[node.input[which]])), "spoilt"))
        node.input[which] = "spoilt"
        yield Spoilt(kind, made, node.name)
    quantizers = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[1] in held]
    if quantizers:
        node = quantizers[len(quantizers) // 2]
        if (narrow := with_tensor(model, node.input[1], lambda s: s / 8)) is not None:
            yield Spoilt("saturates", narrow, node.name)
    dynamic = [n for n in model.graph.node if n.op_type == "DynamicQuantizeLinear"]
    for kind, which in {"scale of another tensor": 1, "zero point of another tensor": 2}.items() if len(dynamic) > 1 else ():
        made = fresh(model)
        right, wrong = dynamic[0].output[which], dynamic[-1].output[which]
        if which == 1 or not any(right in n.input and wrong in n.input for n in made.graph.node):
            readers = [n for n in made.graph.node if wrong in n.input]
            readers[0].input[:] = [right if i == wrong else i for i in readers[0].input]
            yield Spoilt(kind, made, readers[0].name)
    axes = [i for i, n in enumerate(model.graph.node) if n.op_type == "DequantizeLinear" and square(held, n)]
    if axes:
        made = fresh(model)
        node = made.graph.node[axes[0]]
        axis = next(a for a in node.attribute if a.name == "axis")
        axis.i = 1 - axis.i % 2
        yield Spoilt("axis", made, node.name)


def square(held: dict[str, np.ndarray], node: onnx.NodeProto) -> bool:
    """Whether a stored matrix has a scale for each of its rows, and as many columns."""
    shape = held[node.input[0]].shape if node.input[0] in held else ()
    return len(shape) == 2 and shape[0] == shape[1] and held[node.input[1]].size == shape[0]


def of_the_graph(model: onnx.ModelProto, make: Callable[[onnx.ModelProto], onnx.ModelProto], title: str) -> Iterator[Spoilt]:
    """Copies of spoilt models: the damage is beside honest rounding."""
    right = stored(make(model))
    for kind in in_turn((kind for kind in MUTATIONS if kind not in SWALLOWED), title):
        if (mutant := mutate(model, kind, 0)) is not None:
            try:
                copy = make(mutant[0])
            except Exception:  # the quantizer has no copy of it
                continue
            if stored(copy) != right:
                yield Spoilt(f"{kind}, quantized", copy, mutant[1], mutant[0])


def spoilt(model: onnx.ModelProto, make: Callable[[onnx.ModelProto], onnx.ModelProto], title: str = "") -> Iterator[Spoilt]:
    """Copies that are wrong in one thing, in turn in what they store and in what they compute."""
    copy = make(model)
    each: list[Iterator[Spoilt]] = [of_constants(copy), of_quantizers(copy), of_the_graph(model, make, title)]
    while each:
        for changed in [*each]:
            if (found := next(changed, None)) is None:
                each.remove(changed)
            else:
                yield found


def maker(kind: str) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """Who makes that kind of copy of any model."""
    return lambda model: KINDS[kind].make(Net("", "", model))[1]


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", type=lambda text: text.split(","), default=list(dict.fromkeys(BY_HAND + NETS["torchscript"])))
    parser.add_argument("--exporter", help="torchscript unless given, but for what is written by hand")
    parser.add_argument("--seconds", type=float, default=math.inf, help="for the spoilt copies of one kind of copy")
    options = parser.parse_args()
    every = Tally()
    print(f"| net | {' | '.join(KINDS)} | spoilt: not accepted | named | seconds |")
    print("|---" * (len(KINDS) + 4) + "|")
    for name in options.nets:
        started, cells, tally = time.monotonic(), list[str](), Tally()
        try:
            model = Net.of(name, options.exporter or ("text" if name in BY_HAND else "torchscript")).model
        except Exception as error:
            every.notes.append(f"{name}: {type(error).__name__}")
            continue
        for kind, (allow, _, calibrated) in KINDS.items():
            make, title = maker(kind), f"{name}, {kind}"
            try:
                copy = make(model)
            except Exception as error:
                cells.append(type(error).__name__)
                continue
            feeds = calibration(model) if calibrated else ()
            verdict, reason, _ = compared(model, copy, allow, feeds)
            cells.append(verdict)
            tally.right(title, verdict, reason)
            for each in lasting(spoilt(model, make, title), options.seconds) if verdict in ACCEPTED else ():
                tally.spoilt(title, model, each, compared(model, each.copy, allow, feeds))
        every.add(tally)
        print(f"| {name} | {' | '.join(cells)} | {tally.cells()} | {time.monotonic() - started:.0f} |", flush=True)
    every.close()


if __name__ == "__main__":
    main()
