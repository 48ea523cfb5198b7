from types import SimpleNamespace
from typing import Any

import pytest
import torch

from slimline.errors import SlimlineError
from slimline.sources.made_up_inputs import made_up_inputs


def model(**settings: Any) -> SimpleNamespace:
    config = SimpleNamespace(**settings)
    config.get_text_config = lambda: config
    return SimpleNamespace(config=config)


def shapes(made: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in made.items()}


def test_texts_have_32_tokens_of_the_vocabulary_and_nothing_masked() -> None:
    names = ["input_ids", "attention_mask", "token_type_ids"]
    made = made_up_inputs(model(vocab_size=7, max_position_embeddings=512), names)
    assert shapes(made) == dict.fromkeys(names, (2, 32))
    assert set(made["input_ids"].unique().tolist()) == set(range(7))
    assert made["attention_mask"].min() == 1 and made["token_type_ids"].max() == 0
    assert made["input_ids"].dtype == torch.int64
    assert shapes(made_up_inputs(model(vocab_size=7, max_position_embeddings=18), names[:1])) == {"input_ids": (2, 16)}


@pytest.mark.parametrize(
    ("name", "settings", "processor", "shape"),
    [
        ("pixel_values", {"image_size": 32, "num_channels": 1}, {}, (2, 1, 32, 32)),
        ("pixel_values", {"image_size": [24, 40]}, {}, (2, 3, 24, 40)),
        ("pixel_values", {}, {}, (2, 3, 224, 224)),
        ("pixel_values", {"image_size": 32}, {"size": {"height": 48, "width": 64}}, (2, 3, 48, 64)),
        ("pixel_values", {}, {"size": {"shortest_edge": 48}}, (2, 3, 48, 48)),
        ("pixel_values", {}, {"size": {"shortest_edge": 48}, "crop_size": {"height": 40, "width": 40}}, (2, 3, 40, 40)),
        ("pixel_values", {"image_size": 16, "num_frames": 4}, {}, (2, 4, 3, 16, 16)),
        ("input_values", {}, {}, (2, 16_000)),
        ("input_values", {"max_length": 64, "num_mel_bins": 8}, {}, (2, 64, 8)),
        ("input_features", {"max_source_positions": 20, "num_mel_bins": 8}, {}, (2, 8, 40)),
    ],
)
def test_images_and_sounds_have_the_sizes_of_the_configuration(
    name: str, settings: dict[str, Any], processor: dict[str, Any], shape: tuple[int, ...]
) -> None:
    made = made_up_inputs(model(**settings), [name], processor)
    assert shapes(made) == {name: shape}
    assert abs(made[name].std() - 1) < 0.1


@pytest.mark.parametrize(
    ("name", "settings", "processor", "sentence"),
    [
        ("bbox", {}, {}, "needs the input bbox: give data with an example"),
        ("input_features", {}, {}, "sizes of input_features are not in the configuration"),
        ("pixel_values", {"image_size": "large"}, {}, "sizes of pixel_values are not in the configuration"),
        (
            "pixel_values",
            {},
            {"size": {"height": 10**9, "width": 10**9}},
            r"the shape \[2, 3, 1000000000, 1000000000\]",
        ),
        ("pixel_values", {"image_size": -4}, {}, r"the shape \[2, 3, -4, -4\]"),
    ],
)
def test_what_the_configuration_does_not_tell(
    name: str, settings: dict[str, Any], processor: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        made_up_inputs(model(**settings), [name], processor)
