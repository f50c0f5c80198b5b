"""The roundings that a caller allows, and whether one constant is another one rounded so (Idea 6 of the design).

A format is held to bit for bit: round to nearest, ties to even (IEEE 754), of the other side's constant. What converters do
besides is accepted, and counted apart: what is too large is cut to the largest number, what is too small for the format is lifted
to its least number (by onnxconverter-common to float16 of 1e-7) or becomes 0. ``ulps`` is for constants that both sides have
folded, so that neither has the exact expression.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from graphcheck.kernel.terms.functions import function
from graphcheck.kernel.terms.store import Terms
from graphcheck.kernel.terms.verbs import Ew, Opaque, Rows, ranged
from graphcheck.kernel.values.bounds import FLOAT8, dtype_of, least_of, span

_NAMES = {name.replace("_", ""): name for name in ("float16", "bfloat16", *FLOAT8)}  # ONNX's, and those of the types
FORMATS = {name: dtype_of(own) for name, own in _NAMES.items()}
EDGES = {name: (span(dtype)[1], least_of(dtype)) for name, dtype in FORMATS.items()}  # the largest number, the least
CANCELLED = 2.0**12  # a sum that folding made may be smaller by so much than what was added up
ONE = 2.0**-23  # an ulp of 1 in float32
_PART = 1 << 16  # elements at a time
T = TypeVar("T")
_RARE = 8  # one element of so many may be cut: quantizers clip what lies far out, and no more


@dataclasses.dataclass(frozen=True)
class Told:
    """What a constant is: ``format`` is that of the rounding, ``ulps``, or "" for neither; so many elements are ``cut`` to the
    largest number of the format, ``lifted`` from nothing (or taken to nothing), or ``moved`` by steps that are allowed; ``why``
    it is no such rounding, ``at`` an element; ``needs`` are the ulps that would have to be allowed (of an integer format: how
    many steps it is off)."""

    format: str = ""
    cut: int = 0
    lifted: int = 0
    moved: int = 0
    at: int | None = None
    why: str = ""
    needs: float = math.inf

    @property
    def within(self) -> bool:
        """Whether it is one."""
        return bool(self.format) and not self.why


@dataclasses.dataclass(frozen=True)
class Allowed:
    """Roundings to ``formats`` (keys of :data:`FORMATS`, or integers, so many ``steps`` off), and constants within so many
    ``ulps`` of float32."""

    formats: tuple[str, ...] = ()
    ulps: int = 0
    steps: int = 0

    def __bool__(self) -> bool:
        return bool(self.formats or self.ulps)

    def told(self, x: np.ndarray, y: np.ndarray, errors: tuple[np.ndarray, np.ndarray], *, added: bool) -> Told:
        """Of which kind two constants are that are not the same, as float64 values and the errors that roundings of float32
        bring (0 for a stored one).

        What is ``added`` was often folded by a subtraction, which keeps the ulps of what is subtracted: there an ulp is that of
        the largest element, or of :data:`CANCELLED` times the element if that is less.
        """
        wrong, needs = Told(), _ulps(x, y, errors, added)
        for name in (name for name in self.formats if name in FORMATS):
            for (v, error), (w, other) in (((x, errors[0]), (y, errors[1])), ((y, errors[1]), (x, errors[0]))):
                if not other.any() and (_nearest(w, name) == w).all():
                    found = _rounded(name, v, error, w)
                    if found.within:
                        return found
                    wrong = wrong if wrong.why else found
        if self.ulps and needs <= self.ulps:
            return Told("ulps", needs=needs)
        return dataclasses.replace(wrong, needs=needs)


NOTHING = Allowed()


@np.errstate(all="ignore")
def grid(
    name: str, x: np.ndarray, y: np.ndarray, room: np.ndarray, outwards: Sequence[np.ndarray | None], steps: int = 0
) -> Told:
    """Whether of two constants one is the other one, rounded to whole numbers of steps, or so many ``steps`` off: ``room`` is
    half a step, and ``outwards`` are their values were those at the ends of the grid far behind it (None: that says nothing)."""
    far = np.abs(x - y)
    fits = np.isfinite(far) & np.isfinite(room) & (far <= room * (1 + 2 * steps))
    cut = np.zeros(x.shape, bool)
    for own, other, out in ((x, y, outwards[0]), (y, x, outwards[1])):
        cut |= False if out is None else ~fits & (out != own) & ((other - own) * (out - own) > 0)
    if not (fits | cut).all():
        off = np.where(fits | cut, 0.0, far / (2 * room))
        at = int(np.argmax(np.where(np.isnan(off), np.inf, off)))
        within = f"the nearest, nor within {steps} of it" if steps else "the nearest"
        why = f"{y[at]:.6g} is {off[at]:.3g} steps from {x[at]:.6g}, not {within} in {name}"
        return Told(name, at=at, why=why, needs=float(off[at]))
    if x.any() != y.any():
        return Told(name, at=int(np.argmax(np.maximum(np.abs(x), np.abs(y)))), why=f"nothing of it is left in {name}")
    if cut.sum() * _RARE > cut.size:
        why = f"{cut.sum()} of {cut.size} elements lie beyond the range of its {name}"
        return Told(name, int(cut.sum()), at=int(np.argmax(np.where(cut, far, 0.0))), why=why)
    return Told(name, int(cut.sum()), moved=int((fits & (far > room)).sum()))


_BY_INDEX = ("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND")  # operand 1 says which, the rest is moved


def _ulps(x: np.ndarray, y: np.ndarray, errors: tuple[np.ndarray, np.ndarray], added: bool) -> float:
    """How many ulps of float32 two constants are apart beyond their errors; infinite where those have no bound."""
    largest = max(float(np.max(np.abs(v), initial=0.0)) for v in (x, y))

    def look(p: slice) -> float:
        return _of_part(x[p], y[p], errors[0][p] + errors[1][p], largest if added else 0.0)

    return max(in_parts(look, x.size))


def in_parts(look: Callable[[slice], T], size: int) -> list[T]:
    """What ``look`` says of each part of so many elements, of large ones two at a time."""
    parts = [slice(at, at + _PART) for at in range(0, max(size, 1), _PART)]
    if len(parts) < 4:
        return [look(part) for part in parts]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(look, parts))


def _of_part(x: np.ndarray, y: np.ndarray, error: np.ndarray, largest: float) -> float:
    if not all(np.isfinite(each).all() for each in (x, y, error)):
        return math.inf
    size = np.maximum(np.abs(x), np.abs(y))
    if largest:
        size = np.minimum(largest, size * CANCELLED)
    ulp = np.ldexp(ONE, np.frexp(np.maximum(size, 2.0**-126))[1] - 1)
    return float(np.max((np.abs(x - y) - error) / ulp, initial=0.0))


def _nearest(values: np.ndarray, name: str) -> np.ndarray:
    """As a runtime converts float32: to nearest even; what is too large is cut."""
    most = EDGES[name][0]
    with np.errstate(all="ignore"):
        return np.asarray(np.clip(values, -most, most).astype(np.float32).astype(FORMATS[name]).astype(np.float64))


def _rounded(name: str, v: np.ndarray, error: np.ndarray, w: np.ndarray) -> Told:
    most, least = EDGES[name]
    low, high = (_nearest(edge, name) for edge in (v - error, v + error))
    tiny = (np.abs(v) < least) & (np.abs(w) <= least) & (v * w >= 0) & (least < 2.0**-16)  # that of a float8 is not
    common = (name == "float16") & (np.abs(v) < 1e-7) & (np.abs(w) == np.float16(1e-7)) & (v * w > 0)
    fits = (((low <= w) & (w <= high)) | tiny | common) & np.isfinite(error)
    if not fits.all():
        at = int(np.argmin(fits))
        return Told(name, at=at, why=f"{name} of {v[at]:.9g} is {_nearest(v[at : at + 1], name)[0]:.9g}, not {w[at]:.9g}")
    if v.any() and not w.any():
        return Told(name, at=int(np.argmax(np.abs(v))), why=f"nothing of it is left in {name}")
    return Told(name, int((np.abs(v) > most).sum()), int(((v != w) & (common | (np.abs(v) < least))).sum()))


def steps(terms: Terms, marks: Iterable[int], roots: Sequence[int]) -> list[int]:
    """The classes before the ``roots`` that jump, and that an erased rounding reaches: a comparison, an index, a whole number may
    come out otherwise by it. Unknown functions count, and a step that its own operand multiplies, as in a LeakyRelu, does not."""
    marked, found = {terms.find(c) for c in marks}, dict[int, None]()
    plain, of = dict[int, bool](), dict[int, int]()  # of: what is a step but for constants, and which
    ends = {terms.find(r) for r in roots}
    for cls in terms.order(roots):
        term = terms.terms[cls]
        args = [terms.find(a) for a in term.args]
        for step in {of[a] for a in args if a in of}:
            rest = {a for a in args if of.get(a) != step}
            fn, maps = (term.verb.fn, term.verb.maps) if isinstance(term.verb, Ew) else ("", ())
            relu = fn == "mul" and rest == {*map(terms.find, terms.terms[step].args)} and len({*maps}) == 1
            still = term.size == terms.size(step) and all(m is None for a, m in zip(args, maps, strict=False) if a not in rest)
            if not relu and fn in ("add", "mul") and still and cls not in ends and all(map(terms.constant_like, rest)):
                of[cls] = step  # a LeakyRelu is x * (pos(x) * (1 - s) + s)
                continue
            plain[step] = plain.get(step, True) and relu and terms.terms[step].verb == Ew("pos", (None,))
        if marked.isdisjoint(args):
            continue
        marked.add(cls)
        match term.verb:
            case Opaque(((_, op, *_), *_)) if op in _BY_INDEX and args[1] not in marked:
                pass
            case Opaque(key) if ranged(key):
                pass
            case Ew(fn) if function(fn).jumps:
                found[cls] = None
            case Opaque():
                found[cls] = None
            case Rows(fn) if fn.startswith("arg"):
                found[cls] = None
        if cls in found:
            of[cls] = cls
    return [cls for cls in found if cls in ends or not plain.get(cls, False)]
