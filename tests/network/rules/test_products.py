"""Products: what is summed over is one axis, what stands before is shared, scales stay those of the original."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.network.axes import axis_groups, prune
from slimline.network.trace import trace
from tests.network.networks import Attention, network_of, samples
from tests.network.rules.probes import check_that_all_stay, walked


def test_heads_and_places_of_heads_are_groups() -> None:
    """4 heads of 8: a head owns 8 consecutive rows of q, k, v; a place of q and k owns one row of every head."""
    for name in ("attention", "attention, explicit"):
        found = axis_groups(network_of(name))
        heads = next(g for g in found.groups if ("query.weight", 0) in g.slices and ("value.weight", 0) in g.slices)
        assert heads.width == 4 and [p.tolist() for p in heads.slices["query.weight", 0]] == [
            list(range(8 * h, 8 * h + 8)) for h in range(4)
        ]
        assert set(heads.weights) == {f"{x}.{p}" for x in ("query", "key", "value") for p in ("weight", "bias")} | {
            "out.weight"
        }
        places = next(g for g in found.groups if ("query.weight", 0) in g.slices and g is not heads)
        assert [p.tolist() for p in places.slices["key.weight", 0]] == [[d, d + 8, d + 16, d + 24] for d in range(8)]
        values = next(g for g in found.groups if ("value.weight", 0) in g.slices and g is not heads)
        assert ("out.weight", 1) in values.slices and ("query.weight", 0) not in values.slices


def test_grouped_queries_lose_keys_with_all_their_queries_or_a_query_of_each_key() -> None:
    found = axis_groups(network_of("attention, grouped queries"))
    keys = next(g for g in found.groups if ("key.weight", 0) in g.slices and ("value.weight", 0) in g.slices)
    assert keys.width == 2 and [len(p) for p in keys.slices["query.weight", 0]] == [16, 16]
    queries = next(g for g in found.groups if {w for w, _ in g.slices} == {"query.weight", "query.bias", "out.weight"})
    assert [p.tolist() for p in queries.slices["query.weight", 0]] == [
        [*range(0, 8), *range(16, 24)], [*range(8, 16), *range(24, 32)]
    ]  # fmt: skip


@pytest.mark.parametrize("fused", [True, False])
def test_narrower_heads_keep_the_scale_of_the_original(fused: bool) -> None:
    """Against attention computed by hand from the rows that are left."""
    torch.manual_seed(0)
    module = Attention(fused=fused).eval()
    found = axis_groups(trace(module, {"x": samples("attention", 2)}))
    group = next(g for g in found.groups if ("query.weight", 0) in g.slices and ("value.weight", 0) not in g.slices)
    kept = np.array([0, 3, 4])
    rows = torch.tensor([8 * h + int(d) for h in range(4) for d in kept])
    x = samples("attention", 3)
    got = prune(found.propagation.network, found, {group.name: kept}).run({"x": x})[0]

    y = module.embed(x)
    z = module.norms[0](y)
    q, k = (nn.functional.linear(z, layer.weight[rows], layer.bias[rows]) for layer in (module.query, module.key))
    q, k = (t.unflatten(-1, (4, 3)).transpose(1, 2) for t in (q, k))
    v = module.value(z).unflatten(-1, (4, 8)).transpose(1, 2)
    mixed = (q @ k.transpose(-1, -2) / math.sqrt(8)).softmax(-1) @ v
    y = y + module.out(mixed.transpose(1, 2).flatten(2))
    y = y + module.down(nn.functional.gelu(module.up(module.norms[1](y))))
    torch.testing.assert_close(got, module.head(y.mean(1)).detach())


def test_the_diagonal_of_an_einsum_has_no_rule() -> None:
    check_that_all_stay(lambda x: torch.einsum("bcij,bcij->bc", x, x) + torch.einsum("bcii->bc", x))


def test_what_is_attended_over_stays() -> None:
    """Channels as the places of an attention: (batch, channels, values)."""

    def attend(x: Tensor) -> Tensor:
        y = x.flatten(2)
        return torch.nn.functional.scaled_dot_product_attention(y, y, y)

    assert all("attended over" in str(r) for r in walked(attend).kept())


def test_a_stored_matrix_shrinks_with_what_it_multiplies() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.mix = nn.Linear(3, 6), nn.Parameter(torch.randn(6, 4))
            self.shift, self.head = nn.Parameter(torch.randn(4)), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(torch.addmm(self.shift, self.one(x), self.mix))
            return result

    found = axis_groups(trace(Mixed(), {"x": torch.randn(2, 3)}))
    assert {g.width: set(g.slices) for g in found.groups} == {
        6: {("one.weight", 0), ("one.bias", 0), ("mix", 0)},
        4: {("mix", 1), ("shift", 0), ("head.weight", 1)},
    }


def test_letters_of_an_einsum_are_axes() -> None:
    found = axis_groups(network_of("einsum"))
    by_weights = {frozenset(g.weights) for g in found.groups}
    assert by_weights == {
        frozenset({"one.weight", "one.bias", "two.weight", "two.bias", "mix"}), frozenset({"mix", "head.weight"})
    }  # fmt: skip
