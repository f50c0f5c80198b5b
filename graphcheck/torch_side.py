"""A live torch module as one side of ``compare``: numbers against the module itself, a proof against a fresh export."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.verdict import Comparison, Verdict

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Compare = Callable[..., Comparison]
# Deviations of a live module from its export beyond this many ulps of the output's largest magnitude are no rounding
# that we would vouch for; torch and onnxruntime stay below a few hundred in a deep float32 transformer.
_FAR = 2.0**14


def is_module(value: object) -> bool:
    """Whether ``value`` is a ``torch.nn.Module``; loads no torch to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def compare_module(
    module: Any, model: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None, check: Compare, **options: Any
) -> Comparison:
    """Compares a module with an ONNX model of it (path, ``ModelProto``, ``onnx_ir.Model``).

    The module runs in evaluation mode on ``args`` and ``kwargs``, and so does the model in onnxruntime: each output's
    statistics stand in the evidence under ``torch``. Then the module is exported afresh (dynamo, else TorchScript), and
    ``check`` (``compare``) proves that export, as side A, against the model. That the export is the module is measured,
    never proved; the reason says so. Raises UsageError where ``args`` do not fit the model's inputs.
    """
    import onnx_ir as ir

    from graphcheck import model as model_

    onnx_model = model_.read(model)
    with _evaluation_mode(module):
        feeds = _feeds(onnx_model, args, kwargs or {})
        expected = _outputs(module, args, kwargs)
        source = model_.path_of(onnx_model) or ir.to_proto(onnx_model).SerializeToString()
        rows, mismatch = _numbers(onnx_model, source, feeds, expected)
        fresh, exporter, errors = _export(module, args, kwargs, onnx_model, len(expected))
    live = {"outputs": rows, "exporter": exporter, "export_errors": errors}
    if fresh is None:
        return _unproved(
            onnx_model, live, mismatch or f"no fresh export could be made ({'; '.join(errors)})", mismatch is not None
        )
    result = check(fresh, model, **options)
    evidence = result.evidence | {"torch": live}
    verdict, reason = result.verdict, result.reason
    if mismatch is not None:
        verdict, reason = Verdict.DIFFERENT, mismatch
    elif verdict not in (Verdict.DIFFERENT, Verdict.UNDECIDED):
        size = max((row["scale_ulp"] or 0.0 for row in rows), default=0.0)
        measured = (
            f"the module itself deviates by up to {size:.2g} ulps of an output's largest magnitude on the given args"
        )
        if size > _FAR or any(row["min_atol"] is None for row in rows):
            verdict = Verdict.UNDECIDED
            reason = (
                f"a fresh export ({exporter}) and the model are {result.verdict}, but {measured}: look at the exporter"
            )
        else:
            reason = f"a fresh export of the module ({exporter}) against the model: {reason}; {measured}"
    return Comparison(verdict, reason, evidence)


@contextlib.contextmanager
def _evaluation_mode(module: Any) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _outputs(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> list[Any]:
    """The module's output tensors as arrays, nested ones flattened in order."""
    import torch

    with torch.no_grad():  # what the module raises on its args is the caller's to see
        result = module(*copy.deepcopy(tuple(args)), **copy.deepcopy(dict(kwargs or {})))
    return [_array(leaf) for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _array(tensor: Any) -> Any:
    import ml_dtypes
    import numpy as np
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:  # numpy lacks it
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


def _feeds(model: ir.Model, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The model's inputs: tensors in ``kwargs`` by name where the model has it, all others in order."""
    import torch

    from graphcheck import model as model_

    names = [str(value.name) for value in model_.required_inputs(model)]
    by_name = {name: value for name, value in kwargs.items() if name in names}
    others = torch.utils._pytree.tree_leaves((tuple(args), {k: v for k, v in kwargs.items() if k not in by_name}))
    tensors = [leaf for leaf in others if isinstance(leaf, torch.Tensor)]
    rest = [name for name in names if name not in by_name]
    if len(rest) != len(tensors):
        raise UsageError(
            f"args hold {len(tensors) + len(by_name)} tensors, the model takes {len(names)}: {', '.join(names)}"
        )
    return {name: _array(tensor) for name, tensor in (by_name | dict(zip(rest, tensors, strict=True))).items()}


def _numbers(
    model: ir.Model, source: Any, feeds: dict[str, Any], expected: list[Any]
) -> tuple[list[dict[str, Any]], str | None]:
    """Statistics of each output, in order, and what makes module and model different whatever the numbers are."""
    from graphcheck.equivalence import runtime
    from graphcheck.equivalence.statistics import compare_arrays

    names = [str(value.name) for value in model.graph.outputs]
    try:
        outputs = runtime.load(source).run(feeds)
    except runtime.RunError as error:
        return [], f"the module runs on the given args, the model does not: {error}"
    if len(names) != len(expected):
        return [], f"the module gives {len(expected)} tensors, the model {len(names)}: {', '.join(names)}"
    rows = [
        {"output": name} | compare_arrays(array, outputs[name]) for name, array in zip(names, expected, strict=True)
    ]
    for row in rows:
        if row["shape"] != row["shape_b"]:
            shapes = f"{row['shape']} in the module and {row['shape_b']} in the model"
            return rows, f"output {row['output']!r} has shape {shapes} on the given args"
    return rows, None


def _export(
    module: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None, model: ir.Model, outputs: int
) -> tuple[onnx.ModelProto | None, str | None, list[str]]:
    """A fresh export, the exporter's name, and what failed before it."""
    from graphcheck import model as model_

    options: dict[str, Any] = {"kwargs": dict(kwargs or {}), "opset_version": max(model.opset_imports.get("", 18), 18)}
    if not kwargs and len(model.graph.outputs) == outputs:  # equal names pair what belongs together
        options["input_names"] = [str(value.name) for value in model_.required_inputs(model)]
        options["output_names"] = [str(value.name) for value in model.graph.outputs]
    errors: list[str] = []
    for exporter in (_dynamo, _torchscript):
        try:
            with _quiet():
                fresh = exporter(module, copy.deepcopy(tuple(args)), options)
                model_.read(fresh)  # an export that the checker refuses is none
                return fresh, exporter.__name__.strip("_"), errors
        except Exception as error:  # exporters raise anything
            text = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
            errors.append(f"{exporter.__name__.strip('_')}: {type(error).__name__}: {text[:200]}")
    return None, None, errors


def _dynamo(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> onnx.ModelProto:
    import torch

    program = torch.onnx.export(module, args, dynamo=True, verbose=False, **options)
    if program is None:
        raise GraphcheckError("the exporter returned nothing")
    return program.model_proto


def _torchscript(module: Any, args: tuple[Any, ...], options: dict[str, Any]) -> onnx.ModelProto:
    import onnx
    import torch

    buffer = io.BytesIO()
    torch.onnx.export(module, args, buffer, dynamo=False, **options)  # type: ignore[arg-type]
    return onnx.load_model_from_string(buffer.getvalue())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what exporters print to themselves: what matters they raise."""
    sink, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _unproved(model: ir.Model, live: dict[str, Any], reason: str, different: bool) -> Comparison:
    from graphcheck import model as model_

    empty: dict[str, list[Any]] = {"inputs": [], "outputs": [], "notes": [], "mismatches": []}
    evidence = {
        "a": None,
        "b": model_.summary(model),
        "interface": empty,
        "structure": None,
        "numeric": None,
        "proof": None,
    }
    evidence |= {"divergence": None, "witness": None, "torch": live}
    return Comparison(Verdict.DIFFERENT if different else Verdict.UNDECIDED, reason, evidence)
