"""Two passes of Microsoft Olive (olive-ai 0.13): ``{"type": "PatchEmbedding", "to": "conv"}`` rewrites, and
``{"type": "Equivalence", "reference": "net.onnx"}`` checks what the passes before it made.

Olive finds them by a package configuration, which takes the place of Olive's own: ``python -m graphcheck.olive``
prints one with Olive's passes and these, for ``olive run --package-config FILE``. ``olive.json`` beside this file
has these alone.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any, ClassVar

from olive.hardware.accelerator import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam
from olive.search.search_parameter import Categorical

from graphcheck import api
from graphcheck.errors import GraphcheckError, UsageError
from graphcheck.files import model as model_
from graphcheck.options import AssertOptions, Options, RewriteOptions, Rewriting, about, default_of
from graphcheck.rewriting import movement as moving
from graphcheck.rewriting.forms import NAMES
from graphcheck.rewriting.result import Rewrite
from graphcheck.rewriting.rewrite import rewrite

logger = logging.getLogger(__name__)

_LONGEST = 240  # bytes in a name of a file, roughly
PACKAGE = Path(__file__).with_suffix(".json")


def _parameter(field: dataclasses.Field[Any], type_: Any, **more: Any) -> PassConfigParam:
    """What Olive is told of an option."""
    default, said = default_of(field), about(field)
    return PassConfigParam(
        type_=type_,
        default_value=None if default in ((), {}) else default,
        description=said.doc or said.help,
        **more,
    )


class Equivalence(Pass):
    """Compares the model with a reference, and stops the workflow where it is not established to be the same function."""

    _FIELDS: ClassVar[dict[str, Any]] = {
        "require": str,
        "allow": list[str],
        "every": list[str],
        "ranges": dict[str, tuple[float, float]],
        "seed": int,
        "timeout": float,
        "report": str,
    }

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        fields = {field.name: field for field in dataclasses.fields(AssertOptions)}
        reference = PassConfigParam(
            type_=str, required=True, description="The model that the result has to be, an ONNX file."
        )
        return {"reference": reference} | {name: _parameter(fields[name], type_) for name, type_ in cls._FIELDS.items()}

    @classmethod
    def validate_config(cls, config: type[BasePassConfig], accelerator_spec: AcceleratorSpec) -> bool:
        """Whether the options are right."""
        try:
            AssertOptions(**{name: getattr(config, name) for name in cls._FIELDS})
        except UsageError as error:
            logger.warning("graphcheck: %s", error)
            return False
        return bool(super().validate_config(config, accelerator_spec))

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        given = config.model_dump()
        try:
            found = api.assert_equivalent(given.pop("reference"), model.model_path, **given)
        except (AssertionError, GraphcheckError) as error:
            raise ValueError(f"graphcheck: {error}") from None
        told = {"verdict": str(found.verdict), "reason": found.reason}
        return ONNXModelHandler(**(model.to_json()["config"] | {"model_attributes": _attributes(model, told)}))


_TYPES = {"sites": list[str], "max_rank": int}  # of the options of a rewrite that are no switches


class PatchEmbedding(Pass):
    """Rewrites patch embeddings to one form; the model goes on as it is where that is not proved to be the same."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        fields = {field.name: field for group in (Rewriting, Options) for field in dataclasses.fields(group)}

        return {
            "to": _parameter(fields["to"], str, search_defaults=Categorical(list(NAMES))),
            **{field.name: _parameter(field, _TYPES.get(field.name, bool)) for field in dataclasses.fields(RewriteOptions)},
            "seed": _parameter(fields["seed"], int),
            "timeout": _parameter(fields["timeout"], float),
        }

    @classmethod
    def validate_config(cls, config: type[BasePassConfig], accelerator_spec: AcceleratorSpec) -> bool:
        """Whether the form is known."""
        known = config.to in NAMES or config.to in moving.FORMS
        if not known:
            logger.warning("graphcheck knows no form %r", config.to)
        return bool(super().validate_config(config, accelerator_spec) and known)

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        given = config.model_dump()
        proof = {"seed": given.pop("seed"), "timeout": given.pop("timeout"), "graphs": False}
        to = given.pop("to")
        try:
            result = rewrite(
                model_.read(model.model_path),
                to,
                check=lambda a, b: api.compare(a, b, **proof),
                **given,
            )
        except UsageError as error:
            raise ValueError(str(error)) from None
        if not result.changed:
            logger.warning("graphcheck left %s as it is: %s", model.model_path, _why(result))
            return model
        path = Path(resolve_onnx_path(output_model_path, Path(model.model_path).name))
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = model_.write(result.model, path)
        told = {"verdict": str(result.verdict), "reason": result.reason, "sites": [a.site.name for a in result.applied]}
        return ONNXModelHandler(
            model_path=str(path.parent if beside else path),
            onnx_file_name=path.name if beside else None,
            model_attributes=_attributes(model, told),
        )


def _attributes(model: ONNXModelHandler, told: dict[str, Any]) -> dict[str, Any]:
    """The model's attributes with what graphcheck tells, cut: Olive asks of each text whether it is the path of a file."""
    told["reason"] = told["reason"].encode()[:_LONGEST].decode(errors="ignore")
    return {**(model.model_attributes or {}), "graphcheck": told}


def _why(result: Rewrite) -> str:
    return "; ".join([result.reason, *(f"{r.node}: {r.reason}" for r in result.refusals[:4])])


def package_config() -> dict[str, Any]:
    """Olive's package configuration with these passes added."""
    config: dict[str, Any] = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8"))
    config["passes"] |= json.loads(PACKAGE.read_text(encoding="utf-8"))["passes"]
    return config


if __name__ == "__main__":
    print(json.dumps(package_config(), indent=2))
