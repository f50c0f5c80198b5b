"""What float16 and int8 do to the numbers of the zoo's networks: the three bounds beside what is measured, and the ranking tried.

    python benchmarks/narrow.py [--nets vit,resnet] [--k 3] [--others 20] [FILE.onnx ...]

Copies: float16 by onnxruntime's converter; int8 by its dynamic and its static quantizer (QDQ). Measured is what graphcheck
computes with each result rounded to its type, and what onnxruntime gives. The ranking is tried in onnxruntime, by no code of
graphcheck: the float32 network with a cast to float16 and back behind each node but those that are kept. Others are random
choices of as many nodes, and the first ones with one of them changed for the node before or behind it.
Needs torch, transformers and onnxruntime; FILEs are measured in place of the zoo's networks.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from graphcheck.files import model as model_  # noqa: E402
from graphcheck.interface import inputs, ports  # noqa: E402
from graphcheck.precision import copy  # noqa: E402
from tests.zoo import architectures, copying  # noqa: E402

MOVED = {"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Concat", "Gather", "Expand"}
MOVED |= {"Relu", "MaxPool"}
Feed = dict[str, np.ndarray]
INPUTS = 4


def copies(model: onnx.ModelProto, feed: Feed, folder: Path) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Format and copy."""
    from onnxruntime import quantization
    from onnxruntime.transformers.float16 import convert_float_to_float16

    class Data(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter([feed])

        def get_next(self) -> Any:
            return next(self.rest, None)

    onnx.save(model, folder / "a.onnx")
    yield "float16", convert_float_to_float16(onnx.load(folder / "a.onnx"), keep_io_types=True)
    for name, make in (("int8 dynamic", quantization.quantize_dynamic), ("int8 static", quantization.quantize_static)):
        more = (Data(),) if "static" in name else ()
        make(folder / "a.onnx", folder / "b.onnx", *more)
        yield name, onnx.load(folder / "b.onnx")


def run(model: onnx.ModelProto, feed: Feed) -> list[np.ndarray]:
    """The outputs in onnxruntime, unoptimized, in float64."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return [np.asarray(y, np.float64) for y in session.run(None, feed)]


def in_casts(model: onnx.ModelProto, kept: set[str]) -> onnx.ModelProto:
    """The network with a cast to float16 and back behind each node that is not kept (by name), its constants rounded likewise."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    stored = {t.name: t for t in made.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    floats = onnx.shape_inference.infer_shapes(made).graph.value_info
    types = {v.name: v.type.tensor_type.elem_type for v in (*floats, *made.graph.output)}
    nodes = list(made.graph.node)
    del made.graph.node[:]
    fresh = 0
    for node in nodes:
        wide = (node.name or node.output[0]) in kept
        for place, name in enumerate(node.input):
            if name in stored and not wide:
                node.input[place] = f"{name}/half"
                if f"{name}/half" not in stored:
                    rounded = numpy_helper.to_array(stored[name]).astype(np.float16).astype(np.float32)
                    stored[f"{name}/half"] = numpy_helper.from_array(rounded, f"{name}/half")
                    made.graph.initializer.append(stored[f"{name}/half"])
        results = list(node.output)
        rounds = not wide and node.op_type not in MOVED and node.op_type != "Constant"
        if rounds:
            node.output[:] = [f"{name}/wide" if types.get(name) == onnx.TensorProto.FLOAT else name for name in results]
        made.graph.node.append(node)
        for old, new in zip(results, node.output, strict=True):
            if old != new:
                fresh += 1
                made.graph.node.append(onnx.helper.make_node("Cast", [new], [f"cast/{fresh}"], to=onnx.TensorProto.FLOAT16))
                made.graph.node.append(onnx.helper.make_node("Cast", [f"cast/{fresh}"], [old], to=onnx.TensorProto.FLOAT))
    return made


def deviation(model: onnx.ModelProto, exact: list[list[np.ndarray]], feeds: list[Feed]) -> float:
    """The root of the mean square over all outputs at all inputs, each in its largest magnitude."""
    both = [pair for ys, feed in zip(exact, feeds, strict=True) for pair in zip(run(model, feed), ys, strict=True)]
    parts = [((y - z) / (np.abs(z).max() or 1)).reshape(-1) for y, z in both]
    return float(np.sqrt(np.square(np.concatenate(parts)).mean()))


def tried(model: onnx.ModelProto, keep: list[str], feeds: list[Feed], others: int) -> tuple[float, float, float, float]:
    """What is left with nothing kept, with the first ones, and with the best of the others; the part of these that is better."""
    exact = [run(model, feed) for feed in feeds]
    names = [n.name for n in model.graph.node if n.name and n.op_type not in MOVED | {"Constant", "Shape", "Cast"}]
    random = np.random.default_rng(0)
    choices = [set(random.choice(names, len(keep), replace=False)) for _ in range(others)]
    for name in keep:
        at = names.index(name)
        choices += [{*keep} - {name} | {names[i]} for i in (at - 1, at + 1) if 0 <= i < len(names) and names[i] not in keep]
    first = deviation(in_casts(model, set(keep)), exact, feeds)
    rest = [deviation(in_casts(model, {*map(str, some)}), exact, feeds) for some in choices]
    return deviation(in_casts(model, set()), exact, feeds), first, min(rest), sum(x < first for x in rest) / len(rest)


def told(name: str, model: onnx.ModelProto, k: int, others: int) -> Iterator[str]:
    """The rows of one network."""
    a = model_.read(model)
    interface = ports.pair_interfaces(a, a)
    feeds = [inputs.generate(interface, ports.shapes(interface), inputs.InputSpec(seed)) for seed in range(INPUTS)]
    feed = feeds[0]
    plain = run(model, feed)
    with tempfile.TemporaryDirectory() as folder:
        made = copies(model, feed, Path(folder))
        while True:
            try:
                with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                    warnings.simplefilter("ignore")
                    kind, other = next(made)
                started = time.process_time()
                b = model_.read(other)
                pair = ports.pair_interfaces(a, b)
                seen = (copy.opened((a, b), pair, inputs.side_inputs(pair, each), 1) for each in feeds)
                found = next(seen).numbers(0, ranked=True, top=k, more=seen)
            except StopIteration:
                return
            except Exception as error:
                yield f"| {name} | {type(error).__name__}: {str(error)[:60]} |"
                continue
            row = max(found["bound"], key=lambda r: r["measured"], default=None)
            spread = {r["output"]: r["spread"] for r in found["spread"]}
            both = zip(run(other, feed), plain, strict=True)
            apart = max((float(np.abs(x - y).max()) for x, y in both), default=0.0)
            cells = [f"{apart:.2g}"] if row is None else [
                f"{apart:.2g}", f"{row['measured']:.2g}", f"{spread[row['output']]:.2g}", f"{row['likely']:.2g}",
                f"{row['likely'] / row['measured']:.1f}" if row["measured"] else "-", f"{row['first_order']:.2g}",
                "-" if row["running"] is None else f"{row['running']:.2g}",
            ]  # fmt: skip
            over = found["overflowed"][0]["node"] if found["overflowed"] else "-"
            seconds = time.process_time() - started
            keep = [r["node"] for r in found.get("keep", ())]
            ranking = "-"
            if kind == "float16" and k and all(any(n.name == node for n in model.graph.node) for node in keep):
                before, first, best, better = tried(model, keep, feeds, others)
                ranking = f"{before:.2e} -> {first:.2e}, others {best:.2e} ({better:.0%} better)"
            yield f"| {name} | {kind} | {' | '.join(cells)} | {over} | {ranking} | {seconds:.0f} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", type=lambda text: text.split(","), default=list(architectures.ARCHITECTURES))
    parser.add_argument("--k", type=int, default=3, help="nodes to keep in float32")
    parser.add_argument("--others", type=int, default=20, help="random choices beside them")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    print("| net | copy | onnxruntime | measured | spread | likely | ratio | first order | running | overflows | keeping k | s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in options.files or options.nets:
        try:
            model = onnx.load(name) if isinstance(name, Path) else copying.exported(name, "torchscript")
        except Exception as error:
            print(f"| {name} | {type(error).__name__} |")
            continue
        title = name.stem if isinstance(name, Path) else name
        for row in told(title, model, options.k, options.others):
            print(row, flush=True)


if __name__ == "__main__":
    main()
