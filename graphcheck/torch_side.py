"""A live torch module as one side of ``compare``: numbers against the module itself, a proof against a fresh export."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import io
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.options import ModuleOptions
from graphcheck.verdict import Comparison, Verdict

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Compare = Callable[[Any, Any, ModuleOptions], Comparison]
# Deviations of a live module from its export beyond this many ulps of the output's largest magnitude are no rounding
# that we would vouch for; torch and onnxruntime stay below a few hundred in a deep float32 transformer.
_FAR = 2.0**14


def is_module(value: object) -> bool:
    """Whether ``value`` is a ``torch.nn.Module``; loads no torch to find out."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def model_of(side: Any) -> Any:
    """The ``ModelProto`` of a ``torch.onnx.ONNXProgram``, any other side as it is; loads no torch to find out."""
    program = getattr(sys.modules.get("torch.onnx"), "ONNXProgram", None)
    return side.model_proto if program is not None and isinstance(side, program) else side


def compare_module(module: Any, model: Any, options: ModuleOptions, check: Compare) -> Comparison:
    """Compares a module with an ONNX model of it (path, ``ModelProto``, ``onnx_ir.Model``).

    The module runs in evaluation mode on the ``args`` and ``kwargs`` of the options, and so does the model in
    onnxruntime: each output's statistics stand in the evidence under ``torch``. Then the module is exported afresh
    (dynamo, else TorchScript), and ``check`` (``compare``) proves that export, as side A, against the model. That the
    export is the module is measured, never proved; the reason says so. Raises UsageError where ``args`` do not fit the
    model's inputs.
    """
    import onnx_ir as ir

    from graphcheck.files import model as model_

    onnx_model = model_.read(model)
    args, kwargs = () if options.args is None else options.args, options.kwargs
    args = tuple(args) if isinstance(args, (tuple, list)) else (args,)  # as torch.onnx.export takes them
    with _evaluation_mode(module):
        feeds = _feeds(onnx_model, args, kwargs or {})
        named = _outputs(module, args, kwargs)
        names = [str(value.name) for value in onnx_model.graph.outputs]
        by_name = sorted(named) == sorted(names)  # a mapping whose keys are the model's outputs, in any order
        expected = [named[name] for name in names] if by_name else list(named.values())
        source = model_.path_of(onnx_model) or ir.to_proto(onnx_model).SerializeToString()
        rows, mismatch = _numbers(onnx_model, source, feeds, expected)
        order = list(named) if by_name else names
        fresh, exporter, errors = _export(module, args, kwargs, onnx_model, order if len(named) == len(names) else None)
    live = {"outputs": rows, "exporter": exporter, "export_errors": errors}
    if fresh is None:
        return _unproved(
            onnx_model, live, mismatch or f"no fresh export could be made ({'; '.join(errors)})", mismatch is not None
        )
    result = check(fresh, model, options)
    evidence = result.evidence | {"torch": live}
    verdict, reason, code = result.verdict, result.reason, result.code
    if mismatch is not None:
        verdict, reason, code = Verdict.DIFFERENT, mismatch, None
    elif verdict not in (Verdict.DIFFERENT, Verdict.UNDECIDED):
        size = max((row["scale_ulp"] or 0.0 for row in rows), default=0.0)
        measured = (
            f"the module itself deviates by up to {size:.2g} ulps of an output's largest magnitude on the given args"
        )
        if size > _FAR or any(row["min_atol"] is None for row in rows):
            verdict, code = Verdict.UNDECIDED, "GC218"
            reason = (
                f"a fresh export ({exporter}) and the model are {result.verdict}, but {measured}: look at the exporter"
            )
        else:
            reason = f"a fresh export of the module ({exporter}) against the model: {reason}; {measured}"
    return Comparison(verdict, reason, evidence, code)


