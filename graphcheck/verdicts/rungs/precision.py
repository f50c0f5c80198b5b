"""The rung of allowed roundings: casts to a format vanish, constants that are its roundings give way, and the rest is proved.

What nobody allowed is looked at as well, where one model alone is in a narrower format, or casts to it more often: the reason
then says what would be accepted. A step (a comparison, an index, a whole number) behind a rounding may come out otherwise,
and ends it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.errors import Improbable, Undecided
from graphcheck.files import model as model_
from graphcheck.kernel.interpreter import Trace
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.ops.erasing import INTEGERS
from graphcheck.kernel.proof.allowed import FORMATS, Allowed, steps
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.proof.room import unmoved
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Opaque, Term, ranged
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.verdict import Verdict
from graphcheck.verdicts import numbers, record
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Judged, Precision, Substitutions
from graphcheck.verdicts.rungs.rounding import kept_apart, replaced
from graphcheck.verdicts.stages import Stage, Stages
from graphcheck.verdicts.steps import Met

_PRODUCTS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "FusedMatMul", "FusedGemm", "FusedConv")
_THROUGH = ("Cast", "DequantizeLinear", "Identity")  # between a constant and the node that computes with it
_QUANTIZED = re.compile("Quantize|^QLinear|^QGemm|^QAttention|Integer")  # operators of whole numbers that stand for others


def needless(case: Case, evidence: Evidence) -> bool:
    """Whether nothing is allowed, and the models have the same narrower formats."""
    return not case.options.allow and not _own_formats(case)


def look(case: Case, evidence: Evidence) -> Judged | None:
    """``within-rounding`` where the graphs are the same once allowed roundings are erased, and some are; ``undecided`` where they
    are the same but for constants that are none, or for a step behind a rounding."""
    asked = Allowed(case.options.formats, case.options.ulps, case.options.steps)
    allowed = asked or Allowed(_own_formats(case))
    side = 0 if numbers.copy_of(case) == 0 else 1
    unnamed = tuple(name for name in _own_formats(case) if name not in allowed.formats)
    kept = _kept(case.models[side])
    precision = Precision(allowed.formats, allowed.ulps, bool(asked), kept=kept, side="ab"[side], unnamed=unnamed)
    try:
        for found, pair in replaced(case, evidence, allowed):
            marks = Counter(name for _, name, _ in pair.algebra.marks) | Counter(precision.marks)
            step = precision.step or _step(case, pair) or ("a comparison or an index" if found.turns else "")
            if found.error > case.options.error_probability:
                raise Improbable(f"the error probability would be {found.error:.1e}, above the target")
            if not found.attempts:
                parts, found = _parted(case, found.proofs, side), Substitutions()
                precision = dataclasses.replace(precision, parts=parts)
            elif not found.within:
                parts = _parted(case, [(pair, kept_apart(case, pair, allowed))], side)
                precision = dataclasses.replace(precision, parts=parts)
                found = _as_read(pair, found, precision)
            ends, clips, relus = _ends(*found.proofs[-1]) if found.attempts else (set[str](), set[str](), set[str]())
            precision = dataclasses.replace(precision, found=found, marks=marks, step=step, ends=precision.ends | ends)
            precision = dataclasses.replace(precision, clips=clips, relus=relus)
    except Undecided as error:
        precision = dataclasses.replace(precision, found=Substitutions(), stopped=str(error))
    evidence.precision = precision
    if precision.holds:
        return Verdict.WITHIN_ROUNDING, record.allowed(precision, evidence.attempts, case.sizes)
    return (Verdict.UNDECIDED, Coded(record.precision(precision), "GC213")) if asked and precision.same and case.unfit else None


def _own_formats(case: Case) -> tuple[str, ...]:
    """The formats of one model that the other one has nowhere, or casts to another number of times (a runtime computes in
    float32 what is declared in float16)."""
    one, two = (_formats(model) for model in case.models)
    fewer, more = (_casts(model) for model in case.models)
    return tuple(name for name in (*FORMATS, *INTEGERS) if (name in one) != (name in two) or fewer[name] != more[name])


def _casts(model: ir.Model) -> Counter[str]:
    """How many casts there are to each format of floats."""
    casts = (node.attributes["to"].as_int() for node in model.graph.all_nodes() if node.op_type == "Cast")
    return Counter(name for to in casts if (name := ir.DataType(to).name.lower()) in FORMATS)


def _formats(model: ir.Model) -> set[str]:
    """The types of casts, stored constants, inputs and outputs; those of integers where something is quantized."""
    graph = model.graph
    types = {v.dtype for v in (*graph.inputs, *graph.outputs, *graph.initializers.values()) if v.dtype is not None}
    packed, quantized = set[str](), False
    for node in graph.all_nodes():
        if node.op_type == "Cast":
            types.add(ir.DataType(node.attributes["to"].as_int()))
        elif node.op_type == "MatMulNBits":
            packed.add(f"int{node.attributes['bits'].as_int() if 'bits' in node.attributes else 4}")
        elif _QUANTIZED.search(node.op_type):
            quantized = True
            types |= {ir.DataType.INT8} if node.op_type.startswith("Dynamic") else set()
    names = {t.name.lower().removeprefix("u") for t in types}
    return packed | (names if quantized else names.difference(INTEGERS))


def _kept(model: ir.Model) -> list[str]:
    """The weights of products that are stored in float32."""
    weights = [node.inputs[1] for node in model.graph.all_nodes() if node.op_type in _PRODUCTS and len(node.inputs) > 1]
    wide = {v.name: None for v in weights if v is not None and v.const_value is not None and v.dtype == ir.DataType.FLOAT}
    return [name for name in wide if name is not None]


def _parted(case: Case, proofs: Sequence[Met], side: int) -> dict[str, Any] | None:
    """The first node of the copy, which stands at ``side``, that gives what the other one has nowhere, once constants have given
    way; where it has all of it, the first that gives it in an order that the other one has nowhere. ``lost`` is the first node
    of the other one whose result the copy has nowhere; it alone is told where the copy has nothing of its own. Of several ways to
    meet, that which comes farthest tells."""
    try:
        found = [told for pair, later in proofs if later and (told := _first(case, pair, later, side)) is not None]
    except Undecided:  # the time is up, or the memory: what is known besides stays
        return None
    return max(found, key=lambda told: told[0])[1] if found else None


def _first(case: Case, pair: Pair, later: Sequence[Stage], side: int) -> tuple[tuple[int, int], dict[str, Any]] | None:
    stages, last = Stages(pair.terms, later), later[-1][0]
    other, copy = (pair.a, pair.b)[1 - side], (pair.a, pair.b)[side]
    marks = {name: cls for name, _, cls in pair.algebra.marks[:: 2 * side - 1]}  # what was quantized, before it was
    ends = _ends(pair, later)[0]
    outputs = [stages.place(cls) for both in case.sizes.roots(pair) for cls in both]
    needed = {*last.order([cls for cls in outputs if cls is not None])}  # a Clip is kept though nothing needs it any more

    def results(trace: Trace) -> Iterator[tuple[ir.Node, list[int]]]:
        for value, held in trace.values.items():
            if (node := value.producer()) is not None and isinstance(held, Tensor):
                yield node, [held.cls, *([marks[node.name]] if trace is copy and node.name in marks else [])]

    def first(root: Callable[[int], int | None], at: Trace, beside: Trace) -> tuple[int, dict[str, Any]] | None:
        there = {*last.order(stages.rebuilt([cls for _, both in results(beside) for cls in both]))}
        for place, (node, both) in enumerate(results(at)):
            found = {"node": model_.node_name(node), "op_type": node.op_type}
            if at is copy and found["node"] in ends:
                return place, found | {"why": f"its range ends at 0, where {'BA'[side]} goes on"}
            here = [r for r in map(root, both) if r is not None and r in needed and not last.constant_like(r)]
            if any(_unranged(last, r) not in there for r in here):
                begins = _begins(node, gathered(root, at, beside, there))
                return place, found | ({"begins": begins} if begins else {})
        return None

    def gathered(root: Callable[[int], int | None], at: Trace, beside: Trace, there: Set[int]) -> dict[ir.Node, bool]:
        """Whether a node gives what no output needs any more, since constant factors behind it took it in, and none has."""
        terms, found = pair.terms, dict[ir.Node, bool]()
        known = {terms.find(cls) for _, both in results(beside) for cls in both}
        for node, both in results(at):
            here = [r for r in map(root, both) if r is not None]
            had = any(terms.find(cls) in known for cls in both) or any(r in needed or r in there for r in here)
            found[node] = not (had or any(map(terms.constant_like, both)) or any(map(last.constant_like, here)))
        return found

    for ordered, root in enumerate((stages.root, stages.place)):
        if (found := first(root, copy, other)) is not None:
            lost = first(root, other, copy)
            return (ordered, found[0]), found[1] | {"lost": lost and lost[1]}
    lost = first(stages.root, other, copy)
    return ((2, lost[0]), {"node": None, "op_type": None, "lost": lost[1]}) if lost is not None else None


def _begins(node: ir.Node, gathered: Mapping[ir.Node, bool]) -> str | None:
    """The first node of those that are ``gathered`` in one; None where there is none."""
    behind, met = [node], {node}
    while behind:
        makers = (v.producer() for v in behind.pop().inputs if v is not None)
        new = [maker for maker in makers if maker is not None and maker not in met and gathered.get(maker)]
        behind, met = [*behind, *new], met | {*new}
    begins = next((each for each in gathered if each in met), node)
    return None if begins is node else model_.node_name(begins)


def _as_read(pair: Pair, found: Substitutions, precision: Precision) -> Substitutions:
    """A constant that is off by its name at the node where it is read, where others have the same elements."""
    off = [row for row in found.constants if not row["within"]]
    if len(off) > 1 or precision.parts is None:
        return found
    parts, traces = precision.parts, {"a": pair.a, "b": pair.b}
    nodes = (parts if parts["node"] else parts["lost"], parts["lost"] or parts)
    sides = "ab" if precision.side == "a" else "ba"
    named = off[0] | {s: _name_at(traces[s], off[0][s], n["node"]) for s, n in zip(sides, nodes, strict=True)}
    named["name"] = named["b"] or named["a"] or "constant"
    return dataclasses.replace(found, constants=tuple(named if row is off[0] else row for row in found.constants))


def _name_at(trace: Trace, name: str | None, node: str) -> str | None:
    """The name of the constant with the elements of one of that name which a node reads, else that name."""
    held = {str(value.name): array for value, array in trace.values.items() if isinstance(array, np.ndarray)}
    at = next((n for value in trace.values if (n := value.producer()) is not None and model_.node_name(n) == node), None)
    read = [value for value in at.inputs if value is not None] if at is not None and name in held else []
    for value in [*read]:
        if (behind := value.producer()) is not None and behind.op_type in _THROUGH:
            read += [v for v in behind.inputs if v is not None]
    names = [str(value.name) for value in read if str(value.name) in held]
    if name is None or name in names:
        return name
    return next((n for n in names if np.array_equal(held[n].reshape(-1), held[name].reshape(-1))), name)


def _unranged(terms: Terms, cls: int) -> int:
    """What a quantizer's range holds."""
    match terms.terms[cls]:
        case Term(Opaque(key), (x,)) if ranged(key):
            return unmoved(terms, terms.find(x))
    return cls


