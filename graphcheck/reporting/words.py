"""What the report says of a verdict, and how it writes numbers, names and shapes."""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any, NamedTuple, TypeGuard

from graphcheck import words

MAX_TEXT = 2_000
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class Saying(NamedTuple):
    """The words of one verdict: a glyph (so that colour is never alone), a headline, what it says, what it does not."""

    glyph: str
    headline: str
    says: str
    not_says: tuple[str, ...]


FLOATS = "How float arithmetic rounds is another question: the deviations under Numbers are measured, not proved."
VERDICTS: dict[str, Saying] = {
    "identical": Saying(
        words.GLYPHS["identical"],
        "The same graph",
        "A and B are the same graph up to the names of nodes and inner values, their order and how they are stored. "
        "Every constant is equal bit for bit.",
        ("Whether the model that both are is the one you meant.", "That two runtimes execute it alike."),
    ),
    "proved": Saying(
        words.GLYPHS["proved"],
        "The same function",
        "In exact arithmetic over the stored constants, both give equal outputs for every input, at the shapes named.",
        (
            FLOATS,
            "Shapes other than the ones named, and sizes of free dims that are not said to hold at all of them.",
            "Inputs at which either side is undefined (a division by zero): equality is where both are defined.",
        ),
    ),
    "within-rounding": Saying(
        words.GLYPHS["within-rounding"],
        "The same function, once rounded constants are made exact",
        "A and B are proved equal once each constant listed is replaced by the exact expression it was rounded from.",
        (
            FLOATS,
            "That the stored constants are equal: they differ by the ulps listed.",
            "Shapes other than the ones named, and sizes of free dims that are not said to hold at all of them.",
        ),
    ),
    "different": Saying(
        words.GLYPHS["different"],
        "Not the same",
        "A and B are not the same function, and the evidence is below.",
        ("Which of the two is right.", "How much it matters for your task."),
    ),
    "undecided": Saying(
        words.GLYPHS["undecided"],
        "Not decided",
        "Neither equality nor a difference could be shown. What stopped the proof is named below.",
        (
            "That they differ: no input is known on which they certainly do.",
            "That they are equal, however close the numbers.",
        ),
    ),
    "clean": Saying(
        words.GLYPHS["clean"],
        "No operator is wrong",
        "Each tensor that was judged is what the model's operator may give on the device's own inputs to it.",
        (
            "That the outputs are good enough: drift stands beside it.",
            "Anything of tensors that were not dumped, or not judged.",
            "That there is no mistake smaller than the rounding of the format.",
        ),
    ),
    "convicted": Saying(
        words.GLYPHS["convicted"],
        "An operator is wrong",
        "On the device's own inputs to it, the model's operator gives other numbers than the device, by more than rounding "
        "explains in the arithmetic that is named.",
        ("Why it is wrong, unless a known mistake is named.", "That all that is not convicted is right."),
    ),
}
UNJUDGED = Saying(words.GLYPHS["undecided"], "Nothing was judged", "No tensor of the dump could be held against the model.", ())
_UNKNOWN = Saying("·", "No verdict", "This result carries no verdict that this version of graphcheck knows.", ())

STATUS = {
    "same": "same value on both sides",
    "layout": "same values, moved to another layout",
    "different": "paired by place, values differ",
    "rounded": "paired by place, behind a rounded constant",
    "a": "only in A",
    "b": "only in B",
    "plain": "",
}
_COPY = VERDICTS["within-rounding"]._replace(
    headline="The same function, once the roundings that are allowed are erased",
    says="A and B are proved equal once casts to the formats that were allowed vanish, and each constant listed is the other "
    "side's.",
    not_says=(FLOATS, "How far the numbers of the copy drift.", VERDICTS["within-rounding"].not_says[-1]),
)


def saying(verdict: object, precision: object = None) -> Saying:
    """The words for a verdict, and for a copy whose roundings are allowed (the ``precision`` of the JSON); an unknown one gets
    words that claim nothing."""
    copied = isinstance(precision, dict) and bool(precision.get("allowed") and precision.get("same"))
    return _COPY if copied and verdict == "within-rounding" else VERDICTS.get(str(verdict), _UNKNOWN)


def verdict_class(verdict: object) -> str:
    """A CSS class for the verdict, safe whatever the JSON holds."""
    return f"v-{verdict}" if verdict in VERDICTS else "v-none"


def clean(value: Any) -> Any:
    """A copy of JSON data that is fit for HTML: text bounded and free of control characters, floats finite.

    A text longer than ``MAX_TEXT`` keeps its beginning, its length and a hash, so that two long names stay two names.
    NaN and infinities become the strings "NaN", "inf", "-inf".
    """
    kind = type(value)  # first what is most frequent, and fit as it is
    if kind is str:
        if len(value) <= MAX_TEXT and value.isprintable():
            return value
    elif kind is int or value is None or kind is bool:
        return value
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:8]
            value = f"{value[:MAX_TEXT]}… ({len(value):,} characters, {digest})"
        return _CONTROL.sub("\ufffd", value.replace("\r", "\n"))
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {clean(k if type(k) is str else str(k)): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return list(value) if all(type(v) is int for v in value) else [clean(v) for v in value]
    return value


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a finite number (a bool is none)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any) -> str:
    """A number for people: integers grouped, floats to three digits; anything else as its text, None as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return words.number(value, 3).replace(",", "\u202f") if is_number(value) else str(value)


def cosine(value: Any) -> str:
    """A cosine by its distance from 1, where that is what matters."""
    return f"1 − {1 - value:.1e}" if is_number(value) and 0 < 1 - value < 1e-2 else number(value)


def probability(value: Any) -> str:
    """An error probability as a power of ten ("below 10^-23"), which says more than its digits."""
    if not is_number(value):
        return number(value)
    if value <= 0:
        return "0"
    value = max(value, 1e-300)  # below it, floats end
    return f"{value:.1e}" if value > 1e-3 else f"below 10⁻{_superscript(-math.ceil(math.log10(value)))}"


def _superscript(value: int) -> str:
    return str(value).translate(str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"))


def shape(dims: Any) -> str:
    """A shape as 1×3×224×224; symbolic dims by (shortened) name, unknown ones as "?", no shape as an empty string."""
    if not isinstance(dims, list):
        return "" if dims is None else str(dims)
    return words.dims(dims, 16)


def size(count: Any) -> str:
    """Bytes as kB, MB, GB."""
    if not is_number(count):
        return number(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def duration(milliseconds: Any) -> str:
    """Milliseconds as µs, ms or s."""
    if not is_number(milliseconds):
        return number(milliseconds)
    if milliseconds < 1:
        return f"{milliseconds * 1000:.0f} µs"
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.3g} s"


def short(text: object, limit: int = 64) -> str:
    """A text cut in its middle to ``limit`` characters."""
    return words.cut(str(text), limit)
