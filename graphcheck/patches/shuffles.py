"""Bare movement between pixels and channels, without a projection: SpaceToDepth and DepthToSpace, however they are written."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from graphcheck.codes import Coded
from graphcheck.files import model as model_
from graphcheck.graphs import walk
from graphcheck.patches.analyze import Analyzed
from graphcheck.patches.site import Refusal
from graphcheck.patches.trace import Trial
from graphcheck.patches.transpositions import only_computed, rank_of, relative

OPERATORS = {"space-to-depth": "SpaceToDepth", "depth-to-space": "DepthToSpace"}
_STEPS = 12  # nodes looked at before a tensor


@dataclasses.dataclass(frozen=True, eq=False)
class Shuffle:
    """``output`` is blocks of ``input``'s pixels in its channels, or the way back; both [batch, channels, height, width].

    Attributes:
        input: Where the movement begins.
        output: Where it ends.
        nodes: Those in between, in graph order.
        kind: ``space-to-depth`` or ``depth-to-space``.
        block: Pixels of a block along height and along width.
        site: The name of the site that it is part of; None for bare movement.
        order: int [channels], for each channel that SpaceToDepth gives (or that DepthToSpace takes) in its own order, the
            one of ``output`` (or ``input``) that is there.
    """

    input: ir.Value
    output: ir.Value
    nodes: tuple[ir.Node, ...]
    kind: str
    block: int
    order: np.ndarray
    site: str | None = None

    @property
    def operator(self) -> str:
        """The operator that does the same."""
        return OPERATORS[self.kind]

    @property
    def is_operator(self) -> bool:
        """Whether it is written with that operator."""
        return any(node.op_type == self.operator for node in self.nodes)

    @property
    def channels(self) -> int:
        """Of the image."""
        return self.order.size // self.block**2

    @property
    def pattern(self) -> str | None:
        """As einops writes it; None where the channels have an order of their own."""
        sizes = {"p1": self.block, "p2": self.block, "c": self.channels}
        for names in itertools.permutations(sizes):
            places = np.arange(self.order.size).reshape([sizes[name] for name in names])
            if np.array_equal(places.transpose([names.index(name) for name in sizes]).reshape(-1), self.order):
                ends = "n c (h p1) (w p2)", f"n ({' '.join(names)}) h w"
                return " -> ".join(ends if self.kind == "space-to-depth" else ends[::-1])
        return None

    def to_json(self) -> dict[str, Any]:
        """The row of ``analyze``'s ``movements``."""
        return {
            "kind": self.kind,
            "form": self.kind if self.is_operator else "reshape",
            "blocksize": self.block,
            "channels": self.channels,
            "pattern": self.pattern,
            "input": self.input.name,
            "output": self.output.name,
            "nodes": [model_.node_name(node) for node in self.nodes],
            "site": self.site,
        }


def with_movement(seen: Analyzed) -> Analyzed:
    """What was seen, with the movement between pixels and channels in it."""
    inside = {node: site.name for site in seen.analysis.everything for node in site.region}
    found = [
        dataclasses.replace(shuffle, site=next((inside[node] for node in shuffle.nodes if node in inside), None))
        for shuffle in find_shuffles(seen.model, seen.runs)[0]
    ]
    return dataclasses.replace(seen, analysis=dataclasses.replace(seen.analysis, movements=tuple(found)))


def find_shuffles(model: ir.Model, runs: Sequence[Trial]) -> tuple[list[Shuffle], list[Refusal]]:
    """The shuffles of a model's main graph in graph order, and why other movement through five dims or more is none."""
    found: list[Shuffle] = []
    refusals: list[Refusal] = []
    inside: set[ir.Node] = set()
    for node in reversed(list(model.graph)):
        value = node.outputs[0] if len(node.outputs) == 1 else None
        if value is None or node in inside or rank_of(value, runs[0]) not in range(1, 5):
            continue
        made = next(_shuffles(value, runs), None)
        if made is not None:
            needed = _needed(made)
            found += [made] if needed is None else []
            refusals += [] if needed is None else [needed]
            inside.update(made.nodes)
        elif any(rank_of(v, runs[0]) > 4 for v in node.inputs if v is not None):
            reason = _why_none(value, runs)
            refusals += [] if reason is None else [Refusal(Coded(reason, "GC307"), model_.node_name(node))]
    return found[::-1], refusals[::-1]


