"""``graphcheck compare`` against what people do today, as whole processes in one interleaved run; prints ratios.

(a) a plain script: load both models, run both once in onnxruntime, allclose. (b) Polygraphy's CLI with its defaults
(`pip install polygraphy`; left out where it is missing). Pairs: ViT-B/16 and ViT-Tiny/16, TorchScript against dynamo export,
with a batch of 1; ViT-B/16 with a free batch, without others; a gross and a subtle mutant of ViT-B/16; Swin-like graphs are in
the zoo; a chain of 100,000 nodes.

    python benchmarks/compare.py [--rounds 5] [--quick] [--beside CHECKOUT]

With --beside, every comparison is measured a second time with the package of another checkout, in the same rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent))
from measuring import interleaved, python, table

PLAIN = """
import sys, numpy as np, onnxruntime as ort
sessions = [ort.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in sys.argv[1:3]]
shape = [d if isinstance(d, int) else 1 for d in sessions[0].get_inputs()[0].shape]
x = np.random.default_rng(0).random(shape, dtype=np.float32)
outputs = [s.run(None, {s.get_inputs()[0].name: x}) for s in sessions]
sys.exit(0 if all(np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*outputs)) else 1)
"""


def exported(folder: Path, size: str, batch: str = "static") -> tuple[Path, Path]:
    """The TorchScript and the dynamo export of a ViT."""
    from graphcheck.exporting import export

    names = [f"{size}-conv-{exporter}-{batch}" for exporter in ("torchscript", "dynamo")]
    missing = [n for n in names if not (folder / f"{n}.onnx").exists()]
    if missing:
        export(missing, folder)
    return folder / f"{names[0]}.onnx", folder / f"{names[1]}.onnx"


def mutant(path: Path, folder: Path, kind: str) -> Path:
    """``gross``: a weight's columns reversed; ``subtle``: one weight moved by an ulp."""
    model = onnx.load(path)
    weight = [t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 2][10]
    values = numpy_helper.to_array(weight).copy()
    if kind == "gross":
        values = np.ascontiguousarray(values[:, ::-1])
    else:
        values.flat[5] = np.nextafter(values.flat[5], np.float32(np.inf))
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, folder / f"{kind}.onnx")
    return folder / f"{kind}.onnx"


def chain(folder: Path, name: str, nodes: int, swapped: bool) -> Path:
    """Adds, Relus and products in a row; ``swapped`` exchanges the operands of the first Add."""
    made, last = [], "x"
    for i in range(nodes):
        operands = [last] if i % 3 == 1 else [last, "c"]
        made.append(
            helper.make_node(
                ("Add", "Relu", "Mul")[i % 3], operands[::-1] if swapped and i == 0 else operands, [f"t{i}"]
            )
        )
        last = f"t{i}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4]) for n in ("x", last)]
    constant = numpy_helper.from_array(np.array([0.5, 0.75, 0.9, 1.0], np.float32), "c")
    graph = helper.make_graph(made, "chain", ends[:1], ends[1:], [constant])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / name)
    return folder / name


def compare(a: Path, b: Path, *options: str) -> list[str]:
    """The command line of a comparison."""
    return python("-m", "graphcheck", "compare", str(a), str(b), *options)


def polygraphy(a: Path, b: Path, saved: Path) -> list[str] | None:
    """Polygraphy's CLI with its defaults: one model, then the other against what it gave; None where it is missing."""
    if importlib.util.find_spec("polygraphy") is None:
        return None
    run = shlex.join(python("-c", "import sys; from polygraphy.tools import main; sys.exit(main())", "run"))
    first, second, kept = (shlex.quote(str(path)) for path in (a, b, saved))
    return ["sh", "-c", f"{run} {first} --onnxrt --save-outputs {kept} && {run} {second} --onnxrt --load-outputs {kept}"]


def beside(commands: dict[str, list[str]], checkout: Path | None, against: dict[str, str]) -> dict[str, list[str]]:
    """The commands, each comparison followed by the same one of another checkout, which it is put in relation to."""
    found: dict[str, list[str]] = {}
    for name, command in commands.items():
        found[name] = command
        if checkout is not None and name.startswith("compare"):
            # from its own folder: with -m, Python looks into the working directory first
            found[f"{name}, beside"] = ["env", "-C", str(checkout), f"PYTHONPATH={checkout}", *command]
            against[name] = f"{name}, beside"
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", type=Path, default=Path("models"), help="where the ViTs are, or are exported to")
    parser.add_argument("--quick", action="store_true", help="ViT-Tiny alone")
    parser.add_argument("--beside", type=Path, help="another checkout of graphcheck, measured in the same rounds")
    options = parser.parse_args()
    options.models = options.models.resolve()
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parent.parent))
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; medians of {options.rounds} interleaved rounds\n"
    )
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        script = folder / "plain.py"
        script.write_text(PLAIN)
        for size in ("vit-tiny16",) if options.quick else ("vit-tiny16", "vit-b16"):
            a, b = exported(options.models, size)
            commands = {"(a) plain script": python(str(script), str(a), str(b))}
            if (beside_it := polygraphy(a, b, folder / "outputs.json")) is not None:
                commands["(b) Polygraphy"] = beside_it
            commands["compare"] = compare(a, b)
            commands["compare --no-run"] = compare(a, b, "--no-run")
            against = {"compare": "(b) Polygraphy", "compare --no-run": "(a) plain script"}
            if size == "vit-b16":
                commands["compare, gross mutant"] = compare(b, mutant(b, folder, "gross"), "--witness", text)
                commands["compare, one ulp"] = compare(b, mutant(b, folder, "subtle"), "--witness", text)
                commands["compare --numerics full"] = compare(a, b, "--numerics", "full")
                against |= dict.fromkeys(
                    [c for c in commands if c.startswith("compare") and c not in against], "(b) Polygraphy"
                )
            print(f"{size}:\n")
            print("\n".join(table(interleaved(beside(commands, options.beside, against), options.rounds), against)), "\n")
        if not options.quick:
            a, b = exported(options.models, "vit-b16", "dynamic")
            against = {}
            commands = {"compare": compare(a, b), "compare --no-run": compare(a, b, "--no-run")}
            commands["analyze"] = python("-m", "graphcheck", "analyze", str(a))
            print("vit-b16 with a free batch:\n")
            print("\n".join(table(interleaved(beside(commands, options.beside, against), options.rounds), against)), "\n")
            pair = [chain(folder, f"{s}.onnx", 100_000, s == "swapped") for s in ("plain", "swapped")]
            against = {}
            commands = beside({"compare": compare(pair[0], pair[1])}, options.beside, against)
            print("chain of 100,000 nodes:\n")
            print("\n".join(table(interleaved(commands, 1, 0), against)), "\n")
        light = {"import graphcheck": python("-c", "import graphcheck"), "--help": python("-m", "graphcheck", "--help")}
        light["python"] = python("-c", "")
        print("\n".join(table(interleaved(light, options.rounds), {})))


if __name__ == "__main__":
    main()
