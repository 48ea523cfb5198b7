"""Damaged ONNX files end in a network or in one sentence: never in a crash, a traceback, a hang or a full memory."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.sources.onnx.network import from_onnx
from tests.sources.onnx.mutations import cnn, graphs, lstm, mutate, transformer

ROOT = Path(__file__).parents[3]
WORKER = Path(__file__).with_name("fuzz_worker.py")
RNG = np.random.default_rng(0)
SMALL = {
    "cnn": (cnn, {"x": RNG.standard_normal((2, 1, 8, 8), np.float32)}),
    "lstm": (lstm, {"x": RNG.standard_normal((2, 5, 3), np.float32)}),
    "transformer": (transformer, {"ids": RNG.integers(0, 11, (2, 6))}),
}
REAL = {
    "mxnet/fashion_cnn_mxnet191.onnx": {"data": RNG.standard_normal((2, 1, 28, 28), np.float32)},
    "pp-ocr/ch_PP-OCRv4_rec_infer.onnx": {"x": RNG.standard_normal((2, 3, 48, 64), np.float32)},
}
DATA = ROOT.parent / "shared" / "data"


def small_files(folder: Path) -> None:
    for name, (build, arrays) in SMALL.items():
        (folder / f"{name}.onnx").write_bytes(build().SerializeToString())
        np.savez(folder / f"{name}.npz", **arrays)


def fuzz(folder: Path, first: int, count: int, seconds: int) -> list[str]:
    """What became of each seed, in a process of its own: ``network`` or the sentence."""
    process = subprocess.run(
        [sys.executable, str(WORKER), str(folder), str(first), str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    lines = process.stdout.splitlines()
    assert process.returncode == 0, f"seed {lines[-1] if lines else '?'}: {process.stderr[-3000:]}"
    assert [int(line.split()[0]) for line in lines] == list(range(first, first + count))
    outcomes = [line.split(maxsplit=1)[1] for line in lines]
    sentences = [ast.literal_eval(line.removeprefix("refused ")) for line in outcomes if line != "network"]
    for sentence in sentences:
        assert sentence.isprintable() and 20 < len(sentence) < 1500
    assert 0.1 * count < len(sentences) < count  # damage is mostly seen, and not everything is refused
    return outcomes


@pytest.mark.parametrize("name", list(SMALL))
def test_undamaged_files_become_networks(name: str, tmp_path: Path) -> None:
    build, arrays = SMALL[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(build().SerializeToString())
    network = from_onnx(path, {name: torch.from_numpy(array) for name, array in arrays.items()})
    assert all(len(output) == 2 for output in network.run(network.examples))


def test_damaged_files_end_in_a_network_or_a_sentence(tmp_path: Path) -> None:
    small_files(tmp_path)
    fuzz(tmp_path, 0, 75, 120)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 2600, 400))
def test_many_damaged_files(first: int, tmp_path: Path) -> None:
    small_files(tmp_path)
    fuzz(tmp_path, first, 400, 600)


@pytest.mark.slow
@pytest.mark.parametrize("file", list(REAL))
def test_damaged_real_files(file: str, tmp_path: Path) -> None:
    if not (DATA / file).exists():
        pytest.skip(f"{DATA / file} is not there")
    (tmp_path / "real.onnx").write_bytes((DATA / file).read_bytes())
    np.savez(tmp_path / "real.npz", **REAL[file])
    fuzz(tmp_path, 0, 200, 900)


def test_damage_is_the_same_for_the_same_seed() -> None:
    content = cnn().SerializeToString()
    assert [mutate(content, seed) for seed in range(20)] == [mutate(content, seed) for seed in range(20)]
    assert len({mutate(content, seed) for seed in range(20)}) > 15


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    content = lstm().SerializeToString()
    path = tmp_path / "model.onnx"
    for end in range(0, len(content) - 1, 17):
        path.write_bytes(content[:end])
        with pytest.raises(SlimlineError, match="model.onnx cannot be imported"):
            from_onnx(path)


def test_graphs_are_found_in_graphs() -> None:
    assert [graph.name for graph in graphs(lstm().graph)].count("body") == 1
