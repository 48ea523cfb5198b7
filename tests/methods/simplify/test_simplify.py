"""All simplifications together: equal answers of random networks and of known architectures, and fewer operators."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnxruntime import InferenceSession
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from slimline.methods.method import Method, registry
from slimline.methods.simplify.simplify import Simplify
from slimline.network.container import load, save
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.runtimes.onnx_file import write_onnx
from tests.contract_networks import redundant
from tests.methods.simplify.equality import Constant, Does, applied, count, network_of

PARTS = (
    "RemoveNoOps", "FoldConstants", "EliminateCommon", "CancelReshapes", "FoldBatchNorm", "FoldBatchNormBefore",
    "FoldScalars", "MergeLinear",
)  # fmt: skip


def test_one_network_needs_them_all_and_little_is_left() -> None:
    network = redundant()
    outcome = Simplify().apply(network)
    outcome.network.verify()
    assert {name.partition(":")[0] for name in outcome.changed} == set(PARTS)
    assert list(outcome.skipped) == ["mul_1"]  # between the sigmoid and the sum
    left = [str(n.target).split(".")[1] for n in outcome.network.module.graph.nodes if n.op == "call_function"]
    assert left == ["conv2d", "relu", "conv2d", "sigmoid", "mul", "add", "reshape", "linear"]
    x = {"image": torch.randn(3, 1, 8, 8)}
    torch.testing.assert_close(outcome.network.run(x), network.run(x), rtol=1e-4, atol=1e-5)


def test_it_is_done_when_it_says_so() -> None:
    once = Simplify().apply(redundant())
    again = Simplify().apply(once.network)
    assert not again.changed and again.network.digest() == once.network.digest()


def test_one_round_is_not_enough_for_what_opens_the_way_for_more() -> None:
    """The permutations cancel first; then a norm follows its layer; then the factor does; then two layers meet."""

    def chain(x: Tensor, a: nn.Module, n: nn.Module, b: nn.Module) -> Tensor:
        result: Tensor = b(n(F.relu6(a(x)).relu().clamp(0, 6).mT.contiguous().mT.transpose(1, 2)).mT * 2)
        return result

    network = network_of(Does(chain, nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)), 5, 4)
    assert count(applied(Simplify(), network).network) == 3
    assert count(applied(Simplify(rounds=1), network).network) >= 3


def test_batch_norm_and_dropout_are_kept_for_training() -> None:
    network = redundant()
    outcome = Simplify(training="keep").apply(network)
    outcome.network.verify()
    for kept in ("batch_norm", "dropout"):
        assert count(outcome.network, kept) == count(network, kept)
    assert count(outcome.network) < count(network)
    x = {"image": torch.randn(3, 1, 8, 8)}
    torch.testing.assert_close(outcome.network.run(x), network.run(x), rtol=1e-4, atol=1e-5)


def test_reasons_are_those_of_what_is_left() -> None:
    network = network_of(Does(lambda x, n, a: a(F.relu(n(x))), nn.BatchNorm1d(4), nn.Linear(4, 4)), 4)
    assert applied(Simplify(), network).skipped == {
        "batch_norm": "does not follow a convolution or linear layer; is not followed by a convolution or linear layer"
    }


@pytest.mark.parametrize("name", [*PARTS, "Simplify"])
def test_the_result_can_be_stored_and_exported(name: str, tmp_path: Path) -> None:
    method: Method = registry()[name]()
    network = redundant()
    again = load(save(method.apply(network).network, tmp_path / "n.slim"))
    write_onnx(again, tmp_path / "n.onnx")
    session = InferenceSession(tmp_path / "n.onnx", providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = torch.randn(batch, 1, 8, 8)
        ours = session.run(None, {"image": x.numpy()})[0]
        np.testing.assert_allclose(ours, network.run({"image": x})[0].numpy(), rtol=1e-3, atol=1e-5)


class Random(nn.Module):
    """A chain of random pieces for images (N, 4, 6, 6), each of which is or nearly is something to simplify."""

    def __init__(self, seed: int, length: int = 7) -> None:
        super().__init__()
        self.random, self.kept, self.steps = random.Random(seed), nn.ModuleList(), list[Step]()
        x = torch.randn(2, 4, 6, 6)
        for _ in range(length):
            step = self.random.choice(PIECES)(self, x)
            self.eval()
            x, before = step(x), x
            if x.ndim == before.ndim and min(x.shape[2:]) > 2 and max(x.shape[1:]) < 17:
                self.steps.append(step)
            else:
                x = before
        self.head = nn.Linear(x[0].numel(), 3)

    def keep(self, module: nn.Module) -> nn.Module:
        self.kept.append(module)
        return module

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        result: Tensor = self.head(x.flatten(1))
        return result

    def convolution(self, x: Tensor, kernels: tuple[int, ...] = (1, 2, 3)) -> nn.Module:
        choose = self.random.choice
        groups = choose([g for g in (1, 1, 2) if x.shape[1] % g == 0])
        kernel, outputs, bias = choose(kernels), groups * choose([2, 3]), choose([True, False])
        if choose([True, False, False]):
            layer: nn.Module = nn.ConvTranspose2d(x.shape[1], outputs, kernel, choose([1, 1, 2]), 0, 0, groups, bias)
        else:
            layer = nn.Conv2d(x.shape[1], outputs, kernel, 1, choose([0, 1]), groups=groups, bias=bias)
        return self.keep(layer)

    def norm(self, channels: int) -> nn.Module:
        return self.keep(nn.BatchNorm2d(channels, affine=self.random.choice([True, False])))

    def constant(self, *shape: int) -> nn.Module:
        return self.keep(Constant(torch.rand(shape) + 0.5, trainable=self.random.choice([True, False])))


Step = Callable[[Tensor], Tensor]


def norm_after(r: Random, x: Tensor) -> Step:
    layer = r.convolution(x)
    norm = r.norm(layer(x).shape[1])
    return lambda x: norm(layer(x))


def norm_before(r: Random, x: Tensor) -> Step:
    norm, layer = r.norm(x.shape[1]), r.convolution(x)
    return lambda x: layer(norm(x))


def norm_of_rows(r: Random, x: Tensor) -> Step:
    norm, layer = r.norm(x.shape[1]), r.keep(nn.Linear(x.shape[3], x.shape[1]))
    return lambda x: norm(layer(x))


def norm_behind_a_permutation(r: Random, x: Tensor) -> Step:
    norm, layer = r.norm(6), r.keep(nn.Linear(x.shape[3], 6))
    return lambda x: norm(layer(x).transpose(1, 3)).transpose(1, 3)


def two_layers(r: Random, x: Tensor) -> Step:
    one = r.convolution(x, r.random.choice([(1,), (3,)]))
    other = r.convolution(one(x), r.random.choice([(1,), (2,)]))
    return lambda x: other(one(x))


def one_layer_twice(r: Random, x: Tensor) -> Step:
    layer, norm = r.keep(nn.Linear(x.shape[3], x.shape[3])), r.norm(x.shape[1])
    return lambda x: norm(layer(layer(x) * 2)) + 1


def arithmetic(r: Random, x: Tensor) -> Step:
    shapes = [(1,), (x.shape[1], 1, 1), (x.shape[3],), (x.shape[2], 1), tuple(x.shape[1:])]
    c, d, layer = r.constant(*r.random.choice(shapes)), r.constant(*r.random.choice(shapes)), r.convolution(x)
    many: list[Step] = [
        lambda x: x * c() + d(),
        lambda x: (x - c()) / d(),
        lambda x: c() - x * 2 * 3,
        lambda x: layer(x * c()),
        lambda x: layer((x - 0.5) / 2),
        lambda x: layer(x).neg() / 3 + 1 + 2,
        lambda x: x + torch.arange(x.shape[3]) * 0.1 + c().exp(),
    ]
    return r.random.choice(many)


def nothing(r: Random, x: Tensor) -> Step:
    shape = tuple(x.shape[1:])
    many: list[Step] = [
        lambda x: F.dropout(x.clone(), 0.5, training=False) * 1 + 0,
        lambda x: F.pad(x[:, :], (0, 0))[:3000],
        lambda x: F.avg_pool2d(F.max_pool2d(x, 1), 1),
        lambda x: F.relu6(x.relu()).clamp(-1, 7),
        lambda x: x.clamp(-1, 2).relu().sigmoid().relu(),
        lambda x: x.flatten(1).view(-1, *shape),
        lambda x: x.permute(0, 2, 3, 1).contiguous().view(x.shape[0], -1).unflatten(1, shape),
        lambda x: x.permute(0, 2, 3, 1).relu().permute(0, 2, 3, 1),
        lambda x: x.unsqueeze(1).transpose(1, 2).squeeze(2).transpose(2, 3).transpose(1, 3),
    ]
    return r.random.choice(many)


def twice(r: Random, x: Tensor) -> Step:
    layer, normed = r.convolution(x), r.keep(weight_norm(nn.Conv2d(x.shape[1], 4, 1)))
    many: list[Step] = [
        lambda x: layer(x).sigmoid() + layer(x).sigmoid() * 2,
        lambda x: (x + x.tanh()) * (x.tanh() + x),
        lambda x: torch.add(x, x.tanh(), alpha=2) * torch.add(x.tanh(), x, alpha=2),
        lambda x: normed(x),
        lambda x: (x @ x.mT / 4).softmax(3) @ x,
    ]
    return r.random.choice(many)


PIECES: list[Callable[[Random, Tensor], Step]] = [
    norm_after, norm_before, norm_of_rows, norm_behind_a_permutation, two_layers, one_layer_twice, arithmetic, nothing,
    twice,
]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_answer_as_before(seed: int) -> None:
    """In double precision, for one and for three samples."""
    torch.manual_seed(seed)
    network = network_of(Random(seed), 4, 6, 6)
    outcome = applied(Simplify(), network)
    assert outcome.changed and count(outcome.network) < count(network)
    assert not Simplify().apply(outcome.network).changed


def mobilenet() -> Network:
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(depth_multiplier=0.25, image_size=32, num_labels=4)
    return trace(MobileNetV2ForImageClassification(config).eval(), {"pixel_values": torch.randn(2, 3, 32, 32)})


def bert() -> Network:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=16, attn_implementation="eager",
    )  # fmt: skip
    mask = torch.ones(2, 8, dtype=torch.int64)
    mask[1, 5:] = 0
    return trace(BertModel(config).eval(), {"input_ids": torch.randint(0, 50, (2, 8)), "attention_mask": mask})


def convnext() -> Network:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(
        hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, image_size=32, num_labels=4, layer_scale_init_value=0.5
    )
    return trace(ConvNextForImageClassification(config).eval(), {"pixel_values": torch.randn(2, 3, 32, 32)})


GONE: list[tuple[Callable[[], Network], tuple[str, ...], int]] = [
    (mobilenet, ("batch_norm", "dropout"), 80),
    (bert, ("dropout", "contiguous", "slice", "mul"), 35),
    (convnext, ("mul",), 2),
]


@pytest.mark.parametrize(("architecture", "gone", "fewer"), GONE)
def test_known_architectures_answer_as_before(
    architecture: Callable[[], Network], gone: tuple[str, ...], fewer: int
) -> None:
    torch.set_num_threads(1)  # a second thread costs networks of this size more than it brings
    network = architecture()
    with torch.no_grad():
        for name, tensor in network.weights().items():
            if name.endswith(("running_var", "gamma")):
                tensor.uniform_(0.5, 2.0)
            elif tensor.is_floating_point():
                tensor += 0.05 * torch.randn(tensor.shape)
    outcome = Simplify().apply(network)
    outcome.network.verify()
    assert all(count(network, name) and not count(outcome.network, name) for name in gone)
    assert count(network) - count(outcome.network) >= fewer
    for batch in (1, 3):
        inputs = {name: torch.cat([x, x.flip(1)])[-batch:] for name, x in network.examples.items()}
        for ours, theirs in zip(outcome.network.run(inputs), network.run(inputs), strict=True):
            assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5
