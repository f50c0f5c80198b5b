"""The grid of patch embeddings: operator x layout x rank x window x type x dynamic dims, as models in ONNX text.

Each is written for what it must be recognised as, and knows it: :class:`Made` has the geometry beside the model.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx_ir as ir
from patch_cases import NUMPY, graph, ints

from graphcheck.kernel.geometry import Window as Geometry
from graphcheck.patches.analyze import find
from graphcheck.patches.site import Site

FILTERS = 4


# kernel, strides, dilations, begins, windows (which pad at the end is meant cannot be seen where it adds none), groups
Geometry_ = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int | None, ...], int]


@dataclasses.dataclass(frozen=True)
class Window:
    """A geometry: three axes, of which a case takes as many as it has; ``extra`` pixels are cropped."""

    kernel: tuple[int, int, int]
    strides: tuple[int, int, int] | None = None
    dilations: tuple[int, int, int] = (1, 1, 1)
    begin: tuple[int, int, int] = (0, 0, 0)
    end: tuple[int, int, int] = (0, 0, 0)
    groups: int = 1
    extra: int = 0
    count: tuple[int, int, int] = (3, 2, 2)


WINDOWS = {
    "tiles": Window((2, 2, 2)),
    "not square": Window((4, 2, 3)),
    "overlapping": Window((3, 3, 3), (2, 2, 2)),
    "padded": Window((3, 3, 3), (2, 2, 2), begin=(1, 1, 1), end=(1, 1, 1)),
    "asymmetric": Window((3, 2, 3), (2, 1, 2), begin=(1, 0, 0), end=(0, 1, 2)),
    "tiles, padded": Window((2, 2, 2), begin=(1, 1, 0), end=(1, 1, 0), count=(3, 3, 2)),
    "gaps": Window((2, 2, 2), (3, 3, 3)),
    "dilated": Window((2, 3, 2), (2, 2, 2), dilations=(2, 2, 2)),
    "dilated tiles": Window((2, 2, 2), (2, 2, 2), dilations=(2, 1, 2)),
    "cropped": Window((2, 2, 2), extra=1),
    "grouped": Window((2, 2, 2), groups=2),
    "grouped, overlapping": Window((3, 3, 3), (2, 2, 2), groups=2),
}
LAYOUTS = ("first", "last", "middle", "batch last", "image first", "none", "two")
OPERATORS = ("MatMul", "Gemm", "Einsum", "Conv", "FusedMatMul", "FusedConv", "FusedGemm", "SpaceToDepth", "Slices")
KINDS = ("float", "double", "float16", "bfloat16")
DYNAMIC = ("static", "batch", "all")


@dataclasses.dataclass(frozen=True)
class Case:
    """One cell of the grid."""

    op: str
    layout: str
    rank: int
    window: str
    kind: str = "float"
    dynamic: str = "batch"

    @property
    def name(self) -> str:
        """All of it, in words."""
        return f"{self.op}, channels {self.layout}, {self.rank}-D, {self.window}, {self.kind}, {self.dynamic}"

    @property
    def tiles(self) -> bool:
        """Whether Reshapes and a Transpose make the windows."""
        return self.window in ("tiles", "not square")

    @property
    def exists(self) -> bool:
        """Whether the operator can write it so."""
        window = WINDOWS[self.window]
        if self.op in ("SpaceToDepth", "Slices"):
            return self.rank == 2 and self.layout in ("first", "last") and self.window == "tiles"
        if self.dynamic == "all" and "Conv" not in self.op and not (self.tiles and self.layout in ("first", "last")):
            return False
        if self.op == "Einsum":
            return self.tiles and self.dynamic != "all"
        if self.op == "FusedConv" and self.kind != "float":
            return False
        if "Fused" in self.op and self.kind not in ("float", "float16"):
            return False
        if self.layout == "none" and "Conv" in self.op:
            return False  # an axis of one channel is a layout with channels
        return window.groups == 1 or ("Conv" in self.op and self.layout in ("first", "last", "middle"))


@dataclasses.dataclass(frozen=True, eq=False)
class Made:
    """A model, and what must be read in it: kernel, strides, dilations, begins, windows, groups."""

    model: ir.Model
    geometry: Geometry_
    shapes: dict[str, tuple[int, ...]] | None  # to prove at, where the sizes that compare takes cost too much


def cases() -> Iterator[Case]:
    """Every operator with every layout, rank and window in float32; every type and dynamic with every operator and rank."""
    found = [Case(*cell) for cell in itertools.product(OPERATORS, LAYOUTS, (1, 2, 3), WINDOWS)]
    few = itertools.product(OPERATORS, ("first", "last"), (1, 2, 3), ("tiles", "padded", "dilated"), KINDS, DYNAMIC)
    yield from dict.fromkeys(case for case in (*found, *(Case(*cell) for cell in few)) if case.exists)


def sample() -> list[Case]:
    """Few cases in which every operator, layout, rank, window, type and dynamic stands at least twice."""
    want = {pair: 2 for case in cases() for pair in dataclasses.asdict(case).items()}
    mixed = sorted(cases(), key=lambda case: (hash_of(case.name), case.name))
    found: list[Case] = []
    while any(n > 0 for n in want.values()):
        best = max(mixed, key=lambda case: sum(want[pair] > 0 for pair in dataclasses.asdict(case).items()))
        mixed.remove(best)
        found.append(best)
        for pair in dataclasses.asdict(best).items():
            want[pair] -= 1
    return found


def hash_of(name: str) -> int:
    """A number that does not change from run to run."""
    return sum(ord(letter) * 31**at for at, letter in enumerate(name)) % 10007


def make(case: Case) -> Made:
    """The model of a case, its weights drawn from a fixed seed."""
    window, r = WINDOWS[case.window], case.rank
    kernel, dilations = window.kernel[:r], window.dilations[:r]
    strides = (window.strides or window.kernel)[:r]
    begin, end = window.begin[:r], window.end[:r]
    count = window.count[:r]
    sizes = tuple(
        (n - 1) * s + (k - 1) * d + 1 - p - q + window.extra
        for n, s, k, d, p, q in zip(count, strides, kernel, dilations, begin, end, strict=True)
    )
    write = _Writer(case, kernel, strides, dilations, begin, end, count, sizes, window.groups)
    seen = (None,) * r if case.dynamic == "all" else count
    large = case.dynamic == "all" and r == 3
    return Made(write.model(), (kernel, strides, dilations, begin, seen, window.groups),
                {"x": write.shape()} if large else None)  # fmt: skip


def read(site: Site) -> Geometry_:
    """What the analyzer says, as :attr:`Made.geometry`."""
    kernel, strides, dilations, begin, count = zip(
        *((a.kernel, a.stride, a.dilation, a.begin, a.count) for a in site.spatial), strict=True
    )
    return kernel, strides, dilations, begin, count, site.groups


@dataclasses.dataclass(eq=False)
class _Writer:
    """Writes one case as text; ``x`` has the layout's axes, batch and channels told apart by letters n, c, d."""

    case: Case
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    count: tuple[int, ...]
    sizes: tuple[int, ...]
    groups: int
    constants: dict[str, Any] = dataclasses.field(default_factory=dict)
    lines: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        s = "stu"[: self.case.rank]
        self.axes = {
            "first": f"nc{s}", "last": f"n{s}c", "middle": f"n{s[0]}c{s[1:]}", "batch last": f"c{s}n", "image first": f"{s}nc",
            "none": f"n{s}", "two": f"nc{s[0]}d{s[1:]}",
        }[self.case.layout]  # fmt: skip
        self.channels = {"c": 2 * self.groups} if "c" in self.axes else {}
        self.channels |= {"d": 3} if "d" in self.axes else {}

    def model(self) -> ir.Model:
        """The whole model."""
        case = self.case
        getattr(self, "_conv" if "Conv" in case.op else {"SpaceToDepth": "_depth", "Slices": "_slices"}.get(case.op, "_rows"))()
        dims = []
        for axis in self.axes:
            if axis == "n":
                dims.append("2" if case.dynamic == "static" else "N")
            elif axis in "stu":
                size = self.sizes["stu".index(axis)]
                dims.append("SZU"["stu".index(axis)] if case.dynamic == "all" else str(size))
            else:
                dims.append(str(self.channels[axis]))
        out = ",".join(f"o{i}" for i in range(self.out_rank))
        body, opset = " ".join(self.lines), 22 if case.kind == "bfloat16" else 18
        x = f"{case.kind}[{','.join(dims)}] x"
        return graph(x, f"{case.kind}[{out}] y", body, opset, case.kind, **self.constants)

    def shape(self) -> tuple[int, ...]:
        """The input's shape with two images and the sizes that give ``count`` windows."""
        sizes = {"n": 2, **self.channels, **dict(zip("stu", self.sizes, strict=False))}
        return tuple(sizes[axis] for axis in self.axes)

    def _add(self, line: str, **constants: Any) -> None:
        self.lines.append(line)
        for name, value in constants.items():
            is_shape = isinstance(value, tuple)
            self.constants[name] = value if is_shape or value.dtype == np.int64 else value.astype(NUMPY[self.case.kind])

    def _ordered(self, to: str, name: str, source: str = "x") -> str:
        """The input as [n, c, (d,) *spatial], its channel axes merged."""
        perm = [self.axes.index(axis) for axis in to]
        if perm != sorted(perm):
            self._add(f"{name}t = Transpose<perm = {perm}>({source})")
            source = f"{name}t"
        return source

    def _merged(self, source: str) -> str:
        """[n, c, d, *spatial] -> [n, c * d, *spatial]; [n, *spatial] -> [n, 1, *spatial]."""
        if "d" in self.axes or "c" not in self.axes:
            shape = ints(0 if self.case.dynamic == "static" else -1, math.prod(self.channels.values()), *self.sizes)
            if self.case.dynamic == "static":
                shape[0] = 2
            self._add(f"xm = Reshape({source}, xms)", xms=shape)
            return "xm"
        return source

    def _channels_first(self) -> str:
        spatial = "stu"[: self.case.rank]
        return self._merged(self._ordered(f"n{''.join(self.channels)}{spatial}", "x"))

    def _conv(self) -> None:
        case, r = self.case, self.case.rank
        x = self._channels_first()
        given = {"strides": self.strides, "dilations": self.dilations, "pads": (*self.begin, *self.end)}
        attributes = ", ".join(f"{k} = {list(v)}" for k, v in given.items()) + f", group = {self.groups}"
        channels = math.prod(self.channels.values()) // self.groups
        op = "Conv" if case.op == "Conv" else "com.microsoft.FusedConv"
        attributes += ', activation = "Relu"' if case.op == "FusedConv" else ""
        last = case.layout == "last"
        self._add(f"{'c' if last else 'y'} = {op}<{attributes}>({x}, w, b)",
                  w=(FILTERS, channels, *self.kernel), b=(FILTERS,))  # fmt: skip
        if last:
            self._add(f"y = Transpose<perm = {[0, *range(2, r + 2), 1]}>(c)")
        self.out_rank = r + 2

    def _depth(self) -> None:
        x, size = self._channels_first(), self.kernel[0]
        self._add(f"r = SpaceToDepth<blocksize = {size}>({x}) y = Conv(r, w, b)",
                  w=(FILTERS, math.prod(self.channels.values()) * size**2, 1, 1), b=(FILTERS,))  # fmt: skip
        self.out_rank = 4

    def _slices(self) -> None:
        """Every second pixel from four corners, concatenated: Focus, and a 1x1 Conv."""
        x = self._channels_first()
        for at, corner in enumerate(itertools.product(range(2), repeat=2)):
            self._add(f"p{at} = Slice({x}, z{at}, e, ax, two)", **{f"z{at}": ints(*corner)})
        self._add("r = Concat<axis = 1>(p0, p1, p2, p3) y = Conv(r, w, b)", e=ints(2**62, 2**62), ax=ints(2, 3),
                  two=ints(2, 2), w=(FILTERS, math.prod(self.channels.values()) * 4, 1, 1), b=(FILTERS,))  # fmt: skip
        self.out_rank = 4

    def _rows(self) -> None:
        """Rows of flattened patches, and one of MatMul, Gemm, Einsum and the fused ones."""
        op = self.case.op
        if op == "Einsum":
            return self._einsum()
        k = math.prod(self.channels.values()) * math.prod(self.kernel)
        flat = op in ("Gemm", "FusedGemm")
        self._tiled(k, flat) if self.case.tiles else self._gathered(k, flat)
        self.out_rank = 2 if flat else 3
        if op == "MatMul":
            self._add("p = MatMul(m, w) y = Add(p, b)", w=(k, FILTERS), b=(FILTERS,))
        elif op == "FusedMatMul":
            self._add("p = com.microsoft.FusedMatMul<transB = 1, alpha = 0.5>(m, w) y = Add(p, b)", w=(FILTERS, k), b=(FILTERS,))
        elif op == "Gemm":
            self._add("y = Gemm<alpha = 0.5, beta = 2.0, transB = 1>(m, w, b)", w=(FILTERS, k), b=(FILTERS,))
        else:
            self._add('y = com.microsoft.FusedGemm<activation = "Relu", transB = 1>(m, w, b)', w=(FILTERS, k), b=(FILTERS,))
        return None

    def _atoms(self) -> tuple[list[int], dict[str, int]]:
        """The shape with every spatial axis as (windows, kernel), and where each letter stands (capital: kernel)."""
        shape, place = [], {}
        for axis in self.axes:
            place[axis] = len(shape)
            if axis in "stu":
                at = "stu".index(axis)
                place[axis.upper()] = len(shape) + 1
                shape += [self.count[at], self.kernel[at]]
            else:
                shape.append(2 if axis == "n" and self.case.dynamic == "static" else self.channels.get(axis, -1))
        return shape, place

    def _tiled(self, k: int, flat: bool) -> None:
        shape, place = self._atoms()
        spatial = "stu"[: self.case.rank]
        inner = [a for a in self.axes if a not in "n"]  # the flattened patch in the order of the layout
        perm = [place[a] for a in ("n", *spatial)] + [place[a.upper() if a in "stu" else a] for a in inner]
        rows = math.prod(self.count)
        if self.case.dynamic == "all":
            return self._tiled_at_run_time(place, perm, k, flat)
        merged = [-1, k] if flat else [-1, rows, k]
        self._add(f"r = Reshape(x, split) t = Transpose<perm = {perm}>(r) m = Reshape(t, rows)",
                  split=ints(*shape), rows=ints(*merged))  # fmt: skip
        return None

    def _tiled_at_run_time(self, place: dict[str, int], perm: list[int], k: int, flat: bool) -> None:
        """The same with the numbers of windows from Shape."""
        self._add("sh = Shape(x)")
        parts, grids = [], []
        for axis in self.axes:
            if axis == "n":
                self._add("gn = Gather<axis = 0>(sh, in)", **{"in": ints(self.axes.index("n"))})
                parts.append("gn")
            elif axis in "stu":
                size = self.kernel["stu".index(axis)]
                self._add(f"h{axis} = Gather<axis = 0>(sh, i{axis}) g{axis} = Div(h{axis}, k{axis})",
                          **{f"i{axis}": ints(self.axes.index(axis)), f"k{axis}": ints(size)})  # fmt: skip
                parts += [f"g{axis}", f"k{axis}"]
                grids.append(f"g{axis}")
            else:
                self._add("", c=ints(self.channels[axis]))
                parts.append("c")
        self._add(f"s1 = Concat<axis = 0>({', '.join(parts)}) r = Reshape(x, s1) t = Transpose<perm = {perm}>(r)")
        total = grids[0]
        for at, grid in enumerate(grids[1:]):
            self._add(f"q{at} = Mul({total}, {grid})")
            total = f"q{at}"
        head = f"Mul(gn, {total})" if flat else "Identity(gn)"
        self._add(f"hd = {head} s2 = Concat<axis = 0>({'hd' if flat else f'hd, {total}'}, kk) m = Reshape(t, s2)", kk=ints(k))

    def _gathered(self, k: int, flat: bool) -> None:
        """Pad and one Gather over the flattened spatial axes: [n, c, pixels] -> [n, c, kernel, windows] -> rows."""
        x, r = self._channels_first(), self.case.rank
        if "c" not in self.axes:
            channels = 1
        else:
            channels = math.prod(self.channels.values())
        if any((*self.begin, *self.end)):
            self._add(f"xp = Pad({x}, pads)", pads=ints(0, 0, *self.begin, 0, 0, *self.end))
            x = "xp"
        padded = [n + p + q for n, p, q in zip(self.sizes, self.begin, self.end, strict=True)]
        table = Geometry(self.kernel, self.strides, (0,) * (2 * r), self.dilations).gather(padded) - 1
        table = table.reshape(math.prod(self.count), -1).T  # [kernel, windows]
        n = 2 if self.case.dynamic == "static" else -1
        self._add(f"f = Reshape({x}, fs) g = Gather<axis = 2>(f, index) h = Reshape(g, hs) t = Transpose<perm = [0, 2, 1]>(h)",
                  fs=ints(n, channels, math.prod(padded)), index=table.reshape(-1).astype(np.int64),
                  hs=ints(n, channels * math.prod(self.kernel), table.shape[1]))  # fmt: skip
        self._add("m = Reshape(t, rows)", rows=ints(-1, k) if flat else ints(n, table.shape[1], k))

    def _einsum(self) -> None:
        shape, place = self._atoms()
        letters = [""] * len(shape)
        for letter, at in place.items():
            letters[at] = letter
        data = "".join(letters)
        inner = "".join(self.channels) + "STU"[: self.case.rank]
        out = "n" + "stu"[: self.case.rank] + "o"
        sizes = [self.channels[a] if a in self.channels else self.kernel["STU".index(a)] for a in inner]
        self._add(f'r = Reshape(x, split) y = Einsum<equation = "{data},o{inner}->{out}">(r, w)', split=ints(*shape),
                  w=(FILTERS, *sizes))  # fmt: skip
        self.out_rank = self.case.rank + 2


def geometries(model: ir.Model) -> list[Geometry_]:
    """What is read in a model."""
    return [read(site) for site in find(model).sites]
