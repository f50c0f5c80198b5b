"""What a narrower format does to the numbers, told beside the verdict of a pair of which one is in such a format."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir

from graphcheck import words
from graphcheck.errors import GraphcheckError, Undecided
from graphcheck.interface import inputs, ports
from graphcheck.kernel.proof.allowed import FORMATS
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Evidence, Precision

_MOST, _WALKED, _RANKED = 2e10, 1e9, 2e8  # work of one walk for: anything; what takes several; what takes many
_DRAWN = 4
_FEW, _FAR = 8, 128  # one element of so many may lie beyond a range, or all by less than so many steps: half of the range
_OWN = 8  # steps by which the copy's own roundings may carry a tensor beyond 0
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
        if effort > _MOST and not top:
            return found | {"untold": "the models are large: --top N asks for it"}
        ranked, walked = (not brief and (top > 0 or effort < most) for most in (_RANKED, _WALKED))
        more = (opened(load()) for load in rest)
        for part in looked.parts(seed=case.options.seed, ranked=ranked, walked=walked, top=top, more=more):
            found |= part  # what was found stays, whatever ends the rest
    except (GraphcheckError, Undecided) as error:
        return found | {"untold": str(error)}
    except Exception as error:  # it is evidence alone, and must not cost a verdict
        return found | {"untold": f"the models could not be evaluated ({type(error).__name__}: {error})"}
    return found


def both(case: Case, evidence: Evidence) -> dict[str, Any]:
    """What is told of the quantizers of the copy, and of the other model where that is one of the same kind."""
    one = evidence.numbers or EMPTY
    if one["side"] is None or "int8" not in _formats(case.models[other := "ba".index(one["side"])]):
        return one
    two = told(case, evidence, other, brief=True)
    known = one["quantizers"] and two["quantizers"]  # nodes of both may have the same names
    return {
        "saturated": [*one["saturated"], *two["saturated"]],
        "quantizers": [*one["quantizers"], *two["quantizers"]] if known else [],
        "untold": one["untold"] or two["untold"],
    }


def clipped(found: Mapping[str, Any], copied: Precision) -> str | None:
    """What a quantizer cuts off beyond its range, where that is no rounding any more: the bottom may be a Relu of the other
    model. Where a range ends at 0 and the other model goes on, it may cut off little of what was run, by its own roundings.
    What is cut off behind a Clip of the other model is cut off there, too."""
    for row in found["saturated"]:
        ended, cut = row["node"] in copied.ends, row["over" if row["node"] in copied.relus else "cut"]
        many = cut * _FEW > row["elements"]
        far = many and row["steps"] >= _FAR and row["node"] not in copied.clips
        if far or (ended and (many or row["steps"] > _OWN)):
            node = f"{row['op_type']} {words.short(row['node'])}"
            node += ", whose range ends at 0 where the other model goes on," if ended else ""
            some = f"{cut:,} of {row['elements']:,} elements, by {row['steps']:,.0f} steps at most"
            return f"{node} cuts off {some}, at the input run: more than rounding does (--inputs takes real data)"
    for name in sorted(copied.ends):
        if name not in found["quantizers"]:
            why = f" ({found['untold']})" if found["untold"] else ""
            goes_on = "has a range that ends at 0 where the other model goes on"
            return f"{words.short(name)} {goes_on}, and no number of it is known{why}"
    return None


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
        elif node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") or node.op_type.startswith("QLinear"):
            found.add("int8")
    return found & {*FORMATS, "int8"}


def _inputs(case: Case, evidence: Evidence) -> list[Callable[[], inputs.Arrays]]:
    """Those that were given, else those of the first run, or as they would be drawn for it; three draws more where it is asked
    what to keep, or where a range that ends at 0 may cut something off."""
    if evidence.executions.given:
        return list(evidence.executions.given[:_INPUTS])
    ends = evidence.precision.ends if evidence.precision is not None else ()
    spec = inputs.InputSpec(case.options.seed, ranges=case.options.range_rows())
    runs = evidence.executions.runs
    chosen = runs[0].shapes if runs else ports.shapes(case.interface, case.options.shapes)
    specs = [dataclasses.replace(spec, seed=spec.seed + place) for place in range(_DRAWN if case.options.top or ends else 1)]
    loads = [functools.partial(inputs.generate, case.interface, chosen, each) for each in specs]
    return [lambda: runs[0].inputs, *loads[1:]] if runs else list(loads)
