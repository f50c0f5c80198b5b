"""The code of every reason: stable names for families of sentences, which JSON carries and ``--accept`` takes.

The classes of ``errors.py`` have the codes of what they stand for; a sentence that no class stands for is a :class:`Coded`.
``docs/reference/codes.md`` is this table as a page.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Code(NamedTuple):
    """What a family of reasons means, and what to do."""

    title: str
    advice: str


CODES: dict[str, Code] = {
    "GC101": Code("An option or argument is not allowed.", "The sentence says what is; `--help` lists all."),
    "GC102": Code("A model cannot be read, or is not valid ONNX.", "Look at the file and node that the sentence names."),
    "GC103": Code("A file, a command or a result is not usable.", "The sentence names it and the cause."),
    "GC104": Code("An operator was taught by a function without a record.", "Add the record: see *Add an op*."),
    "GC105": Code("A process ended before it answered.", "Run the pair alone; if it crashes again, report it."),
    "GC201": Code("The time limit was reached.", "Give more with `--timeout`, or fix shapes with `--shape`."),
    "GC202": Code("The memory limit was reached.", "Give more with `--max-memory`, or compare at smaller shapes."),
    "GC203": Code("A loop, or functions in functions, take more steps than are followed.", "Give loops a constant trip count."),
    "GC204": Code(
        "An operator, or a use of one, has no taught meaning.",
        "Teach it (*Add an op*), or inline what it stands for before exporting.",
    ),
    "GC205": Code("An operator is random.", "Export in evaluation mode; no two runs of such a model are the same function."),
    "GC206": Code("A NaN or an infinity among the constants reaches an operator.", "It is named; a mask is best -1e9 or so."),
    "GC207": Code(
        "Sizes or values that a model does not take.",
        "Give shapes with `--shape`, real inputs with `--inputs`, or hold an input with `--fix`.",
    ),
    "GC208": Code("Something that is not evaluated: a type, a sequence, a nesting.", "The sentence names the node."),
    "GC209": Code("The error probability would be above the target.", "Raise `--error-probability`, if that is acceptable."),
    "GC210": Code(
        "Neither a proof nor an input that shows a difference was found.",
        "Look at the first divergence; `--reduce DIR` cuts it out, `--report FILE.html` draws it.",
    ),
    "GC211": Code("It holds at some sizes or samples, and is not shown at all that were asked for.", "What stops it is named."),
    "GC212": Code("Runs in onnxruntime contradict what the operators' definitions say.", "Report it: one of the two is wrong."),
    "GC213": Code(
        "A copy in a narrower format is not the original but for roundings that are allowed.",
        "The constant, the node or the quantizer is named: see *Check a float16 copy*, *Check an int8 copy*.",
    ),
    "GC214": Code("Nothing was compared: no output has an element.", "Give larger shapes with `--shape`."),
    "GC215": Code("The declared types differ, so that deviations alone are told.", "Give the format to `--allow`, if meant."),
    "GC216": Code("A rewrite failed its own check, or is not proved; nothing was written.", "Report it with the model."),
    "GC217": Code(
        "The graphs are the same but for constants that are further apart than their roundings.",
        "The farthest is named; `--allow ulps=N` accepts folded ones.",
    ),
    "GC218": Code("A module could not be exported and proved against the model.", "The sentence says what exporters said."),
    "GC219": Code(
        "What the quantizers of a copy cut off was not looked at.",
        "Give more time with `--timeout`, or smaller inputs with `--shape` or `--inputs`.",
    ),
    "GC230": Code(
        "Within rounding: constants were replaced by the other side's exact expression.",
        "Weaker than `proved`, which `--require proved` asks for.",
    ),
    "GC231": Code("Within rounding: the roundings of a narrower format are erased, as `--allow` says.", "Weaker than `proved`."),
    "GC300": Code("A node or a site is left alone for a reason that the sentence says.", "It is named."),
    "GC301": Code("The data of a contraction are not a regular grid of windows.", "The sentence says where the grid breaks."),
    "GC302": Code("A weight is not constant.", "Export with weights as initializers."),
    "GC303": Code("An operator stands between the patches and the projection.", "It is named; a normalization may fold."),
    "GC304": Code("A node could not be evaluated.", "The sentence has the cause."),
    "GC305": Code("It can be evaluated at one size only.", "Export with a dynamic size, or name the site with `--site`."),
    "GC306": Code("Its inner tensors are needed elsewhere.", "Name the site with `--site` to write the form beside them."),
    "GC307": Code("The form asked for, or the operators of the opset, cannot say it.", "Ask for another form with `--to`."),
    "GC308": Code(
        "It is rewritten only where that is asked for: an ordinary convolution, or movement without a projection.",
        "Name it with `--site`, or give `--ordinary` or `--movement`.",
    ),
    "GC309": Code("A tensor has more dims than `--max-rank`.", "The tensor is named."),
    "GC310": Code("A normalization is not folded.", "The sentence says what keeps it from that."),
    "GC311": Code("It is inside a function that is called from elsewhere.", "Inline the functions of the model."),
    "GC312": Code("onnxruntime has no kernel for the form.", "`--no-run` writes it all the same."),
    "GC401": Code("An input of the operator is neither dumped nor computed.", "Dump it too."),
    "GC402": Code("A tensor was dumped in a shape or a type that is not the model's.", "Look at the layout of the dump."),
    "GC403": Code("What the operator should give is not known.", "The sentence has the cause."),
}  # fmt: skip

OPEN = "GC210"


def joint(given: Collection[str | None]) -> str | None:
    """The code of an answer that several comparisons leave open: theirs if it is one, so that none is accepted unseen."""
    return next(iter(given)) if len(set(given)) == 1 else "GC211"


class Coded(str):
    """A sentence with its code. What is made of it (``+``, ``f""``) is a plain text, so that no code is taken along unseen."""

    code: str

    def __new__(cls, text: str, code: str) -> Coded:
        """The sentence; KeyError for a code that has no row."""
        CODES[code]
        made = super().__new__(cls, text)
        made.code = code
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.code  # a copy has the code too


def of(reason: str) -> str:
    """The code of a sentence; that of an open question where it has none of its own."""
    return reason.code if isinstance(reason, Coded) else OPEN
