"""Small hand-written nets in ONNX text that hold what the exports lack: comparisons, extrema, ArgMax, pooling, Resize."""

from __future__ import annotations

import zlib

import numpy as np
import onnx
from onnx import numpy_helper

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'

NETS: dict[str, str] = {
    # a detector's head: pooling of both kinds, Resize, comparisons, extrema, ArgMax
    "detector": """
    net (float[B,4,8,8] x) => (float[B,6,8,8] y, int64[B,8,8] which)
    <float[6,4,3,3] w, float[6] b, float[6,12,1,1] v, float[1,6,1,1] limit,
     float[4] twice = {1.0, 1.0, 2.0, 2.0}>
    {
      c = Conv <pads = [1,1,1,1]> (x, w, b)
      r = LeakyRelu <alpha = 0.1> (c)
      m = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (r)
      a = AveragePool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (c)
      both = Concat <axis = 1> (m, a)
      e = Conv (both, v)
      s = Sigmoid (e)
      t = Tanh (e)
      g = Mul (s, t)
      up = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (g, , twice)
      high = Max (up, c)
      low = Min (high, limit)
      less = Less (low, c)
      z = Where (less, low, up)
      top = ReduceMax <keepdims = 1> (z, axes)
      q = Sub (z, top)
      p = Exp (q)
      n = ReduceSum <keepdims = 1> (p, axes)
      y = Div (p, n)
      which = ArgMax <axis = 1, keepdims = 0> (z)
    }""",
    # attention with a finite mask, scaled by a Div, with a bias of the keys
    "attention": """
    net (float[B,5,8] x) => (float[B,5,8] y)
    <float[8,8] wq, float[8,8] wk, float[8,8] wv, float[8] bq, float[8] bk, float[8] bv, float[5,5] mask, float[8] g, float[8] h>
    {
      n = LayerNormalization <epsilon = 0.00001> (x, g, h)
      q0 = MatMul (n, wq)
      q1 = Add (q0, bq)
      k0 = MatMul (n, wk)
      k1 = Add (k0, bk)
      v0 = MatMul (n, wv)
      v1 = Add (v0, bv)
      q2 = Reshape (q1, split)
      k2 = Reshape (k1, split)
      v2 = Reshape (v1, split)
      q = Transpose <perm = [0,2,1,3]> (q2)
      k = Transpose <perm = [0,2,3,1]> (k2)
      v = Transpose <perm = [0,2,1,3]> (v2)
      s0 = MatMul (q, k)
      s1 = Div (s0, two)
      s = Add (s1, mask)
      p = Softmax <axis = -1> (s)
      o0 = MatMul (p, v)
      o1 = Transpose <perm = [0,2,1,3]> (o0)
      o = Reshape (o1, joined)
      r = Add (o, x)
      e = Gelu (r)
      y = Add (e, r)
    }""",
    # the remaining functions side by side, so that none hides another
    "functions": """
    net (float[B,4,6] x) => (float[B,4,6] y)
    <float[6] w>
    {
      a = Elu <alpha = 0.5> (x)
      b = HardSwish (x)
      c = Softplus (x)
      d = Log (c)
      e = Sin (x)
      f = Cos (x)
      g = Floor (x)
      h = Ceil (x)
      i = Sum (a, b, d, e, f, g, h)
      j = Abs (x)
      k = Sqrt (j)
      l = ReduceL2 <keepdims = 1> (x, axes)
      m = ReduceMin <keepdims = 1> (x, axes)
      n = Greater (x, m)
      o = Cast <to = 1> (n)
      p = Mul (o, l)
      q = Mod <fmod = 1> (x, w)
      r = Sum (k, p, q, i)
      s = HardSigmoid (x)
      t = Erf (x)
      u = Round (x)
      v = Neg (x)
      z = Sum (s, t, u, r)
      aa = Max (x, z)
      ab = Sub (aa, v)
      ac = ReduceMax <keepdims = 1> (x, axes)
      ad = Relu (x)
      ae = LessOrEqual (x, ad)
      af = Where (ae, ab, ac)
      ag = ReduceSum <keepdims = 1> (x, axes)
      y = Add (af, ag)
    }""",
}
INTEGERS = {
    "detector": {"axes": [1]},
    "attention": {"split": [0, 5, 2, 4], "joined": [0, 5, 8]},
    "functions": {"axes": [1]},
}


def net(name: str) -> onnx.ModelProto:
    """The net with its weights drawn by name (dyadic mask values, so that sums of them are exact)."""
    model = onnx.parser.parse_model(f"{HEADER} {NETS[name]}")
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    graph = model.graph
    known = {t.name: t for t in graph.initializer}
    declared = {v.name: v for v in graph.value_info}
    for key, value in declared.items():
        if key not in known:
            shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
            array = rng.standard_normal(shape).astype(np.float32)
            if key == "mask":
                array = np.where(np.tri(*shape) > 0, np.float32(0), np.float32(-4))
            graph.initializer.append(numpy_helper.from_array(array, key))
    for node in graph.node:
        node.name = node.output[0]
    for key, values in INTEGERS[name].items():
        graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.int64), key))
    if name == "attention":
        graph.initializer.append(numpy_helper.from_array(np.asarray(2, np.float32), "two"))
    return model
