"""Known approximations by name: whether one model is the other once each Gelu has its form by tanh, and the like.

The forms are those that blame knows as mistakes. A name is told only where the edited model is proved to be the other one, so
that it is no guess; the verdict on the models as they are stays what it is.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import onnx_ir as ir

from graphcheck import limits
from graphcheck.blaming.editing import Spot
from graphcheck.blaming.explain import edits_of
from graphcheck.blaming.known import CHANGES
from graphcheck.errors import GraphcheckError, Undecided
from graphcheck.options import Options
from graphcheck.verdict import Verdict
from graphcheck.verdicts.case import Case
from graphcheck.words import plural

# Rows of the table, with the operators of which the other model has more where it is approximated so.
_SIGNS = {
    "gelu": frozenset({"Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Erf", "Tanh", "Sigmoid"}),
    "straight lines": frozenset({"HardSigmoid", "HardSwish", "Clip"}),
}
_LEAST, _MOST = 5.0, 30.0  # seconds for all that is tried; as long as the comparison took where that lies between
_SAME = (Verdict.IDENTICAL, Verdict.PROVED, Verdict.WITHIN_ROUNDING)


@dataclasses.dataclass(frozen=True)
class Approximation:
    """With ``name`` at so many ``nodes`` the model at ``side`` is the other one; ``verdict`` says how that was shown."""

    side: str
    name: str
    nodes: int
    verdict: Verdict

    def text(self) -> str:
        """The phrase that follows the reason."""
        one, other = self.side.upper(), "BA"["ab".index(self.side)]
        where = f"with {self.name} at {plural(self.nodes, 'node')}"
        return f"a known approximation separates them: {where} {one} is the same function as {other} ({self.verdict})"

    def to_json(self) -> dict[str, Any]:
        """The ``approximation`` key of the JSON."""
        return dataclasses.asdict(self) | {"verdict": str(self.verdict)}


def approximation(
    case: Case, seconds: float, judged: Callable[[ir.Model, ir.Model, Options], Verdict]
) -> Approximation | None:
    """The one that separates the two models; None where none is known. ``seconds`` is how long the comparison took."""
    given = case.options
    deadline = min(case.deadline, time.monotonic() + min(_MOST, max(_LEAST, seconds)))
    for at, side in enumerate("ab"):
        for name, nodes, edited in _edited(case.models[at], case.models[1 - at]):
            if (left := deadline - time.monotonic()) <= 0:
                return None
            options = Options(
                seed=given.seed, timeout=left, run=False, graphs=False, partners=False, shapes=given.shapes,
                ranges=given.ranges, ignore_outputs=given.ignore_outputs, error_probability=given.error_probability,
            )  # fmt: skip
            case.say(f"trying {name}")
            models = (edited, case.models[1]) if side == "a" else (case.models[0], edited)
            try:
                with limits.within(None, left):
                    verdict = judged(*models, options)
            except (GraphcheckError, Undecided, MemoryError, ValueError):  # an edit that does not fit makes no model
                continue
            if verdict in _SAME:
                return Approximation(side, name, nodes, verdict)
    return None


def _edited(model: ir.Model, other: ir.Model) -> Iterator[tuple[str, int, ir.Model]]:
    """Name, count of nodes and the edited model, for each form that the model may have and the other one may not."""
    nodes = list(model.graph)
    forms: dict[tuple[str, int], list[tuple[int, Any]]] = {}
    for change in CHANGES:
        signs = _SIGNS.get(change.kind, frozenset())
        if _nodes(other, signs) - _nodes(model, signs):
            for at, node in enumerate(nodes):
                named: Counter[str] = Counter()
                for said, edit in edits_of(Spot(model, node), change) if node.op_type in change.ops else ():
                    forms.setdefault((said, named[said]), []).append((at, edit))
                    named[said] += 1
    for (said, _), edits in forms.items():
        copy = model.clone()
        spots = list(copy.graph)
        copy.opset_imports.setdefault("com.microsoft", 1)  # where some of the forms are
        try:
            for at, edit in edits:
                edit(Spot(copy, spots[at]))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            continue
        yield said, len(edits), copy


def _nodes(model: ir.Model, ops: frozenset[str]) -> Counter[str]:
    """How many nodes of these operators there are, by their attributes."""
    nodes = (node for node in model.graph if node.op_type in ops)
    return Counter(f"{node.domain} {node.op_type} {sorted(map(str, node.attributes.values()))}" for node in nodes)
