"""Vision transformers of transformers."""

from typing import Any

from zoo.architecture import Architecture, images
from zoo.transformers_model import pretrained

CLASSES = 10
BODY = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 80}
PATCHES = {"image_size": 32, "patch_size": 8}
WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}


def _vision(name: str, stem: str, settings: dict[str, Any], size: int = 32) -> Architecture:
    classifier, config = f"{stem}ForImageClassification", f"{stem}Config"
    values = {"num_labels": CLASSES, **settings}
    return pretrained(name, "vision transformer", classifier, config, values, images(3, size, name="pixel_values"))


def architectures() -> list[Architecture]:
    """Image classifiers with attention, ViT in both forms of it."""
    return [
        _vision("vit_sdpa", "ViT", {**BODY, **PATCHES, "attn_implementation": "sdpa"}),
        _vision("vit_eager", "ViT", {**BODY, **PATCHES, "attn_implementation": "eager"}),
        _vision("deit", "DeiT", {**BODY, **PATCHES}),
        _vision("beit", "Beit", {**BODY, **PATCHES, "use_relative_position_bias": True}),
        _vision("dinov2", "Dinov2", {**BODY, **PATCHES, "mlp_ratio": 2}),
        _vision("swin", "Swin", WINDOWS),
        _vision("swin_v2", "Swinv2", WINDOWS),
        _vision("pvt", "Pvt", {
            "image_size": 64, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 4, 4], "mlp_ratios": [2, 2, 2, 2], "sequence_reduction_ratios": [4, 2, 2, 1],
        }, 64),
        _vision("segformer", "Segformer", {
            "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 4, 4],
            "mlp_ratios": [2, 2, 2, 2], "sr_ratios": [4, 2, 2, 1], "decoder_hidden_size": 32,
        }, 64),
        _vision("mobilevit", "MobileViT", {
            "image_size": 64, "hidden_sizes": [24, 32, 40], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 96],
        }, 64),
        _vision("mobilevit_v2", "MobileViTV2", {
            "image_size": 64, "width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1],
        }, 64),
        _vision("hiera", "Hiera", {
            "image_size": [64, 64], "embed_dim": 16, "depths": [1, 2, 2], "num_heads": [1, 2, 4],
            "masked_unit_size": [4, 4], "masked_unit_attention": [True, True, False], "num_query_pool": 2,
        }, 64),
        _vision("levit", "Levit", {
            "image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        }, 64),
        _vision("cvt", "Cvt", {
            "embed_dim": [16, 32, 48], "num_heads": [1, 2, 4], "depth": [1, 2, 3], "mlp_ratio": [2.0, 2.0, 2.0],
        }, 64),
    ]  # fmt: skip
