import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from slimline.errors import SlimlineError
from slimline.sources.torch_module import first_samples, from_module, refuse_file
from slimline.task import Samples, Task

X, Y = torch.randn(7, 4), torch.arange(7) % 3


class Scaled(nn.Module):
    """Two inputs that are needed and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, image: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
        result: Tensor = self.linear(image) * scale
        return result if offset is None else result + offset


ONE: dict[str, Any] = {
    "a tuple": (X, Y),
    "a tuple of arrays": (X.numpy(), Y.numpy()),
    "a dict": {"input": X, "labels": Y},
    "a loader": DataLoader(TensorDataset(X, Y), batch_size=3),
    "a loader of inputs": DataLoader(TensorDataset(X), batch_size=3),
    "a list of tensors": [X[:3], X[3:]],
    "a list of dicts": [{"labels": Y, "input": X}],
    "samples": Samples({"input": X.numpy()}, Y.numpy()),
}


@pytest.mark.parametrize("form", ONE)
def test_the_first_samples_of_the_task_are_the_example(form: str) -> None:
    module = nn.Linear(4, 3)
    network = from_module(module, task=Task(validate=ONE[form]))
    assert network.input_names == ("input",)
    assert torch.equal(network.examples["input"], X[:2])
    torch.testing.assert_close(network.run({"input": X})[0], module(X).detach())


TWO: dict[str, Any] = {
    "a dict": {"scale": X[:, :1], "image": X, "labels": Y},
    "a loader": DataLoader(TensorDataset(X, X[:, :1], Y), batch_size=3),
    "a list of dicts": [{"image": X, "scale": X[:, :1]}],
    "samples": Samples({"image": X.numpy(), "scale": X[:, :1].numpy()}),
}


@pytest.mark.parametrize("form", TWO)
def test_several_inputs_take_their_names_from_forward_and_leave_optional_ones_out(form: str) -> None:
    module = Scaled()
    network = from_module(module, task=Task(validate=TWO[form]))
    assert network.input_names == ("image", "scale")
    expected = module(X, X[:, :1]).detach()
    torch.testing.assert_close(network.run({"image": X, "scale": X[:, :1]})[0], expected)


def test_given_inputs_come_before_those_of_the_task() -> None:
    task = Task(validate=(torch.randn(3, 9), Y[:3]))
    for inputs in (X, (X,), [X], {"input": X}):
        assert from_module(nn.Linear(4, 3), inputs, task).examples["input"].shape == (7, 4)
    named = from_module(Scaled(), {"image": X, "scale": X[:, :1], "offset": X[:, :1]})
    assert named.input_names == ("image", "scale", "offset")


def test_the_examples_are_not_those_of_the_user() -> None:
    x = X.clone()
    network = from_module(nn.Linear(4, 3), task=Task(validate=(x, Y)))
    x.zero_()
    assert network.examples["input"].abs().min() > 0


def test_nothing_to_trace_with() -> None:
    with pytest.raises(SlimlineError, match=r"Linear needs example inputs: define inputs\(\) or task\(\)"):
        from_module(nn.Linear(4, 3))


def test_a_torchscript_module_is_refused() -> None:
    with pytest.warns(DeprecationWarning):
        scripted = torch.jit.trace(nn.Linear(4, 3), X)  # type: ignore[no-untyped-call]
    with pytest.raises(SlimlineError, match="TorchScript module cannot be traced: give the original nn.Module"):
        from_module(scripted, X)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ([], "validate loader is empty"),
        ({"picture": X}, r"no array for the input 'image'; it has \['picture'\]"),
        ([{"image": X}], "no array for the input 'scale'"),
        ((X, Y), r"needs the inputs image, scale but the data has 1: give a dict of arrays by name"),
        ([X], "needs the inputs image, scale but the data has 1"),
        (3, "validate loader is empty"),
    ],
    ids=["empty", "another name", "a name is missing", "a tuple", "a tensor", "a number"],
)
def test_data_without_the_inputs_gives_a_sentence(source: Any, sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        from_module(Scaled(), task=Task(validate=source))


def test_what_cannot_be_traced_gives_a_sentence() -> None:
    with pytest.raises(SlimlineError, match="Linear cannot be traced"):
        from_module(nn.Linear(5, 3), X)


def test_first_samples_are_two_at_most() -> None:
    assert {n: len(t) for n, t in first_samples((X, Y), ["a"]).items()} == {"a": 2}
    assert len(first_samples((X[:1], Y[:1]), ["a"])["a"]) == 1
    assert first_samples({"a": np.arange(5)}, ["a"])["a"].tolist() == [0, 1]


class Executes:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def torchscript(path: Path) -> None:
    with pytest.warns(DeprecationWarning):
        torch.jit.save(torch.jit.trace(nn.Linear(4, 3), X), path)  # type: ignore[no-untyped-call]


def exported(path: Path) -> None:
    torch.export.save(torch.export.export(nn.Linear(4, 3), (X,)), path)


def hostile_export(path: Path) -> None:
    """What torch.export.load would unpickle."""
    exported(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, pickle.dumps(Executes()) if name.endswith(".pt") else data)


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "net.pt": (torchscript, r"is a TorchScript archive, .*torch\.onnx\.export"),
    "net.pth": (
        lambda path: torch.save(Executes(), path),
        r"is a pickle .*torch\.load\('net\.pth', weights_only=True\)",
    ),
    "net.bin": (lambda path: torch.save(nn.Linear(4, 3).state_dict(), path), "is a pickle that torch.save wrote"),
    "old.pt": (
        lambda path: torch.save(Executes(), path, _use_new_zipfile_serialization=False),
        "is a pickle that torch.save wrote",
    ),
    "plain.pt": (lambda path: path.write_bytes(pickle.dumps(Executes())), "is a pickle that torch.save wrote"),
    "net.pt2": (exported, r"is an exported program, .*torch\.export\.load\('net\.pt2'\)\.module\(\)"),
    "hostile.pt2": (hostile_export, "is an exported program"),
    "text.pt": (lambda path: path.write_text("hello"), "is no file that torch writes"),
    "empty.pt": (lambda path: path.write_bytes(b""), "is no file that torch writes"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_of_torch_are_told_apart_and_never_loaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write, sentence = FILES[name]
    write(tmp_path / name)
    with pytest.raises(SlimlineError, match=sentence) as caught:
        refuse_file(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_an_exported_program_that_the_user_loaded_is_a_module() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    free = ({0: torch.export.Dim.DYNAMIC},)
    network = from_module(torch.export.export(module, (X,), dynamic_shapes=free).module(), X)
    assert network.input_names == ("input",) and not network.is_training()
    torch.testing.assert_close(network.run({"input": X[:1]})[0], module.eval()(X[:1]).detach())


TEXT = {"input_ids": torch.randint(3, 9, (4, 6)), "attention_mask": torch.ones(4, 6, dtype=torch.int64)}


@pytest.mark.parametrize(
    ("inputs", "validate", "names"),
    [
        (None, {**TEXT, "labels": Y[:4]}, ("input_ids", "attention_mask")),
        (None, (TEXT["input_ids"], Y[:4]), ("input_ids",)),
        (TEXT, None, ("input_ids", "attention_mask")),
    ],
    ids=["a dict", "a tuple", "given"],
)
def test_a_transformers_model_takes_every_array_it_knows(inputs: Any, validate: Any, names: tuple[str, ...]) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    network = from_module(transformers.BertModel(config), inputs, None if validate is None else Task(validate=validate))
    assert network.input_names == names and network.output_names == ("last_hidden_state", "pooler_output")
