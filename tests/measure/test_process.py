"""The worker's protocol, run on a stub runtime and on ONNX Runtime, and what happens when a worker misbehaves."""

import importlib.util
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slimline.errors import SlimlineError
from slimline.measure.latency import RacePlan, race
from slimline.measure.memory import runner_memory
from slimline.measure.process import RunnerProcess
from slimline.measure.score import artifact_outputs
from slimline.runtimes.runtime import Artifact

SOURCE = Path(__file__).parents[2] / "src"
HAS_REGISTRY = importlib.util.find_spec("slimline.runtimes.registry") is not None

STUB = """
import os, sys, types
import numpy as np
registry = types.ModuleType("slimline.runtimes.registry")

class Stub:
    seen = []
    def run(self, inputs):
        print("a runtime that prints")           # to Python's stdout
        os.write(1, b"and one that is in C\\n")    # and to the descriptor itself
        x = inputs["x"]
        Stub.seen.append(x[:, 0].tolist())
        {body}
        return [2 * x, x.sum(axis=1)]

def open_artifact(artifact, threads):
    if artifact.variant == "refused":
        from slimline.errors import SlimlineError
        raise SlimlineError("the variant refused is not known: use fast")
    return Stub()

registry.open_artifact = open_artifact
sys.modules["slimline.runtimes.registry"] = registry
from slimline.measure.worker import main
main()
"""

StubProcess = Callable[..., RunnerProcess]


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    path = tmp_path / "network.onnx"
    path.write_bytes(b"stub")
    return Artifact(path, "onnxruntime")


@pytest.fixture
def stub(artifact: Artifact) -> StubProcess:
    def make(body: str = "pass", variant: str = "") -> RunnerProcess:
        code = STUB.replace("{body}", body)
        chosen = Artifact(artifact.path, artifact.runtime, variant)
        return RunnerProcess(chosen, 2, command=(sys.executable, "-c", code))

    return make


def samples(n: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(n * 3, dtype=np.float32).reshape(n, 3)}


def test_bursts_and_outputs_of_a_runtime_that_prints(stub: StubProcess) -> None:
    with stub() as process:
        process.load(samples(10))
        seconds = process.burst(calls=7, batch=4, first=8)
        assert seconds.shape == (7,) and (seconds > 0).all()
        doubled, total = process.outputs(batch=4)  # 4 + 4 + 2
        np.testing.assert_array_equal(doubled, 2 * samples(10)["x"])
        np.testing.assert_array_equal(total, samples(10)["x"].sum(axis=1))
        assert process.peak_memory() >= process.start_memory > 5_000_000


def test_bursts_walk_through_the_samples_and_begin_again(stub: StubProcess) -> None:
    with stub(body="return [x * 0 + np.float32(len(Stub.seen)), np.array([Stub.seen[0]] * len(x))]") as process:
        process.load({"x": np.arange(5, dtype=np.float32)[:, None]})
        process.burst(calls=1, batch=4, first=3)
        assert process.outputs(batch=5)[1][0].tolist() == [3, 4, 0, 1]


def test_the_time_is_that_of_the_runner(stub: StubProcess) -> None:
    with stub(body="import time; time.sleep(0.02)") as process:
        process.load(samples(4))
        assert (process.burst(3) >= 0.02).all()


def test_peak_memory_sees_what_a_run_allocates(stub: StubProcess) -> None:
    with stub(body="np.ones(25_000_000)") as process:  # 200 MB, freed at once
        process.load(samples(2))
        before = process.peak_memory()
        process.burst(1)
        assert process.peak_memory() - before > 190_000_000


def test_any_input_name_and_several_inputs(stub: StubProcess) -> None:
    with stub(body="return [x + inputs['file'] + inputs['a/b.1']]") as process:
        process.load({"x": np.ones((4, 1)), "file": np.ones((4, 1)), "a/b.1": np.ones((4, 1))})
        assert process.outputs()[0].tolist() == [[3.0]] * 4


def test_errors_of_the_runtime_come_back_as_one_sentence(stub: StubProcess) -> None:
    with pytest.raises(SlimlineError, match="the variant refused is not known"), stub(variant="refused"):
        pass
    with stub(body="raise ValueError('wrong\\nshape')") as process:
        process.load(samples(2))
        with pytest.raises(SlimlineError, match=r"onnxruntime could not run .*network\.onnx: ValueError: wrong shape"):
            process.burst(1)
        assert process.peak_memory() > 0  # the worker survives it


def test_misuse_is_refused(stub: StubProcess) -> None:
    with stub(body="return [np.float32(1)]") as process:
        with pytest.raises(SlimlineError, match="samples"):
            process.burst(1)
        with pytest.raises(SlimlineError, match="same number"):
            process.load({"x": np.ones((2, 1)), "y": np.ones((3, 1))})
        with pytest.raises(SlimlineError, match="Python objects"):
            process.load({"x": np.array([[object()]])})
        process.load(samples(2))
        with pytest.raises(SlimlineError, match="first axis must be theirs"):
            process.outputs()
    with pytest.raises(SlimlineError, match="not running"):
        process.burst(1)


