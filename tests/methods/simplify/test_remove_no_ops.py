"""What changes nothing goes, for any batch; what changes something, if only for a batch of another size, stays."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnxruntime import InferenceSession
from torch import Tensor, nn

from slimline.methods.simplify.remove_no_ops import RemoveNoOps
from slimline.runtimes.onnx_file import write_onnx
from tests.methods.simplify.equality import Does, applied, count, network_of

aten = torch.ops.aten
Case = Callable[..., Tensor]
GO: list[Case] = [
    lambda x, c: x.clone(),
    lambda x, c: x.detach(),
    lambda x, c: x.to(torch.float64).type_as(c.zeros()),
    lambda x, c: F.dropout(x, 0.3),
    lambda x, c: F.dropout2d(F.alpha_dropout(x, 0.3), 0.3, training=False),
    lambda x, c: x[:],
    lambda x, c: x[:, :, 0:3],
    lambda x, c: x[:, :100],
    lambda x, c: x[:, -7:],
    lambda x, c: x[: x.shape[0]],
    lambda x, c: F.pad(x, (0, 0, 0, 0)),
    lambda x, c: F.pad(x, (0, 0), value=3.0),
    lambda x, c: F.pad(x, (0, 0, 0, 0), mode="reflect"),
    lambda x, c: F.pad(x, (0, 0, 0, 0), mode="replicate"),
    lambda x, c: x + 0,
    lambda x, c: x - 0.0,
    lambda x, c: x * 1,
    lambda x, c: 1.0 * x / 1,
    lambda x, c: torch.add(x, 0, alpha=3),
    lambda x, c: x + c.zeros(),
    lambda x, c: c.ones() * x / c.ones(),
    lambda x, c: x.expand(x.shape[0], 2, 3, 4),
    lambda x, c: x.view(-1, 2, 3, 4).reshape(x.shape[0], 2, 3, 4),
    lambda x, c: x.flatten(3).squeeze(3).repeat(1, 1, 1, 1),
    lambda x, c: x.permute(0, 1, -2, -1).transpose(2, -2),
    lambda x, c: F.max_pool2d(x, 1),
    lambda x, c: F.avg_pool2d(x, (1, 1), stride=1),
    lambda x, c: F.adaptive_avg_pool2d(x, (3, 4)),
    lambda x, c: F.interpolate(x, (3, 4)),
    lambda x, c: F.interpolate(x, scale_factor=1.0, mode="bilinear"),
    lambda x, c: torch.cat([x]),
    lambda x, c: x.chunk(1, 1)[0],
    lambda x, c: x.split([2], 1)[0].split(3, 2)[0],
]
"""All of which are the identity for images (N, 2, 3, 4)."""


class Kept(nn.Module):
    """Zeros and ones that a network stores."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing, self.one = nn.Buffer(torch.zeros(2, 1, 4)), nn.Parameter(torch.ones(3, 4))

    def zeros(self) -> Tensor:
        return self.nothing

    def ones(self) -> Tensor:
        return self.one


@pytest.mark.parametrize("does", GO)
def test_it_goes(does: Case) -> None:
    network = network_of(Does(lambda x, c: does(x, c).tanh(), Kept()), 2, 3, 4)
    outcome = applied(RemoveNoOps(), network)
    assert count(network) > count(outcome.network) == count(outcome.network, "tanh") == 1
    assert outcome.changed and not outcome.skipped and not outcome.network.weights()


