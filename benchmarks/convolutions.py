"""``graphcheck compare`` and ``analyze`` on convolutional networks at their real sizes, as whole processes beside others.

Networks (benchmarks/nets.py): ResNet-50 and MobileNetV3 at 224, YOLOv8n and DBNet at 640, U-Net at 512, a ViT with a DPT
head at 224, each exported by TorchScript and by dynamo. Pairs: the two exports; the TorchScript export and what
onnxruntime (extended), onnxsim and onnxslim make of it; and the dynamo export with the columns of one weight reversed.
Beside each: the plain script and Polygraphy's CLI of benchmarks/compare.py, in the same rounds.

    python benchmarks/convolutions.py [--nets yolo,unet] [--pairs exporters,onnxsim,gross] [--rounds 5] [--models FOLDER]

Prints ratios: of time to Polygraphy (to the script where Polygraphy is missing), of memory to the script. ``analyze`` is
put in relation to loading the file with onnx. Nothing is written but to FOLDER, by default a temporary one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parent.parent)]
from compare import PLAIN, compare, polygraphy  # noqa: E402
from measuring import Sample, interleaved, median, python  # noqa: E402

NETS = ("resnet50", "mobilenet", "yolo", "dbnet", "unet", "dpt")
OPTIMIZED = {"onnxruntime": "onnxruntime extended", "onnxsim": "onnxsim", "onnxslim": "onnxslim"}
PAIRS = ("exporters", *OPTIMIZED, "gross", "analyze")
LOADED = "import sys, onnx; onnx.load(sys.argv[1])"


def exported(folder: Path, name: str, exporter: str) -> Path:
    """The file of a network by one of torch's two exporters; made unless it is there."""
    path = folder / f"{name}-{exporter}.onnx"
    if path.exists():
        return path
    import nets
    import torch

    pixels = torch.zeros(1, 3, nets.NETS[name].side, nets.NETS[name].side)
    ends = {"opset_version": 18, "input_names": ["pixels"], "output_names": ["y"]}
    from tests.zoo.optimizers import quiet

    with quiet(), torch.no_grad():
        if exporter == "torchscript":
            buffer = io.BytesIO()
            with mock.patch.object(torch._C, "_jit_onnx_log"):
                torch.onnx.export(nets.net(name), (pixels,), buffer, dynamo=False, **ends)
            path.write_bytes(buffer.getvalue())
        else:
            program = torch.onnx.export(nets.net(name), (pixels,), dynamo=True, verbose=False, **ends)
            onnx.save(program.model_proto, path)
    return path


def optimized(folder: Path, path: Path, name: str) -> Path | None:
    """What an optimizer makes of a file; None, and a line, where it fails."""
    made = path.with_name(f"{path.stem}-{name}.onnx")
    if not made.exists():
        from tests.zoo.optimizers import optimize

        try:
            onnx.save(optimize(onnx.load(path), OPTIMIZED[name]), made)
        except Exception as error:  # whatever an optimizer may raise
            print(f"{name} fails on {path.name}: {type(error).__name__}: {str(error)[:100]}")
            return None
    return made


def gross(path: Path) -> Path:
    """The file with the output channels of its middle Conv or MatMul weight reversed."""
    made = path.with_name(f"{path.stem}-gross.onnx")
    if not made.exists():
        model = onnx.load(path)
        held = {t.name: t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) > 1}
        used = [n.input[1] for n in model.graph.node if n.op_type in ("Conv", "MatMul") and n.input[1] in held]
        weight = held[used[len(used) // 2]]
        values = numpy_helper.to_array(weight)
        weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values[::-1]), weight.name))
        onnx.save(model, made)
    return made


def pair(folder: Path, name: str, kind: str) -> tuple[Path, Path] | None:
    """The files of a pair of one kind, but for ``analyze``."""
    if kind in OPTIMIZED:
        path = exported(folder, name, "torchscript")
        made = optimized(folder, path, kind)
        return None if made is None else (path, made)
    dynamo = exported(folder, name, "dynamo")
    return (dynamo, gross(dynamo)) if kind == "gross" else (exported(folder, name, "torchscript"), dynamo)


def commands(folder: Path, name: str, kind: str) -> dict[str, Sequence[str]]:
    """graphcheck's command, then those that it is measured beside; {} where there is no pair."""
    if kind == "analyze":
        path = exported(folder, name, "torchscript")
        return {"graphcheck": python("-m", "graphcheck", "analyze", str(path)), "load": python("-c", LOADED, str(path))}
    files = pair(folder, name, kind)
    if files is None:
        return {}
    script = folder / "plain.py"
    script.write_text(PLAIN)
    also = ["--allow", "ulps=4"] if kind == "exporters" else []  # each folds its BatchNormalizations in its own order
    made: dict[str, Sequence[str]] = {"graphcheck": compare(*files, "--witness", str(folder / "witnesses"), *also)}
    made["script"] = python(str(script), *map(str, files))
    beside = polygraphy(*files, folder / "outputs.json")
    return made | ({"Polygraphy": beside} if beside is not None else {})


def row(name: str, kind: str, samples: dict[str, list[Sample]]) -> str:
    """A line of the table."""
    middle = {key: median(found) for key, found in samples.items()}
    own, base = middle["graphcheck"], middle.get("Polygraphy") or middle.get("script") or middle["load"]
    least = middle.get("script", base)
    times = " / ".join(f"{s.wall:.2f}" for s in middle.values())
    sizes = " / ".join(f"{s.memory:.0f}" for s in middle.values())
    cpu = " / ".join(f"{s.cpu:.2f}" for s in middle.values())
    ratios = f"{own.wall / base.wall:.2f}x | {own.memory / least.memory:.2f}x"
    return f"| {name} | {kind} | {times} | {cpu} | {sizes} | {own.code} | {ratios} |"


def chosen(text: str, known: Sequence[str]) -> list[str]:
    """Names of a list with commas; argparse tells of others."""
    names = text.split(",")
    if unknown := sorted(set(names) - set(known)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: choose from {', '.join(known)}")
    return names


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nets", type=lambda text: chosen(text, NETS), default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--pairs", type=lambda text: chosen(text, PAIRS), default=list(PAIRS), help=", ".join(PAIRS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=Path, help="where the models are, or are exported to")
    parser.add_argument("--export", action="store_true", help="make the models and measure nothing")
    options = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parent.parent))
    with contextlib.ExitStack() as stack:
        folder = options.models or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        load = os.getloadavg()[0]
        print(f"{os.cpu_count()} cores, load {load:.1f} before; medians of {options.rounds} interleaved rounds;")
        print("graphcheck / script / Polygraphy, if it is installed; of analyze, graphcheck / loading the file\n")
        print("| net | pair | wall s | CPU s | peak MiB | exit | wall ratio | memory ratio |")
        print("|---|---|---|---|---|---|---|---|")
        for name in options.nets:
            for kind in options.pairs:
                made = commands(folder, name, kind)
                if made and not options.export:
                    print(row(name, kind, interleaved(made, options.rounds)), flush=True)


if __name__ == "__main__":
    main()
