"""Small models of Keras and TensorFlow, written to files with what their own framework answers.

Run as a program (``python tensorflow_models.py FOLDER``), so that the tests' process imports no TensorFlow. Inputs and
answers are in ``NAME.npz``: ``x1``, ``x3`` (batch 1 and 3), ``y1_OUTPUT``, ``y3_OUTPUT``.
"""

import gzip
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
FASHION = Path(__file__).parents[3] / "shared" / "data" / "fashion-mnist" / "t10k-images-idx3-ubyte.gz"
Outputs = dict[str, np.ndarray]


def main(folder: Path) -> None:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    for name, build in {"cnn": cnn, "text": text, "encoder": encoder}.items():
        model = randomised(build(keras.layers, keras.Model))
        model.save(folder / f"{name}.keras")
        names = model.output_names
        inputs = {x: inputs_of(name, model, x) for x in (1, 3)}
        save(folder / name, inputs, lambda x, model=model, names=names: named(names, model(x, training=False)))
        if name != "text":
            model.export(folder / f"{name}_saved", format="tf_saved_model", verbose=False)
            convert = tf.lite.TFLiteConverter.from_saved_model(str(folder / f"{name}_saved"))
            (folder / f"{name}.tflite").write_bytes(convert.convert())
        if name == "cnn":
            freeze(tf, model, folder / "cnn.pb")
            quantise(tf, folder, inputs[3])
    functions(tf, folder)
    hostile(tf, keras, folder)


def cnn(L: Any, model: Callable[..., Any]) -> Any:  # noqa: N803
    """Batch norms, a residual, separable and depthwise convolutions, gelu, and a dense layer on flattened NHWC."""
    x = image = L.Input((28, 28, 1), name="image")
    x = r = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(x)))
    x = L.BatchNormalization()(L.Conv2D(8, 3, padding="same", use_bias=False)(x))
    x = L.MaxPooling2D()(L.ReLU()(L.Add()([x, r])))
    x = L.SeparableConv2D(12, 3, padding="same", strides=2, activation="swish")(x)
    x = L.Activation("gelu")(L.BatchNormalization()(L.DepthwiseConv2D(3)(x)))
    x = L.Dropout(0.2)(L.Flatten()(L.AveragePooling2D(2, padding="same")(x)))
    return model(image, L.Dense(10, activation="softmax", name="scores")(x))


def text(L: Any, model: Callable[..., Any]) -> Any:  # noqa: N803
    """An embedding, a bidirectional LSTM and a GRU."""
    tokens = L.Input((12,), dtype="int32", name="tokens")
    x = L.Bidirectional(L.LSTM(6, return_sequences=True))(L.Embedding(50, 8)(tokens))
    return model(tokens, L.Dense(3, name="tone")(L.GRU(5)(x)))


def encoder(L: Any, model: Callable[..., Any]) -> Any:  # noqa: N803
    """A transformer layer with two outputs."""
    x = frames = L.Input((16, 24), name="frames")
    y = L.LayerNormalization()(x)
    x = L.Add()([x, L.MultiHeadAttention(4, 6)(y, y)])
    y = L.Dense(24)(L.Dense(48, activation="gelu")(L.LayerNormalization()(x)))
    x = L.GlobalAveragePooling1D()(L.Add()([x, y]))
    return model(frames, [L.Dense(5, name="kind")(x), L.Dense(2, name="side")(x)])


