"""Taps return the values inside, share the weights, and lie at the ends of blocks that correspond to each other."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.demo.job import model as demo_network
from slimline.errors import SlimlineError
from slimline.methods.share.codebook import ShareWeights
from slimline.network.axes import axis_groups, prune
from slimline.network.network import Network
from slimline.network.taps import (
    attention_points,
    attention_weights,
    channel_axes,
    tap_points,
    with_taps,
    without_taps,
)
from slimline.network.trace import trace
from tests.network.networks import PlainAdds, differences, network_of, random_halves, randomise_, samples
from tests.toys import toy


def halved(network: Network) -> Network:
    groups = axis_groups(network)
    return prune(network, groups, random_halves(groups, seed=0))


def same(pairs: list[tuple[str, str]]) -> list[str]:
    """The names of pairs that are of equal names."""
    assert all(a == b for a, b in pairs)
    return [a for a, _ in pairs]


# --- taps -------------------------------------------------------------------------------------------------------------


def test_taps_return_what_hooks_on_the_module_see() -> None:
    torch.manual_seed(0)
    module, x, seen = randomise_(PlainAdds()), samples("plain adds", 5), list[Tensor]()
    network = trace(module, {"x": samples("plain adds", 2)})
    for layer in (module.get_submodule("blocks.1"), module.get_submodule("stem")):
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    with torch.no_grad():
        expected = module(x)
    tapped = with_taps(network, ["batch_norm_4", "conv2d"]).verify()
    outputs = tapped.run({"x": x})
    assert tapped.output_names == ("output", "batch_norm_4", "conv2d") and tapped.examples is network.examples
    for got, wanted in zip(outputs, (expected, *reversed(seen)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert differences(network, network_of("plain adds")) == []  # the given one is as it was


def test_a_gradient_step_on_the_tapped_network_is_one_on_the_given_one() -> None:
    network = network_of("plain adds")
    tapped = with_taps(network, ["relu_1"])
    weights, x = network.weights(), samples("plain adds", 4)
    assert tapped.weights().keys() == weights.keys()
    assert all(tensor is weights[name] for name, tensor in tapped.weights().items())
    before = network.run({"x": x})[0]
    optimizer = torch.optim.SGD(tapped.module.parameters(), 0.1)
    tapped.module(x)[1].square().mean().backward()  # only the tap has a loss: what lies behind it gets no gradient
    optimizer.step()
    assert not torch.equal(network.run({"x": x})[0], before)
    untouched = network_of("plain adds").weights()
    changed = {name for name, tensor in weights.items() if not torch.equal(tensor, untouched[name])}
    assert {"stem.weight", "blocks.0.0.weight"} < changed and not {n for n in changed if "blocks.1" in n or "head" in n}


def test_the_mode_is_the_one_at_the_time_of_tapping_and_statistics_are_shared() -> None:
    network, x = network_of("plain adds").set_training_(True), samples("plain adds", 9)
    before = network.weights()["stem_norm.running_mean"].clone()
    tapped = with_taps(network, ["relu"])
    assert tapped.is_training() and torch.equal(network.weights()["stem_norm.running_mean"], before)
    network.set_training_(False)
    assert tapped.is_training() and not network.is_training()
    tapped.run({"x": x})
    expected = 0.9 * before + 0.1 * tapped_mean(network, x)
    torch.testing.assert_close(network.weights()["stem_norm.running_mean"], expected)
    assert not with_taps(network, ["relu"]).is_training()


def tapped_mean(network: Network, x: Tensor) -> Tensor:
    return F.conv2d(x, network.weights()["stem.weight"].detach(), padding=1).mean((0, 2, 3))


@pytest.mark.parametrize("names", [["relu_1"], ["relu_1", "conv2d", "relu_1"]])
def test_without_its_taps_a_network_is_what_it_was(names: list[str]) -> None:
    network = network_of("plain adds")
    tapped = with_taps(network, names)
    plain = without_taps(tapped, len(names))
    assert differences(plain, network) == []
    assert plain.weights()["stem.weight"] is network.weights()["stem.weight"]
    copy = without_taps(tapped.copy(), len(names))
    assert differences(copy, network) == [] and copy.weights()["stem.weight"] is not network.weights()["stem.weight"]


def test_names_that_are_no_values_are_refused() -> None:
    network = network_of("view")
    with pytest.raises(SlimlineError, match=r"No tensor in the network is called 'relo'; near names: relu"):
        with_taps(network, ["relo"])
    size = next(n.name for n in network.module.graph.nodes if n.target is torch.ops.aten.sym_size.int)
    with pytest.raises(SlimlineError, match=f"No tensor in the network is called '{size}'"):
        with_taps(network, [size])
    with pytest.raises(SlimlineError, match="relu is no scaled_dot_product_attention"):
        with_taps(network, ["relu:weights"])


# --- attention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": torch.arange(6).expand(6, 6) < 4},
        {"attn_mask": torch.linspace(-3, 3, 36).reshape(1, 1, 6, 6)},
        {"attn_mask": torch.full((2, 1, 1, 6), -3e38).tril(2)},
    ],
    ids=["plain", "scale", "causal", "places that are left out", "relative positions", "large numbers as a mask"],
)
@pytest.mark.parametrize("key_heads", [4, 2])
def test_weights_of_attention_are_what_the_fused_operator_multiplies_by(given: dict[str, Any], key_heads: int) -> None:
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, key_heads, 6, 8)
    units = torch.eye(6).expand(2, key_heads, 6, 6)
    expected = F.scaled_dot_product_attention(query, key, units, enable_gqa=True, **given)
    ours = attention_weights(query, key, given.get("attn_mask"), given.get("is_causal", False), given.get("scale"))
    torch.testing.assert_close(ours, expected)


def test_a_query_that_may_look_nowhere_looks_everywhere_alike() -> None:
    ours = attention_weights(
        torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4), torch.eye(3, dtype=torch.bool)[0] & False
    )
    torch.testing.assert_close(ours, torch.full((1, 1, 3, 3), 1 / 3))


class Encoder(nn.Module):
    """Layers of self-attention and a feed-forward network (pre-norm).

    Args:
        kind: of attention: ``fused`` or ``plain``, of rotated queries, or ``relative``, where they meet a table of
            positions.
    """

    def __init__(self, layers: int, heads: int, kind: str) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 16)
        self.projections = nn.ModuleList(nn.Linear(16, 48) for _ in range(layers))
        self.outputs = nn.ModuleList(nn.Linear(16, 16) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(2 * layers))
        self.wide = nn.ModuleList(nn.Linear(16, 24) for _ in range(layers))
        self.narrow = nn.ModuleList(nn.Linear(24, 16) for _ in range(layers))
        self.head = nn.Linear(16, 3)
        self.heads, self.kind, self.table = heads, kind, nn.Embedding(7, 16 // heads)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i in range(len(self.projections)):
            x = x + self.outputs[i](self.attend(self.projections[i](self.norms[2 * i](x))))
            y = self.wide[i](self.norms[2 * i + 1](x))
            y = 0.5 * y * (1 + torch.tanh(0.8 * (y + 0.04 * y**3)))  # a sum of a value and what is made of it
            x = x + self.narrow[i](y)
        result: Tensor = self.head(x.mean(1))
        return result

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1).transpose(1, 2) for y in x.chunk(3, 2))
        if self.kind != "relative":
            turn = torch.arange(q.shape[3])
            q = q * turn.cos() + q.flip(3) * turn.sin()  # and one of a value and a rotated value
        if self.kind == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            scores = q @ k.transpose(2, 3) / q.shape[3] ** 0.5
            if self.kind == "relative":
                scores = scores + q @ self.table(torch.arange(7)).T
            y = scores.softmax(-1) @ v
        return y.transpose(1, 2).flatten(2)


def encoder(layers: int = 2, heads: int = 2, kind: str = "fused") -> Network:
    torch.manual_seed(0)
    return trace(Encoder(layers, heads, kind), {"x": torch.randn(2, 7, 5)})


def test_fused_and_plain_attention_are_tapped_alike() -> None:
    fused, plain, x = encoder(), encoder(kind="plain"), {"x": torch.randn(4, 7, 5)}
    pairs = attention_points(fused, plain)
    assert pairs == [
        ("scaled_dot_product_attention:weights", "softmax"),
        ("scaled_dot_product_attention_1:weights", "softmax_1"),
    ]
    ours, theirs = (with_taps(n, names) for n, names in zip((fused, plain), zip(*pairs, strict=True), strict=True))
    assert ours.output_names == ("output", *[a for a, _ in pairs])
    for got, wanted in zip(ours.run(x), theirs.run(x), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert ours.run(x)[1].shape == (4, 2, 7, 7)
    assert differences(without_taps(ours, 2), fused) == []


def test_points_of_attention_of_other_depths_and_heads_are_paired_in_proportion() -> None:
    student, teacher = encoder(layers=2, heads=4), encoder(layers=6, kind="plain")
    names = ["scaled_dot_product_attention:weights", "scaled_dot_product_attention_1:weights"]
    assert attention_points(student, teacher) == list(zip(names, ["softmax_2", "softmax_5"], strict=True))
    assert same(attention_points(teacher, teacher, most=3)) == ["softmax_1", "softmax_3", "softmax_5"]
    assert attention_points(network_of("plain adds"), teacher) == []


def test_a_softmax_that_is_no_attention_is_no_point() -> None:
    class Classes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.conv(x).softmax(1)
            return result

    network = trace(Classes(), {"x": torch.randn(2, 3, 6, 6)})
    assert attention_points(network, network) == []


# --- where to tap -----------------------------------------------------------------------------------------------------


def test_points_of_the_demo_network_are_the_ends_of_its_blocks() -> None:
    """The value that each block hands on: what the next block's first convolution or the mean reads."""
    network = demo_network()
    student = halved(network)
    readers = {n.all_input_nodes[-1].target: n.args[0].name for n in network.module.graph.nodes if "conv2d" in n.name}
    last = next(n.args[0].name for n in network.module.graph.nodes if n.target is torch.ops.aten.mean.dim)
    expected = [readers["blocks.1.conv1.weight"], readers["blocks.2.conv1.weight"], last]
    assert same(tap_points(student, network)) == expected
    assert channel_axes(student, expected) == [1, 1, 1]


