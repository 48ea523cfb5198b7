from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from onnx import defs
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import KNOWN_TABLE, SMALL, TABLE, call, on_known, operator, optional
from slimline.sources.onnx.values import Known, Value, known

DOMAIN = "test.table"
X = torch.arange(6.0).reshape(2, 3)


@pytest.fixture(autouse=True)
def clean_table() -> Iterator[None]:
    table, known_table = dict(TABLE), dict(KNOWN_TABLE)
    yield
    TABLE.clear()
    TABLE.update(table)
    KNOWN_TABLE.clear()
    KNOWN_TABLE.update(known_table)


def run(kind: str, *values: Value, domain: str = DOMAIN) -> tuple[Value, ...]:
    node = OnnxNode(kind, "n", tuple(f"x{i}" for i in range(len(values))), ("y",), {"scale": 3}, 23, domain)
    return call(node, values, lambda graph, *inputs: [*inputs])


def received(kind: str, *values: Value, **how: Any) -> tuple[Any, ...]:
    """What an operator's function is given."""
    seen: list[Any] = []

    @operator(kind, domain=DOMAIN, **how)
    def function(node: OnnxNode, *arguments: Any) -> torch.Tensor:
        seen.extend(arguments)
        return X

    run(kind, *values)
    return tuple(seen)


def test_inputs_arrive_as_tensors_arrays_or_numbers() -> None:
    weight = Known(np.ones(3, np.float32), torch.float32)
    half, shape = Known(np.array(0.5, np.float32), torch.float32), known([2, 3])
    plain = received("Plain", X, None, weight)
    assert plain[0] is X and plain[1] is None and torch.equal(plain[2], torch.ones(3))
    assert isinstance(received("Numbers", X, shape, known=(1,))[1], np.ndarray)
    assert received("Scalars", X, half, scalars=True)[1] == 0.5
    assert isinstance(received("NoScalars", X, half)[1], torch.Tensor)


def test_a_number_of_higher_rank_stays_a_tensor() -> None:
    high = Known(np.full((1, 1, 1), 0.5, np.float32), torch.float32)  # it makes the result of higher rank too
    assert isinstance(received("High", X, high, scalars=True)[1], torch.Tensor)


def test_subgraphs_are_run_by_what_is_handed_in() -> None:
    @operator("Raw", raw=True, domain=DOMAIN)
    def raw(node: OnnxNode, run_graph: Any, *values: Value) -> tuple[Value, ...]:
        return tuple(run_graph(None, *values))

    number = known(3)
    found = run("Raw", X, number)
    assert found[0] is X and found[1] is number


def test_one_result_and_several() -> None:
    operator("One", domain=DOMAIN)(lambda node, x: x * node.get("scale") + node.get("shift", 1))
    operator("Two", domain=DOMAIN)(lambda node, x: (x, x))
    (result,) = run("One", X)
    assert isinstance(result, torch.Tensor) and torch.equal(result, X * 3 + 1)
    assert len(run("Two", X)) == 2


def test_small_known_inputs_are_computed_as_numbers() -> None:
    operator("Sometimes")(lambda node, x: x + 0)
    on_known("Sometimes")(lambda node, x: NotImplemented if x.array[0] == 7 else known(x.array + 1))
    (number,) = run("Sometimes", known([1, 2]), domain="")
    assert isinstance(number, Known) and number.array.tolist() == [2, 3]
    for value in (known([7, 2]), known(np.zeros(SMALL + 1, np.int64)), torch.ones(2)):
        assert isinstance(run("Sometimes", value, domain="")[0], torch.Tensor)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("first line\nsecond line"), "first line"),
        (RuntimeError("with \x1b[2J and more"), "with ?[2J and more"),
        (SlimlineError("a sentence."), "a sentence."),
        (KeyError("mode"), "KeyError 'mode'"),
        (AssertionError(), "AssertionError"),
        (OverflowError("too large"), "OverflowError too large"),
        (MemoryError(), "MemoryError"),
        (RecursionError("deep"), "deep"),
        (ValueError(""), "ValueError"),
    ],
)
def test_whatever_an_operator_raises_is_one_sentence(error: Exception, words: str) -> None:
    @operator("Fails", domain=DOMAIN)
    def fails(node: OnnxNode, x: torch.Tensor) -> torch.Tensor:
        raise error

    with pytest.raises(SlimlineError) as caught:
        run("Fails", X)
    assert str(caught.value) == f"the node {DOMAIN}::Fails 'n' cannot be run: {words}"


def test_signals_of_the_tracer_pass() -> None:
    @operator("Signals", domain=DOMAIN)
    def signals(node: OnnxNode, x: torch.Tensor) -> torch.Tensor:
        raise GuardOnDataDependentSymNode(None, "depends on data")  # type: ignore[arg-type]

    with pytest.raises(GuardOnDataDependentSymNode):
        run("Signals", X)


def test_an_operator_is_added_once() -> None:
    with pytest.raises(AssertionError, match="Relu is in the table"):
        operator("Relu")(lambda node, x: x)


def test_the_table_holds_operators_that_onnx_knows() -> None:
    names = {schema.name for schema in defs.get_all_schemas_with_history() if schema.domain in ("", "ai.onnx")}
    assert {kind for domain, kind in TABLE if domain == ""} <= names
    assert set(KNOWN_TABLE) <= names
    assert len(names & {kind for domain, kind in TABLE if domain == ""}) > 150


def test_inputs_that_are_left_out() -> None:
    assert optional([1, None], 0) == 1 and optional([1, None], 1) is None and optional([1], 5) is None
