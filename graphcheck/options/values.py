"""The values of options: parsers of what a command line says, and checks. UsageError says what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from graphcheck import limits
from graphcheck.codes import CODES
from graphcheck.errors import UsageError

FLOATS = ("float16", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz")
STEPPED = ("int8", "int4", "int16")
ROUNDINGS = (*FLOATS, *STEPPED)  # formats that a copy may be rounded to


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """(name, sizes) of ``--shape x=1,3,224,224``, or ``x=1x3x224x224``; ``x=`` is a scalar."""
    name, equals, sizes = text.rpartition("=")
    if not equals or not name or not re.fullmatch(r"(\d+([,x]\d+)*)?", sizes.replace(" ", "")):
        raise UsageError(f"--shape takes NAME=SIZE,SIZE,... such as x=1,3,224,224, not {text!r}")
    return name, tuple(int(size) for size in re.split("[,x]", sizes)) if sizes.strip() else ()


def parse_range(text: str) -> tuple[str, float, float]:
    """(name, low, high) of ``--val-range x=0,1``, or of ``0,1`` (name ``""``) for every input."""
    name, _, bounds = text.rpartition("=")
    try:
        low, high = (float(bound) for bound in bounds.split(","))
    except ValueError:
        raise UsageError(f"--val-range takes NAME=LOW,HIGH such as x=0,1, not {text!r}") from None
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(f"--val-range needs finite bounds, the lower one first, not {text!r}")
    return name, low, high


def parse_shard(name: str, text: str) -> tuple[int, int]:
    """(which, of how many) of ``--shard 2/5``."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"{name} takes I/N, the I-th of N parts, such as 2/5, not {text!r}")
    return int(found[1]), int(found[2])


def parse_resources(name: str, texts: Iterable[str]) -> dict[str, float]:
    """Numbers above 0 by the name of a resource, from ``gpu=1``."""
    found = parse_numbers(name, texts)
    if any(amount <= 0 for amount in found.values()):
        raise UsageError(f"{name} takes amounts above 0, such as gpu=1")
    return found


def codes(name: str, value: Iterable[str]) -> tuple[str, ...]:
    """Codes of reasons that a comparison may be accepted with; :class:`UsageError` for any other text."""
    known = [code for code in CODES if code.startswith("GC2")]
    for code in (given := names(name, value)):
        if code not in known:
            raise UsageError(
                f"{name} takes a code from {known[0]} to {known[-1]} that docs/reference/codes.md lists, not {code!r}"
            )
    return given


# Parsers: of the option's name and what was given for it, a list where the option is repeatable.


def parse_shapes(name: str, texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes by the name of an input."""
    return dict(map(parse_shape, texts))


def parse_ranges(name: str, texts: Iterable[str]) -> dict[str, tuple[float, float]]:
    """(low, high) by the name of an input."""
    return {key: (low, high) for key, low, high in map(parse_range, texts)}


def parse_numbers(name: str, texts: Iterable[str]) -> dict[str, float]:
    """A number by the name of an input, from ``sr=16000``."""
    found = {}
    for text in texts:
        key, _, value = text.rpartition("=")
        try:
            found[key] = float(value)
        except ValueError:
            key = ""
        if not key or not math.isfinite(found[key]):
            raise UsageError(f"{name} takes NAME=NUMBER such as sr=16000, not {text!r}")
    return found


def parse_tolerances(name: str, texts: Iterable[str]) -> dict[str, float]:
    """Tolerances by the name of an output, from ``1e-3`` (name ``""``) and ``tokens:1e-3``."""
    found: dict[str, float] = {}
    for text in texts:
        key, _, number = text.rpartition(":")
        try:
            found |= tolerance(name, {key: float(number)})
        except ValueError:
            raise _no_tolerance(name, text) from None
    return found


def parse_allowed(name: str, texts: Iterable[str]) -> tuple[str, ...]:
    """Formats, ``ulps=N`` and ``steps=N``."""
    return allowed(name, parse_separated(name, texts))


def allowed(name: str, given: Any) -> tuple[str, ...]:
    """The same, as a list."""
    found = names(name, given)
    for text in found:
        if text not in ROUNDINGS and not re.fullmatch(r"ulps=[1-9]\d{0,3}|steps=[1-9]", text):
            raise UsageError(f"{name} takes {', '.join(ROUNDINGS)}, ulps=N (1 to 9999) or steps=N (1 to 9), not {text!r}")
        if text.startswith("steps=") and not {*STEPPED}.intersection(found):
            raise UsageError(f"{name} {text} goes with a format that has steps, as in {name} int8,{text}")
    return tuple(found)


def parse_separated(name: str, texts: Iterable[str]) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(part.strip() for text in texts for part in text.split(","))


def parse_size(name: str, text: str) -> int:
    """Bytes of ``6G``."""
    return limits.parse_size(text)


def parse_int(name: str, text: str) -> int:
    """An integer."""
    return int(text)


# Checks: of a name and a value in Python; what they return is kept.


def mapping(name: str, value: Mapping[str, Iterable[Any]]) -> dict[str, tuple[Any, ...]]:
    """Tuples by name."""
    return {key: tuple(numbers) for key, numbers in dict(value).items()}


def numbers(name: str, value: Mapping[str, float]) -> dict[str, float]:
    """Finite numbers by name."""
    found = {key: float(number) for key, number in dict(value).items()}
    if odd := [number for number in found.values() if not math.isfinite(number)]:
        raise UsageError(f"{name} takes finite numbers, not {odd[0]}")
    return found


def names(name: str, value: Iterable[Any]) -> tuple[Any, ...]:
    """Several of them, and no text, which would be taken letter by letter."""
    if isinstance(value, str):
        raise UsageError(f"{name} takes a list, not {value!r}")
    return tuple(value)


def by_output(value: float | Mapping[str, float]) -> dict[str, float]:
    """A tolerance by the name of an output, ``""`` for every other one."""
    return dict(value) if isinstance(value, Mapping) else {"": value}


def tolerance(name: str, value: float | Mapping[str, float]) -> dict[str, float]:
    """Numbers of at least 0 by the name of an output."""
    found = by_output(value)
    for key, bound in found.items():
        if not (math.isfinite(bound) and bound >= 0):
            raise _no_tolerance(name, f"{key}:{bound:g}" if key else f"{bound:g}")
    return found


def _no_tolerance(name: str, text: str) -> UsageError:
    return UsageError(f"{name} takes a number of at least 0, such as 1e-3 or NAME:1e-3, not {text!r}")


def seconds(name: str, value: float) -> float:
    """Above 0."""
    if not value > 0:
        raise UsageError(f"{name} takes seconds above 0, not {value:g}")
    return value


def probability(name: str, value: float) -> float:
    """Between 0 and 1."""
    if not 0 < value < 1:
        raise UsageError(f"the error probability must lie between 0 and 1, not {value}")
    return value


def one_of(*allowed: Any) -> Callable[[str, Any], Any]:
    """One of these."""

    def check(name: str, value: Any) -> Any:
        if value not in allowed:
            raise UsageError(f"{name} is one of {', '.join(map(str, allowed))}, not {value!r}")
        return value

    return check
