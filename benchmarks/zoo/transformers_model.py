"""Models of Hugging Face transformers as plain modules: from a small configuration, nothing is ever fetched."""

import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architecture import Architecture, Inputs, seeded

LENGTH, VOCABULARY = 20, 101


class OfImages(nn.Module):
    """A model that reads ``pixel_values``; one output of it."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, pixel_values: Tensor) -> Tensor:
        result: Tensor = self.model(pixel_values=pixel_values)[self.output]
        return result


class OfText(nn.Module):
    """A model that reads ``input_ids`` and mostly a mask; one output of it."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        others = {name: value for name, value in given.items() if value is not None}
        result: Tensor = self.model(input_ids=input_ids, **others)[self.output]
        return result


class OfSound(nn.Module):
    """A model that reads a waveform or a spectrum as ``input_values``; one output of it."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, input_values: Tensor) -> Tensor:
        result: Tensor = self.model(input_values)[self.output]
        return result


class OfSeries(nn.Module):
    """A model that reads ``past_values``; one output of it."""

    def __init__(self, model: nn.Module, output: str) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, past_values: Tensor) -> Tensor:
        result: Tensor = self.model(past_values=past_values)[self.output]
        return result


def pretrained(  # noqa: PLR0913 - a row of a table
    name: str,
    family: str,
    model: str,
    config: str,
    settings: Mapping[str, Any],
    inputs: Inputs,
    reads: type[nn.Module] = OfImages,
    output: str = "logits",
) -> Architecture:
    """A model of transformers under the name of its classes, with settings that make it small.

    Args:
        model: its class; with the module in front where transformers does not list it, as in ``models.x.modeling_x:X``.
        settings: of the configuration; ``attn_implementation`` chooses how attention is written.
        reads: the wrapper for its inputs.
        output: the field of its output that is kept.
    """

    def make() -> nn.Module:
        import transformers

        path, _, found = model.rpartition(":")
        owner = importlib.import_module(f"transformers.{path}") if path else transformers
        values = dict(settings)
        attention = values.pop("attn_implementation", None)
        made = getattr(transformers, config)(**values)
        if hasattr(made, "use_cache"):
            made.use_cache = False  # keys and values of a cache would be further outputs
        if attention:
            made._attn_implementation = attention
        return reads(getattr(owner, found)(made), output)

    return seeded(name, family, make, inputs)


def text(masked: bool = True, pairs: bool = False) -> Inputs:
    """Token ids; every second text is padded on the right where there is a mask; two segments in ``token_type_ids``."""

    def make(batch: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(batch)
        made = {"input_ids": torch.randint(5, VOCABULARY, (batch, LENGTH), generator=generator)}
        if masked:
            made["attention_mask"] = torch.ones(batch, LENGTH, dtype=torch.int64)
            made["attention_mask"][1::2, LENGTH // 2 :] = 0
        if pairs:
            made["token_type_ids"] = (torch.arange(LENGTH) > LENGTH // 3).long().repeat(batch, 1)
        return made

    return make
