"""Inputs made for two graphs: at the thresholds, bounds and ties that only one of them has, and steps that enlarge |A - B|.

Inputs drawn at random never meet a tie, and seldom a rare case. Here inputs take values of the graphs' own constants
(just at them, beside and beyond), halves and integers (exact in every float), and are moved by the derivatives until a
value deep inside stands at its jump.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.interface.inputs import WORDS, Arrays, leaves_of
from graphcheck.interface.ports import Interface
from graphcheck.kernel.proof.pair import Pair
from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Ew
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64
from graphcheck.kernel.values.gather import picked
from graphcheck.parting.budget import Budget, work
from graphcheck.parting.slopes import derivatives

Roots = Sequence[tuple[int, int]]
Bounds = Callable[[str, np.ndarray], np.ndarray]

_SMALL, _MOST = 16, 48  # constants of at most so many elements are looked at, and so many numbers of them kept;
_TABLE = 2**16  # those that one graph alone has are looked for in larger ones, too: the thresholds of a forest
_STEERED, _PLACES = 8, 32  # jumps, and elements of each that stand out, which inputs are steered to
_WORK = 2_000_000  # in graphs of at most so many elements
_STEERING = 1.2e8  # work (see budget.py) for steering
_SOLVING = 15.0  # evaluations that one solution takes: values and derivatives, three times
_SIDES = (0.0, 2.0**-8, -(2.0**-8), 1.0, -1.0)  # how far behind a jump: at it, close to it, beyond it
_CLIMBS, _CLIMBING = 60, 1e8  # steps, and work for them


def probes(
    pair: Pair,
    interface: Interface,
    roots: Roots,
    seed: int,
    budget: Budget,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, Arrays]]:
    """(kind, inputs by pair key), the cheapest first. Integer inputs that steer a graph are left as they were traced.

    ``check`` stops where the time is over.
    """
    rng = np.random.default_rng([seed, 77])
    numbers = constants(pair.terms, roots)
    for kind, pool in (
        ("constants of the models", numbers),
        ("halves and integers", _grid()),
        ("integers but 0", np.asarray([1.0, 2, 3, 5, 7, 50, 100, 200, -1, -2, -3, -5, -7, -50, -100, -200])),
        ("equal elements", rng.choice(_grid(), 1)),
    ):
        if pool.size:
            yield kind, _drawn(pair, interface, pool, rng)
    order = pair.terms.order([c for root in roots for c in root])
    if sum(map(pair.terms.size, order)) <= _WORK:
        yield from _steered(pair, interface, roots, rng, budget, check)


def constants(terms: Terms, roots: Roots) -> np.ndarray:
    """Numbers at and around the small constants of both graphs; those of one graph alone come first."""
    a, b = (set(terms.order([row[side] for row in roots])) & terms.arrays.keys() for side in (0, 1))
    alone = np.setxor1d(_sizes(terms, a - b, _TABLE), _sizes(terms, b - a, _TABLE))
    found = dict.fromkeys(alone.tolist() if alone.size <= _MOST else [])
    for cls in sorted(a | b, key=lambda c: ((c in a) == (c in b), c)):
        found |= dict.fromkeys(_sizes(terms, [cls], _SMALL).tolist())
    base = np.sort(np.asarray(list(found)[:_MOST]))
    if not base.size:
        return base
    with np.errstate(over="ignore"):  # beside the largest float is infinity
        near = np.float32(base)
        around = [base, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf)), base + 1, 2 * base]
    around += [base[:1] / 2, (base[1:] + base[:-1]) / 2, base * (1 + 2.0**-10)]
    whole = np.concatenate([np.asarray(x, np.float64) for x in around])
    return np.concatenate([whole, -whole])


def _sizes(terms: Terms, classes: Iterable[int], most: int) -> np.ndarray:
    """The sizes of the numbers but 0 in constants of at most ``most`` elements."""
    arrays = [terms.arrays[cls] for cls in classes]
    flat = [x.reshape(-1).astype(np.float64) for x in arrays if x.size <= most and x.dtype.kind not in "bOSU"]
    values = np.abs(np.concatenate([np.zeros(0), *flat]))
    return np.unique(values[np.isfinite(values) & (values > 0)])


def climb(
    terms: Terms,
    roots: Roots,
    start: Mapping[str, np.ndarray],
    fits: Bounds,
    seed: int,
    budget: Budget,
    check: Callable[[], None] = lambda: None,
) -> Arrays:
    """The start, moved by random steps as long as they enlarge the relative |A - B| of the worst output."""
    rng = np.random.default_rng([seed, 78])
    best, size = dict(start), apart(terms, roots, start)
    floats = [name for name, value in start.items() if value.dtype.kind == "f" and value.size]
    over, once = budget.until(_CLIMBING), _cost(terms, [c for root in roots for c in root])
    for _ in range(_CLIMBS if floats else 0):
        check()
        if over() or budget.over:
            break
        budget.take(once)
        name = floats[int(rng.integers(len(floats)))]
        with np.errstate(over="ignore", invalid="ignore"):  # a narrow float may become infinite, which shows nothing
            moved = _moved(best[name].astype(np.float64), rng).astype(best[name].dtype)
        candidate = {**best, name: fits(name, moved)}
        now = apart(terms, roots, candidate)
        if now > size:
            best, size = candidate, now
    return best


def _moved(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    step, some = int(rng.integers(5)), rng.random(x.shape) < 0.5
    factor = 4.0 ** int(rng.integers(-4, 5))
    if step == 0:
        return x * factor
    if step == 1:
        return np.where(some, x, x * factor)
    if step == 2:
        return np.where(some, x, -x)
    if step == 3:
        return np.where(some, x, 0.0)
    return x + rng.standard_normal(x.shape) * (np.abs(x).max(initial=0.0) or 1.0) * factor


def apart(terms: Terms, roots: Roots, arrays: Mapping[str, np.ndarray]) -> float:
    """The relative |A - B| of the worst output in float64; what is not finite does not count."""
    values = _values(terms, [c for root in roots for c in root], arrays)
    worst = 0.0
    with np.errstate(all="ignore"):
        for a, b in roots:
            x, y = values[terms.find(a)], values[terms.find(b)]
            scale = float(np.abs(x).max(initial=0.0))
            apart = float(np.abs(x - y).max(initial=0.0)) / (scale or 1.0)
            worst = max(worst, apart if np.isfinite(apart) else 0.0)
    return worst


def _values(terms: Terms, classes: Sequence[int], arrays: Mapping[str, np.ndarray]) -> dict[int, np.ndarray]:
    with np.errstate(all="ignore"):
        found = evaluate(terms, Float64(leaves_of(arrays), bounds=False), classes)
    return {cls: value.value for cls, value in found.items()}


def _grid() -> np.ndarray:
    return np.arange(-4.0, 4.5, 0.5)


def _drawn(pair: Pair, interface: Interface, pool: np.ndarray, rng: np.random.Generator) -> Arrays:
    """Every element from the pool; integers rounded, booleans at random."""
    arrays = {}
    for port in interface.inputs:
        side = port.a or port.b
        assert side is not None
        shape, dtype = pair.shapes[port.key], side.numpy_dtype()
        values = rng.choice(np.asarray(WORDS, object) if dtype.kind == "O" else pool, shape)
        if dtype.kind == "b":
            arrays[port.key] = rng.integers(0, 2, shape).astype(bool)
            continue
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            values = np.clip(np.rint(values), max(info.min, -(2**31)), min(info.max, 2**31 - 1))
        with np.errstate(over="ignore"):
            arrays[port.key] = values.astype(dtype)
    return arrays


def _cost(terms: Terms, classes: Sequence[int]) -> float:
    """The work of one evaluation."""
    return sum(work(terms.terms[c]) for c in terms.order(classes))


def _steered(
    pair: Pair,
    interface: Interface,
    roots: Roots,
    rng: np.random.Generator,
    budget: Budget,
    check: Callable[[], None],
) -> Iterator[tuple[str, Arrays]]:
    """Inputs at which a value that only one graph computes stands at its jump: one coordinate is solved for."""
    terms = pair.terms
    a, b = (set(terms.order([row[side] for row in roots])) for side in (0, 1))
    jumps = [[c for c in sorted(side) if _edge(terms, c) is not None] for side in (a, b)]
    over = budget.until(_STEERING)
    alone = sorted(set(jumps[0]) ^ set(jumps[1]))[:_STEERED]
    for number, cls in itertools.product(range(_PLACES), alone):
        start = _drawn(pair, interface, _grid(), rng)
        places = _standing_out(terms, cls, jumps[cls in a], start)
        if number and not places.size:
            continue
        at = int(rng.choice(places if places.size else terms.size(cls)))
        once = _SOLVING * _cost(terms, [cls])
        for behind in _SIDES[: 3 if number else None]:
            check()
            if over():
                return
            budget.take(once)
            moved = _solved(terms, cls, at, start, behind)
            if moved is not None:
                yield "steered to a jump", moved


def _standing_out(terms: Terms, cls: int, others: Sequence[int], start: Arrays) -> np.ndarray:
    """The elements of a jump that no jump of the other graph has, where those are few: a threshold that was changed."""
    same = [c for c in others if terms.terms[c].verb == terms.terms[cls].verb or terms.size(c) == terms.size(cls)]
    values = _values(terms, [arg for c in (cls, *same) for arg in terms.terms[c].args], start)
    mine, *theirs = (_operands(terms, c, values) for c in (cls, *same))
    alone = np.flatnonzero(~np.isin(mine, np.concatenate(theirs))) if theirs else np.zeros(0, int)
    return alone if 2 * alone.size <= terms.size(cls) else alone[:0]


def _operands(terms: Terms, cls: int, values: Mapping[int, np.ndarray]) -> np.ndarray:
    """The operand of a jump; of a function of two the difference."""
    term, total = terms.terms[cls], np.zeros(terms.size(cls))
    for sign, (arg, map_) in zip((1.0, -1.0), term.views, strict=False):
        value = values[terms.find(arg)]
        total = total + sign * (value if map_ is None else picked([value], map_))
    return total


def _edge(terms: Terms, cls: int) -> Callable[[Any], Any] | None:
    """Where an elementwise function jumps or bends."""
    verb = terms.terms[cls].verb
    return function(verb.fn).edge if isinstance(verb, Ew) else None


def _solved(terms: Terms, cls: int, at: int, start: Arrays, behind: float) -> Arrays | None:
    """The start with one element changed so that element ``at`` of the jump's operand stands there, ``behind`` beyond."""
    term, current, edge = terms.terms[cls], dict(start), _edge(terms, cls)
    assert edge is not None
    args = [terms.find(c) for c in term.args]
    for _ in range(3):  # exact at once where the way there is linear
        values = _values(terms, args, current)
        slopes: dict[tuple[Any, ...], np.ndarray] = {}
        total = 0.0
        for sign, arg, map_ in zip((1.0, -1.0), args, [m for _, m in term.views], strict=False):
            place = (int(map_.index[at]) - 1) if map_ is not None else at if terms.size(arg) > 1 else 0
            total += sign * float(values[arg][place])
            for key, towards in derivatives(terms, leaves_of(current), arg, place).items():
                slopes[key] = sign * towards + slopes.get(key, np.zeros(1))
        gap = float(edge(total)) + behind - total
        found = _coordinate(slopes, current)
        if found is None or not np.isfinite(gap):
            return None
        name, place, slope = found
        moved = current[name].astype(np.float64).reshape(-1)
        moved[place] += gap / slope
        with np.errstate(over="ignore"):
            current[name] = moved.reshape(current[name].shape).astype(current[name].dtype)
        if gap == 0:
            break
    return current


def _coordinate(
    slopes: Mapping[tuple[Any, ...], np.ndarray], arrays: Mapping[str, np.ndarray]
) -> tuple[str, int, float] | None:
    """(input, element, derivative) to move: one whose derivative is a power of two, which divides exactly, else the largest."""
    best: tuple[bool, float, str, int, float] | None = None
    for key, slope in slopes.items():
        if len(key) != 2 or key[1] not in arrays or arrays[key[1]].dtype.kind != "f":
            continue
        sizes = np.where(np.isfinite(slope), np.abs(slope), 0.0)
        exact = (np.frexp(sizes)[0] == 0.5) & (sizes > 2.0**-8)
        place = int(np.where(exact, sizes, 0.0).argmax() if exact.any() else sizes.argmax())
        if sizes[place] > 0:
            row = (bool(exact.any()), float(sizes[place]), str(key[1]), place, float(slope[place]))
            best = row if best is None else max(best, row)
    return None if best is None else best[2:]
