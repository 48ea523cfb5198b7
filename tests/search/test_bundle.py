"""What the user takes home runs by itself, says what it is, and can be checked."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import slimline
from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.runtimes.registry import RUNTIMES, open_artifact
from slimline.runtimes.runtime import SIDECAR, Artifact
from slimline.search.bundle import sha256, write_bundle
from slimline.search.study import Trial
from tests.toys import patterns, toy

SAVE = "import sys, numpy as np, predict; np.save(sys.argv[2], predict.predict(dict(np.load(sys.argv[1])))[0])"


def trial(runtime: str, variant: str = "") -> Trial:
    return Trial(
        "t03", "free", runtime, variant, variant or "fp32", ["FoldBatchNorm()"], "networks/a.slim", "artifacts/a",
        1, 2, 3, recipe_yaml="- FoldBatchNorm: {}\n",
    )  # fmt: skip


def bundle(folder: Path, runtime: str, network: Network, variant: str = "") -> tuple[Path, Artifact]:
    """The bundle's folder and the artifact that it was made from."""
    (folder / "artifacts").mkdir()
    made = Artifact(RUNTIMES[runtime].export(network, folder / "artifacts"), runtime, variant)
    return write_bundle(folder / "best", made.path, trial(runtime, variant), "# A card\n"), made


def run(*arguments: str, folder: Path) -> str:
    """Run Python in a folder that knows nothing of these tests."""
    environment = {**os.environ, "PYTHONPATH": str(Path(slimline.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_predict_py_gives_the_outputs_of_the_artifact(tmp_path: Path, runtime: str) -> None:
    path, artifact = bundle(tmp_path, runtime, toy())
    images, _ = patterns(5, seed=4)
    np.savez(tmp_path / "data.npz", image=images)
    expected = np.array(open_artifact(artifact, 1).run({"image": images})[0])
    run("-c", SAVE, str(tmp_path / "data.npz"), str(tmp_path / "out.npy"), folder=path.parent)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, rtol=1e-4, atol=1e-5)
    if runtime == "onnxruntime":
        said = run(str(path.parent / "predict.py"), str(tmp_path / "data.npz"), folder=tmp_path)
        assert said.startswith("(5, 4) [[") and f"{expected[0, 0]:.3f}"[:-1] in said


def test_the_variant_is_part_of_predict_py(tmp_path: Path) -> None:
    path, _ = bundle(tmp_path, "openvino", toy(), "bf16")
    assert '"INFERENCE_PRECISION_HINT": "bf16"' in (path.parent / "predict.py").read_text()


def test_the_folder_is_complete_and_its_checksums_hold(tmp_path: Path) -> None:
    path, artifact = bundle(tmp_path, "torch", toy())
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == ["CARD.md", "SHA256SUMS", "network.slim", "predict.py", "recipe.yaml"]
    assert path.read_bytes() == artifact.path.read_bytes()
    assert (path.parent / "CARD.md").read_text() == "# A card\n"
    assert (path.parent / "recipe.yaml").read_text() == "- FoldBatchNorm: {}\n"
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=path.parent, capture_output=True, text=True)
    assert checked.returncode == 0 and checked.stdout.count(": OK") == 4
    (path.parent / "network.slim").write_bytes(b"other")
    assert subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=path.parent, capture_output=True).returncode != 0


def test_weights_beside_the_artifact_come_along(tmp_path: Path) -> None:
    (tmp_path / "network.onnx").write_bytes(b"graph")
    (tmp_path / f"network.onnx{SIDECAR}").write_bytes(b"weights")
    path = write_bundle(tmp_path / "best", tmp_path / "network.onnx", trial("onnxruntime"), "")
    assert path == tmp_path / "best" / "network.onnx"
    assert (path.parent / f"network.onnx{SIDECAR}").read_bytes() == b"weights"


def test_an_older_bundle_and_the_rest_of_an_interrupted_one_are_replaced(tmp_path: Path) -> None:
    for folder in ("best", "best.partial"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "old").touch()
    path, _ = bundle(tmp_path, "torch", toy())
    assert path.exists() and not (path.parent / "old").exists() and not (tmp_path / "best.partial").exists()


def test_the_checksum_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two").write_bytes(b"two")
    (tmp_path / "a").write_bytes(b"one")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"one").hexdigest()
    assert sha256(tmp_path) == hashlib.sha256(b"onetwo").hexdigest()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "network.slim").touch()
    with pytest.raises(SlimlineError, match="The result cannot be written to .*: make room or choose another --out"):
        write_bundle(tmp_path / "file" / "best", tmp_path / "network.slim", trial("torch"), "")
