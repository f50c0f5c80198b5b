"""One convolution written in every form, as torch modules that share its weights (torch is imported here)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """Base of the forms: pixels (b, c, height, width) float32 -> tokens (b, n, d), windows in row-major order.

    ``conv`` gives geometry and weights; it must be square, without dilation and groups. Every subclass is the same
    function of its weights: ``Conv2d`` followed by ``flatten(2).transpose(1, 2)``.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.channels, self.outputs = conv.in_channels, conv.out_channels
        self.kernel, self.stride, self.padding = conv.kernel_size[0], conv.stride[0], _padding(conv)


class Conv(PatchEmbedding):
    """``nn.Conv2d``."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.projection = conv

    def forward(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self.projection(pixels).flatten(2).transpose(1, 2)
        return tokens


class Unfold(PatchEmbedding):
    """``nn.Unfold`` (im2col) and ``nn.Linear``; a window is flattened as (c p1 p2)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.im2col = nn.Unfold(self.kernel, stride=self.stride, padding=self.padding)
        self.projection = _linear(conv, conv.weight.flatten(1))

    def forward(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self.projection(self.im2col(pixels).transpose(1, 2))
        return tokens


class _Patches(PatchEmbedding):
    """Base of the forms that hold for patches only: no overlap, no padding."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        if self.kernel != self.stride or self.padding:
            raise ValueError(f"kernel {self.kernel}, stride {self.stride}, padding {self.padding} do not make patches")


class Reshape(_Patches):
    """Reshape, permute, reshape and ``nn.Linear``; ``order`` permutes a patch's axes (c, p1, p2) before flattening."""

    def __init__(self, conv: nn.Conv2d, order: tuple[int, int, int]) -> None:
        super().__init__(conv)
        # axes after the first reshape: b, c, h, p1, w, p2
        self.permutation = (0, 2, 4, *((1, 3, 5)[axis] for axis in order))
        self.projection = _linear(conv, conv.weight.permute(0, *(axis + 1 for axis in order)).flatten(1))

    def forward(self, pixels: Tensor) -> Tensor:
        batch, channels, height, width = pixels.shape
        patch = self.kernel
        rows, columns = height // patch, width // patch
        grid = pixels.reshape(batch, channels, rows, patch, columns, patch).permute(self.permutation)
        tokens: Tensor = self.projection(grid.reshape(batch, rows * columns, channels * patch * patch))
        return tokens


class TensorUnfold(_Patches):
    """``Tensor.unfold`` along height and along width, and ``nn.Linear``; a patch is flattened as (c p1 p2)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.projection = _linear(conv, conv.weight.flatten(1))

    def forward(self, pixels: Tensor) -> Tensor:
        grid = pixels.unfold(2, self.kernel, self.stride).unfold(3, self.kernel, self.stride)
        tokens: Tensor = self.projection(grid.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2))
        return tokens


class PixelUnshuffle(_Patches):
    """``nn.PixelUnshuffle`` (space to depth) and a 1x1 ``nn.Conv2d``; its channels are (c p1 p2)."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.unshuffle = nn.PixelUnshuffle(self.kernel)
        linear = _linear(conv, conv.weight.flatten(1))
        self.projection = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
        self.projection.weight = nn.Parameter(linear.weight.detach()[:, :, None, None])
        self.projection.bias = linear.bias

    def forward(self, pixels: Tensor) -> Tensor:
        tokens: Tensor = self.projection(self.unshuffle(pixels)).flatten(2).transpose(1, 2)
        return tokens


class FeatureMap(nn.Module):
    """A form in the place of the ``Conv2d`` that it was made of: (b, c, height, width) -> (b, d, rows, columns)."""

    def __init__(self, embedding: PatchEmbedding) -> None:
        super().__init__()
        self.embedding = embedding

    @property
    def weight(self) -> Tensor:
        """The projection's weight: some embeddings of transformers ask for its dtype."""
        weight = self.embedding.get_submodule("projection").weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, pixels: Tensor) -> Tensor:
        rows, columns = pixels.shape[2] // self.embedding.stride, pixels.shape[3] // self.embedding.stride
        tokens: Tensor = self.embedding(pixels)
        # not unflatten: behind it the TorchScript exporter takes the traced batch size for a constant
        return tokens.transpose(1, 2).reshape(pixels.shape[0], self.embedding.outputs, rows, columns)


def embedding(form: str, conv: nn.Conv2d) -> PatchEmbedding:
    """The patch embedding of ``form`` (a name of ``catalogue.PATCH_FORMS``) with the weights of ``conv``."""
    if form.startswith("reshape-"):
        axes = {"c": 0, "p1": 1, "p2": 2}
        order = {"p1p2c": ("p1", "p2", "c"), "cp1p2": ("c", "p1", "p2"), "cp2p1": ("c", "p2", "p1")}[form[8:]]
        return Reshape(conv, (axes[order[0]], axes[order[1]], axes[order[2]]))
    forms = {"conv": Conv, "unfold": Unfold, "tensor-unfold": TensorUnfold, "pixel-unshuffle": PixelUnshuffle}
    return forms[form](conv)


def randomize(module: nn.Module, seed: int) -> None:
    """Draws every parameter anew from ``seed``, none of them zero: a bias or a gain left at 0 or 1 would hide mistakes.

    Matrices and kernels have variance 1 / fan-in; gains (norms, layer scales) scatter about 1; the rest about 0.
    """
    generator = torch.Generator().manual_seed(seed)
    projections = {m.weight for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter in projections or name.endswith("in_proj_weight"):
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif parameter.ndim == 1 and not name.endswith(("bias", "class_embedding")):
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(0.3 * noise)


def _padding(conv: nn.Conv2d) -> int:
    return 0 if conv.padding == "valid" else int(conv.padding[0])


def _linear(conv: nn.Conv2d, weight: Tensor) -> nn.Linear:
    """The Linear with ``weight`` (d, k) and the bias of ``conv``."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=conv.bias is not None)
    linear.weight = nn.Parameter(weight.detach().clone())
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach().clone())
    return linear
