"""Attention and its relatives against the ONNX reference, and against formulas written out."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests.sources.onnx.models import assert_same, check_traced, eager, model, one

RNG = np.random.default_rng(0)
BATCH, HEADS, QUERIES, KEYS, SIZE = 2, 4, 3, 5, 8


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype("f4")


def qkv(kv_heads: int = HEADS, keys: int = KEYS) -> list[np.ndarray]:
    return [normal(BATCH, HEADS, QUERIES, SIZE), *(normal(BATCH, kv_heads, keys, SIZE) for _ in range(2))]


def check(kind: str, arrays: list[Any], outputs: int = 1, opset: int = 25, **attributes: Any) -> None:
    proto = one(kind, arrays, opset, outputs, **attributes)
    given = {f"x{i}": array for i, array in enumerate(arrays) if array is not None}
    expected = ReferenceEvaluator(proto).run(None, given)
    finite = [np.nan_to_num(y) for y in eager(proto, *given.values())]  # scores hold -inf where a mask forbids
    assert_same(finite, [np.nan_to_num(np.asarray(y)) for y in expected])


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_four_axes(kv_heads: int, causal: int, scale: float | None) -> None:
    attributes = {} if scale is None else {"scale": scale}
    check("Attention", qkv(kv_heads), is_causal=causal, **attributes)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_three_axes(kv_heads: int) -> None:
    arrays = [normal(BATCH, QUERIES, HEADS * SIZE), *(normal(BATCH, KEYS, kv_heads * SIZE) for _ in range(2))]
    check("Attention", arrays, 3, q_num_heads=HEADS, kv_num_heads=kv_heads)


MASKS = [(1, 1, QUERIES, KEYS), (QUERIES, KEYS), (HEADS, QUERIES, KEYS), (BATCH, 1, QUERIES, KEYS), (QUERIES, KEYS - 2)]


@pytest.mark.parametrize("shape", MASKS)
@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("numbers", [True, False])
def test_masks(shape: tuple[int, ...], causal: int, numbers: bool) -> None:
    mask = normal(*shape) if numbers else RNG.random(shape) > 0.3  # noqa: PLR2004
    check("Attention", [*qkv(), mask], is_causal=causal)


@pytest.mark.parametrize("shape", [(KEYS,), (1, KEYS), (BATCH, 1, 1, KEYS)])
def test_a_mask_that_is_the_same_for_all_queries(shape: tuple[int, ...]) -> None:
    """The reference forgets to repeat such a mask before it adds causality."""
    arrays, mask = qkv(), RNG.random(shape) > 0.3  # noqa: PLR2004
    repeated = np.broadcast_to(mask, (*shape[:-2], QUERIES, KEYS)).copy()
    proto = one("Attention", [*arrays, repeated], 25, is_causal=1)
    expected = ReferenceEvaluator(proto).run(None, {f"x{i}": x for i, x in enumerate([*arrays, repeated])})
    found = eager(one("Attention", [*arrays, mask], 25, is_causal=1), *arrays, mask)
    assert_same(found, [np.asarray(y) for y in expected])


@pytest.mark.parametrize("numbers", [True, False])
@pytest.mark.parametrize("attributes", [{}, {"softcap": 2.0}])
def test_a_query_that_may_attend_to_nothing_has_a_result_of_zeros(numbers: bool, attributes: dict[str, float]) -> None:
    allowed = np.ones((QUERIES, KEYS), bool)
    allowed[1] = False
    mask = np.where(allowed, 0, -np.inf).astype("f4") if numbers else allowed
    arrays = [*qkv(), mask]
    (y,) = eager(one("Attention", arrays, 25, **attributes), *arrays)
    assert not y[:, :, 1].any()
    assert np.isfinite(y).all()
    assert y[:, :, 0].any()


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_earlier_keys_and_scores(causal: int, mode: int) -> None:
    past = [normal(BATCH, HEADS, 2, SIZE) for _ in range(2)]
    arrays = [*qkv(), normal(QUERIES, KEYS + 2), *past]
    # The reference puts out capped scores for mode 0 as well, against the text of the definition.
    check("Attention", arrays, 4, is_causal=causal, qk_matmul_output_mode=mode, softcap=3.0 if mode % 2 else 0.0)


@pytest.mark.parametrize("causal", [0, 1])
@pytest.mark.parametrize("window", [{}, {"left_window_size": 1}, {"left_window_size": 2, "right_window_size": 1}])
@pytest.mark.parametrize("padded", [True, False])
def test_windows_and_padding(causal: int, window: dict[str, int], padded: bool) -> None:
    arrays = [*qkv(2), None, None, None, np.array([4, 5])] if padded else qkv(2)
    check("Attention", arrays, is_causal=causal, **window)


def test_softmax_in_another_precision() -> None:
    check("Attention", qkv(), softmax_precision=onnx.TensorProto.DOUBLE)


def test_the_plain_form_is_torchs_operator(tmp_path: Path) -> None:
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=2, kv_num_heads=2)
    proto = model([node], {name: ["batch", 5, 16] for name in ("q", "k", "v")}, ["y"])
    network = check_traced(proto, tmp_path, *(normal(3, 5, 16) for _ in range(3)))
    found = [str(n.target) for n in network.module.graph.nodes if n.op == "call_function"]
    assert "aten.scaled_dot_product_attention.default" in found
    assert not any("softmax" in name for name in found)


@pytest.mark.parametrize("attributes", [{"is_causal": 1}, {"softcap": 2.0}])
def test_masked_attention_is_traced(tmp_path: Path, attributes: dict[str, Any]) -> None:
    node = helper.make_node("Attention", ["q", "k", "k", "mask"], ["y"], **attributes)
    shapes = {"q": ["batch", 4, 3, 8], "k": ["batch", 2, 5, 8]}
    proto = model([node], shapes, ["y"], {"mask": RNG.random((3, 5)) > 0.2})  # noqa: PLR2004
    check_traced(proto, tmp_path, normal(3, 4, 3, 8), normal(3, 2, 5, 8))


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("size", [0, 4])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("positions", [True, False])
def test_rotary_embedding(interleaved: int, size: int, packed: bool, positions: bool) -> None:
    x = normal(BATCH, QUERIES, HEADS * SIZE) if packed else normal(BATCH, HEADS, QUERIES, SIZE)
    angles = normal(10, (size or SIZE) // 2) if positions else normal(BATCH, QUERIES, (size or SIZE) // 2)
    arrays = [x, np.cos(angles), np.sin(angles)]
    arrays += [RNG.integers(0, 10, (BATCH, QUERIES))] if positions else []
    attributes = {"num_heads": HEADS} if packed else {}
    check("RotaryEmbedding", arrays, interleaved=interleaved, rotary_embedding_dim=size, **attributes)


def test_rotary_embedding_is_traced(tmp_path: Path) -> None:
    node = helper.make_node("RotaryEmbedding", ["x", "cos", "sin", "p"], ["y"])
    angles = normal(10, 4)
    proto = model(
        [node],
        {"x": ["batch", 2, 5, 8], "p": ["batch", 5]},
        ["y"],
        {"cos": np.cos(angles), "sin": np.sin(angles)},
        types={"p": onnx.TensorProto.INT64},
    )
    check_traced(proto, tmp_path, normal(3, 2, 5, 8), RNG.integers(0, 10, (3, 5)))


@pytest.mark.parametrize("rule", ["linear", "gated", "delta", "gated_delta"])
@pytest.mark.parametrize("kv_heads", [2, 1])
@pytest.mark.parametrize("with_past", [True, False])
def test_linear_attention(rule: str, kv_heads: int, with_past: bool) -> None:
    arrays: list[np.ndarray | None] = [normal(BATCH, 5, 2 * 4), normal(BATCH, 5, kv_heads * 4)]
    arrays += [normal(BATCH, 5, kv_heads * 6), normal(BATCH, kv_heads, 4, 6) if with_past else None]
    arrays.append(-np.abs(normal(BATCH, 5, kv_heads * 4)) if "gated" in rule else None)
    arrays.append(RNG.random((BATCH, 5, kv_heads)).astype("f4") if "delta" in rule else None)
    while arrays[-1] is None:
        arrays.pop()
    check("LinearAttention", arrays, 2, 27, update_rule=rule, q_num_heads=2, kv_num_heads=kv_heads)
