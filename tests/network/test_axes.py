"""Pruning is exact: the smaller network computes what the original computes with the removed channels set to zero."""

import itertools
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.methods.quantize.static import QuantizeStatic
from slimline.network.axes import AxisGroups, Group, axis_groups, prune, snapped_width
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task
from tests.network.networks import NETWORKS, Kept, exact_part, network_of, random_halves, samples, zeroed


def widths(kept: Kept) -> dict[str, int]:
    return {name: len(indices) for name, indices in kept.items()}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETWORKS)
def test_pruning_equals_zeroing_the_same_slices(name: str, seed: int) -> None:
    network = network_of(name)
    found = exact_part(axis_groups(network))
    kept = random_halves(found, seed)
    assert kept and all(len(kept[g.name]) < g.width for g in found.groups)
    smaller = prune(network, found, kept).verify()
    assert all(a.numel() < b.numel() for a, b in _shrunk(network, smaller, found))
    for batch in (1, 3):
        x = samples(name, batch, seed=10 + batch)
        expected, got = zeroed(network, found, kept).run({"x": x})[0], smaller.run({"x": x})[0]
        assert got.shape == expected.shape
        assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
        assert not torch.allclose(expected, network.run({"x": x})[0], rtol=1e-3)  # the channels mattered


def _shrunk(network: Network, smaller: Network, found: AxisGroups) -> list[tuple[Tensor, Tensor]]:
    names = {weight for group in found.groups for weight in group.weights}
    return [(smaller.weights()[name], network.weights()[name]) for name in names]


