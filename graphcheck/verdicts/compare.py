"""``compare``: the same function, or not, or not known; with everything that was seen on the way to the verdict."""

from __future__ import annotations

from graphcheck import limits
from graphcheck.files import model as model_
from graphcheck.interface import loader
from graphcheck.options import Options, keywords
from graphcheck.verdict import Comparison, Verdict
from graphcheck.verdicts.judge import judge


def compared(a: model_.ModelLike, b: model_.ModelLike, options: Options) -> Comparison:
    """:func:`compare` with its options in one piece."""
    with loader.loaded(options) as settled, limits.within(settled.max_memory, settled.timeout):
        return judge(a, b, settled)


@keywords(Options)
def compare(a: model_.ModelLike, b: model_.ModelLike, options: Options) -> Comparison:
    """Whether two models are the same function; each is a path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``.

    Args:
        a: The reference.
        b: The model to compare with it.
        options: Each a keyword of its own.

    Raises:
        UsageError: for options that do not fit the models.
        ModelError: for a model that cannot be read. A limit that is reached raises nothing: it is ``undecided``.
    """
    return compared(a, b, options)


__all__ = ["Comparison", "Verdict", "compare", "compared"]
