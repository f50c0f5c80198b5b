"""Keras: the article's three models are one function, and the one that tf2onnx gets wrong is not written."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from graphcheck.exporting import Variant, catalogue, export_variants

pytestmark = [pytest.mark.keras, pytest.mark.slow]
VARIANTS = {variant.name: variant for variant in catalogue()}


def tiny(name: str) -> Variant:
    """The variant ``name`` on 8x12 images, with patches of 4 where it has patches."""
    variant = VARIANTS[name]
    inputs = (("pixels", (variant.inputs[0][1][0], 8, 12, 3)),)
    sizes = {"kernel": 4, "stride": 4} if variant.patch else {}
    return dataclasses.replace(variant, inputs=inputs, outputs=5, **sizes)


@pytest.mark.parametrize("family", ["article-keras", "article-keras-bias", "convolution-keras"])
def test_family_is_one_function_but_for_unfold_with_dynamic_batch(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, family: str
) -> None:
    variants = [tiny(name) for name, variant in VARIANTS.items() if variant.family == family]
    manifest = export_variants(variants, tmp_path)
    assert capfd.readouterr() == ("", "")
    (failure,) = manifest.failures
    assert failure.variant.name == f"{family}-unfold-tf2onnx-dynamic"
    assert failure.error.startswith("onnx.checker refuses") and "Invalid dimension value: -3" in failure.error
    assert len(manifest.models) == len(variants) - 1
    assert not (tmp_path / f"{failure.variant.name}.onnx").exists()

    pixels = np.random.default_rng(3).standard_normal((2, 8, 12, 3), np.float32)
    expected = None
    for model in manifest.models:
        session = onnxruntime.InferenceSession((tmp_path / model.file).read_bytes(), providers=["CPUExecutionProvider"])
        batches = [pixels[:1], pixels[1:]] if model.variant.inputs[0][1][0] == 1 else [pixels]
        features = np.concatenate([session.run(None, {"pixels": batch})[0] for batch in batches])
        expected = features if expected is None else expected
        assert features.shape == expected.shape
        assert abs(features - expected).max() < 1e-5 < abs(features).max()


def test_export_is_deterministic(tmp_path: Path) -> None:
    """Although tf2onnx numbers its names over the process, in the order of sets."""
    variant = tiny("article-keras-bias-reshape-p1p2c-tf2onnx-dynamic")
    contents = []
    for folder in ("a", "b", "c"):
        (model,) = export_variants([variant], tmp_path / folder).models
        contents.append((tmp_path / folder / model.file).read_bytes())
    assert contents[0] == contents[1] == contents[2]
    assert b"Tensordot" in contents[0] and b"site-packages" not in contents[0]


def test_triton_is_loaded_before_tensorflow(tmp_path: Path) -> None:
    """Behind it, triton's LLVM ends the process; the two stand-ins say when they are loaded."""
    for name in ("triton", "tensorflow"):
        (tmp_path / f"{name}.py").write_text(f"print({name!r})")
    code = "from graphcheck.exporting import keras_export; keras_export._tensorflow()"
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["triton", "tensorflow"]