def _shuffles(output: ir.Value, runs: Sequence[Trial]) -> Iterator[Shuffle]:
    """What makes ``output`` a shuffle, the longest way first."""
    if rank_of(output, runs[0]) != 4:
        return
    passed: list[ir.Value] = []
    starts: list[tuple[ir.Value, tuple[ir.Node, ...]]] = []
    for at in itertools.islice(walk.chain(output, lambda node: only_computed(node, runs[0])), _STEPS + 1):
        if math.prod(runs[0].shape(at)) != math.prod(runs[0].shape(output)):
            break
        nodes = tuple(reversed(walk.makers(passed)))
        if nodes and rank_of(at, runs[0]) == 4:
            starts.append((at, nodes))
        passed.append(at)
    for start, nodes in reversed(starts):
        seen = [_read(start, output, run) for run in runs if run.tensor(output) is not None]
        first = seen[0]
        if first is not None and all(
            s is not None and s[:2] == first[:2] and np.array_equal(s[2], first[2]) for s in seen
        ):
            yield Shuffle(start, output, nodes, *first)


def _read(source: ir.Value, output: ir.Value, run: Trial) -> tuple[str, int, np.ndarray] | None:
    """(kind, block, order) at one size; None if it is none."""
    shapes = run.shape(source), run.shape(output)
    kind = "space-to-depth" if shapes[0][2] > shapes[1][2] else "depth-to-space"
    (n, channels, *_), (batch, depth, height, width) = shapes if kind == "space-to-depth" else shapes[::-1]
    block = math.isqrt(depth // max(channels, 1))
    image = (n, channels, height * block, width * block)
    if block < 2 or n != batch or depth != channels * block**2 or image not in shapes or 0 in image:
        return None
    index = relative(source, output, run)
    if index is None:
        return None
    own = _blocks(image, block).reshape(n, depth, height, width)
    if kind == "space-to-depth":
        index = index.reshape(own.shape)
    else:  # told the other way round, both are maps of the same kind
        back = np.empty(index.size, np.int64)
        back[index] = np.arange(index.size)
        index = back.reshape(own.shape)
    place = np.argsort(own[0, :, 0, 0])
    order = place[np.minimum(np.searchsorted(own[0, :, 0, 0], index[0, :, 0, 0], sorter=place), depth - 1)]
    if not np.array_equal(own[:, order], index):
        return None
    return kind, block, np.argsort(order)


def _blocks(image: tuple[int, ...], block: int) -> np.ndarray:
    """The pixels of an image as SpaceToDepth orders them, [n, block, block, channels, height, width]."""
    n, channels, height, width = image
    split = np.arange(math.prod(image)).reshape(n, channels, height // block, block, width // block, block)
    return split.transpose(0, 3, 5, 1, 2, 4)


def _needed(shuffle: Shuffle) -> Refusal | None:
    """Why the movement has to stay: an inner tensor is read elsewhere."""
    for node in shuffle.nodes:
        for value in node.outputs:
            user = next((u for u in value.consumers() if u not in shuffle.nodes), None)
            if value is not shuffle.output and (user is not None or value.is_graph_output()):
                reason = Coded(f"its inner tensor {value.name} is used elsewhere", "GC306")
                return Refusal(reason, model_.node_name(user or node))
    return None


def _why_none(output: ir.Value, runs: Sequence[Trial]) -> str | None:
    """Why movement that ends at ``output`` is no shuffle; None where it is no movement of five dims or more."""
    for start in itertools.islice(walk.chain(output, lambda node: only_computed(node, runs[0])), 1, _STEPS + 1):
        if relative(start, output, runs[0]) is None:
            return None
        if rank_of(start, runs[0]) > 4:
            continue
        shapes = runs[0].shape(start), runs[0].shape(output)
        if len(shapes[0]) != 4 or len(shapes[1]) != 4:
            ranks = f"{len(shapes[0])} to {len(shapes[1])} dims"
            return f"it moves {ranks}, and SpaceToDepth and DepthToSpace take and give [batch, channels, height, width]"
        return "it does not move square blocks of pixels to or from the channels in axis 1"
    return None
