"""The public functions; what does the work is imported when they are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphcheck.errors import UsageError
from graphcheck.options import (
    AssertOptions,
    Blaming,
    ModuleOptions,
    Options,
    ProvedOptions,
    RewriteOptions,
    keywords,
    keywords_behind_form,
)
from graphcheck.verdict import EXIT_OK, Comparison, Verdict

if TYPE_CHECKING:
    from graphcheck.blaming.record import Blame
    from graphcheck.exporting import Manifest
    from graphcheck.files.model import ModelLike
    from graphcheck.patches.site import Analysis
    from graphcheck.rewriting.result import Rewrite


@keywords(ModuleOptions)
def compare(a: ModelLike | Any, b: ModelLike | Any, options: ModuleOptions) -> Comparison:
    """Whether two models are the same function: the verdict, its reason and its evidence.

    Args:
        a: The reference: a path, an ``onnx.ModelProto``, an ``onnx_ir.Model``, a ``torch.onnx.ONNXProgram`` or a
            ``torch.nn.Module``.
        b: The model to compare with it, as ``a``; one of the two may be a module.
        options: Each a keyword of its own.

    Raises:
        UsageError: for options that there are not or that do not fit the models, and for ``args`` that do not fit the
            module.
        ModelError: for a model that cannot be read. A limit that is reached raises nothing: it is ``undecided``.
    """
    from graphcheck import torch_side
    from graphcheck.verdicts.compare import compared

    a, b = torch_side.model_of(a), torch_side.model_of(b)
    modules = [torch_side.is_module(side) for side in (a, b)]
    called = options.args is not None or options.kwargs is not None
    if not any(modules):
        if called:
            raise UsageError("args and kwargs are for a torch.nn.Module, and neither side is one")
        return compared(a, b, options)
    if all(modules) or not called:
        raise UsageError("a torch.nn.Module is compared with an ONNX model, on args=(...)")
    module, model = (a, b) if modules[0] else (b, a)
    return torch_side.compare_module(module, model, options, compared)


@keywords(AssertOptions)
def assert_equivalent(a: ModelLike | Any, b: ModelLike | Any, options: AssertOptions) -> Comparison:
    """The comparison, if it establishes ``require``; for test suites.

    Args:
        a: As for :func:`compare`.
        b: As for :func:`compare`.
        options: Each a keyword of its own.

    Raises:
        AssertionError: with the verdict, its reason and the first divergence, if ``require`` is not established.
        UsageError: as :func:`compare`, and for another ``require``.
        ModelError: as :func:`compare`.
    """
    __tracebackhide__ = True  # pytest then shows the test's own line
    from graphcheck.words import divergence

    given = options.keywords()
    require, report = given.pop("require") or str(Verdict.WITHIN_ROUNDING), given.pop("report")
    accept = given.pop("accept")
    result = compare(a, b, **given)
    if result.exit_code(Verdict(require), accept) == EXIT_OK:
        return result
    lines = [f"{result.verdict}: {result.reason} (required: {require})"]
    if found := result.evidence.get("divergence"):
        lines.append(f"first divergence: {divergence(found)}")
    if witness := result.evidence.get("witness"):
        lines.append(f"witness: {witness.get('path') or witness.get('kind')}")
    if report is not None:
        from graphcheck import reporting

        reporting.write([result.to_json()], report)
        lines.append(f"report: {report}")
    raise AssertionError("\n".join(lines))


@keywords(Blaming)
def blame(model: ModelLike, tensors: str | Path | Mapping[str, Any], options: Blaming) -> Blame:
    """Which operators of a device are wrong: each is evaluated on what the device itself gave it, and held against rounding.

    Args:
        model: What the device was given: a path, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or a
            ``torch.onnx.ONNXProgram``.
        tensors: What it dumped: a path, or arrays by the names of the model's tensors.
        options: Each a keyword of its own.

    Raises:
        UsageError: for options that there are not, for a dump that cannot be read or that holds nothing of the model.
        ModelError: for a model that cannot be read. A limit that is reached raises nothing: it is ``undecided``.
    """
    from graphcheck.blaming.blame import blamed
    from graphcheck.torch_side import model_of

    return blamed(model_of(model), tensors, options)


def analyze(model: ModelLike) -> Analysis:
    """The patch embeddings of a model (``.sites``), projections to pixels (``.unembeddings``), movement between pixels and
    channels (``.movements``), and what looks like one of the first two but is none (``.refusals``).

    Nothing is run; symbolic dims stay symbolic. Ordinary convolutions are sites too (``Site.ordinary``).

    Args:
        model: A path, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or a ``torch.onnx.ONNXProgram``; it is left as it is.

    Raises:
        ModelError: for a model that cannot be read.
        Undecided: where a limit on time or memory was reached.
    """
    from graphcheck.files.model import read
    from graphcheck.patches.preparing import prepared
    from graphcheck.torch_side import model_of

    return prepared(read(model_of(model)), movement=True).analysis


@keywords_behind_form(ProvedOptions)
def rewrite(model: ModelLike, to: str = "conv", options: ProvedOptions = ...) -> Rewrite:  # type: ignore[assignment]
    """A rewrite of a model's patch embeddings and un-embeddings to one form; ``.model`` is the original where no proof is found.

    Args:
        model: A path, an ``onnx.ModelProto``, an ``onnx_ir.Model`` or a ``torch.onnx.ONNXProgram``; it is left as it is.
        to: ``conv``, ``matmul``, ``unfold`` or ``space-to-depth``; ``conv-transpose``, ``matmul`` or ``depth-to-space`` of
            an un-embedding.
        options: Each a keyword of its own.

    Raises:
        UsageError: for a form, site or option that there is not.
        ModelError: for a model that cannot be read.
    """
    from graphcheck.files.model import read
    from graphcheck.rewriting.rewrite import rewrite as rewrite_model
    from graphcheck.torch_side import model_of

    settled = dataclasses.replace(options, graphs=False)
    proof = settled.of(Options).keywords()
    asked = settled.of(RewriteOptions).keywords()

    def prove(original: Any, rewritten: Any) -> Comparison:
        return compare(original, rewritten, **proof)

    return rewrite_model(read(model_of(model)), to, check=options.check or prove, **asked)


def export(names: str | Iterable[str], out_dir: str | Path = "models", seed: int = 0) -> Manifest:
    """Exports variants or families of one function in many forms: what was written (``.models``), what was not (``.failures``).

    Args:
        names: Variants or families, as ``graphcheck export --list`` names them.
        out_dir: The folder for ``NAME.onnx`` and ``manifest.json``; it is made where it is missing.
        seed: Of the weights, at least 0.

    Raises:
        GraphcheckError: for a name that there is not, a folder that cannot be written, or an extra (``torch``,
            ``keras``) that is not installed.
    """
    from graphcheck.exporting import export as export_models

    return export_models([names] if isinstance(names, str) else names, out_dir, seed)
