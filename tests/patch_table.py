"""The table of patch embeddings: every way that the analyzer recognises and the rewriter takes to the other forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from patch_cases import IMAGE, SPLIT, TOKENS, conv, conv_nhwc, dynamic, focus, graph, ints, patchify, projected

ANY = ({"N": 2}, {"N": 3})
SIZES = ({"N": 2, "H": 8, "W": 12}, {"N": 1, "H": 16, "W": 4})
ODD = ({"N": 2, "H": 9, "W": 11}, {"N": 1, "H": 16, "W": 4})
Case = tuple[ir.Model, Sequence[Mapping[str, int]], str, str | None, list[list[int]], str]


def cases() -> dict[str, Case]:
    """name -> (model, sizes to prove at, form, einops pattern, [kernel, strides, dilations, pads], layout)."""
    p44 = [[4, 4], [4, 4], [1, 1], [0] * 4]
    stored = np.random.default_rng(0).integers(-90, 90, (5, 48)).astype(np.int8)
    blocks = np.kron(np.eye(2), np.random.default_rng(0).normal(size=(32, 3))).astype(np.float32)
    tokens = """g = Relu(x) t = Transpose<perm = [0, 2, 1]>(g) r = Reshape(t, v)
        c = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(r, w, b)
        f = Reshape(c, o) y = Transpose<perm = [0, 2, 1]>(f)"""
    branch = "(float[N,3,2,4,2,4] q){q = Reshape(x, split)}"
    cond = f"""c = Constant<value = bool {{1}}>() r = If(c)<then_branch = one() => {branch},
        else_branch = two() => {branch.replace("q", "k")}> t = Transpose<perm = [0, 2, 4, 1, 3, 5]>(r)
        m = Reshape(t, merged) y = MatMul(m, w)"""
    crop = """s = Slice(x, st, en, ax) r = Reshape(s, split) t = Transpose<perm = [0, 2, 4, 1, 3, 5]>(r)
        m = Reshape(t, merged) p = MatMul(m, w) y = Add(p, b)"""
    swapped = """r = Reshape(x, split) t = Transpose<perm = [0, 1, 3, 5, 2, 4]>(r) m = Reshape(t, mg)
        p = MatMul(w, m) y = Add(p, b)"""
    left = """r = Reshape(x, split) t = Transpose<perm = [1, 3, 5, 0, 2, 4]>(r) m = Reshape(t, mg)
        y = Gemm<transA = 1>(m, w, b)"""
    rows = {"split": SPLIT["split"], "mg": ints(-1, 48), "w": (5, 48), "b": (5,)}
    gemm = "r = Reshape(x, split) t = Transpose<perm = [0, 2, 4, 1, 3, 5]>(r) m = Reshape(t, mg) y = "
    nchw, two = "b c (h p1) (w p2) -> b (h w) (c p1 p2)", "float[a,b] y"
    maps = "float[a,b,c,d] y"
    fused_conv = 'kernel_shape = [2, 2], strides = [2, 2], activation = "Relu"'
    fused_gemm = 'com.microsoft.FusedGemm<activation = "LeakyRelu", activation_alpha = 0.1, transB = 1>(m, w, b)'
    flat = "r = Reshape(x, v) c = Conv<kernel_shape = [2, 2, 2], strides = [2, 2, 2]>(r, w) y = Reshape(c, o)"
    return {
        "nchw": (
            patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 6, 48]),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "nhwc": (
            patchify(["N", 8, 12, 3], [0, 2, 4, 3, 4, 3], [0, 1, 3, 2, 4, 5], [0, 6, 48], False),
            ANY,
            "matmul",
            "b (h p1) (w p2) c -> b (h w) (p1 p2 c)",
            p44,
            "NHWC",
        ),
        "windows across": (
            patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 4, 2, 1, 3, 5], [0, 6, 48]),
            ANY,
            "matmul",
            "b c (h p1) (w p2) -> b (w h) (c p1 p2)",
            p44,
            "NCHW",
        ),
        "maps": (
            patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 2, 3, 48]),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "1-d": (
            patchify(["N", 3, 12], [0, 3, 3, 4], [0, 2, 1, 3], [0, 3, 12]),
            ANY,
            "matmul",
            "b c (l p) -> b l (c p)",
            [[4], [4], [1], [0, 0]],
            "NCW",
        ),
        "1-d, channels last": (
            patchify(["N", 12, 3], [0, 3, 4, 3], [0, 1, 2, 3], [0, 3, 12]),
            ANY,
            "matmul",
            "b (l p) c -> b l (p c)",
            [[4], [4], [1], [0, 0]],
            "NWC",
        ),
        "3-d": (
            patchify(["N", 3, 4, 8, 12], [0, 3, 2, 2, 2, 4, 3, 4], [0, 2, 4, 6, 1, 3, 5, 7], [0, 12, 96]),
            ANY,
            "matmul",
            "b c (t p1) (h p2) (w p3) -> b (t h w) (c p1 p2 p3)",
            [[2, 4, 4], [2, 4, 4], [1] * 3, [0] * 6],
            "NCDHW",
        ),
        "video": (
            patchify(["N", 4, 3, 8, 12], [0, 2, 2, 3, 2, 4, 3, 4], [0, 1, 4, 6, 3, 2, 5, 7], [0, 12, 96]),
            ANY,
            "matmul",
            "b (t p1) c (h p2) (w p3) -> b (t h w) (c p1 p2 p3)",
            [[2, 4, 4], [2, 4, 4], [1] * 3, [0] * 6],
            "NDCHW",
        ),
        "frames": (
            patchify(["N", 4, 3, 8, 12], [0, 4, 3, 2, 4, 3, 4], [0, 1, 3, 5, 2, 4, 6], [0, 4, 6, 48]),
            ANY,
            "matmul",
            "b1 b2 c (h p1) (w p2) -> b1 b2 (h w) (c p1 p2)",
            p44,
            "NNCHW",
        ),
        "no channels": (
            patchify(["N", 8, 12], [0, 2, 4, 3, 4], [0, 1, 3, 2, 4], [0, 6, 16]),
            ANY,
            "matmul",
            "b (h p1) (w p2) -> b (h w) (p1 p2)",
            p44,
            "NHW",
        ),
        "no batch": (
            patchify([3, 8, 12], [3, 2, 4, 3, 4], [1, 3, 0, 2, 4], [6, 48]),
            ({},),
            "matmul",
            "c (h p1) (w p2) -> (h w) (c p1 p2)",
            p44,
            "CHW",
        ),
        "two channel axes": (
            patchify(["N", 2, 8, 3, 12], [0, 2, 2, 4, 3, 3, 4], [0, 2, 5, 1, 4, 3, 6], [0, 6, 96]),
            ANY,
            "matmul",
            "b c1 (h p1) c2 (w p2) -> b (h w) (c1 c2 p1 p2)",
            p44,
            "NCHCW",
        ),
        "dynamic": (dynamic(), SIZES, "matmul", "b c (h p1) (w p2) -> b (h w) (p1 p2 c)", p44, "NCHW"),
        "overlapping": (
            conv_nhwc("kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]", (5, 3, 3, 3)),
            ODD,
            "conv",
            None,
            [[3, 3], [2, 2], [1, 1], [1] * 4],
            "NHWC",
        ),
        "asymmetric": (
            conv_nhwc("strides = [2, 1], pads = [0, 1, 1, 0], dilations = [1, 2]", (5, 3, 3, 2), "float[N,8,9,3] x"),
            ANY,
            "conv",
            None,
            [[3, 2], [2, 1], [1, 2], [0, 1, 1, 0]],
            "NHWC",
        ),
        "same": (
            conv_nhwc('strides = [2, 2], auto_pad = "SAME_UPPER"', (5, 3, 4, 4), "float[N,9,9,3] x"),
            ANY,
            "conv",
            None,
            [[4, 4], [2, 2], [1, 1], [1, 1, 2, 2]],
            "NHWC",
        ),
        "padded behind": (
            graph(
                IMAGE,
                maps,
                "q = Pad(x, k) y = Conv<strides = [2, 2]>(q, w, b)",
                k=ints(0, 0, 0, 0, 0, 0, 1, 1),
                w=(5, 3, 3, 3),
                b=(5,),
            ),
            ANY,
            "conv",
            None,
            [[3, 3], [2, 2], [1, 1], [0, 0, 1, 1]],
            "NCHW",
        ),
        "times one": (
            graph(IMAGE, maps, "q = Mul(x, k) y = Conv<strides = [2, 2]>(q, w)", k=np.float32(1), w=(5, 3, 3, 3)),
            ANY,
            "conv",
            None,
            [[3, 3], [2, 2], [1, 1], [0] * 4],
            "NCHW",
        ),
        "grouped": (
            conv_nhwc("strides = [2, 2], group = 2", (4, 3, 2, 2), "float[N,8,8,6] x"),
            ANY,
            "conv",
            "b (h p1) (w p2) c -> b (h w) (c p1 p2)",
            [[2, 2], [2, 2], [1, 1], [0] * 4],
            "NHWC",
        ),
        "block-diagonal": (
            patchify(["N", 4, 8, 8], [0, 4, 2, 4, 2, 4], [0, 2, 4, 1, 3, 5], [0, 4, 64], False, weight=blocks),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "cropped": (conv("strides = [4, 4]", (5, 3, 4, 4), "float[N,3,9,11] x"), ANY, "conv", nchw, p44, "NCHW"),
        "cropped, dynamic": (conv("strides = [4, 4]", (5, 3, 4, 4)), ODD, "conv", nchw, p44, "NCHW"),
        "gaps": (conv("strides = [3, 3]", (5, 3, 2, 2)), ODD, "conv", None, [[2, 2], [3, 3], [1, 1], [0] * 4], "NCHW"),
        "sliced": (
            graph(
                "float[N,3,9,11] x",
                TOKENS,
                crop,
                st=ints(1, 2),
                en=ints(9, 10),
                ax=ints(2, 3),
                w=(48, 5),
                b=(5,),
                **SPLIT,
            ),
            ANY,
            "unfold",
            None,
            [[4, 4], [4, 4], [1, 1], [-1, -2, 0, 0]],
            "NCHW",
        ),
        "gemm": (
            graph(IMAGE, two, gemm + "Gemm<alpha = 0.7, beta = 0.3, transB = 1>(m, w, b)", **rows),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "gemm, left": (
            graph(IMAGE, two, left, **{**rows, "mg": ints(48, -1), "w": (48, 5)}),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "einsum": (
            graph(
                IMAGE,
                maps,
                'r = Reshape(x, split) y = Einsum<equation = "bchpwq,ocpq->bhwo">(r, w)',
                w=(5, 3, 4, 4),
                split=SPLIT["split"],
            ),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "weight first": (
            graph(IMAGE, TOKENS, swapped, **{**rows, "mg": ints(-1, 48, 4), "b": (5, 1)}),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "space to depth": (
            graph(IMAGE, maps, "r = SpaceToDepth<blocksize = 4>(x) y = Conv(r, w, b)", w=(5, 48, 1, 1), b=(5,)),
            ANY,
            "space-to-depth",
            "b c (h p1) (w p2) -> b (h w) (p1 p2 c)",
            p44,
            "NCHW",
        ),
        "focus": (
            focus(),
            ({"N": 2, "H": 12, "W": 10}, {"N": 1, "H": 8, "W": 8}),
            "space-to-depth",
            None,
            [[6, 6], [2, 2], [1, 1], [2] * 4],
            "NCHW",
        ),
        "fused matmul": (
            projected("p = com.microsoft.FusedMatMul<transB = 1, alpha = 0.5>(m, w) y = Add(p, b)", w=(5, 48), b=(5,)),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "fused conv": (
            conv_nhwc(fused_conv, (4, 3, 2, 2), "float[N,8,8,3] x", "com.microsoft.FusedConv"),
            ANY,
            "conv",
            "b (h p1) (w p2) c -> b (h w) (c p1 p2)",
            [[2, 2], [2, 2], [1, 1], [0] * 4],
            "NHWC",
        ),
        "fused gemm": (graph(IMAGE, two, gemm + fused_gemm, **rows), ANY, "matmul", nchw, p44, "NCHW"),
        "quantized": (
            projected(
                "d = DequantizeLinear(q, s) i = Identity(d) v = Transpose<perm = [1, 0]>(i) y = MatMul(m, v)",
                q=stored,
                s=np.float32(0.03),
            ),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "quantized by channel": (
            projected(
                "d = DequantizeLinear<axis = 0>(q, s) v = Transpose<perm = [1, 0]>(d) y = MatMul(m, v)",
                q=stored,
                s=np.linspace(0.01, 0.05, 5, dtype=np.float32),
            ),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "if": (graph(IMAGE, TOKENS, cond, w=(48, 5), **SPLIT), ANY, "matmul", nchw, p44, "NCHW"),
        "flattened": (
            graph("float[L,24] x", two, flat, v=ints(-1, 3, 2, 2, 2), w=(5, 3, 2, 2, 2), o=ints(-1, 5)),
            ({"L": 2}, {"L": 3}),
            "conv",
            None,
            [[2] * 3, [2] * 3, [1] * 3, [0] * 6],
            "NC",
        ),
        "from tokens": (
            graph("float[N,64,6] x", TOKENS, tokens, v=ints(0, 6, 8, 8), w=(5, 6, 3, 3), b=(5,), o=ints(0, 5, 16)),
            ANY,
            "conv",
            None,
            [[3, 3], [2, 2], [1, 1], [1] * 4],
            "NCHW",
        ),
        "float16": (
            patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 6, 48], kind="float16"),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "bfloat16": (
            patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 6, 48], kind="bfloat16", opset=22),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
        "double": (
            patchify(["N", 3, 8, 12], [0, 3, 2, 4, 3, 4], [0, 2, 4, 1, 3, 5], [0, 6, 48], kind="double"),
            ANY,
            "matmul",
            nchw,
            p44,
            "NCHW",
        ),
    }