def randomised(model: Any) -> Any:
    """Values that no two weights share, with statistics that batch norm cannot ignore."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        if "moving_variance" in variable.path or "gamma" in variable.path:
            variable.assign(rng.uniform(0.5, 2, variable.shape))
        elif "seed" not in variable.path:
            variable.assign(variable.numpy() + 0.1 * rng.standard_normal(variable.shape))
    return model


def inputs_of(name: str, model: Any, batch: int) -> np.ndarray:
    """Real images where they are there and three are asked for, else random numbers."""
    shape = (batch, *model.inputs[0].shape[1:])
    rng = np.random.default_rng(batch)
    if name == "text":
        return rng.integers(0, 50, shape).astype(np.int32)
    if name == "cnn" and batch == 3 and FASHION.is_file():
        with gzip.open(FASHION) as file:
            pixels = np.frombuffer(file.read(16 + 3 * 784), np.uint8, offset=16)
        return (pixels.reshape(shape) / 255).astype(np.float32)
    return rng.standard_normal(shape).astype(np.float32)


def named(names: list[str], outputs: Any) -> Outputs:
    return dict(zip(names, map(np.asarray, outputs if isinstance(outputs, (list, tuple)) else [outputs]), strict=True))


def save(path: Path, inputs: dict[int, np.ndarray], run: Callable[[np.ndarray], Outputs]) -> None:
    arrays = {f"x{batch}": x for batch, x in inputs.items()}
    for batch, x in inputs.items():
        arrays |= {f"y{batch}_{name}": y for name, y in run(x).items()}
    np.savez(path.with_suffix(".npz"), **arrays)


def freeze(tf: Any, model: Any, path: Path) -> None:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((None, *model.inputs[0].shape[1:]), name="picture")
    function = tf.function(lambda x: model(x, training=False), input_signature=[spec]).get_concrete_function()
    path.write_bytes(convert_variables_to_constants_v2(function).graph.as_graph_def().SerializeToString())


def quantise(tf: Any, folder: Path, x: np.ndarray) -> None:
    """An int8 TFLite file calibrated on the images, and what TFLite answers."""
    convert = tf.lite.TFLiteConverter.from_saved_model(str(folder / "cnn_saved"))
    convert.optimizations = [tf.lite.Optimize.DEFAULT]
    convert.representative_dataset = lambda: ([image[None]] for image in x)
    (folder / "cnn_int8.tflite").write_bytes(convert.convert())
    run = tf.lite.Interpreter(str(folder / "cnn_int8.tflite")).get_signature_runner()
    save(folder / "cnn_int8", {3: x}, lambda x: run(image=x))


class Affine:
    """A raw function with two arguments, an output each, and two signatures."""

    def __init__(self, tf: Any) -> None:
        self.module = tf.Module()
        self.module.weight = tf.Variable([[1.0, -2.0], [0.5, 3.0], [2.0, 1.0]])
        both = [tf.TensorSpec((None, 3), name="left"), tf.TensorSpec((None, 2), name="right")]

        @tf.function(input_signature=both)
        def serve(left: Any, right: Any) -> Any:
            product = left @ self.module.weight
            return {"total": tf.nn.relu(product + right), "largest": tf.reduce_max(product, axis=1)}

        self.module.serve = serve

    def signatures(self, *names: str) -> dict[str, Any]:
        return {name: self.module.serve.get_concrete_function() for name in names}


def functions(tf: Any, folder: Path) -> None:
    affine = Affine(tf)
    tf.saved_model.save(affine.module, folder / "affine", signatures=affine.signatures("serving_default", "other"))
    tf.saved_model.save(affine.module, folder / "affine_named", signatures=affine.signatures("predict"))
    tf.saved_model.save(affine.module, folder / "affine_two", signatures=affine.signatures("predict", "explain"))


def hostile(tf: Any, keras: Any, folder: Path) -> None:
    """Files that would run code or write files if anyone let them, and one that TFLite alone cannot run."""
    L = keras.layers  # noqa: N806
    keras.Sequential([L.Input((3,)), L.Lambda(lambda x: x * 2.0)]).save(folder / "lambda.keras")
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec((None, 3), name="x")])
    def write(x: Any) -> Any:
        tf.io.write_file(str(folder / "written"), "by the graph")
        return {"y": x + tf.numpy_function(np.square, [x], tf.float32)}

    module.write = write
    tf.saved_model.save(module, folder / "writes", signatures={"serving_default": module.write.get_concrete_function()})

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 3), name="x")
        tf.identity(tf.io.read_file("/etc/hostname"), name="secret")
        tf.add(x, 1.0, name="y")
    (folder / "reads.pb").write_bytes(graph.as_graph_def().SerializeToString())

    erf = tf.function(lambda x: tf.math.erfinv(x)).get_concrete_function(tf.TensorSpec((1, 3), name="x"))
    convert = tf.lite.TFLiteConverter.from_concrete_functions([erf])
    convert.allow_custom_ops = True
    (folder / "custom.tflite").write_bytes(convert.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
