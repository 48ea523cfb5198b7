"""Example inputs made up from the configuration of a transformers model."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from slimline.errors import SlimlineError

EXAMPLES = 2
TOKENS = 32
SAMPLES = 16_000
"""One second at the rate of speech models."""
IMAGE = 224
"""Side of an image where neither the configuration nor the processor says it."""
MOST_NUMBERS = 2**28
OFFSET = 2
"""Positions at the start of the table that RoBERTa and its kin do not use."""


def made_up_inputs(model: Any, names: list[str], processor: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """Random token ids, masks of ones, and normal numbers for images and sounds, two samples each.

    Args:
        model: a `transformers.PreTrainedModel`.
        processor: the content of its preprocessor_config.json.

    Raises:
        SlimlineError: an input whose shape the configuration does not tell.
    """
    generator = torch.Generator().manual_seed(0)
    return {name: _one(model, name, processor or {}, generator) for name in names}


def _one(model: Any, name: str, processor: Mapping[str, Any], generator: torch.Generator) -> Tensor:
    if name not in SHAPES:
        raise SlimlineError(f"{type(model).__name__} needs the input {name}: give data with an example of it.")
    shape = _shape(model.config, name, processor)
    if name in ("input_ids", "decoder_input_ids"):
        return torch.randint(0, int(model.config.get_text_config().vocab_size), shape, generator=generator)
    if name == "attention_mask":
        return torch.ones(shape, dtype=torch.int64)
    if name == "token_type_ids":
        return torch.zeros(shape, dtype=torch.int64)
    return torch.randn(shape, generator=generator)


def _shape(config: Any, name: str, processor: Mapping[str, Any]) -> tuple[int, ...]:
    try:
        shape = (EXAMPLES, *SHAPES[name](config, processor))
    except (TypeError, ValueError, AttributeError) as error:
        raise SlimlineError(
            f"The sizes of {name} are not in the configuration: give data with an example of it."
        ) from error
    if min(shape) < 1 or math.prod(shape) > MOST_NUMBERS:
        raise SlimlineError(f"The configuration gives {name} the shape {list(shape)}: give data with an example of it.")
    return shape


def _text(config: Any, processor: Mapping[str, Any]) -> tuple[int, ...]:
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return (TOKENS if not isinstance(positions, int) else max(1, min(TOKENS, positions - OFFSET)),)


def _image(config: Any, processor: Mapping[str, Any]) -> tuple[int, ...]:
    size: Any = processor.get("crop_size") or processor.get("size") or getattr(config, "image_size", None) or IMAGE
    if isinstance(size, dict):
        edge = int(size.get("shortest_edge", IMAGE))
        height, width = int(size.get("height", edge)), int(size.get("width", edge))
    else:
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
    frames = [int(config.num_frames)] if hasattr(config, "num_frames") else []
    return (*frames, int(getattr(config, "num_channels", 3)), int(height), int(width))


def _sound(config: Any, processor: Mapping[str, Any]) -> tuple[int, ...]:
    bands = getattr(config, "num_mel_bins", None)
    return (SAMPLES,) if bands is None else (int(config.max_length), int(bands))


def _spectrum(config: Any, processor: Mapping[str, Any]) -> tuple[int, ...]:
    return int(config.num_mel_bins), 2 * int(config.max_source_positions)


SHAPES: dict[str, Callable[[Any, Mapping[str, Any]], tuple[int, ...]]] = {
    "input_ids": _text,
    "attention_mask": _text,
    "token_type_ids": _text,
    "decoder_input_ids": _text,
    "pixel_values": _image,
    "input_values": _sound,
    "input_features": _spectrum,
}
"""Sizes behind the batch, by input."""
