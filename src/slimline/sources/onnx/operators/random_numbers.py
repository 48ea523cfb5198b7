"""Random numbers: computed when a graph is run as it is, refused when a network is made of it."""

import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.shape import refuse_absurd
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.values import TORCH_TYPES


def _generator(node: OnnxNode) -> torch.Generator:
    """A generator of its own, from the node's seed.

    Raises:
        SlimlineError: a network is being traced.
    """
    if torch.compiler.is_exporting():
        raise SlimlineError(
            "it draws random numbers, so that the network never answers the same twice: export it in inference mode, "
            "or make the random numbers an input."
        )
    generator = torch.Generator()
    seed = node.get("seed")
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(hash(float(seed)))  # a float in ONNX; equal seeds give equal numbers
    return generator


def _dtype(node: OnnxNode, default: torch.dtype) -> torch.dtype:
    wanted = node.get("dtype")
    return default if wanted is None else TORCH_TYPES[wanted]


def _normal(node: OnnxNode, shape: list[int], dtype: torch.dtype) -> Tensor:
    generator = _generator(node)
    refuse_absurd([*shape], dtype)
    drawn: Tensor = torch.randn(shape, generator=generator) * node.get("scale", 1.0) + node.get("mean", 0.0)
    return drawn.to(dtype)


def _uniform(node: OnnxNode, shape: list[int], dtype: torch.dtype) -> Tensor:
    generator = _generator(node)
    refuse_absurd([*shape], dtype)
    low, high = node.get("low", 0.0), node.get("high", 1.0)
    drawn: Tensor = torch.rand(shape, generator=generator) * (high - low) + low
    return drawn.to(dtype)


@operator("RandomNormal")
def random_normal(node: OnnxNode) -> Tensor:
    """Normally distributed numbers in a given shape."""
    return _normal(node, node.get("shape"), _dtype(node, torch.float32))


@operator("RandomNormalLike")
def random_normal_like(node: OnnxNode, x: Tensor) -> Tensor:
    """Normally distributed numbers in the input's shape."""
    return _normal(node, list(x.shape), _dtype(node, x.dtype))


@operator("RandomUniform")
def random_uniform(node: OnnxNode) -> Tensor:
    """Uniformly distributed numbers in a given shape."""
    return _uniform(node, node.get("shape"), _dtype(node, torch.float32))


@operator("RandomUniformLike")
def random_uniform_like(node: OnnxNode, x: Tensor) -> Tensor:
    """Uniformly distributed numbers in the input's shape."""
    return _uniform(node, list(x.shape), _dtype(node, x.dtype))


@operator("Bernoulli")
def bernoulli(node: OnnxNode, x: Tensor) -> Tensor:
    """One with the probability that the input says, else zero."""
    return torch.bernoulli(x, generator=_generator(node)).to(_dtype(node, x.dtype))


@operator("Multinomial")
def multinomial(node: OnnxNode, x: Tensor) -> Tensor:
    """Classes drawn from logarithms of weights, with replacement."""
    drawn = torch.multinomial(x.softmax(-1), node.get("sample_size", 1), True, generator=_generator(node))
    return drawn.to(_dtype(node, torch.int32))
