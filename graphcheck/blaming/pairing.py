"""Which tensor of a dump is which tensor of a model: by name, by escaped name, else by shape and value (:mod:`likeness`)."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from graphcheck.blaming import likeness
from graphcheck.blaming.dumps.lazy import Array, Entry, Tensors, head
from graphcheck.blaming.layouts import Laid, Shape, every_reading, readings
from graphcheck.errors import Undecided
from graphcheck.precision import program as program_
from graphcheck.precision.program import Program

if TYPE_CHECKING:
    import onnx_ir as ir

_RESHAPING = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"))


@dataclasses.dataclass(frozen=True)
class Pair:
    """A tensor of the dump, how it was found (``by``: name, escaped name, shape, value), and how it is read; None: as it is."""

    name: str
    by: str
    laid: Laid | None = None


@dataclasses.dataclass(frozen=True)
class Pairing:
    """``pairs`` by the model's names, ``unmatched`` what else the dump holds, ``notes`` what there is to say of it."""

    pairs: Mapping[str, Pair]
    unmatched: tuple[str, ...]
    notes: tuple[str, ...]

    def named(self, tensors: Mapping[str, Array]) -> Tensors:
        """The dumped tensors by the model's names and in the model's shapes, each read when it is asked for."""
        return Tensors({name: _entry(tensors, pair) for name, pair in self.pairs.items()})


