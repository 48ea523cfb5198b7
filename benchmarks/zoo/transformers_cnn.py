"""Convolutional networks of transformers."""

from typing import Any

from zoo.architecture import Architecture, images
from zoo.transformers_model import pretrained

CLASSES = 10
STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1], "num_labels": CLASSES}


def _cnn(name: str, stem: str, settings: dict[str, Any], size: int = 64) -> Architecture:
    classifier, config = f"{stem}ForImageClassification", f"{stem}Config"
    values = {"num_labels": CLASSES, **settings}
    return pretrained(name, "cnn", classifier, config, values, images(3, size, name="pixel_values"))


def architectures() -> list[Architecture]:
    """Convolutional image classifiers."""
    return [
        _cnn("resnet_basic", "ResNet", {**STAGES, "embedding_size": 16, "layer_type": "basic"}),
        _cnn("resnet_bottleneck", "ResNet", {**STAGES, "embedding_size": 16, "hidden_sizes": [32, 48, 64, 96]}),
        _cnn("regnet_x", "RegNet", {**STAGES, "embedding_size": 16, "groups_width": 8, "layer_type": "x"}),
        _cnn("regnet_y", "RegNet", {**STAGES, "embedding_size": 16, "groups_width": 8, "layer_type": "y"}),
        _cnn("mobilenet_v1", "MobileNetV1", {"image_size": 64, "depth_multiplier": 0.25}),
        _cnn("mobilenet_v2", "MobileNetV2", {"image_size": 64, "depth_multiplier": 0.35}),
        _cnn("convnext", "ConvNext", STAGES),
        _cnn("convnext_v2", "ConvNextV2", STAGES),
        _cnn("efficientnet", "EfficientNet", {
            "image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640,
            "in_channels": [32, 16, 24, 40, 80], "out_channels": [16, 24, 40, 80, 112], "kernel_sizes": [3, 3, 5, 3, 5],
            "strides": [1, 2, 2, 2, 1], "num_block_repeats": [1, 2, 2, 3, 3], "expand_ratios": [1, 6, 6, 6, 6],
        }),
        _cnn("poolformer", "PoolFormer", STAGES),
        _cnn("bit", "Bit", {**STAGES, "hidden_sizes": [32, 48, 64, 96], "embedding_size": 16, "num_groups": 4}),
        _cnn("focalnet", "FocalNet", {**STAGES, "image_size": 64, "embed_dim": 16, "hidden_sizes": [16, 24, 32, 48]}),
    ]  # fmt: skip
