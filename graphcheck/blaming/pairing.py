"""Which tensor of a dump is which tensor of a model: by name, by escaped name, else by shape and value (:mod:`likeness`)."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from graphcheck.blaming import likeness
from graphcheck.blaming.dumps.lazy import Array, Entry, Tensors, head
from graphcheck.blaming.layouts import Laid, Shape, readings
from graphcheck.blaming.steps import Cut, cut
from graphcheck.files.model import declared_shape, required_inputs

if TYPE_CHECKING:
    import onnx_ir as ir


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
    made = {str(v.name) for node in model.graph for v in node.outputs if v.name}
    every = made | {*map(str, model.graph.initializers), *(str(v.name) for v in model.graph.inputs)}
    named = _by_name(sorted(every), tensors)
    given = _inputs(model, tensors, named)
    feeds = {name: x for name, (x, _) in given.items()}
    pairs = {name: Pair(at, _how(name, at)) for name, at in named.items()}
    pairs |= {name: each for name, (_, each) in given.items()}
    notes: list[str] = []
    steps = cut(model, feeds)
    missing = _missing(model, feeds)
    pairs = _laid(steps, tensors, feeds if missing is None else None, pairs, notes, tick)
    taken = {each.name for each in pairs.values()}
    lost = [n for n in tensors if n not in taken and math.prod(head(tensors, n)[0]) >= likeness.FEWEST]
    if values and lost and missing is not None:
        notes.append(f"input {missing!r} is not in the dump, so that tensors are paired by their names alone")
    elif values and lost:
        known = {name: (p.name, p.laid) for name, p in pairs.items() if p.laid is not None}
        search = likeness.Search(steps.program, tensors, feeds, known, lost, tick)
        pairs |= {name: Pair(at, "value", way) for name, (at, way) in search.run().items() if name not in known}
        notes += search.notes
        notes += _by_elimination(steps, tensors, pairs)
    taken = {each.name for each in pairs.values()}
    counts = Counter(p.laid.layout for p in pairs.values() if p.laid is not None and p.laid.layout)
    notes += [f"{count} tensors of the dump are read as {layout}" for layout, count in sorted(counts.items())]
    by = Counter(p.by for p in pairs.values())
    notes += [f"{by[how]} tensors of the dump were found by {how}" for how in ("escaped name", "value") if by[how]]
    return Pairing(pairs, tuple(name for name in tensors if name not in taken), tuple(notes))


def _by_elimination(steps: Cut, tensors: Mapping[str, Array], pairs: Mapping[str, Pair]) -> list[str]:
    """What to say of tensors of the dump that can be but one of the model's by their shape, and are far from what it should be:
    a wrong operator gives such, but so does a buffer of the device's own, so that they are not judged."""
    taken = {each.name for each in pairs.values()}
    left = [n for n in tensors if n not in taken and math.prod(head(tensors, n)[0]) >= likeness.FEWEST]
    free = [r for step in steps.program.steps for r in step.results if r.name and r.name not in pairs]
    fits = {n: [r.name for r in free if next(readings(head(tensors, n)[0], r.shape), None) is not None] for n in left}
    wanted = Counter(name for names in fits.values() for name in names)
    return [
        f"{n!r} can only be {names[0]!r} by its shape, and is far from what that should be: name it so, if it is"
        for n, names in fits.items()
        if len(names) == 1 and wanted[names[0]] == 1
    ]


def _missing(model: ir.Model, feeds: Mapping[str, Array]) -> str | None:
    """An input that the dump does not hold."""
    return next((name for v in required_inputs(model) if (name := str(v.name)) not in feeds), None)


def _laid(
    steps: Cut,
    tensors: Mapping[str, Array],
    feeds: Mapping[str, Array] | None,
    pairs: Mapping[str, Pair],
    notes: list[str],
    tick: Callable[[], None],
) -> dict[str, Pair]:
    """The pairs with how each is read; without those whose sizes say that the device has something else there."""
    shapes = {str(value.name): x.shape for value, x in steps.constants.items()}
    shapes |= {result.name: result.shape for step in steps.program.steps for result in step.results}
    made = dict(pairs)
    ways: dict[str, list[Laid]] = {}
    for name, each in pairs.items():
        if name not in shapes or each.laid is not None:
            continue
        held = head(tensors, each.name)[0]
        ways[name] = list(readings(held, shapes[name]))
        if not ways[name]:
            notes.append(f"{each.name!r} has the shape {list(held)} in the dump and {list(shapes[name])} in the model")
            del made[name]
        else:
            made[name] = dataclasses.replace(each, laid=ways[name][0])
    told = [found[0].layout for found in ways.values() if len(found) == 1 and len(found[0].shape) > 3]
    most = Counter(told).most_common(1)[0][0] if told else ""
    doubtful = {name for name, found in ways.items() if len(found) > 1}
    if feeds is None or not doubtful or most not in ("channels last", "channels first"):
        return made
    return made | _by_values(steps, tensors, feeds, {name: (made[name], ways[name]) for name in doubtful}, most, tick)


def _by_values(
    steps: Cut,
    tensors: Mapping[str, Array],
    feeds: Mapping[str, Array],
    pairs: Mapping[str, tuple[Pair, list[Laid]]],
    most: str,
    tick: Callable[[], None],
) -> dict[str, Pair]:
    """Of a dump that mostly has channels elsewhere, what shapes do not tell (as many channels as rows): values do, else the
    layout of the most."""
    seen = {str(value.name): likeness.looked(x) for value, x in steps.constants.items() if str(value.name) in pairs}
    seen |= likeness.samples(steps.program, feeds, tick)
    made = {}
    for name, (each, ways) in pairs.items():
        like = next((way for way in ways if way.layout == most), ways[0])
        if name in seen:
            apart = [likeness.apart(likeness.picked(tensors[each.name], way), seen[name]) for way in ways]
            best = int(np.argmin(apart))
            if all(apart[best] * likeness.MARGIN <= d for place, d in enumerate(apart) if place != best):
                like = ways[best]
        made[name] = dataclasses.replace(each, laid=like)
    return made


def _inputs(model: ir.Model, tensors: Mapping[str, Array], named: Mapping[str, str]) -> dict[str, tuple[Array, Pair]]:
    """The model's inputs that a dump holds, by name, or, where it bears no name of the model at all, as the only tensor of a
    declared shape: what follows then shows whether that is it."""
    strange = not set(named) - {str(v.name) for v in model.graph.inputs}
    found: dict[str, tuple[Array, Pair]] = {}
    for value in required_inputs(model):
        name, declared = str(value.name), declared_shape(value)
        free = [n for n in tensors if n not in named.values()] if strange and declared else []
        fit = [n for n in free if _admits(declared or [], head(tensors, n)[0])]
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
