"""Architectures with random weights, small enough to try everything on each of them."""

from zoo import (
    autoencoder,
    causal,
    cifar_resnet,
    crnn,
    densenet,
    genomics,
    ghostnet,
    googlenet,
    language_model,
    mlp,
    mlperf_tiny,
    mobilenet_v3,
    preact_resnet,
    recommender,
    recurrent,
    resnet,
    shufflenet,
    siamese,
    squeezenet,
    superresolution,
    tc_resnet,
    transformers_cnn,
    transformers_signals,
    transformers_text,
    transformers_vision,
    unet,
    vgg,
    yolo,
)
from zoo.architecture import Architecture

WRITTEN_HERE = (
    cifar_resnet, preact_resnet, resnet, densenet, shufflenet, mobilenet_v3, ghostnet, googlenet, vgg, squeezenet, unet,
    yolo, superresolution, autoencoder, mlperf_tiny, mlp, tc_resnet, recurrent, crnn, causal, genomics, language_model,
    siamese, recommender,
)  # fmt: skip
FROM_TRANSFORMERS = (transformers_cnn, transformers_vision, transformers_text, transformers_signals)


def architectures() -> list[Architecture]:
    """All of them, in the order of their files; nothing is built yet."""
    return [found for family in (*WRITTEN_HERE, *FROM_TRANSFORMERS) for found in family.architectures()]


__all__ = ["Architecture", "architectures"]
