"""What is equal is stored once, in every file; nothing else is, and no answer changes."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from slimline.methods.share.tie import TieWeights, fingerprint
from slimline.network import container
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.runtimes.onnx_file import write_onnx
from tests.contract_networks import twins
from tests.toys import patterns

SIZE = 40


class Copies(nn.Module):
    """An output layer that is a copy of the embedding, and others that are nearly, or of another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(SIZE, SIZE), nn.Linear(SIZE, SIZE, bias=False)
        self.near, self.turned = nn.Linear(SIZE, SIZE), nn.Linear(SIZE * SIZE // 2, 2, bias=False)
        self.frozen = nn.Linear(SIZE, SIZE, bias=False).requires_grad_(False)
        with torch.no_grad():
            self.last.weight.copy_(self.table.weight)
            self.frozen.weight.copy_(self.table.weight)
            self.near.weight.copy_(self.table.weight)
            self.near.weight[0, 0] += 1e-6
            self.turned.weight.copy_(self.table.weight.reshape(2, -1))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.near(self.table(tokens)).tanh() + self.frozen(self.table(tokens))
        return self.last(x), self.turned(x.repeat(1, SIZE // 8, 1)[:, : SIZE // 2].flatten(1))


def copies() -> tuple[Network, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return trace(Copies(), {"tokens": torch.randint(0, SIZE, (2, 8))}), torch.randint(0, SIZE, (5, 8))


def test_only_what_is_equal_in_every_bit_and_learns_alike_is_tied() -> None:
    network, tokens = copies()
    outcome = TieWeights().apply(network)
    assert outcome.changed == ["last.weight"] and outcome.skipped == {}
    assert set(network.weights()) - set(outcome.network.weights()) == {"last.weight"}
    before, after = (n.verify().run({"tokens": tokens}) for n in (network, outcome.network))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_files_get_smaller_by_the_weight_and_run_the_same(tmp_path: Path) -> None:
    network, tokens = copies()
    tied = TieWeights().apply(network).network
    sizes = []
    for name, found in (("before", network), ("after", tied)):
        write_onnx(found, tmp_path / f"{name}.onnx")
        container.save(found, tmp_path / f"{name}.slim")
        sizes.append([(tmp_path / f"{name}.{ending}").stat().st_size for ending in ("onnx", "slim")])
    saved = 4 * SIZE * SIZE
    assert all(before - after > 0.9 * saved for before, after in zip(*sizes, strict=True))
    session = onnxruntime.InferenceSession(tmp_path / "after.onnx")
    for ours, expected in zip(session.run(None, {"tokens": tokens.numpy()}), tied.run({"tokens": tokens}), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    again = container.load(tmp_path / "after.slim").run({"tokens": tokens})
    assert torch.equal(again[0], tied.run({"tokens": tokens})[0])


def test_layers_that_were_copied_learn_together_from_then_on() -> None:
    tied = TieWeights().apply(twins())
    assert tied.changed == ["other.weight"]
    x, y = (torch.from_numpy(a) for a in patterns(16, seed=0))
    network = twins()
    for found in (tied.network, network):
        nn.functional.cross_entropy(found.module(x)[0], y).backward()  # type: ignore[no-untyped-call]
    gradients = {name: t.grad for name, t in network.weights().items()}
    ours = tied.network.weights()["one.weight"].grad
    assert ours is not None and gradients["one.weight"] is not None and gradients["other.weight"] is not None
    torch.testing.assert_close(ours, gradients["one.weight"] + gradients["other.weight"])


def test_small_tensors_and_running_statistics_stay() -> None:
    """A batch norm starts with mean 0 and bias 0, variance 1 and weight 1, twice."""
    norms = nn.Sequential(nn.BatchNorm1d(2000), nn.BatchNorm1d(2000)).eval()
    network = trace(norms, [torch.randn(2, 2000)])
    assert TieWeights(smallest=2001).apply(network).changed == []
    outcome = TieWeights().apply(network)
    assert outcome.changed == ["1.weight", "1.bias"]
    assert {name for name in outcome.network.weights() if "running" in name} == {
        f"{i}.running_{what}" for i in (0, 1) for what in ("mean", "var")
    }


def test_a_fingerprint_tells_shape_kind_and_bits_apart() -> None:
    zero = torch.zeros(2, 3)
    assert fingerprint(zero) == fingerprint(torch.zeros(2, 3))
    others = [zero.T, zero.int(), -zero, zero + 1e-30, nn.Parameter(zero.clone())]
    assert len({fingerprint(t) for t in (zero, *others)}) == 6
    nan = torch.tensor([float("nan")])
    assert fingerprint(nan) == fingerprint(nan.clone())
