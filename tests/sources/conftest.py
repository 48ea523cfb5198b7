"""The models of Keras and TensorFlow that the tests of several sources read."""

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from slimline.network.network import Network
from slimline.sources.conversion import EXTRAS

WRITER = Path(__file__).with_name("tensorflow_models.py")


@pytest.fixture(scope="session")
def tensorflow_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `tests.sources.tensorflow_models` fills, once per session."""
    missing = [module for module in EXTRAS["keras"] if find_spec(module) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: pip install 'slimline[keras]'")
    folder = tmp_path_factory.mktemp("tensorflow")
    done = subprocess.run([sys.executable, WRITER, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def assert_answers(tensorflow_models: Path) -> Callable[[Network, str], None]:
    """Compare a network with what its framework answered, output by output, in batch 1 and 3."""

    def check(network: Network, name: str) -> None:
        with np.load(tensorflow_models / f"{name}.npz") as answers:
            for batch in (1, 3):
                outputs = network.run({network.input_names[0]: torch.from_numpy(answers[f"x{batch}"])})
                wanted = [key for key in answers.files if key.startswith(f"y{batch}_")]
                assert len(outputs) == len(wanted)
                for output, key in zip(outputs, wanted, strict=True):
                    want = torch.from_numpy(answers[key])
                    assert output.shape == want.shape
                    assert output.dtype == want.dtype
                    assert (output - want).abs().max() <= 1e-4 * want.abs().max()

    return check
