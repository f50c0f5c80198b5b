"""Changes of a node that make a known mistake of it: each function gives them, with what is said of each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphcheck.blaming.editing import Spot

Edit = Callable[[Spot], None]
Edits = Iterator[tuple[str, Edit]]
EPSILONS = (1e-5, 1e-6, 1e-12, 1e-3, 1e-7, 1e-8, 1e-4, 0.0)

def given(**attributes: Any) -> Edit:
    """Attributes at other values."""
    return lambda spot: spot.set(**attributes)


def put(at: int, array: Any) -> Edit:
    """Another array for an operand."""
    return lambda spot: spot.put(at, array)


def passed(at: int) -> Edit:
    """An operand as the result."""
    return lambda spot: spot.skip(at)


def instead(op: str, domain: str = "") -> Edit:
    """Another operator."""
    return lambda spot: spot.swap(op, list(spot.node.inputs), domain)


def gelu(spot: Spot) -> Edits:
    """The other form of a Gelu."""
    if spot.op == "Gelu" and spot.node.domain == "":
        other = "none" if spot.attr("approximate", "none") == "tanh" else "tanh"
        yield ("Gelu by tanh" if other == "tanh" else "Gelu by erf"), given(approximate=other)
    elif spot.op in ("Gelu", "FastGelu", "BiasGelu"):
        other = "FastGelu" if spot.op != "FastGelu" else "Gelu" if len(spot.node.inputs) < 2 else "BiasGelu"
        said = "Gelu by tanh" if other == "FastGelu" else "Gelu by erf"
        yield said, instead(other, "com.microsoft")
    if spot.op in ("Gelu", "FastGelu") and len(spot.node.inputs) == 1:
        yield "Gelu by a sigmoid", instead("QuickGelu", "com.microsoft")


def erf(spot: Spot) -> Edits:
    """A Gelu by tanh, or by a sigmoid, seen at its Erf."""
    def by_tanh(spot: Spot) -> None:
        z = spot.read(0)
        cube = spot.before("Mul", [spot.before("Mul", [z, z]), spot.scalar(2 * 0.044715)])
        grown = spot.before("Mul", [spot.before("Add", [cube, spot.scalar(1.0)]), z])
        spot.swap("Tanh", [spot.before("Mul", [grown, spot.scalar(2 / math.sqrt(math.pi))])])

    def by_sigmoid(spot: Spot) -> None:
        wide = spot.before("Mul", [spot.read(0), spot.scalar(1.702 * math.sqrt(0.5))])  # 2 sigmoid(2 t) - 1 is tanh(t)
        spot.swap("Tanh", [wide])

    yield "Gelu by tanh", by_tanh
    yield "Gelu by a sigmoid", by_sigmoid


def axis(spot: Spot) -> Edits:
    """Along another axis."""
    old, shape = spot.attr("axis", -1), spot.made.shape
    for axis in range(len(shape) if shape is not None else 0):
        if shape is not None and axis != old % max(len(shape), 1):
            yield f"{spot.op} over axis {axis}", given(axis=axis)


def reduced(spot: Spot) -> Edits:
    """Reduced over other axes."""
    axes, shape = spot.array(1), None if (x := spot.read(0)) is None else x.shape
    stored = [int(a) for a in axes] if axes is not None else spot.attr("axes", None)
    if stored is None or shape is None:
        return
    for other in itertools.combinations(range(len(shape)), len(stored)):
        if sorted(a % len(shape) for a in stored) != list(other):
            said = f"{spot.op} over {'axis' if len(other) == 1 else 'axes'} {', '.join(map(str, other))}"
            if axes is not None:
                yield said, put(1, np.asarray(other, np.int64))
            else:
                yield said, given(axes=list(other))


def flag(name: str, said: str, unsaid: str) -> Callable[[Spot], Edits]:
    """A flag that is flipped."""
    def edits(spot: Spot) -> Edits:
        old = int(spot.attr(name, 0))
        yield (unsaid if old else said), given(**{name: 1 - old})

    return edits


def epsilon(spot: Spot) -> Edits:
    """Another epsilon."""
    old = float(spot.attr("epsilon", 1e-5))
    for epsilon in EPSILONS:
        if not math.isclose(epsilon, old, rel_tol=1e-3):
            yield f"an epsilon of {epsilon:g} for {old:g}", given(epsilon=epsilon)


def added_epsilon(spot: Spot) -> Edits:
    """An epsilon that is added by hand."""
    for at in (0, 1):
        old = spot.array(at)
        if old is not None and old.size == 1 and 0 <= float(old.reshape(-1)[0]) <= 2e-3:
            number = float(old.reshape(-1)[0])
            for epsilon in EPSILONS:
                if not math.isclose(epsilon, number, rel_tol=1e-3):
                    yield f"an epsilon of {epsilon:g} for {number:g}", put(at, np.full(old.shape, epsilon))


def bias(spot: Spot) -> Edits:
    """A bias that is left out."""
    if spot.op in ("Conv", "ConvTranspose", "Gemm", "LayerNormalization") and spot.read(2) is not None:
        yield "its bias missing", lambda spot: spot.node.resize_inputs(2)
    if spot.op == "Add":
        for at in (0, 1):
            if spot.array(at) is not None:
                yield "its bias missing", passed(1 - at)
                yield "its bias added twice", _again(at)
    if spot.op == "Add" and spot.array(0) is None and spot.array(1) is None:
        for at in (0, 1):
            yield "one operand missing", passed(at)


def _again(at: int) -> Edit:
    def edit(spot: Spot) -> None:
        bias = spot.read(at)
        assert bias is not None
        spot.then("Add", bias)

    return edit


def skipped(spot: Spot) -> Edits:
    """An activation that is left out."""
    yield f"its {spot.op} missing", lambda spot: spot.skip()


def clipped(spot: Spot) -> Edits:
    """An activation too many, or another one."""
    yield "a Relu too many", lambda spot: spot.then("Relu")
    yield "a Clip to 0 and 6 too many", lambda spot: spot.then("Clip", spot.scalar(0.0), spot.scalar(6.0))
    if spot.op == "Relu":
        yield "Clip to 0 and 6 for Relu", lambda spot: spot.swap("Clip", [spot.read(0), spot.scalar(0.0), spot.scalar(6.0)])
    if spot.op in ("Clip", "Gelu", "LeakyRelu", "PRelu", "Elu", "HardSwish", "Swish", "Mish"):
        yield f"Relu for {spot.op}", lambda spot: spot.swap("Relu", [spot.read(0)])


def resize(spot: Spot) -> Edits:
    """Coordinates of another kind, or the other neighbour."""
    modes = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
    nearests = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    old, near = spot.attr("coordinate_transformation_mode", "half_pixel"), spot.attr("nearest_mode", nearests[0])
    for mode in modes:
        if mode != old:
            yield f"{mode} for {old}", given(coordinate_transformation_mode=mode)
    if spot.attr("mode", "nearest") == "nearest":
        for other in nearests:
            if other != near:
                yield f"nearest by {other} for {near}", given(nearest_mode=other)
        for mode, other in itertools.product(modes, nearests):
            if mode != old and other != near:
                yield f"{mode} for {old}, {other} for {near}", given(coordinate_transformation_mode=mode, nearest_mode=other)
    elif spot.attr("mode", "nearest") == "cubic":
        coefficient = float(spot.attr("cubic_coeff_a", -0.75))
        yield "another cubic coefficient", given(cubic_coeff_a=-0.5 if coefficient < -0.6 else -0.75)
    for mode in ("nearest", "linear", "cubic"):
        if mode != spot.attr("mode", "nearest"):
            yield f"{mode} for {spot.attr('mode', 'nearest')}", given(mode=mode)


def shifted(spot: Spot) -> Edits:
    """Places that are off by one."""
    if spot.op.startswith("Gather") and (indices := spot.array(1)) is not None:
        axis, x = int(spot.attr("axis", 0)), spot.read(0)
        size = None if x is None or x.shape is None else x.shape[axis]
        count = size if isinstance(size, int) else None
        for step in (1, -1):
            if count is None:
                yield f"its index off by {step:+d}", put(1, indices + step)
                continue
            moved = np.where(indices < 0, indices + count, indices) + step
            yield f"its index off by {step:+d}", put(1, np.clip(moved, 0, count - 1))
            yield f"its index off by {step:+d}, around", put(1, moved % count)
    if spot.op == "Slice" and (starts := spot.array(1)) is not None and (ends := spot.array(2)) is not None:
        for step in (1, -1):

            def shift(spot: Spot, step: int = step, starts: np.ndarray = starts, ends: np.ndarray = ends) -> None:
                spot.put(1, starts + step)
                spot.put(2, np.where(np.abs(ends) < 2**30, ends + step, ends))

            yield f"its begin off by {step:+d}", shift


def moved(spot: Spot) -> Edits:
    """Another permutation that gives the same shape."""
    x, old = spot.read(0), tuple(spot.attr("perm", ()))
    if x is None or x.shape is None or len(x.shape) > 5:
        return
    sizes, rank = list(x.shape), len(x.shape)
    old = old or tuple(reversed(range(rank)))
    want = [sizes[a] for a in old]
    for perm in itertools.permutations(range(rank)):
        got = [sizes[a] for a in perm]
        if perm == old:
            continue
        said = "not transposed" if perm == tuple(range(rank)) else f"transposed by {list(perm)} for {list(old)}"
        if got == want:
            yield said, given(perm=list(perm))
        elif perm == tuple(range(rank)) and all(isinstance(d, int) for d in want):

            def as_it_is(spot: Spot, want: list[Any] = want) -> None:
                spot.swap("Reshape", [spot.read(0), spot.constant(np.asarray(want, np.int64))])

            yield said, as_it_is


def padded(spot: Spot) -> Edits:
    """Pads on the other side, or of another kind."""
    pads = list(spot.attr("pads", ()))
    half = len(pads) // 2
    if half and pads[:half] != pads[half:]:
        yield "its pads on the other side", given(pads=pads[half:] + pads[:half])
    auto = spot.attr("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        yield "its pads on the other side", given(auto_pad="SAME_LOWER" if auto == "SAME_UPPER" else "SAME_UPPER")
    if spot.op == "Pad":
        stored, old = spot.array(1), spot.attr("mode", "constant")
        if stored is not None:
            half = stored.size // 2
            yield "its pads on the other side", put(1, np.concatenate([stored[half:], stored[:half]]))
        for mode in ("constant", "reflect", "edge", "wrap"):
            if mode != old:
                yield f"pads by {mode} for {old}", given(mode=mode)
    if spot.op in ("Conv", "MaxPool", "AveragePool") and half and pads[:half] == pads[half:] and any(pads):
        whole = [p + q for p, q in zip(pads[:half], pads[half:], strict=True)]
        yield "all its pads in front", given(pads=whole + [0] * half)
        yield "all its pads behind", given(pads=[0] * half + whole)
    if spot.op == "MaxPool" and any(pads):

        def by_zero(spot: Spot) -> None:
            outer = [0, 0, *pads[:half], 0, 0, *pads[half:]]
            padded = spot.before("Pad", [spot.read(0), spot.constant(np.asarray(outer, np.int64))])
            spot.node.replace_input_with(0, padded)
            spot.set(pads=[0] * len(pads))

        yield "its pads count as 0", by_zero


def numbers(spot: Spot) -> Edits:
    """An attribute at its default, or at the value that others have."""
    for name, values in (("alpha", (0.01, 1.0, 0.2, 1 / 6, 0.1)), ("beta", (0.5,)), ("gamma", (1.0,))):
        if name in spot.node.attributes:
            old = float(spot.attr(name, 0.0))
            for number in values:
                if not math.isclose(number, old, rel_tol=1e-3):
                    yield f"{name} of {number:.3g} for {old:.3g}", given(**{name: float(number)})


def order(spot: Spot) -> Edits:
    """Operands that changed places."""
    said = dict.fromkeys(("Sub", "Div"), "its operands swapped")
    said |= {"Concat": "its operands in reverse", "Where": "its choices swapped"}

    def turn(spot: Spot) -> None:
        given = list(spot.node.inputs)
        turned = [given[0], given[2], given[1]] if spot.op == "Where" else given[::-1]
        for at, value in enumerate(turned):
            spot.node.replace_input_with(at, value)

    if spot.op in said:
        yield said[spot.op], turn


def rounded(spot: Spot) -> Edits:
    """Rounded the other way."""
    others = {"Floor": ("Ceil", "Round"), "Ceil": ("Floor", "Round"), "Round": ("Floor", "Ceil")}
    for other in others.get(spot.op, ()):
        yield f"{other} for {spot.op}", instead(other)


def _hard(alpha: float) -> Edit:
    return lambda spot: spot.swap("HardSigmoid", [spot.read(0)], alpha=alpha, beta=0.5)


def saturating(spot: Spot) -> Edits:
    """A Sigmoid or a Tanh by straight lines."""
    if spot.op == "Sigmoid":
        for alpha in (1 / 6, 0.2):
            yield "a HardSigmoid", _hard(alpha)
    else:
        yield "a Clip to -1 and 1", lambda spot: spot.swap("Clip", [spot.read(0), spot.scalar(-1.0), spot.scalar(1.0)])
