"""Copies in float16 of the zoo's networks: right ones and spoilt ones, compared with the float32 model under ``--allow float16``.

    python benchmarks/copies.py [--nets vit,resnet] [--exporters torchscript,dynamo,tf2onnx] [--seeds 1]

Right copies: onnxruntime's converter with float32 and with float16 inputs and outputs, and ``module.half()`` exported anew.
Spoilt ones: a mutation of the float32 model, converted (of tests/zoo/mutations.py; those that the format swallows are left out,
and a cast to float16 and back, which is such a copy), and one weight of a right copy that is the next number of the format.
Each is in a row: what came out, how often the changed node or constant is named, and each spoilt copy that was accepted.
Needs torch, transformers and onnxruntime; tensorflow and tf2onnx for the Keras nets, which ``tf2onnx`` exports (so does Keras).
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
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402

import graphcheck  # noqa: E402
from tests.zoo import architectures, keras_nets  # noqa: E402
from tests.zoo.mutations import MUTATIONS, mutate  # noqa: E402

ACCEPTED = ("identical", "proved", "within-rounding")
SAME = ("float16 and back",)  # a copy like any other
SECONDS = 60.0


def exported(name: str, exporter: str) -> onnx.ModelProto:
    """One of the nets."""
    return keras_nets.export(name) if exporter == "tf2onnx" else architectures.export(name, exporter)


def copied(model: onnx.ModelProto, keeps: bool = True) -> onnx.ModelProto:
    """By onnxruntime's converter, ``keeps``: inputs and outputs stay in float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    fresh = onnx.ModelProto.FromString(model.SerializeToString())
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        made: onnx.ModelProto = convert_float_to_float16(fresh, keep_io_types=keeps)
    return made


