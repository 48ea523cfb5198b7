from pathlib import Path

import numpy as np
import torch

from slimline.runtimes.registry import get_runtime, open_artifact
from tests.runtimes.networks import Quantized, Residual, exported, images, reference, traced


def test_the_artifact_is_a_slim_file_that_computes_exactly_the_graph(tmp_path: Path) -> None:
    network = traced(Quantized())
    artifact = exported(network, "torch", tmp_path)
    assert artifact.path == tmp_path / "network.slim"
    np.testing.assert_array_equal(open_artifact(artifact, 1).run({"x": images(3)})[0], reference(network, images(3)))


def test_the_number_of_threads_is_set_and_a_network_in_training_mode_runs_as_inference(tmp_path: Path) -> None:
    network = traced(Residual())
    expected = reference(network, images(3))
    artifact = exported(network.copy().set_training_(True), "torch", tmp_path)
    before = torch.get_num_threads()
    try:
        runner = open_artifact(artifact, 1)
        assert torch.get_num_threads() == 1
        np.testing.assert_allclose(runner.run({"x": images(3)})[0], expected, rtol=1e-4, atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_nothing_is_worth_quantising_for_eager_torch() -> None:
    assert get_runtime("torch").facts.quantized_ops == frozenset()
