"""How numbers, shapes, sizes, long names and verdicts are written wherever people read them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

GLYPHS = {"identical": "≡", "proved": "✓", "within-rounding": "≈", "undecided": "?", "different": "≠"}
GLYPHS |= {"clean": "✓", "convicted": "✗"}  # of blame
LONGEST = 72  # characters of a name
# C0, C1, line separators, and the marks that reverse the direction of text: names in a model are not to be trusted.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def safe(text: object) -> str:
    """``text`` on one line, its control characters written out (``\\x1b``), so that no name can move the cursor."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def cut(text: str, limit: int) -> str:
    """``text`` without its middle where it is longer than ``limit``: the two ends of a name tell most."""
    head = limit // 2
    return text if len(text) <= limit else f"{text[:head]}…{text[-(limit - head - 1) :]}"


def short(text: object, limit: int = LONGEST) -> str:
    """``safe(text)``, cut to ``limit`` characters."""
    return cut(safe(text), limit)


def number(value: object, digits: int = 2) -> str:
    """A measure for people: integers in full, floats to ``digits`` digits, ``-`` where there is none."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return safe(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}"
    return f"{value:.{digits}g}" if 1e-3 <= abs(value) < 10**digits else f"{value:.{digits - 1}e}"


def plural(count: int, noun: str) -> str:
    """``1 node``, ``2 nodes``, ``no nodes``."""
    return f"{number(count) if count else 'no'} {noun}{'' if count == 1 else 's'}"


def dims(shape: object, limit: int = LONGEST) -> str:
    """A shape such as ``2×3×224×224``: a symbolic dim by its name of at most ``limit`` characters, an unknown one ``?``."""
    if not isinstance(shape, list | tuple):
        return "?" if shape is None else safe(shape)
    return "×".join("?" if dim is None else short(dim, limit) for dim in shape) or "scalar"


def shapes(of: Mapping[str, Sequence[int | str]]) -> str:
    """Named shapes, as ``--shape`` takes them: ``x=2x3x224x224, ...``."""
    return ", ".join(f"{name}={'x'.join(map(str, shape)) or 'scalar'}" for name, shape in of.items()) or "no inputs"


def size(count: int) -> str:
    """Bytes as ``3.5 GiB`` or ``512 MiB``."""
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


def divergence(found: Mapping[str, Any]) -> str:
    """The first divergence in one phrase: ``Gelu node act of B (tensor t9); Gelu node gelu of A (tensor t7)``."""
    places = [(side.upper(), found[side]) for side in ("b", "a") if found.get(side)]
    return "; ".join(
        f"{short(place['op_type'])} node {short(place['node'])} of {side} (tensor {short(place['tensor'])})"
        for side, place in places
    )
