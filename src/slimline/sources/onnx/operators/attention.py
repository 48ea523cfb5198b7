"""Attention, rotary embedding and linear attention (ONNX opsets 23 to 28)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.control_flow import check_steps, fixed
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.values import TORCH_TYPES

SEPARATE = 3
"""Axes of (batch, sequence, heads x features); with the heads apart there are four."""
AFTER_SOFTCAP, AFTER_MASK, AFTER_SOFTMAX = 1, 2, 3
"""What ``qk_matmul_output_mode`` may ask for besides the product itself (0)."""


@operator("Attention")
def attention(
    node: OnnxNode,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *rest: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """Scaled dot-product attention; also returns keys, values and scores where asked for.

    Args:
        rest: mask, past keys and past values, number of keys of each sample that are no padding; each may be left out.
    """
    mask, past_k, past_v, valid = (rest[i] if len(rest) > i else None for i in range(4))
    packed = q.ndim == SEPARATE
    if packed:
        heads, kv_heads = node.get("q_num_heads"), node.get("kv_num_heads")
        q, k, v = split_heads(q, heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
    k = k if past_k is None else torch.cat([past_k, k], 2)
    v = v if past_v is None else torch.cat([past_v, v], 2)
    past = 0 if past_k is None else past_k.shape[2]
    groups = q.shape[1] // k.shape[1]
    wide_k, wide_v = repeat_heads(k, groups), repeat_heads(v, groups)
    mask = None if mask is None else _padded(mask, k.shape[2])
    scores = None
    if _is_plain(node, q.dtype):
        # torch's own causal mask starts at the top left, as that of ONNX does without earlier keys.
        causal = bool(node.get("is_causal", 0)) and past == 0 and mask is None and valid is None and not _windowed(node)
        bias = None if causal else combined_mask(node, q, k, mask, past, valid)
        y = F.scaled_dot_product_attention(
            q, wide_k, wide_v, _four_axes(bias), is_causal=causal, scale=node.get("scale")
        )
    else:
        y, scores = explicit(node, q, wide_k, wide_v, combined_mask(node, q, k, mask, past, valid))
    return y.transpose(1, 2).flatten(2) if packed else y, k, v, scores


def _is_plain(node: OnnxNode, dtype: torch.dtype) -> bool:
    """Whether torch's fused operator computes the same; ONNX rounds half precision after every step, torch does not."""
    precision = node.get("softmax_precision", 0)
    wants_scores = len(node.outputs) > SEPARATE and bool(node.outputs[SEPARATE])
    single = dtype in (torch.float32, torch.float64) and (not precision or TORCH_TYPES[precision] == dtype)
    return bool(single and not wants_scores and not node.get("softcap", 0.0))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(batch, sequence, heads x features) as (batch, heads, sequence, features)."""
    return torch.unflatten(x, 2, (heads, x.shape[2] // heads)).transpose(1, 2)


def repeat_heads(x: Tensor, groups: int) -> Tensor:
    """Each head ``groups`` times, for query heads that share keys and values."""
    return x if groups == 1 else x.unsqueeze(2).expand(-1, -1, groups, -1, -1).flatten(1, 2)


def _padded(mask: Tensor, keys: int) -> Tensor:
    """A mask that leaves out the last keys forbids them."""
    missing = keys - mask.shape[-1]
    return mask if missing == 0 else F.pad(mask, (0, missing), value=False if mask.dtype == torch.bool else -math.inf)


def _windowed(node: OnnxNode) -> bool:
    return bool(max(node.get("left_window_size", -1), node.get("right_window_size", -1)) >= 0)


def _four_axes(mask: Tensor | None) -> Tensor | None:
    """Torch's kernels take two or four axes."""
    return mask if mask is None or mask.ndim in (2, 4) else mask.reshape((1,) * (4 - mask.ndim) + tuple(mask.shape))


def combined_mask(
    node: OnnxNode, q: Tensor, k: Tensor, mask: Tensor | None, past: int, valid: Tensor | None
) -> Tensor | None:
    """What may attend to what, from the mask, causality, the window and the padding.

    Returns:
        Booleans (True attends), or numbers that are added when the mask is numbers; None when everything attends.
    """
    allowed = _positions(node, q, k, past, valid)
    if valid is not None:
        inside = torch.arange(k.shape[2], device=q.device) < valid.reshape(-1, 1, 1, 1)
        allowed = inside if allowed is None else allowed & inside
    if mask is None or allowed is None:
        return mask if allowed is None else allowed
    if mask.dtype == torch.bool:
        return mask & allowed
    return torch.where(allowed, mask, torch.full((), -math.inf, dtype=mask.dtype, device=mask.device))


