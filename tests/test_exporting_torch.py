"""torch: every form is one function, both exporters end to end on tiny sizes, and what they cannot do."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from graphcheck.exporting import Variant, catalogue, export_variants
from graphcheck.exporting.catalogue import PATCH_FORMS, VIT_FORMS, VITS

pytestmark = pytest.mark.torch
VARIANTS = {variant.name: variant for variant in catalogue()}


def tiny(form: str, exporter: str, batch: str) -> Variant:
    """A variant of 8x12 images and patches of 4 instead of 224x224 and 16."""
    variant = VARIANTS[f"torch-p16d32-{form}-{exporter}-{batch}"]
    inputs = (("pixels", (variant.inputs[0][1][0], 3, 8, 12)),)
    return dataclasses.replace(variant, inputs=inputs, kernel=4, stride=4, outputs=5)


def run_model(path: Path, pixels: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"pixels": pixels}))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape, np.float32)


def reference(variant: Variant, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The tokens in float64 from the family's Conv weight (d, c, p1, p2), and a bound on float32's rounding of them."""
    from graphcheck.exporting import torch_models

    conv: Any = torch_models.build(dataclasses.replace(variant, form="conv")).projection
    weight, bias = (np.float64(parameter.detach().numpy()) for parameter in (conv.weight, conv.bias))
    batch, channels, height, width = pixels.shape
    patch = variant.kernel
    grid = pixels.astype(np.float64).reshape(batch, channels, height // patch, patch, width // patch, patch)

    def project(grid: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return np.einsum("bcipjq,dcpq->bijd", grid, weight).reshape(batch, -1, len(weight)) + bias

    # Higham, Accuracy and Stability, 3.1: a sum of k products, in any order, is within gamma_(k+1) of its absolute sum
    terms = (weight[0].size + 1) * 2.0**-24
    return project(grid, weight, bias), terms / (1 - terms) * project(abs(grid), abs(weight), abs(bias))


CASES = [
    *itertools.product(PATCH_FORMS, ["torchscript"], ["static", "dynamic"]),
    *itertools.product(PATCH_FORMS, ["dynamo"], ["dynamic"]),
    ("conv", "dynamo", "static"),  # one is enough: each takes half a second
]


@pytest.mark.parametrize(("form", "exporter", "batch"), CASES)
def test_every_form_is_the_family_function(tmp_path: Path, form: str, exporter: str, batch: str) -> None:
    variant = tiny(form, exporter, batch)
    (model,) = export_variants([variant], tmp_path).models
    pixels = normal(1 if batch == "static" else 5, 3, 8, 12)
    (tokens,) = run_model(tmp_path / model.file, pixels)
    expected, bound = reference(variant, pixels)
    assert tokens.shape == expected.shape
    assert (abs(tokens - expected) <= bound).all()
    # the bound is no free pass: the transposed grid of the same tokens breaks it
    swapped = expected.reshape(len(pixels), 2, 3, -1).swapaxes(1, 2).reshape(expected.shape)
    assert not (abs(tokens - swapped) <= bound).all()


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_export_is_deterministic_and_names_no_place(tmp_path: Path, exporter: str) -> None:
    variant = tiny("unfold", exporter, "dynamic")
    contents = []
    for folder in ("a", "b"):
        (model,) = export_variants([variant], tmp_path / folder).models
        contents.append((tmp_path / folder / model.file).read_bytes())
    assert contents[0] == contents[1]
    assert b"site-packages" not in contents[0] and b".py" not in contents[0]
    assert (b"pkg.torch.onnx.name_scopes" in contents[0]) == (exporter == "dynamo")
    (model,) = export_variants([dataclasses.replace(variant, seed=1)], tmp_path / "c").models
    assert (tmp_path / "c" / model.file).read_bytes() != contents[0]


def test_convolution_family_is_one_function() -> None:
    import torch

    from graphcheck.exporting import torch_models

    pixels = torch.from_numpy(normal(2, 3, 32, 32)).double()
    conv, unfold = (
        torch_models.build(VARIANTS[f"convolution-{form}-dynamo-static"]).double() for form in ("conv", "unfold")
    )
    with torch.no_grad():
        assert conv(pixels).shape == (2, 32 * 32, 16)
        assert (conv(pixels) - unfold(pixels)).abs().max() < 1e-12


@functools.cache
def vit_outputs(family: str, form: str, changed: bool = False) -> list[np.ndarray]:
    import torch

    from graphcheck.exporting import torch_models

    variant = VARIANTS[f"{family}-{form}-dynamo-dynamic"]
    module = torch_models.build(variant).double()
    with torch.no_grad():
        if changed:
            next(parameter for name, parameter in module.named_parameters() if "projection" in name)[0] *= 1.01
        outputs = module(torch.from_numpy(normal(2, *variant.image)).double())
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


@pytest.mark.parametrize("family", VITS)
def test_vit_forms_are_one_function(family: str) -> None:
    from graphcheck.exporting import torch_models

    own = vit_outputs(family, "conv")
    names = torch_models.output_names(VARIANTS[f"{family}-conv-dynamo-dynamic"])
    assert len(own) == len(names) == (1 if family in ("vit", "deit") else 2)
    for form in VIT_FORMS[1:]:
        for output, expected in zip(vit_outputs(family, form), own, strict=True):
            # in float64 but for the softmax, which transformers takes in float32
            assert abs(output - expected).max() < 1e-5 * abs(expected).max()
    changed = vit_outputs(family, "unfold", changed=True)
    assert any(abs(a - b).max() > 1e-4 * abs(b).max() for a, b in zip(changed, own, strict=True))


@pytest.mark.parametrize("family", VITS)
def test_no_parameter_is_zero_or_neutral(family: str) -> None:
    from graphcheck.exporting import torch_models

    for name, parameter in torch_models.build(VARIANTS[f"{family}-conv-dynamo-static"]).named_parameters():
        assert (parameter != 0).all(), name
        assert parameter.numel() == 1 or parameter.std() > 0.01, name


def test_building_leaves_the_callers_random_numbers_alone() -> None:
    import torch

    from graphcheck.exporting import torch_models

    before = torch.get_rng_state()
    torch_models.build(VARIANTS["vit-conv-dynamo-static"])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("form", "exporter"), [("unfold", "torchscript"), ("reshape-p1p2c", "dynamo")])
def test_vit_end_to_end(tmp_path: Path, form: str, exporter: str) -> None:
    variant = VARIANTS[f"siglip-vision-{form}-{exporter}-dynamic"]
    (model,) = export_variants([variant], tmp_path).models
    outputs = run_model(tmp_path / model.file, normal(2, *variant.image))
    for output, expected in zip(outputs, vit_outputs("siglip-vision", "conv"), strict=True):
        assert abs(output - expected).max() < 1e-5 * abs(expected).max()


def broken(kind: str) -> Any:
    """A module that no exporter can do, or one whose traced batch size the TorchScript exporter bakes in."""
    import torch

    class Eigenvalues(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(pixels[:, 0, :4, :4]).real

    class Unflatten(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            batch = pixels[..., 0].unflatten(1, (1, 3)).shape[0]
            return torch.ones(1, 2).expand(batch, -1) + pixels[:, 0, 0, :2]

    return {"eigenvalues": Eigenvalues, "unflatten": Unflatten}[kind]().eval()


@pytest.mark.parametrize(
    ("kind", "exporter", "error"),
    [
        ("eigenvalues", "torchscript", "torchscript raises UnsupportedOperatorError: Exporting the operator 'aten::"),
        ("eigenvalues", "dynamo", "dynamo raises DispatchError: No ONNX function found for"),
        ("unflatten", "torchscript", "a batch of 1 gives an output of shape [2, 2]"),
    ],
)
def test_what_cannot_be_exported_is_recorded_in_silence(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    kind: str,
    exporter: str,
    error: str,
) -> None:
    from graphcheck.exporting import torch_models

    monkeypatch.setattr(torch_models, "build", lambda variant: broken(kind))
    (failure,) = export_variants([tiny("conv", exporter, "dynamic")], tmp_path).failures
    assert failure.error.startswith(error)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert capfd.readouterr() == ("", "")


def test_the_exporter_makes_its_registry_once_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    from graphcheck.exporting import torch_export

    made, make = [], ONNXRegistry.from_torchlib
    counted = staticmethod(lambda **given: made.append(given) or make(**given))
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", counted)
    torch_export._made_once.cache_clear()
    variant = tiny("conv", "dynamo", "static")
    shared = [torch_export.to_onnx(variant) for _ in range(2)]
    assert len(made) == 1
    monkeypatch.setattr(torch_export, "_one_registry", contextlib.nullcontext)
    assert torch_export.to_onnx(variant) == shared[0] == shared[1] and len(made) == 2
