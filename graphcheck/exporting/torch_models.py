"""From a variant to its torch module (torch and transformers are imported here)."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn

from graphcheck.exporting.catalogue import BENCHMARK_VITS, VITS, Variant, VitSize
from graphcheck.exporting.torch_forms import FeatureMap, embedding, randomize


def build(variant: Variant) -> nn.Module:
    """The module of ``variant`` in evaluation mode; all members of a family hold the same weights.

    It maps pixels (b, c, height, width) float32 to tokens (b, n, d) for a bare patch embedding, and to the hidden
    states (b, tokens, d) and, where the architecture has it, the pooled output (b, d) for a vision transformer.
    """
    with torch.random.fork_rng(devices=[]):  # constructors draw weights from the caller's generator; leave it alone
        return _build(variant)


def _build(variant: Variant) -> nn.Module:
    seed = variant.seed + zlib.crc32(variant.family.encode())
    if variant.family in VITS or variant.family in BENCHMARK_VITS:
        return _vit(variant, seed)
    # as many pixels of padding as keep a stride-1 convolution's size; none for patches
    padding = 0 if variant.patch else variant.kernel // 2
    conv = nn.Conv2d(variant.image[0], variant.outputs, variant.kernel, variant.stride, padding)
    randomize(conv, seed)
    return embedding(variant.form, conv).eval()


def output_names(variant: Variant) -> list[str]:
    """The names of the outputs that ``build(variant)`` returns, in order."""
    if variant.family not in VITS:
        return ["hidden_states" if variant.family in BENCHMARK_VITS else "tokens"]
    return ["hidden_states", "pooled"] if _pools(VITS[variant.family][0]) else ["hidden_states"]


class _Hidden(nn.Module):
    """A vision transformer of transformers as a function of the pixels alone, returning plain tensors."""

    def __init__(self, model: nn.Module, pooled: bool) -> None:
        super().__init__()
        self.model, self.pooled = model, pooled

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        result = self.model(pixel_values=pixels)
        if self.pooled:
            return result.last_hidden_state, result.pooler_output
        hidden: Tensor = result.last_hidden_state
        return hidden


def _vit(variant: Variant, seed: int) -> nn.Module:
    class_name, size = VITS[variant.family] if variant.family in VITS else BENCHMARK_VITS[variant.family][:2]
    model = _transformer(class_name, size)
    randomize(model, seed)
    # the only Conv2d of these architectures is the patch projection
    (name,) = (name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    if variant.form != "conv":
        conv = model.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        model.set_submodule(name, FeatureMap(embedding(variant.form, conv)))
    return _Hidden(model, len(output_names(variant)) == 2).eval()


def _pools(class_name: str) -> bool:
    """Whether the class is built with a pooled output: ViT and DeiT pool with a layer that classifiers leave out."""
    return class_name not in ("ViTModel", "DeiTModel")


def _transformer(class_name: str, size: VitSize) -> nn.Module:
    import transformers

    model_class = getattr(transformers, class_name)
    settings: dict[str, object] = {
        "hidden_size": size.hidden,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "image_size": size.image,
        "patch_size": size.patch,
        "intermediate_size": 4 * size.hidden,
        "attn_implementation": "eager",
    }
    if class_name == "BeitModel":
        settings |= {"use_relative_position_bias": True, "use_absolute_position_embeddings": True}
    config = model_class.config_class(**settings)
    model: nn.Module = model_class(config) if _pools(class_name) else model_class(config, add_pooling_layer=False)
    return model