def _positions(node: OnnxNode, q: Tensor, k: Tensor, past: int, valid: Tensor | None) -> Tensor | None:
    """What causality and the window allow: (queries, keys), or (batch, 1, queries, keys) with padded keys."""
    left, right = node.get("left_window_size", -1), node.get("right_window_size", -1)
    if node.get("is_causal", 0):
        right = 0
    if left < 0 and right < 0:
        return None
    rows, columns = torch.arange(q.shape[2], device=q.device)[:, None], torch.arange(k.shape[2], device=q.device)
    # The last query stands at the last key that is no padding.
    places = rows + (past if valid is None else (valid - q.shape[2]).reshape(-1, 1, 1, 1))
    allowed: Tensor | None = None if right < 0 else columns <= places + right
    if left < 0:
        return allowed
    near: Tensor = columns >= places - left
    return near if allowed is None else allowed & near


def explicit(node: OnnxNode, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention step by step, with a soft cap, another precision or the scores as a second result.

    A query that may attend to nothing has a result of zeros.
    """
    root = math.sqrt(node.get("scale") or 1 / math.sqrt(q.shape[-1]))
    scores = (q * root) @ (k * root).transpose(-1, -2)
    shown, mode, cap = scores, node.get("qk_matmul_output_mode", 0), node.get("softcap", 0.0)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    shown = scores if mode == AFTER_SOFTCAP else shown
    blocked = None
    if mask is not None and mask.dtype == torch.bool:
        scores, blocked = scores.masked_fill(~mask, -math.inf), ~mask.any(-1, keepdim=True)
    elif mask is not None:
        scores, blocked = scores + mask, mask.amax(-1, keepdim=True) == -math.inf
    shown = scores if mode == AFTER_MASK else shown
    precision = node.get("softmax_precision", 0)
    scores = scores.to(TORCH_TYPES[precision]) if precision else scores
    weights = torch.softmax(scores, -1)
    weights = weights if blocked is None else weights.masked_fill(blocked, 0)
    weights = weights.to(q.dtype)
    return weights @ v, weights if mode == AFTER_SOFTMAX else shown


@operator("RotaryEmbedding")
def rotary_embedding(node: OnnxNode, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
    """Turns pairs of features by an angle that grows with their position.

    Pairs are (i, i + half), or neighbours when ``interleaved``; features behind ``rotary_embedding_dim`` stay.
    """
    packed = x.ndim == SEPARATE
    if packed:
        x = torch.unflatten(x, 2, (node.get("num_heads"), x.shape[2] // node.get("num_heads")))
    if positions is not None:
        cos, sin = F.embedding(positions, cos), F.embedding(positions, sin)
    axis = 2 if packed else 1  # of the heads
    cos, sin = cos.unsqueeze(axis), sin.unsqueeze(axis)
    size = node.get("rotary_embedding_dim", 0) or x.shape[-1]
    turned, kept = x[..., :size], x[..., size:]
    if node.get("interleaved", 0):
        first, second = turned[..., ::2], turned[..., 1::2]
    else:
        first, second = turned.chunk(2, -1)
    real, imaginary = cos * first - sin * second, sin * first + cos * second
    if node.get("interleaved", 0):
        turned = torch.stack([real, imaginary], -1).flatten(-2)
    else:
        turned = torch.cat([real, imaginary], -1)
    y = turned if size == x.shape[-1] else torch.cat([turned, kept], -1)
    return y.flatten(2) if packed else y


@operator("LinearAttention")
def linear_attention(node: OnnxNode, q: Tensor, k: Tensor, v: Tensor, *rest: Tensor | None) -> tuple[Tensor, Tensor]:
    """A recurrence over the sequence with a matrix as its state.

    S <- exp(g) S + beta k (v - exp(g) S'k)'        y = scale q'S

    without the decay g, and without what beta replaces, as ``update_rule`` says. Returns y and the last state.

    Args:
        rest: first state (batch, heads, key features, value features), g, beta; each may be left out.
    """
    state, decay, beta = (rest[i] if len(rest) > i else None for i in range(3))
    heads, kv_heads, rule = node.get("q_num_heads"), node.get("kv_num_heads"), node.get("update_rule", "gated_delta")
    steps = fixed(q.shape[1])
    check_steps(steps)
    dtype, state_dtype = q.dtype, (q if state is None else state).dtype
    q, k, v = (_wide(split_heads(x, n)) for x, n in ((q, heads), (k, kv_heads), (v, kv_heads)))
    scale = node.get("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    state = q.new_zeros((q.shape[0], kv_heads, k.shape[-1], v.shape[-1])) if state is None else _wide(state)
    decay = None if decay is None or "gated" not in rule else torch.exp(_wide(split_heads(decay, kv_heads)))
    outputs = []
    for t in range(steps):
        key, value = k[:, :, t, :, None], v[:, :, t, None, :]
        state = state if decay is None else state * decay[:, :, t, :, None]
        if beta is not None and "delta" in rule:
            rate = _wide(beta[:, t, :, None, None])
            value = rate * (value - (state * key).sum(2, keepdim=True))
        state = state + key * value
        outputs.append(scale * q[:, :, t, None, :] @ repeat_heads(state, heads // kv_heads))
    y = torch.cat(outputs, 2)
    return y.transpose(1, 2).flatten(2).to(dtype), state.to(state_dtype)


def _wide(x: Tensor) -> Tensor:
    """The recurrence is computed in float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
