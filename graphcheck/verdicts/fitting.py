"""Sizes that models take, where the usual ones fit neither, and the values that their branches are taken at."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np

from graphcheck import codes, words
from graphcheck.errors import Undecided, UsageError
from graphcheck.interface import lengths as lengths_
from graphcheck.interface import ports
from graphcheck.options import Options
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts import branches
from graphcheck.verdicts.case import Case
from graphcheck.verdicts.evidence import Attempts, Evidence

# Tried for symbolic dims: what networks of sound, text and images tend to take, the larger ones first among equals.
_LENGTHS = (512, 256, 128, 64, 32, 16, 224, 320, 384, 640, 1024, 96, 160, 48, 80)
_RARE = (10, 4, 2, 1, 2048, 4096, 16000)  # tried behind sizes that the models name
_BATCHES = (2, 1)
_SHARE, _MOST = 0.1, 20.0  # of the time limit, and in seconds: what looking for sizes may take


@dataclasses.dataclass(frozen=True)
class Fit:
    """Shapes that a model takes, by input, at these values of the inputs that choose a branch.

    ``both`` tells whether both models take them, ``outside`` whether the values are none that a model names.
    """

    shapes: dict[str, tuple[int, ...]]
    values: dict[str, int]
    both: bool
    outside: bool = False

    def branch(self) -> str:
        """``sr=16000``."""
        return ", ".join(f"{name}={value}" for name, value in self.values.items())

    def text(self) -> str:
        """``sr=16000, input=1x512``."""
        sizes = words.shapes({n: s for n, s in self.shapes.items() if n not in self.values})
        return f"{self.branch()}, {sizes}" if self.values else sizes


def fits_nothing(evidence: Evidence) -> bool:
    """Whether both models refuse every size that was tried."""
    attempts, copied = evidence.congruence or (), evidence.precision
    if evidence.interface and copied is not None:  # types alone differ
        return not (copied.found.attempts or copied.parts or copied.stopped)
    return bool(attempts) and all(attempt.refused == "both" for attempt in attempts)


def usual_sizes(case: Case, attempts: Attempts) -> dict[str, int] | None:
    """Sizes that both models take, by free dim, in place of the usual ones that one or both refuse: the multiples next above
    those. None where both take those, where the caller chose the sizes or an input chooses a branch, or where none fit."""
    first = next(iter(attempts), None)
    if first is None or first.refused is None or case.options.inputs is not None or case.sizes.met:
        return None
    lengths = {name: first.shapes[key][axis] for name, (key, axis) in ports.symbols(case.interface).items() if axis}
    deadline = time.monotonic() + min(_MOST, _SHARE * case.options.timeout)
    for n in lengths_.divisors(case.models, [[*lengths.values()]]) if lengths else ():
        chosen = {name: n * max(2, math.ceil(length / n)) for name, length in lengths.items()}  # one patch hides its stride
        try:
            shapes = ports.shapes(case.interface, case.options.shapes, chosen)
            if time.monotonic() < deadline and all(case.sizes.admits(side, shapes, first.sample) for side in (0, 1)):
                return chosen
        except (Undecided, UsageError):
            return None
    return None


def fitted(found: Comparison, chosen: dict[str, int], refused: str | None) -> Comparison:
    """The verdict at sizes that both models take, with a note that says why it is at those."""
    sizes = ", ".join(f"{words.short(name)} = {size}" for name, size in chosen.items())
    side = {"a": "B alone", "b": "A alone"}.get(refused or "", "neither model")
    note = f"the usual sizes fit {side}; found to fit both: {sizes}"
    return _noted(found, found.verdict, found.reason, [note])


def fits(case: Case) -> list[Fit]:
    """Sizes that both models take, or one alone, for each branch that the models choose by a number.

    Where a branch takes none of those tried, its fit has no shapes; [] if no branch takes any.
    """
    chosen = case.sizes.met
    if not ports.symbols(case.interface) and not chosen:
        return []
    deadline = time.monotonic() + min(_MOST, _SHARE * case.options.timeout)
    values = [({name: value}, value == of[-1]) for name, of in chosen.items() for value in of] or [({}, False)]
    found = [
        dataclasses.replace(_fit(case, each, deadline) or Fit({}, each, both=False), outside=outside) for each, outside in values
    ]
    return found if any(fit.shapes for fit in found) else []


def options(case: Case, found: Sequence[Fit]) -> Iterator[Options]:
    """Those of a comparison at each of the sizes, which share the time that is left and the error probability."""
    for number, fit in enumerate(found := [fit for fit in found if fit.shapes]):
        ranges = {name: (float(value), float(value)) for name, value in fit.values.items()}
        yield dataclasses.replace(
            case.options,
            shapes=fit.shapes,
            ranges={**case.options.ranges, **ranges},
            timeout=max((case.deadline - time.monotonic()) / (len(found) - number), 1.0),
            error_probability=case.options.error_probability / len(found),
        )


def combined(found: Sequence[Fit], results: Sequence[Comparison]) -> Comparison:
    """The weakest of the results, ``different`` before all, told by branch, with notes that name the sizes.

    A branch for which no sizes were found leaves open what the others prove.
    """
    order = (*reversed(Verdict),)
    fitting = [fit for fit in found if fit.shapes]
    told = sorted(zip(fitting, results, strict=True), key=lambda row: order.index(row[1].verdict))
    (fit, worst), *others = told
    missed = [f for f in found if not f.shapes]
    said = "the usual sizes fit neither model; found to fit"
    notes = [f"{said} {'both' if f.both else 'one'}: {f.text()}" for f, _ in told]
    verdict, reason = worst.verdict, f"at {fit.branch()} {worst.reason}" if others or missed else worst.reason
    also = "".join(f"; at {f.branch()} {r.verdict}" for f, r in others)
    if missed and verdict is not Verdict.DIFFERENT:
        reason = f"no sizes were found that the models take at {', '.join(f.branch() for f in missed)}"
        verdict, also = Verdict.UNDECIDED, f"; at {fit.branch()} {worst}"
    if verdict is Verdict.UNDECIDED:
        open_ = [r.code for _, r in told if r.verdict is verdict] + ["GC207"] * bool(missed)
        worst = dataclasses.replace(worst, code=codes.joint(open_))
    split = branches.with_branches(_noted(worst, verdict, reason, notes), _rows(told, missed), reason)
    return split or _noted(worst, verdict, reason + also, [*notes, *(f"at {f.branch()} {r}" for f, r in others)])


def _noted(found: Comparison, verdict: Verdict, reason: str, notes: Sequence[str]) -> Comparison:
    interface = found.evidence["interface"]
    evidence = found.evidence | {"interface": interface | {"notes": [*notes, *interface["notes"]]}}
    return dataclasses.replace(found, verdict=verdict, reason=reason, evidence=evidence)


def _rows(told: Sequence[tuple[Fit, Comparison]], missed: Sequence[Fit]) -> list[branches.Branch]:
    """The branches of one input; none where several inputs choose them, or none does."""
    names = {name for fit in (*(fit for fit, _ in told), *missed) for name in fit.values}
    if len(names) != 1:
        return []
    (name,) = names
    rows = [branches.Branch.of(name, fit.values[name], found, fit.outside) for fit, found in told]
    nowhere = "no sizes were found that the models take"
    return rows + [branches.Branch(name, fit.values[name], Verdict.UNDECIDED, nowhere, None, fit.outside) for fit in missed]


def hint(case: Case) -> str:
    """What to give where no sizes were found that the models take."""
    symbols = {key for key, _ in ports.symbols(case.interface).values()}
    usual = ports.shapes(case.interface, case.options.shapes)
    shown = " ".join(f"--shape {words.shapes({name: shape})}" for name, shape in usual.items() if name in symbols)
    if not shown:
        return "give --inputs FILE.npz with values that the models take"
    return f"give {shown} with sizes that the models take in place of these, which fit neither"


def _fit(case: Case, values: dict[str, int], deadline: float) -> Fit | None:
    """The first sizes tried that both take, else the first that one takes; None if neither does, or the time is up."""
    discrete = {pair.key: pair.a for pair in case.sizes.discrete() if pair.a is not None}
    concrete = {key: np.asarray(values.get(key, 1), port.numpy_dtype()) for key, port in discrete.items()}
    alone = None
    for shapes in _candidates(case):
        if time.monotonic() > deadline:
            break
        given = {key: np.broadcast_to(value, shapes[key]) for key, value in concrete.items()}
        try:
            takes = [case.sizes.takes(side, shapes, given) for side in (0, 1)]
        except Undecided:
            continue
        if all(takes):
            return Fit(shapes, values, both=True)
        alone = alone or (Fit(shapes, values, both=False) if any(takes) else None)
    return alone


def _candidates(case: Case) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes to try, one length after the other: of all dims besides the batch; of one, the others of the batch's size (a
    state has a row for each row of the input), or of the usual ones."""
    symbols = ports.symbols(case.interface)
    batches = [name for name, (_, axis) in symbols.items() if axis == 0]
    others = [name for name in symbols if name not in batches]
    lengths = list(dict.fromkeys((*_LENGTHS, *lengths_.constants(case.models), *_RARE))) if others else [0]
    alone = [([name], rest) for rest in (others, []) for name in others] if len(others) > 1 else []
    together: list[tuple[list[str], list[str]]] = [(others, []), *alone]
    seen = []
    for length, (chosen, rest), batch in itertools.product(lengths, together, _BATCHES):
        try:
            sizes = dict.fromkeys((*batches, *rest), batch) | dict.fromkeys(chosen, length)
            shapes = ports.shapes(case.interface, case.options.shapes, sizes)
        except UsageError:
            continue  # --shape fixes it
        if shapes not in seen:
            seen.append(shapes)
            yield shapes
