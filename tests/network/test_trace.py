import dataclasses
import inspect
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.trace import put_tensor, trace


class Weighted(nn.Module):
    """Two inputs, an optional one, and an order of arguments that matters."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, image: Tensor, weight: Tensor, offset: Tensor | None = None) -> Tensor:
        result: Tensor = self.linear(image) - 2 * weight
        return result if offset is None else result + offset


def inputs_for(names: tuple[str, ...], count: int) -> dict[str, Tensor]:
    widths = {"image": 4, "weight": 3, "offset": 3}
    return {name: torch.randn(count, widths[name]) for name in names}


@pytest.mark.parametrize(
    "names", [("image", "weight"), ("weight", "image"), ("image", "weight", "offset"), ("offset", "image", "weight")]
)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_inputs_by_name_in_any_order_and_with_a_free_batch(names: tuple[str, ...], count: int) -> None:
    module = Weighted()
    network = trace(module, inputs_for(names, count))
    assert network.input_names == names and network.output_names == ("output",)
    assert [n.name for n in network.module.graph.nodes if n.op == "placeholder"] == list(names)
    for batch in (1, 2, 7):
        x = inputs_for(names, batch)
        torch.testing.assert_close(network.run(x)[0], module(**x).detach())


def test_inputs_in_order_take_their_names_from_forward() -> None:
    module, x = Weighted(), inputs_for(("image", "weight"), 3)
    network = trace(module, [x["image"], x["weight"]])
    assert network.input_names == ("image", "weight")
    torch.testing.assert_close(network.run(x)[0], module(**x).detach())
    assert network.history == ["traced from Weighted"]


def test_a_forward_that_takes_anything_gets_numbered_names() -> None:
    class Sum(nn.Module):
        def forward(self, *parts: Tensor) -> Tensor:
            return parts[0] - parts[1]

    network = trace(Sum(), [torch.randn(2, 3), torch.randn(2, 3)])
    assert network.input_names == ("input_0", "input_1")
    x = {"input_0": torch.randn(4, 3), "input_1": torch.randn(4, 3)}
    torch.testing.assert_close(network.run(x)[0], x["input_0"] - x["input_1"])


def test_several_outputs_keep_their_order() -> None:
    class Three(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return x + 1, {"b": x * 2, "c": x - 3}

    network = trace(Three(), [torch.randn(2, 3)])
    x = torch.randn(4, 3)
    assert network.output_names == ("output_0", "output_1", "output_2")
    for got, expected in zip(network.run({"x": x}), (x + 1, x * 2, x - 3), strict=True):
        torch.testing.assert_close(got, expected)


@dataclasses.dataclass
class Answer:
    double: Tensor
    absent: Tensor | None
    less: Tensor
    states: tuple[Tensor, ...]


class Pair(NamedTuple):
    double: Tensor
    less: Tensor


ANSWERS: dict[str, Callable[[Tensor], Any]] = {
    "a dataclass": lambda x: Answer(2 * x, None, x - 3, (x + 1, x + 2)),
    "a dict": lambda x: {"double": 2 * x, "absent": None, "less": x - 3, "states": (x + 1,)},
    "an ordered dict": lambda x: OrderedDict(double=2 * x, less=x - 3, states=[x]),
    "a named tuple": lambda x: Pair(2 * x, x - 3),
}


@pytest.mark.parametrize("form", ANSWERS)
def test_outputs_with_names_keep_them_and_only_tensors_stay(form: str) -> None:
    class Answers(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return ANSWERS[form](x)

    module = Answers()
    network = trace(module, [torch.randn(2, 3)])
    assert network.output_names == ("double", "less")
    dropped = "" if form == "a named tuple" else " without its outputs states, which are no tensors"
    assert network.history == [f"traced from Answers{dropped}"]
    x = torch.randn(4, 3)
    for got, expected in zip(network.run({"x": x}), (2 * x, x - 3), strict=True):
        torch.testing.assert_close(got, expected)
    assert not module._forward_hooks  # as it was
    assert trace(module, [x], ("a", "b")).output_names == ("a", "b")


def test_nothing_but_other_things_in_a_dict_is_refused() -> None:
    class Empty(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"states": [x]}

    with pytest.raises(SlimlineError, match="Empty returns something that is no tensor"):
        trace(Empty(), [torch.randn(2, 3)])


class Scoped(nn.Module):
    """Parts without gradients or mixed precision, one inside the other, with a constant and two results."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            low, high = self.linear(x).split([1, 2], 1)
            with torch.autocast("cpu", enabled=False):
                high = high * torch.tensor([2.0, 3.0]) @ torch.ones(2, 3)
        result: Tensor = self.linear(high) + low
        return result


