"""Convolutional networks at their real sizes, with seeded weights, for benchmarks/convolutions.py (torch is imported here).

They follow the papers' tables of layers. Weights are drawn on several scales, one for each channel, and the statistics of
each BatchNorm are those of its own activations on random images, as after a training: no activation dies or explodes.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

_CALIBRATED = 96  # the side of the images that BatchNorms see


def conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, act: nn.Module | None = None, groups: int = 1) -> nn.Module:
    """Conv, BatchNorm and an activation."""
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([act] if act is not None else []))


class Bottleneck(nn.Module):
    """He et al., "Deep residual learning for image recognition", 2016, figure 5."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(inputs, width, 1, 1, nn.ReLU()), conv(width, width, 3, stride, nn.ReLU()), conv(width, 4 * width)
        )
        same = stride == 1 and inputs == 4 * width
        self.beside = nn.Identity() if same else conv(inputs, 4 * width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.body(x) + self.beside(x))


def resnet50() -> nn.Module:
    """ResNet-50."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2, nn.ReLU()), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            layers.append(Bottleneck(inputs, width, stride if i == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


class Squeeze(nn.Module):
    """Squeeze-and-excitation, as MobileNetV3 has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Inverted(nn.Module):
    """Howard et al., "Searching for MobileNetV3", 2019, figure 4."""

    def __init__(
        self, inputs: int, kernel: int, wide: int, outputs: int, squeeze: bool, hard: bool, stride: int
    ) -> None:
        super().__init__()
        act = nn.Hardswish if hard else nn.ReLU
        layers = [conv(inputs, wide, 1, 1, act())] if wide != inputs else []
        layers.append(conv(wide, wide, kernel, stride, act(), groups=wide))
        layers += [Squeeze(wide)] if squeeze else []
        self.body = nn.Sequential(*layers, conv(wide, outputs))
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


# kernel, expansion, outputs, squeeze, Hardswish, stride: table 1 of the paper
_LARGE = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


def _backbone() -> tuple[nn.ModuleList, list[int]]:
    """MobileNetV3-Large in the four stages that end before a stride, after the first, and their channels."""
    stages, channels = [[conv(3, 16, 3, 2, nn.Hardswish())]], [16]
    for kernel, wide, outputs, squeeze, hard, stride in _LARGE:
        if stride == 2:
            stages.append([])
            channels.append(0)
        stages[-1].append(Inverted(channels[-1] or channels[-2], kernel, wide, outputs, squeeze, hard, stride))
        channels[-1] = outputs
    return nn.ModuleList(nn.Sequential(*stage) for stage in stages), channels


def mobilenet() -> nn.Module:
    """MobileNetV3-Large."""
    stages, channels = _backbone()
    head = [conv(channels[-1], 960, 1, 1, nn.Hardswish()), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*stages, *head, nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, 1000))


