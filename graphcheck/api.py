"""The public functions: thin doors to what does the work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcheck.errors import UsageError
from graphcheck.verdict import Comparison, Verdict

if TYPE_CHECKING:
    from graphcheck.exporting import Manifest
    from graphcheck.model import ModelLike
    from graphcheck.patches.site import Analysis
    from graphcheck.rewriting.rewrite import Rewrite


def compare(
    a: ModelLike | Any,
    b: ModelLike | Any,
    *,
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    **options: Any,
) -> Comparison:
    """Whether two models are the same function: the verdict, its reason and its evidence.

    Each side is a path, an ``onnx.ModelProto`` or an ``onnx_ir.Model``; one of them may be a ``torch.nn.Module``, then
    ``args`` (and ``kwargs``) are what it is called with. ``options`` are those of
    :func:`graphcheck.equivalence.compare.compare`: shapes, ranges, inputs, ignore_outputs, seed, run, numerics,
    error_probability, timeout, reduce, witness, providers, threads, iterations, fail_fast, progress.
    Raises GraphcheckError for models that cannot be read and options that do not fit them.
    """
    from graphcheck import torch_side
    from graphcheck.equivalence.compare import compare as compare_models

    modules = [torch_side.is_module(side) for side in (a, b)]
    if not any(modules):
        if args is not None or kwargs is not None:
            raise UsageError("args and kwargs are for a torch.nn.Module, and neither side is one")
        return compare_models(a, b, **options)
    if all(modules) or args is None:
        raise UsageError("a torch.nn.Module is compared with an ONNX model, on args=(...)")
    module, model = (a, b) if modules[0] else (b, a)
    return torch_side.compare_module(module, model, args, kwargs, compare_models, **options)


def assert_equivalent(
    a: ModelLike | Any, b: ModelLike | Any, *, require: str = "within-rounding", **options: Any
) -> Comparison:
    """The comparison, if it establishes ``require``; else AssertionError with the reason and the first divergence.

    For test suites; ``options`` are those of :func:`compare`.
    """
    __tracebackhide__ = True  # pytest then shows the test's own line
    from graphcheck.answers import divergence

    levels = [str(level) for level in Verdict][:3]
    if require not in levels:
        raise UsageError(f"require is one of {', '.join(levels)}, not {require!r}")
    result = compare(a, b, **options)
    if result.verdict.meets(Verdict(require)):
        return result
    lines = [f"{result.verdict}: {result.reason} (required: {require})"]
    if found := result.evidence.get("divergence"):
        lines.append(f"first divergence: {divergence(found)}")
    if witness := result.evidence.get("witness"):
        lines.append(f"witness: {witness.get('path') or witness.get('kind')}")
    raise AssertionError("\n".join(lines))


def analyze(model: ModelLike) -> Analysis:
    """The patch embeddings of a model (``.sites``), and what looks like one but is none (``.refusals``)."""
    from graphcheck.model import read
    from graphcheck.patches.preparing import prepared

    return prepared(read(model))[1]


def rewrite(
    model: ModelLike,
    to: str = "conv",
    *,
    check: Callable[[Any, Any], Comparison] | None = None,
    sites: Sequence[str] | None = None,
    max_rank: int | None = None,
    fold_normalization: bool = False,
    **options: Any,
) -> Rewrite:
    """Rewrites the patch embeddings of a model to the form ``to``: conv, matmul, unfold or space-to-depth.

    The result's ``.model`` is the rewritten clone where ``check(original, rewritten)`` proves it, else the original;
    without ``check`` that is :func:`compare` with ``options``. ``sites`` picks sites by the name of their contraction,
    input or output; ``max_rank`` and ``fold_normalization`` are those of :func:`graphcheck.rewriting.rewrite.rewrite`.
    Raises UsageError for a form or site that there is not.
    """
    from graphcheck.model import read
    from graphcheck.rewriting.rewrite import rewrite as rewrite_model

    def prove(original: Any, rewritten: Any) -> Comparison:
        return compare(original, rewritten, graphs=False, **options)

    return rewrite_model(
        read(model), to, check=check or prove, sites=sites, max_rank=max_rank, fold_normalization=fold_normalization
    )


def export(names: str | Iterable[str], out_dir: str | Path = "models", seed: int = 0) -> Manifest:
    """Exports variants or families (``graphcheck export --list``) into ``out_dir``: what was written, what failed."""
    from graphcheck.exporting import export as export_models

    return export_models([names] if isinstance(names, str) else names, out_dir, seed)
