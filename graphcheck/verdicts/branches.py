"""A verdict by branch: at each number that an input of one element is compared with, where it differs by them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphcheck.codes import joint
from graphcheck.options import Options
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.case import Case

_MOST = 6  # values of one input that are tried
_TIMES, _LEAST = 4.0, 20.0  # so many times as long as the comparison took may each branch take, and so many seconds at least
_STRONGEST = (*Verdict,)


@dataclasses.dataclass(frozen=True)
class Branch:
    """What was found with an input held at one value, in all its sizes; ``proof`` as the JSON has it."""

    name: str
    value: int | bool
    verdict: Verdict
    reason: str
    proof: Mapping[str, Any] | None = None
    outside: bool = False  # whether it stands for the values that no model names

    @classmethod
    def of(cls, name: str, value: int | bool, found: Comparison, outside: bool) -> Branch:
        """That of a comparison with the input held."""
        return cls(name, value, found.verdict, found.reason, found.evidence["proof"], outside)

    def text(self) -> str:
        """``sr = 16000``."""
        return f"{self.name} = {_written(self.value)}"

    def to_json(self) -> dict[str, Any]:
        """An entry of ``branches`` in the JSON."""
        named = {"input": self.name, "value": self.value, "verdict": str(self.verdict)}
        return named | {"reason": self.reason, "proof": self.proof}


def split(
    case: Case, found: Comparison, seconds: float, compare: Callable[[Options], Comparison]
) -> Comparison:
    """The comparison, told by branch where it is stronger at some values of an input than at others.

    ``compare`` judges both models anew, ``seconds`` is how long the first time took. What is told of a value is a comparison
    with the input held at it on both sides.
    """
    if found.verdict not in (Verdict.DIFFERENT, Verdict.UNDECIDED) or case.unfit or case.options.inputs is not None:
        return found
    values = {key: of for key, of in case.sizes.met.items() if 2 <= len(of) <= _MOST}
    for key, of in values.items():
        rows: list[tuple[Branch, Comparison]] = []
        for number in of:
            left = case.deadline - time.monotonic()
            if left <= 0:
                return found
            one = compare(
                dataclasses.replace(
                    case.options,
                    ranges={**case.options.ranges, key: (float(number), float(number))},
                    timeout=min(left, max(_LEAST, _TIMES * seconds)),
                    error_probability=case.options.error_probability / len(of),
                    reduce=None, save_inputs=None, save_outputs=None, graphs=False, partners=False, explain=False,
                )
            )
            rows.append((Branch.of(key, number, one, number == of[-1]), one))
        told = _told(found, rows)
        if told is not None:
            return told
    return found


def _told(found: Comparison, rows: Sequence[tuple[Branch, Comparison]]) -> Comparison | None:
    """The comparison with its branches; None where they say no more, or where one contradicts the difference that was found."""
    branches = [branch for branch, _ in rows]
    worst = next((one for branch, one in rows if branch.verdict is Verdict.DIFFERENT), found)
    base = found if found.verdict is Verdict.DIFFERENT else worst
    shown = ((base.evidence["witness"] or {}).get("values") or {}).get(branches[0].name)
    at = next((branch for branch in branches if branch.value == shown), None)
    if at is not None and at.verdict.meets(Verdict.WITHIN_ROUNDING):
        return None
    if shown is None and base.verdict is Verdict.DIFFERENT and all(b.verdict is not Verdict.DIFFERENT for b in branches):
        return None  # at which value they differ is not known
    if shown is not None and at is None:
        branches.append(Branch(branches[0].name, shown, Verdict.DIFFERENT, base.reason, outside=True))
    if base.verdict is Verdict.UNDECIDED:
        base = dataclasses.replace(base, code=joint([base.code, *(r.code for _, r in rows if r.verdict is base.verdict)]))
    return with_branches(base, branches, base.reason)


def with_branches(found: Comparison, branches: Sequence[Branch], reason: str) -> Comparison | None:
    """The comparison, the weakest of all, with a reason and a key that tell the verdict by branch; None if all say the same."""
    known = [b.verdict for b in branches]
    if len(set(known)) < 2 or not any(verdict.meets(Verdict.WITHIN_ROUNDING) for verdict in known):
        return None
    order = (*(v for v in _STRONGEST if v is not found.verdict), found.verdict)
    parts = [(v, [b for b in branches if b.verdict is v]) for v in order]
    *first, last = [(verdict, of) for verdict, of in parts if of]
    texts = [f"{verdict} where {_listed(of)}" for verdict, of in first]
    numbers = {int(branch.value) for branch in branches}
    steps = any(n + 1 in numbers for n in numbers)  # a threshold, beside which other values may be either
    everything = not (steps or isinstance(branches[0].value, bool)) and any(branch.outside for branch in last[1])
    rest = "elsewhere" if everything else f"where {_listed(last[1])}"
    sentence = f"{'; '.join(texts)}; {last[0]} {rest}: {reason}"
    interface = found.evidence["interface"]
    notes = [f"at {b.text()} {b.verdict}: {b.reason}" for b in branches if b.verdict is not found.verdict]
    rows = [branch.to_json() for branch in branches]
    evidence = {**found.evidence, "interface": {**interface, "notes": [*notes, *interface["notes"]]}, "branches": rows}
    return dataclasses.replace(found, reason=sentence, evidence=evidence)


def _listed(branches: Sequence[Branch]) -> str:
    """``sr = 8000 or 16000``."""
    return f"{branches[0].name} = {' or '.join(_written(b.value) for b in branches)}"


def _written(value: int | bool) -> str:
    return str(value).lower()