class Split(nn.Module):
    """The C2f block of YOLOv8: half of the channels through residual blocks, all that came of it side by side."""

    def __init__(self, inputs: int, outputs: int, count: int, adds: bool) -> None:
        super().__init__()
        self.half, self.adds = outputs // 2, adds
        self.first = conv(inputs, outputs, 1, 1, nn.SiLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(*(conv(self.half, self.half, 3, 1, nn.SiLU()) for _ in range(2))) for _ in range(count)
        )
        self.last = conv((2 + count) * self.half, outputs, 1, 1, nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]) if self.adds else block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    """YOLOv8n: C2f blocks, SPPF, a neck up and down, and a head whose boxes are means over 16 bins."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        act = nn.SiLU
        self.first = nn.Sequential(conv(3, 16, 3, 2, act()), conv(16, 32, 3, 2, act()), Split(32, 32, 1, True))
        self.second = nn.Sequential(conv(32, 64, 3, 2, act()), Split(64, 64, 2, True))
        self.third = nn.Sequential(conv(64, 128, 3, 2, act()), Split(128, 128, 2, True))
        self.fourth = nn.Sequential(conv(128, 256, 3, 2, act()), Split(256, 256, 1, True))
        self.before, self.after = conv(256, 128, 1, 1, act()), conv(512, 256, 1, 1, act())
        self.up = nn.ModuleList([Split(384, 128, 1, False), Split(192, 64, 1, False)])
        self.shrink = nn.ModuleList([conv(64, 64, 3, 2, act()), conv(128, 128, 3, 2, act())])
        self.down = nn.ModuleList([Split(192, 128, 1, False), Split(384, 256, 1, False)])

        def head(inputs: int, wide: int, outputs: int) -> nn.Module:
            return nn.Sequential(conv(inputs, wide, 3, 1, act()), conv(wide, wide, 3, 1, act()), nn.Conv2d(wide, outputs, 1))

        self.boxes = nn.ModuleList(head(c, 64, 64) for c in (64, 128, 256))
        self.classes = nn.ModuleList(head(c, 80, classes) for c in (64, 128, 256))

    def forward(self, x: Tensor) -> Tensor:
        large = self.second(self.first(x))
        middle = self.third(large)
        small = self.before(self.fourth(middle))
        pooled = [small]
        for _ in range(3):
            pooled.append(functional.max_pool2d(pooled[-1], 5, 1, 2))
        small = self.after(torch.cat(pooled, 1))
        middle = self.up[0](torch.cat([functional.interpolate(small, scale_factor=2.0), middle], 1))
        large = self.up[1](torch.cat([functional.interpolate(middle, scale_factor=2.0), large], 1))
        middle = self.down[0](torch.cat([self.shrink[0](large), middle], 1))
        small = self.down[1](torch.cat([self.shrink[1](middle), small], 1))
        levels = (large, middle, small)
        boxes = torch.cat([h(level).flatten(2) for h, level in zip(self.boxes, levels, strict=True)], 2)
        scores = torch.cat([h(level).flatten(2) for h, level in zip(self.classes, levels, strict=True)], 2)
        bins = boxes.reshape(boxes.shape[0], 4, 16, -1).transpose(1, 2).softmax(1)
        sides = (bins * torch.arange(16.0).reshape(1, 16, 1, 1)).sum(1)
        left, right = sides.chunk(2, 1)
        return torch.cat([(right - left) / 2, left + right, scores.sigmoid()], 1)


class Dbnet(nn.Module):
    """Liao et al., "Real-time scene text detection with differentiable binarization", 2020, on MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.stages, channels = _backbone()
        self.sides = nn.ModuleList(nn.Conv2d(c, 96, 1, bias=False) for c in channels[1:])
        self.smooth = nn.ModuleList(nn.Conv2d(96, 24, 3, padding=1, bias=False) for _ in channels[1:])
        self.head = nn.Sequential(
            conv(96, 24, 3, 1, nn.ReLU()),
            nn.ConvTranspose2d(24, 24, 2, 2),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.ConvTranspose2d(24, 1, 2, 2),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x, levels = self.stages[0](x), []
        for stage in self.stages[1:]:
            x = stage(x)
            levels.append(x)
        sides = [side(level) for side, level in zip(self.sides, levels, strict=True)]
        for i in (2, 1, 0):
            sides[i] = sides[i] + functional.interpolate(sides[i + 1], scale_factor=2.0)
        parts = [smooth(side) for smooth, side in zip(self.smooth, sides, strict=True)]
        parts = [functional.interpolate(part, scale_factor=2.0**i) if i else part for i, part in enumerate(parts)]
        return self.head(torch.cat(parts[::-1], 1))


class Unet(nn.Module):
    """Ronneberger et al., "U-Net", 2015, padded and with BatchNorm, as it is used today; ``width`` is that of the first level."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(5)]

        def twice(inputs: int, outputs: int) -> nn.Module:
            return nn.Sequential(conv(inputs, outputs, 3, 1, nn.ReLU()), conv(outputs, outputs, 3, 1, nn.ReLU()))

        self.down = nn.ModuleList(twice(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[-2::-1])
        self.up = nn.ModuleList(twice(2 * w, w) for w in widths[-2::-1])
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for block in self.down:
            x = block(functional.max_pool2d(x, 2) if kept else x)
            kept.append(x)
        for grow, block, beside in zip(self.grow, self.up, kept[-2::-1], strict=True):
            x = block(torch.cat([beside, grow(x)], 1))
        return self.last(x)


class Dpt(nn.Module):
    """A ViT-S/16 with the dense head of Ranftl et al., "Vision transformers for dense prediction", 2021 (transformers)."""

    def __init__(self) -> None:
        super().__init__()
        import transformers

        config = transformers.DPTConfig(
            hidden_size=384,
            num_attention_heads=6,
            num_hidden_layers=12,
            intermediate_size=1536,
            image_size=224,
            backbone_out_indices=[2, 5, 8, 11],
            neck_hidden_sizes=[48, 96, 192, 384],
            fusion_hidden_size=64,
            attn_implementation="eager",
        )
        self.model = transformers.DPTForDepthEstimation(config)

    def forward(self, x: Tensor) -> Tensor:
        depth: Tensor = self.model(pixel_values=x).predicted_depth
        return depth


@dataclasses.dataclass(frozen=True)
class Net:
    """What makes a network, and the side of its images."""

    make: Callable[[], nn.Module]
    side: int


NETS = {
    "resnet50": Net(resnet50, 224),
    "mobilenet": Net(mobilenet, 224),
    "yolo": Net(Yolo, 640),
    "dbnet": Net(Dbnet, 640),
    "unet": Net(Unet, 512),
    "dpt": Net(Dpt, 224),
}


def net(name: str) -> nn.Module:
    """The network in evaluation mode, the same at every call."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(zlib.crc32(name.encode()))
        made = NETS[name].make()
        for module in made.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu" if name != "dpt" else "linear")
                scale = torch.exp(0.5 * torch.randn(module.weight.shape[0]))
                module.weight *= scale.reshape(-1, *[1] * (module.weight.ndim - 1))
                if module.bias is not None:
                    module.bias.normal_(0.0, 0.1)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(torch.exp(0.3 * torch.randn(module.weight.shape)))
                module.bias.normal_(0.0, 0.3)
                module.momentum = None  # the mean of all batches
        if any(isinstance(module, nn.BatchNorm2d) for module in made.modules()) and name != "dpt":
            made.train()
            made(torch.rand(4, 3, _CALIBRATED, _CALIBRATED))
        return made.eval()
