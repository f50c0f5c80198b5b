"""Window geometry: where pads, auto_pad, strides, dilations and groups are resolved, and nowhere else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphcheck import limits
from graphcheck.kernel.terms.strided import Strided, normal


@dataclasses.dataclass(frozen=True)
class Window:
    """A sliding window over the spatial axes, in elements.

    ``kernel_shape``, ``strides`` and ``dilations`` have one entry per spatial axis; ``pads`` is ONNX's order, all
    begins and then all ends. ``ceil_mode`` as for the pooling operators. Source: the ONNX operator pages of Conv
    (https://onnx.ai/onnx/operators/onnx__Conv.html) and MaxPool.
    """

    kernel_shape: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    ceil_mode: bool = False

    @classmethod
    def resolve(
        cls, attributes: Mapping[str, Any], spatial: Sequence[int], kernel_shape: Sequence[int] | None = None
    ) -> Window:
        """The window that an operator's ``attributes`` mean over an input of ``spatial`` sizes (auto_pad included)."""
        kernel = tuple(int(k) for k in (attributes.get("kernel_shape") or kernel_shape or ()))
        rank = len(kernel)
        strides = tuple(int(s) for s in attributes.get("strides") or (1,) * rank)
        dilations = tuple(int(d) for d in attributes.get("dilations") or (1,) * rank)
        auto_pad = attributes.get("auto_pad") or "NOTSET"
        pads = tuple(int(p) for p in attributes.get("pads") or (0,) * (2 * rank))
        if auto_pad == "VALID":
            pads = (0,) * (2 * rank)
        elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            totals = [
                max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
                for n, k, s, d in zip(spatial, kernel, strides, dilations, strict=True)
            ]
            small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
            pads = tuple(small + large if auto_pad == "SAME_UPPER" else large + small)
        return cls(kernel, strides, pads, dilations, bool(attributes.get("ceil_mode", 0)))

    def extents(self) -> tuple[int, ...]:
        """How many source elements the dilated kernel spans, per axis."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel_shape, self.dilations, strict=True))

    def out_shape(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """The number of window positions per axis; 0 or less means that the window does not fit."""
        rank, result = len(self.kernel_shape), []
        for axis, (n, extent, stride) in enumerate(zip(spatial, self.extents(), self.strides, strict=True)):
            begin, end = self.pads[axis], self.pads[axis + rank]
            room = n + begin + end - extent
            count = (math.ceil(room / stride) if self.ceil_mode else room // stride) + 1
            if self.ceil_mode and (count - 1) * stride >= n + begin:
                count -= 1  # a window that would start in the end padding is ignored
            result.append(count)
        return tuple(result)

    def even(self, spatial: Sequence[int]) -> bool:
        """Whether the last window ends where the padded input does, on every axis: then ``ceil_mode`` is no matter."""
        rank, extents = len(self.kernel_shape), self.extents()
        rooms = (n + self.pads[i] + self.pads[i + rank] - extents[i] for i, n in enumerate(spatial))
        return not any(room % stride for room, stride in zip(rooms, self.strides, strict=True))

    def inside(self, spatial: Sequence[int], positions: Sequence[int] | None = None) -> list[np.ndarray]:
        """For each axis bool [positions, kernel]: whether that element of the window lies on the input."""
        out = tuple(positions or self.out_shape(spatial))
        each = zip(out, self.strides, self.kernel_shape, self.dilations, self.pads[: len(out)], strict=True)
        places = (np.arange(n)[:, None] * s + np.arange(k) * d - p for n, s, k, d, p in each)
        return [(at >= 0) & (at < size) for at, size in zip(places, spatial, strict=True)]

    def gather(self, spatial: Sequence[int], positions: Sequence[int] | None = None) -> np.ndarray:
        """Index map [*positions, *kernel_shape] into the flat spatial axes, 1-based, 0 where the window is on padding.

        ``positions`` per axis are those of :meth:`out_shape` unless given.
        """
        out, rank = tuple(positions or self.out_shape(spatial)), len(self.kernel_shape)
        limits.current().check_elements(math.prod(out) * math.prod(self.kernel_shape), "a table of windows")
        total = np.zeros(out + self.kernel_shape, np.int64)
        inside = np.ones(out + self.kernel_shape, bool)
        for axis in range(rank):
            at = (
                np.arange(out[axis])[:, None] * self.strides[axis]
                + np.arange(self.kernel_shape[axis])[None, :] * self.dilations[axis]
                - self.pads[axis]
            )
            shape = [1] * (2 * rank)
            shape[axis], shape[rank + axis] = at.shape
            at = at.reshape(shape)
            inside &= (at >= 0) & (at < spatial[axis])
            total = total * spatial[axis] + at
        return np.where(inside, total + 1, 0)


def im2col_form(shape: Sequence[int], window: Window, groups: int = 1) -> Strided | None:
    """Map [groups, N * L, C/groups * K] into an input [N, C, *spatial], 0 for padding; None where all of it is padding.

    Rows are the window positions (batch first), columns run over (channel within the group, kernel offset): the order
    of a Conv weight [C_out, C/groups, *kernel_shape] flattened.
    """
    batch, channels, *spatial = shape
    out, rank, each = window.out_shape(spatial), len(spatial), channels // groups
    worth = [math.prod(spatial[i + 1 :]) for i in range(rank)]
    plane = math.prod(spatial)
    box = (groups, batch, *out, each, *window.kernel_shape)
    steps = [s * w for s, w in zip(window.strides, worth, strict=True)]
    taps = [d * w for d, w in zip(window.dilations, worth, strict=True)]
    guards = []
    for axis in range(rank):
        coefficients = [0] * len(box)
        coefficients[2 + axis], coefficients[3 + rank + axis] = window.strides[axis], window.dilations[axis]
        guards.append((tuple(coefficients), window.pads[axis], window.pads[axis] + spatial[axis] - 1))
    start = -sum(p * w for p, w in zip(window.pads, worth, strict=False))
    return normal(box, start, (each * plane, channels * plane, *steps, plane, *taps), guards)
