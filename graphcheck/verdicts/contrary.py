"""What to say first of an undecided pair whose executions lie far beyond rounding: that they do, and why it is no proof."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from graphcheck.files import model as model_
from graphcheck.kernel.ops.algebra import Tensor
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.terms.verbs import Ew
from graphcheck.parting.difference import SPREAD_FACTOR, Deviation

_FAR_BEYOND = 2.0**14  # ulps of the output's largest magnitude
_STEPS, _ROUNDERS = ("cast:", "saturate:", "round"), ("QuantizeLinear", "DynamicQuantizeLinear")  # functions, operators
_MOST = 0.5  # of the elements of integer and boolean outputs: a few may well fall on the other side of a threshold


def sentence(
    rows: Sequence[Mapping[str, Any]],
    deviations: Sequence[Deviation],
    unknown: Sequence[str],
    steps: Sequence[str] = (),
) -> str | None:
    """The sentence, None where onnxruntime's outputs (``rows`` of statistics) are no farther apart than rounding explains.

    ``deviations`` is what the most telling input showed in float64, ``unknown`` names the operators that are not evaluated,
    ``steps`` the nodes that round (:func:`rounding_steps`).
    """
    known = {d.output: d for d in deviations}
    far = [row for row in rows if _is_far(row, known.get(row["a"]))]
    if not far:
        return None
    worst = max(far, key=lambda row: math.inf if row["max_abs"] is None else row["max_abs"])
    d = known.get(worst["a"])
    return f"onnxruntime's outputs {worst['a']!r} {_apart(worst)}, but {_why(worst, d, unknown, steps)}"


def rounding_steps(pair: Pair, roots: Sequence[int]) -> list[str]:
    """The nodes before the ``roots`` that round to a narrower type or to integers, each as its operator and name."""
    terms = pair.terms
    verbs = {c: terms.terms[c].verb for c in terms.order(roots)}
    rounded = {c for c, verb in verbs.items() if isinstance(verb, Ew) and verb.fn.startswith(_STEPS)}
    found: dict[str, None] = {}
    for trace in (pair.a, pair.b):
        for value, traced in trace.values.items():
            node = value.producer()
            if node is None or not isinstance(traced, Tensor):
                continue
            cls = terms.find(traced.cls)
            if cls in rounded or node.op_type in _ROUNDERS:
                rounded.discard(cls)  # what gives the same again rounds no more
                found[f"{node.op_type} {model_.node_name(node)}"] = None
    return list(found)


def _is_far(row: Mapping[str, Any], d: Deviation | None) -> bool:
    if row["shape"] != row["shape_b"] or row["nan_a"] != row["nan_b"]:
        return True
    if row.get("scale_ulp") is None:
        return bool((row.get("unequal") or 0) > _MOST * math.prod(row["shape"]))
    explained = 0.0 if d is None else SPREAD_FACTOR * d.spread
    return bool(row["scale_ulp"] > _FAR_BEYOND and row["max_abs"] > explained)


def _apart(row: Mapping[str, Any]) -> str:
    if row["shape"] != row["shape_b"]:
        return f"have the shapes {row['shape']} in A and {row['shape_b']} in B"
    if row["nan_a"] != row["nan_b"]:
        one = "on one side" if 0 in (row["nan_a"], row["nan_b"]) else "at other places"
        return f"are NaN {one}, at {row['nan_a']} elements in A and at {row['nan_b']} in B"
    if row.get("scale_ulp") is None:
        return f"differ at {row['unequal']} of {math.prod(row['shape'])} elements"
    return f"differ by {row['max_abs']:.3g}, far beyond rounding"


def _why(row: Mapping[str, Any], d: Deviation | None, unknown: Sequence[str], steps: Sequence[str]) -> str:
    """Why such a deviation is not called different."""
    if unknown and (d is None or not math.isfinite(d.deviation)):
        return f"float64 does not evaluate {_listed(unknown)}"
    if d is None or not math.isfinite(d.deviation):
        return "float64 has given no value there"
    if row["nan_a"] != row["nan_b"]:
        return f"float64, which does not overflow there, has numbers, {d.deviation:.3g} apart at most"
    if not d.certain and d.units > SPREAD_FACTOR and steps:
        return f"behind a rounding step ({_listed(steps)}) float64 cannot bound its own error"
    if not d.certain and d.units > SPREAD_FACTOR:
        return "float64 has no bound on its own error there: a jump, a pole or an overflow is near"
    return f"in float64 they differ by {d.deviation:.3g} at most, on the inputs that were tried"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