def pair(
    model: ir.Model,
    tensors: Mapping[str, Array],
    *,
    values: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> Pairing:
    """The pairs of a model's tensors with those of a dump. What is of another shape than the model's is read as it may lie; with
    ``values``, what bears no name of the model is found by what it holds, at the cost of two float64 evaluations."""
    feeds = inputs(model, tensors)
    program, why = _program(model, {name: x for name, (x, _) in feeds.items()})
    every = {str(v.name) for node in model.graph for v in node.outputs if v.name} | {
        *map(str, model.graph.initializers)
    }
    named = _by_name(sorted(every), tensors)
    pairs = {name: Pair(at, _how(name, at)) for name, at in named.items()} | {
        name: each for name, (_, each) in feeds.items()
    }
    notes = [why] if why else []
    if program is not None:
        arrays = {name: np.asarray(x) for name, (x, _) in feeds.items()}
        pairs = _laid(program, tensors, arrays, pairs, notes, tick)
        lost = [
            n
            for n in tensors
            if n not in {p.name for p in pairs.values()} and math.prod(head(tensors, n)[0]) >= likeness.FEWEST
        ]
        if values and lost:
            known = {name: (p.name, p.laid) for name, p in pairs.items() if p.laid is not None}
            search = likeness.Search(program, tensors, arrays, known, lost, tick)
            pairs |= {name: Pair(at, "value", way) for name, (at, way) in search.run().items() if name not in known}
            notes += search.notes
            pairs |= _copies(
                model, tensors, pairs, [name for name in lost if name not in {p.name for p in pairs.values()}]
            )
    taken = {each.name for each in pairs.values()}
    counts = Counter(p.laid.layout for p in pairs.values() if p.laid is not None and p.laid.layout)
    notes += [f"{count} tensors of the dump are read as {layout}" for layout, count in sorted(counts.items())]
    by = Counter(p.by for p in pairs.values())
    notes += [f"{by[how]} tensors of the dump were found by {how}" for how in ("escaped name", "value") if by[how]]
    return Pairing(pairs, tuple(name for name in tensors if name not in taken), tuple(notes))


def _copies(
    model: ir.Model, tensors: Mapping[str, Array], pairs: Mapping[str, Pair], lost: Collection[str]
) -> dict[str, Pair]:
    """Reshapes of what is paired: what is left of the dump with the same numbers in the same order."""
    found: dict[str, Pair] = {}
    bits: dict[str, bytes] = {}

    def octets(name: str) -> bytes:
        if name not in bits:
            bits[name] = hashlib.sha256(np.ascontiguousarray(tensors[name]).tobytes()).digest()
        return bits[name]

    for node in model.graph:
        if node.op_type not in _RESHAPING or node.domain or not node.inputs or node.inputs[0] is None:
            continue
        source, name = (
            pairs.get(str(node.inputs[0].name)) or found.get(str(node.inputs[0].name)),
            str(node.outputs[0].name),
        )
        if source is None or name in pairs or (source.laid is not None and source.laid.layout):
            continue
        shape = _reshaped(node, source.laid.shape if source.laid is not None else head(tensors, source.name)[0])
        for other in lost:
            free = other not in {each.name for each in found.values()}
            if free and head(tensors, other)[0] == shape and octets(other) == octets(source.name):
                found[name] = Pair(other, "value")
                break
    return found


def _reshaped(node: ir.Node, shape: Shape) -> Shape | None:
    """The shape behind a node that only reshapes, where constants say it."""
    more = [v.const_value.numpy().tolist() for v in node.inputs[1:] if v is not None and v.const_value is not None]
    if node.op_type == "Identity":
        return shape
    if node.op_type == "Flatten":
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
        return (math.prod(shape[:axis]), math.prod(shape[axis:]))
    if node.op_type == "Reshape" and more:
        sizes = [shape[place] if size == 0 and place < len(shape) else size for place, size in enumerate(more[0])]
        rest = math.prod(size for size in sizes if size > 0)
        return tuple(math.prod(shape) // max(1, rest) if size == -1 else size for size in sizes)
    declared = node.outputs[0].shape
    sizes = list(declared) if declared is not None else [None]
    return (
        tuple(size for size in sizes if isinstance(size, int)) if all(isinstance(size, int) for size in sizes) else None
    )


def _program(model: ir.Model, feeds: Mapping[str, Array]) -> tuple[Program | None, str]:
    """The model's steps at the dumped inputs, or why there are none."""
    from graphcheck.files.model import required_inputs

    if missing := [str(v.name) for v in required_inputs(model) if str(v.name) not in feeds]:
        return None, f"input {missing[0]!r} is not in the dump, so that tensors are paired by their names alone"
    try:
        return program_.of(model, feeds), ""
    except Undecided as error:
        return None, f"tensors are paired by their names alone, since the model cannot be evaluated: {error}"


def _laid(
    program: Program,
    tensors: Mapping[str, Array],
    feeds: Mapping[str, Array],
    pairs: Mapping[str, Pair],
    notes: list[str],
    tick: Callable[[], None],
) -> dict[str, Pair]:
    """The pairs with how each is read; without those whose sizes say that the device has something else there."""
    shapes = {result.name: result.shape for step in program.steps for result in step.results}
    made = dict(pairs)
    for name, each in pairs.items():
        if name not in shapes:
            continue
        held = head(tensors, each.name)[0]
        way = next(readings(held, shapes[name]), None)
        if way is None:
            notes.append(f"{each.name!r} has the shape {list(held)} in the dump and {list(shapes[name])} in the model")
            del made[name]
        else:
            made[name] = dataclasses.replace(each, laid=way)
    told = [
        p.laid for p in made.values() if p.laid is not None and len(p.laid.shape) > 3 and len(set(p.laid.shape[1:])) > 1
    ]
    if sum(bool(way.layout) for way in told) * 2 > len(told):
        return _by_values(program, tensors, feeds, made, tick)
    return made


def _by_values(
    program: Program,
    tensors: Mapping[str, Array],
    feeds: Mapping[str, Array],
    pairs: dict[str, Pair],
    tick: Callable[[], None],
) -> dict[str, Pair]:
    """Of a dump that mostly has channels elsewhere: what shapes do not tell (as many channels as rows and columns), values do."""
    seen = likeness.samples(program, feeds, tick)
    made = dict(pairs)
    for name, each in pairs.items():
        if each.laid is None or each.laid.layout or name not in seen:
            continue
        held = head(tensors, each.name)[0]
        ways = [way for way in every_reading(each.laid.shape) if way.held == held]
        apart = [likeness.apart(likeness.picked(tensors[each.name], way), seen[name]) for way in ways]
        best = int(np.argmin(apart)) if apart else 0
        if len(ways) > 1 and all(apart[best] * likeness.MARGIN <= d for place, d in enumerate(apart) if place != best):
            made[name] = dataclasses.replace(each, laid=ways[best])
    return made


def inputs(model: ir.Model, tensors: Mapping[str, Array]) -> dict[str, tuple[Array, Pair]]:
    """The model's inputs that a dump holds, by name, by escaped name, or as the only tensor of a declared shape."""
    from graphcheck.files.model import declared_shape, required_inputs

    named = _by_name([str(v.name) for v in required_inputs(model)], tensors)
    found: dict[str, tuple[Array, Pair]] = {}
    for value in required_inputs(model):
        name, declared = str(value.name), declared_shape(value)
        fit = [n for n in tensors if n not in named.values() and declared and _admits(declared, head(tensors, n)[0])]
        at = named.get(name) or (fit[0] if len(fit) == 1 else None)
        if at is None:
            continue
        held = head(tensors, at)[0]
        laid = None
        if declared is not None and not _admits(declared, held) and all(isinstance(size, int) for size in declared):
            laid = next(readings(held, tuple(size for size in declared if isinstance(size, int))), None)
        each = Pair(at, _how(name, at) if name in named else "shape", laid)
        x = tensors[at] if laid is None else laid.of(tensors[at])
        dtype = None if value.dtype is None else value.dtype.numpy()
        unknown = dtype is not None and x.dtype.kind == "V" and x.dtype.itemsize == dtype.itemsize
        found[name] = (x.view(dtype) if unknown else x, each)
    return found


def _how(name: str, at: str) -> str:
    return "name" if name == at else "escaped name"


def _entry(tensors: Mapping[str, Array], pair: Pair) -> Entry:
    shape, dtype = head(tensors, pair.name)
    if pair.laid is None:
        return Entry(shape, dtype, lambda: tensors[pair.name])
    laid = pair.laid
    return Entry(laid.shape, dtype, lambda: laid.of(tensors[pair.name]))


def _admits(declared: list[int | str | None], shape: Shape) -> bool:
    return len(declared) == len(shape) and all(
        not isinstance(size, int) or size == held for size, held in zip(declared, shape, strict=True)
    )


def _escaped(name: str) -> str:
    """What is left of a name where it was written as the name of a file."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_").lower()


def _by_name(names: Collection[str], tensors: Collection[str]) -> dict[str, str]:
    """The model's name -> the dump's: the same, or the same once escaped where that leaves no choice."""
    found = {name: name for name in names if name in tensors}
    ours: dict[str, list[str]] = {}
    theirs: dict[str, list[str]] = {}
    for name in names:
        ours.setdefault(_escaped(name), []).append(name)
    for name in tensors:
        if name not in found:
            theirs.setdefault(_escaped(name), []).append(name)
    for text, of in theirs.items():
        free = [name for name in ours.get(text, ()) if name not in found]
        if text and len(of) == 1 and len(free) == 1 and len(ours[text]) == 1:
            found[free[0]] = of[0]
    return found
