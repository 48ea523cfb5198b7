"""SavedModels and frozen graphs become networks that answer as TensorFlow does."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.sources.tensorflow_model import from_frozen_graph, from_saved_model

Check = Callable[[Network, str], None]


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [("encoder", ("frames",), ("output_0", "output_1"))],
)
def test_a_saved_model_is_imported(
    name: str, inputs: tuple[str, ...], outputs: tuple[str, ...], tensorflow_models: Path, assert_answers: Check
) -> None:
    network = from_saved_model(tensorflow_models / f"{name}_saved")
    assert (network.input_names, network.output_names) == (inputs, outputs)
    assert network.history == [f"imported from {name}_saved"]
    assert_answers(network, name)


def test_a_raw_function_keeps_the_names_of_its_signature(tensorflow_models: Path) -> None:
    network = from_saved_model(tensorflow_models / "affine_named")
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 1.0]])
    for batch in (1, 3):
        x = {"left": torch.randn(batch, 3), "right": torch.randn(batch, 2)}
        got = dict(zip(network.output_names, network.run(x), strict=True))
        torch.testing.assert_close(got["total"], torch.relu(x["left"] @ weight + x["right"]))
        torch.testing.assert_close(got["largest"], (x["left"] @ weight).max(dim=1).values)


def test_the_signatures_are_listed_where_none_is_the_default(tensorflow_models: Path) -> None:
    with pytest.raises(
        SlimlineError, match=r"no signature named serving_default, it only has (predict, explain|explain, predict):"
    ):
        from_saved_model(tensorflow_models / "affine_two")


def test_a_graph_that_writes_files_is_refused_before_it_is_loaded(tensorflow_models: Path) -> None:
    sentence = r"writes is refused: its operators (Eager)?PyFunc, WriteFile run code, or read or write files"
    with pytest.raises(SlimlineError, match=sentence):
        from_saved_model(tensorflow_models / "writes")
    assert not (tensorflow_models / "written").exists()


def test_a_folder_without_a_saved_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=r"is not a SavedModel: it has no saved_model\.pb"):
        from_saved_model(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_a_truncated_saved_model_is_one_sentence(cut: str, tensorflow_models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(tensorflow_models / "affine", folder)
    content = (folder / cut).read_bytes()
    (folder / cut).write_bytes(content[: len(content) // 2])
    with pytest.raises(SlimlineError, match=r"cut (is damaged|cannot be loaded|has no signature)") as error:
        from_saved_model(folder)
    assert "\n" not in str(error.value)


def test_a_frozen_graph_is_imported(tensorflow_models: Path, assert_answers: Check) -> None:
    network = from_frozen_graph(tensorflow_models / "cnn.pb")
    assert (network.input_names, network.output_names) == (("picture",), ("Identity",))
    assert_answers(network, "cnn")


def test_the_file_inside_a_saved_model_means_the_folder(tensorflow_models: Path) -> None:
    network = from_frozen_graph(tensorflow_models / "affine" / "saved_model.pb")
    assert set(network.output_names) == {"total", "largest"}


def test_a_frozen_graph_that_reads_files_is_refused(tensorflow_models: Path) -> None:
    with pytest.raises(SlimlineError, match=r"reads\.pb is refused: its operators ReadFile run code"):
        from_frozen_graph(tensorflow_models / "reads.pb")


@pytest.mark.usefixtures("tensorflow_models")
@pytest.mark.parametrize("content", [b"", pytest.param(bytes(range(256)), marks=pytest.mark.slow)])
def test_what_is_no_graph_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.pb"
    path.write_bytes(content)
    with pytest.raises(
        SlimlineError, match=r"x\.pb (is not a TensorFlow graph, or is truncated|holds no TensorFlow graph)"
    ):
        from_frozen_graph(path)
