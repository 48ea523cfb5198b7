"""Fourier transforms, mel filters and text features."""

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.resize import constant
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.values import LARGEST_KNOWN, TORCH_TYPES, Array


@operator("DFT", known=(1, 2))
def dft(node: OnnxNode, x: Tensor, length: Array | None = None, axis: Array | None = None) -> Tensor:
    """The discrete Fourier transform along an axis; the last axis holds a real number, or real and imaginary part."""
    default = node.get("axis", 1) if node.opset < 20 else -2
    along = (default if axis is None else int(axis.reshape(-1)[0])) % x.ndim
    count = None if length is None else int(length.reshape(-1)[0])
    wide = x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)
    inverse, onesided = bool(node.get("inverse", 0)), bool(node.get("onesided", 0))
    if count is not None and not (inverse and onesided):
        wide = _of_length(wide, along, count)  # before there are complex numbers, which ONNX cannot pad
    signal = torch.view_as_complex(wide.contiguous()) if x.shape[-1] == 2 else wide.squeeze(-1)
    result = _transformed(signal, count, along, inverse, onesided)
    return result if result.dtype == x.dtype else result.to(x.dtype)


def _of_length(x: Tensor, axis: int, length: int) -> Tensor:
    """Cut off, or continued with zeros."""
    if length <= x.shape[axis]:
        return x if length == x.shape[axis] else x.narrow(axis, 0, length)
    return F.pad(x, [0, 0] * (x.ndim - 1 - axis) + [0, length - x.shape[axis]])


def _transformed(signal: Tensor, count: int | None, axis: int, inverse: bool, onesided: bool) -> Tensor:
    """Numbers whose last axis holds one part, or two; ``onesided`` leaves out what symmetry gives."""
    if inverse and onesided:
        real: Tensor = torch.fft.irfft(signal, count, axis)
        return real.unsqueeze(-1)
    if inverse:
        return torch.view_as_real(torch.fft.ifft(signal, dim=axis))
    if onesided and not signal.is_complex():
        return torch.view_as_real(torch.fft.rfft(signal, dim=axis))
    result = torch.view_as_real(torch.fft.fft(signal, dim=axis))
    return result.narrow(axis, 0, result.shape[axis] // 2 + 1) if onesided else result


@operator("STFT", known=(1, 3))
def stft(node: OnnxNode, x: Tensor, step: Array, window: Tensor | None = None, length: Array | None = None) -> Tensor:
    """Fourier transforms of windows that step through a signal: (batch, frames, frequencies, 2).

    It is a convolution, whose filters are the windowed waves: every runtime has one, and few have complex numbers.

    Args:
        x: (batch, length, 1), or 2 for complex signals.
    """
    given = x.shape[1] if window is None else window.shape[0]
    count = given if length is None else int(length.reshape(-1)[0])
    onesided = bool(node.get("onesided", 1)) and x.shape[-1] == 1
    filters = constant(waves(count, count // 2 + 1 if onesided else count, x.shape[-1]), x.dtype)
    if window is not None:
        filters = filters * (window if window.shape[0] == count else F.pad(window, [0, count - window.shape[0]]))
    spectrum = F.conv1d(x.transpose(1, 2), filters, stride=int(step.reshape(-1)[0]))
    return spectrum.reshape(x.shape[0], 2, -1, spectrum.shape[-1]).permute(0, 3, 2, 1)


def waves(length: int, frequencies: int, parts: int) -> Array:
    """The discrete Fourier transform as filters (2 * frequencies, parts, length): real results, then imaginary ones."""
    turns = np.outer(np.arange(frequencies), np.arange(length)) % length * (2 * np.pi / length)
    from_real = np.concatenate([np.cos(turns), -np.sin(turns)])
    from_imaginary = np.concatenate([np.sin(turns), np.cos(turns)])
    return np.stack([from_real, from_imaginary][:parts], axis=1)


@operator("MelWeightMatrix", known=(0, 1, 2, 3, 4))
def mel_weight_matrix(node: OnnxNode, bands: Array, length: Array, rate: Array, low: Array, high: Array) -> Tensor:
    """Triangular filters at equal steps of the mel scale: (frequencies, bands)."""
    count, points = int(bands.reshape(-1)[0]), int(length.reshape(-1)[0])
    if count * points > LARGEST_KNOWN:
        raise SlimlineError(f"a matrix of {count:,} bands over {points:,} points is not plausible.")
    edges = [2595 * np.log10(1 + float(edge.reshape(-1)[0]) / 700) for edge in (low, high)]
    mels = edges[0] + np.arange(count + 2) * (edges[1] - edges[0]) / (count + 2)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    bins = np.floor((points + 1) * hertz / float(rate.reshape(-1)[0])).astype(np.int64)
    left, centre, right = bins[:-2], bins[1:-1], bins[2:]
    place = np.arange(points // 2 + 1)[:, None]
    rising = (place - left) / np.maximum(centre - left, 1)
    falling = (right - place) / np.maximum(right - centre, 1)
    matrix = np.where((place >= left) & (place < centre), rising, 0.0)
    matrix = np.where((place >= centre) & (place < right), falling, matrix)
    matrix = np.where(place == centre, 1.0, matrix)
    return torch.from_numpy(matrix).to(TORCH_TYPES[node.get("output_datatype", onnx.TensorProto.FLOAT)])


@operator("TfIdfVectorizer")
def tf_idf_vectorizer(node: OnnxNode, x: Tensor) -> Tensor:
    """How often each n-gram of a list occurs in a sequence of integers, or in each row of a matrix of them."""
    pool, starts = node.get("pool_int64s"), node.get("ngram_counts")
    if not pool:
        raise SlimlineError("it counts words, and text cannot be read: only n-grams of integers are supported.")
    rows = x.to(torch.int64) if x.ndim == 2 else x.to(torch.int64).unsqueeze(0)
    ends, counts = [*starts[1:], len(pool)], []
    for size, (start, end) in enumerate(zip(starts, ends, strict=True), start=1):
        grams = np.array(pool[start:end], dtype=np.int64).reshape(-1, size)
        wanted = node.get("min_gram_length") <= size <= node.get("max_gram_length")
        skips = node.get("max_skip_count") if size > 1 else 0
        counts.append(_occurrences(rows, grams, range(1, skips + 2) if wanted else range(0)))
    found = torch.cat(counts, dim=1)
    places = node.get("ngram_indexes")
    totals = torch.zeros(rows.shape[0], max(places) + 1).index_add(1, torch.tensor(places), found)
    mode, weights = node.get("mode"), node.get("weights")
    if mode != "TF":
        totals = (totals > 0).to(torch.float32) if mode == "IDF" else totals
        by_place = np.ones(max(places) + 1, dtype=np.float32)
        by_place[places] = weights or 1.0  # the weight of the gram, wherever its count goes
        totals = totals * torch.from_numpy(by_place)
    return totals if x.ndim == 2 else totals.squeeze(0)


def _occurrences(rows: Tensor, grams: Array, steps: range) -> Tensor:
    """(rows, grams): places where all entries of a gram stand one step apart, for any of the steps."""
    total = torch.zeros(rows.shape[0], len(grams))
    for step in steps:
        span = (grams.shape[1] - 1) * step + 1
        if span <= rows.shape[1] and len(grams):
            seen = rows.unfold(1, span, 1)[..., ::step].unsqueeze(2)
            total = total + (seen == torch.from_numpy(grams)).all(-1).sum(1)
    return total
