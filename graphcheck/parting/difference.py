"""Are two graphs different at an input, and does it matter? Float64 evaluation of both, and the spread of rounding (Idea 4).

Three numbers decide, for each output:

deviation   the largest |A - B| in float64
bound       how far float64 rounding could have moved the two apart: the running error bound of
            :mod:`graphcheck.kernel.values.float64` where it is small enough, a bound in the strict sense; else, since that one
            grows with the product of the layers' norms, the first-order bound of :mod:`graphcheck.parting.slopes`
            at the element that deviates most, with the assumption that is stated there; and where none is to be had, what
            enlarged roundings move that element by (:mod:`graphcheck.parting.redrawn`), where onnxruntime shows the same
spread      the largest deviation that seeded noise on the scale of the declared type's rounding causes

An element that certainly has no value on one side (the logarithm of -1, 1/0), and one on the other, is a difference too,
where onnxruntime shows the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Ew, Rows
from graphcheck.kernel.values.bounds import LEAST, U
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.parting.budget import work
from graphcheck.parting.redrawn import BESIDE, DOUBT, ENLARGED, PAIRS, moved, unsure
from graphcheck.parting.rooms import NEAR
from graphcheck.parting.slopes import Tape
from graphcheck.parting.tangents import Tangents

SPREAD_FACTOR = 4.0  # a deviation counts as more than rounding above this many spreads
_SEEN_FACTOR = 8.0  # what one execution in the declared types shows of the spread is taken times this,
_PLAIN = 1000.0  # and trusted in place of noise runs where the deviation is this many times as large
_WATCHED = 2**16  # elements at jumps that are held against noise
_MORE = 16  # so many times as many elements must deviate as rounding moves
_NOISE_RUNS, _LEAST = 2, 3.0  # runs, and the unit roundoffs that one of many operations is perturbed by in them
_BOUNDED, _NOISY = 4.0, 2.0  # what an evaluation with bounds, or with noise, costs in plain ones
_RIGOROUS_ELEMENTS = 5_000_000  # the running bound costs three more products a contraction; tried up to this size
_SAME = 1e-2  # how near onnxruntime must come to a defined element beside an undefined one, relatively
SURE, ONCE = 1e3, 1e9  # a deviation must be so many times what enlarged roundings move the element by, drawn often or once,
_SEEN_SAME = 1e-2  # and onnxruntime come as near to either side, in deviations
_DOUBTED = 4.0  # and where a first-order bound is there besides, so many times what one pair of draws moves it by

Inputs = Mapping[tuple[Any, ...], np.ndarray]
Executed = Mapping[str, tuple[np.ndarray, np.ndarray]]
Outputs = Sequence[tuple[str, int, int]]


@dataclasses.dataclass(frozen=True)
class Deviation:
    """One output pair at one input: |A - B| at the element that tells most, what float64 could explain of it (``bound``;
    infinite where it was not looked into), what the declared types could (``spread``), the kind of the bound: ``running``,
    ``first-order``, ``redrawn``, ``drawn`` (once), ``undefined`` (one side has no value there), or ``none``, and the place of
    the element."""

    output: str
    deviation: float
    bound: float
    spread: float
    kind: str = "none"
    sides: tuple[float, float] = (0.0, 0.0)
    at: int | None = None

    @property
    def certain(self) -> bool:
        """Whether the functions differ over the reals at this input."""
        return self.deviation > self.bound

    @property
    def units(self) -> float:
        """The deviation in units of the spread."""
        return self.deviation / self.spread if self.spread else (math.inf if self.deviation else 0.0)

    @property
    def gross(self) -> bool:
        """Certain, and more than rounding in the declared types explains."""
        return self.certain and self.units > SPREAD_FACTOR

    @property
    def rigorous(self) -> bool:
        """Whether the bound is one in the strict sense."""
        return self.kind == "running"

    def to_json(self) -> dict[str, Any]:
        """Plain data; null for what is infinite."""
        row = {**dataclasses.asdict(self), "units": self.units, "certain": self.certain, "rigorous": self.rigorous}
        del row["sides"], row["at"]
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def judge(
    terms: Terms,
    outputs: Outputs,
    inputs: Inputs,
    unit: float,
    seed: int,
    *,
    executed: Callable[[], Executed] = dict,
    tick: Callable[[float], None] = lambda _: None,
    thorough: bool = True,
    redraw: bool = False,
    brief: bool = False,
) -> list[Deviation]:
    """Deviations of the ``outputs`` (name, class in A, class in B) on ``inputs`` by leaf key; ``unit`` is the unit roundoff.

    ``executed`` gives what onnxruntime computed of the outputs at this input, if that is to be had: its distance from float64
    shows the spread without noise runs where a difference is far above it, or below it. What is smaller than a few roundings
    of the output is not judged further (its spread is given as those). Unless ``thorough``, the costly bound is left
    out where the spread explains the deviation anyhow. With ``redraw`` roundings are drawn anew: where there is no other bound,
    and to hold a first-order one against. Bounds are told of the outputs that differ most, up to one that certainly does. If it
    is to be ``brief``, a large expression is asked for no more than one evaluation with a draw tells.
    """
    return _Judge(terms, outputs, inputs, unit, seed, tick, redraw=redraw, brief=brief).run(executed, thorough)


class _Judge:
    def __init__(
        self, terms: Terms, outputs: Outputs, inputs: Inputs, unit: float, seed: int, tick: Callable[[float], None],
        *, redraw: bool, brief: bool,
    ) -> None:  # fmt: skip
        self.terms, self.outputs, self.inputs = terms, outputs, inputs
        self.unit, self.seed, self.tick = unit, seed, tick
        self.redraw, self.brief = redraw, brief
        self.roots = [c for _, a, b in outputs for c in (a, b)]
        self.small = sum(terms.size(c) for c in terms.order(self.roots)) <= _RIGOROUS_ELEMENTS
        draws = None if self.small or not redraw else Tangents(terms, seed)
        self.jumps = _jumps(terms, self.roots)
        below = [arg for cls in self.jumps for arg in map(terms.find, terms.terms[cls].args)]
        self.watched = below if sum(map(terms.size, below)) <= _WATCHED else []  # of more, some are near a jump
        # of both sides, which often share most of their steps
        self.tape = Tape(terms, inputs, [*self.roots, *self.watched], tick, draws, forth=brief and not self.small)
        self.values = {name: (self.tape.value(a), self.tape.value(b)) for name, a, b in outputs}
        self.sizes = {name: _apart(*pair) for name, pair in self.values.items()}
        self.ranks = dict.fromkeys(self.values, 1)  # of the element that is judged, counted from the largest deviation

    def run(self, executed: Callable[[], Executed], thorough: bool) -> list[Deviation]:
        found: dict[str, Deviation] = {}
        open_: dict[str, float] = {}  # by output, the deviation
        for name in self.values:
            apart, floor = _largest(self.sizes[name]), self._floor(name)
            found[name] = Deviation(name, apart, math.inf if apart else 0.0, SPREAD_FACTOR * floor)
            if apart > SPREAD_FACTOR * floor:
                open_[name] = apart
        shown = executed() if open_ else {}
        stepped = bool(open_) and bool(self.jumps)
        noisy = []
        for name in open_:
            once = self._told(name, [shown[name]], _PLAIN * _SEEN_FACTOR) if name in shown else math.inf
            apart = _ranked(self.sizes[name], self.ranks[name])
            plain = not stepped and math.inf > apart > _PLAIN * _SEEN_FACTOR * once
            lost = apart <= SPREAD_FACTOR * once < math.inf
            if plain or lost:  # far above what execution shows of rounding, or below it: no noise run would change that
                spread = max((_SEEN_FACTOR if plain else 1.0) * once, self._floor(name))
                found[name] = dataclasses.replace(found[name], deviation=apart, spread=spread)
            else:
                noisy.append(name)
        if noisy:
            self._spreads(noisy, found, stepped)
        bounded = self._evaluate() if open_ and self.small else {}
        worst = max((found[name].units for name in open_), default=0.0)
        for name in sorted(open_, key=lambda name: -found[name].units):
            d = self._bounded(found[name], bounded, shown, thorough and found[name].units == worst)
            d = found[name] = self._redrawn(d, shown) if self.redraw else d
            if d.gross and self._replayed(d, shown):  # one output is enough
                break
        return list(found.values())

    def _spreads(self, names: Sequence[str], found: dict[str, Deviation], stepped: bool) -> None:
        """The spread of outputs by noise runs."""
        runs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
        for i in range(_NOISE_RUNS * (1 + stepped)):
            noise = self._evaluate(bounds=False, unit=self.unit, seed=self.seed + i)
            for name, a, b in self.outputs:
                if name in runs:
                    runs[name].append((noise[self.terms.find(a)].value, noise[self.terms.find(b)].value))
            moves = ((name, max(self._moves(name, seen[0], 1), self._floor(name))) for name, seen in runs.items())
            if stepped and self._far(noise) and all(found[name].deviation > _PLAIN * move for name, move in moves):
                break  # one run is enough
        for name, seen in runs.items():
            spread = self._told(name, seen, SPREAD_FACTOR)
            apart = _ranked(self.sizes[name], self.ranks[name])
            found[name] = dataclasses.replace(found[name], deviation=apart, spread=max(spread, self._floor(name)))

    @np.errstate(all="ignore")
    def _far(self, noise: Mapping[int, Real]) -> bool:
        """Whether no jump is near: many times what noise moves its operands by does not bring them there."""
        for term in (self.terms.terms[cls] for cls in self.jumps if self.watched):
            both = [(self.tape.value(arg), noise[self.terms.find(arg)].value) for arg in term.args]
            enlarged = [(x, x + ENLARGED * (y - x)) for x, y in both]
            if not isinstance(term.verb, Ew) or np.any(unsure(term.verb.fn, enlarged, term.verb.maps)):
                return False
        return bool(self.watched)

    def _told(self, name: str, seen: Sequence[tuple[np.ndarray, np.ndarray]], wanted: float) -> float:
        """What rounding moves an output by, as executions of both sides show it; sets the rank of the element that is judged.

        That is the first one, unless it lies within ``wanted`` times of that and another one does not: rounding may well move
        a few elements that stand at a threshold by as much as a wrong weight moves all. That many times more deviate, or the
        element is passed over.
        """
        size = self.sizes[name]
        best, spread = 1, max(self._moves(name, pair, 1) for pair in seen)
        if np.isfinite(size).all() and math.isfinite(spread):
            for rank in (4 * _MORE * 4**i for i in range(math.ceil(math.log(max(size.size / 8 / _MORE, 1), 4)))):
                apart, floor = _ranked(size, best), self._floor(name)
                if apart > wanted * max(spread, floor):
                    break
                there = max(self._moves(name, pair, rank) for pair in seen)
                if _ranked(size, rank) * max(spread, floor) > apart * max(there, floor):
                    best, spread = rank, there
        self.ranks[name] = best
        return spread

    def _moves(self, name: str, shown: tuple[np.ndarray, np.ndarray], rank: int) -> float:
        """How far an execution of both sides lies from float64: at an element, or (a ``rank`` beyond 1) at a few."""
        if rank == 1:
            return max(_moved(x.reshape(-1), y) for x, y in zip(shown, self.values[name], strict=True))
        apart = [np.abs(x.reshape(-1) - y) for x, y in zip(shown, self.values[name], strict=True)]
        return max(_ranked(np.where(np.isnan(each), np.inf, each), rank // _MORE) for each in apart)

    def _bounded(self, d: Deviation, bounded: Mapping[int, Real], shown: Executed, thorough: bool) -> Deviation:
        """The deviation with its bound, the running one if it is small enough."""
        a, b = next((a, b) for name, a, b in self.outputs if name == d.output)
        size = self.sizes[d.output]
        if bounded:
            sides = (bounded[self.terms.find(a)], bounded[self.terms.find(b)])
            strict = self._running(d, size, sides) or self._undefined(d, sides, shown)
            if strict is not None:
                return strict
        if not (d.units > SPREAD_FACTOR or thorough) or not np.isfinite(size).any():
            return d
        at = _place(np.where(np.isfinite(size), size, -1.0), self.ranks[d.output])
        trusted = self._trusted(d.output, shown)
        once = self._at(d, at, float(size[at]), ONCE * self.tape.moved(at, a, b), "drawn")
        if trusted and once.certain and self._seen(once, shown):
            return once
        if self.brief and not self.small:
            return dataclasses.replace(once, bound=math.inf, kind="none")
        return dataclasses.replace(once, bound=self.tape.bound(a, at, b) if trusted else math.inf, kind="first-order")

    def _replayed(self, d: Deviation, shown: Executed) -> bool:
        """Whether onnxruntime shows the difference, too, where it ran."""
        return d.kind == "undefined" or d.output not in shown or replayed(*shown[d.output]) > SPREAD_FACTOR * d.spread

    def _running(self, d: Deviation, size: np.ndarray, sides: tuple[Real, Real]) -> Deviation | None:
        """The element that deviates most of those that certainly do, if there is one."""
        error = sides[0].error + sides[1].error
        sure = np.where(np.isfinite(size) & (size > error), size, -1.0)
        at = _place(sure, self.ranks[d.output])
        return self._at(d, at, float(size[at]), float(error[at]), "running") if sure[at] > 0 else None

    def _undefined(self, d: Deviation, sides: tuple[Real, Real], shown: Executed) -> Deviation | None:
        """An element that certainly has no value on one side, and one on the other; in onnxruntime, too."""
        if d.output not in shown:
            return None
        absent, known = (
            [np.isnan(s.value) & (s.error == 0) for s in sides],
            [np.isfinite(s.value) & np.isfinite(s.error) for s in sides],
        )
        found = (absent[0] & known[1] | absent[1] & known[0]) & _alike(shown[d.output], self.values[d.output])
        return self._at(d, int(found.argmax()), math.inf, 0.0, "undefined") if found.any() else None

    def _at(self, d: Deviation, at: int, deviation: float, bound: float, kind: str) -> Deviation:
        x, y = self.values[d.output]
        sides = float(x[at]), float(y[at])
        return dataclasses.replace(d, deviation=deviation, bound=bound, kind=kind, sides=sides, at=at)

    def _redrawn(self, d: Deviation, shown: Executed) -> Deviation:
        """A deviation beyond rounding by what redrawn roundings say of its element: of both sides, beside onnxruntime's values
        where there is no other bound."""
        at = d.at
        if d.kind != "first-order" or at is None or d.units <= SPREAD_FACTOR:
            return d
        roots = next((a, b) for name, a, b in self.outputs if name == d.output)
        if math.isfinite(self.tape.moved(at, *roots)) if d.certain else not self._seen(d, shown):
            return d
        pairs, times, doubt = (1, _DOUBTED, BESIDE) if d.certain else (PAIRS, SURE, DOUBT)
        known, enough = (self.terms, self.inputs, roots, at, self.seed), d.deviation / times
        total = moved(*known, pairs=pairs, enough=enough, doubt=doubt, tick=self.tick)
        if math.isinf(total):
            return dataclasses.replace(d, bound=math.inf)
        return d if d.certain else dataclasses.replace(d, bound=times * total, kind="redrawn")

    def _seen(self, d: Deviation, shown: Executed) -> bool:
        """Whether onnxruntime comes near both sides at the element."""
        seen = [float(x.reshape(-1)[d.at]) for x in shown.get(d.output, ())]
        return bool(seen) and all(abs(x - y) <= _SEEN_SAME * d.deviation for x, y in zip(seen, d.sides, strict=True))

    def _floor(self, name: str) -> float:
        """The least spread: what noise on the output alone would show, also where nothing is rounded (a constant that is, is no
        bug), and the least spacing of the declared type."""
        return max(_LEAST * self.unit * max(map(_magnitude, self.values[name])), LEAST.get(self.unit, 0.0))

    def _trusted(self, name: str, shown: Executed) -> bool:
        """Whether the assumption of a first-order bound stands at the output: what execution in the declared types shows of
        rounding, scaled to float64, is small; and float64 never left its range."""
        if self.tape.domain.broken:
            return False
        size = max(1.0, *map(_magnitude, self.values[name]))
        return name not in shown or self._moves(name, shown[name], self.ranks[name]) * U / self.unit <= NEAR * size

    def _evaluate(self, **options: Any) -> dict[int, Real]:
        passes = _NOISY if options else _BOUNDED

        def visit(cls: int, _: Real) -> None:
            self.tick(passes * work(self.terms.terms[cls]))

        with np.errstate(all="ignore"):
            return evaluate(self.terms, Float64(self.inputs, **options), [*self.roots, *self.watched], visit=visit)


def _jumps(terms: Terms, roots: Sequence[int]) -> set[int]:
    """The jumps behind the outputs: rounding, ArgMax, or a comparison that is no Relu's (x * pos(x) has none).

    Execution may saturate at a jump just as float64 does, so that only noise tells whether it is near.
    """
    order = terms.order(roots)
    relus = set()
    for cls in order:
        term = terms.terms[cls]
        if isinstance(term.verb, Ew) and term.verb.fn == "mul":
            a, b = (terms.find(x) for x in term.args)
            for step, x in ((a, b), (b, a)):
                if _is_step(terms, step) and terms.find(terms.terms[step].args[0]) == x:
                    relus.add((cls, step))
    found = {root for root in map(terms.find, roots) if _is_step(terms, root)}
    for cls in order:
        term = terms.terms[cls]
        match term.verb:
            case Ew(fn) if fn != "pos" and function(fn).jumps:
                found.add(cls)
            case Rows(fn) if "arg" in fn:
                found.add(cls)
        found |= {arg for arg in map(terms.find, term.args) if _is_step(terms, arg) and (cls, arg) not in relus}
    return found


def _is_step(terms: Terms, cls: int) -> bool:
    verb = terms.terms[cls].verb
    return isinstance(verb, Ew) and verb.fn == "pos"


def replayed(x: np.ndarray, y: np.ndarray) -> float:
    """How far two executions are apart where both have a value."""
    return _magnitude(minus(x, y)[np.isfinite(x) & np.isfinite(y)])


def minus(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x - y in float64."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.subtract(x, y, dtype=np.float64))


def _apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """|x - y|; 0 where neither has a value, if any element has one."""
    size, absent = np.abs(minus(x, y)), np.isnan(x) & np.isnan(y)
    return np.where(absent, 0.0, size) if absent.any() and not absent.all() else size


def _place(size: np.ndarray, rank: int) -> int:
    """Where the element of a rank stands, counted from the largest one."""
    return int(size.argmax() if rank == 1 else np.argpartition(size, -rank)[-rank])


def _ranked(size: np.ndarray, rank: int) -> float:
    return _largest(size) if rank == 1 else float(size[_place(size, rank)])


def _moved(x: np.ndarray, exact: np.ndarray) -> float:
    """The largest distance from the elements that have a value."""
    return _largest(minus(x, exact)[np.isfinite(exact)])


def _alike(shown: tuple[np.ndarray, np.ndarray], exact: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Where an execution has values on the same sides as float64, and about the same."""
    alike = np.ones(exact[0].shape, bool)
    for x, y in zip((s.reshape(-1) for s in shown), exact, strict=True):
        near = np.abs(minus(x, y)) <= _SAME * np.maximum(1.0, np.abs(y))
        alike &= np.where(np.isfinite(y), near, ~np.isfinite(x))
    return alike


def _magnitude(x: np.ndarray) -> float:
    return float(np.abs(x[np.isfinite(x)]).max(initial=0.0))


def _largest(x: np.ndarray) -> float:
    """max |x|; infinite where a value is unknown."""
    if not x.size:
        return 0.0
    largest = float(np.abs(x).max())
    return math.inf if math.isnan(largest) else largest
