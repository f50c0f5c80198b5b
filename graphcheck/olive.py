"""The rewrite as a pass of Microsoft Olive (olive-ai 0.13): ``{"type": "PatchEmbedding", "to": "conv"}``.

Olive finds it by a package configuration, which takes the place of Olive's own: ``python -m graphcheck.olive``
prints one with Olive's passes and this one, for ``olive run --package-config FILE``. ``olive.json`` beside this file
has this pass alone.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from olive.hardware.accelerator import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam
from olive.search.search_parameter import Categorical

from graphcheck import api
from graphcheck.errors import UsageError
from graphcheck.files import model as model_
from graphcheck.options import Options, Rewriting, about, default_of
from graphcheck.rewriting.forms import NAMES
from graphcheck.rewriting.rewrite import Rewrite, rewrite

logger = logging.getLogger(__name__)

PACKAGE = Path(__file__).with_suffix(".json")


class PatchEmbedding(Pass):
    """Rewrites patch embeddings to one form; the model goes on as it is where that is not proved to be the same."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        fields = {field.name: field for group in (Rewriting, Options) for field in dataclasses.fields(group)}

        def parameter(name: str, type_: Any, **more: Any) -> PassConfigParam:
            default = default_of(fields[name])
            said = about(fields[name])
            return PassConfigParam(
                type_=type_, default_value=None if default == () else default, description=said.doc or said.help, **more
            )

        return {
            "to": parameter("to", str, search_defaults=Categorical(list(NAMES))),
            "sites": parameter("sites", list[str]),
            "max_rank": parameter("max_rank", int),
            "fold_normalization": parameter("fold_normalization", bool),
            "seed": parameter("seed", int),
            "timeout": parameter("timeout", float),
        }

    @classmethod
    def validate_config(cls, config: type[BasePassConfig], accelerator_spec: AcceleratorSpec) -> bool:
        """Whether the form is known."""
        known = config.to in NAMES
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
        about = {"verdict": str(result.verdict), "reason": result.reason, "sites": [a.site.name for a in result.applied]}
        return ONNXModelHandler(
            model_path=str(path.parent if beside else path),
            onnx_file_name=path.name if beside else None,
            model_attributes={**(model.model_attributes or {}), "graphcheck": about},
        )


def _why(result: Rewrite) -> str:
    return "; ".join([result.reason, *(f"{r.node}: {r.reason}" for r in result.refusals[:4])])


def package_config() -> dict[str, Any]:
    """Olive's package configuration with this pass added."""
    config: dict[str, Any] = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text(encoding="utf-8"))
    config["passes"] |= json.loads(PACKAGE.read_text(encoding="utf-8"))["passes"]
    return config


if __name__ == "__main__":
    print(json.dumps(package_config(), indent=2))