ENDS = {
    "plain adds": ["relu_1", "relu_2"],
    "projection shortcut": ["relu", "relu_1"],
    "option-A shortcut": ["relu", "relu_2"],
    "depthwise": ["relu6"],
    "flatten": ["relu", "relu_1"],
    "dense block": ["relu_3"],
    "squeeze and excite": ["silu"],  # and not the gate
    "shared weight": ["relu_3"],
    "slices and upsampling": ["relu_2", "relu_3"],
    "sequence": ["tanh", "relu"],
}


@pytest.mark.parametrize("name", ENDS)
def test_points_of_a_pruned_copy_are_block_ends_and_last_activations_of_a_size(name: str) -> None:
    network = network_of(name)
    student = halved(network)
    points = same(tap_points(student, network))
    assert points == ENDS[name]
    taps = [with_taps(n, points).run(network.examples)[1:] for n in (student, network)]
    for axis, ours, theirs in zip(channel_axes(network, points), *taps, strict=True):
        assert ours.select(axis, 0).shape == theirs.select(axis, 0).shape


def test_points_of_the_toy_are_the_stem_and_the_end_of_its_block() -> None:
    """One of 8 x 8 pixels, in front of the pooling, and one of 4 x 4 behind the sum."""
    network = toy()
    points = same(tap_points(halved(network), network))
    read_by = [{user.name for user in n.users} for n in network.module.graph.nodes if n.name in points]
    assert read_by == [{"max_pool2d"}, {"mean"}]