def test_parts_without_gradients_or_mixed_precision_are_plain_operators() -> None:
    module = Scoped()
    network = trace(module, [torch.randn(2, 3)])
    x = torch.randn(4, 3)
    torch.testing.assert_close(network.run({"x": x})[0], module(x).detach())
    called = [n.target for n in network.module.graph.nodes if n.op == "call_function"]
    assert not [target for target in called if isinstance(target, torch._ops.HigherOrderOperator)]
    assert called.count(torch.ops.aten.linear.default) == 2
    assert [name for name in network.weights() if name.startswith("linear")] == ["linear.weight", "linear.bias"]


def test_mixed_precision_and_other_parts_are_refused_by_name() -> None:
    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return x @ x.T

    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = torch.cond(x.sum() > 0, lambda y: y * 1, lambda y: -y, (x,))
            return result

    with pytest.raises(SlimlineError, match="uses wrap_with_autocast, which slimline has no form for"):
        trace(Mixed(), [torch.randn(2, 3)])
    with pytest.raises(SlimlineError, match="uses cond, which slimline has no form for"):
        trace(Branching(), [torch.randn(2, 3)])


class InPlace(nn.Module):
    """In-place activations as torchvision writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True)
        self.drop, self.linear = nn.Dropout(inplace=True), nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv(x))
        y += 1.0
        z = F.relu6(y, inplace=True)
        result: Tensor = F.leaky_relu_(self.linear(self.drop(self.act(torch.flatten(y - 0.5 + z, 1)))))
        return result


def test_in_place_operators_become_plain_ones() -> None:
    module = InPlace().eval()
    network = trace(module, [torch.randn(2, 3, 4, 4)])
    x = torch.randn(5, 3, 4, 4)
    with torch.no_grad():
        expected = module(x.clone())
    before = x.clone()
    torch.testing.assert_close(network.run({"x": x})[0], expected)
    assert torch.equal(x, before)
    names = [str(n.target) for n in network.module.graph.nodes if n.op == "call_function"]
    assert not [n for n in names if n.split(".")[1].endswith("_")]
    assert sum("relu" in n for n in names) == 4


def write_a_part(x: Tensor) -> Tensor:
    y = x * 1
    y[:, 0] = 7.0
    return y


def scale_a_slice(x: Tensor) -> Tensor:
    y = x * 1
    y[:, :2].mul_(0.0)
    return y


def write_under_a_view(x: Tensor) -> Tensor:
    y = x * 1
    view = y.view(-1, 4)
    F.relu_(y)
    return view


def write_a_chunk(x: Tensor) -> Tensor:
    y = x * 1
    one, two = y.chunk(2, 1)
    one.add_(two)
    return y


@pytest.mark.parametrize("function", [write_a_part, scale_a_slice, write_under_a_view, write_a_chunk])
def test_writing_into_a_view_is_refused_because_the_graph_would_lose_it(function: Callable[[Tensor], Tensor]) -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    with pytest.raises(
        SlimlineError, match="in-place operator aten.* writes into a view of a tensor that is read later"
    ):
        trace(Writes(), [torch.randn(2, 4)])


def test_the_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(), nn.Conv2d(4, 2, 1)))
    module.train()
    module[1].eval()
    module[0].weight.requires_grad_(False)
    modes = [m.training for m in module.modules()]
    state = {n: t.clone() for n, t in module.state_dict().items()}
    example = torch.randn(1, 3, 4, 4)
    network = trace(module, [example])
    assert [m.training for m in module.modules()] == modes
    assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())
    assert not module[0].weight.requires_grad and example.shape[0] == 1
    for tensor in network.weights().values():
        tensor.detach().zero_()
    assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())
    assert not network.is_training()  # traced for inference, whatever the mode of the module


def test_the_module_is_left_as_it_was_when_tracing_fails() -> None:
    module = Branches().train()
    with pytest.raises(SlimlineError):
        trace(module, [torch.randn(2, 3)])
    assert module.training


def test_a_tensor_under_two_names_is_stored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.two(F.relu(self.one(x)))
            return result

    network = trace(Tied(), [torch.randn(2, 4)])
    assert set(network.weights()) == {"one.weight", "one.bias", "two.bias"}


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # this line
            return x
        return -x


class Items(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * int(x.max().item())  # this line


class Shapes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        result: Tensor = self.linear(x)  # this line
        return result


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("not today")  # this line


@pytest.mark.parametrize("module", [Branches(), Items(), Shapes(), Raises()], ids=lambda m: type(m).__name__)
def test_what_cannot_be_traced_names_the_line(module: nn.Module, capfd: pytest.CaptureFixture[str]) -> None:
    source, start = inspect.getsourcelines(type(module))
    line = start + next(i for i, text in enumerate(source) if "this line" in text)
    with pytest.raises(SlimlineError) as caught:
        trace(module, [torch.randn(2, 3)])
    sentence = str(caught.value)
    assert sentence.startswith(
        f"{type(module).__name__} cannot be traced by torch.export at {Path(__file__)}:{line} (`"
    )
    assert "\n" not in sentence
    assert "".join(capfd.readouterr()) == ""  # the sentence is all there is


@pytest.mark.parametrize(
    "forward",
    [lambda x: x.view(4, -1) * 1, lambda x: x + torch.zeros(4, 3), lambda x: x.reshape(2, 2, 3).flatten(0, 1)],
    ids=["view", "constant", "reshape"],
)
def test_a_fixed_batch_is_refused(forward: Callable[[Tensor], Tensor]) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return forward(x)

    with pytest.raises(SlimlineError, match="Fixed cannot be traced.*works for one batch size only"):
        trace(Fixed(), [torch.randn(4, 3)])


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        (
            [torch.randn(2, 4)],
            r"Weighted\.forward\(.*cannot take the example inputs: missing a required argument: 'weight'",
        ),
        ([torch.randn(2, 4)] * 4, "too many positional arguments"),
        ({"image": torch.randn(2, 4), "wieght": torch.randn(2, 3)}, "cannot take the example inputs: .*argument"),
        ({"image": torch.randn(2, 4), "weight": torch.randn(0, 3)}, "has no samples"),
        ({"image": torch.randn(2, 4), "weight": torch.tensor(1.0)}, "has no samples"),
        ([torch.randn(2, 4), [[1.0, 2.0, 3.0]]], "is a list: give a torch tensor"),
        ([torch.randn(2, 4), torch.randn(3, 3)], "Weighted cannot be traced"),
    ],
)
def test_wrong_inputs_give_a_sentence(inputs: Any, sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence) as caught:
        trace(Weighted(), inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3], ids=str)
def test_outputs_have_to_be_tensors(value: Any) -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x + 1, value

    with pytest.raises(SlimlineError, match="Odd returns something that is no tensor"):
        trace(Odd(), [torch.randn(2, 3)])


def test_tensors_are_put_under_dotted_names() -> None:
    root = nn.Module()
    put_tensor(root, "a.b.weight", nn.Parameter(torch.ones(2, 3).T, requires_grad=False))
    put_tensor(root, "a.count", torch.tensor([1, 2]))
    weight = root.get_parameter("a.b.weight")
    assert weight.is_contiguous() and not weight.requires_grad
    put_tensor(root, "a.b.weight", torch.zeros(2))  # no longer a parameter
    assert [n for n, _ in root.named_parameters()] == []
    assert {n: t.tolist() for n, t in root.named_buffers()} == {"a.b.weight": [0.0, 0.0], "a.count": [1, 2]}
