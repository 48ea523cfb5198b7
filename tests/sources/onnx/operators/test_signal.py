import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from slimline.errors import SlimlineError
from slimline.sources.onnx.operators.signal import waves
from tests.sources.onnx.models import check_traced, eager, model, one
from tests.sources.onnx.operators.one_node import check, operators

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def parts(spectrum):
    return np.stack([spectrum.real, spectrum.imag], axis=-1)


def close(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("length", [None, 6, 11])
@pytest.mark.parametrize("onesided", [0, 1])
def test_dft_of_real_numbers(length, onesided):
    x = normal(2, 8, 3, 1)
    arrays = [x, None if length is None else np.array(length), np.array(1)]
    found = eager(one("DFT", arrays, 20, onesided=onesided), *(array for array in arrays if array is not None))[0]
    close(found, parts((np.fft.rfft if onesided else np.fft.fft)(x[..., 0], length, axis=1)))


def test_dft_of_complex_numbers_and_back():
    x = normal(2, 5, 8, 2)
    values = x[..., 0] + 1j * x[..., 1]
    close(eager(one("DFT", [x], 20), x)[0], parts(np.fft.fft(values, axis=-1)))
    close(eager(one("DFT", [x], 17, inverse=1), x)[0], parts(np.fft.ifft(values, axis=1)))
    close(eager(one("DFT", [x], 17, axis=2, onesided=1), x)[0], parts(np.fft.fft(values, axis=2))[:, :, :5])
    spectrum = parts(np.fft.rfft(x[..., 0], axis=-1)).astype(np.float32)
    close(eager(one("DFT", [spectrum], 20, inverse=1, onesided=1), spectrum)[0][..., 0], x[..., 0])


def test_dft_of_half_precision_keeps_its_type():
    x = normal(1, 8, 1).astype(np.float16)
    found = eager(one("DFT", [x], 20), x)[0]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, parts(np.fft.fft(x[..., 0].astype(np.float32))), atol=0.02)


@pytest.mark.parametrize("onesided", [0, 1])
def test_stft_with_a_window(onesided, tmp_path):
    constants = {"step": np.array(5), "window": np.hanning(16).astype(np.float32), "length": np.array(16)}
    node = helper.make_node("STFT", ["x", *constants], ["y"], onesided=onesided)
    network = check_traced(model([node], {"x": ("n", 40, 1)}, ["y"], constants, 17), tmp_path, normal(3, 40, 1))
    assert "aten.conv1d.default" in operators(network)


def test_stft_of_complex_numbers_without_a_window():
    x = normal(2, 20, 2)
    arrays = [x, np.array(4), None, np.array(8)]
    found = eager(one("STFT", arrays, 17, onesided=0), x, arrays[1], arrays[3])[0]
    values = x[..., 0] + 1j * x[..., 1]
    frames = np.stack([values[:, start : start + 8] for start in range(0, 13, 4)], axis=1)
    close(found, parts(np.fft.fft(frames, axis=-1)))


def test_a_short_window_is_continued_with_zeros():
    x, window = normal(1, 12, 1), normal(6)
    arrays = [x, np.array(2), window, np.array(8)]
    found = eager(one("STFT", arrays, 17), *arrays)[0]
    frames = np.stack([x[:, start : start + 8, 0] for start in (0, 2, 4)], axis=1)
    close(found, parts(np.fft.rfft(frames[..., :6] * window, 8, axis=-1)))


@pytest.mark.parametrize("parts_in", [1, 2])
def test_waves_are_the_fourier_matrix(parts_in):
    real, *imaginary = np.moveaxis(waves(6, 6, parts_in), 1, 0)
    matrix = np.fft.fft(np.eye(6))
    np.testing.assert_allclose(real[:6] + 1j * real[6:], matrix, atol=1e-12)
    for part in imaginary:
        np.testing.assert_allclose(part[:6] + 1j * part[6:], 1j * matrix, atol=1e-12)


@pytest.mark.parametrize("bands, length, rate", [(8, 64, 8192), (20, 32, 16000), (3, 512, 8000)])
def test_mel_filters(bands, length, rate):
    arrays = [
        np.array(bands),
        np.array(length),
        np.array(rate),
        np.array(50.0, np.float32),
        np.array(4000.0, np.float32),
    ]
    proto = one("MelWeightMatrix", arrays, 17)
    names = {f"x{i}": array for i, array in enumerate(arrays)}
    close(eager(proto, *arrays)[0], ReferenceEvaluator(proto).run(None, names)[0])


TWO_SIZES = {
    "ngram_counts": [0, 3],
    "pool_int64s": [2, 3, 5, 2, 3, 5, 2, 3, 3],
    "ngram_indexes": [4, 0, 1, 2, 3, 5],
    "weights": [0.5, 2.0, 3.0, 4.0, 5.0, 6.0],
}


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("sizes", [(1, 2), (2, 2), (1, 1)])
@pytest.mark.parametrize("skip", [0, 2])
def test_counts_of_n_grams(mode, sizes, skip):
    given = {"mode": mode, "min_gram_length": sizes[0], "max_gram_length": sizes[1], "max_skip_count": skip}
    x = np.array([[2, 3, 5, 2, 3, 3], [5, 2, 2, 2, 7, 3]], np.int64)
    check("TfIdfVectorizer", x, opset=9, **given, **TWO_SIZES)
    check("TfIdfVectorizer", x[0], opset=9, **given, **TWO_SIZES)


def test_n_grams_of_words_are_refused():
    x = np.array([1, 2], np.int64)
    given = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 1, "max_skip_count": 0}
    proto = one("TfIdfVectorizer", [x], 9, pool_strings=["a"], ngram_counts=[0], ngram_indexes=[0], **given)
    with pytest.raises(SlimlineError, match="only n-grams of integers"):
        eager(proto, x)
