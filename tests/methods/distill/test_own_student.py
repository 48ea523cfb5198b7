"""The student takes the network's place under its names, what does not fit is one sentence, a job may bring it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import slimline as sl
from slimline.errors import SlimlineError
from slimline.methods.distill.own_student import OwnStudent, fitted
from slimline.network.container import save
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.sources.source import read_job
from slimline.task import Task
from tests.methods.distill.students import demo, marks_of_student, relative_error_in_onnxruntime
from tests.toys import patterns, toy, toy_student, toy_task


class Tiny(nn.Module):
    """For the demo's images."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2))
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.layers(x).mean((2, 3)))
        return result


class Two(nn.Module):
    """Two inputs and two outputs."""

    def __init__(self, wide: int = 3) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, wide), nn.Linear(5, 2)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"left": self.left(a), "right": self.right(b)}


class Swapped(nn.Module):
    """The same inputs in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.two = Two()

    def forward(self, b: Tensor, a: Tensor) -> dict[str, Tensor]:
        result: dict[str, Tensor] = self.two(a, b)
        return result


class Backwards(Two):
    """The same outputs, the last one first."""

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return dict(reversed(super().forward(a, b).items()))


class Renamed(Two):
    """Other names for the inputs."""

    def forward(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        return super().forward(first, second)


class One(Two):
    """Only the first of the outputs."""

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"left": self.left(a) + 0 * self.right(b).sum(1, keepdim=True)}


class Whole(Two):
    """Whole numbers where the others answer with real ones."""

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"left": self.left(a).long(), "right": self.right(b)}


def two(module: nn.Module) -> Network:
    return trace(module, {"a": torch.randn(2, 4), "b": torch.randn(2, 5)})


def test_the_student_answers_in_the_place_of_the_network() -> None:
    module = toy_student()
    outcome = OwnStudent().apply(toy(), toy_task())
    x = torch.from_numpy(patterns(9, seed=4)[0])
    with torch.no_grad():
        torch.testing.assert_close(outcome.network.run({"image": x})[0], module.eval()(x))
    assert outcome.network.history == [*toy().history, "traced from Small"] and outcome.changed


def test_a_single_input_and_the_outputs_take_the_names_of_the_original() -> None:
    original, module = demo(), Tiny().eval()
    assert original.input_names == ("image",)
    student = fitted(module, original)
    assert student.input_names == original.input_names and student.output_names == original.output_names
    x = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(student.run({"image": x})[0], module(x))
    as_network = fitted(trace(module, [torch.randn(7, 1, 28, 28)]), original)
    torch.testing.assert_close(as_network.run({"image": x}), student.run({"image": x}))
    assert as_network.examples["image"].shape == original.examples["image"].shape


def test_several_inputs_go_by_name() -> None:
    torch.manual_seed(0)
    original, module = two(Two()), Swapped()
    student = fitted(module, original)
    inputs = {"a": torch.randn(3, 4), "b": torch.randn(3, 5)}
    with torch.no_grad():
        expected = module(inputs["b"], inputs["a"])
    for name, answer in zip(original.output_names, student.run(inputs), strict=True):
        torch.testing.assert_close(answer, expected[name])


def test_a_network_that_is_given_stays_as_it_is() -> None:
    given = fitted(toy_student(), toy())
    ours = {t.data_ptr() for t in given.weights().values()}
    student = fitted(given, toy())
    assert not ours & {t.data_ptr() for t in student.weights().values()}
    assert given.history == [*toy().history, "traced from Small"]


@pytest.mark.parametrize(
    ("student", "sentence"),
    [
        (Renamed(), "Renamed.forward.* cannot take the example inputs"),
        (Two(wide=4), r"output left is float32 of shape \(4,\) per sample, but the network's is .* of shape \(3,\)"),
        (Backwards(), "returns its outputs in the order right, left, but the network in the order left, right"),
        (One(), "The student has 1 outputs and the network 2: return as many"),
        (Whole(), r"output left is int64 of shape \(3,\) per sample, but the network's is float32"),
        (fitted(toy_student(), toy()), "The student has the inputs image, but the network has a, b"),
    ],
    ids=["names", "width", "order", "count", "numbers", "inputs"],
)
def test_what_does_not_fit_is_one_sentence(student: nn.Module | Network, sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence) as caught:
        fitted(student, two(Two()))
    assert str(caught.value).endswith(".")


def test_a_student_for_other_images_is_one_sentence() -> None:
    with pytest.raises(SlimlineError, match=r"input image is float32 of shape \(1, 8, 8\) per sample, but"):
        fitted(fitted(toy_student(), toy()), demo())


def test_without_a_student_it_is_one_sentence() -> None:
    for task in (None, Task(validate={"image": patterns(30, seed=2)[0]})):
        with pytest.raises(SlimlineError, match=r"OwnStudent needs a student: pass Task\(student=module\), or define"):
            OwnStudent().apply(toy(), task)


def test_a_task_keeps_its_student() -> None:
    module = toy_student()
    task = Task(validate={"image": patterns(60, seed=2)[0]}, student=module)
    network = toy()
    for later in (task.read(("image",)), task.decided(network), task.with_original(network)):
        assert later.student is module
    with pytest.raises(SlimlineError, match=r"Task\(student=...\) is a str: give a torch module or a slimline.Network"):
        Task(validate={}, student="small")  # type: ignore[arg-type]


HEAD = """
import numpy as np, torch
import slimline as sl
def model():
    return "toy.slim"
