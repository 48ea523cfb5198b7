import numpy as np
import pytest
from onnx import helper

from tests.sources.onnx.models import check_traced, eager, model, one
from tests.sources.onnx.operators.one_node import check, operators

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "left, right",
    [((4,), (4,)), ((4,), (2, 4, 3)), ((2, 3, 4), (4,)), ((3, 4), (4, 2)), ((5, 1, 3, 4), (2, 4, 3))],
)
def test_matmul_takes_every_pair_of_ranks(left, right):
    check("MatMul", normal(*left), normal(*right))


def test_matmul_of_integers_is_exact():
    a, b = (rng.integers(-(10**6), 10**6, shape).astype(np.int64) for shape in ((3, 4), (4, 2)))
    np.testing.assert_array_equal(eager(one("MatMul", [a, b]), a, b)[0], a @ b)


@pytest.mark.parametrize("c", [None, (5,), (1, 5), (3, 5), (1,), (), (3, 1)])
@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"transA": 1, "alpha": 0.5, "beta": 2.0}])
def test_gemm_with_every_shape_of_the_addend(c, attributes):
    a = normal(4, 3) if attributes.get("transA") else normal(3, 4)
    b = normal(5, 4) if attributes.get("transB") else normal(4, 5)
    check("Gemm", a, b, None if c is None else normal(*c), **attributes)


def test_gemm_of_integers_applies_its_factors():
    a, b, c = (rng.integers(-9, 9, shape).astype(np.int64) for shape in ((3, 4), (4, 2), (2,)))
    found = eager(one("Gemm", [a, b, c], alpha=2.0, beta=3.0), a, b, c)[0]
    np.testing.assert_array_equal(found, 2 * (a @ b) + 3 * c)


def test_a_gemm_of_constants_is_a_linear_layer(tmp_path):
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)]
    proto = model(nodes, {"x": ("n", 5)}, ["y"], {"w": normal(7, 5), "b": normal(7)}, opset=9)
    network = check_traced(proto, tmp_path, normal(3, 5))
    assert operators(network) == ["aten.linear.default"]


@pytest.mark.parametrize("equation", ["bij, bjk -> b i k", "bij,bjk", "...ij,...jk->...ki", "bij,bjk->"])
def test_einsum(equation):
    check("Einsum", normal(2, 3, 4), normal(2, 4, 5), equation=equation)


def test_products_keep_the_batch_free(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["a", "b"], ["c"]),
        helper.make_node("Einsum", ["c", "a"], ["y"], equation="bij,bij->bi"),
    ]
    proto = model(nodes, {"a": ("n", 4, 5), "b": ("n", 5, 5)}, ["y"])
    check_traced(proto, tmp_path, normal(3, 4, 5), normal(3, 5, 5))