@pytest.mark.parametrize("kind", ["fused", "plain", "relative"])
def test_points_of_an_encoder_are_its_residual_sums(kind: str) -> None:
    """And none of the sums that rotate queries, are a part of the activation, or add positions to scores."""
    network = encoder(kind=kind)
    points = same(tap_points(network, network, most=99))
    nodes = {n.name: n for n in network.module.graph.nodes}
    before = [nodes[name].args[1] for name in points]
    layers = ["outputs.0", "narrow.0", "outputs.1", "narrow.1"]
    assert [str(n.args[1].target) for n in before] == [f"{layer}.weight" for layer in layers]
    assert channel_axes(network, points) == [2] * 4


def test_activations_inside_blocks_are_no_points() -> None:
    class Linear(nn.Module):
        """A block that ends without an activation, as in Sandler et al. (2018), MobileNetV2."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)
            self.expand, self.project = nn.Conv2d(6, 9, 1), nn.Conv2d(9, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x + self.project(F.relu6(self.expand(x)))
            result: Tensor = self.head(x.mean((2, 3)))
            return result

    network = trace(Linear(), {"x": torch.randn(2, 3, 8, 8)})
    assert same(tap_points(network, network)) == ["add"]


def test_several_sums_in_a_row_end_one_block() -> None:
    class Branches(nn.Module):
        """As in Ding et al. (2021), RepVGG."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 5)
            self.wide, self.narrow = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = self.wide(x) + self.narrow(x) + x
            result: Tensor = self.head(x.mean((2, 3)))
            return result

    network = trace(Branches(), {"x": torch.randn(2, 3, 8, 8)})
    assert same(tap_points(network, network)) == ["add_1"]