STAY: list[Case] = [
    lambda x, c: aten.slice(x, 1, 1),
    lambda x, c: aten.slice(x, 1, 0, -1),
    lambda x, c: aten.slice(x, 2, 0, 3, 2),
    lambda x, c: F.pad(x, (1, 0)),
    lambda x, c: F.pad(x, (1, -1)),
    lambda x, c: x + 1e-9,
    lambda x, c: x - 1,
    lambda x, c: 1 - x,
    lambda x, c: 0 - x,
    lambda x, c: x * -1,
    lambda x, c: c.ones() / x,
    lambda x, c: torch.div(x, 1, rounding_mode="floor"),
    lambda x, c: x + c.ones(),
    lambda x, c: x * c.zeros(),
    lambda x, c: c.zeros() - x,
    lambda x, c: aten.slice(x, 1, 0, 1) + c.zeros(),
    lambda x, c: x.float(),
    lambda x, c: x.transpose(1, 1 + 1),
    lambda x, c: aten.slice(x, 3, 0, 3).transpose(2, 3),
    lambda x, c: x.flip(2),
    lambda x, c: aten.slice(x, 1, 0, 1).expand(x.shape[0], 2, 3, 4),
    lambda x, c: x.sum(1, keepdim=True),
    lambda x, c: F.max_pool2d(x, 1, 2),
    lambda x, c: F.max_pool2d(x, 3, 1, 1),
    lambda x, c: F.avg_pool2d(x, 3, 1, 1),
    lambda x, c: F.avg_pool2d(x, 1, divisor_override=2),
    lambda x, c: F.interpolate(x, scale_factor=1.3, mode="bilinear", recompute_scale_factor=False),
    lambda x, c: F.interpolate(x, scale_factor=1.2, mode="nearest"),
    lambda x, c: torch.cat([x, x], 1),
    lambda x, c: x.chunk(2, 1)[0],
    lambda x, c: x.split([1, 1], 1)[1],
    # the same as x for few samples, and for the example's two, only
    lambda x, c: x[:2000],
    lambda x, c: x[-2000:],
    lambda x, c: x.split(2000)[0],
    lambda x, c: aten.slice(x.transpose(0, 1), 1, 0, 2000).transpose(0, 1),
]


@pytest.mark.parametrize("does", STAY)
def test_it_stays(does: Case) -> None:
    network = network_of(Does(lambda x, c: does(x, c).tanh(), Kept()), 2, 3, 4)
    outcome = applied(RemoveNoOps(), network)
    assert not outcome.changed and outcome.network.module.code == network.module.code


def test_a_cut_that_no_small_batch_feels_still_cuts_a_large_one() -> None:
    network = network_of(Does(lambda x: x[:2000].clone() + 1), 1)
    long = torch.zeros(2001, 1, dtype=torch.float64)
    assert len(applied(RemoveNoOps(), network).network.run({"x": long})[0]) == 2000


def test_reductions_of_an_axis_of_one_go() -> None:
    network = network_of(Does(lambda x: x.mean(1, keepdim=True).sum(1, True).amax(1, True).amin(1, True) * 2), 1, 4)
    assert count(applied(RemoveNoOps(), network).network) == 1
    network = network_of(Does(lambda x: x.sum(0, keepdim=True) + x), 4)  # one sample is its own sum, and two are not
    assert count(applied(RemoveNoOps(), network).network) == 2


CLAMPS: list[tuple[Callable[[Tensor], Tensor], int]] = [
    (lambda x: x.relu().relu().relu(), 1),
    (lambda x: F.relu6(x.relu()), 1),
    (lambda x: F.relu6(x).relu(), 1),
    (lambda x: F.relu6(x).clamp(-1, 7), 1),
    (lambda x: F.hardtanh(x, -1, 1).clamp(-2, 0.5), 2),
    (lambda x: x.clamp(min=0).clamp(max=6), 2),
    (lambda x: x.sigmoid().relu(), 1),
    (lambda x: x.sigmoid().clamp(0, 1), 1),
    (lambda x: x.tanh().relu(), 2),
    (lambda x: x.tanh().abs(), 2),
    (lambda x: x.exp().abs(), 1),
    (lambda x: F.max_pool1d(x.relu(), 3, 1, 1).relu(), 2),
    (lambda x: F.avg_pool1d(x - 1, 3, 1, 1).relu(), 3),
    (lambda x: torch.cat([x.relu(), x.sigmoid()], 1).relu(), 3),
    (lambda x: torch.cat([x.relu(), x.tanh()], 1).relu(), 4),
    # one clamp is not the other
    (lambda x: x.relu().clamp(-1, 6), 2),
    (lambda x: x.clamp(-1, 10).relu(), 2),
    (lambda x: F.relu6(x).clamp(1, 5), 1),
    (lambda x: F.relu6(x).clamp(1, 7), 2),
    (lambda x: x.clamp(0, 1).clamp(2, 3), 2),
    (lambda x: (y := x.relu()) + F.relu6(y), 3),
    (lambda x: x.clamp(0.5).relu(), 1),
]


