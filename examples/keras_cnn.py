"""A Keras CNN, trained here on Fashion-MNIST, then made fast from its file and an .npz: no Python of yours is needed.

    python examples/keras_cnn.py
    slimline optimize runs/keras/model.keras --data runs/keras/data.npz --max-drop 1% --time 4m --out runs/keras/small

Needs `pip install slimline[keras]`. Training takes about a minute on two cores.
"""

import sys
from importlib.resources import files
from pathlib import Path

import keras
import numpy as np
from keras import layers

EPOCHS = 4


def build() -> keras.Model:
    """A residual CNN with batch norm and a separable convolution, 28x28x1 in, 10 probabilities out."""
    image = keras.Input((28, 28, 1), name="image")
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(layers.Conv2D(32, 3, padding="same")(image)))
    x = layers.MaxPooling2D()(x)
    y = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(layers.Conv2D(32, 3, padding="same")(x)))
    x = layers.add([x, layers.Conv2D(32, 3, padding="same")(y)])
    x = layers.SeparableConv2D(64, 3, strides=2, padding="same", activation="relu")(x)
    x = layers.Conv2D(128, 3, padding="same", activation="relu")(x)
    x = layers.Dense(64, activation="relu")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(10, activation="softmax", name="probabilities")(x))


def arrays() -> dict[str, np.ndarray]:
    """The images that the package ships, as (N, 28, 28, 1) in [0, 1], and their labels."""
    with np.load(str(files("slimline.demo") / "fashion.npz"), allow_pickle=False) as data:
        found = {name: data[name] for name in data.files}
    return {n: (x[..., None] / np.float32(255) if x.ndim == 3 else x.astype(np.int64)) for n, x in found.items()}


def main(folder: Path = Path("runs/keras")) -> None:
    """Train, and write model.keras and data.npz."""
    folder.mkdir(parents=True, exist_ok=True)
    data, model = arrays(), build()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data["train_images"], data["train_labels"], batch_size=128, epochs=EPOCHS, verbose=2)
    model.save(folder / "model.keras")
    np.savez(folder / "data.npz", image=data["test_images"], labels=data["test_labels"])
    print(f"{folder}/model.keras: {model.evaluate(data['test_images'], data['test_labels'], verbose=0)[1]:.4f}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
