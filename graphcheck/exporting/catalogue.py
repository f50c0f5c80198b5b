"""The catalogue: every variant that ``graphcheck export`` knows, as plain data (no exporter is imported here)."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Literal

Dim = int | str
Exporter = Literal["tf2onnx", "torchscript", "dynamo"]

OPSET = 18
TORCH_EXPORTERS: tuple[Exporter, ...] = ("torchscript", "dynamo")
TORCH_BATCHES: tuple[Dim, ...] = (1, "batch")
KERAS_BATCHES: tuple[Dim, ...] = (1, 2, "batch")
KERAS_FORMS = ("conv", "unfold", "reshape-p1p2c")
PATCH_FORMS = (
    "conv",
    "unfold",
    "reshape-p1p2c",
    "reshape-cp1p2",
    "reshape-cp2p1",
    "tensor-unfold",
    "pixel-unshuffle",
)
VIT_FORMS = ("conv", "reshape-p1p2c", "unfold")


@dataclasses.dataclass(frozen=True)
class VitSize:
    """The sizes of a vision transformer: token width, layers, attention heads, image side and patch side in pixels."""

    hidden: int
    layers: int
    heads: int
    image: int
    patch: int


# family -> (class of transformers, sizes); the sizes differ on purpose
VITS: dict[str, tuple[str, VitSize]] = {
    "vit": ("ViTModel", VitSize(48, 2, 3, 64, 16)),
    "deit": ("DeiTModel", VitSize(48, 2, 3, 64, 16)),
    "dinov2": ("Dinov2Model", VitSize(32, 3, 2, 56, 14)),
    "clip-vision": ("CLIPVisionModel", VitSize(64, 2, 4, 64, 16)),
    "siglip-vision": ("SiglipVisionModel", VitSize(64, 3, 4, 32, 8)),
    "beit": ("BeitModel", VitSize(48, 2, 3, 64, 16)),
}
BENCHMARK_VITS: dict[str, tuple[str, VitSize, tuple[str, ...]]] = {
    "vit-tiny16": ("ViTModel", VitSize(192, 12, 3, 224, 16), VIT_FORMS),
    "vit-b16": ("ViTModel", VitSize(768, 12, 12, 224, 16), ("conv",)),
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One model of the catalogue: a function (its family), written in one form, by one exporter, with one batch axis.

    ``inputs`` holds a (name, shape) pair for each input; an int is a static dim, a string a symbolic one. ``kernel``
    and ``stride`` are those of the convolution that the family is, in pixels; ``outputs`` counts its output channels.
    ``known_equal`` names the variants of the family that are the same function by construction and admit a common
    input shape (not all of them need be exportable). ``requires`` is the extra that must be installed; ``benchmark``
    keeps a variant out of ``--all``.
    """

    name: str
    family: str
    form: str
    exporter: Exporter
    opset: int
    inputs: tuple[tuple[str, tuple[Dim, ...]], ...]
    dynamic_batch: bool
    kernel: int
    stride: int
    outputs: int
    requires: Literal["torch", "keras"]
    seed: int = 0
    known_equal: tuple[str, ...] = ()
    benchmark: bool = False

    @property
    def patch(self) -> int | None:
        """The patch size in pixels, or None where the windows overlap and hence are no patches."""
        return self.kernel if self.kernel == self.stride else None

    @property
    def image(self) -> tuple[int, int, int]:
        """The input's static shape behind the batch axis, in the axis order of its framework."""
        first, second, third = self.inputs[0][1][1:]
        return int(first), int(second), int(third)

    def input_shape(self, batch: int) -> tuple[int, ...]:
        """The shape of the only input, its batch axis set to ``batch`` where it is symbolic."""
        return tuple(batch if isinstance(dim, str) else dim for dim in self.inputs[0][1])


def catalogue() -> list[Variant]:
    """Every variant, family by family, with ``known_equal`` filled in; names are unique."""
    variants = [*_keras(), *_convolution(), *_torch_patches(), *_vits()]
    families: dict[str, list[Variant]] = defaultdict(list)
    for variant in variants:
        families[variant.family].append(variant)
    return [
        dataclasses.replace(variant, known_equal=tuple(_partners(variant, families[variant.family])))
        for variant in variants
    ]


def _partners(variant: Variant, family: Sequence[Variant]) -> Iterator[str]:
    """Members whose input shapes admit ``variant``'s: static batch 1 and static batch 2 are different interfaces."""
    for other in family:
        pairs = zip(variant.inputs[0][1], other.inputs[0][1], strict=True)
        if other is not variant and all(a == b or isinstance(a, str) or isinstance(b, str) for a, b in pairs):
            yield other.name


def _keras() -> Iterator[Variant]:
    """The article's three models, with and without bias, and 3x3 convolution = im2col + Dense."""
    for bias, form, batch in itertools.product(("", "-bias"), KERAS_FORMS, KERAS_BATCHES):
        yield _variant(f"article-keras{bias}", form, "tf2onnx", batch, (224, 224, 3), 16, 16, 32)
    for form, batch in itertools.product(("conv", "unfold"), KERAS_BATCHES):
        yield _variant("convolution-keras", form, "tf2onnx", batch, (32, 32, 3), 3, 1, 16)


def _convolution() -> Iterator[Variant]:
    """The article's general claim, in torch: a padded 3x3 convolution of stride 1 is im2col and a matrix product."""
    for form, exporter, batch in itertools.product(("conv", "unfold"), TORCH_EXPORTERS, TORCH_BATCHES):
        yield _variant("convolution", form, exporter, batch, (3, 32, 32), 3, 1, 16)


def _torch_patches() -> Iterator[Variant]:
    """Patch embeddings of 224x224 images in every form; the sizes are the article's, ViT-B/16's and DINOv2-S/14's."""
    for (patch, outputs), form, exporter, batch in itertools.product(
        ((16, 32), (16, 768), (14, 384)), PATCH_FORMS, TORCH_EXPORTERS, TORCH_BATCHES
    ):
        yield _variant(f"torch-p{patch}d{outputs}", form, exporter, batch, (3, 224, 224), patch, patch, outputs)


def _vits() -> Iterator[Variant]:
    """Whole vision transformers: small ones of six architectures, and two of real size for the benchmarks."""
    small = [(family, size, VIT_FORMS, False) for family, (_, size) in VITS.items()]
    large = [(family, size, forms, True) for family, (_, size, forms) in BENCHMARK_VITS.items()]
    for family, size, forms, benchmark in small + large:
        for form, exporter, batch in itertools.product(forms, TORCH_EXPORTERS, TORCH_BATCHES):
            image = (3, size.image, size.image)
            variant = _variant(family, form, exporter, batch, image, size.patch, size.patch, size.hidden)
            yield dataclasses.replace(variant, benchmark=benchmark)


def _variant(
    family: str,
    form: str,
    exporter: Exporter,
    batch: Dim,
    image: tuple[int, int, int],
    kernel: int,
    stride: int,
    outputs: int,
) -> Variant:
    suffix = "dynamic" if isinstance(batch, str) else "static" if batch == 1 else f"static-b{batch}"
    return Variant(
        name=f"{family}-{form}-{exporter}-{suffix}",
        family=family,
        form=form,
        exporter=exporter,
        opset=OPSET,
        inputs=(("pixels", (batch, *image)),),
        dynamic_batch=isinstance(batch, str),
        kernel=kernel,
        stride=stride,
        outputs=outputs,
        requires="keras" if exporter == "tf2onnx" else "torch",
    )
