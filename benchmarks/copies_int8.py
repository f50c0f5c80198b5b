"""Copies in int8 and int4 of the zoo's networks: right ones and spoilt ones, compared with the float32 model under ``--allow``.

    python benchmarks/copies_int8.py [--nets resnet,swin] [--exporter torchscript]

Right copies: onnxruntime's dynamic and static quantizers (QDQ and QOperator, per tensor and per channel) and MatMulNBits. Spoilt
ones: one change to a weight, its scale or its zero point, a bias or a quantizer of such a copy. Each net has a row: what came out
of the right copies, how many of the spoilt ones were not accepted, and of how many the changed constant or node was named.
Needs torch, transformers and onnxruntime.
"""

from __future__ import annotations

import argparse
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

from benchmarks.copies import ACCEPTED, Tally, compared, exported  # noqa: E402
from tests.zoo import architectures  # noqa: E402
from tests.zoo.quantized import COPIES, NETS, calibration, one_step, packed, quantized  # noqa: E402

KINDS = ("dynamic", "dynamic, per channel", "QDQ", "QDQ, per channel", "QOperator", "QOperator, per channel")


def first(array: np.ndarray, change: Callable[[Any], Any]) -> np.ndarray:
    """The first element changed."""
    flat = array.reshape(-1).copy()
    flat[0] = change(flat[0])
    return flat.reshape(array.shape)


CHANGES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "one step": ("quantized", one_step),
    "columns swapped": ("quantized", lambda q: q[..., [1, 0, *range(2, q.shape[-1])]]),
    "order reversed": ("quantized", lambda q: np.ascontiguousarray(q[::-1])),
    "scale doubled": ("scale", lambda s: first(s, lambda x: 2 * x)),
    "zero point": ("zero_point", lambda z: first(z, lambda x: x + 1)),
}


def spoilt(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.ModelProto, set[str]]]:
    """Kind, spoilt copy, and the names of what was changed, of the middle weight of a copy."""
    held = {t.name: t for t in model.graph.initializer}
    stored = (TensorProto.INT8, TensorProto.UINT8)
    weights = [n for n, t in held.items() if n.endswith("_quantized") and len(t.dims) > 1 and t.data_type in stored]
    for kind, (part, change) in CHANGES.items() if weights else ():
        weight = weights[len(weights) // 2]
        made = onnx.ModelProto.FromString(model.SerializeToString())
        name = weight.removesuffix("quantized") + part
        tensor = next((t for t in made.graph.initializer if t.name == name), None)
        if tensor is not None:
            before = numpy_helper.to_array(tensor)
            after = change(before)
            tensor.CopyFrom(numpy_helper.from_array(after.astype(before.dtype), name))
            if (before != after).any():
                yield kind, made, {weight}
    biases = [n for n, t in held.items() if t.data_type == TensorProto.INT32 and n.endswith("_quantized") and np.prod(t.dims) > 1]
    for bias in biases[:1]:
        for kind, change in {"bias lost": lambda b: b * 0, "bias off": lambda b: first(b, lambda x: x + 3)}.items():
            made = onnx.ModelProto.FromString(model.SerializeToString())
            tensor = next(t for t in made.graph.initializer if t.name == bias)
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), bias))
            yield kind, made, {bias}
    for kind, at in {"another scale": 1, "another zero point": 2}.items():
        made = onnx.ModelProto.FromString(model.SerializeToString())
        read = [n for n in made.graph.node if n.op_type == "DequantizeLinear" and n.input[0] not in held]
        if read:
            node = read[len(read) // 2]
            array = numpy_helper.to_array(held[node.input[at]])
            other = array * np.float32(1.25) if at == 1 else (array.astype(int) + 1).astype(array.dtype)
            made.graph.initializer.append(numpy_helper.from_array(np.asarray(other), "spoilt"))
            node.input[at] = "spoilt"
            yield kind, made, {node.name}


def named(evidence: dict[str, Any], changed: set[str]) -> bool:
    """Whether what was changed is named, or the node at which the graphs part."""
    precision = evidence["precision"] or {"off": []}
    return bool(changed & {row["b"] for row in precision["off"]}) or bool(precision.get("parts"))


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", type=lambda text: text.split(","), default=[*NETS, *architectures.ARCHITECTURES])
    parser.add_argument("--exporter", default="torchscript")
    options = parser.parse_args()
    every = Tally()
    print(f"| net | {' | '.join(KINDS)} | MatMulNBits | spoilt: not accepted | named | seconds |")
    print("|---" * (len(KINDS) + 5) + "|")
    for name in options.nets:
        started, cells, tally = time.monotonic(), list[str](), Tally()
        try:
            model = NETS[name]() if name in NETS else exported(name, options.exporter)
        except Exception as error:
            every.notes.append(f"{name}: {type(error).__name__}")
            continue
        for kind in (*KINDS, "int4"):
            try:
                copy = packed(model) if kind == "int4" else quantized(model, **COPIES[kind])
            except Exception as error:
                cells.append(type(error).__name__)
                continue
            allow, title = "int4" if kind == "int4" else "int8", f"{name}, {kind}"
            feeds = calibration(model) if kind.startswith("Q") else ()  # a range may end at 0 because its data does
            verdict, reason, _ = compared(model, copy, allow, feeds)
            cells.append(verdict)
            tally.right(title, verdict, reason)
            for change, damaged, changed in spoilt(copy) if verdict in ACCEPTED else ():
                verdict, reason, evidence = compared(model, damaged, allow, feeds)
                tally.spoilt(title, f"{change} at {min(changed)}", verdict, reason, named=named(evidence, changed))
        every.add(tally)
        print(f"| {name} | {' | '.join(cells)} | {tally.cells()} | {time.monotonic() - started:.0f} |", flush=True)
    every.close()


if __name__ == "__main__":
    main()
