"""Copies in float16 of the zoo's networks: right ones and spoilt ones, compared with the float32 model under ``--allow float16``.

    python benchmarks/copies.py [--nets vit,resnet] [--exporters torchscript,dynamo,tf2onnx] [--seeds 1]

Right copies: those of ``RIGHT`` (right_copies.py has all). Spoilt ones: a mutation of the float32 model, converted (of
tests/zoo/mutations.py; those that the format swallows are left out, and a cast to float16 and back, which is such a copy), and
in a right copy one weight that is the next number of the format, or an epsilon that is 0. One that is accepted is left out where
the oracle in float64 says that it is no other function.
Each net has a row: what came out, how often the changed node or constant is named, and each spoilt copy that was accepted.
Needs torch, transformers and onnxruntime; tensorflow and tf2onnx for the Keras nets, which ``tf2onnx`` exports (so does Keras).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import math
import os
import re
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx import numpy_helper  # noqa: E402

import graphcheck  # noqa: E402
from graphcheck import words  # noqa: E402
from tests.zoo.copying import KINDS, NETS, Net, fresh, to_float16  # noqa: E402
from tests.zoo.mutations import MUTATIONS, mutate  # noqa: E402
from tests.zoo.oracle import Oracle  # noqa: E402

ACCEPTED = ("identical", "proved", "within-rounding")
SAME = ("float16 and back", "scores by an ulp", "scalar factor by an ulp")  # copies like any other
SECONDS = 60.0
RIGHT = ("float16", "float16, ports", "half()")
T = TypeVar("T")


def next_number(model: onnx.ModelProto, seed: int) -> tuple[onnx.ModelProto, str] | None:
    """One element of a stored float16 constant, moved to the next number of the format."""
    made = fresh(model)
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


def no_epsilon(model: onnx.ModelProto, seed: int) -> tuple[onnx.ModelProto, str] | None:
    """The epsilon of one normalization, an attribute or a small constant that is added, is 0."""
    made = fresh(model)
    small = {t.name: t for t in made.graph.initializer if t.data_type in (1, 10) and np.prod(t.dims) == 1}
    small = {name: t for name, t in small.items() if 0 < abs(numpy_helper.to_array(t).reshape(-1)[0]) < 1e-3}
    found = [(n, a) for n in made.graph.node for a in n.attribute if a.name == "epsilon"]
    found += [(n, small[i]) for n in made.graph.node if n.op_type == "Add" for i in n.input if i in small]
    if not found:
        return None
    node, holder = found[np.random.default_rng(seed).integers(len(found))]
    if isinstance(holder, onnx.AttributeProto):
        holder.f = 0.0
    else:
        holder.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(holder) * 0, holder.name))
    return made, node.name or f"{node.op_type}({node.output[0]})"


AFTERWARDS = {"one ulp of float16": next_number, "an epsilon lost": no_epsilon}  # what is changed in a right copy


class Spoilt(NamedTuple):
    """A spoilt copy, the name of what was changed (a node, or a constant), and the spoilt model that it was made of, if so."""

    kind: str
    copy: onnx.ModelProto
    changed: str
    model: onnx.ModelProto | None = None

    def harmless(self, right: onnx.ModelProto) -> bool:
        """Whether what was changed in a ``right`` model changes nothing: the mean of what is constant, a Resize to its size."""
        return self.model is not None and Oracle(right).effect(self.model) == "no change"


def in_turn(kinds: Iterable[str], title: str) -> list[str]:
    """The kinds in an order that each net has another of, so that where time ends is not always the same place."""
    return sorted(kinds, key=lambda kind: zlib.crc32(f"{title} {kind}".encode()))


def spoilt(model: onnx.ModelProto, seeds: int, title: str = "") -> Iterator[Spoilt]:
    """Copies that are wrong in one thing; the kinds in the order of ``title``."""
    right = to_float16(model)
    text = stored(right)
    for seed in range(seeds):
        for kind, change in AFTERWARDS.items():
            if (found := change(right, seed)) is not None:
                yield Spoilt(kind, *found)
        for kind in in_turn(MUTATIONS, title):
            mutant = None if kind in SAME else mutate(model, kind, seed)
            if mutant is None:
                continue
            try:
                copy = to_float16(mutant[0])
            except Exception:  # the converter has no copy of it
                continue
            if stored(copy) != text:
                yield Spoilt(kind, copy, mutant[1], mutant[0])


def lasting(each: Iterable[T], seconds: float) -> Iterator[T]:
    """What there is of them until so many seconds have passed."""
    end = time.monotonic() + seconds
    return itertools.takewhile(lambda _: time.monotonic() < end, each)


def stored(model: onnx.ModelProto) -> list[str]:
    """What a copy computes with, whatever its names: each node with its attributes and the constants that it reads."""
    held = {t.name: zlib.crc32(numpy_helper.to_array(t).tobytes()) for t in model.graph.initializer}
    bare = [onnx.helper.make_node(n.op_type, [str(held.get(i, "x")) for i in n.input], ["y"]) for n in model.graph.node]
    for node, whole in zip(bare, model.graph.node, strict=True):
        node.attribute.extend(whole.attribute)
    return sorted(str(node) for node in bare)


def compared(
    a: onnx.ModelProto,
    b: onnx.ModelProto,
    allow: str = "float16",
    feeds: Sequence[dict[str, Any]] = (),
    seconds: float = SECONDS,
) -> tuple[str, str, dict[str, Any]]:
    """Verdict, reason and evidence, at the inputs ``feeds`` where there are some."""
    with tempfile.TemporaryDirectory() as place:
        files = [str(Path(place, f"{i}.npz")) for i in range(len(feeds))]
        for file, feed in zip(files, feeds, strict=True):
            np.savez(file, **feed)
        given: dict[str, Any] = {"inputs": files[0], "more_inputs": files[1:]} if files else {"run": False}
        found = graphcheck.compare(a, b, allow=[allow], graphs=False, timeout=seconds, **given)
    return found.verdict.value, found.reason, found.evidence


class Tally:
    """What came out of right copies and of spoilt ones, and a note on each that is not as it should be."""

    def __init__(self) -> None:
        self.verdicts, self.wrong, self.named, self.notes = Counter[str](), Counter[str](), Counter[bool](), list[str]()

    def right(self, title: str, verdict: str, reason: str) -> None:
        """A right copy."""
        self.verdicts[verdict] += 1
        self.notes += [f"{title}, right: {verdict}: {reason[:300]}"] if verdict not in ACCEPTED else []

    def spoilt(self, title: str, model: onnx.ModelProto, each: Spoilt, found: tuple[str, str, dict[str, Any]]) -> None:
        """What came out of a spoilt copy of a model, unless it is no other function."""
        verdict, reason, evidence = found
        if verdict in ACCEPTED and each.harmless(model):
            return
        told, change = named(evidence, reason, each, model), f"{each.kind} at {each.changed}"
        self.wrong[verdict] += 1
        self.named[told] += 1
        if verdict in ACCEPTED:
            self.notes.append(f"{title}, ACCEPTED: {change}: {verdict}: {reason[:300]}")
        elif not told:
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


THROUGH = ("Cast", "QuantizeLinear", "DequantizeLinear")  # what stands between a constant, or a node, and who reads it


def _readers(nodes: dict[str, onnx.NodeProto], made: set[str]) -> set[str]:
    """The nodes, in topological order, that read tensors, also through what only moves or rounds them."""
    found = set()
    for name, node in nodes.items():
        if made & {*node.input}:
            found.add(name)
            made |= {*node.output} if node.op_type in THROUGH else set()
    return found


def named(evidence: dict[str, Any], reason: str, each: Spoilt, model: onnx.ModelProto) -> bool:
    """Whether a changed node or constant is named, a node that was put there, who reads it in either, or a constant that such a
    node has: by a row of what is off, by the node at which the graphs part or that the copy lost, or by the reason."""
    changed = each.changed
    before, nodes = ({n.name or f"{n.op_type}({n.output[0]})": n for n in m.graph.node} for m in (model, each.copy))
    places = {name for name in nodes if name == changed or name.startswith(f"{changed}_quant") or "of_the_mutation" in name}
    places |= _readers(nodes, {changed, *(output for name in places for output in nodes[name].output)})
    there = before.get(changed, onnx.NodeProto())
    known = {changed, *places, *there.input, *_readers(before, {*there.output})}
    known |= {name for place in places for name in nodes[place].input}
    known |= {name for node in nodes.values() if node.op_type in THROUGH and known & {*node.output} for name in node.input}
    known |= {name.removesuffix("_quantized").removesuffix("_Q4") for name in known}
    known |= {name.split("_")[0] for name in known if name.startswith("constant_")}
    known |= {name for name in before if f"{name}_quant" in places}  # a node that was lost has its name in the model
    precision = evidence["precision"] or {}
    parts = precision.get("parts") or {}
    told = {row[side] for row in precision.get("off", ()) for side in "ab"}
    told |= {parts.get("node"), (parts.get("lost") or {}).get("node")}
    told |= {(side or {}).get("node") for side in ((evidence["divergence"] or {}).get(s) for s in "ab")}
    return bool(known & told) or any(re.search(rf"(?<![\w/]){re.escape(words.short(name))}(?![\w/])", reason) for name in places)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", type=lambda text: text.split(","), default=list(NETS["torchscript"]))
    parser.add_argument("--exporters", type=lambda text: text.split(","), default=["torchscript", "dynamo"])
    parser.add_argument("--seeds", type=int, default=1, help="of the spoilt copies")
    parser.add_argument("--seconds", type=float, default=math.inf, help="for the spoilt copies of one net")
    options = parser.parse_args()
    every = Tally()
    print(f"| net | exporter | {' | '.join(RIGHT)} | spoilt: not accepted | named | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.nets:
        for exporter in options.exporters:
            started, cells, tally, title = time.monotonic(), list[str](), Tally(), f"{name}, {exporter}"
            try:
                net = Net.of(name, exporter)
            except Exception as error:
                print(f"| {name} | {exporter} | {type(error).__name__} |  |  |  |  |  |")
                continue
            for kind in RIGHT:
                try:
                    plain, copy = KINDS[kind].make(net)
                except Exception as error:
                    cells.append(type(error).__name__)
                    continue
                verdict, reason, _ = compared(plain, copy)
                cells.append(verdict)
                tally.right(title, verdict, reason)
            with contextlib.suppress(ValueError):  # the converter refuses the model
                for each in lasting(spoilt(net.model, options.seeds, title), options.seconds):
                    tally.spoilt(title, net.model, each, compared(net.model, each.copy))
            every.add(tally)
            told = f"{' | '.join(cells)} | {tally.cells()} | {time.monotonic() - started:.0f}"
            print(f"| {name} | {exporter} | {told} |", flush=True)
    every.close()


if __name__ == "__main__":
    main()
