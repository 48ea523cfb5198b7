import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import slimline.errors
from slimline.errors import SlimlineError
from slimline.runtimes import openvino as openvino_file
from slimline.runtimes.registry import RUNTIMES, available_runtimes, get_runtime, open_artifact
from slimline.runtimes.runtime import Artifact
from tests.runtimes.networks import Residual, exported, images, traced

OPEN_WITHOUT_TORCH = """
import json, sys
from pathlib import Path
import numpy as np
from slimline.runtimes.registry import open_artifact
from slimline.runtimes.runtime import Artifact
runner = open_artifact(Artifact(Path(sys.argv[1]), sys.argv[2]), 1)
runner.run({"x": np.zeros((1, 3, 12, 12), np.float32)})
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_names_match_the_keys() -> None:
    assert {name: runtime.name for name, runtime in RUNTIMES.items()} == {
        "torch": "torch",
        "onnxruntime": "onnxruntime",
        "openvino": "openvino",
    }


def test_an_unknown_runtime_is_told_with_the_nearest_name() -> None:
    with pytest.raises(
        SlimlineError, match=r"'onnx-runtime'.*torch, onnxruntime, openvino; did you mean 'onnxruntime'\?"
    ):
        get_runtime("onnx-runtime")
    with pytest.raises(SlimlineError, match=r"use one of torch, onnxruntime, openvino\.$"):
        get_runtime("zzz")


def test_a_missing_package_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_file, "find_spec", lambda name: None)
    usable, reasons = available_runtimes()
    assert [runtime.name for runtime in usable] == ["torch", "onnxruntime"]
    assert list(reasons) == ["openvino"] and "pip install slimline[openvino]" in reasons["openvino"]
    with pytest.raises(SlimlineError, match="pip install slimline"):
        open_artifact(Artifact(Path("m.onnx"), "openvino"), 1)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_bad_artifacts_are_told_in_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    with pytest.raises(SlimlineError, match=r"bad\.onnx does not exist"):
        open_artifact(Artifact(path, name), 1)
    path.write_bytes(b"not a model at all")
    with pytest.raises(SlimlineError, match=r"bad\.onnx"):
        open_artifact(Artifact(path, name), 1)
    with pytest.raises(SlimlineError, match="no variant 'fp8'"):
        open_artifact(Artifact(path, name, "fp8"), 1)
    with pytest.raises(SlimlineError, match="0 threads"):
        open_artifact(Artifact(path, name), 0)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_running_an_onnx_artifact_imports_neither_torch_nor_the_other_runtime(name: str, tmp_path: Path) -> None:
    artifact = exported(traced(Residual()), name, tmp_path)
    here = str(Path(slimline.errors.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", OPEN_WITHOUT_TORCH, str(artifact.path), name],
        env={"PYTHONPATH": here, "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(json.loads(done.stdout.splitlines()[-1]))
    assert name in imported
    assert not imported & ({"torch", "onnx", "onnxscript", "onnxruntime", "openvino"} - {name})


@pytest.mark.parametrize("name", list(RUNTIMES))
def test_a_runner_does_not_mind_how_its_input_lies_in_memory(name: str, tmp_path: Path) -> None:
    runner = open_artifact(exported(traced(Residual()), name, tmp_path), 1)
    x = images(4)
    expected = np.array(runner.run({"x": np.ascontiguousarray(x[::2])})[0])
    locked = np.ascontiguousarray(x[::2])
    locked.flags.writeable = False
    for same in (x[::2], locked, np.asfortranarray(x[::2])):
        np.testing.assert_allclose(np.array(runner.run({"x": same})[0]), expected, rtol=1e-5, atol=1e-6)