def _ends(pair: Pair, later: Sequence[Stage]) -> tuple[set[str], ...]:
    """The quantizers whose range ends at 0 where the other graph goes on: what they cut off there is no Relu of it; those that
    end where a Clip of it does; and those that begin where a Relu or a Clip of it cuts off."""
    stages = Stages(pair.terms, later)
    taken = [(name, stages.taken(cls)) for name, _, cls in pair.algebra.marks]
    return tuple({name for name, told in taken if told[at]} for at in range(3))


def _exact(terms: Terms, name: str, cls: int) -> bool:
    """Whether a class is of constants that the format has: its mark rounds nothing."""
    if name not in FORMATS or not terms.constant_like(cls):
        return False
    value = evaluate(terms, Float64({}, bounds=False), [cls])[terms.find(cls)].value
    with np.errstate(all="ignore"):
        return bool((value.astype(FORMATS[name]).astype(np.float64) == value).all())


def _step(case: Case, pair: Pair) -> str:
    """The node of a step behind an erased rounding."""
    roots = [cls for both in case.sizes.roots(pair) for cls in both]
    marks = pair.algebra.marks
    found = steps(pair.terms, [cls for _, _, cls in marks], roots)
    if found:
        found = steps(pair.terms, [cls for _, name, cls in marks if not _exact(pair.terms, name, cls)], roots)
    for trace in (pair.b, pair.a) if found else ():
        for value, traced in trace.values.items():
            node = value.producer()
            if node is not None and isinstance(traced, Tensor) and pair.terms.find(traced.cls) in found:
                return f"{node.op_type} {model_.node_name(node)}"
    return "a step" if found else ""
