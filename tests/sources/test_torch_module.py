from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from slimline.errors import SlimlineError
from slimline.sources.torch_module import first_samples, from_module
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
