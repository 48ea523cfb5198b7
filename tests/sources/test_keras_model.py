"""Keras models become networks that answer as Keras does."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.sources.keras_model import from_keras

Check = Callable[[Network, str], None]


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("cnn", ("image",), ("scores",)),
        ("text", ("tokens",), ("tone",)),
        ("encoder", ("frames",), ("kind", "side")),
    ],
)
def test_a_keras_file_is_imported(
    name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], tensorflow_models: Path, assert_answers: Check
) -> None:
    network = from_keras(tensorflow_models / f"{name}.keras")
    assert (network.input_names, network.output_names) == (inputs, outputs)
    assert network.history == [f"imported from {name}.keras"]
    assert_answers(network, name)


@pytest.mark.usefixtures("tensorflow_models")  # skips where Keras is not installed
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras 3.15 under torch
def test_a_model_in_memory_is_imported_whatever_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import keras

    a, b = keras.Input((4,), name="first"), keras.Input((3,), name="second")
    joined = keras.layers.Concatenate()([keras.layers.Dense(5, activation="tanh")(a), b])
    model = keras.Model([b, a], keras.layers.Dense(2, name="joined")(joined), name="two_towers")
    network = from_keras(model)
    assert set(network.input_names) == {"first", "second"}
    assert network.history == ["imported from the Keras model 'two_towers'"]
    x = {"first": torch.randn(3, 4), "second": torch.randn(3, 3)}
    wanted = model([x["second"], x["first"]]).detach()
    torch.testing.assert_close(network.run(x)[0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("tensorflow_models")
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_numbers_that_a_layer_keeps_outside_of_its_weights_are_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import keras

    image = keras.Input((6, 6, 3), name="image")
    x = keras.layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])(image)
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    network = from_keras(model)
    assert network.input_names == ("image",)
    given = np.random.default_rng(0).random((3, 6, 6, 3), dtype=np.float32)
    wanted = model(torch.from_numpy(given)).detach()
    torch.testing.assert_close(network.run({"image": torch.from_numpy(given)})[0], wanted, rtol=1e-5, atol=1e-6)


def test_a_lambda_runs_only_where_it_is_allowed(tensorflow_models: Path) -> None:
    path = tensorflow_models / "lambda.keras"
    with pytest.raises(SlimlineError, match=r"lambda\.keras holds code: the Lambda '\w+' runs Python from the file"):
        from_keras(path)
    x = torch.randn(3, 3)
    network = from_keras(path, [x], allow_code=True)
    torch.testing.assert_close(network.run({network.input_names[0]: x})[0], 2 * x)


def test_a_file_that_keras_cannot_load_is_one_sentence(tensorflow_models: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.keras"
    with zipfile.ZipFile(tensorflow_models / "cnn.keras") as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            target.writestr(name, content[: len(content) // 2] if name.endswith(".h5") else content)
    with pytest.raises(SlimlineError, match=r"cut\.keras cannot be loaded by Keras 3[\d.]+: .+\.$") as error:
        from_keras(path)
    assert "\n" not in str(error.value)


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=r"none\.keras does not exist"):
        from_keras(tmp_path / "none.keras")


def test_a_file_is_looked_into_before_keras_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "stone.keras"
    path.write_bytes(np.random.default_rng(0).bytes(100))
    with pytest.raises(SlimlineError, match=r"stone\.keras is not a readable \.keras file"):
        from_keras(path)
