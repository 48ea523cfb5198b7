from typing import Any

import numpy as np
import pytest
import torch
from torch.export import Dim, export

from slimline.errors import SlimlineError
from slimline.sources.onnx.limits import (
    LARGEST_COUNT,
    count,
    hint,
    number_of_bytes,
    one_line,
    quoted,
    refuse_large,
    shown,
    worth_knowing,
)
from slimline.sources.onnx.values import Known, known


def test_counts_of_plausible_shapes() -> None:
    assert [count(dims, "w") for dims in ([], [3, 4], [0, 5], [2**48])] == [1, 12, 0, 2**48]


@pytest.mark.parametrize("dims", [[-1], [3, -4], [2**48 + 1], [2**40, 2**40], [0, 2**62], [1] * 65])
def test_shapes_that_nothing_has_are_refused(dims: list[int]) -> None:
    assert LARGEST_COUNT == 2**48
    with pytest.raises(SlimlineError, match="the weight"):
        count(dims, "the weight")


def test_names_in_sentences() -> None:
    assert quoted("a'b\n") == '"a\'b\\n"' and len(quoted("x" * 1000)) < 100
    assert [shown(text) for text in ("Conv", "com.microsoft", "a b", "\x1b[2J", "")] == [
        "Conv", "com.microsoft", "'a b'", r"'\x1b[2J'", "''",
    ]  # fmt: skip
    assert one_line("\n first\x1b[2J\nsecond") == "first?[2J" and one_line("") == "" and len(one_line("x" * 999)) == 300


def test_large_values_are_refused_before_they_take_memory() -> None:
    with torch.device("meta"):
        fits, large = torch.empty(2**29), torch.empty(2**29 + 1)
    refuse_large("the node", [fits, None])
    with pytest.raises(SlimlineError, match="the node makes a value of the shape \\[536870913\\], which is 2.0 GiB"):
        refuse_large("the node", [fits, large])


class Sizes(torch.nn.Module):
    """Looks at its batch as the limits do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = (hint(x.shape[0]), number_of_bytes(x))
        refuse_large("the node", [x, Known(np.array([x.shape[0] * 5, 3], object), torch.int64)])
        with pytest.raises(SlimlineError, match="size that is not plausible"):
            refuse_large("the node", [Known(np.array([x.shape[0] * 2**62], object), torch.int64)])
        self.powers = [
            worth_knowing("Pow", [known([x.shape[0], 1]), known(exponent)]) for exponent in (2, 2**40, -1, [2, 3])
        ]
        self.made = worth_knowing("ConstantOfShape", [known([x.shape[0], 3])])
        return x + 1


def test_looking_at_a_free_batch_leaves_it_free() -> None:
    module = Sizes()
    exported = export(module, (torch.zeros(5, 3),), dynamic_shapes=({0: Dim.DYNAMIC},), strict=False)
    assert module.seen == (5, 60)
    assert module.powers == [True, False, False, True] and module.made
    assert exported.module(check_guards=False)(torch.zeros(7, 3)).shape == (7, 3)


@pytest.mark.parametrize(
    ("kind", "small", "large"),
    [
        ("ConstantOfShape", [[3, 4]], [[2**40, 4]]),
        ("ConstantOfShape", [[-1]], [[-(2**40)]]),
        ("Expand", [[1, 2], [3, 2]], [[1], [2**40]]),
        ("Tile", [[1, 2], [3]], [[1, 2], [2**62]]),
        ("Range", [0, 10, 1], [0, 2**40, 1]),
        ("Range", [0.0, 1.0, 0.5], [0.0, 1.0, 1e-12]),
        ("Range", [0, 10, 0], [0, -(2**40), -1]),
        ("Pad", [[1, 2], [1, 1]], [[1, 2], [0, 2**40]]),
        ("OneHot", [[1, 2], 5, [0, 1]], [[1, 2], 2**40, [0, 1]]),
        ("Where", [np.ones((9, 1)), np.ones((1, 9)), 1], [np.ones((2000, 1)), np.ones((1, 2000)), 1]),
        ("Concat", [[1, 2]] * 100, [np.ones(4096)] * 1000),
        ("Pow", [[2, 3], [2, 3]], [np.ones((4096, 1)), np.ones(4096)]),
    ],
)
def test_only_small_results_are_worth_knowing(kind: str, small: list[Any], large: list[Any]) -> None:
    def values(entries: list[Any]) -> list[Known]:
        return [Known(np.array(entry), torch.int64) for entry in entries]

    assert worth_knowing(kind, values(small))
    assert not worth_knowing(kind, values(large))


def test_nothing_is_resized_while_tracing() -> None:
    assert not worth_knowing("Resize", [known([[[[1]]]]), None, known([1, 1, 2, 2])])
    assert worth_knowing("Shape", [])
