"""Any source becomes a network and a task, and every way in which a source can be wrong is told in one sentence."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from slimline.errors import SlimlineError
from slimline.network.container import save
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.sources.source import load, read_data, read_job, read_source
from slimline.task import Task
from tests.sources.onnx import models

X, Y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
HEAD = "import numpy as np\nimport torch\nimport slimline as sl\n"
TASK = "def task():\n    return sl.Task(validate=(np.ones((60, 3), np.float32), np.zeros(60, np.int64)))\n"
MODEL = "def model():\n    torch.manual_seed(0)\n    return torch.nn.Linear(3, 2)\n"


@pytest.fixture(autouse=True)
def modules_as_before() -> Iterator[None]:
    """Jobs become modules under their file name."""
    before, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - before:
        if not name.startswith(("torch", "sympy", "slimline", "numpy", "_")):
            del sys.modules[name]


def job(folder: Path, text: str, name: str = "my_job.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def network() -> Network:
    torch.manual_seed(0)
    return trace(nn.Linear(3, 2), [X])


def test_a_job_gives_its_model_and_its_task(tmp_path: Path) -> None:
    read = read_source(job(tmp_path, HEAD + TASK + MODEL))
    assert isinstance(read.task, Task) and read.network.input_names == ("input",)
    torch.testing.assert_close(read.network.run({"input": X})[0], network().run({"input": X})[0])
    assert read.network.examples["input"].tolist() == [[1.0] * 3] * 2  # the first samples of the task


def test_a_job_may_give_example_inputs_and_a_network(tmp_path: Path) -> None:
    inputs = "def inputs():\n    return {'input': torch.zeros(5, 3)}\n"
    read = read_job(job(tmp_path, HEAD + TASK + MODEL + inputs))
    assert read.network.examples["input"].shape == (5, 3)
    saved = save(network(), tmp_path / "net.slim")
    read = read_job(job(tmp_path, HEAD + TASK + f"def model():\n    return sl.load({str(saved)!r})\n"))
    assert read.network.history == ["traced from Linear"]


@pytest.mark.parametrize("spelled", ["'net.slim'", "Path('net.slim')", "HERE / 'net.slim'", "str(HERE / 'net.slim')"])
def test_a_job_may_give_the_path_of_a_model_beside_it(spelled: str, tmp_path: Path) -> None:
    save(network(), tmp_path / "net.slim")
    text = HEAD + TASK + "from pathlib import Path\nHERE = Path(__file__).parent\n"
    read = read_source(job(tmp_path, text + f"def model():\n    return {spelled}\n"))
    assert torch.equal(read.network.run({"input": X})[0], network().run({"input": X})[0])
    assert read.task is not None and read.task.score == "accuracy"


def test_the_task_of_a_job_without_one_may_be_given(tmp_path: Path) -> None:
    task = Task(validate=(X, Y))
    read = read_source(job(tmp_path, HEAD + MODEL), task)
    assert read.network.examples["input"].shape == (2, 3) and read.task is not None
    np.testing.assert_array_equal(read.task.validate.labels, Y)
    with pytest.raises(SlimlineError, match=r"defines task\(\), but a task or --data was given too: leave out one"):
        read_source(job(tmp_path, HEAD + MODEL + TASK), task)


def test_a_network_alone_does_not_read_the_data(tmp_path: Path) -> None:
    """Reading a large loader takes minutes."""
    text = HEAD + MODEL + "def task():\n    return sl.Task(validate=Loader())\n"
    text += "class Loader:\n    def __iter__(self):\n        yield torch.ones(4, 3)\n        raise MemoryError\n"
    assert load(job(tmp_path, text)).input_names == ("input",)
    with pytest.raises(SlimlineError, match="validate loader failed: MemoryError"):
        read_source(job(tmp_path, text))


def test_a_job_may_import_what_lies_beside_it_and_define_classes(tmp_path: Path) -> None:
    job(tmp_path, "import torch\n\nclass Net(torch.nn.Linear):\n    pass\n", "architecture_of_this_test.py")
    text = HEAD + TASK + "from architecture_of_this_test import Net\n\ndef model():\n    return Net(3, 2)\n"
    assert read_job(job(tmp_path, text)).network.history == ["traced from Net"]


def test_all_other_sources(tmp_path: Path) -> None:
    task = Task(validate=(X, Y))
    net = network()
    assert read_source(net, task).network is net and read_source(net).task is None
    path = save(net, tmp_path / "net.slim")
    for source in (path, str(path)):
        read = read_source(source, task)
        assert torch.equal(read.network.run({"input": X})[0], net.run({"input": X})[0])
        assert read.task is not None and read.task.score == "accuracy" and read.task.output is not None
    assert read_source(nn.Linear(3, 2), task).network.input_names == ("input",)
    assert load(nn.Linear(3, 2), X).examples["input"].shape == (4, 3)
    assert torch.equal(load(path).run({"input": X})[0], net.run({"input": X})[0])
    assert load(job(tmp_path, HEAD + TASK + MODEL)).input_names == ("input",)


def test_a_missing_file_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    job(tmp_path, HEAD, "mobile_net.py")
    with pytest.raises(SlimlineError, match=r"moblie_net\.py does not exist; did you mean .*mobile_net\.py\."):
        read_source(tmp_path / "moblie_net.py")
    with pytest.raises(SlimlineError, match=r"zzzzzz\.slim does not exist: check the path\."):
        read_source(tmp_path / "zzzzzz.slim")
    with pytest.raises(SlimlineError, match=r"absent/job\.py does not exist: check the path\."):
        read_source(tmp_path / "absent" / "job.py")


WITH_TASK, WITH_MODEL = HEAD + TASK, HEAD + MODEL
DEEP = "def model():\n    x = 1\n    return make()\n\ndef make():\n    return torch.zeros(2) @ torch.zeros(3)\n"
JOBS = {
    "a syntax error": ("x = 1\ndef task(:\n", r"cannot be run: SyntaxError: .*line 2\)"),
    "an error at the top": ("x = 1\n\ny = 1 / 0\n", r"cannot be run: ZeroDivisionError: division by zero \(line 3\)\."),
    "an import that is missing": ("import no_such_package\n", r"cannot be run: ModuleNotFoundError: .*\(line 1\)\."),
    "nothing": ("", r"defines no model\(\): a job has model\(\) -> torch module and task\(\) -> slimline\.Task\."),
    "no task": (WITH_MODEL, r"defines no task\(\)"),
    "no model": (WITH_TASK, r"defines no model\(\)"),
    "a task that is no function": (WITH_MODEL + "task = 3\n", r"defines no task\(\)"),
    "a task that fails": (
        WITH_MODEL + "def task():\n    raise ValueError('no data')\n",
        r"task\(\) failed: ValueError: no data \(line 8\)\.",
    ),
    "a model that fails deep inside": (WITH_TASK + DEEP, r"model\(\) failed: RuntimeError: .*\(line 11\)\."),
    "a model that needs arguments": (
        WITH_TASK + "def model(x):\n    return x\n",
        r"model\(\) failed: TypeError: .*missing 1",
    ),
    "a task of another type": (
        WITH_MODEL + "def task():\n    return 3\n",
        r"task\(\) returned a int: return a slimline\.Task\.",
    ),
    "a task that is forgotten": (WITH_MODEL + "def task():\n    pass\n", r"task\(\) returned a NoneType"),
    "a model of another type": (
        WITH_TASK + "def model():\n    return [1]\n",
        r"model\(\) returned a list: return a torch or Keras model, or the path of a model file\.",
    ),
    "another job as the model": (
        WITH_TASK + "def model():\n    return 'other_job.py'\n",
        r"model\(\) returned another job, other_job\.py: return a torch module or a model file\.",
    ),
    "a model file that is not there": (
        WITH_TASK + "def model():\n    return 'away.slim'\n",
        r"away\.slim does not exist: check the path\.",
    ),
    "a model class": (WITH_TASK + "def model():\n    return torch.nn.Linear\n", r"model\(\) returned a type"),
    "inputs that fail": (
        WITH_TASK + MODEL + "def inputs():\n    return 1 / 0\n",
        r"inputs\(\) failed: ZeroDivisionError.*\(line 10\)",
    ),
    "inputs of another shape": (
        WITH_TASK + MODEL + "def inputs():\n    return torch.zeros(2, 9)\n",
        "Linear cannot be traced",
    ),
    "a wrong setting": (
        WITH_MODEL + "def task():\n    return sl.Task(None, augment='x')\n",
        r"augment='x'\) is unknown",
    ),
}


@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
@pytest.mark.parametrize("case", JOBS)
def test_a_wrong_job_gives_a_sentence(
    case: str, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, sentence = JOBS[case]
    path = job(tmp_path, text)
    if relative:
        monkeypatch.chdir(tmp_path)
        path = Path(path.name)
    with pytest.raises(SlimlineError, match=sentence):
        read_source(path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("net.pth", "is no file that torch writes: give a JOB"),
        ("net.h5", "is Keras' old format: load it in Keras 3"),
        ("net.params", "is of MXNet: write it as ONNX"),
        ("net.pdmodel", "is of PaddlePaddle: write it as ONNX"),
        ("net.safetensors", "holds weights without their network"),
        ("net.onnx", "cannot be imported: it is no ONNX file, or is truncated"),
        ("net", r"is not a source: give a JOB\.py, \.slim, \.onnx"),
        ("folder", r"holds neither a saved_model\.pb nor a config\.json"),
    ],
)
def test_what_cannot_be_read_gives_a_sentence_that_says_what_to_do(name: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_bytes(b"content")
    with pytest.raises(SlimlineError, match=f"{name} {sentence}"):
        read_source(path)


def test_an_object_that_is_no_model_is_refused() -> None:
    with pytest.raises(SlimlineError, match="A dict is not a source: give a torch or Keras model"):
        read_source({})  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["mapping", "pair", "batches", "dict batches", "inputs"])
def test_an_onnx_file_is_traced_with_the_first_samples_of_whatever_the_task_was_given(
    form: str, tmp_path: Path
) -> None:
    """Its second axis is free, so that only data can tell it."""
    node = helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)
    proto = models.model([node], {"x": ["N", "length", 2]}, ["y"], {"axes": np.array([1])})
    path, x, y = models.write(proto, tmp_path), np.ones((40, 5, 2), np.float32), np.zeros(40, np.int64)
    if form == "inputs":
        network = read_source(path, inputs=[torch.from_numpy(x)]).network
    else:
        batches = [(torch.from_numpy(x[i : i + 8]), torch.from_numpy(y[i : i + 8])) for i in range(0, 40, 8)]
        data = {
            "mapping": {"x": x, "labels": y}, "pair": (x, y), "batches": batches,
            "dict batches": [{"x": a, "labels": b} for a, b in batches],
        }[form]  # fmt: skip
        job = read_source(path, Task(validate=data))
        network = job.network
        assert job.file == path
    assert tuple(network.examples["x"].shape) == (2, 5, 2)


def test_a_damaged_slim_file_gives_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "net.slim"
    path.write_bytes(b"content")
    with pytest.raises(SlimlineError, match=r"net\.slim is not a readable \.slim file"):
        read_source(path)


def test_arrays_are_read_from_an_npz_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X.numpy(), labels=Y.numpy())
    read = read_data(tmp_path / "data.npz")
    assert set(read) == {"x", "labels"}
    np.testing.assert_array_equal(read["x"], X.numpy())
    with pytest.raises(SlimlineError, match=r"dta\.npz does not exist; did you mean .*data\.npz"):
        read_data(tmp_path / "dta.npz")


def test_data_that_is_no_npz_file_of_numbers_gives_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X.numpy())
    whole = (tmp_path / "data.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    np.save(tmp_path / "plain.npy", X.numpy())
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    contents = {
        "empty": b"", "short": whole[:10], "half": whole[: len(whole) // 2], "flipped": bytes(flipped),
        "text": b"x,y\n1,2\n", "array": (tmp_path / "plain.npy").read_bytes(),
        "objects": (tmp_path / "objects.npz").read_bytes(),
    }  # fmt: skip
    for name, data in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(data)
        with pytest.raises(SlimlineError, match=rf"{name}\.npz is not a readable \.npz of plain arrays"):
            read_data(path)
