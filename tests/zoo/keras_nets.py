"""Keras models through tf2onnx: a CNN, an attention block, a depthwise net with upsampling, and larger ones."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import onnx

NETS = ("cnn", "attention", "depthwise")
APPLICATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "mobilenetv3": ("MobileNetV3Small", {"include_preprocessing": False}),  # else normal inputs calibrate next to nothing
}
LARGER = (*APPLICATIONS, "resnet", "vit", "lstm", "convnext")  # for benchmarks/right_copies.py


def build(name: str) -> Any:
    """The model, all its weights drawn by name."""
    import keras
    from keras import layers

    if name == "cnn":
        x = inputs = keras.Input((12, 12, 3), name="x")
        for filters in (4, 8):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization()(x)
            x = layers.ReLU()(x)
            x = layers.MaxPooling2D(2)(x)
        x = layers.GlobalAveragePooling2D()(layers.AveragePooling2D(2, 1)(x))
        outputs = layers.Softmax()(layers.Dense(5)(x))
    elif name == "attention":
        inputs = keras.Input((6, 8), name="x")
        x = layers.LayerNormalization(epsilon=1e-5)(inputs)
        x = inputs + layers.MultiHeadAttention(2, 4)(x, x)
        # by Tanh: for Gelu by Erf tf2onnx writes Erfc, an operator that ONNX does not have
        y = layers.Dense(16, activation=lambda t: keras.activations.gelu(t, approximate=True))(
            layers.LayerNormalization()(x)
        )
        outputs = x + layers.Dense(8)(y)
    elif name == "vit":
        inputs = keras.Input((16, 16, 3), name="x")
        x = layers.Reshape((16, 16))(layers.Conv2D(16, 4, strides=4)(inputs))
        for _ in range(2):
            y = layers.LayerNormalization(epsilon=1e-5)(x)
            x = x + layers.MultiHeadAttention(2, 8)(y, y)
            x = x + layers.Dense(16)(layers.Dense(32, activation="silu")(layers.LayerNormalization(epsilon=1e-5)(x)))
        outputs = layers.Dense(5)(layers.GlobalAveragePooling1D()(x))
    elif name == "lstm":
        inputs = keras.Input((6, 8), name="x")
        outputs = layers.Dense(4)(layers.LSTM(12, return_sequences=True)(inputs))
    elif name == "resnet":  # that of keras.applications, narrow
        inputs = keras.Input((32, 32, 3), name="x")
        x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(_normed(layers.ZeroPadding2D(3)(inputs), 8, 7, 2, "valid")))
        x = layers.ReLU()(x)
        for filters, stride in ((8, 1), (8, 1), (16, 2), (16, 1)):
            side = x if x.shape[-1] == 4 * filters else _normed(x, 4 * filters, 1, stride)
            y = layers.ReLU()(_normed(layers.ReLU()(_normed(x, filters, 1, stride)), filters, 3))
            x = layers.ReLU()(side + _normed(y, 4 * filters, 1))
        outputs = layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    elif name == "convnext":
        # not that of keras.applications: tf2onnx leaves a call of TensorFlow for its grouped convolutions
        x = inputs = keras.Input((16, 16, 3), name="x")
        for filters, stride in ((8, 4), (16, 2)):
            x = layers.Conv2D(filters, stride, strides=stride)(x)
            y = layers.LayerNormalization(epsilon=1e-6)(layers.DepthwiseConv2D(7, padding="same")(x))
            y = layers.Dense(4 * filters, activation=lambda t: keras.activations.gelu(t, approximate=True))(y)
            x = x + layers.Rescaling(0.5)(layers.Dense(filters)(y))
        outputs = layers.Dense(5)(layers.LayerNormalization(epsilon=1e-6)(layers.GlobalAveragePooling2D()(x)))
    elif name in APPLICATIONS:
        made, options = APPLICATIONS[name]
        model = getattr(keras.applications, made)(weights=None, input_shape=(32, 32, 3), classes=10, **options)
        inputs, outputs = model.inputs, model.outputs
    else:
        inputs = keras.Input((8, 8, 4), name="x")
        x = layers.SeparableConv2D(6, 3, strides=2, padding="same", activation="silu")(inputs)
        x = layers.UpSampling2D(2, interpolation="nearest")(layers.DepthwiseConv2D(3, padding="same")(x))
        x = layers.Concatenate()(
            [x, layers.LeakyReLU(0.1)(layers.Conv2DTranspose(6, 2, strides=2)(layers.MaxPooling2D(2)(x)))]
        )
        outputs = layers.Conv2D(2, 1, activation="sigmoid")(layers.ZeroPadding2D(1)(x))
    model = keras.Model(inputs, outputs)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    model.set_weights(
        [
            np.abs(rng.standard_normal(w.shape)) * 0.4 + 0.1
            if _is_variance(v)
            # as large as keeps the signal of a deep net from growing
            else rng.standard_normal(w.shape) * (0.3 if name not in (*APPLICATIONS, "resnet") or w.ndim < 2 else _gain(w.shape))
            for v, w in zip(model.weights, model.get_weights(), strict=True)
        ]
    )
    return model


def _normed(x: Any, filters: int, size: int, stride: int = 1, padding: str = "same") -> Any:
    from keras import layers

    return layers.BatchNormalization()(layers.Conv2D(filters, size, stride, padding=padding)(x))


def _gain(shape: tuple[int, ...]) -> float:
    return float((1 / np.prod(shape[:-1])) ** 0.5)


def _is_variance(variable: Any) -> bool:
    return "variance" in variable.path


def export(name: str, opset: int = 18) -> onnx.ModelProto:
    """The model by tf2onnx, its batch symbolic."""
    from graphcheck.exporting import keras_export
    from graphcheck.exporting.run import _clean, _quiet

    tf = keras_export._tensorflow()
    import tf2onnx

    with _quiet():
        model = build(name)
        signature = [tf.TensorSpec([None, *model.inputs[0].shape[1:]], tf.float32, name="x")]
        function = tf.function(lambda x: {"y": model(x)})
        return _clean(tf2onnx.convert.from_function(function, signature, opset=opset)[0])
