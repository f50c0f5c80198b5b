"""The table of patch un-embeddings, every way to write a projection to pixels; and of near misses, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from patch_cases import graph, ints

ANY = ({"N": 2}, {"N": 3})
SIZES = ({"N": 2, "H": 3, "W": 5}, {"N": 1, "H": 4, "W": 2})
IMAGE, TOKENS, MAPS = "float[n,c,h,w] y", "float[N,6,5] x", "float[N,5,H,W] x"
NCHW, NHWC = "b c (h p1) (w p2)", "b (h p1) (w p2) c"
# model, sizes to prove at, form, pattern, layout, kernel, [features, channels, groups]
Case = tuple[ir.Model, Sequence[Mapping[str, int]], str, str, str, list[int], list[int]]


def unpatchify(
    split: Sequence[int], perm: Sequence[int], merged: Sequence[int], inputs: str = TOKENS, before: str = "",
    behind: str = "", **more: Any,
) -> ir.Model:  # fmt: skip
    """MatMul, and Add; ``before``; Reshape to ``split``, Transpose, Reshape to ``merged``; ``behind``, which gives y."""
    order = ", ".join(map(str, perm))
    body = f"p = MatMul(x, w) {before or 'q = Add(p, b)'} r = Reshape(q, s) t = Transpose<perm = [{order}]>(r) "
    body += f"m = Reshape(t, o) {behind}" if behind else "y = Reshape(t, o)"
    out = f"float[{','.join('abcdef'[: len(merged)])}] y"
    given = {"w": (5, 48), "b": (48,), "s": ints(*split), "o": ints(*merged), **more}
    return graph(inputs, out, body, **{name: given[name] for name in given if f" {name})" in body or f" {name}," in body})


def shuffled(mode: str, body: str = "c = Conv(x, w, b)", inputs: str = MAPS, **constants: Any) -> ir.Model:
    """What ``body`` makes as ``c``, and a DepthToSpace."""
    given = constants or {"w": (12, 5, 1, 1), "b": (12,)}
    return graph(inputs, IMAGE, f'{body} y = DepthToSpace<blocksize = 2, mode = "{mode}">(c)', **given)


def transposed(attributes: str, weight: tuple[int, ...], inputs: str, bias: int = 0) -> ir.Model:
    """A ConvTranspose of the input as it is."""
    out = f"float[{','.join('abcde'[: len(weight)])}] y"
    given = {"w": weight, **({"b": (bias,)} if bias else {})}
    return graph(inputs, out, f"y = ConvTranspose<{attributes}>(x, w{', b' if bias else ''})", **given)


def cases() -> dict[str, Case]:
    """name -> case."""
    perm, split = [0, 5, 1, 3, 2, 4], [-1, 2, 3, 4, 4, 3]
    rows = "b (h w) (p1 p2 c) -> "
    drop = "f = Add(p, b) q = Slice(f, st, en, ax)"
    channel = np.repeat(np.random.default_rng(1).normal(size=3).astype(np.float32)[None], 16, 0).reshape(-1)
    columns = "p = MatMul(x, w) t = Transpose<perm = [0, 2, 1]>(p) y = Col2Im<strides = [2, 2]>(t, o, k)"
    einsum = """p = MatMul(x, w) q = Add(p, b) r = Reshape(q, s) t = Einsum<equation = "nhwpqc->nchpwq">(r)
        y = Reshape(t, o)"""
    expand = "y = LayerNormalization<axis = -1>(m, g, v)"
    swin = {"w": (5, 16), "g": (4,), "v": (4,)}
    gemm = """g = Reshape(x, two) p = Gemm<alpha = 0.5, beta = 2.0>(g, w, b) r = Reshape(p, s)
        t = Transpose<perm = [0, 5, 1, 3, 2, 4]>(r) y = Reshape(t, o)"""
    sized = {"s": ints(*split), "o": ints(-1, 3, 8, 12)}
    flat = """t = Transpose<perm = [0, 2, 3, 1]>(x) p = MatMul(t, w) r = Reshape(p, s)
        u = Transpose<perm = [0, 5, 1, 3, 2, 4]>(r) y = Reshape(u, o)"""
    p44, up = [4, 4], [5, 3, 1]
    d2s = "b (h w) ({}) -> b c (h p1) (w p2)"
    return {
        "mae": (graph(TOKENS, IMAGE, einsum, w=(5, 48), b=(48,), **sized), ANY, "matmul", rows + NCHW, "NCHW", p44, up),
        "mae, class token": (
            unpatchify(split, perm, [-1, 3, 8, 12], "float[N,7,5] x", drop, st=ints(1), en=ints(99), ax=ints(1)),
            ANY, "matmul", rows + NCHW, "NCHW", p44, up,
        ),
        "dit": (unpatchify(split, perm, [-1, 3, 8, 12]), ANY, "matmul", rows + NCHW, "NCHW", p44, up),
        "bias by channel": (
            unpatchify(split, perm, [-1, 3, 8, 12], b=channel), ANY, "matmul", rows + NCHW, "NCHW", p44, up,
        ),
        "bias on pixels": (
            unpatchify(split, perm, [-1, 3, 8, 12], before="q = Identity(p)", behind="y = Add(m, v)", v=(3, 1, 1)),
            ANY, "matmul", rows + NCHW, "NCHW", p44, up,
        ),
        "channels slowest": (
            unpatchify([-1, 2, 3, 3, 4, 4], [0, 3, 1, 4, 2, 5], [-1, 3, 8, 12]),
            ANY, "matmul", "b (h w) (c p1 p2) -> " + NCHW, "NCHW", p44, up,
        ),
        "columns first": (
            unpatchify([-1, 2, 3, 4, 4, 3], [0, 5, 1, 4, 2, 3], [-1, 3, 8, 12]),
            ANY, "matmul", "b (h w) (p2 p1 c) -> " + NCHW, "NCHW", p44, up,
        ),
        "windows across": (
            unpatchify([-1, 3, 2, 4, 4, 3], [0, 5, 2, 3, 1, 4], [-1, 3, 8, 12]),
            ANY, "matmul", "b (w h) (p1 p2 c) -> " + NCHW, "NCHW", p44, up,
        ),
        "nhwc": (
            unpatchify(split, [0, 1, 3, 2, 4, 5], [-1, 8, 12, 3]), ANY, "matmul", rows + NHWC, "NHWC", p44, up,
        ),
        "gemm": (
            graph(TOKENS, IMAGE, gemm, w=(5, 48), b=(48,), two=ints(-1, 5), **sized),
            ANY, "matmul", rows + NCHW, "NCHW", p44, up,
        ),
        "from maps": (
            graph("float[N,5,2,3] x", IMAGE, flat, w=(5, 48), **sized),
            ANY, "matmul", rows + NCHW, "NCHW", p44, up,
        ),
        "swin": (
            unpatchify([-1, 2, 3, 2, 2, 4], [0, 1, 3, 2, 4, 5], [-1, 4, 6, 4], before="q = Identity(p)", behind=expand, **swin),
            ANY, "matmul", rows + NHWC, "NHWC", [2, 2], [5, 4, 1],
        ),
        "swin, rows": (
            unpatchify([-1, 2, 3, 2, 2, 4], [0, 1, 3, 2, 4, 5], [-1, 24, 4], before="q = Identity(p)", behind=expand, **swin),
            ANY, "matmul", rows + NHWC, "NHWC", [2, 2], [5, 4, 1],
        ),
        "unetr": (
            transposed("strides = [2, 2, 2]", (5, 4, 2, 2, 2), "float[N,5,D,H,W] x"),
            ({"N": 1, "D": 2, "H": 3, "W": 2}, {"N": 2, "D": 3, "H": 2, "W": 2}),
            "conv-transpose", "b (t h w) (c p1 p2 p3) -> b c (t p1) (h p2) (w p3)", "NCDHW", [2, 2, 2], [5, 4, 1],
        ),
        "transposed": (
            transposed("strides = [2, 3], kernel_shape = [2, 3]", (5, 4, 2, 3), MAPS, 4),
            SIZES, "conv-transpose", d2s.format("c p1 p2"), "NCHW", [2, 3], [5, 4, 1],
        ),
        "grouped": (
            transposed("strides = [2, 2], group = 2", (4, 3, 2, 2), "float[N,4,3,5] x", 6),
            ANY, "conv-transpose", d2s.format("c p1 p2"), "NCHW", [2, 2], [4, 6, 2],
        ),
        "espcn": (shuffled("CRD"), SIZES, "depth-to-space", d2s.format("c p1 p2"), "NCHW", [2, 2], up),
        "dcr": (shuffled("DCR"), SIZES, "depth-to-space", d2s.format("p1 p2 c"), "NCHW", [2, 2], up),
        "twice": (
            graph("float[N,5,2,3] x", IMAGE, """c = Conv(x, w) d = DepthToSpace<blocksize = 2, mode = "CRD">(c)
                y = DepthToSpace<blocksize = 2, mode = "CRD">(d)""", w=(48, 5, 1, 1)),
            ANY, "depth-to-space", "", "NCHW", [4, 4], up,
        ),
        "fold": (
            graph(TOKENS, IMAGE, columns, w=(5, 12), o=ints(4, 6), k=ints(2, 2)),
            ANY, "fold", "b (h w) (c p1 p2) -> b c (h p1) (w p2)", "NCHW", [2, 2], up,
        ),
        "1-d": (
            graph(TOKENS, "float[n,c,l] y", """p = MatMul(x, w) q = Add(p, b) r = Reshape(q, s)
                t = Transpose<perm = [0, 3, 1, 2]>(r) y = Reshape(t, o)""",
                w=(5, 12), b=(12,), s=ints(-1, 6, 4, 3), o=ints(-1, 3, 24)),
            ANY, "matmul", "b l (p c) -> b c (l p)", "NCW", [4], up,
        ),
        "patchtst": (
            graph("float[N,7,6,5] x", "float[n,v,l] y", "p = MatMul(x, w) q = Add(p, b) y = Reshape(q, o)",
                w=(5, 4), b=np.full(4, 0.5, np.float32), o=ints(0, 0, 24)),
            ANY, "matmul", "b1 b2 l (p) -> b1 b2 (l p)", "NNW", [4], [5, 1, 1],
        ),
        "1-d, dynamic": (
            transposed("strides = [4]", (5, 2, 4), "float[N,5,H] x", 2),
            ({"N": 2, "H": 3}, {"N": 1, "H": 4}), "conv-transpose", "b l (c p) -> b c (l p)", "NCW", [4], [5, 2, 1],
        ),
        "3-d": (
            unpatchify([-1, 2, 3, 2, 2, 4, 2, 3], [0, 7, 1, 4, 2, 5, 3, 6], [-1, 3, 4, 12, 4], "float[N,12,5] x"),
            ANY, "matmul", "b (t h w) (p1 p2 p3 c) -> b c (t p1) (h p2) (w p3)", "NCDHW", [2, 4, 2], up,
        ),
    }  # fmt: skip


def near_misses() -> dict[str, tuple[ir.Model, str, str]]:
    """name -> (model, reason, node)."""
    split, perm, merged = [-1, 2, 3, 4, 4, 3], [0, 5, 1, 3, 2, 4], [-1, 3, 8, 12]
    over = "which would need additions"
    between = "{} stands between the projection and the movement to pixels"
    relu, norm = "r = Conv(x, w, b) c = Relu(r)", "q = LayerNormalization<axis = -1>(p, g, v)"
    weight = graph(
        f"{TOKENS}, float[5,48] w", IMAGE, """p = MatMul(x, w) r = Reshape(p, s)
        t = Transpose<perm = [0, 5, 1, 3, 2, 4]>(r) y = Reshape(t, o)""", s=ints(*split), o=ints(*merged),
    )  # fmt: skip
    columns = "p = MatMul(x, w) t = Transpose<perm = [0, 2, 1]>(p) y = Col2Im<strides = [1, 1]>(t, o, k)"
    steps = """p = MatMul(x, w) u = ReduceMean<keepdims = 1>(p, last) d = Sub(p, u) e = Mul(d, d)
        n = ReduceMean<keepdims = 1>(e, last) f = Sqrt(n) q = Div(d, f) r = Reshape(q, s)
        t = Transpose<perm = [0, 5, 1, 3, 2, 4]>(r) y = Reshape(t, o)"""
    return {
        "own kernel": (
            shuffled("CRD", "c = Conv<pads = [1, 1, 1, 1]>(x, w, b)", w=(12, 5, 3, 3), b=(12,)),
            f"its own kernel of 3x3 makes the patches overlap, {over}", "Conv(c)",
        ),
        "activation": (shuffled("CRD", relu), between.format("Relu"), "Relu(c)"),
        "norm": (
            unpatchify(split, perm, merged, before=norm, g=(48,), v=(48,)),
            between.format("LayerNormalization"), "LayerNormalization(q)",
        ),
        "norm in steps": (
            graph(TOKENS, IMAGE, steps, w=(5, 48), last=ints(-1), s=ints(*split), o=ints(*merged)),
            between.format("Sub"), "Sub(d)",
        ),
        "fused activation": (
            shuffled("CRD", 'c = com.microsoft.FusedConv<activation = "Relu">(x, w, b)', w=(12, 5, 1, 1), b=(12,)),
            "what is fused into it stands between the projection and the movement", "FusedConv(c)",
        ),
        "weight": (weight, "its weight is not constant", "MatMul(p)"),
        "bias of each place": (
            unpatchify(split, perm, merged, before="q = Add(p, v)", v=(6, 48)),
            "the bias differs between the rows", "MatMul(p)",
        ),
        "two biases": (
            graph(TOKENS, IMAGE, """g = Reshape(x, two) p = Gemm(g, w, b) q = Add(p, v) r = Reshape(q, s)
                t = Transpose<perm = [0, 5, 1, 3, 2, 4]>(r) y = Reshape(t, o)""",
                w=(5, 48), b=(48,), v=(48,), two=ints(-1, 5), s=ints(*split), o=ints(*merged)),
            "a second constant is added to the bias before the movement to pixels", "Gemm(p)",
        ),
        "overlapping": (transposed("strides = [2, 2]", (5, 4, 4, 4), MAPS), f"its windows overlap, {over}", "ConvTranspose(y)"),
        "gaps": (transposed("strides = [3, 3]", (5, 4, 2, 2), MAPS), "its windows leave gaps", "ConvTranspose(y)"),
        "dilated": (
            transposed("strides = [2, 2], dilations = [2, 2]", (5, 4, 2, 2), MAPS),
            f"its windows overlap, {over}", "ConvTranspose(y)",
        ),
        "cut": (
            transposed("strides = [2, 2], pads = [1, 1, 1, 1]", (5, 4, 2, 2), "float[N,5,3,5] x"),
            "its pads cut off or add pixels", "ConvTranspose(y)",
        ),
        "columns that overlap": (
            graph(TOKENS, IMAGE, columns, w=(5, 12), o=ints(3, 4), k=ints(2, 2)),
            f"its windows do not lie side by side, {over} or a cut", "Col2Im(y)",
        ),
    }  # fmt: skip


def plain() -> dict[str, ir.Model]:
    """Projections behind which data move, and that are no un-embedding: nothing is to be said of them."""
    heads = "p = MatMul(x, w) r = Reshape(p, s) y = Transpose<perm = [0, 2, 1, 3]>(r)"
    boxes = "p = Conv(x, w) r = Transpose<perm = [0, 2, 3, 1]>(p) y = Reshape(r, s)"
    joined = "p = MatMul(x, w) r = Reshape(p, s) t = Transpose<perm = [0, 2, 1, 3]>(r) y = Reshape(t, o)"
    split = "p = MatMul(x, w) r = Reshape(p, s) t = Transpose<perm = [0, 2, 3, 1]>(r) y = Reshape(t, o)"
    return {
        "heads": graph(TOKENS, "float[n,h,l,c] y", heads, w=(5, 16), s=ints(0, 0, 4, 4)),
        "heads in the batch": graph(TOKENS, "float[h,l,c] y", joined, w=(5, 16), s=ints(0, 0, 4, 4), o=ints(-1, 6, 4)),
        "boxes of anchors": graph("float[N,6,4,4] x", "float[n,l,c] y", boxes, w=(12, 6, 1, 1), s=ints(0, -1, 4)),
        "each part across": graph(TOKENS, "float[n,c,l] y", split, w=(5, 12), s=ints(0, 6, 3, 4), o=ints(0, 3, 24)),
    }