@contextlib.contextmanager
def _evaluation_mode(module: Any) -> Iterator[None]:
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _outputs(module: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The module's output tensors as arrays in order, nested ones flattened: by key where it gives a mapping or a dataclass,
    else by position."""
    import torch

    with torch.no_grad():  # what the module raises on its args is the caller's to see
        result = module(*copy.deepcopy(tuple(args)), **copy.deepcopy(dict(kwargs or {})))
    if dataclasses.is_dataclass(result) and not isinstance(result, (type, Mapping)):
        result = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    if isinstance(result, Mapping) and all(isinstance(value, torch.Tensor) for value in result.values()):
        return {str(key): _array(value) for key, value in result.items()}
    leaves = torch.utils._pytree.tree_leaves(dict(result) if isinstance(result, Mapping) else result)
    return {str(i): _array(leaf) for i, leaf in enumerate(x for x in leaves if isinstance(x, torch.Tensor))}


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

    from graphcheck.files import model as model_

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
    from graphcheck.runs.child import RemoteSession
    from graphcheck.runs.session import RunError
    from graphcheck.runs.statistics import compare_arrays

    names = [str(value.name) for value in model.graph.outputs]
    try:
        with RemoteSession(source) as session:
            outputs = session.run(feeds)
    except RunError as error:
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
    module: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None, model: ir.Model, outputs: list[str] | None
) -> tuple[onnx.ModelProto | None, str | None, list[str]]:
    """A fresh export, the exporter's name, and what failed before it.

    ``outputs`` are the model's names in the module's order. Dims that the model leaves open are left open, where an
    exporter can.
    """
    from graphcheck.files import model as model_

    options: dict[str, Any] = {"kwargs": dict(kwargs or {}), "opset_version": max(model.opset_imports.get("", 18), 18)}
    if not kwargs and outputs is not None:  # equal names pair what belongs together
        options["input_names"] = [str(value.name) for value in model_.required_inputs(model)]
        options["output_names"] = outputs
    errors: list[str] = []
    exporters: list[Any] = [_dynamo, _torchscript]
    if axes := _open_axes(model, args) if "input_names" in options else {}:
        exporters = [functools.partial(_dynamo, axes=axes), functools.partial(_torchscript, axes=axes), *exporters]
    for attempt in exporters:
        exporter = getattr(attempt, "func", attempt)
        try:
            with _quiet():
                fresh = attempt(module, copy.deepcopy(tuple(args)), options)
                model_.read(fresh)  # an export that the checker refuses is none
                return fresh, exporter.__name__.strip("_"), errors
        except Exception as error:  # exporters raise anything
            plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # exporters colour their messages
            text = next((line.strip() for line in plain.splitlines() if line.strip()), "no message")
            errors.append(f"{exporter.__name__.strip('_')}: {type(error).__name__}: {text[:200]}")
    return None, None, errors


Axes = dict[str, dict[int, str]]


def _open_axes(model: ir.Model, args: Sequence[Any]) -> Axes:
    """The symbolic dims of the model's inputs, by name and axis, where every one of ``args`` is a tensor of its rank."""
    import torch

    from graphcheck.files import model as model_

    found: Axes = {}
    inputs = model_.required_inputs(model)
    if len(inputs) != len(args):
        return {}
    for value, arg in zip(inputs, args, strict=True):
        if not isinstance(arg, torch.Tensor) or value.shape is None or len(value.shape) != arg.ndim:
            return {}
        dims = {i: str(dim) for i, dim in enumerate(value.shape) if not isinstance(dim, int)}
        found[str(value.name)] = {i: dim if dim != "None" else f"{value.name}_{i}" for i, dim in dims.items()}
    return found if any(found.values()) else {}


def _dynamo(module: Any, args: tuple[Any, ...], options: dict[str, Any], axes: Axes | None = None) -> onnx.ModelProto:
    import torch

    if axes:
        auto = torch.export.Dim.DYNAMIC
        options = options | {"dynamic_shapes": tuple(dict.fromkeys(open_, auto) or None for open_ in axes.values())}
    program = torch.onnx.export(module, args, dynamo=True, verbose=False, **options)
    if program is None:
        raise GraphcheckError("the exporter returned nothing")
    return program.model_proto


def _torchscript(
    module: Any, args: tuple[Any, ...], options: dict[str, Any], axes: Axes | None = None
) -> onnx.ModelProto:
    import onnx
    import torch

    buffer = io.BytesIO()
    options = options | ({"dynamic_axes": axes} if axes else {})
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
    from graphcheck.files import model as model_

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
    verdict, code = (Verdict.DIFFERENT, None) if different else (Verdict.UNDECIDED, "GC218")
    return Comparison(verdict, reason, evidence, code)
