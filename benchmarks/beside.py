"""Other people's lowerings beside graphcheck's on one model each: nodes, bytes, time and the verdict; for rewrite.py."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

import graphcheck
from graphcheck.files import model as model_
from graphcheck.guarding import tools
from graphcheck.rewriting.rewrite import rewrite
from graphcheck.rewriting.timing import onnxruntime_timer

HEADER = '<ir_version: 9, opset_import: ["" : 19]>'
TURNED = "m = MatMul(x, w) n = Add(m, b) g = Relu(n) o = MatMul(g, v) y = Add(o, c)"

# name: (input, output, nodes, constants by shape)
MODELS: dict[str, tuple[str, str, str, dict[str, tuple[int, ...]]]] = {
    "1x1 Conv, 256 to 64 channels at 56x56": (
        "float[1,256,56,56] x", "float[1,64,56,56] y", "y = Conv(x, w, b)", {"w": (64, 256, 1, 1), "b": (64,)},
    ),
    "the same of any size": (
        "float[N,256,H,W] x", "float[N,64,H,W] y", "y = Conv(x, w, b)", {"w": (64, 256, 1, 1), "b": (64,)},
    ),
    "1x1 Conv of stride 2": (
        "float[1,256,56,56] x", "float[1,512,28,28] y", "y = Conv<strides = [2, 2]>(x, w, b)",
        {"w": (512, 256, 1, 1), "b": (512,)},
    ),
    "16x16 patch Conv, 3 to 768 channels at 224x224": (
        "float[1,3,224,224] x", "float[1,768,14,14] y", "y = Conv<strides = [16, 16]>(x, w, b)",
        {"w": (768, 3, 16, 16), "b": (768,)},
    ),
    "MLP of a ViT, 197 tokens of 768": (
        "float[1,197,768] x", "float[1,197,768] y", TURNED,
        {"w": (768, 3072), "b": (3072,), "v": (3072, 768), "c": (768,)},
    ),
}  # fmt: skip
SIZES = {"x": (1, 256, 56, 56)}  # of the model of any size


def _own(to: str) -> Callable[[Path, Path], None]:
    def run(source: Path, target: Path) -> None:
        result = rewrite(model_.read(source), to, pointwise=True)
        if result.changed:
            model_.write(result.model, target)

    return run


def _conv2matmul(source: Path, target: Path) -> None:
    from onnx_conv2matmul.rewriter import RewriteOptions, rewrite_conv1x1_to_matmul

    model, report = rewrite_conv1x1_to_matmul(onnx.load(source), options=RewriteOptions(allow_extended_conv1x1=True))
    if report.converted:
        onnx.save(model, target)


def _lower_conv(source: Path, target: Path) -> None:
    tools.load("onnx-passes").run(["lower-conv"], source, target)


TOOLS: dict[str, Callable[[Path, Path], None]] = {
    "graphcheck, --to matmul": _own("matmul"),
    "graphcheck, --to conv": _own("conv"),
    "onnx-conv2matmul": _conv2matmul,
    "onnx-passes, lower-conv": _lower_conv,
}


def _built(name: str) -> onnx.ModelProto:
    given, made, body, shapes = MODELS[name]
    model = onnx.parser.parse_model(f"{HEADER} graph ({given}) => ({made}) {{ {body} }}")
    random = np.random.default_rng(0)
    for constant, shape in shapes.items():
        array = (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, constant))
    return model


def rows(runs: int, threads: int) -> Iterator[list[str]]:
    """A row for each model and tool: model, tool, nodes, bytes, milliseconds (median, interleaved), verdict or why not."""
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "original.onnx")
            onnx.save(_built(name), source)
            made, left = {"original": source}, {}
            for tool, run in TOOLS.items():
                target = Path(folder, f"{len(made)}-{len(left)}.onnx")
                try:
                    run(source, target)
                except Exception as error:  # whatever others raise is what there is to tell
                    left[tool] = f"{type(error).__name__}: {error}".splitlines()[0][:80]
                    continue
                if target.exists():
                    made[tool] = target
                else:
                    left[tool] = "leaves it as it is"
            models = [ir.load(path) for path in made.values()]
            times = onnxruntime_timer(runs=runs, threads=threads, shapes=SIZES if "any size" in name else None)(models)
            for (tool, path), model, column in zip(made.items(), models, times, strict=True):
                verdict = "" if path is source else str(graphcheck.compare(source, path, graphs=False).verdict)
                nodes = ", ".join(node.op_type for node in model.graph)
                shown = nodes if len(model.graph) < 8 else f"{nodes[:40]}…"
                row = [name, tool, f"{len(model.graph)}: {shown}", f"{path.stat().st_size:,}"]
                yield [*row, f"{statistics.median(column):.2f}", verdict]
            for tool, why in left.items():
                yield [name, tool, why, "", "", ""]


def table(runs: int, threads: int) -> None:
    """Print the rows in markdown."""
    print("| model | tool | nodes | bytes | ms | verdict |\n|--|--|--|--|--|--|")
    for row in rows(runs, threads):
        print(f"| {' | '.join(row)} |", flush=True)
    print()