def halved(name: str, exporter: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The module and the module in float16, exported alike: BatchNormalizations stay, for folded in float16 they are rounded
    several times."""
    kept, plain = architectures.module, architectures.export(name, exporter, folds=False)

    def half(name: str) -> tuple[Any, tuple[Any, ...]]:
        made, args = kept(name)
        return made.half(), tuple(a.half() for a in args)

    architectures.module = half
    try:
        return plain, architectures.export(name, exporter, folds=False)
    finally:
        architectures.module = kept


def next_number(model: onnx.ModelProto, seed: int) -> tuple[onnx.ModelProto, str] | None:
    """One element of a stored float16 constant, moved to the next number of the format."""
    made = onnx.ModelProto.FromString(model.SerializeToString())
    stored = [t for t in made.graph.initializer if t.data_type == onnx.TensorProto.FLOAT16 and np.prod(t.dims) > 1]
    if not stored:
        return None
    rng = np.random.default_rng(seed)
    tensor = stored[rng.integers(len(stored))]
    array = numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    at = rng.choice(np.flatnonzero(flat != 0)) if flat.any() else 0
    flat[at] = np.nextafter(flat[at], np.float16(1e4))
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return made, tensor.name


def spoilt(model: onnx.ModelProto, seeds: int) -> Iterator[tuple[str, onnx.ModelProto, str]]:
    """Kind, spoilt copy, and the name of what was changed: of a node, or of a constant."""
    right = copied(model)
    text = stored(right)
    for seed in range(seeds):
        if (found := next_number(right, seed)) is not None:
            yield "one ulp of float16", *found
        for kind in MUTATIONS:
            mutant = None if kind in SAME else mutate(model, kind, seed)
            if mutant is None:
                continue
            try:
                copy = copied(mutant[0])
            except Exception:  # the converter has no copy of it
                continue
            if stored(copy) != text:
                yield kind, copy, mutant[1]


def stored(model: onnx.ModelProto) -> tuple[list[bytes], list[str]]:
    """What a copy holds, whatever its names."""
    held = sorted(numpy_helper.to_array(t).tobytes() for t in model.graph.initializer)
    bare = [onnx.helper.make_node(n.op_type, ["x"] * len(n.input), ["y"]) for n in model.graph.node]
    for node, whole in zip(bare, model.graph.node, strict=True):
        node.attribute.extend(whole.attribute)
    return held, sorted(str(node) for node in bare)


def compared(
    a: onnx.ModelProto, b: onnx.ModelProto, allow: str = "float16", feeds: Sequence[dict[str, Any]] = ()
) -> tuple[str, str, dict[str, Any]]:
    """Verdict, reason and evidence, at the inputs ``feeds`` where there are some."""
    with tempfile.TemporaryDirectory() as place:
        files = [str(Path(place, f"{i}.npz")) for i in range(len(feeds))]
        for file, feed in zip(files, feeds, strict=True):
            np.savez(file, **feed)
        given: dict[str, Any] = {"inputs": files[0], "more_inputs": files[1:]} if files else {"run": False}
        found = graphcheck.compare(a, b, allow=[allow], graphs=False, timeout=SECONDS, **given)
    return found.verdict.value, found.reason, found.evidence


class Tally:
    """What came out of right copies and of spoilt ones, and a note on each that is not as it should be."""

    def __init__(self) -> None:
        self.verdicts, self.wrong, self.named, self.notes = Counter[str](), Counter[str](), Counter[bool](), list[str]()

    def right(self, title: str, verdict: str, reason: str) -> None:
        """A right copy."""
        self.verdicts[verdict] += 1
        self.notes += [f"{title}, right: {verdict}: {reason[:300]}"] if verdict not in ACCEPTED else []

    def spoilt(self, title: str, change: str, verdict: str, reason: str, *, named: bool) -> None:
        """A spoilt copy, and whether what was changed is ``named``."""
        self.wrong[verdict] += 1
        self.named[named] += 1
        if verdict in ACCEPTED:
            self.notes.append(f"{title}, ACCEPTED: {change}: {verdict}: {reason[:300]}")
        elif not named:
            self.notes.append(f"{title}, not named: {change}: {verdict}")

    def cells(self) -> str:
        """How many of the spoilt ones were not accepted, and how many were named."""
        total, bad = self.wrong.total(), sum(self.wrong[verdict] for verdict in ACCEPTED)
        return f"{total - bad} of {total} | {self.named[True]}"

    def add(self, other: Tally) -> None:
        """Those of another one, too."""
        self.verdicts += other.verdicts
        self.wrong += other.wrong
        self.named += other.named
        self.notes += other.notes

    def close(self) -> None:
        """Print what there is in all."""
        print(f"\n- right copies: {dict(self.verdicts)}")
        print(f"- spoilt copies: {dict(self.wrong)}; {self.named[True]} of {self.named.total()} named")
        print("\n".join(f"- {note}" for note in self.notes))


def named(evidence: dict[str, Any], changed: str, model: onnx.ModelProto) -> bool:
    """Whether a changed node, or a constant that it reads, is named."""
    nodes = {node.name or f"{node.op_type}({node.output[0]})": node for node in model.graph.node}
    known = {changed, *(nodes[changed].input if changed in nodes else ())}
    known |= {name.split("_")[0] for name in known if name.startswith("constant_")}
    off = {row[side] for row in (evidence["precision"] or {"off": []})["off"] for side in "ab"}
    divergence = evidence["divergence"] or {}
    parts = ((evidence["precision"] or {}).get("parts") or {}).get("node")
    return bool(known & off) or parts == changed or any((divergence.get(side) or {}).get("node") == changed for side in "ab")


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", type=lambda text: text.split(","), default=list(architectures.ARCHITECTURES))
    parser.add_argument("--exporters", type=lambda text: text.split(","), default=["torchscript", "dynamo"])
    parser.add_argument("--seeds", type=int, default=1, help="of the spoilt copies")
    options = parser.parse_args()
    every = Tally()
    print("| net | exporter | converter | float16 ports | half() | spoilt: not accepted | named | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.nets:
        for exporter in options.exporters:
            started, cells, tally, title = time.monotonic(), list[str](), Tally(), f"{name}, {exporter}"
            try:
                model = exported(name, exporter)
            except Exception as error:
                print(f"| {name} | {exporter} | {type(error).__name__} |  |  |  |  |  |")
                continue
            made = (lambda: (model, copied(model)), lambda: (model, copied(model, False)), lambda: halved(name, exporter))  # noqa: B023
            for make in made:
                try:
                    plain, copy = make()
                except Exception as error:
                    cells.append(type(error).__name__)
                    continue
                verdict, reason, _ = compared(plain, copy)
                cells.append(verdict)
                tally.right(title, verdict, reason)
            with contextlib.suppress(ValueError):  # the converter refuses the model
                for kind, copy, changed in spoilt(model, options.seeds):
                    verdict, reason, evidence = compared(model, copy)
                    tally.spoilt(title, f"{kind} at {changed}", verdict, reason, named=named(evidence, changed, copy))
            every.add(tally)
            told = f"{' | '.join(cells)} | {tally.cells()} | {time.monotonic() - started:.0f}"
            print(f"| {name} | {exporter} | {told} |", flush=True)
    every.close()


if __name__ == "__main__":
    main()
