"""What the analyzer finds: a patch embedding as a frozen Site, an un-embedding, or a Refusal with its reason and node."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.files import model as model_
from graphcheck.kernel.ops.node import Node
from graphcheck.verdict import Displayed

if TYPE_CHECKING:
    from graphcheck.patches.shuffles import Shuffle

SCHEMA = "graphcheck/analyze/1"
_SHOWN_FILTERS, _SHOWN_CHANNELS, _SHOWN_NUMBERS = 6, 3, 6000


@dataclasses.dataclass(frozen=True)
class SiteAxis:
    """One axis of the site's input, over all sizes tried.

    Attributes:
        role: ``batch``, ``channel`` or ``spatial``.
        size: Elements along the axis; None where it varies.
        count: Windows along the axis, 1 for a channel axis; None where it varies.
        kernel: Elements of a window.
        stride: From one window to the next.
        dilation: From one element of a window to the next.
        begin: Padding before the axis; negative where elements are cut off.
        end: Padding behind it, likewise.
    """

    role: str
    size: int | None
    count: int | None
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    begin: int = 0
    end: int = 0

    @property
    def extent(self) -> int:
        """How many elements the dilated kernel spans."""
        return (self.kernel - 1) * self.dilation + 1


# (stored integers, flat and in the order of the weight; scale, scalar or [out_channels]; zero point, alike, or None)
Quantized = tuple[np.ndarray, np.ndarray, np.ndarray | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Summed:
    """A weight of sums: ``terms`` int [elements, copies] into the original's, flat; ``exact``: whether none was rounded."""

    terms: np.ndarray
    exact: bool


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Site:
    """A patch embedding: ``output = order(activation(conv(input, weight) * alpha + bias + residual))``.

    Attributes:
        form: How it is written: ``conv``, ``matmul``, ``unfold``, ``space-to-depth``, or ``stills``, over a repeated image.
        pattern: The same in einops notation, ``b c (h p1) (w p2) -> b (h w) (c p1 p2)``; None where it has none.
        axes: Those of ``input``, in order.
        layout: The input's axes in letters, such as ``NCHW`` or ``NHWC``.
        groups: Groups of channels.
        in_channels: Channels of the input, all groups together.
        out_channels: Channels of the output, all groups together.
        kernel_shape: Sizes of the kernel along the spatial axes.
        input: The value that the windows are taken from.
        output: The value that the site computes.
        node: The contraction: a Conv, MatMul, Gemm or Einsum.
        region: All nodes between input and output.
        weight_value: The value that the contraction takes its weight from.
        weight: The folded constant, in the shape and dtype that it is stored in.
        weight_index: int [out_channels, in_channels / groups, *kernel_shape], the flat element of ``weight`` at each
            place of the Conv weight, -1 for a zero; channels run over the channel axes in their order.
        alpha: A factor of the product.
        bias: [out_channels], or None.
        order: For each dim of ``output`` the input axes whose windows it runs over; ``len(axes)`` is out_channels.
        shape: The output's shape, at the sizes of the first trial.
        tensors: Those between input and output: (name, operator, shape), None for a dim that varies.
        quantized: How the weight is stored where a DequantizeLinear gives it, else None.
        direct: Whether it is a Conv that reads its input as it is.
        own_kernel: Whether it is a Conv whose kernel spans the windows itself, which no movement before it does.
        flattened: Whether it is a Conv over patches that are flattened already.
        cast: Whether the input is of another type than the weight, to which a Cast brings it without loss.
        activation: The operator behind the sum, if it is part of the site.
        residual: What is added to the product beside the bias, or None.
        summed: How its weight is summed over the copies of a repeated image, or None.
        folded: The site before a normalization was taken into its weight and bias, or None.
        blocked: Why it cannot be rewritten, or None.
        blocker: The node that blocks it, or None.
        notes: What else there is to say of it.
    """

    form: str
    pattern: str | None
    axes: tuple[SiteAxis, ...]
    layout: str
    groups: int
    in_channels: int
    out_channels: int
    kernel_shape: tuple[int, ...]
    input: ir.Value
    output: ir.Value
    node: ir.Node
    region: tuple[ir.Node, ...]
    weight_value: ir.Value
    weight: np.ndarray
    weight_index: np.ndarray
    alpha: float
    bias: np.ndarray | None
    order: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]
    tensors: tuple[tuple[str, str, tuple[int | None, ...]], ...] = ()
    quantized: Quantized | None = None
    direct: bool = False
    own_kernel: bool = False
    flattened: bool = False
    cast: bool = False
    activation: Node | None = None
    residual: ir.Value | None = None
    summed: Summed | None = None
    folded: Site | None = None
    blocked: str | None = None
    blocker: str | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in ("form", "pattern", "layout", "kernel_shape", "groups", "blocked")}
        shown |= {"input": self.input.name, "output": self.output.name, "node": self.name}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def spatial(self) -> tuple[SiteAxis, ...]:
        """The spatial axes in order."""
        return tuple(axis for axis in self.axes if axis.role == "spatial")

    @property
    def rank(self) -> int:
        """The rank of the largest tensor between input and output."""
        return max((len(shape) for _, _, shape in self.tensors), default=0)

    @property
    def sliding(self) -> bool:
        """Whether the windows overlap (kernel larger than stride somewhere)."""
        return any(axis.extent > axis.stride for axis in self.spatial)

    @property
    def pointwise(self) -> bool:
        """Whether it is a projection of the channels alone, at every place by itself: no patch embedding."""
        return all(axis.kernel == 1 for axis in self.axes) and not self.flattened

    @property
    def ordinary(self) -> bool:
        """An ordinary Conv, as every CNN has many: rewritten only where that is asked for.

        Its own kernel spans the windows, and they are no patches: kernel and stride differ, or there are gaps.
        """
        apart = any((axis.kernel, axis.dilation) != (axis.stride, 1) for axis in self.spatial)
        return self.own_kernel and apart and not self.pointwise

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return "patch embedding"

    @property
    def name(self) -> str:
        """The name of the contraction node."""
        return model_.node_name(self.node)

    @property
    def features(self) -> int:
        """Of a token: the channels of the output."""
        return self.out_channels

    @property
    def channels(self) -> int:
        """Of the image: the channels of the input."""
        return self.in_channels

    def moved(self, nodes: Mapping[ir.Node, ir.Node], values: Mapping[ir.Value, ir.Value]) -> Self:
        """The same site of another model, whose nodes and values stand for this one's."""
        return dataclasses.replace(
            self,
            input=values[self.input],
            output=values[self.output],
            node=nodes[self.node],
            region=tuple(nodes[node] for node in self.region),
            weight_value=values[self.weight_value],
            residual=None if self.residual is None else values[self.residual],
        )

    def geometry(self) -> tuple[Any, ...]:
        """What two sites must share to be the same convolution, whatever the order and the names of the input's axes.

        An axis with one window is no different from channels, one with a kernel and stride of 1 none from a batch.
        """
        moving = [a for a in self.spatial if a.count != 1 and (a.kernel, a.stride, a.begin, a.end) != (1, 1, 0, 0)]
        spatial = tuple((a.kernel, a.stride, a.dilation if a.kernel > 1 else 1, a.begin) for a in moving)
        return spatial, self.in_channels * math.prod(self.kernel_shape), self.out_channels

    def to_json(self) -> dict[str, Any]:
        """The row of ``analyze``'s ``patch_embeddings``, or ``patch_unembeddings``."""
        spatial = self.spatial
        return {
            "kind": self.kind,
            "form": self.form,
            "pattern": self.pattern,
            "kernel_shape": list(self.kernel_shape),
            "strides": [a.stride for a in spatial] or list(self.kernel_shape),
            "dilations": [a.dilation for a in spatial] or [1] * len(self.kernel_shape),
            "pads": [a.begin for a in spatial] + [a.end for a in spatial] or [0] * (2 * len(self.kernel_shape)),
            "groups": self.groups,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "layout": self.layout,
            "nodes": [model_.node_name(n) for n in self.region],
            "node": self.name,
            "input": self.input.name,
            "output": self.output.name,
            "ordinary": self.ordinary,
            "blocked": self.blocked,
            "notes": list(self.notes),
            "weights": self._first_filters(),
        }

    def _first_filters(self) -> dict[str, Any] | None:
        """{"order": names of the matrix rows, "first": 0, "filters": [[c][kh][kw], ...]}: what a drawing shows of the weight."""
        if self.flattened:
            return None
        channels = min(self.weight_index.shape[1], _SHOWN_CHANNELS)
        count = min(len(self.weight_index), _SHOWN_FILTERS, _SHOWN_NUMBERS // (channels * math.prod(self.kernel_shape)))
        if len(self.kernel_shape) != 2 or count < 1 or self.weight.dtype.kind not in "f":
            return None
        index = self.weight_index[:count, :channels]
        shown = np.where(index < 0, 0.0, self.weight.reshape(-1)[index].astype(np.float64) * self.alpha)
        filters = [[[[float(f"{v:.3g}") for v in row] for row in plane] for plane in kernel] for kernel in shown.tolist()]
        columns = re.search(r"->.*\(([^()]*)\)[^()]*$", self.pattern or "")
        order = columns.group(1).split() if columns else []
        return {
            "order": " ".join(order) if sorted(order) == ["c", "p1", "p2"] else "c p1 p2",
            "first": 0,
            "filters": filters,
        }


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Unembedding(Site):
    """The way back, a projection to patches of pixels: ``output = pixels(matmul(tokens(input), weight) * alpha + bias)``.

    It is told as the patch embedding that takes the windows of its output, so what differs is:

    Attributes:
        form: ``conv-transpose``, ``matmul``, ``depth-to-space``, or another way: ``pixel-shuffle`` (a 1x1 Conv and other
            movement), ``fold`` (a MatMul and other movement).
        pattern: Likewise the other way round, ``b (h w) (p1 p2 c) -> b c (h p1) (w p2)``.
        axes: Those of the image that ``output`` is, in order.
        layout: The same in letters.
        in_channels: Features of a token, all groups together.
        out_channels: Channels of the output, all groups together.
        weight_index: int [in_channels, out_channels / groups, *kernel_shape], as a ConvTranspose stores its weight.
        bias: [out_channels, *kernel_shape], or None.
        order: For each dim of ``input`` the output axes whose windows it runs over; ``len(axes)`` is in_channels.
        dims: For each dim of ``output`` the axes that it runs over: it may be the image with height and width as one.
        taken: For each dim of ``input`` how many elements are left out before the first token, and behind the last.
        given: The input's shape; None for a dim that varies.
    """

    dims: tuple[tuple[int, ...], ...] = ()
    taken: tuple[tuple[int, int], ...] = ()
    given: tuple[int | None, ...] = ()

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return "patch un-embedding"

    @property
    def features(self) -> int:
        """Of a token: the channels of the input."""
        return self.in_channels

    @property
    def channels(self) -> int:
        """Of the image: the channels of the output."""
        return self.out_channels

    def geometry(self) -> tuple[Any, ...]:
        """As that of a patch embedding, and equal to none."""
        spatial, _, _ = super().geometry()
        return spatial, self.features, self.channels * math.prod(self.kernel_shape), "pixels"


NOT_CONSTANT = Coded("its weight is not constant", "GC302")
ONE_SIZE = Coded("it can be evaluated at one size only, so its geometry may depend on the size", "GC305")


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a contraction beside data movement is no patch embedding and no un-embedding, or why a site is left alone.

    Attributes:
        reason: One sentence, with its code.
        node: The name of the contraction node.
    """

    reason: Coded
    node: str

    def to_json(self) -> dict[str, str]:
        """Plain data."""
        return {"reason": self.reason, "code": self.reason.code, "node": self.node}


@dataclasses.dataclass(frozen=True)
class Analysis(Displayed):
    """What ``analyze`` found in a model, in graph order.

    Attributes:
        sites: Patch embeddings, ordinary convolutions included.
        refusals: Contractions beside data movement that are none, each with the reason.
        unembeddings: Projections to patches of pixels.
        movements: Movement between pixels and channels, as ``rewrite --movement`` writes it anew where it is part of no site.
        largest_rank: Of all tensors of the main graph, as they were traced; None where none could be.
    """

    sites: tuple[Site, ...]
    refusals: tuple[Refusal, ...]
    unembeddings: tuple[Unembedding, ...] = ()
    largest_rank: int | None = None
    movements: tuple[Shuffle, ...] = ()

    @property
    def everything(self) -> tuple[Site, ...]:
        """All that can be rewritten."""
        return (*self.sites, *self.unembeddings)

    def holding(self, everything: Iterable[Site], refusals: Iterable[Refusal]) -> Analysis:
        """The same of other sites, told apart by their kind, and other refusals, each once."""
        sites = tuple(everything)
        back = tuple(site for site in sites if isinstance(site, Unembedding))
        own = tuple(site for site in sites if not isinstance(site, Unembedding))
        return dataclasses.replace(self, sites=own, unembeddings=back, refusals=tuple(dict.fromkeys(refusals)))

    def to_json(self) -> dict[str, Any]:
        """``graphcheck analyze`` as plain data (schema graphcheck/analyze/1), without the model."""
        return {
            "schema": SCHEMA,
            "patch_embeddings": [site.to_json() for site in self.sites],
            "patch_unembeddings": [site.to_json() for site in self.unembeddings],
            "movements": [movement.to_json() for movement in self.movements],
            "refusals": [refusal.to_json() for refusal in self.refusals],
        }
