"""``graphcheck blame`` on a dump of every tensor of a ViT-B, beside one evaluation of the model in float64; prints ratios.

    python benchmarks/blame.py [--rounds 3] [--models DIR] [--size vit-b16]

Both are whole processes in one interleaved run. The evaluation reads the same model and the dump of its inputs, and computes
every tensor once by the same kernel, without bounds. The dump is made by onnxruntime without optimizations, once, in DIR.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from measuring import interleaved, python, table  # noqa: E402

EVALUATION = """
import sys
import numpy as np
from graphcheck.blaming.steps import cut
from graphcheck.files.model import read
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
with np.load(sys.argv[2]) as dump:
    inputs = {name: dump[name] for name in sys.argv[3:]}
program = cut(read(sys.argv[1]), inputs).program
known = {key: x.astype(np.float64).reshape(-1) for key, x in program.constants.items()}
known |= {key: inputs[key[1]].astype(np.float64).reshape(-1) for key in program.inputs}
for step in program.steps:
    found = evaluate(program.terms, Float64(known, bounds=False), [r.cls for r in step.results])
    known |= {r.key: found[program.terms.find(r.cls)].value for r in step.results}
"""


def dumped(model: Path, to: Path) -> list[str]:
    """Writes every tensor of one run of a model; the names of its inputs."""
    proto = onnx.shape_inference.infer_shapes(onnx.load(model))
    declared = {value.name for value in proto.graph.output}
    names = {name for node in proto.graph.node for name in node.output if name}
    proto.graph.output.extend(value for value in proto.graph.value_info if value.name in names - declared)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {port.name: random.random(port.shape, dtype=np.float32) for port in session.get_inputs()}
    results = zip((port.name for port in session.get_outputs()), session.run(None, feeds), strict=True)
    np.savez(to, **feeds, **dict(results))
    return list(feeds)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--size", default="vit-b16")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.models or Path(temporary)
        model, dump = folder / f"{options.size}-conv-torchscript-static.onnx", folder / f"{options.size}-dump.npz"
        if not model.exists():
            from graphcheck.exporting import export

            export([model.stem], folder)
        inputs = dumped(model, dump)
        commands = {
            "float64 evaluation": python("-c", EVALUATION, str(model), str(dump), *inputs),
            "blame": python("-m", "graphcheck", "blame", str(model), "--tensors", str(dump)),
        }
        print(f"{model.name}, a dump of {dump.stat().st_size / 2**20:.0f} MiB")
        print("\n".join(table(interleaved(commands, options.rounds), {"blame": "float64 evaluation"})))


if __name__ == "__main__":
    main()
