"""The article's Keras models through tf2onnx (tensorflow is imported here)."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from graphcheck.exporting.catalogue import Variant

if TYPE_CHECKING:
    import onnx


def to_onnx(variant: Variant) -> onnx.ModelProto:
    """The ONNX model that tf2onnx makes of ``variant``, pixels NHWC -> features (b, rows, columns, d)."""
    tf = _tensorflow()
    import tf2onnx

    model = _build(tf, variant)
    name, shape = variant.inputs[0]
    signature = [tf.TensorSpec([None if isinstance(dim, str) else dim for dim in shape], tf.float32, name=name)]
    function = tf.function(lambda pixels: {"features": model(pixels)})
    proto: onnx.ModelProto = tf2onnx.convert.from_function(function, signature, opset=variant.opset)[0]
    return _renumbered(proto)


def _renumbered(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with the numbers in generated names (``Conv__33``) counted anew along the nodes, initializers by name.

    tf2onnx counts them over the whole process and in the order of sets of objects, so that no two runs agree.
    """
    graph, new = model.graph, dict[str, str]()

    def rename(name: str) -> str:
        if name not in new:
            stem, *numbers = re.split(r"__(?=\d)", name)
            new[name] = f"{stem}__{len(new)}" if numbers else name
        return new[name]

    for node in graph.node:
        node.name = rename(node.name)
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = rename(value.name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = rename(dim.dim_param)
    ordered = sorted(graph.initializer, key=lambda initializer: initializer.name)
    graph.ClearField("initializer")
    graph.initializer.extend(ordered)
    return model


def _build(tf: Any, variant: Variant) -> Any:
    """The Keras model of ``variant`` with the family's weights, carried from form to form as the article does."""
    import keras
    from keras import layers

    keras.backend.clear_session()
    bias = variant.family != "article-keras"
    kernel, stride, outputs = variant.kernel, variant.stride, variant.outputs
    padding = "valid" if variant.patch else "same"
    height, width, channels = variant.image
    rows, columns = height // stride, width // stride
    patch_size = kernel * kernel * channels

    class ExtractPatches(layers.Layer):  # Keras 3 refuses the bare call on a symbolic input
        def call(self, pixels: Any) -> Any:
            sizes, strides = (1, kernel, kernel, 1), (1, stride, stride, 1)
            return tf.image.extract_patches(pixels, sizes, strides, (1, 1, 1, 1), padding.upper())

        def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
            return shape[0], rows, columns, patch_size

    weight, bias_values = _weights(variant, (kernel, kernel, channels, outputs))
    movement: list[Any] = []
    if variant.form == "conv":
        projection = layers.Conv2D(outputs, kernel, strides=stride, padding=padding, use_bias=bias, name="projection")
    else:
        weight = weight.reshape(patch_size, outputs)
        projection = layers.Dense(outputs, use_bias=bias, name="projection")
    if variant.form == "unfold":
        movement = [ExtractPatches(name="im2col")]
    elif variant.form == "reshape-p1p2c":
        movement = [
            layers.Reshape((rows, kernel, columns, kernel, channels), name="split"),
            layers.Permute((1, 3, 2, 4, 5), name="permute"),
            layers.Reshape((rows, columns, patch_size), name="flatten"),
        ]
    model = keras.Sequential([keras.Input(variant.image, name="pixels"), *movement, projection], name="model")
    projection.set_weights([weight, bias_values] if bias else [weight])
    return model


def _weights(variant: Variant, shape: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The family's kernel of ``shape`` (p1, p2, c, d) and its bias (d,), float32."""
    rng = np.random.default_rng([variant.seed, zlib.crc32(variant.family.encode())])
    weight = rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))
    return weight.astype(np.float32), (0.3 * rng.standard_normal(shape[-1])).astype(np.float32)


def _tensorflow() -> Any:
    """The tensorflow module; what its C++ side prints while loading goes nowhere: no setting silences all of it.

    PyTorch's builds for CUDA bring triton. Both have an LLVM of their own: loaded behind tensorflow's, triton's ends the
    process (a segmentation fault), the other way round they get along.
    """
    if "tensorflow" not in sys.modules:
        with contextlib.suppress(ImportError):
            importlib.import_module("triton")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(sink, 2)
            import tensorflow
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            os.close(sink)
    import tensorflow

    return tensorflow