def test_a_worker_that_dies_is_reported_with_its_last_words(stub: StubProcess) -> None:
    body = "print('out of luck', file=sys.stderr, flush=True); os._exit(3)"
    with stub(body=body) as process:
        process.load(samples(2))
        with pytest.raises(SlimlineError, match=r"ended early; it last said: .*out of luck"):
            process.burst(1)
        with pytest.raises(SlimlineError, match="ended early"):
            process.peak_memory()


def test_a_worker_that_hangs_is_given_up(stub: StubProcess) -> None:
    with stub(body="import time; time.sleep(60)") as process:
        process.load(samples(2))
        process.timeout = 1.5  # only now: a busy machine may take longer to start
        with pytest.raises(SlimlineError, match=r"said nothing for 1\.5 s"):
            process.burst(1)


def test_slow_outputs_are_no_hang_while_batches_arrive(stub: StubProcess) -> None:
    with stub(body="import time; time.sleep(0.6)") as process:
        process.load(samples(5))
        process.timeout = 2.0
        assert len(process.outputs(batch=1)[0]) == 5  # 3 s in all, a sign of life after each second


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("print('hello')", "answered b'hello' instead of JSON"),
        ("print('[1]')", "instead of JSON"),
        ("print('{}')", "without 'peak_bytes'"),
        ("import sys; sys.exit('no numpy here')", "ended early; it last said: no numpy here"),
    ],
)
def test_rubbish_is_an_error(artifact: Artifact, code: str, what: str) -> None:
    with (
        pytest.raises(SlimlineError, match=what),
        RunnerProcess(artifact, 1, timeout=20, command=(sys.executable, "-c", code)),
    ):
        pass


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_no_process_is_left_behind(stub: StubProcess) -> None:
    # The runtime starts a process of its own and tells both ids.
    body = (
        "import subprocess; child = subprocess.Popen(['sleep', '60']); "
        "return [np.array([[os.getpid(), child.pid, os.getsid(0)]])]"
    )
    with pytest.raises(KeyboardInterrupt), stub(body=body) as process:
        process.load(samples(1))
        worker, child, session = (int(v) for v in process.outputs()[0][0])
        assert session == worker != os.getsid(0)  # Ctrl-C in our terminal does not reach it
        assert alive(worker) and alive(child)
        raise KeyboardInterrupt
    deadline = time.monotonic() + 5
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(worker) and not alive(child)


def test_the_worker_does_not_import_torch() -> None:
    code = "import sys, slimline.measure.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, check=False).returncode == 0


@pytest.fixture
def tiny(tmp_path: Path) -> Artifact:
    """y = relu(x W), a real ONNX file with a free batch axis."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    if not HAS_REGISTRY:
        pytest.skip("slimline.runtimes.registry is not there")
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["z"]), onnx.helper.make_node("Relu", ["z"], ["y"])],
        "tiny",
        [onnx.helper.make_tensor_value_info("x", kind, ["batch", 3])],
        [onnx.helper.make_tensor_value_info("y", kind, ["batch", 2])],
        [onnx.numpy_helper.from_array(WEIGHT, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "tiny.onnx"
    onnx.save(model, path)
    return Artifact(path, "onnxruntime")


WEIGHT = np.array([[1, -1], [2, 0.5], [-3, 1]], dtype=np.float32)


def test_a_real_artifact_from_end_to_end(tiny: Artifact) -> None:
    x = np.random.default_rng(0).normal(size=(37, 3)).astype(np.float32)
    (y,) = artifact_outputs(tiny, {"x": x}, threads=1, batch=16)
    np.testing.assert_allclose(y, np.maximum(x @ WEIGHT, 0), rtol=1e-6)
    memory = runner_memory(tiny, {"x": x}, threads=1)
    assert memory.unit == "bytes" and memory.value > 20_000_000
    plan = RacePlan(launches=(1, 1), rounds=2, target_width=1.0, burst_seconds=0.002, warmup_seconds=0.01)
    both = race({"a": tiny, "b": tiny}, {"x": x}, plan, threads=1)
    assert both.latency("a").value > 0 and both.ratio("a", "b").n == 1


def test_running_onnx_does_not_import_torch(tiny: Artifact) -> None:
    code = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        import numpy as np
        from slimline.runtimes.registry import open_artifact
        from slimline.runtimes.runtime import Artifact

        artifact = Artifact(Path({str(tiny.path)!r}), "onnxruntime")
        open_artifact(artifact, 1).run({{"x": np.ones((1, 3), dtype=np.float32)}})
        sys.exit("torch" in sys.modules)
        """
    )
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, check=False).returncode == 0


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    if not HAS_REGISTRY:
        pytest.skip("slimline.runtimes.registry is not there")
    with pytest.raises(SlimlineError, match=r"gone\.onnx"):
        artifact_outputs(Artifact(tmp_path / "gone.onnx", "onnxruntime"), {"x": np.ones((1, 3), dtype=np.float32)}, 1)
