"""``blame``: which operators of a device are beyond what rounding explains, on the device's own inputs to them."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck import limits
from graphcheck.blaming import dumps, explain, pairing, pieces
from graphcheck.blaming.arithmetic import Arithmetic, chosen
from graphcheck.blaming.dumps.lazy import head, joined
from graphcheck.blaming.judge import Judged, Walk, halving
from graphcheck.blaming.record import Blame, Guilt
from graphcheck.blaming.steps import ROUNDED, Cut, Skipped, cut, is_rounded
from graphcheck.codes import Coded
from graphcheck.errors import Exhausted, Undecided, UsageError
from graphcheck.files.model import ModelLike, read
from graphcheck.options import Blaming
from graphcheck.runs.pictures import pictures
from graphcheck.words import number

Tensors = Mapping[str, np.ndarray]
_NO_FORMATS: dict[str, Any] = {"precision": None, "accumulate": None, "guessed": []}
_EXPLAINED = 8  # convicted operators that are looked into, the first ones


def blamed(model: ModelLike, tensors: str | Path | Tensors, options: Blaming) -> Blame:
    """What a dump says of the device that made it.

    Raises:
        ModelError: for a model that cannot be read.
        UsageError: for a dump that cannot be read, or that holds nothing of the model.
    """
    begun = time.perf_counter()
    say: Callable[[str], None] = options.progress or (lambda _: None)
    say("reading")
    loaded = read(model)
    dumped, notes = _opened(tensors, options.inputs)
    told: dict[str, Any] = {"unmatched": [], "notes": notes}
    with limits.within(options.max_memory, options.timeout):
        try:
            say("pairing")
            if (steps := _as_named(loaded, dumped)) is None:
                dumped, found = _paired(loaded, dumped)
                told = {"unmatched": list(found.unmatched), "notes": [*notes, *found.notes]}
            return _blamed(loaded, steps or cut(loaded, dumped), dumped, options, told, begun, say)
        except (Undecided, MemoryError) as error:
            reason = str(error) or "the memory limit was reached"
            return Blame(Guilt.UNDECIDED, f"nothing was judged: {reason}", _nothing() | told)


def _blamed(
    model: ir.Model,
    steps: Cut,
    tensors: Tensors,
    options: Blaming,
    told: dict[str, Any],
    begun: float,
    say: Callable[[str], None],
) -> Blame:
    results = [result for step in steps.program.steps for result in step.results]
    rounded = [
        Skipped(step.node, step.op_type, r.name, Coded(f"it {ROUNDED}", "GC402"))
        for step in steps.program.steps
        for r in step.results
        if is_rounded(tensors, r.name, r.dtype)
    ]
    tensors = joined(tensors).without(row.output for row in rounded)
    arithmetic = chosen(options.precision, options.accumulate, tensors, results)
    say("judging")
    walk = Walk(steps, tensors, arithmetic, limits.current().check_time).run()
    guilty = [row for row in walk.rows if row.ratio > 1]
    say("explaining")
    convicted = [_told(model, steps, walk, row, explained=at < _EXPLAINED) for at, row in enumerate(guilty)]
    suspect = [row.to_json() for row in walk.rows if row.ratio <= 1 and not row.likely]
    skipped = {each.output: each.to_json() for each in (*rounded, *steps.skipped, *walk.skipped)}
    evidence = told | {
        "convicted": convicted,
        "suspect": suspect,
        "checked": len(walk.rows),
        "skipped": list(skipped.values()),
        **(_NO_FORMATS if _whole(walk) else arithmetic.to_json()),
        "curve": [dataclasses.asdict(each) for each in walk.curve],
        "reduced": pieces.write(model, steps, walk, guilty, options.reduce) if options.reduce is not None else None,
        "seconds": time.perf_counter() - begun,
    }
    whole = bool(walk.rows) and walk.stopped is None
    verdict = Guilt.CONVICTED if convicted else Guilt.CLEAN if whole else Guilt.UNDECIDED
    return Blame(verdict, _reason(verdict, evidence, _explaining(walk, guilty, arithmetic), walk.stopped), evidence)


def _told(model: ir.Model, steps: Cut, walk: Walk, row: Judged, *, explained: bool) -> dict[str, Any]:
    """An entry of ``convicted``: what it looks like, and which tensors to dump to narrow a region down."""
    found = row.to_json() | {"looks_like": None, "dump_next": halving(row.steps), "picture": None}
    if explained:
        with contextlib.suppress(Exhausted):  # convicted it is all the same
            real = walk.worst(row.steps, row.step, row.result)
            right = real.value.reshape(row.result.shape)
            found["picture"] = pictures(np.asarray(walk.tensors[row.result.name]).reshape(right.shape), right)
            found["looks_like"] = None if row.exact else explain.explained(model, steps, walk, row, real)
    return found


def _whole(walk: Walk) -> bool:
    """Whether tensors of whole numbers alone were judged, where nothing rounds."""
    return bool(walk.rows) and all(walk.is_whole(row.steps) for row in walk.rows)


def _explaining(walk: Walk, guilty: Sequence[Judged], arithmetic: Arithmetic) -> str:
    """What explains deviations, of the first that is convicted, or of all that were judged."""
    told = guilty[:1] or walk.rows
    if told and all(walk.is_whole(row.steps) for row in told):
        return f"exact {' and '.join(sorted({str(row.result.dtype) for row in told}))} arithmetic"
    return f"rounding (stored in {arithmetic.store.name}, sums in {arithmetic.inside.name})"


def _reason(verdict: Guilt, evidence: dict[str, Any], words: str, stopped: str | None) -> str:
    """One sentence; ``words`` are what explains deviations."""
    if verdict is Guilt.UNDECIDED and stopped is not None and evidence["checked"]:
        left = sum(row["reason"] == stopped for row in evidence["skipped"])
        fine = f"those before, {evidence['checked']} that could be judged, are within what {words} explains"
        return f"{stopped}, and {left} tensors were not judged; {fine} on the device's own inputs"
    if verdict is Guilt.UNDECIDED:
        first = next(iter(evidence["skipped"]), None)
        why = f": {first['output']!r}: {first['reason']}" if first else ": the dump holds no tensor that the model computes"
        return f"no tensor of the dump could be judged{why}"
    count = f"{evidence['checked']} tensor{'s' * (evidence['checked'] != 1)}"
    if verdict is Guilt.CLEAN:
        drifts = [row["drift"] for row in evidence["curve"] if row["drift"] is not None]
        far = f", though they drift by up to {100 * max(drifts):.2g} %" if drifts and max(drifts) > 1e-3 else ""
        left = {"skipped": "not judged", "unmatched": "of the dump without a place in the model"}
        besides = "".join(f"; {len(evidence[key])} {what}" for key, what in left.items() if evidence[key])
        return f"all {count} that could be judged are within what {words} explains on the device's own inputs{far}{besides}"
    first = evidence["convicted"][0]
    node = first["node"] if first["node"].startswith(f"{first['op_type']}(") else f"{first['op_type']} (node {first['node']})"
    like = f"; it looks like {first['looks_like']['name']}" if first["looks_like"] else ""
    region = f" (with {len(first['region']) - 1} before it that {'was' if len(first['region']) == 2 else 'were'} not dumped)"
    more = f"; {len(evidence['convicted'])} of {count} are convicted" if len(evidence["convicted"]) > 1 else ""
    more += f"; {stopped}, and what comes behind was not judged" if stopped is not None else ""
    return (
        f"{node}{region if len(first['region']) > 1 else ''} is wrong: its output "
        f"{first['output']!r} is off by {number(first['deviation'])}, and {words} explains {number(first['bound'])}{like}{more}"
    )


def _nothing() -> dict[str, Any]:
    rows: dict[str, Any] = {key: [] for key in ("convicted", "suspect", "skipped", "unmatched", "notes", "curve")}
    return rows | {"checked": 0, **_NO_FORMATS, "reduced": None}


def _opened(tensors: str | Path | Tensors, inputs: Any) -> tuple[Tensors, list[str]]:
    """The dumped tensors by their names in the dump, and what is to be said of them."""
    parts = [dumps.Dump("", tensors) if isinstance(tensors, Mapping) else dumps.read(Path(tensors))]
    parts += [dumps.read(Path(inputs))] if inputs is not None else []
    return joined(*(part.tensors for part in parts)), [note for part in parts for note in part.notes]


def _as_named(model: ir.Model, dumped: Tensors) -> Cut | None:
    """The model's steps where each tensor of the dump has a name of the model and its shape there, so that none is looked for."""
    names = {str(v.name) for v in _values(model)}
    if not names.issuperset(dumped):
        return None
    steps = cut(model, dumped)
    shapes = {r.name: r.shape for step in steps.program.steps for r in step.results}
    return steps if dumped and all(head(dumped, n)[0] == shapes.get(n, head(dumped, n)[0]) for n in dumped) else None


def _paired(model: ir.Model, dumped: Tensors) -> tuple[Tensors, pairing.Pairing]:
    """The tensors by their names in the model and in its shapes, and how they were found."""
    found = pairing.pair(model, dumped, tick=limits.current().check_time)
    if not found.pairs:
        names = sorted(str(v.name) for v in _values(model))[:3]
        some = ", ".join(sorted(dumped)[:3]) or "nothing"
        raise UsageError(f"the dump holds no tensor of the model: it holds {some}, the model {', '.join(names)}")
    return found.named(dumped), found


def _values(model: ir.Model) -> Iterable[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph:
        yield from (v for v in node.outputs if v.name)
