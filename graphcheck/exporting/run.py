"""``export``: from names to model files and a manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.exporting.catalogue import Variant, catalogue
from graphcheck.exporting.manifest import Exported, Failure, Manifest, read_manifest, write_manifest
from graphcheck.files import atomic

if TYPE_CHECKING:
    import onnx

Progress = Callable[[Variant, int, int, str | None], None]
EXTRAS = {"torch": ("torch", "onnxscript", "transformers"), "keras": ("tensorflow", "keras", "tf2onnx")}
_LONGEST_ERROR = 240


class Refused(Exception):
    """The exporter made a model, but one that must not be written; the message says who refuses it and why."""


def available(extra: str) -> bool:
    """Whether the packages of ``extra`` ("torch" or "keras") are installed; loads none of them."""
    return all(importlib.util.find_spec(package) for package in EXTRAS[extra])


def select(names: Iterable[str]) -> list[Variant]:
    """The variants of ``names``, each a variant's or a family's, in the catalogue's order; UsageError on others."""
    if isinstance(names, str):
        names = [names]
    variants = catalogue()
    known = {variant.name for variant in variants} | {variant.family for variant in variants}
    wanted = set(names)
    for name in sorted(wanted - known):
        near = difflib.get_close_matches(name, sorted(known), 3, 0.5)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise UsageError(f"{name}: no such variant or family{hint} (`graphcheck export --list` names them)")
    return [variant for variant in variants if {variant.name, variant.family} & wanted]


def export(
    names: Iterable[str], out_dir: str | os.PathLike[str], seed: int = 0, progress: Progress | None = None
) -> Manifest:
    """Exports the variants (or whole families) ``names`` into ``out_dir``; returns what this run wrote and could not.

    Raises UsageError for an unknown name or a negative seed; the rest is ``export_variants``.
    """
    if seed < 0:
        raise UsageError(f"seed {seed}: must not be negative")
    return export_variants([dataclasses.replace(variant, seed=seed) for variant in select(names)], out_dir, progress)


def export_variants(
    variants: Sequence[Variant], out_dir: str | os.PathLike[str], progress: Progress | None = None
) -> Manifest:
    """Exports ``variants``, of the catalogue or not, into ``out_dir``; returns what this run wrote and could not.

    Each model is ``NAME.onnx``; ``manifest.json`` beside them is merged with what is there. A model is written only
    if onnx.checker accepts it and onnxruntime runs it at the batch sizes that it declares; otherwise it becomes a
    Failure, and an older model of that name is removed. ``progress`` is called after each variant with the variant,
    its number from 1, how many there are, and the error or None. Raises GraphcheckError if an extra is missing,
    before anything is written, and where the folder cannot be written.
    """
    for extra in sorted({variant.requires for variant in variants}):
        if not available(extra):
            raise GraphcheckError(f"this export needs packages that are not installed: pip install graphcheck[{extra}]")
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GraphcheckError(f"{folder}: cannot be made a folder of models ({error.strerror})") from error
    before, written = read_manifest(folder), Manifest()
    versions: dict[str, tuple[tuple[str, str], ...]] = {}  # by extra: to ask means to look through all that is installed
    for number, variant in enumerate(variants, 1):
        entry = _export(variant, folder)
        models, failures = ((entry,), ()) if isinstance(entry, Exported) else ((), (entry,))
        if variant.requires not in versions:
            versions[variant.requires] = _versions(variant)
        written = written.merged(Manifest(models, failures, versions[variant.requires]))
        # after each model, so that an interrupted run leaves a manifest that is true
        write_manifest(folder, before.merged(written))
        if progress:
            progress(variant, number, len(variants), entry.error if isinstance(entry, Failure) else None)
    return written


def _export(variant: Variant, folder: Path) -> Exported | Failure:
    """Writes one model; any trouble that is the exporter's becomes a Failure, and an older file of that name goes."""
    path = folder / f"{variant.name}.onnx"
    try:
        with _quiet():
            model = _clean(_to_onnx(variant))
            content = model.SerializeToString(deterministic=True)
            _check(variant, model, content)
    except Exception as error:  # exporters raise anything
        path.unlink(missing_ok=True)
        return Failure(variant, sentence(error, variant.exporter))
    atomic.write_bytes(content, path)
    return Exported(variant, path.name, len(content), hashlib.sha256(content).hexdigest())


def _to_onnx(variant: Variant) -> onnx.ModelProto:
    if variant.requires == "keras":
        from graphcheck.exporting import keras_export

        return keras_export.to_onnx(variant)
    from graphcheck.exporting import torch_export

    return torch_export.to_onnx(variant)


def _clean(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` without doc strings and stack traces, which name files of this machine; module names stay."""
    from google.protobuf.message import Message

    def visit(message: Message) -> None:
        for field, value in message.ListFields():
            if field.name == "doc_string":
                message.ClearField("doc_string")
            elif field.name == "metadata_props":
                kept = [(p.key, p.value) for p in value if not p.key.endswith("stack_trace")]
                message.ClearField("metadata_props")
                for key, text in kept:
                    message.metadata_props.add(key=key, value=text)
            elif field.message_type and field.name != "initializer":
                for part in value if isinstance(value, Iterable) else (value,):
                    visit(part)

    visit(model)
    return model


def _check(variant: Variant, model: onnx.ModelProto, content: bytes) -> None:
    """Raises Refused unless the checker accepts the model and onnxruntime runs it at the batch sizes it declares."""
    import numpy as np
    import onnx
    import onnxruntime

    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        raise Refused(f"onnx.checker refuses the exported model: {error}") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Refused(f"onnxruntime refuses to load the exported model: {error}") from error
    (declared,) = session.get_inputs()
    if variant.dynamic_batch != isinstance(declared.shape[0], str):
        raise Refused(f"the exported batch axis is {declared.shape[0]}, not as asked for")
    # a batch size that tracing baked in shows at another one
    for batch in (1, 3) if variant.dynamic_batch else (1,):
        pixels = np.zeros(variant.input_shape(batch), np.float32)
        try:
            outputs = session.run(None, {declared.name: pixels})
        except Exception as error:
            raise Refused(f"onnxruntime fails on a batch of {len(pixels)}: {error}") from error
        for output in outputs:
            if len(output) != len(pixels):
                raise Refused(f"a batch of {len(pixels)} gives an output of shape {list(output.shape)}")


def sentence(error: BaseException, exporter: str) -> str:
    """What went wrong in one sentence: the first telling line of the innermost cause, without paths of this machine."""
    if not isinstance(error, Refused):
        while error.__cause__ is not None:
            error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = re.sub(r"(/[\w.+-]+){2,}/", "", lines[0] if lines else "no message")
    text = re.sub(r"\s+", " ", text)
    if len(text) > _LONGEST_ERROR:
        text = text[:_LONGEST_ERROR].rsplit(" ", 1)[0] + " ..."
    return text if isinstance(error, Refused) else f"{exporter} raises {type(error).__name__}: {text}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences prints, warnings and logging: what an exporter has to say that matters it raises."""
    previous = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        sink = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _versions(variant: Variant) -> tuple[tuple[str, str], ...]:
    """The versions of the packages that made ``variant``, by distribution (tensorflow's CPU build has another name)."""
    installed = importlib.metadata.packages_distributions()
    packages = (*EXTRAS[variant.requires], "onnx", "onnxruntime")
    return tuple((name, importlib.metadata.version(installed[name][0])) for name in packages)