def test_the_points_of_bert_are_the_norms_behind_its_sums() -> None:
    transformers = pytest.importorskip("transformers")
    settings: dict[str, Any] = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 37}
    inputs = {"input_ids": torch.arange(24).reshape(2, 12), "attention_mask": torch.ones(2, 12, dtype=torch.int64)}
    inputs["attention_mask"][1, 6:] = 0

    def bert(attention: str, layers: int = 2) -> Network:
        config = transformers.BertConfig(vocab_size=99, num_hidden_layers=layers, **settings)
        config._attn_implementation = attention
        torch.manual_seed(0)
        return trace(transformers.BertModel(config).eval(), inputs)

    fused, plain = bert("sdpa"), bert("eager")
    nodes = {n.name: n for n in fused.module.graph.nodes}
    norms = [str(nodes[name].args[2].target) for name in same(tap_points(fused, fused))]
    kinds = ["0.attention.output", "0.output", "1.attention.output"]  # the last is an output of the network
    assert [n.lower().replace("_", "") for n in norms] == [f"encoder.layer.{k}.layernorm.weight" for k in kinds]
    pairs = attention_points(fused, plain)
    taps = [
        with_taps(n, names).run(inputs)[2:] for n, names in zip((fused, plain), zip(*pairs, strict=True), strict=True)
    ]
    assert len(pairs) == 2
    for ours, theirs in zip(*taps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert float(ours[1, :, :, 6:].max()) < 1e-6  # nobody looks at padding
    assert len(tap_points(fused, bert("sdpa", layers=4), most=9)) == 3


class Stack(nn.Module):
    """Identity blocks of one width."""

    def __init__(self, blocks: int, width: int, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, width, 3, padding=1), nn.Linear(width, 5)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.activation = activation or nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = self.activation(x + block(x))
        result: Tensor = self.head(x.mean((2, 3)))
        return result


def stack(blocks: int, width: int, activation: nn.Module | None = None, side: int = 8) -> Network:
    return trace(Stack(blocks, width, activation), {"x": torch.randn(2, 3, side, side)})


def test_many_points_are_thinned_out_evenly_and_the_last_stays() -> None:
    network = stack(12, 4)
    every = ["relu", *[f"relu_{i}" for i in range(1, 12)]]
    assert same(tap_points(network, network, most=99)) == every
    assert same(tap_points(network, network)) == every[2::3]
    assert same(tap_points(network, network, most=1)) == every[-1:]


def test_networks_of_another_depth_or_other_names_are_paired_in_proportion() -> None:
    teacher = stack(6, 8)
    assert tap_points(stack(3, 4), teacher) == [("relu", "relu_1"), ("relu_1", "relu_3"), ("relu_2", "relu_5")]
    assert tap_points(stack(2, 4, nn.GELU()), teacher) == [("gelu", "relu_2"), ("gelu_1", "relu_5")]
    assert tap_points(teacher, stack(1, 4)) == [("relu_5", "relu")]


def test_a_copy_that_lost_a_block_is_paired_by_name() -> None:
    teacher, student = stack(4, 8), stack(4, 8)
    nodes = {n.name: n for n in student.module.graph.nodes}
    nodes["relu_1"].replace_all_uses_with(nodes["relu"])
    assert same(tap_points(student.tidy_(), teacher)) == ["relu", "relu_2", "relu_3"]


def test_outputs_are_no_points_and_other_sizes_are_not_compared() -> None:
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack = Stack(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stack.stem(x)
            for block in self.stack.blocks:
                x = F.relu(x + block(x))
            return x

    network = trace(Features(), {"x": torch.randn(2, 3, 8, 8)})
    assert same(tap_points(network, network)) == ["relu"]
    assert tap_points(stack(2, 4), stack(2, 4, side=6)) == []
    assert tap_points(network_of("sequence"), stack(2, 4)) == []


@pytest.mark.parametrize("name", ["stack", "sequence"])
def test_weights_that_are_looked_up_are_weights(name: str) -> None:
    network = stack(2, 4) if name == "stack" else network_of(name)
    shared = ShareWeights(clusters=4, smallest=1).apply(network).network
    assert any("codebook" in stored for stored in shared.weights())
    points = same(tap_points(network, network))
    assert points and same(tap_points(shared, network)) == points


def test_examples_of_another_batch_make_no_difference() -> None:
    torch.manual_seed(0)
    larger = trace(Stack(2, 6), {"x": torch.randn(3, 3, 8, 8)})
    assert same(tap_points(stack(2, 4), larger)) == ["relu", "relu_1"]


def test_the_axis_of_the_channels_follows_the_layers() -> None:
    network = network_of("sequence")  # conv1d, transpose, linear, permute, conv1d
    names = ["gelu", "transpose", "linear", "tanh", "permute", "conv1d_1", "linear_1"]
    assert channel_axes(network, names) == [1, 2, 2, 2, 1, 1, 1]
    with pytest.raises(SlimlineError, match="'first_weight' is no value that the network computes from its inputs"):
        channel_axes(network, ["gelu", "first_weight"])