def task():
    return sl.Task(validate={"image": np.ones((60, 1, 8, 8), np.float32)})
"""


def job(folder: Path, text: str) -> Path:
    save(toy(), folder / "toy.slim")
    save(fitted(toy_student(), toy()), folder / "small.slim")
    path = folder / "job_of_a_student.py"
    path.write_text(HEAD + text)
    return path


@pytest.mark.parametrize("spelled", ["'small.slim'", "Module()", "sl.load(FOLDER + '/small.slim')"])
def test_a_job_may_bring_a_student(spelled: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = "from tests.toys import toy_student as Module\n"
    text = f"FOLDER = {str(tmp_path)!r}\n{module}def student():\n    return {spelled}\n"
    read = read_job(job(tmp_path, text))
    assert read.task is not None and isinstance(read.task.student, Network)
    outcome = OwnStudent().apply(read.network, read.task)
    x = {"image": torch.from_numpy(patterns(5, seed=4)[0])}
    torch.testing.assert_close(outcome.network.run(x), fitted(toy_student(), toy()).run(x))


def test_a_job_without_a_student_has_none(tmp_path: Path) -> None:
    read = read_job(job(tmp_path, ""))
    assert read.task is not None and read.task.student is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def student():\n    return 3\n", r"student\(\) returned a int: return a torch or Keras model"),
        ("def student():\n    return 'other.py'\n", r"student\(\) returned another job, other.py"),
        ("def student():\n    return 'away.slim'\n", r"away.slim does not exist"),
        ("def student():\n    return 1 / 0\n", r"student\(\) failed: ZeroDivisionError"),
        (
            "def student():\n    return torch.nn.Identity()\n"
            "old = task\ndef task():\n    return sl.Task(validate=old().validate, student=torch.nn.Identity())\n",
            r"defines student\(\), but its task has a student too: leave out one of them",
        ),
    ],
)
def test_a_wrong_student_of_a_job_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        read_job(job(tmp_path, text))


def test_the_exported_file_answers_as_the_network_does(tmp_path: Path) -> None:
    task = Task(validate=np.ones((30, 1, 28, 28), np.float32), student=Tiny())
    assert relative_error_in_onnxruntime(OwnStudent().apply(demo(), task).network, tmp_path) <= 1e-4


def test_distillation_trains_it_from_nothing() -> None:
    before, after = marks_of_student(sl.OwnStudent())
    assert before.accuracy < 0.6 and after.accuracy >= 0.95 and after.error < 0.5 * before.error
