"""The steps of a program in float64, one after the other: what a walk does with each result is handed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphcheck.kernel.terms.verbs import Const, Leaf, Move
from graphcheck.kernel.values.domain import evaluate
from graphcheck.kernel.values.float64 import Float64, Real
from graphcheck.precision.program import Key, Program, Result, Step

Settle = Callable[[Step, Result, np.ndarray], np.ndarray]
Inside = Callable[[Step, Real], None]


def as_is(step: Step, result: Result, value: np.ndarray) -> np.ndarray:
    """Over the reals."""
    return value


def rounding(step: Step, result: Result, value: np.ndarray) -> np.ndarray:
    """As the declared type has it."""
    kind = result.kind
    return value if kind is None or step.keeps else kind.rounded(value)


def noisy(seed: int) -> Settle:
    """One draw of roundings: each result moved by noise of its type's size."""
    random = np.random.default_rng([seed, 61])

    def settle(step: Step, result: Result, value: np.ndarray) -> np.ndarray:
        kind = result.kind
        if kind is None or step.keeps:
            return value
        size = kind.unit * np.abs(value) if kind.is_float else 12**-0.5  # as large as a rounding is in the mean
        moved = value + size * random.standard_normal(value.shape)
        return np.where(kind.rounded(value) == value, value, moved)  # what the type holds is not moved

    return settle


def walk(
    program: Program,
    fed: Mapping[Key, np.ndarray],
    settle: Settle = as_is,
    inside: Inside | None = None,
    keep: dict[Key, np.ndarray] | None = None,
    tick: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Each output by name, flat; ``fed`` are the inputs and constants, ``inside`` sees what is computed within a step, and
    ``keep`` is filled with every value that was settled; ``tick`` is called before each step."""
    known: dict[Key, np.ndarray] = dict(fed)
    last = {key: place for place, step in enumerate(program.steps) for key in step.reads}
    wanted = {key for key in program.outputs.values() if isinstance(key, tuple)}
    for place, step in enumerate(program.steps):
        tick()
        visit = None if inside is None else _seen(program, inside, step)
        with np.errstate(all="ignore"):
            found = evaluate(program.terms, Float64(known, bounds=False), [r.cls for r in step.results], visit=visit)
            for result in step.results:
                known[result.key] = settle(step, result, found[program.terms.find(result.cls)].value)
        for key in step.reads:
            if keep is None and last[key] == place and key not in wanted:
                known.pop(key, None)
    if keep is not None:
        keep |= known
    return {
        name: known[key] if isinstance(key, tuple) else key.astype(np.float64).reshape(-1)
        for name, key in program.outputs.items()
    }


def _seen(program: Program, inside: Inside, step: Step) -> Callable[[int, Any], None]:
    def visit(cls: int, value: Real) -> None:
        if not isinstance(program.terms.terms[cls].verb, (Const, Leaf, Move)):
            inside(step, value)

    return visit


def fed(program: Program, feeds: Mapping[str, np.ndarray]) -> dict[Key, np.ndarray]:
    """The inputs and the stored constants of a program, flat, in float64."""
    given = {key: feeds[key[1]] for key in program.inputs}
    return {key: x.astype(np.float64).reshape(-1) for key, x in {**given, **program.constants}.items()}


def largest(values: np.ndarray) -> float:
    """The largest magnitude, infinities and what is not known left out."""
    size = np.abs(values)
    return float(size.max(initial=0.0, where=np.isfinite(size)))
