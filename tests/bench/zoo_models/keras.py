"""Keras models through tf2onnx, in a process of its own.

    python -m zoo_models.keras FOLDER keras MODEL STEM ...

tf2onnx reads what Keras 2 writes, so this module runs where TensorFlow 2.15 and tf2onnx are, and needs
nothing else of the zoo's packages:

    python3.11 -m venv KERAS
    KERAS/bin/pip install "tensorflow-cpu==2.15.*" "tf2onnx>=1.16" "onnx==1.16.*" "numpy<2"
    python tests/bench/zoo.py --suite keras --keras KERAS/bin/python ...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from zoo_models.case import Case, Inputs, noise, tokens, variants

__all__ = ["cases", "export", "make", "models"]

WORDS, CLASSES = 50, 3


def _vgg(k: Any) -> list[Any]:
    def block(width: int) -> list[Any]:
        return [k.Conv2D(width, 3, padding="same", activation="relu") for _ in range(2)] + [k.MaxPooling2D()]

    return [*block(8), *block(16), k.Flatten(), k.Dense(32, activation="relu"), k.Dropout(0.5)]


def _mobile(k: Any) -> list[Any]:
    layers: list[Any] = [k.Conv2D(8, 3, strides=2, padding="same", use_bias=False)]
    for width, strides in ((16, 1), (24, 2)):
        layers += [k.BatchNormalization(), k.ReLU(6.0)]
        layers += [k.DepthwiseConv2D(3, strides, "same", use_bias=False), k.BatchNormalization(), k.ReLU(6.0)]
        layers += [k.Conv2D(width, 1, padding="same", use_bias=False)]
    return [*layers, k.BatchNormalization(), k.Activation("swish"), k.GlobalAveragePooling2D()]


def _separable(k: Any) -> list[Any]:
    layers = [
        k.SeparableConv2D(8, 3, padding="same", activation="elu"),
        k.AveragePooling2D(),
        k.UpSampling2D(),
    ]
    return [*layers, k.Conv2DTranspose(4, 3, 2, "same"), k.LeakyReLU(), k.GlobalMaxPooling2D()]


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {
    # its layers but for the last, and the shape of a sample; of one axis: features, or words
    "mlp": (
        lambda k: [k.Dense(32, activation="relu"), k.BatchNormalization(), k.Dense(16, activation="selu")],
        (12,),
    ),
    "vgg": (_vgg, (16, 16, 3)),
    "mobilenet": (_mobile, (16, 16, 3)),
    "separable": (_separable, (16, 16, 3)),
    "conv1d": (
        lambda k: [k.Conv1D(8, 5, activation="tanh", padding="causal"), k.MaxPooling1D(2), k.Flatten()],
        (20, 4),
    ),
    "lstm": (lambda k: [k.LSTM(16, return_sequences=True), k.LSTM(8)], (10, 4)),
    "gru": (lambda k: [k.Bidirectional(k.GRU(8))], (10, 4)),
    "lstm_words": (lambda k: [k.Embedding(WORDS, 8), k.Bidirectional(k.LSTM(8)), k.Dropout(0.3)], (10,)),
    "lstm_masked_words": (lambda k: [k.Embedding(WORDS, 8, mask_zero=True), k.LSTM(8)], (10,)),
    "conv_words": (
        lambda k: [k.Embedding(WORDS, 8), k.Conv1D(8, 3, activation="relu"), k.GlobalMaxPooling1D()],
        (10,),
    ),
}
INTEGERS = ("lstm_words", "lstm_masked_words", "conv_words")
LARGE = ("MobileNetV2", "ResNet50V2", "EfficientNetB0")
"""Of keras.applications, at 64 x 64."""


def models() -> dict[str, bool]:
    return dict.fromkeys([*NETWORKS, *LARGE], False)


def cases(suite: str, model: str, sized: bool) -> list[Case]:
    return variants(suite, model, sized, exporters=("tf2onnx",))


def make(name: str) -> tuple[Any, Inputs]:
    """A seeded model, and inputs; batch normalization has statistics of noise.

    No word is 0, which stands for padding: references have none where samples have words.
    """
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    if name in LARGE:
        inputs = noise("x", (64, 64, 3), scale=50)
        model = getattr(tf.keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=CLASSES)
        return _settled(model, inputs), inputs
    layers, shape = NETWORKS[name]
    inputs = tokens("x", shape, WORDS, least=1) if name in INTEGERS else noise("x", shape)
    first = tf.keras.layers.InputLayer(shape, dtype="int32" if name in INTEGERS else "float32")
    last = tf.keras.layers.Dense(CLASSES, activation="softmax")
    return _settled(tf.keras.Sequential([first, *layers(tf.keras.layers), last]), inputs), inputs


def _settled(model: Any, inputs: Inputs) -> Any:
    """Moving averages of what layers see: a momentum of 0 takes the last batch's."""
    norms = [layer for layer in model.layers if layer.__class__.__name__ == "BatchNormalization"]
    for layer in norms:
        layer.momentum = 0.0
    if norms:
        model(np.concatenate([inputs.samples["x"], inputs.references["x"]]), training=True)
    return model


def export(case: Case, model: Any, inputs: Inputs, file: Path) -> Inputs:
    import tensorflow as tf
    import tf2onnx

    rows = 1 if case.batch == "one" else None
    inputs = Inputs(
        *({"x": part["x"].astype(model.input.dtype.name)} for part in (inputs.samples, inputs.references))
    )
    signature = [tf.TensorSpec((rows, *model.input.shape[1:]), model.input.dtype, name="x")]
    tf2onnx.convert.from_keras(model, signature, opset=17, output_path=str(file))
    return inputs


def main() -> None:
    folder, suite, name, *stems = sys.argv[1:]
    (Path(folder) / suite).mkdir(parents=True, exist_ok=True)
    model, inputs = make(name)
    for case in cases(suite, name, False):
        file = Path(folder) / suite / f"{case.stem}.onnx"
        if case.stem not in stems:
            continue
        try:
            export(case, model, inputs, file).save(file.with_suffix(".npz"))
        except Exception as error:  # whatever a converter raises is its answer
            file.unlink(missing_ok=True)
            file.with_suffix(".error").write_text(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
