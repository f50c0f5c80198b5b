"""What a narrower format does to the numbers, told beside the verdict of a pair of which one is in such a format."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Set
from typing import Any

import onnx_ir as ir

from graphcheck import words
from graphcheck.codes import Coded
from graphcheck.errors import GraphcheckError, Undecided
from graphcheck.files import model as model_
from graphcheck.graphs import walk
from graphcheck.interface import inputs, ports
from graphcheck.kernel.ops.erasing import INTEGERS
from graphcheck.kernel.proof.allowed import FORMATS
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Precision

_MOST, _WALKED, _RANKED = 2e10, 1e9, 2e8  # work of one walk for: anything; what takes several; what takes many
_DRAWN, _TINY = 4, 256  # draws of inputs; numbers of an input below which one draw is not enough
_FEW, _FAR = 8, 3  # one element of so many may lie beyond a range, or all by less than a third of it: another zero point is half
_OWN = 8  # steps by which the copy's own roundings may carry a tensor beyond 0
_TOO_LARGE = "the models are large: --top N asks for it"
_GEMM_SCALE = 7  # the operand of QGemm that is the scale of its output
_INPUTS = 16  # of the given ones that are looked at
EMPTY: dict[str, Any] = {
    "side": None, "headroom": [], "overflowed": [], "vanished": [], "saturated": [], "quantizers": [], "spread": [], "layers": [],
    "keep": [], "bound": [], "untold": None,
}  # fmt: skip


def told(case: Case, evidence: Evidence, side: int, *, brief: bool = False) -> dict[str, Any]:
    """The keys of ``precision`` in the JSON that tell of numbers; the model at ``side`` is the copy. ``brief``: ranges alone."""
    from graphcheck.precision import copy, keeping

    found = EMPTY | {"side": "ab"[side]}
    case.say("looking at the numbers of the format")
    try:
        first, *rest = _inputs(case, evidence)

        def opened(arrays: inputs.Arrays) -> copy.Copy:
            feeds = inputs.side_inputs(case.interface, arrays)
            return copy.opened(case.models, case.interface, feeds, side, case.check_time)

        looked = opened(first())
        effort, top = keeping.effort(looked.copy), 0 if brief else case.options.top or 0
        large = effort > _MOST and not top
        decides = case.options.formats and any(map(_has_range, model_.all_nodes(case.models[side])))
        if large and not decides:
            return found | {"untold": _TOO_LARGE}
        ranked, walked = (not brief and (top > 0 or effort < most) for most in (_RANKED, _WALKED))
        more = (opened(load()) for load in rest)
        for part in looked.parts(seed=case.options.seed, ranked=ranked, walked=walked, top=top, more=more):
            found |= part  # what was found stays, whatever ends the rest
    except (GraphcheckError, Undecided) as error:
        return found | {"untold": str(error)}
    except Exception as error:  # it is evidence alone, and must not cost a verdict
        return found | {"untold": f"the models could not be evaluated ({type(error).__name__}: {error})"}
    return found | ({"untold": _TOO_LARGE} if large else {})


def clipped(case: Case, evidence: Evidence, copied: Precision) -> Coded | None:
    """What a quantizer cuts off beyond its range, where that is no rounding any more: the bottom may be a Relu of the other
    model. Where a range ends at 0 and the other model goes on, it may cut off little of what was run, by its own roundings.
    So it is where most of the numbers of one sign are gone: the range may end a step beside 0.
    What is cut off behind a Clip of the other model is cut off there, too. Of two models that quantize both are looked at; a
    model whose quantizers could not be looked at may cut off anything."""
    one = evidence.numbers or EMPTY
    sides = {} if one["side"] is None else {"ab".index(one["side"]): one}
    for side in {0, 1}.difference(sides) if sides else ():
        if "int8" in _formats(case.models[side]):
            sides[side] = told(case, evidence, side, brief=True)
    shared = {name for model in case.models for name in _shared(model)}  # a Clip beside one of them says nothing of the others
    clips, relus = copied.clips - shared, copied.relus - shared
    for row in (row for found in sides.values() for row in found["saturated"]):
        ended, cut = row["node"] in copied.ends, row["over" if row["node"] in relus else "cut"]
        many = cut * _FEW > row["elements"] - row["least"]  # the zeros of a Relu say nothing
        far = cut * _FEW > row["among"] and row["steps"] * _FAR >= row["range"] and row["node"] not in clips
        one_sign = row["sign"] * _FEW > row["elements"] - row["least"] or row["sign_steps"] > _OWN
        lost = one_sign and row["node"] not in relus and row["node"] not in clips
        if far or lost or (ended and (many or row["steps"] > _OWN)):
            node = f"{row['op_type']} {words.short(row['node'])}"
            node += ", whose range ends at 0 where the other model goes on," if ended else ""
            some = f"{cut:,} of {row['elements']:,} elements, by {row['steps']:,.0f} steps at most"
            return Coded(f"{node} cuts off {some}, at the input run: more than rounding does (--inputs takes real data)", "GC213")
    for side, model in enumerate(case.models if {*copied.formats} & {*INTEGERS} else ()):
        found = sides.get(side, EMPTY)
        if (name := next(_unseen(model, {*found["quantizers"]}), None)) is not None:
            why = found["untold"] or "it stands inside of a node"
            text = f"what {words.short(name)} of {'AB'[side]} cuts off was not looked at: {why}"
            return Coded(f"{text} (--timeout gives more time, --shape or --inputs less to do)", "GC219")
    return None


def _unseen(model: ir.Model, seen: Set[str]) -> Iterator[str]:
    """The quantizers with a range of their own that are not among those ``seen``, but for those of constants; one inside of a
    node is no other one of its name."""
    shared, outside = _shared(model), {*model.graph}
    for node in model_.all_nodes(model):
        name = model_.node_name(node)
        if _has_range(node) and (name not in seen or (name in shared and node not in outside)):
            ends = (v for v in walk.back(node.inputs, _read) if v.producer() is None)
            if any(v.const_value is None for v in ends):
                yield name


def _read(value: ir.Value) -> tuple[ir.Value | None, ...]:
    """What the values of a tensor are computed from: a shape is not."""
    producer = value.producer()
    return () if producer is not None and producer.op_type in ("Shape", "Size") else walk.operands(value)


def _shared(model: ir.Model) -> set[str]:
    """The names that several quantizers with ranges have."""
    names = Counter(model_.node_name(node) for node in model_.all_nodes(model) if _has_range(node))
    return {name for name, count in names.items() if count > 1}


def _has_range(node: ir.Node) -> bool:
    """Whether a node writes integers by a scale that it is given."""
    gemm = node.op_type == "QGemm" and len(node.inputs) > _GEMM_SCALE and node.inputs[_GEMM_SCALE] is not None
    return node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear") or gemm


def copy_of(case: Case) -> int | None:
    """The side that has a narrower format which the other one has not; B where both have one and it is allowed. None: neither."""
    if any(m.kind != "dtype" for m in case.unfit):
        return None
    a, b = (_formats(model) for model in case.models)
    if b - a or (b and case.options.formats):
        return 1
    return 0 if a - b else None


def _formats(model: ir.Model) -> set[str]:
    """The narrow floating types of a model, and ``int8`` where it quantizes."""
    found = {v.dtype.name.lower() for v in (*model.graph.inputs, *model.graph.initializers.values()) if v.dtype is not None}
    for node in model.graph.all_nodes():
        if node.op_type == "Cast":
            found.add(ir.DataType(node.attributes["to"].as_int()).name.lower())
        elif node.op_type == "DynamicQuantizeLinear" or _has_range(node):
            found.add("int8")
    return found & {*FORMATS, "int8"}


def _inputs(case: Case, evidence: Evidence) -> list[Callable[[], inputs.Arrays]]:
    """Those that were given, else those of the first run, or as they would be drawn for it; three draws more where it is asked
    what to keep, where a range that ends at 0 may cut something off, or where one of few numbers may miss what integers do."""
    if evidence.executions.given:
        return list(evidence.executions.given[:_INPUTS])
    ends = evidence.precision.ends if evidence.precision is not None else ()
    spec = inputs.InputSpec(case.options.seed, ranges=case.options.range_rows())
    runs = evidence.executions.runs
    chosen = runs[0].shapes if runs else ports.shapes(case.interface, case.options.shapes)
    tiny = {*case.options.formats} & {*INTEGERS} and sum(map(math.prod, chosen.values())) < _TINY
    several = case.options.top or ends or tiny
    specs = [dataclasses.replace(spec, seed=spec.seed + place) for place in range(_DRAWN if several else 1)]
    loads = [functools.partial(inputs.generate, case.interface, chosen, each) for each in specs]
    return [lambda: runs[0].inputs, *loads[1:]] if runs else list(loads)
