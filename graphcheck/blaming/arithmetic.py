"""The arithmetic of a device: what it may do to a number, by the formats that it stores and adds in.

A result is rounded to its type once, or kept as it is; whichever way it rounds, it moves by at most one spacing, two unit
roundoffs. Numbers below the least normal one may be flushed to 0. What is read may have been rounded when it was dumped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck.kernel.values.bounds import held
from graphcheck.precision import kinds
from graphcheck.precision.program import Result, is_free

_FEW, _TENSORS = 4096, 64  # elements, and tensors, that a format is guessed from
_MOST = 0.9  # of the tensors that a format has to hold


@dataclasses.dataclass(frozen=True)
class Format:
    """A floating format: its unit roundoff, its largest and least normal number, and the relative error of an operand of a
    product, where operands are cut to fewer digits than are stored."""

    name: str
    unit: float
    high: float
    normal: float
    operand: float = 0.0

    @property
    def over(self) -> float:
        """A magnitude from which on a number may be infinite."""
        return self.high * (1 - 2 * self.unit)


_SINGLE, _TOP = 2.0**-24, float(np.finfo(np.float32).max)
FORMATS = {
    each.name: each
    for each in (
        Format("float64", 2.0**-53, float(np.finfo(np.float64).max), float(np.finfo(np.float64).tiny)),
        Format("float32", _SINGLE, _TOP, 2.0**-126),
        Format("tf32", _SINGLE, _TOP, 2.0**-126, 2.0**-10),
        Format("int8", _SINGLE, _TOP, 2.0**-126),
        Format("float16", 2.0**-11, 65504.0, 2.0**-14),
        Format("bfloat16", 2.0**-8, float(2.0**127 * (2 - 2.0**-7)), 2.0**-126),
    )
}


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """What results are stored in, and what is added in within a node; ``guessed`` are the words that were not given."""

    store: Format
    inside: Format
    guessed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """``precision`` in the JSON."""
        return {"precision": self.store.name, "accumulate": self.inside.name, "guessed": list(self.guessed)}

    def of(self, *dtypes: np.dtype[Any]) -> Format:
        """The format of a tensor of these types, declared and dumped: the coarsest, since each may have rounded it."""
        found = [self.store]
        for dtype in dtypes:
            kind = kinds.of(dtype)
            if kind is not None and kind.is_float:
                found.append(FORMATS.get(kind.name, Format(kind.name, kind.unit, kind.high, kind.normal)))
            elif dtype == np.float32:
                found.append(FORMATS["float32"])
        if len(found) == 1:
            return found[0]
        unit, normal = max(each.unit for each in found), max(each.normal for each in found)
        return Format(found[0].name, unit, min(each.high for each in found), normal, found[0].operand)


def chosen(
    precision: str | None, accumulate: str | None, tensors: Mapping[str, np.ndarray], results: Sequence[Result]
) -> Arithmetic:
    """As it was asked for, or as the dumped results of the model and their declared types say."""
    guessed = tuple(name for name, given in (("precision", precision), ("accumulate", accumulate)) if given is None)
    store = FORMATS[precision or _guess(tensors, results)]
    wide = FORMATS["float64"] if store.name == "float64" else FORMATS["float32"]
    return Arithmetic(store, FORMATS[accumulate] if accumulate else wide, guessed)


def _guess(tensors: Mapping[str, np.ndarray], results: Sequence[Result]) -> str:
    """The narrowest format that holds nearly all of what is dumped; int8 where most of it is quantized."""
    names, types = [r.name for r in results if r.name in tensors], [r.dtype for r in results]
    seen = {name: _some(np.asarray(tensors[name])) for name in names[:: max(1, len(names) // _TENSORS)]}
    narrow = [x for x in seen.values() if x.dtype.itemsize == 1 and x.dtype.kind in "iu"]
    floats = [np.asarray(x, np.float64) for x in seen.values() if is_free(x.dtype)]
    if len(narrow) > len(floats) or 2 * sum(t.itemsize == 1 and t.kind in "iu" for t in types) > max(len(types), 1):
        return "int8"
    telling = [x for x in floats if (x != np.rint(x)).any()]  # every format holds small whole numbers
    declared = [t for t in types if is_free(t)]
    for name in ("float16", "bfloat16"):
        if telling and sum(_holds(name, x) for x in telling) >= _MOST * len(telling):
            return name
        if 2 * sum(t.name == name for t in declared) > len(declared):
            return name
    return "float64" if declared and all(t == np.float64 for t in declared) else "float32"


def _some(x: np.ndarray) -> np.ndarray:
    """A few elements from all over an array."""
    flat = x.reshape(-1)
    begins = range(0, flat.size, flat.size // 4) if flat.size > _FEW else ()
    return np.concatenate([flat[at : at + _FEW // 4] for at in begins]) if begins else flat


def _holds(name: str, x: np.ndarray) -> bool:
    """Whether a format holds some elements of an array exactly; subnormal numbers of float16 have fewer digits."""
    some, steps = x[np.isfinite(x)], np.ldexp(x[np.isfinite(x)], 24)
    fine = held(some, FORMATS[name].unit)
    if name == "float16":
        fine = np.where(np.abs(some) < FORMATS[name].normal, steps == np.rint(steps), fine)
    return bool((np.abs(some) <= FORMATS[name].high).all() and fine.all())
