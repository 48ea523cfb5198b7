"""Any source becomes a network and a task, and every way in which a source can be wrong is told in one sentence."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimline.errors import SlimlineError
from slimline.network.container import save
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.sources.source import load, read_data, read_job, read_source
from slimline.task import Task

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


def test_a_job_may_import_what_lies_beside_it_and_define_classes(tmp_path: Path) -> None:
    job(tmp_path, "import torch\n\nclass Net(torch.nn.Linear):\n    pass\n", "architecture_of_this_test.py")
    text = HEAD + TASK + "from architecture_of_this_test import Net\n\ndef model():\n    return Net(3, 2)\n"
    assert read_job(job(tmp_path, text)).network.history == ["traced from Net"]


def test_all_other_sources(tmp_path: Path) -> None:
    task = Task(validate=(X, Y))
    net = network()
    assert read_source(net, task).network is net and read_source(net, task).task is task
    path = save(net, tmp_path / "net.slim")
    for source in (path, str(path)):
        read = read_source(source, task)
        assert torch.equal(read.network.run({"input": X})[0], net.run({"input": X})[0]) and read.task is task
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
        r"model\(\) returned a list: return a torch module\.",
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


@pytest.mark.parametrize("suffix", [".onnx", ".keras", ".tflite", ".pt2", ".pb"])
def test_formats_that_come_later_say_so(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(b"content")
    with pytest.raises(SlimlineError, match=r"files are not read yet; give a JOB\.py with model\(\) and task\(\)"):
        read_source(path)


@pytest.mark.parametrize("name", ["net.pth", "net.bin", "net", "folder"])
def test_anything_else_is_no_source(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.mkdir() if name == "folder" else path.write_bytes(b"content")
    with pytest.raises(SlimlineError, match=rf"{name} is not a source: give a JOB\.py"):
        read_source(path)


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
