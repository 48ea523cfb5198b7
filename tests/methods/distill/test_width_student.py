"""Every group gets its width, what is drawn has the spread of the paper, and the student learns from nothing."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.methods.distill.width_student import WidthStudent, fresh_weights_, he_normal
from slimline.network.cost import layers, macs
from slimline.network.network import Network
from slimline.network.trace import trace
from tests.methods.distill.students import demo, marks_of_student, relative_error_in_onnxruntime
from tests.network.networks import NETWORKS, network_of
from tests.toys import toy


def test_every_group_is_narrowed_and_every_layer_drawn() -> None:
    outcome = WidthStudent(keep=0.5).apply(toy())
    shapes = {layer.name: layer.weight_shape for layer in layers(outcome.network)}
    assert shapes == {"stem": (8, 1, 3, 3), "inner": (16, 8, 3, 3), "outer": (8, 16, 1, 1), "head": (4, 8)}
    assert set(outcome.changed) == {"stem", "stem_norm", "inner", "inner_norm", "outer", "head"}
    assert outcome.skipped["head.weight axis 0"] == "is an output of the network"
    assert outcome.skipped["stem.weight axis 1"] == "reads the network's input"


def test_macs_of_the_demo_fall_to_a_quarter_but_for_the_ends() -> None:
    """Both channels of an inner layer are halved; the first layer reads one channel, the last writes ten."""
    before, after = ({layer.name: layer.macs for layer in layers(n)} for n in (demo(), student_of_demo()))
    for name, count in before.items():
        assert after[name] == count // (2 if name in ("stem", "head") else 4), name


def student_of_demo() -> Network:
    return WidthStudent(keep=0.5).apply(demo()).network


@pytest.mark.parametrize("name", NETWORKS)
def test_every_way_to_couple_channels_is_narrowed(name: str) -> None:
    network = network_of(name)
    student = WidthStudent(keep=0.5, multiple=1).apply(network).network.verify()
    assert macs(student) < 0.75 * macs(network)
    assert all(torch.isfinite(output).all() for output in student.run(student.examples))


class Parts(nn.Module):
    """A layer of every kind whose start is known, and a scale whose start is not."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(600, 48)
        self.layer_norm, self.linear = nn.LayerNorm(48), nn.Linear(48, 400)
        self.conv, self.norm = nn.Conv2d(400, 200, 3, padding=1), nn.BatchNorm2d(200)
        self.depth, self.groups = nn.Conv2d(200, 200, 5, padding=2, groups=200), nn.GroupNorm(4, 200)
        self.up = nn.ConvTranspose2d(200, 300, 4, stride=2, padding=1)
        self.factor, self.scale = nn.Parameter(torch.randn(300, 250)), nn.Parameter(torch.full((250,), 0.3))
        self.register_buffer("bank", torch.randn(250, 250, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.linear(self.layer_norm(self.table(x)))).transpose(1, 2).reshape(x.shape[0], 400, 4, 4)
        y = F.relu(self.groups(self.depth(F.relu(self.norm(self.conv(y))))))
        y = torch.matmul(F.relu(self.up(y)).mean((2, 3)), self.factor) * self.scale
        assert isinstance(self.bank, Tensor)
        return F.conv2d(y[:, :, None, None], self.bank).flatten(1)


def parts() -> Network:
    torch.manual_seed(0)
    module = Parts()
    for parameter in module.parameters():
        parameter.data += 3  # so that nothing has the start that torch gives it
    return trace(module, {"x": torch.randint(0, 600, (2, 16))})


def test_what_is_drawn_has_the_spread_of_equation_10() -> None:
    """n is counted here by hand: of a transposed convolution of stride 2, 4 of 16 positions meet an output."""
    network = parts()
    spread = float(network.weights()["table.weight"].detach().std())
    fresh_weights_(network, seed=0)
    weights = network.weights()
    terms = {
        "linear": 48, "conv": 400 * 9, "depth": 25, "up": 200 * 4,
    }  # fmt: skip
    for name, n in terms.items():
        weight = weights[f"{name}.weight"].detach()
        assert float(weight.std()) == pytest.approx((2 / n) ** 0.5, rel=0.05), name
        assert abs(float(weight.mean())) < 0.1 * float(weight.std())
        assert not weights[f"{name}.bias"].any()
    assert float(weights["factor"].detach().std()) == pytest.approx((2 / 300) ** 0.5, rel=0.05)
    assert float(weights["table.weight"].detach().std()) == pytest.approx(spread, rel=0.05)
    for norm in ("norm", "layer_norm", "groups"):
        assert (weights[f"{norm}.weight"] == 1).all() and not weights[f"{norm}.bias"].any()
    assert not weights["norm.running_mean"].any() and (weights["norm.running_var"] == 1).all()


def test_a_signal_keeps_its_size_through_many_layers() -> None:
    """What equation 10 is for: behind thirty layers with relus the mean square is still of the size it began with."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 256, generator=generator)
    for _ in range(30):
        x = F.linear(F.relu(x), he_normal((256, 256), 256, generator))
    assert 0.3 < float(x.square().mean()) < 3


def test_what_is_not_known_or_constant_keeps_its_values() -> None:
    network = parts()
    before = {name: weight.detach().clone() for name, weight in network.weights().items()}
    outcome = WidthStudent(keep=1.0).apply(network)
    after = outcome.network.weights()
    assert outcome.skipped["scale"].startswith("keeps the original's values, as it belongs to no layer or norm")
    same = {name for name, weight in before.items() if torch.equal(weight, after[name])}
    assert same == {"scale", "bank", "norm.running_mean", "norm.running_var"}  # the statistics were those of a new norm
    assert "scale" not in outcome.changed and "bank" not in outcome.changed


def test_a_group_that_cannot_get_narrower_is_named() -> None:
    skipped = WidthStudent(keep=0.5, multiple=32).apply(toy()).skipped
    assert skipped["stem"] == "keeps its 16 channels: widths are multiples of 32"


def test_it_does_not_depend_on_what_was_learned() -> None:
    """Two networks of one shape with other weights give one student; the seed alone decides."""
    other = toy()
    for weight in other.module.parameters():
        weight.data.mul_(-0.7)
    one, two = (WidthStudent().apply(n).network.weights() for n in (toy(), other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    again = WidthStudent(seed=1).apply(toy()).network.weights()
    assert not torch.equal(one["inner.weight"], again["inner.weight"])


def test_the_exported_file_answers_as_the_network_does(tmp_path: Path) -> None:
    assert relative_error_in_onnxruntime(student_of_demo(), tmp_path) <= 1e-4


def test_distillation_trains_it_from_nothing() -> None:
    before, after = marks_of_student(WidthStudent())
    assert before.accuracy < 0.6 and after.accuracy >= 0.95 and after.error < 0.5 * before.error
