"""The tables of the zoo: equivalent pairs by verdict, mutants by verdict and by located or not."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from tests.zoo import architectures, keras_nets, nets
from tests.zoo.editing import name_of
from tests.zoo.mutations import HARMLESS, MUTATIONS, mutate
from tests.zoo.optimizers import OPTIMIZERS, optimize
from tests.zoo.oracle import Oracle
from tests.zoo.proving import as_proto, verdict

Model = Any  # a path or a ModelProto


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison; ``where`` tells how near the first divergence lies to the mutated node."""

    name: str
    verdict: str
    reason: str
    seconds: float
    where: str = ""
    harmless: bool = False


def row(name: str, a: Model, b: Model, where: str = "", harmless: bool = False, node: str | None = None) -> Row:
    """Compare; an exception is a row too."""
    started = time.monotonic()
    try:
        said, reason, evidence = verdict(a, b, timeout=120.0, threads=1)
        if node is not None:
            where = located(as_proto(b), evidence, node)
    except Exception as error:  # a crash is what the table is there to show
        said, reason = "crash", f"{type(error).__name__}: {error}"
    return Row(name, said, reason, time.monotonic() - started, where, harmless)


# -- mutants -------------------------------------------------------------------------------------------------------


MUTANT_MODELS = (
    "vit-conv-dynamo-dynamic",
    "beit-unfold-torchscript-static",
    "siglip-vision-conv-torchscript-dynamic",
    "dinov2-reshape-p1p2c-dynamo-dynamic",
    "swin dynamo",
    "segformer dynamo",
    "convnext torchscript",
    "mobilevit dynamo",
    "resnet dynamo",
    "yolo torchscript",
    "qwen2-vl vision torchscript",
    "detr-like decoder dynamo",
)


@functools.cache
def mutant_model(name: str) -> onnx.ModelProto:
    """An export by name: a variant of graphcheck's catalogue, or "architecture exporter"."""
    architecture, _, exporter = name.rpartition(" ")
    if architecture in architectures.ARCHITECTURES:
        return architectures.export(architecture, exporter)
    from graphcheck import exporting

    with tempfile.TemporaryDirectory() as folder:
        (made,) = exporting.export([name], folder).models
        return as_proto(Path(folder) / made.file)


def mutant_rows(model: onnx.ModelProto, seeds: Iterable[int] = (0,)) -> Iterator[Row]:
    """Every mutation at each seed's place; what changes nothing is a row with that verdict."""
    oracle = Oracle(model)
    for name in (*MUTATIONS, *HARMLESS):
        for seed in seeds:
            made = mutate(model, name, seed)
            if made is None:
                continue
            mutant, node = made
            if name not in HARMLESS and oracle.effect(mutant) == "no change":
                yield Row(name, "no change", "", 0.0)
                continue
            yield row(name, model, mutant, harmless=name in HARMLESS, node=node)


def located(mutant: onnx.ModelProto, evidence: dict[str, Any], node: str) -> str:
    """ "exact" for the mutated node or one that the mutation put in, "next" for a neighbour of it, else "elsewhere"."""
    found = ((evidence.get("divergence") or {}).get("b") or {}).get("node")
    if found is None:
        return "refused"  # one side does not run, or there is nothing to locate
    if found == node or "of_the_mutation" in found:
        return "exact"
    near = {node}
    for _ in range(3):  # through what only moves, and what is one expression with it
        tensors = {t for n in mutant.graph.node if name_of(n) in near for t in (*n.input, *n.output)}
        near |= {name_of(n) for n in mutant.graph.node if tensors & {*n.output, *n.input}}
    return "next" if found in near else "elsewhere"


def case_rows() -> list[Row]:
    """Every node test of onnx.backend.test in the float64 domain; one that is on the list and does not pass is lost."""
    from tests import test_backend_nodes as backend

    recorded = set(backend.floor())
    found = []
    for name, case in backend.cases().items():
        kind, reason = backend.outcome(case)
        found.append(Row(name, "lost" if kind not in ("passed", "wrong") and name in recorded else kind, reason, 0.0))
    return found


# -- pairs ---------------------------------------------------------------------------------------------------------

Pair = tuple[str, Model, Model]  # what stands on both sides, and both


def rows_of(pairs: Iterable[Pair | Row]) -> Iterator[Row]:
    """Each pair compared; what could not be made is a row already."""
    for pair in pairs:
        yield pair if isinstance(pair, Row) else row(*pair)


def optimizer_pairs(label: str, model: Model) -> Iterator[Pair | Row]:
    """A model before and after each optimizer."""
    proto = as_proto(model)
    for name in OPTIMIZERS:
        try:
            optimized = optimize(proto, name)
        except Exception as error:  # an optimizer that fails is listed, not compared
            yield Row(f"{label} ~ {name}", "optimizer fails", f"{type(error).__name__}: {error}", 0.0)
            continue
        yield f"{label} ~ {name}", proto, optimized


def architecture_pairs(name: str, batches: Sequence[bool] = (False, True)) -> Iterator[Pair | Row]:
    """Both torch exporters, static and dynamic batch, several opsets, and each optimizer."""
    made: dict[tuple[str, bool], onnx.ModelProto] = {}
    for exporter in ("torchscript", "dynamo"):
        for batch in batches if name != "qwen2-vl vision" else (False,):
            try:
                made[exporter, batch] = architectures.export(name, exporter, batch)
            except Exception as error:  # exporters raise anything
                text = str(error).splitlines()[0] if str(error) else ""
                yield Row(f"{name} {exporter}", "exporter fails", f"{type(error).__name__}: {text}", 0.0)
    for batch in batches:
        if ("torchscript", batch) in made and ("dynamo", batch) in made:
            label = f"{name} torchscript ~ dynamo, {'dynamic' if batch else 'static'}"
            yield label, *architectures.across(name, batch)
    if ("torchscript", False) in made:
        for opset in (11, 13, 16, 20):
            other = architectures.export(name, "torchscript", opset=opset)
            yield f"{name} torchscript opset 18 ~ {opset}", made["torchscript", False], other
    for (exporter, batch), model in made.items():
        yield from optimizer_pairs(f"{name} {exporter} {'dynamic' if batch else 'static'}", model)


def keras_pairs(name: str) -> Iterator[Pair | Row]:
    """A Keras model by tf2onnx at several opsets, and each optimizer."""
    model = keras_nets.export(name)
    for opset in (13, 15):
        yield f"keras {name} opset 18 ~ {opset}", model, keras_nets.export(name, opset)
    yield from optimizer_pairs(f"keras {name}", model)


def net_pairs(name: str) -> Iterator[Pair | Row]:
    """A hand-written net before and after each optimizer."""
    yield from optimizer_pairs(name, nets.net(name))


def family_pairs(models: Mapping[str, Model], equals: Mapping[str, Sequence[str]]) -> Iterator[Pair | Row]:
    """Members of a family of the catalogue: each against an earlier one that ``equals`` it, and against its optimized self."""
    done: set[str] = set()
    for name, model in models.items():
        partner = next((p for p in equals[name] if p in models and p in done), None)
        if partner is not None:
            yield f"{partner} ~ {name}", models[partner], model
        done.add(name)
        yield from optimizer_pairs(name, model)


def exported_pairs(family: str, folder: Path) -> Iterator[Pair | Row]:
    """A family of the catalogue, exported into a folder."""
    from graphcheck import exporting

    models = exporting.export([family], folder).models
    files = {m.variant.name: folder / m.file for m in models}
    yield from family_pairs(files, {m.variant.name: m.variant.known_equal for m in models})
