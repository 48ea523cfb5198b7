"""A rule belongs to operators; all others freeze what they read."""

import operator

import torch
from torch import Tensor, nn

from slimline.network.axes import axis_groups
from slimline.network.rules import RULES, elementwise, rule_for, unknown
from slimline.network.trace import trace
from tests.network.rules.probes import check_that_all_stay


def test_rules_belong_to_operators_and_all_others_are_unknown() -> None:
    assert all(isinstance(target, torch._ops.OpOverload) for target in RULES if target is not operator.getitem)
    assert rule_for(torch.ops.aten.linear.default) not in (unknown, elementwise.broadcast)
    assert rule_for(torch.ops.aten.erfinv.default) is elementwise.broadcast  # works position by position
    assert rule_for(torch.ops.aten.sort.default) is unknown


def test_an_unknown_operator_freezes_all_it_reads_and_what_comes_out_carries_nothing() -> None:
    check_that_all_stay(lambda x: torch.linalg.pinv(x))
    check_that_all_stay(lambda x: torch.fft.fft(x.flatten(1)).real)


def test_the_reason_names_the_operator() -> None:
    class Sorted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.two(torch.sort(self.one(x), -1)[0])
            return result

    found = axis_groups(trace(Sorted(), {"x": torch.randn(2, 4)}))
    assert not found.groups
    assert found.frozen["one.weight", 0] == "flows into sort.default (sort), which has no axis rule"
