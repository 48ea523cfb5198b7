"""A hidden unit owns its rows in all gates and its columns in all layers; a smaller module says what is right."""

import numpy as np
import pytest
import torch
from torch import nn

from slimline.network.axes import axis_groups, prune
from slimline.network.trace import trace
from tests.network.networks import Recurrent, samples

GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


@pytest.mark.parametrize("both_ways", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", GATES)
def test_a_pruned_layer_is_a_smaller_layer(kind: type[nn.RNNBase], layers: int, both_ways: bool) -> None:
    torch.manual_seed(0)
    module = Recurrent(kind, layers, both_ways).eval()
    found = axis_groups(trace(module, {"x": samples("lstm", 2)}))
    group = next(g for g in found.groups if any("weight_hh" in w for w in g.weights))
    assert group.width == 12 and not group.inexact
    kept = np.array([0, 1, 5, 7, 11])
    small = kind(10, len(kept), layers, batch_first=True, bidirectional=both_ways)
    rows = np.concatenate([kept + 12 * gate for gate in range(GATES[kind])])  # type: ignore[index]
    inputs = np.concatenate([kept + 12 * d for d in range(2 if both_ways else 1)])
    state = {}
    for name, value in module.cells.state_dict().items():
        value = value[rows]
        if "weight_hh" in name:
            value = value[:, kept]
        elif "weight_ih_l1" in name:
            value = value[:, inputs]
        state[name] = value
    small.load_state_dict(state)
    x = samples("lstm", 3)
    hidden = small.eval()(module.embed(x))[0].mean(1)
    expected = nn.functional.linear(hidden, module.head.weight[:, inputs], module.head.bias)
    got = prune(found.propagation.network, found, {group.name: kept}).verify().run({"x": x})[0]
    torch.testing.assert_close(got, expected.detach())


def test_a_projected_state_has_no_rule() -> None:
    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.cells = nn.Linear(6, 10), nn.LSTM(10, 12, proj_size=4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.head(self.cells(self.embed(x))[0].mean(1))
            return result

    found = axis_groups(trace(Projected().eval(), {"x": samples("lstm", 2)}))
    assert not found.groups and "which has no axis rule" in found.frozen["embed.weight", 0]