@pytest.mark.parametrize(("does", "left"), CLAMPS)
def test_clamps_that_another_one_makes_needless(does: Callable[[Tensor], Tensor], left: int) -> None:
    network = network_of(Does(does), 2, 5)
    outcome = applied(RemoveNoOps(), network)
    assert count(outcome.network) == left and len(outcome.changed) == count(network) - left
    x = 10 * torch.randn(50, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(outcome.network.run({"x": x}), network.run({"x": x}))


LOGIC: list[tuple[Callable[..., Tensor], int]] = [
    (lambda x, t, f: (x > 0) & t(), 1),
    (lambda x, t, f: torch.logical_and(t(), x > 0), 1),
    (lambda x, t, f: (x > 0) | f(), 1),
    (lambda x, t, f: (x > 0) & f(), 2),
    (lambda x, t, f: (x > 0) | t(), 2),
    (lambda x, t, f: torch.logical_and(x, t()), 1),
]


@pytest.mark.parametrize(("does", "left"), LOGIC)
def test_masks_that_mask_nothing(does: Callable[..., Tensor], left: int) -> None:
    masks = [Always(torch.ones(4, dtype=torch.bool)), Always(torch.zeros(4, dtype=torch.bool))]
    network = network_of(Does(does, *masks), 4)
    assert count(RemoveNoOps().apply(network).network.verify()) == left


class Always(nn.Module):
    """A mask."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = nn.Buffer(mask)

    def forward(self) -> Tensor:
        return self.mask


def test_dropout_in_training_stays_and_can_be_kept() -> None:
    network = network_of(Does(lambda x: F.dropout(x, 0.5).clone() + 1), 4)
    kept = RemoveNoOps(dropout="keep").apply(network)
    assert count(kept.network, "dropout") == 1 and kept.skipped == {"dropout": "is kept for training"}
    assert kept.changed == ["clone"]
    network.set_training_(True)
    left = RemoveNoOps().apply(network)
    assert count(left.network, "dropout") == 1 and left.skipped == {"dropout": "is in training mode"}


def test_a_view_still_works_without_the_copy_that_put_memory_in_order() -> None:
    network = network_of(Does(lambda x: x.transpose(1, 2).contiguous().relu().view(x.shape[0], 12)), 3, 4)
    outcome = applied(RemoveNoOps(), network)
    assert outcome.changed == ["contiguous"] and count(outcome.network, "view", "contiguous") == 0


def test_a_network_that_reads_memory_by_strides_keeps_its_copies() -> None:
    network = network_of(Does(lambda x: x.transpose(1, 2).contiguous() + 1), 3, 4)
    graph = network.module.graph
    (add,) = graph.find_nodes(op="call_function", target=aten.add.Tensor)
    with graph.inserting_after(add):
        strided = graph.call_function(aten.as_strided.default, (add.args[0], [2, 12], [12, 1]))
    assert strided is not None
    outcome = RemoveNoOps().apply(network)
    assert not outcome.changed and outcome.skipped == {"contiguous": "the network reads memory by its strides"}


def test_an_output_that_is_the_input_is_still_computed(tmp_path: Path) -> None:
    """Two outputs that were one input would become an ONNX file with an input more."""
    network = network_of(Does(lambda x: (x.clone(), x + 0, (x * 2).relu() + 0, (x * 2).relu())), 4)
    outcome = applied(RemoveNoOps(), network)
    assert outcome.skipped == dict.fromkeys(("clone", "add"), "an output cannot be an input itself")
    assert len(outcome.changed) == 1
    write_onnx(outcome.network, tmp_path / "n.onnx")
    x = np.random.default_rng(0).normal(size=(3, 4))
    results = InferenceSession(tmp_path / "n.onnx").run(None, {"x": x})
    for result, expected in zip(results, (x, x, *[np.maximum(2 * x, 0)] * 2), strict=True):
        np.testing.assert_allclose(result, expected)