@pytest.mark.parametrize("name", NETWORKS)
def test_one_channel_can_go_alone(name: str) -> None:
    network = network_of(name)
    found = exact_part(axis_groups(network))
    x = samples(name, 3)
    for group in found.groups:
        kept = {group.name: np.delete(np.arange(group.width), group.width // 2)}
        expected, got = zeroed(network, found, kept).run({"x": x})[0], prune(network, found, kept).run({"x": x})[0]
        assert float((got - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_pruning_leaves_the_original_as_it_was(name: str) -> None:
    network = network_of(name)
    before = {n: t.clone() for n, t in network.weights().items()}
    code = network.module.code
    found = axis_groups(network)
    prune(network, found, random_halves(found, 0))
    assert network.module.code == code
    assert all(torch.equal(tensor, before[n]) for n, tensor in network.weights().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_kept_keeps_its_values_and_its_order(name: str) -> None:
    network = network_of(name)
    found = axis_groups(network)
    group = found.groups[0]
    kept = random_halves(found, 4)[group.name]
    smaller = prune(network, found, {group.name: kept})
    for (weight, axis), positions in group.slices.items():
        gone = np.concatenate([positions[c] for c in range(group.width) if c not in kept])
        if len([a for w, a in group.slices if w == weight]) == 1:
            expected = np.delete(network.weights()[weight].detach().numpy(), gone, axis)
            np.testing.assert_array_equal(smaller.weights()[weight].detach().numpy(), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_pruned_network_still_trains(name: str) -> None:
    network = network_of(name)
    found = axis_groups(network)
    smaller = prune(network, found, random_halves(found, 0)).set_training_(True)
    parameters = dict(smaller.module.named_parameters())
    before = {n: p.detach().clone() for n, p in parameters.items()}
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    output = smaller.module(samples(name, 4))[0]
    (output - torch.ones_like(output)).square().mean().backward()
    optimizer.step()
    moved = {n for n, p in parameters.items() if not torch.equal(p, before[n])}
    assert all(torch.isfinite(p).all() for p in parameters.values())
    weights = {n for n, p in parameters.items() if p.ndim > 1}
    assert weights and weights <= moved
    smaller.set_training_(False).verify()


def places(found: AxisGroups, name: str) -> dict[tuple[str, int], list[list[int]]]:
    return {place: [p.tolist() for p in positions] for place, positions in found[name].slices.items()}


def test_the_groups_of_plain_adds_are_those_counted_by_hand() -> None:
    found = axis_groups(network_of("plain adds"))
    assert {g.name: g.width for g in found.groups} == {"stem": 12, "blocks.0.0": 8, "blocks.1.0": 8}
    norm = ("weight", "bias", "running_mean", "running_var")
    expected = {("stem.weight", 0), ("head.weight", 1), *((f"stem_norm.{part}", 0) for part in norm)}
    for i in range(2):
        expected |= {(f"blocks.{i}.0.weight", 1), (f"blocks.{i}.3.weight", 0)}
        expected |= {(f"blocks.{i}.4.{part}", 0) for part in norm}
    assert set(found["stem"].slices) == expected
    assert all(positions == [[c] for c in range(12)] for positions in places(found, "stem").values())
    assert set(found["blocks.1.0"].slices) == {
        ("blocks.1.0.weight", 0), ("blocks.1.3.weight", 1), *((f"blocks.1.1.{part}", 0) for part in norm)
    }  # fmt: skip


def test_zero_padding_shifts_the_channels() -> None:
    """Option A: channel c of the 8 in the stem is channel c + 4 of the 16 that follow; the other 8 are their own."""
    found = axis_groups(network_of("option-A shortcut"))
    assert {g.name: g.width for g in found.groups} == {"stem": 8, "one": 16, "two": 8}
    assert places(found, "stem")["stem.weight", 0] == [[c] for c in range(8)]
    assert (
        places(found, "stem")["two.weight", 0] == places(found, "stem")["head.weight", 1] == [[c + 4] for c in range(8)]
    )
    outer = [0, 1, 2, 3, 12, 13, 14, 15]
    assert places(found, "two")["two.weight", 0] == places(found, "two")["head.weight", 1] == [[c] for c in outer]


def test_flattening_and_depth_multipliers_give_a_channel_several_positions() -> None:
    flat = places(axis_groups(network_of("flatten")), "features.0")
    assert flat["hidden.weight", 1] == [list(range(16 * c, 16 * c + 16)) for c in range(6)]
    depth = places(axis_groups(network_of("depthwise, multiplier 2")), "expand")
    assert depth["depth.weight", 0] == depth["project.weight", 1] == [[2 * c, 2 * c + 1] for c in range(10)]


def test_joined_channels_stay_apart() -> None:
    found = axis_groups(network_of("dense block"))
    assert {g.name: g.width for g in found.groups} == {"stem": 6, "layers.0": 4, "layers.1": 4, "layers.2": 4}
    assert places(found, "layers.1")["head.weight", 1] == [[10 + c] for c in range(4)]
    assert ("layers.1.weight", 1) in found["layers.0"].slices
    assert ("layers.1.weight", 1) not in found["layers.1"].slices


def test_a_weight_read_twice_shrinks_on_both_axes_together() -> None:
    found = axis_groups(network_of("shared weight"))
    assert places(found, "stem")["shared.weight", 0] == places(found, "stem")["shared.weight", 1]
    smaller = prune(network_of("shared weight"), found, {"stem": np.array([0, 3, 4])})
    assert smaller.weights()["shared.weight"].shape == (3, 3, 3, 3)


class Coupled(nn.Module):
    """1 x 1 convolutions with a residual sum and a concatenation; nothing can be silent by accident."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 4, 1)
        self.d, self.head = nn.Conv2d(4, 3, 1), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.a(x))
        x = F.leaky_relu(x + self.c(F.leaky_relu(self.b(x))))
        x = torch.cat([x, F.leaky_relu(self.d(x))], 1)
        result: Tensor = self.head(x.mean((2, 3)))
        return result


Slot = tuple[str, int]


def silent_inputs(module: Coupled, x: Tensor, outputs: tuple[Slot, ...]) -> frozenset[Slot]:
    """Input channels of layers that make no difference any more once the given output channels are zero, by trying."""
    weights = {n: t.detach().clone() for n, t in module.named_parameters()}
    for layer, channel in outputs:
        weights[f"{layer}.weight"][channel] = 0
        weights[f"{layer}.bias"][channel] = 0
    expected = torch.func.functional_call(module, weights, (x,))
    found = set()
    for layer in ("b", "c", "d", "head"):
        weight = weights[f"{layer}.weight"]
        for channel in range(weight.shape[1]):
            changed = weight.clone()
            changed[:, channel] += 1
            output = torch.func.functional_call(module, {**weights, f"{layer}.weight": changed}, (x,))
            if torch.allclose(output, expected, rtol=0, atol=1e-9):
                found.add((layer, channel))
    return frozenset(found)


def test_groups_agree_with_a_brute_force_over_single_channels_and_pairs() -> None:
    """Channels that silence an input only together are one channel; what they silence are its readers."""
    module = Coupled().double().eval()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    outputs = [(layer, c) for layer, width in (("a", 4), ("b", 5), ("c", 4), ("d", 3)) for c in range(width)]
    alone = {s: silent_inputs(module, x, (s,)) for s in outputs}
    partner: dict[Slot, Slot] = {}
    for one, two in itertools.combinations(outputs, 2):
        together = silent_inputs(module, x, (one, two))
        assert alone[one] | alone[two] <= together
        if together != alone[one] | alone[two]:
            partner[one], partner[two] = two, one
    by_trying = set()
    for slot in outputs:
        writers = frozenset({slot, partner.get(slot, slot)})
        by_trying.add((writers, silent_inputs(module, x, tuple(writers))))

    found = axis_groups(trace(module, {"x": x}))
    assert by_trying == {_channel(group, c) for group in found.groups for c in range(group.width)}


def _channel(group: Group, index: int) -> tuple[frozenset[Slot], frozenset[Slot]]:
    """(layer, position) of every writer and of every reader of one channel."""
    slots: list[set[Slot]] = [set(), set()]
    for (weight, axis), positions in group.slices.items():
        if weight.endswith(".weight"):
            slots[axis] |= {(weight.removesuffix(".weight"), p) for p in positions[index].tolist()}
    return frozenset(slots[0]), frozenset(slots[1])


class Between(nn.Module):
    """Two convolutions with something in between."""

    def __init__(self, between: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.first, self.between, self.last = nn.Conv2d(3, 8, 1), between, nn.Conv2d(width, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.between(self.first(x)))
        return result


class Stepped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, ::2]


class WithInput(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.tensor([1.0]).expand(x.shape[0], 1, *x.shape[2:])], 1)


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(1)[0]


FREEZING = {
    "an unknown operator": (Sorted(), 8, r"flows into sort.* which has no axis rule"),
    "softmax over channels": (nn.Softmax(1), 8, r"is read as a whole by softmax"),
    "every second channel": (Stepped(), 4, r"is read with a step by .*slice"),
    "constants beside it": (WithInput(), 9, r"is joined with an axis that cannot be pruned in .*cat"),
    "circular padding": (nn.CircularPad2d(1), 8, ""),
}


@pytest.mark.parametrize("case", FREEZING)
def test_what_cannot_be_pruned_says_why(case: str) -> None:
    between, width, reason = FREEZING[case]
    network = trace(Between(between, width).eval(), {"x": samples("", 2)})
    found = axis_groups(network)
    assert found.frozen["first.weight", 1] == "reads the network's input"
    assert found.frozen["last.weight", 0] == found.frozen["last.bias", 0] == "is an output of the network"
    if reason:
        assert not [g for g in found.groups if "first.weight" in g.weights]
        for place in (("first.weight", 0), ("first.bias", 0)):
            assert re.search(reason, found.frozen[place])
    assert all(found.frozen.values())
    if found.groups:
        prune(network, found, random_halves(found, 0))


def test_a_computed_weight_freezes_what_meets_it() -> None:
    class Ordered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight.sort(0)[0])

    found = axis_groups(trace(Between(Ordered()).eval(), {"x": samples("", 2)}))
    assert "meets a computed weight in" in found.frozen["first.weight", 0]
    assert not found.groups


def test_a_quantised_network_cannot_be_pruned_and_says_why() -> None:
    network = network_of("slices and upsampling")
    task = Task(validate={"x": samples("slices and upsampling", 16).numpy()})
    found = axis_groups(QuantizeStatic().apply(network, task).network)
    assert not found.groups
    assert any("meets a computed weight" in r or "has no axis rule" in r for r in found.frozen.values())


def test_what_meets_the_input_or_an_output_stays() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 6, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.first(x) + x
            return y.mean((1, 2, 3)), self.second(y)

    found = axis_groups(trace(Around(), {"x": samples("", 2)}))
    assert not found.groups
    assert "meets an axis that cannot be pruned in add" in found.frozen["first.weight", 0]
    assert found.frozen["second.weight", 0] == "is an output of the network"


def test_an_axis_of_length_one_that_is_repeated_is_no_group() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
            self.scale, self.gain = nn.Parameter(torch.randn(1, 8, 1, 1)), nn.Parameter(torch.randn(1))

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(F.relu(self.first(x) * self.scale) * self.gain)
            return result

    found = axis_groups(trace(Scaled(), {"x": samples("", 2)}))
    assert [(g.name, g.width) for g in found.groups] == [("first", 8)]
    assert set(found["first"].weights) == {"first.weight", "first.bias", "scale", "last.weight"}


def test_the_unread_tail_of_a_table_is_no_group() -> None:
    """Encoders hold positions up to the longest text and slice them to the length at hand."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)
            self.positions = nn.Parameter(torch.randn(1, 40))

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(F.relu(self.first(x + self.positions[:, :6])))
            return result

    found = axis_groups(trace(Positions(), {"x": torch.randn(2, 6)}))
    assert [(g.name, g.width) for g in found.groups] == [("first", 8)]


def test_pruning_a_network_in_training_leaves_its_statistics_alone() -> None:
    network = network_of("plain adds").set_training_(True)
    before = network.weights()["stem_norm.running_mean"].clone()
    found = axis_groups(network)
    prune(network, found, random_halves(found, 0))
    assert torch.equal(network.weights()["stem_norm.running_mean"], before)


def test_a_group_cannot_vanish() -> None:
    network = network_of("plain adds")
    found = axis_groups(network)
    with pytest.raises(SlimlineError, match=r"Group blocks\.0\.0 would vanish: keep at least one of its 8 channels"):
        prune(network, found, {"blocks.0.0": np.zeros(0, np.int64)})


def test_an_unknown_group_is_refused_with_near_names() -> None:
    network = network_of("plain adds")
    found = axis_groups(network)
    with pytest.raises(SlimlineError, match=r"'blocks\.0\.O'; near names: blocks\.0\.0"):
        prune(network, found, {"blocks.0.O": np.array([0])})
    with pytest.raises(SlimlineError, match=r"'zzz'; near names: stem, blocks\.0\.0, blocks\.1\.0"):
        found["zzz"]


@pytest.mark.parametrize(
    ("width", "keep", "multiple", "kept"),
    [
        (64, 0.5, 8, 32),
        (64, 0.55, 8, 32),
        (64, 0.57, 8, 40),
        (64, 0.001, 8, 8),
        (64, 0.001, 1, 1),
        (64, 1.0, 8, 64),
        (20, 1.0, 8, 20),
        (20, 0.99, 8, 16),
        (20, 0.5, 1, 10),
        (6, 0.5, 8, 6),
        (8, 0.25, 8, 8),
    ],
)
def test_widths_snap_to_multiples(width: int, keep: float, multiple: int, kept: int) -> None:
    assert snapped_width(width, keep, multiple) == kept


def test_heads_are_told_with_their_width() -> None:
    found = axis_groups(network_of("attention"))
    told = {g.described for g in found.groups if ("query.weight", 0) in g.slices}
    assert told == {"4 x 8", "8 x 4"} and found["embed"].described == "32"
