"""A compressed network goes back into a `.keras` file that Keras itself runs to the same answers."""

from pathlib import Path

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.methods.prune.channels import PruneChannels
from slimline.sources.keras_model import from_keras
from slimline.sources.keras_writing import write_keras


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras 3.15 under torch
def test_a_pruned_and_trained_network_is_a_smaller_keras_model(
    tensorflow_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, path = tensorflow_models / "cnn.keras", tmp_path / "small.keras"
    network = from_keras(original)
    small = PruneChannels(keep=0.5, multiple=2, importance="l1").apply(network).network
    with torch.no_grad():
        for weight in small.weights().values():
            weight += 0.01 * torch.randn_like(weight)
    write_keras(original, small, path)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import keras

    model = keras.models.load_model(path)
    assert [layer.filters for layer in model.layers if type(layer).__name__ == "Conv2D"] == [4, 4]
    assert type(model.layers[2]).__name__ == "BatchNormalization"  # the layers are the original's
    with np.load(tensorflow_models / "cnn.npz") as answers:
        x = torch.from_numpy(answers["x3"])
    want = small.run({"image": x})[0]
    got = model(x, training=False).detach()
    assert (got - want).abs().max() <= 1e-4 * want.abs().max()
    assert path.stat().st_size < original.stat().st_size


@pytest.mark.slow
def test_what_keras_layers_cannot_hold_is_refused_by_name(tensorflow_models: Path, tmp_path: Path) -> None:
    original, path = tensorflow_models / "encoder.keras", tmp_path / "small.keras"
    network = from_keras(original)
    other = next(name for name, weight in network.weights().items() if weight.shape == (24, 24))
    broken = network.copy()
    module = broken.module.get_submodule(other.rpartition(".")[0])
    setattr(module, other.rpartition(".")[2], torch.nn.Parameter(torch.zeros(12, 24)))
    with pytest.raises(SlimlineError, match=rf"{other} has another width, .* Write it as\s+ONNX instead\.$"):
        write_keras(original, broken, path)
    assert not path.exists()
